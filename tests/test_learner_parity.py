"TrainLearner: fastai's events, fastai's results, five methods"
import pickle,warnings,pytest,torch
from copy import deepcopy
from functools import partial
from torch import nn
import torch.nn.functional as F
from fastai.basics import *
from fastai.callback.all import *
from fastai.tabular.all import tabular_learner,TabularDataLoaders,TabularLearner,Categorify,Normalize
from fastai.vision.all import vision_learner,ImageDataLoaders,resnet18
from fastai.test_utils import synth_dbunch
from fastai_anneal.learner import *

def net(): return nn.Sequential(nn.Linear(1,8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(.2), nn.Linear(8,1))
def groups(m): return [list(m[0].parameters())+list(m[1].parameters()), list(m[4].parameters())]

def learner(cls=TrainLearner, seed=0, **kw):
    set_seed(seed)
    dls = synth_dbunch(bs=8, n_train=4, n_valid=2)
    learn = cls(dls, net(), MSELossFlat(), **{'lr': .01, 'metrics': mae, 'splitter': groups, **kw})
    learn.remove_cb(ProgressCallback); learn.logger = noop
    return learn

both = pytest.mark.parametrize('cls', [Learner,TrainLearner])
events = [e for e in dir(event) if e.startswith(('before_','after_')) and e!='after_create']

class Trace(Callback):
    "Writes down every event"
    order = 100
    def __init__(self, log, name='t', order=100): self.log,self.nm,self.order = log,name,order
for e in events:
    def _f(self, e=e): self.log.append((self.nm, e, self.learn.training, getattr(self.learn,'iter',None)))
    setattr(Trace, e, _f)

class At(Callback):
    "Does `f` the `n`th time that `event` comes"
    def __init__(self, event, f, n=1, order=150): self.event,self.f,self.n,self.order = event,f,n,order
    def __getattr__(self, k):
        if k==self.__dict__.get('event'): return self._do
        return super().__getattr__(k)
    def _do(self):
        self.n -= 1
        if self.n==0: self.f(self)

class AtPlain(Callback):
    "The same with the method on the instance, as `Callback(before_batch=f)` has it"
    order = 150
def at(event, f, n=1, order=150):
    cb,left = AtPlain(),[n]
    def do():
        left[0] -= 1
        if left[0]==0: f(cb)
    setattr(cb, event, do); cb.order = order
    return cb

def trace(cls, cbs=lambda log: [], n_epoch=2, **kw):
    log = []
    learn = learner(cls, **kw)
    err = None
    try: learn.fit(n_epoch, cbs=[Trace(log), *cbs(log)])
    except (Exception,KeyboardInterrupt) as e: err = e
    return log, (type(err), str(err)), [p.detach().clone() for p in learn.model.parameters()], learn

def same_trace(cbs=lambda log: [], **kw):
    a,b = trace(Learner, cbs, **kw),trace(TrainLearner, cbs, **kw)
    assert a[0]==b[0] and a[1]==b[1]
    assert all(torch.equal(x,y) for x,y in zip(a[2],b[2]))
    assert a[0]
    return b

def raises(ex):
    def _f(cb): raise ex
    return _f

def test_events_are_fastais(): same_trace()

@pytest.mark.parametrize('make', [At,at], ids=['getattr','instance'])
@pytest.mark.parametrize('ex', [CancelBatchException,CancelBackwardException,CancelStepException,CancelTrainException,CancelValidException,
                                CancelEpochException,CancelFitException,KeyboardInterrupt])
@pytest.mark.parametrize('e', events)
def test_cancels_at_any_event(e, ex, make): same_trace(lambda log: [make(e, raises(ex), n=2 if 'batch' in e else 1)])

@pytest.mark.parametrize('e', ['before_fit','before_batch','after_loss','after_epoch','after_fit'])
def test_errors_name_callback_and_event(e):
    log,(t,msg),_,_ = same_trace(lambda log: [at(e, raises(ValueError('boom')))])
    assert t is ValueError and 'AtPlain' in msg and e in msg and 'boom' in msg
    log,(t,msg),_,_ = trace(TrainLearner, lambda log: [at(e, raises(ValueError()))])
    assert t is ValueError and 'AtPlain' in msg and e in msg # fastai raises an IndexError about `e.args`

def add_in(e, n=1): return lambda log: [at(e, lambda cb: cb.learn.add_cb(Trace(log, 'new', 20)), n)]
def remove_in(e, n=1):
    def _cbs(log):
        late = Trace(log, 'late', 120)
        return [late, at(e, lambda cb: cb.learn.remove_cb(late) if late in cb.learn.cbs else None, n, order=110)]
    return _cbs
_outer_or_next = ['before_fit','before_epoch','before_train','before_batch','after_pred','after_batch','before_validate','after_epoch']

@pytest.mark.parametrize('e', _outer_or_next)
def test_callbacks_added_in_an_event(e): same_trace(add_in(e))

@pytest.mark.parametrize('e', ['before_epoch','before_train','after_train','before_validate'])
def test_callbacks_removed_in_an_event(e):
    a,b = trace(Learner, remove_in(e)),trace(TrainLearner, remove_in(e))
    assert a[0]==b[0] and a[1][0]==b[1][0]

def test_list_changed_directly():
    def append(log): return [at('before_batch', lambda cb: cb.learn.cbs.append(new(cb, log)), 2)]
    def new(cb, log): t = Trace(log, 'app', 30); t.learn = cb.learn; return t
    same_trace(append)
    def replace(log): return [at('after_batch', lambda cb: setattr(cb.learn, 'cbs', L(c for c in cb.learn.cbs if not isinstance(c, Recorder))), 2)]
    assert trace(Learner, replace)[0]==trace(TrainLearner, replace)[0]

def switch(attr, e, back=None):
    def _cbs(log):
        t = Trace(log, 'sw', 90)
        return [t, at(e, lambda cb: setattr(t, attr, False))] + ([at(back, lambda cb: setattr(t, attr, True), 2)] if back else [])
    return _cbs
@pytest.mark.parametrize('attr', ['run','run_train','run_valid'])
@pytest.mark.parametrize('e,back', [('before_fit',None),('before_batch','after_loss'),('after_pred','before_validate')])
def test_run_flags_are_read_live(attr, e, back): same_trace(switch(attr, e, back))

def test_run_is_reset_after_fit():
    for cls in (Learner,TrainLearner):
        learn = learner(cls)
        class Off(Callback):
            def before_fit(self): self.run = False
        class Known(Callback): pass
        off,known = Off(),Known()
        learn.add_cbs([off,known]); known.run = False
        learn.fit(1)
        assert off.run and known.run

def test_own_call_and_order():
    class Own(Callback):
        order = 7
        def __init__(self, log): self.log = log
        def __call__(self, name): self.log.append(('own', name, None, None))
    same_trace(lambda log: [Own(log), Trace(log, 'a', 5), Trace(log, 'b', 5), Trace(log, 'c', -20)])
    def reorder(log):
        a = Trace(log, 'moved', 5)
        return [a, Trace(log, 'fix', 10), at('after_train', lambda cb: a.__dict__.update(order=15))]
    same_trace(reorder)

def test_handler_replaced_during_fit():
    def cbs(log):
        t = Trace(log, 'x', 5)
        return [t, at('before_batch', lambda cb: t.__dict__.update(after_batch=lambda: log.append('replaced')), 2)]
    same_trace(cbs)

def test_unknown_event_and_lists():
    learn = learner()
    with pytest.raises(Exception, match='missing nope'): learn('nope')
    log = []
    learn.add_cb(Trace(log)); learn(['before_fit','before_epoch']); learn(L('after_epoch'))
    assert [o[1] for o in log]==['before_fit','before_epoch','after_epoch']

def test_model_attribute_named_like_an_event():
    learn = learner()
    learn.model.before_batch = lambda: pytest.fail('the model is not a callback')
    learn.fit(1)

# the same training

class LossTwice(Callback):
    def after_loss(self): self.learn.loss_grad = self.loss_grad*2

cbs = {'none': lambda: [], 'accumulate': lambda: [GradientAccumulation(20)], 'clip': lambda: [GradientClip(.1)],
       'mixup': lambda: [MixUp()], 'all': lambda: [GradientAccumulation(16), GradientClip(.5), MixUp(.3), LossTwice()],
       'sched': lambda: [ParamScheduler({'lr': SchedCos(.1,.001), 'mom': SchedLin(.9,.8)})], 'terminate': lambda: [TerminateOnNaNCallback()],
       'bn': lambda: [BnFreeze()], 'short': lambda: [ShortEpochCallback(.5)], 'hook': lambda: [ActivationStats(with_hist=True)],
       'early': lambda: [EarlyStoppingCallback(patience=1, min_delta=1)], 'plateau': lambda: [ReduceLROnPlateau(patience=1, min_delta=1)]}
opts = {'Adam': Adam, 'SGD': partial(SGD, mom=.9), 'Lamb': Lamb, 'AdamW': partial(OptimWrapper, opt=torch.optim.AdamW),
        'torch SGD': partial(OptimWrapper, opt=torch.optim.SGD, momentum=.9)}

def outcome(cls, opt='Adam', cb='none', frozen=False, how='fit'):
    learn = learner(cls, opt_func=opts[opt])
    if cb in ('mixup','all'): learn.loss_func = MSELossFlat(reduction='mean')
    if frozen: learn.freeze()
    getattr(learn, how)(3, cbs=cbs[cb]())
    rec = learn.recorder
    return dict(state=learn.model.state_dict(), opt=learn.opt.state_dict(), losses=rec.losses, lrs=rec.lrs, values=rec.values, iters=rec.iters,
                preds=learn.get_preds(), rng=torch.get_rng_state(), validate=learn.validate())

def equal(a, b, path=''):
    if isinstance(a, torch.Tensor): assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert list(a)==list(b), path
        for k in a: equal(a[k], b[k], f'{path}.{k}')
    elif isinstance(a, (list,tuple,L)):
        assert len(a)==len(b), path
        for i,(x,y) in enumerate(zip(a,b)): equal(x, y, f'{path}[{i}]')
    else: assert a==b, path

@pytest.mark.parametrize('cb', cbs)
def test_callbacks_bitwise(cb): equal(outcome(Learner, cb=cb), outcome(TrainLearner, cb=cb))

@pytest.mark.parametrize('frozen', [False,True])
@pytest.mark.parametrize('how', ['fit','fit_one_cycle','fit_flat_cos'])
@pytest.mark.parametrize('opt', opts)
def test_optimizers_bitwise(opt, how, frozen): equal(outcome(Learner, opt, how=how, frozen=frozen), outcome(TrainLearner, opt, how=how, frozen=frozen))

def test_with_bars_savemodel_csv_graph(tmp_path, capsys):
    def run(cls):
        set_seed(0)
        l = synth_dbunch()
        learn = cls(l, net(), MSELossFlat(), path=tmp_path/cls.__name__, metrics=mae, cbs=[ShowGraphCallback()])
        learn.path.mkdir()
        learn.fit(2, cbs=[SaveModelCallback(), CSVLogger()])
        log = learn.csv_logger if hasattr(learn, 'csv_logger') else None
        return learn, pd.read_csv(learn.path/'history.csv').drop(columns='time')
    (a,ca),(b,cb) = run(Learner),run(TrainLearner)
    equal(a.model.state_dict(), b.model.state_dict())
    assert ca.equals(cb)

@pytest.mark.cuda
def test_mixed_precision_bitwise():
    def run(cls):
        learn = learner(cls).to_fp16(); learn.dls.cuda(); learn.fit(3)
        return learn.model.state_dict()
    equal(run(Learner), run(TrainLearner))

def test_bf16_autocast_like_callback_changes_loss_grad():
    "What AMP's scaler does to `loss_grad` reaches a `backward` written with `self.loss`"
    class Mini(TrainLearner):
        def backward(self): self.loss.backward()
    class Scale(Callback):
        def before_backward(self): self.learn.loss_grad = self.loss_grad*1024
        def before_step(self):
            for p in self.model.parameters(): p.grad /= 1024
    def run(cls):
        learn = learner(cls); learn.fit(2, cbs=[Scale(), GradientAccumulation(16)])
        return learn.model.state_dict(),learn.recorder.losses
    equal(run(Learner), run(Mini))

# the five methods

def test_each_method_alone():
    for name in 'predict get_loss backward step zero_grad'.split():
        seen = []
        def f(self): seen.append(self.training); getattr(super(cls, self), name)()
        cls = type('One', (TrainLearner,), {name: f})
        learn = learner(cls); learn.fit(1)
        assert len(seen)==(6 if name in ('predict','get_loss') else 4), name
        equal(learn.model.state_dict(), [l:=learner(Learner), l.fit(1), l.model.state_dict()][-1])

def test_miniai_idiom():
    class Mini(TrainLearner):
        def predict(self): self.preds = self.model(self.batch[0])
        def get_loss(self): self.loss = self.loss_func(self.preds, self.batch[1])
        def backward(self): self.loss.backward()
        def step(self): self.opt.step()
        def zero_grad(self): self.opt.zero_grad()
    a,b = learner(Mini),learner(Learner)
    for l in (a,b): set_seed(1); l.fit_one_cycle(2, cbs=[GradientAccumulation(16), MixUp()])
    equal(a.model.state_dict(), b.model.state_dict())
    equal(a.recorder.losses, b.recorder.losses)

def test_fastai_idiom_in_get_loss():
    class Own(TrainLearner):
        def get_loss(self): self.loss_grad = self.loss_func(self.pred, *self.yb); self.loss = self.loss_grad.clone()
    a,b = learner(Own),learner(Learner)
    for l in (a,b): set_seed(1); l.fit(1)
    equal(a.model.state_dict(), b.model.state_dict())

def test_forgotten_loss_is_an_error_and_leaves_learner_usable():
    class Bad(TrainLearner):
        def get_loss(self): pass
    with pytest.raises((ValueError,RuntimeError), match='has to set `self.loss`'): learner(Bad).fit(1)

def test_batch_and_preds():
    seen = {}
    class Look(Callback):
        order = 100
        def after_pred(self):
            assert self.learn.preds is self.learn.pred and self.learn.batch[0] is self.learn.xb[0] and len(self.learn.batch)==2
            self.learn.preds = self.learn.preds+1; seen['pred'] = self.learn.pred
        def after_loss(self): assert self.learn.pred is seen['pred']
        def before_batch(self): self.learn.batch = (self.learn.batch[0]*0, self.learn.batch[1]); assert self.learn.xb[0].abs().sum()==0
    learn = learner(); learn.fit(1, cbs=Look())
    assert seen and not hasattr(learn, 'preds')

def test_predict_with_item_is_inference():
    df = pd.DataFrame(dict(a=['x','y']*40, b=np.arange(80.), y=np.arange(80)%2))
    dls = TabularDataLoaders.from_df(df, procs=[Categorify,Normalize], cat_names=['a'], cont_names=['b'], y_names='y', y_block=CategoryBlock(), bs=16, num_workers=0)
    learn = tabular_learner(dls, layers=[8], metrics=accuracy)
    learn.remove_cb(ProgressCallback); learn.logger = noop
    class Own(TrainLearner):
        def predict(self): self.preds = self.model(*self.batch[:2])
    out = Own.from_learner(learn)
    assert out is learn and isinstance(learn, TabularLearner) and isinstance(learn, Own)
    learn.fit(1)
    row,cls,probs = learn.predict(df.iloc[0])
    assert probs.shape==(2,)
    assert TrainLearner.from_learner(learn) is learn and isinstance(learn, Own)

def test_from_learner_export_and_load(tmp_path):
    df = pd.DataFrame(dict(b=np.arange(80.), y=np.arange(80)%2))
    dls = TabularDataLoaders.from_df(df, procs=[Normalize], cont_names=['b'], cat_names=[], y_names='y', y_block=CategoryBlock(), bs=16, num_workers=0)
    learn = TrainLearner.from_learner(tabular_learner(dls, layers=[8], path=tmp_path))
    learn.remove_cb(ProgressCallback); learn.logger = noop
    learn.fit(1); learn.export()
    again = load_learner(tmp_path/'export.pkl')
    assert isinstance(again, TrainLearner) and isinstance(again, TabularLearner)
    again.remove_cb(ProgressCallback)
    assert torch.allclose(again.predict(df.iloc[3])[2], learn.predict(df.iloc[3])[2])

def test_from_vision_learner(tmp_path):
    from PIL import Image
    fs = []
    for i in range(12):
        f = tmp_path/f'{"ab"[i%2]}{i}.png'; Image.fromarray(np.random.randint(0,255,(32,32,3)).astype('uint8')).save(f); fs.append(f)
    dls = ImageDataLoaders.from_name_func(tmp_path, fs, lambda f: f[0], bs=4, num_workers=0, seed=0)
    learn = TrainLearner.from_learner(vision_learner(dls, resnet18, pretrained=False, metrics=accuracy))
    learn.remove_cb(ProgressCallback); learn.logger = noop
    learn.fine_tune(1, freeze_epochs=1)
    assert learn.predict(fs[0])[0] in 'ab'
    learn.tta(n=2)

def test_from_learner_wants_a_learner():
    with pytest.raises(TypeError, match='Learner'): TrainLearner.from_learner(nn.Linear(1,1))

def test_no_shadowing_warnings():
    learn = learner()
    class Fetch(Callback):
        def after_validate(self): self.learn.get_preds(dl=self.learn.dls.valid, inner=True)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        learn.fit(1, cbs=[MixUp(), GradientAccumulation(16)]); learn.get_preds(); learn.validate()

def test_usable_after_interrupts():
    learn = learner()
    for e in ('before_fit','before_batch','after_step','before_validate','after_epoch'):
        with pytest.raises(KeyboardInterrupt): learn.fit(2, cbs=at(e, raises(KeyboardInterrupt)))
        learn.fit(1)
        assert len(learn.recorder.values)==1 and len(learn.get_preds()[0])==16

def test_plans_do_not_travel(): assert '_plans' not in learner().__getstate__()
