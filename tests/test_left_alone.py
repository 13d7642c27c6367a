"Learners put together at random: a search for a learning rate changes none of what they hold"
import pytest,torch
from hypothesis import HealthCheck,given,settings,strategies as st
from contextlib import nullcontext
from functools import partial
from fastai.basics import *
from fastai.callback.all import *
from fastai_anneal.all import *
from helpers import *
from parts import *

MODELS = {'net': net, 'dropout': lambda: nn.Sequential(nn.Linear(8,16), nn.BatchNorm1d(16), nn.Dropout(.3), nn.Linear(16,3)), **LAZY}
CALLBACKS = {'none': lambda: None, 'clip': GradientClip, 'accumulate': lambda: GradientAccumulation(32), 'average': lambda: Average(types.SimpleNamespace()),
             'foreign': lambda: Average(foreign_class())}

def learners():
    "What a random learner is made of"
    return st.fixed_dictionaries(dict(
        model=st.sampled_from(sorted(MODELS)), opt=st.sampled_from(sorted(OPT_FUNCS)), loss=st.sampled_from(['plain', *sorted(LOSSES)]),
        loader=st.sampled_from(['plain', *sorted(set(LOADERS)-{'workers that stay'})]), cb=st.sampled_from(sorted(CALLBACKS)), own=st.booleans()))

def make(parts):
    set_seed(0, True)
    loss_func = CrossEntropyLossFlat() if parts['loss']=='plain' else LOSSES[parts['loss']]()
    dls = data() if parts['loader']=='plain' else DataLoaders(LOADERS[parts['loader']](), torch_loader())
    own = parts['own'] and parts['model'] in ('net','dropout')
    model = MODELS[parts['model']]()
    if own: learn = MineOfAny(dls, model, loss_func=loss_func, opt_func=OPT_FUNCS[parts['opt']])
    else: learn = Learner(dls, model, loss_func, OPT_FUNCS[parts['opt']])
    learn.add_cbs(CALLBACKS[parts['cb']]())
    return silent(learn)

class MineOfAny(TrainLearner):
    "A teacher that follows in `step`, and a list"
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.teacher,self.norms = deepcopy(self.model),[]
    def step(self):
        self.opt.step()
        self.norms.append(len(self.norms))
        for p,q in zip(self.teacher.parameters(), self.model.parameters()): p.data.lerp_(q.data, .1)

def held(learn):
    "What a learner holds besides what `fingerprint` sees"
    average = next((cb.holder for cb in learn.cbs if isinstance(cb, Average)), None)
    return deepcopy(dict(kinds=[type(m).__name__ for m in learn.model.modules()], teacher=hasattr(learn, 'teacher') and list(learn.teacher.parameters()),
                         norms=getattr(learn, 'norms', None), average=getattr(average, 'shadow', None), n=getattr(average, 'n', None)))

RANDOM = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)

@RANDOM
@given(learners(), st.booleans())
def test_a_fit_after_a_search_is_the_same_fit(parts, trained):
    def run(search):
        learn = make(parts)
        if trained: learn.fit(1, 1e-2)
        if search: learn.lr_find(show_plot=False, num_it=12)
        learn.fit(1, 1e-2)
        return weights(learn),held(learn)
    a,b = run(False),run(True)
    assert_same(a, b)

EVENTS = ['before_batch', 'after_pred', 'after_loss', 'before_step', 'after_batch']

@RANDOM
@given(learners(), st.sampled_from(EVENTS), st.integers(1,8), st.sampled_from([KeyboardInterrupt, RuntimeError, CancelFitException]))
def test_a_search_that_ends_anyhow_changes_nothing(parts, event, nth, error):
    def stop(learn): raise error('x')
    learn = make(parts)
    learn.fit(1, 1e-2)
    learn.add_cb(On(event, stop, nth=nth))
    before = held(learn),weights(learn),[p.grad is None for p in learn.model.parameters()]
    with pytest.raises((KeyboardInterrupt, RuntimeError)) if error is not CancelFitException else nullcontext():
        learn.lr_find(show_plot=False, num_it=12)
    assert_same(before, (held(learn), weights(learn), [p.grad is None for p in learn.model.parameters()]))
