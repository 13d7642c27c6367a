"A fit with SimAnnealHP that was killed ends bit for bit as one that was not"
import math
from functools import partial
import pytest
from fastai.basics import *
from fastai_anneal.annealing.space import *
from fastai_anneal.fit.simanneal import SimAnnealHP
from fastai_anneal.schedule.checkpoint import Checkpoint
from helpers import *
from .common import *

def learner(path, **kwargs): return small_learner(blobs, width=16, lr=1e-3, metrics=accuracy, path=path, **kwargs)
def in_fit(learn): return learn.training and not learn.sim_anneal_hp.in_trial
def killed_at(n): return RaiseAt(lambda learn: n and in_fit(learn) and learn.train_iter==n, RuntimeError('killed'), 'after_batch')

def assert_same_fits(a, sa, b, sb):
    assert torch.equal(weights(a), weights(b))
    pd.testing.assert_frame_equal(sa.history, sb.history)
    assert (sa.n_trained,sa.scores,sa.log)==(sb.n_trained,sb.scores,sb.log)

@pytest.mark.parametrize('every', ['1ep','3it'])
@pytest.mark.parametrize('at', [20,37,48,70,84,95])
def test_a_killed_fit_goes_on(at, every, tmp_path):
    def one(n=None, name='a'):
        learn,sa = learner(tmp_path, dropout=0.),SimAnnealHP({**LR, 'wd': LogFloat(1e-4,.1)}, seed=0)
        learn.fit(6, cbs=[sa, Checkpoint(name, every), killed_at(n)])
        return learn,sa
    ref = one(name='ref')
    with pytest.raises(RuntimeError, match='killed'): one(at)
    assert_same_fits(*ref, *one())
    assert not list(tmp_path.glob('models/*.pth'))

@pytest.mark.parametrize('opt', ['sgd','adam','adamw'])
@pytest.mark.parametrize('every', ['1ep','5it'])
def test_it_goes_back_as_far(opt, every, tmp_path):
    "The state to go back to after a divergence is in the file"
    def poison(learn):
        if not (in_fit(learn) and learn.train_iter==40): return
        for p in learn.model.parameters(): p.data.fill_(math.nan)
    def one(n=None, name='a'):
        learn,sa = learner(tmp_path, opt=opt, dropout=.2),SimAnnealHP(LR, seed=0)
        learn.fit(5, cbs=[sa, Checkpoint(name, every), On('after_batch', poison, order=1999), killed_at(n)])
        return learn,sa
    learn,sa = one(name='ref')
    with pytest.raises(RuntimeError, match='killed'): one(37)
    again = one()
    assert 'recover' in set(sa.history.stage) and math.isfinite(valid_loss(again[0]))
    assert_same_fits(learn, sa, *again)

def fit_with_file(path, kill=None, **kwargs):
    learn = learner(path, opt='sgd', dropout=0.)
    stop = On('after_epoch', lambda learn: learn.epoch==kill and raise_killed(), order=2000)
    learn.fit(6, cbs=[SimAnnealHP(LR, seed=0, accept=always), Checkpoint('a', **kwargs), stop])
    return learn

def raise_killed(): raise RuntimeError('killed')

@pytest.mark.parametrize('damage', [b'', b'garbage', 'half'])
def test_damaged_checkpoint(tmp_path, damage):
    "The file before it takes its place, and the fit ends as if nothing had happened; without one it is an error that says so"
    a = fit_with_file(tmp_path)
    with pytest.raises(RuntimeError, match='killed'): fit_with_file(tmp_path, 4)
    file = tmp_path/'models'/'a.pth'
    file.write_bytes(file.read_bytes()[:file.stat().st_size//2] if damage=='half' else damage)
    damaged = file.read_bytes()
    with pytest.warns(UserWarning, match='a.previous.pth'): b = fit_with_file(tmp_path)
    assert torch.equal(weights(a), weights(b)) and not list(tmp_path.glob('models/*.pth'))
    file.write_bytes(damaged)
    with pytest.raises(ValueError, match='damaged'): fit_with_file(tmp_path)

def test_two_generations_on_the_disk(tmp_path):
    fit_with_file(tmp_path, keep=True)
    a,b = [torch.load(tmp_path/'models'/name, weights_only=False) for name in ('a.previous.pth','a.pth')]
    assert (a['epoch'],a['iter'])<(b['epoch'],b['iter'])
