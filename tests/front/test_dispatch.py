"TrainLearner calls the same events as fastai's Learner, in the same order, with the same errors, whatever happens to the callbacks"
from unittest.mock import patch as mock_patch

import pytest
from fastai.callback.all import *
from fastai.callback.core import _inner_loop
from fastai.learner import CastToTensor
from fastai_anneal import dispatch
from fastai_anneal.learner import TrainLearner
from fastai.basics import *
from helpers import *

pytestmark = pytest.mark.filterwarnings('ignore')
EVENTS = [e for e in dir(event) if e.startswith(('before_','after_')) and e!='after_create']
CANCELS = dict(batch=CancelBatchException, backward=CancelBackwardException, step=CancelStepException, train=CancelTrainException,
               validate=CancelValidException, epoch=CancelEpochException, fit=CancelFitException)

def learner(cls=TrainLearner, **kwargs): return small_learner(partial(sums, 12, 8), cls=cls, lr=.01, metrics=mae, **kwargs)

def tracer(log, do=None, name='Tracer', order=0, **attrs):
    "A callback that logs each event, then calls `do(cb, event)`"
    def handler(ev):
        def f(self):
            log.append((name, ev, getattr(self, 'training', None), getattr(self, 'iter', None)))
            if do: do(self, ev)
        return f
    return type(name, (Callback,), {**{e: handler(e) for e in (*EVENTS,'after_create')}, 'order': order, **attrs})()

def run(cls, do=None, n_epoch=2, cbs=None, what=lambda learn,n: learn.fit(n), **attrs):
    "What three tracers hear of a training with `cls`, the error that comes out, the weights, and the learner"
    log,error = [],None
    cbs = [tracer(log, name='Early', order=-20), tracer(log, do, **attrs), tracer(log, name='Late', order=70), *(cbs(log) if cbs else [])]
    learn = learner(cls, cbs=cbs)
    try: what(learn, n_epoch)
    except (Exception,KeyboardInterrupt) as e: error = type(e),str(e)
    return log,error,weights(learn),learn

def same(make_do=lambda: None, **kwargs):
    "Run fastai's learner and ours, insist on the same, and return ours; `make_do` makes a fresh `do` for each"
    fastais,ours = [run(cls, make_do(), **kwargs) for cls in (Learner,TrainLearner)]
    assert_same(ours[:3], fastais[:3])
    return ours

def once(at, f, n=1):
    "A `do` that calls `f(cb)` the `n`th time that event `at` comes"
    def make():
        seen = []
        def do(cb, ev):
            seen.append(ev)
            if ev==at and seen.count(at)==n: f(cb)
        return do
    return make

def raises(error):
    def f(cb): raise error
    return f

# ---- events

def test_events_of_a_fit(): assert {e for _,e,*_ in same()[0]}>={'before_fit','after_pred','after_step','after_validate','after_fit'}

@pytest.mark.parametrize('ev', EVENTS)
@pytest.mark.parametrize('cancel', CANCELS.values())
def test_cancel(ev, cancel): same(once(ev, raises(cancel), 2), n_epoch=1 if ev in _inner_loop else 2)

@pytest.mark.parametrize('what', [lambda l,n: l.validate(), lambda l,n: l.get_preds(with_loss=True, with_input=True),
    lambda l,n: l.fit_one_cycle(n, 1e-2), lambda l,n: l(['before_fit','before_epoch']), lambda l,n: l('nonsense'),
    lambda l,n: l(['before_fit','nonsense']), lambda l,n: l('before_fit'), lambda l,n: l([])])
def test_other_ways_through_the_loop(what): same(what=what)

def test_unknown_event():
    with pytest.raises(Exception, match='missing before_btch'): learner()('before_btch')

# ---- flags

@pytest.mark.parametrize('flags', [dict(run_train=False), dict(run_valid=False), dict(run_train=False, run_valid=False), dict(run=False)])
def test_run_flags(flags): same(**flags)

def test_run_flags_are_read_live():
    def do(cb, ev):
        if ev=='after_pred': cb.learn.late.run = not cb.learn.late.run
        if ev=='after_batch': cb.run_valid,cb.run_train = cb.run_train,True
    same(lambda: do)

