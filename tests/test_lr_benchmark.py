"The benchmark of learning rates: many rates at once are what a learner does, one after the other"
import sys
from functools import partial

import pytest
from helpers import ROOT

pytest.importorskip('sklearn')

@pytest.fixture
def stack(monkeypatch):
    monkeypatch.syspath_prepend(ROOT/'benchmarks')
    import lr_stack
    yield lr_stack
    for path in (ROOT/'benchmarks').glob('*.py'): sys.modules.pop(path.stem, None)

@pytest.mark.parametrize('opt', ['Adam','adamw','sgdm','Lamb'])
def test_rates_at_once(stack, opt):
    is_normed = opt!='adamw' # its epsilon lets the noise of a bias before a norm grow
    rates,net = [1e-3,.01,.1],partial(stack.mlp, 13, 8, 3, bn=is_normed)
    task = stack.Training('dev', stack.rows('wine', 58, bs=16), net, getattr(stack, opt), 3)
    at_once = stack.Stack(task.learn(0), rates).fit_one_cycle(task.n_epoch)
    for rate,loss in zip(rates, at_once):
        learn = task.learn(0)
        with learn.no_bar(),learn.no_logging(): task.fit(learn, rate)
        assert loss==pytest.approx(learn.recorder.values[-1][1], rel=1e-3)

def test_a_rule_is_judged(stack, monkeypatch):
    import lr_regret
    truth = dict(lrs=[.001,.01,.1], untrained={'0': 2.}, losses={'0': [1.,.5,None]})
    monkeypatch.setattr(lr_regret, 'TRUTH', {'a': truth})
    judged = {lr: lr_regret.judged('a', lr_regret.Pick(lr, 90, .001, .02)) for lr in (.001,.01,.1,float('nan'))}
    assert [round(judge.excess, 6) for judge in judged.values()]==[1.,0.,3.,3.]
    assert [judge.is_lost for judge in judged.values()]==[False,False,True,True]
    assert all(judge.is_within for judge in judged.values())
