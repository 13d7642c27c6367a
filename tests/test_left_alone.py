"Learners put together at random: a search changes none of what they hold, a fit that was stopped goes on as if nothing had been"
import os,warnings
import pytest,torch
from copy import deepcopy
from tempfile import TemporaryDirectory
from hypothesis import HealthCheck,Phase,given,settings,strategies as st
from contextlib import nullcontext
from functools import partial
from fastai.basics import *
from fastai.callback.all import *
from fastai.callback.rnn import ModelResetter
from fastai_anneal.all import *
from helpers import *
from parts import *

EXTRAS = {'none': lambda: None, 'clip': GradientClip, 'accumulate': lambda: GradientAccumulation(32), 'mixup': MixUp, **CALLBACKS}
NOT_RANDOM = {'workers that stay','one worker'} # they take a second
OWN = {'net','dropout','tied','no buffers'} # models that a teacher can be copied from

def learners():
    "What a random learner is made of"
    return st.fixed_dictionaries(dict(
        model=st.sampled_from(sorted(MODELS)), opt=st.sampled_from([*sorted(OPT_FUNCS), 'lookahead']), loss=st.sampled_from(['plain', *sorted(LOSSES)]),
        loader=st.sampled_from(['plain', *sorted(set(LOADERS)-NOT_RANDOM)]), cb=st.sampled_from(sorted(EXTRAS)), own=st.booleans()))

def make(parts, path=None):
    set_seed(0, True)
    loss_func = CrossEntropyLossFlat() if parts['loss']=='plain' else LOSSES[parts['loss']]()
    dls = data() if parts['loader']=='plain' else DataLoaders(LOADERS[parts['loader']](), torch_loader())
    opt = partial(OptimWrapper, opt=partial(Lookahead, lr=1e-2)) if parts['opt']=='lookahead' else OPT_FUNCS[parts['opt']]
    cls = MineOfAny if parts['own'] and parts['model'] in OWN else Learner
    learn = cls(dls, MODELS[parts['model']](), loss_func=loss_func, opt_func=opt, path=path)
    does_fit = parts['loss']=='plain' if parts['cb']=='mixup' else parts['model'] not in LAZY if parts['cb']=='swa' else True
    if does_fit: learn.add_cbs(EXTRAS[parts['cb']]())
    if parts['model']=='recurrent': learn.add_cb(ModelResetter())
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

EXAMPLES = int(os.environ.get('FASTAI_ANNEAL_EXAMPLES', 8)) # of each test; the same ones each time
RANDOM = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True,
                  phases=[Phase.generate]) # nothing is shrunk: that takes minutes

@RANDOM
@given(learners(), st.booleans())
def test_a_fit_after_a_search_is_the_same_fit(parts, trained):
    def run(search):
        learn = make(parts)
        if trained: learn.fit(1, 1e-2)
        if search: learn.lr_find(show_plot=False, num_it=12)
        learn.fit(1, 1e-2)
        return weights(learn),held(learn)
    assert_same(run(False), run(True))

EVENTS = ['before_batch', 'after_pred', 'after_loss', 'before_step', 'after_batch']

@RANDOM
@given(learners(), st.sampled_from(EVENTS), st.integers(1,8), st.sampled_from([KeyboardInterrupt, RuntimeError, CancelFitException]))
def test_a_search_that_ends_anyhow_changes_nothing(parts, event, nth, error):
    def stop(learn): raise error('x')
    def state(learn): return held(learn),weights(learn),[p.grad is None for p in learn.model.parameters()]
    learn,other = make(parts),make(parts)
    learn.fit(1, 1e-2)
    learn.add_cb(On(event, stop, nth=nth))
    before = state(learn)
    with pytest.raises((KeyboardInterrupt, RuntimeError)) if error is not CancelFitException else nullcontext():
        learn.lr_find(show_plot=False, num_it=12)
    assert_same(before, state(learn))

def stopped_and_resumed(make, stops, every, folder):
    "What `make()` is after four epochs that were stopped after so many batches, each time to go on as another learner"
    for i,at in enumerate([*stops, None]):
        learn = make(folder)
        if (folder/'models'/'c.pth').exists(): set_seed(i) # another process has other random numbers
        cbs = [] if every is None else [Checkpoint('c', every)]
        with pytest.raises(KeyboardInterrupt) if at is not None else nullcontext():
            learn.fit(4, 1e-2, cbs=[*cbs, StopAt(at)])
    return weights(learn),held(learn)

@RANDOM
@given(learners(), st.lists(st.integers(1,15), max_size=2, unique=True).map(sorted), st.sampled_from(['1it','3it','1ep']))
def test_a_fit_that_is_stopped_goes_on_as_if_nothing_had_been(parts, stops, every):
    with TemporaryDirectory() as folder:
        whole = stopped_and_resumed(partial(make, parts), [], None, Path(folder))
        assert_same(whole, stopped_and_resumed(partial(make, parts), stops, every, Path(folder)))

def without_acceptance(make, tries):
    learn = make()
    hps = SimAnnealHP({'wd': LogFloat(1e-4, 1)}, every='2it', seed=0, accept=lambda *args: 0.)
    learn.fit(3, 1e-2, cbs=[hps] if tries else [])
    assert not tries or hps.n_trained
    return weights(learn),held(learn)

@RANDOM
@given(learners())
def test_candidates_that_are_not_accepted_were_never_tried(parts):
    assert_same(without_acceptance(partial(make, parts), False), without_acceptance(partial(make, parts), True))

# each kind once

PLAIN = dict(model='net', opt='adam', loss='plain', loader='plain', cb='none', own=False)
KINDS = [(key, kind) for key,kinds in dict(model=MODELS, loss=LOSSES, cb=CALLBACKS, opt=['adamw','lookahead']).items() for kind in kinds]
KINDS += [('own',True)]+[('loader', kind) for kind in LOADERS if kind!='workers that stay']

@pytest.mark.parametrize('key,kind', KINDS)
def test_each_kind(key, kind, tmp_path):
    make_it = partial(make, {**PLAIN, key: kind})
    whole = stopped_and_resumed(make_it, [], None, tmp_path)
    assert_same(whole, stopped_and_resumed(make_it, [3,9], '1it', tmp_path))
    assert_same(*[without_acceptance(make_it, tries) for tries in (False,True)])

@pytest.mark.parametrize('lr,warns', [(1.,True), (1e-4,False), (5e-4,False), (1e-3,False), (1e-5,True)])
def test_a_start_outside_of_the_space_is_said(lr, warns):
    learn = make(PLAIN)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        learn.fit(2, lr, cbs=SimAnnealHP({'lr': LogFloat(1e-4, 1e-3)}, seed=0))
    assert any(f'lr starts at {lr:g}, outside of' in str(w.message) for w in caught)==warns