@pytest.mark.parametrize('cls', [Learner,TrainLearner])
def test_run_is_reset_after_fit(cls):
    class Quiet(Callback): pass
    def do(cb, ev):
        if ev=='before_train': cb.run = False
    learn = learner(cls, cbs=[Quiet(), tracer([], do)])
    learn.quiet.run = False
    learn.fit(1)
    assert learn.tracer.run and learn.quiet.run and learn.recorder.run

def test_training_of_its_own():
    "A callback whose own attribute `training` says otherwise, as fastai reads it"
    same(once('before_train', lambda cb: setattr(cb, 'training', False)), run_train=False)

# ---- the list of callbacks changes

def _append(learn, cb): cb.learn = learn; learn.new = cb; learn.cbs.append(cb)
def _new_list(learn, cb): cb.learn = learn; learn.new = cb; learn.cbs = L(cb)+learn.cbs
def _insert(learn, cb): cb.learn = learn; learn.new = cb; learn.cbs.items.insert(0, cb)

@pytest.mark.parametrize('at,undo', [('before_fit',None), ('before_batch',None), ('after_loss','after_step'), ('before_step','after_batch'),
    ('after_batch','after_epoch'), ('before_batch','after_pred'), ('before_validate','after_pred'), ('after_epoch','before_train')])
@pytest.mark.parametrize('add', [lambda learn,cb: learn.add_cb(cb), _append, _new_list, _insert])
def test_added_and_removed_during_fit(at, undo, add):
    def grow(cls):
        log = []
        def do(cb, ev):
            if ev==at and not hasattr(cb.learn, 'new'): add(cb.learn, tracer(log, name='New', order=5))
            if ev==undo and hasattr(cb.learn, 'new'): cb.learn.remove_cb(cb.learn.new)
        return log,run(cls, do)[:2]
    ours = grow(TrainLearner)
    assert ours[0]
    assert_same(ours, grow(Learner))

def test_replaced_by_an_equal_one():
    "Two callbacks that claim to be equal are still two"
    class Equal(Callback):
        def __init__(self, n): self.n = n
        def __eq__(self, o): return True
        __hash__ = None
        def after_pred(self): log.append(self.n)
    def swap(learn):
        new = Equal(2)
        new.learn = learn
        learn.cbs.items[[type(cb) for cb in learn.cbs].index(Equal)] = new
    for cls in (Learner,TrainLearner):
        log = []
        learner(cls, cbs=[Equal(1), On('after_loss', swap)]).fit(1)
        assert log==[1,2,2,2,2]

def test_order_changed_during_fit():
    def flip(cb, ev):
        if ev=='after_pred': cb.order = -cb.order or 99
    same(lambda: flip)
    def overtake(cb, ev):
        if ev=='after_pred' and cb.learn.iter==1: cb.learn.late.order = -100
    same(lambda: overtake)

# ---- handlers

def test_handlers_on_instances():
    def heard(cls):
        log = []
        class Quiet(Callback): pass
        def do(cb, ev):
            quiet = cb.learn.quiet
            if ev=='after_pred' and cb.learn.iter==1: quiet.after_loss = lambda: log.append('set')
            if ev=='after_loss' and cb.learn.iter==2: quiet.after_loss = lambda: log.append('changed')
            if ev=='after_loss' and cb.learn.iter==0 and 'after_loss' in vars(quiet): del quiet.after_loss
        learner(cls, cbs=[Callback(before_batch=lambda self: log.append('kw')), Quiet(), tracer([], do, order=-1)]).fit(1)
        return log
    assert {'kw','set','changed'}<=set(heard(TrainLearner))
    assert heard(TrainLearner)==heard(Learner)

def test_patched_classes():
    "A handler patched onto a class, known or not before, between fits"
    class Mine(Callback):
        def after_pred(self): log.append('old')
    log,learn = [],learner(cbs=Mine())
    learn.fit(1)
    Mine.after_pred,Mine.after_loss = lambda self: log.append('new'),lambda self: log.append('loss')
    log.clear()
    learn.fit(1)
    assert log==['new','loss']*5
    with mock_patch.object(Recorder, 'after_batch', lambda self: log.append('rec')), mock_patch.object(Recorder, 'after_epoch', noop):
        log.clear()
        learn.fit(1)
    assert log==['new','loss','rec']*5

