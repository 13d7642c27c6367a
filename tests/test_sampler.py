"The Optuna sampler: Optuna's own suite, replay, resume, workers, faults"
import pytest
optuna = pytest.importorskip('optuna')
from optuna.testing.pytest_samplers import BasicSamplerTestCase,RelativeSamplerTestCase,SingleOnlySamplerTestCase
from fastai_anneal.sampler import *

class TestOptunasOwn(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture(params=[dict(), dict(screen=None), dict(n_startup=0, n_chains=2, n_trials=8)], ids=str)
    def sampler(self, request): return lambda: SimAnnealSampler(seed=0, **request.param)
