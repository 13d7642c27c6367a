"""TrainLearner: the same events, the same numbers, the same errors as fastai's Learner, and five methods to override"""
import contextlib,io,pickle,warnings
from copy import deepcopy
from unittest.mock import patch as mock_patch

import cloudpickle,pytest
from fastcore.test import *
from fastai.basics import *
from fastai.callback.all import *
from fastai.callback.core import _events,_inner_loop
from fastai.learner import CastToTensor
from fastai_anneal.learner import TrainLearner
import fastai_anneal.learner as L_

pytestmark = pytest.mark.filterwarnings('ignore')
both = pytest.mark.parametrize('cls', [Learner,TrainLearner])
CANCELS = [CancelBatchException, CancelBackwardException, CancelEpochException, CancelFitException, CancelStepException,
           CancelTrainException, CancelValidException]

class Ds(list):
    def new_empty(self): return Ds()

def mk_dls(n=3, nv=2, bs=8, device='cpu'):
    set_seed(0, reproducible=True)
    def dl(k):
        x = torch.randn(k*bs, 6)
        return TfmdDL(Ds(zip(x, (x.sum(1)>0).long())), bs=bs, shuffle=k==n, num_workers=0)
    return DataLoaders(dl(n), dl(nv), device=torch.device(device))

def mk(cls=TrainLearner, dls=None, **kw):
    dls = dls or mk_dls()
    set_seed(1, reproducible=True)
    model = nn.Sequential(nn.Linear(6,8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(.1), nn.Linear(8,2))
    kw = {**dict(loss_func=CrossEntropyLossFlat(), metrics=accuracy, lr=1e-2), **kw}
    learn = cls(dls, model, **kw)
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

def tracer(log, do=None, name='Tracer', order=0, **attrs):
    "A callback that logs each event, then calls `do(cb, event)`"
    def handler(ev):
        def f(self):
            log.append((name, ev, getattr(self, 'training', None), getattr(self, 'iter', None)))
            if do: do(self, ev)
        return f
    return type(name, (Callback,), {**{e: handler(e) for e in _events}, 'order': order, **attrs})()

def run(cls, do=None, n_epoch=2, cbs=None, what=lambda l,n: l.fit(n), **attrs):
    "What a tracer sees, and the error that comes out, of a training with `cls`"
    log,err = [],None
    learn = mk(cls, cbs=[tracer(log, name='Early', order=-20), tracer(log, do, **attrs), tracer(log, name='Late', order=70)]+(cbs() if cbs else []))
    try: what(learn, n_epoch)
    except (Exception,KeyboardInterrupt) as e: err = type(e),str(e)
    return log,err,[p.detach().clone() for p in learn.model.parameters()],learn

def same(do=None, **kw):
    a,b = run(Learner, do, **kw),run(TrainLearner, do, **kw)
    test_eq(a[0], b[0]); test_eq(a[1], b[1])
    assert all(torch.equal(p,q) for p,q in zip(a[2],b[2]))
    return b

## Events

def test_events_of_a_fit():
    log = same()[0]
    assert {e for _,e,*_ in log}>={'before_fit','after_pred','after_step','after_validate','after_fit'}

@pytest.mark.parametrize('ev', [e for e in _events if e!='after_create'])
@pytest.mark.parametrize('ex', CANCELS)
def test_cancel(ev, ex):
    def mk_do():
        seen = []
        def do(cb, e):
            seen.append(e)
            if e==ev and seen.count(e)==2: raise ex
        return do
    n = 1 if ev in _inner_loop else 2
    a,b = run(Learner, mk_do(), n),run(TrainLearner, mk_do(), n)
    test_eq(a[:2], b[:2])
    assert all(torch.equal(p,q) for p,q in zip(a[2],b[2]))

@pytest.mark.parametrize('what', [lambda l,n: l.validate(), lambda l,n: l.get_preds(with_loss=True, with_input=True), lambda l,n: l.fit_one_cycle(n, 1e-2),
                                  lambda l,n: l.lr_find(num_it=6, show_plot=False), lambda l,n: l(['before_fit','before_epoch']), lambda l,n: l('nonsense'),
                                  lambda l,n: l(['before_fit','nonsense']), lambda l,n: l('before_fit'), lambda l,n: l([])])
def test_other_ways_through_the_loop(what, tmp_path): same(what=lambda l,n: (setattr(l,'path',tmp_path), what(l,n)))

def test_unknown_event(): 
    with pytest.raises(Exception, match='missing before_btch'): mk()('before_btch')

@pytest.mark.parametrize('flags', [dict(run_train=False), dict(run_valid=False), dict(run_train=False,run_valid=False), dict(run=False)])
def test_run_flags(flags): same(**flags)

def test_run_flags_are_read_live():
    def do(cb, ev):
        if ev=='after_pred': cb.learn.late.run = not cb.learn.late.run
        if ev=='after_batch': cb.run_valid,cb.run_train = cb.run_train,True
    same(do)

def test_run_is_reset_after_fit():
    def do(cb, ev):
        if ev=='before_train': cb.run = False
    for cls in (Learner,TrainLearner):
        learn = mk(cls, cbs=[Quiet(), tracer([], do)])
        learn.quiet.run = False
        learn.fit(1)
        assert learn.tracer.run and learn.quiet.run and learn.recorder.run

class Quiet(Callback): pass

def test_training_of_its_own():
    "A callback whose own attribute `training` says otherwise, as fastai reads it"
    def do(cb, ev):
        if ev=='before_train': cb.training = False
    same(do, run_train=False)

## The list of callbacks changes

def grow(cls, at, how, undo=None):
    log = []
    def do(cb, ev):
        if ev==at and (cb.epoch if at!='before_fit' else 0)==0 and not hasattr(cb.learn, 'new'): how(cb.learn, tracer(log, name='New', order=5))
        if ev==undo and hasattr(cb.learn, 'new'): cb.learn.remove_cb(cb.learn.new)
    res = run(cls, do)
    return res[0],log,res[1]

@pytest.mark.parametrize('at,undo', [('before_fit',None),('before_batch',None),('after_loss','after_step'),('before_step','after_batch'),('after_batch','after_epoch'),
                                     ('before_batch','after_pred'),('before_validate','after_pred'),('after_epoch','before_train')])
@pytest.mark.parametrize('how', [lambda l,cb: l.add_cb(cb), lambda l,cb: (setattr(cb,'learn',l), setattr(l,'new',cb), l.cbs.append(cb)),
                                 lambda l,cb: (setattr(cb,'learn',l), setattr(l,'new',cb), setattr(l,'cbs',L(cb)+l.cbs)),
                                 lambda l,cb: (setattr(cb,'learn',l), setattr(l,'new',cb), l.cbs.items.insert(0, cb))])
def test_added_and_removed_during_fit(at, undo, how):
    a,b = grow(Learner, at, how, undo),grow(TrainLearner, at, how, undo)
    assert a[1], 'the new callback has to be called for the test to say something'
    test_eq(a, b)

def test_replaced_by_an_equal_one():
    "Two callbacks that claim to be equal are still two"
    for cls in (Learner,TrainLearner):
        log = []
        class Eq(Callback):
            def __init__(self, n): self.n = n
            def __eq__(self, o): return True
            __hash__ = None
            def after_pred(self): log.append(self.n)
        learn = mk(cls, cbs=Eq(1))
        def swap(cb, ev):
            if ev=='after_loss':
                new = Eq(2); new.learn = cb.learn
                i = next(i for i,o in enumerate(cb.learn.cbs.items) if type(o) is Eq)
                cb.learn.cbs.items[i] = new
        learn.add_cb(tracer([], swap))
        learn.fit(1)
        test_eq(log, [1,2,2,2,2])

def test_order_changed_during_fit():
    def do(cb, ev):
        if ev=='after_pred': cb.order = -cb.order or 99
    same(do)
    def do(cb, ev):
        if ev=='after_pred' and cb.learn.iter==1: cb.learn.late.order = -100
    same(do)

def test_handlers_on_instances():
    for cls in (Learner,TrainLearner):
        log = []
        idle = Callback(before_batch=lambda self: log.append('kw'))
        learn = mk(cls, cbs=[idle, Quiet()])
        def do(cb, ev):
            q = cb.learn.quiet
            if ev=='after_pred' and cb.learn.iter==1: q.after_loss = lambda: log.append('set')
            if ev=='after_loss' and cb.learn.iter==2: q.after_loss = lambda: log.append('changed')
            if ev=='after_loss' and cb.learn.iter==0 and 'after_loss' in q.__dict__: del q.after_loss
        learn.add_cb(tracer([], do, order=-1))
        learn.fit(1)
        if cls is Learner: expected = log
    test_eq(log, expected)
    assert {'kw','set','changed'}<=set(log)

def test_patched_classes():
    "A handler patched onto a class, known or not before, between fits and at the start of an epoch"
    class Mine(Callback):
        def after_pred(self): log.append('old')
    log,learn = [],mk(cbs=Mine())
    learn.fit(1)
    Mine.after_pred,Mine.after_loss = lambda self: log.append('new'),lambda self: log.append('loss')
    log.clear(); learn.fit(1)
    test_eq(log, ['new','loss']*5)
    with mock_patch.object(L_.Recorder, 'after_batch', lambda self: log.append('rec')), mock_patch.object(L_.Recorder, 'after_epoch', noop):
        log.clear(); learn.fit(1)
    test_eq(log, ['new','loss','rec']*5)

def test_subclass_and_instance_of_a_default_callback():
    log = []
    class MyRec(Recorder):
        name = 'recorder'
        def after_batch(self): log.append(1); super().after_batch()
    learn = mk(); learn.remove_cb(Recorder); learn.add_cb(MyRec())
    learn.fit(1)
    test_eq(len(log), 5)
    learn = mk(); orig = learn.recorder.after_batch
    learn.recorder.after_batch = lambda: (log.append(2), orig())
    learn.fit(1)
    test_eq(log.count(2), 5)

def test_own_call_is_honoured():
    def go(cls):
        log = []
        class Asks(Callback):
            def __call__(self, ev): log.append(ev)
        mk(cls, cbs=Asks()).fit(1)
        return log
    test_eq(go(TrainLearner), go(Learner))

def test_own_default_is_honoured():
    "A callback that passes on to another one"
    def go(cls):
        log = []
        class Outer(Callback):
            _default='inner'
            def __init__(self, inner): self.inner = inner
        class Inner:
            def after_loss(self): log.append('loss')
            def before_step(self): log.append('step')
        mk(cls, cbs=Outer(Inner())).fit(1)
        return log
    test_eq(go(TrainLearner), go(Learner)); assert go(TrainLearner)

def test_model_with_a_method_named_like_an_event():
    "fastai calls it once per callback without a handler; a callback answers only for itself here"
    class M(nn.Linear):
        n = 0
        def after_pred(self): M.n += 1
    learn = mk(); learn.model = M(6,2); learn.fit(1)
    test_eq(M.n, 0)

## Errors

def boom(ex, at='after_loss'):
    def do(cb, ev):
        if ev==at: raise ex
    return do

@pytest.mark.parametrize('at', [e for e in _events if 'cancel' not in e and e!='after_create'])
def test_error_names_callback_and_event(at):
    for mk_ex in (lambda: ValueError('what'), lambda: KeyError('k'), lambda: RuntimeError(3,4)): same(lambda cb,ev: boom(mk_ex(), at)(cb,ev))

@pytest.mark.parametrize('ex', [ValueError, AssertionError, StopIteration, NotImplementedError])
@pytest.mark.parametrize('at', ['before_fit','after_loss','after_fit'])
def test_error_without_a_message(ex, at):
    learn = mk(cbs=tracer([], boom(ex(), at)))
    with pytest.raises(ex, match=f'`Tracer` when calling event `{at}`:\n\t{ex.__name__}'): learn.fit(1)

@pytest.mark.parametrize('at', [e for e in _events if e!='after_create'])
def test_interrupt_leaves_a_usable_learner(at):
    def mk_do():
        left = [KeyboardInterrupt]
        def do(cb, ev):
            if ev=='after_loss' and at=='after_cancel_batch' and left: raise CancelBatchException
            if at.startswith('after_cancel') and ev==at.replace('after_cancel','before') and left:
                raise dict(batch=CancelBatchException, backward=CancelBackwardException, step=CancelStepException, train=CancelTrainException,
                           validate=CancelValidException, epoch=CancelEpochException, fit=CancelFitException)[at[13:]]
            if ev==at and left: raise left.pop()
        return do
    log,err,_,learn = same_interrupt(mk_do)
    assert err[0] is KeyboardInterrupt
    log.clear(); learn.fit(1)
    test_eq(learn._phase, None); test_eq(learn._in_batch, False)
    fresh = run(TrainLearner, n_epoch=1)[0]
    test_eq([o[:2] for o in log], [o[:2] for o in fresh if o[1]!='after_create'])

def same_interrupt(mk_do):
    a,b = run(Learner, mk_do()),run(TrainLearner, mk_do())
    test_eq(a[:2], b[:2])
    return b

## Bitwise parity

def fit(cls, go, dls=None, **kw):
    learn = mk(cls, dls and dls(), **kw)
    set_seed(2, reproducible=True)
    go(learn)
    r = learn.recorder
    opt = learn.opt.state_dict()
    return dict(w=[v.clone() for v in learn.model.state_dict().values()], losses=torch.stack(r.losses) if r.losses else None, lrs=r.lrs, values=[list(v) for v in r.values],
                iters=r.iters, hps={k: np.array(v) for k,v in getattr(r, 'hps', {}).items()}, rng=torch.get_rng_state(), pct=learn.pct_train,
                it=learn.train_iter, smooth=learn.smooth_loss, opt=[v for s in (opt['state'].values() if isinstance(opt['state'],dict) else opt['state']) for v in s.values() if isinstance(v, Tensor)])

def flat(o): return [o] if not isinstance(o, (dict,list,tuple)) else sum(map(flat, o.values() if isinstance(o, dict) else o), [])
def assert_same(a, b):
    fa,fb = flat(a),flat(b)
    test_eq(len(fa), len(fb))
    for p,q in zip(fa,fb):
        if isinstance(p, Tensor): assert type(p) is type(q) and p.dtype==q.dtype and torch.equal(p,q)
        elif isinstance(p, np.ndarray): assert np.array_equal(p,q)
        else: assert type(p) is type(q) and p==q, (p,q)

OPTS = dict(adam=Adam, sgd=SGD, mom=partial(SGD, mom=.9), rms=RMSProp, radam=RAdam, qh=QHAdam, larc=Larc, lamb=Lamb, ranger=ranger,
            torch_adam=partial(OptimWrapper, opt=torch.optim.Adam), torch_sgd=partial(OptimWrapper, opt=torch.optim.SGD))
@pytest.mark.parametrize('opt', OPTS)
def test_parity_optimizers(opt):
    go = lambda l: l.fit(3)
    assert_same(fit(Learner, go, opt_func=OPTS[opt]), fit(TrainLearner, go, opt_func=OPTS[opt]))

def split2(m): return L(m[:2], m[2:]).map(params)
CBS = dict(none=lambda: [], accumulate=lambda: GradientAccumulation(20), clip=lambda: GradientClip(.1), mixup=lambda: MixUp(.4), label_mix=lambda: [MixUp(.4),GradientAccumulation(16)],
           bn=lambda: BnFreeze(), stop=lambda: EarlyStoppingCallback(patience=0, min_delta=9), nan=lambda: TerminateOnNaNCallback(), short=lambda: ShortEpochCallback(.5),
           train_metrics=lambda: Setup(lambda l: setattr(l.recorder, 'train_metrics', True)), no_valid=lambda: Setup(lambda l: setattr(l.recorder, 'valid_metrics', False)),
           no_cast=lambda: Setup(lambda l: l.remove_cb(CastToTensor)), stats=lambda: ActivationStats(), hooks=lambda: HookCallback(hook=lambda m,i,o: o.mean(), every=2),
           schedule=lambda: ParamScheduler(dict(lr=SchedCos(1e-2, 1e-4), wd=SchedLin(0., .1))), plateau=lambda: ReduceLROnPlateau(patience=0, min_delta=9),
           cast_bf16=lambda: MixedPrecision('bf16'), fetch=lambda: FetchPredsCallback(), cancel=lambda: CancelSome())
class Setup(Callback):
    order=-99
    def __init__(self, f): self.f = f
    def after_create(self): self.f(self.learn)
class CancelSome(Callback):
    def before_backward(self):
        if self.iter==0: raise CancelBackwardException
    def before_step(self):
        if self.iter==1: raise CancelStepException
    def after_pred(self):
        if self.iter==2: raise CancelBatchException
@pytest.mark.parametrize('cbs', CBS)
def test_parity_callbacks(cbs):
    go = lambda l: l.fit(3)
    assert_same(fit(Learner, go, cbs=CBS[cbs]()), fit(TrainLearner, go, cbs=CBS[cbs]()))

def _frozen(l): l.freeze(); l.fit(1); l.unfreeze(); l.fit(1, slice(1e-4,1e-2))
def _interrupted(l):
    l.fit(1)
    with l.added_cbs(Callback(after_step=lambda self: (_ for _ in ()).throw(CancelFitException()))): l.fit(1)
    l.fit(1, reset_opt=True)
WAYS = dict(one_cycle=lambda l: l.fit_one_cycle(3, 1e-2), fine_tune=lambda l: l.fine_tune(2), flat=lambda l: l.fit_flat_cos(2), sgdr=lambda l: l.fit_sgdr(2,1), frozen=_frozen,
            twice=lambda l: (l.fit(1), l.validate(), l.fit(1, wd=.1)), skip=lambda l: l.fit(3, start_epoch=1), interrupted=_interrupted)
@pytest.mark.parametrize('way', WAYS)
def test_parity_ways_to_fit(way): assert_same(fit(Learner, WAYS[way], splitter=split2), fit(TrainLearner, WAYS[way], splitter=split2))

def test_parity_lr_find(tmp_path):
    go = lambda l: (l.lr_find(num_it=12, show_plot=False), l.fit(1)) # fastai's finder, or ours once its module is imported, which leaves no record
    assert_same(fit(Learner, go, path=tmp_path), fit(TrainLearner, go, path=tmp_path))

def test_parity_of_preds_and_tta():
    a,b = mk(Learner),mk()
    for l in (a,b): set_seed(3, reproducible=True); l.fit(1)
    for f in (lambda l: l.get_preds(with_loss=True, with_input=True, with_decoded=True), lambda l: l.validate(), lambda l: l.get_preds(ds_idx=0), lambda l: l.get_preds(dl=[l.dls.valid.one_batch()[:1]])):
        assert_same(f(a), f(b))

def test_tensor_subclasses_and_lists_in_batches():
    def dls():
        set_seed(0)
        x,y = torch.randn(16,6),torch.randint(2,(16,))
        bs = [[TensorBase(a),TensorBase(b)] for a,b in zip(x.split(8), y.split(8))]
        class Dl:
            dataset,device = bs,torch.device('cpu')
            def __iter__(self): return iter(bs)
            def __len__(self): return len(bs)
        return DataLoaders(Dl(), Dl())
    go = lambda l: l.fit(2)
    assert_same(fit(Learner, go, dls), fit(TrainLearner, go, dls))
    assert_same(fit(Learner, go, dls, cbs=CBS['no_cast']()), fit(TrainLearner, go, dls, cbs=CBS['no_cast']()))

def test_other_callbacks(tmp_path):
    for cls in (Learner,TrainLearner):
        l = mk(cls, path=tmp_path/cls.__name__, cbs=[CSVLogger(), SaveModelCallback()])
        l.add_cbs([ProgressCallback(), ShowGraphCallback()])
        l.path.mkdir()
        with contextlib.redirect_stdout(io.StringIO()): l.fit(2)
    strip = lambda c: pd.read_csv(tmp_path/c/'history.csv').drop(columns='time')
    test_eq(strip('Learner'), strip('TrainLearner'))

## The five methods

class Mini(TrainLearner):
    "miniai's five lines"
    def predict(self): self.preds = self.model(self.batch[0])
    def get_loss(self): self.loss = self.loss_func(self.preds, self.batch[1])
    def backward(self): self.loss.backward()
    def step(self): self.opt.step()
    def zero_grad(self): self.opt.zero_grad()

@pytest.mark.parametrize('cbs', ['none','accumulate','clip','mixup','label_mix','cancel','cast_bf16'])
def test_miniai_overrides_train_bitwise_the_same(cbs):
    go = lambda l: l.fit_one_cycle(2)
    assert_same(fit(Learner, go, cbs=CBS[cbs]()), fit(Mini, go, cbs=CBS[cbs]()))

@pytest.mark.parametrize('name', 'predict get_loss backward step zero_grad'.split())
def test_each_method_alone(name):
    n = []
    one = type('One', (TrainLearner,), {name: lambda self: (n.append(1), getattr(super(one, self), name)())[1]})
    go = lambda l: l.fit(1)
    assert_same(fit(Learner, go), fit(one, go))
    test_eq(len(n), 5 if name in ('predict','get_loss') else 3)

def test_calls_in_order_with_events():
    log = []
    ns = {n: (lambda n: lambda self: (log.append(n), getattr(super(cls_, self), n)())[1])(n) for n in 'predict get_loss backward step zero_grad'.split()}
    cls_ = type('Loud', (TrainLearner,), ns)
    learn = mk(cls_, dls=mk_dls(1,1), cbs=type('T', (Callback,), {e: (lambda e: lambda self: log.append(e))(e) for e in _events})())
    learn.fit(1)
    i = log.index('before_batch')
    test_eq(log[i:i+13], 'before_batch predict after_pred get_loss after_loss before_backward backward after_backward before_step step after_step zero_grad after_batch'.split())

class ToPenalty(TrainLearner):
    def get_loss(self):
        super().get_loss()
        self.loss = self.loss + .1*sum((p**2).sum() for p in self.model.parameters())
class InPlace(TrainLearner):
    def get_loss(self):
        super().get_loss()
        self.loss += .1*sum((p**2).sum() for p in self.model.parameters())
class ToGrad(TrainLearner):
    def get_loss(self): self.loss_grad = self.loss_func(self.pred, *self.yb) + .1*sum((p**2).sum() for p in self.model.parameters())
class Whole(TrainLearner):
    def get_loss(self): self.loss = self.loss_func(self.preds, *self.yb) + .1*sum((p**2).sum() for p in self.model.parameters())

def test_a_penalty_added_any_way_is_trained_on_and_recorded():
    rs = [fit(c, lambda l: l.fit(2)) for c in (Whole,ToPenalty,InPlace,ToGrad)]
    for r in rs[1:]: assert_same(rs[0], r)
    assert not torch.equal(rs[0]['losses'], fit(TrainLearner, lambda l: l.fit(2))['losses'])

def test_train_on_one_loss_record_another():
    class Two(TrainLearner):
        def get_loss(self):
            self.loss_grad = self.loss_func(self.preds, *self.yb)
            self.loss = self.loss_grad*0 + 7
    a,b = fit(Two, lambda l: l.fit(1)),fit(Learner, lambda l: l.fit(1))
    assert_same(a['w'], b['w']); test_close(a['losses'], torch.full((3,), 7.), 1e-4)

def test_backward_sees_what_callbacks_made_of_the_loss():
    seen = []
    class See(TrainLearner):
        def backward(self): seen.append((self.loss.item(), self.loss is self.loss_grad)); self.loss.backward()
    class Scale(Callback):
        def before_backward(self): self.learn.loss_grad = self.loss_grad*1024
        def after_backward(self): seen.append(self.learn.loss.item())
    learn = mk(See, cbs=Scale()); learn.fit(1)
    for (a,is_),b in zip(seen[::2], seen[1::2]): assert is_; test_close(a, b*1024)

def test_batch_and_preds():
    class Look(TrainLearner):
        def get_loss(self):
            assert self.preds is self.pred and len(self.batch)==2 and self.batch[0] is self.xb[0] and self.batch[1] is self.yb[0]
            assert isinstance(self.batch, tuple)
            super().get_loss()
    class Change(Callback):
        def before_batch(self): self.learn.xb = (self.x*0,)
        def after_pred(self): test_eq(self.learn.batch[0].abs().sum(), 0); self.learn.preds = self.learn.preds+1; assert self.learn.pred is self.learn.preds
        def before_step(self): self.learn.batch = (self.y,self.x); assert self.learn.xb[0] is self.learn.batch[0]
    mk(Look, cbs=Change()).fit(1)
    assert not hasattr(mk(), 'batch') and not hasattr(mk(), 'preds')

def test_no_shadowing_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        l = mk(); l.fit(1, cbs=FetchPredsCallback()); l.get_preds(); l.validate(); l.get_preds(with_loss=True)
        l.fit(1, cbs=ShortEpochCallback(.1)); l.get_preds()

@pytest.mark.parametrize('name,what', [('predict','self.preds'),('get_loss','self.loss')])
def test_a_method_that_sets_nothing(name, what):
    learn = mk(type('Lazy', (TrainLearner,), {name: lambda self: torch.zeros(8)}))
    with pytest.raises(RuntimeError, match=f'Lazy.{name}.*{what}'): learn.fit(1)

## predict's two meanings

def tab():
    from fastai.tabular.all import TabularDataLoaders,tabular_learner,Categorify,Normalize,CategoryBlock
    set_seed(0)
    df = pd.DataFrame(dict(a=np.random.randn(80).astype('float32'), c=np.random.choice(['x','y'], 80)))
    df['t'] = np.where(df.a>0, 'p', 'n')
    dls = TabularDataLoaders.from_df(df, procs=[Categorify,Normalize], cat_names=['c'], cont_names=['a'], y_names='t', y_block=CategoryBlock(), bs=16, valid_idx=list(range(20)))
    set_seed(1)
    l = tabular_learner(dls, layers=[8], n_out=2, loss_func=CrossEntropyLossFlat(), metrics=accuracy); l.remove_cb(ProgressCallback); l.logger = noop
    return l,df

class StepOnly(TrainLearner):
    n = 0
    def predict(self): StepOnly.n += 1; self.preds = self.model(*self.xb)
class StepStar(TrainLearner):
    def predict(self, *args, **kwargs):
        if args: return super().predict(*args, **kwargs)
        self.preds = self.model(*self.xb)
class Infer(TrainLearner):
    def predict(self, item, twice=False): return super().predict(item)[0]
class Deeper(StepOnly):
    def predict(self): super().predict(); self.preds = self.preds*1

@pytest.mark.parametrize('cls', [TrainLearner,StepOnly,StepStar,Deeper])
def test_inference_with_an_item(cls):
    l,df = tab(); plain,_ = tab()
    set_seed(3, reproducible=True); plain.fit(1)
    l = cls.from_learner(l)
    set_seed(3, reproducible=True); l.fit(1)
    row,ans = l.predict(df.iloc[3])[0],l.predict(df.iloc[3])
    ref = plain.predict(df.iloc[3])
    assert torch.equal(ans[2], ref[2]) and ans[1]==ref[1]
    if cls is StepOnly: assert cls.n

def test_inference_override():
    l,df = tab(); l = Infer.from_learner(l); l.fit(1)
    assert hasattr(l.predict(df.iloc[0]), 'items') or len(l.predict(df.iloc[0]))>0
    from fastai.tabular.learner import TabularLearner
    class Order(TabularLearner, TrainLearner): "Inference first in the list of bases"
    l,df = tab(); l.__class__ = Order; l.fit(1); assert len(l.predict(df.iloc[0]))==3
    class Both(TabularLearner, StepOnly): pass
    n = Both.n; l.__class__ = Both; l.fit(1); assert Both.n>n and len(l.predict(df.iloc[0]))==3

## from_learner, files

def test_from_learner():
    plain = mk(Learner, cbs=GradientClip()); plain.fit(1)
    opt,cbs,dls = plain.opt,list(plain.cbs),plain.dls
    l = TrainLearner.from_learner(plain)
    assert l is plain and type(l) is TrainLearner and l.opt is opt and list(l.cbs)==cbs and l.dls is dls and all(c.learn is l for c in cbs)
    assert type(Mini.from_learner(l)) is Mini and TrainLearner.from_learner(l) is l and type(l) is Mini
    for bad in (None, nn.Linear(1,1), Learner):
        with pytest.raises(TypeError, match='needs a `Learner`'): TrainLearner.from_learner(bad)

def test_from_learner_trains_bitwise_the_same():
    assert_same(fit(Learner, lambda l: l.fit_one_cycle(2)), fit(Learner, lambda l: TrainLearner.from_learner(l).fit_one_cycle(2)))
    assert_same(fit(Learner, lambda l: (l.fit(1), l.fit(1))), fit(Learner, lambda l: (l.fit(1), TrainLearner.from_learner(l).fit(1))))

def test_from_tabular_learner(tmp_path):
    from fastai.tabular.learner import TabularLearner
    l,df = tab(); l.path = tmp_path
    l = TrainLearner.from_learner(l)
    assert isinstance(l, TabularLearner) and isinstance(l, TrainLearner) and type(l).__name__=='TrainTabularLearner'
    assert type(l) is type(TrainLearner.from_learner(tab()[0]))
    l.fit(1)
    l.export()
    l2 = load_learner(tmp_path/'export.pkl')
    assert type(l2) is type(l) and torch.equal(l2.predict(df.iloc[1])[2], l.predict(df.iloc[1])[2])
    l3 = StepOnly.from_learner(tab()[0])
    test_eq(type(l3).__name__, 'StepOnlyTabularLearner'); l3.fit(1)
    l4 = pickle.loads(pickle.dumps(l3)); assert type(l4) is type(l3) and type(deepcopy(l3)) is type(l3)

def test_from_vision_learner():
    from fastai.vision.all import vision_learner,resnet18,ImageBlock,CategoryBlock,DataBlock,Normalize
    set_seed(0)
    x = (torch.rand(24,16,16,3)*255).byte().numpy()
    dls = DataBlock((ImageBlock,CategoryBlock), get_x=lambda i: x[i], get_y=lambda i: i%2, splitter=IndexSplitter(list(range(8)))).dataloaders(list(range(24)), bs=8, num_workers=0, device='cpu')
    def go(conv):
        set_seed(1, reproducible=True)
        l = vision_learner(dls, resnet18, pretrained=False, metrics=accuracy, normalize=False); l.remove_cb(ProgressCallback); l.logger = noop
        if conv: l = TrainLearner.from_learner(l)
        set_seed(2, reproducible=True); dls.train.rng.seed(0); l.fine_tune(1)
        return l
    a,b = go(False),go(True)
    assert_same(list(a.model.state_dict().values()), list(b.model.state_dict().values()))
    assert_same(a.get_preds(), b.get_preds()); assert_same(a.tta(n=1), b.tta(n=1))
    test_eq(len(b.predict(x[0])), 3)

def test_export_and_load(tmp_path):
    l = mk(Mini, path=tmp_path, cbs=[GradientClip()]); l.fit(1)
    b = l.dls.valid.one_batch()
    before = l.get_preds(dl=[b])
    l.export(); l.save('m')
    l2 = load_learner(tmp_path/'export.pkl')
    assert isinstance(l2, TrainLearner) and '_call_plan' not in l2.__dict__ and l2._phase is None
    assert_same(l2.get_preds(dl=[b]), before)
    l.fit(1); l.load('m'); assert_same(l.get_preds(dl=[b]), before)
    for f in (lambda o: pickle.loads(pickle.dumps(o)), lambda o: cloudpickle.loads(cloudpickle.dumps(o)), deepcopy):
        c = f(l)
        assert type(c).__name__=='Mini' and all(cb.learn is c for cb in c.cbs)
        c.fit(1)

def test_signature_is_learners():
    import inspect
    test_eq(inspect.signature(TrainLearner), inspect.signature(Learner))

def test_moved_model_and_dls_between_batches():
    "A model replaced in the middle of an epoch is asked for its device anew"
    class Swap(Callback):
        def after_batch(self):
            if self.training and self.iter==1: self.learn.model = deepcopy(self.model); self.learn.model.train(); self.learn.create_opt()
    assert_same(fit(Learner, lambda l: l.fit(2), cbs=Swap())['w'], fit(TrainLearner, lambda l: l.fit(2), cbs=Swap())['w'])

@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('cbs', ['none','accumulate','clip','mixup','fp16','fp16_accumulate','bf16'])
def test_parity_cuda(cbs):
    extra = dict(fp16=lambda: MixedPrecision(), fp16_accumulate=lambda: [MixedPrecision(),GradientAccumulation(16),GradientClip(.1)], bf16=lambda: MixedPrecision('bf16'))
    c = {**CBS, **extra}[cbs]
    dls = lambda: mk_dls(device='cuda')
    a = fit(Learner, lambda l: l.fit(3), dls, cbs=c())
    for cls in (TrainLearner,Mini): assert_same(a, fit(cls, lambda l: l.fit(3), dls, cbs=c()))