def test_subclass_and_instance_of_a_default_callback():
    log = []
    class MyRecorder(Recorder):
        name = 'recorder'
        def after_batch(self): log.append(1); super().after_batch()
    learn = learner()
    learn.remove_cb(Recorder)
    learn.add_cb(MyRecorder())
    learn.fit(1)
    assert log==[1]*5
    learn = learner()
    orig = learn.recorder.after_batch
    learn.recorder.after_batch = lambda: (log.append(2), orig())
    learn.fit(1)
    assert log.count(2)==5

def test_own_call_and_own_default_are_honoured():
    class Asks(Callback):
        order = 7
        def __init__(self, log): self.log = log
        def __call__(self, ev): self.log.append(ev)
    class Outer(Callback):
        _default = 'inner'
        def __init__(self, inner): self.inner = inner
    class Inner:
        def __init__(self, log): self.log = log
        def after_loss(self): self.log.append('loss')
        def before_step(self): self.log.append('step')
    log = same(cbs=lambda log: [Asks(log), Outer(Inner(log))])[0]
    assert 'loss' in log and 'before_step' in log

def test_a_model_with_a_method_named_like_an_event_is_no_callback():
    learn = learner()
    learn.model.before_batch = lambda: pytest.fail('the model is not a callback')
    learn.fit(1)

# ---- errors

@pytest.mark.parametrize('at', [e for e in EVENTS if 'cancel' not in e])
@pytest.mark.parametrize('error', [ValueError('what'), KeyError('k'), RuntimeError(3,4)])
def test_errors_name_callback_and_event(at, error):
    message = same(lambda: once(at, raises(type(error)(*error.args)))())[1][1]
    assert 'Tracer' in message and at in message

@pytest.mark.parametrize('error', [ValueError, AssertionError, StopIteration, NotImplementedError])
@pytest.mark.parametrize('at', ['before_fit','after_loss','after_fit'])
def test_errors_without_a_message_stay_what_they_are(error, at):
    learn = learner(cbs=tracer([], once(at, raises(error()))()))
    with pytest.raises(error, match=f'`Tracer` when calling event `{at}`:\n\t{error.__name__}'): learn.fit(1)

@pytest.mark.parametrize('at', EVENTS)
def test_an_interrupt_leaves_a_usable_learner(at):
    def make():
        left = [KeyboardInterrupt]
        def do(cb, ev):
            if left and 'cancel' in at and ev==at.replace('after_cancel','before'): raise CANCELS[at[13:]]
            if ev==at and left: raise left.pop()
        return do
    log,error,_,learn = same(make)
    assert error[0] is KeyboardInterrupt
    log.clear()
    learn.fit(1)
    assert [o[:2] for o in log]==[o[:2] for o in run(TrainLearner, n_epoch=1)[0] if o[1]!='after_create']
    assert len(learn.recorder.values)==1 and not hasattr(learn, 'batch')

# ---- what is remembered is not remembered too long

def test_a_model_replaced_within_an_epoch():
    class Swap(Callback):
        def after_batch(self):
            if not self.training or self.iter!=1: return
            self.learn.model = deepcopy(self.model)
            self.learn.model.train()
            self.learn.create_opt()
    def trained(cls):
        learn = learner(cls, cbs=Swap())
        learn.fit(2)
        return weights(learn)
    assert_same(trained(TrainLearner), trained(Learner))

def test_lists_and_tensor_subclasses_in_batches():
    class Batches:
        device = torch.device('cpu')
        def __init__(self, batches): self.dataset = batches
        def __iter__(self): return iter(self.dataset)
        def __len__(self): return len(self.dataset)
    def dls():
        x = torch.randn(16, 4)
        batches = [[TensorBase(a),TensorBase(a.sum(1, keepdim=True))] for a in x.split(8)]
        res = DataLoaders(Batches(batches), Batches(batches))
        res.n_in,res.c = 4,1
        return res
    def trained(cls, cast):
        learn = small_learner(dls, cls=cls, metrics=mae)
        if not cast: learn.remove_cb(CastToTensor)
        learn.fit(2)
        return weights(learn),learn.recorder.losses,learn.recorder.values
    for cast in (True,False): assert_same(trained(TrainLearner, cast), trained(Learner, cast))
