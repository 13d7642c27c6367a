"A refused fit leaves the learner as it was, by whichever method it was asked for"
import inspect
import pytest,torch
from copy import deepcopy
from functools import partial
from fastai.basics import *
from fastai.callback.all import *
from fastai_anneal.core.refusing import *
from helpers import *

class Fussy(RefusingCallback):
    "Refuses every fit, or the second one"
    def __init__(self, second=False): self.second,self.n = second,0
    def before_fit(self):
        self.n += 1
        if self.n>self.second:
            with refusing(self.learn): raise ValueError('not today')

METHODS = {'fit': (3,.7), 'fit_one_cycle': (3,.7), 'fit_flat_cos': (3,.7), 'fit_sgdr': (2,1,.7), 'fine_tune': (2,.7)}
OPTS = ['adam', 'adamw']

def learner(opt, trained, frozen):
    learn = small_learner(opt=opt, splitter=groups_by_layer)
    if trained: learn.fit(1, 1e-2)
    if frozen: learn.freeze_to(-2)
    return learn

def state(learn):
    opt = learn.opt
    held = None if opt is None else (opt.frozen_idx, [dict(h) for h in opt.hypers], opt.state_dict()['state'])
    return deepcopy((weights(learn), [p.requires_grad for p in learn.model.parameters()], held, [cb.name for cb in learn.cbs],
                     vars(learn.recorder).get('losses')))

@pytest.mark.parametrize('on_learner', [False,True])
@pytest.mark.parametrize('frozen', [False,True])
@pytest.mark.parametrize('trained', [False,True])
@pytest.mark.parametrize('opt', OPTS)
@pytest.mark.parametrize('method', METHODS)
def test_a_refused_fit_changes_nothing(method, opt, trained, frozen, on_learner):
    learn = learner(opt, trained, frozen)
    if on_learner: learn.add_cb(Fussy())
    before = state(learn)
    with pytest.raises(ValueError, match='not today'): getattr(learn, method)(*METHODS[method], cbs=None if on_learner else Fussy())
    assert_same(before, state(learn))

@pytest.mark.parametrize('frozen', [False,True])
def test_what_was_trained_stays(frozen):
    learn = learner('adam', True, frozen)
    before,flags = weights(learn),[p.requires_grad for p in learn.model.parameters()]
    with pytest.raises(ValueError, match='not today'): learn.fine_tune(2, .1, cbs=Fussy(second=True))
    assert not torch.equal(before, weights(learn)) and [p.requires_grad for p in learn.model.parameters()]==flags

def test_an_error_is_no_refusal():
    learn = learner('adam', True, False)
    def fail(learn): raise ValueError('in the middle')
    with pytest.raises(ValueError, match='in the middle'): learn.fine_tune(1, .1, cbs=On('before_batch', fail))
    assert not list(learn.model.parameters())[0].requires_grad

def test_the_methods_say_what_they_take():
    for method in METHODS: assert 'cbs' in inspect.signature(getattr(Learner, method)).parameters
