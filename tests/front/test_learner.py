"TrainLearner trains to the last bit as fastai's Learner does, its five methods can be overridden, any learner becomes one"
import contextlib,inspect,io,pickle,warnings

import cloudpickle,pytest
from fastai.callback.all import *
from fastai.learner import CastToTensor
from fastai.tabular.all import Categorify,CategoryBlock,Normalize,TabularDataLoaders,TabularLearner,tabular_learner
from fastai_anneal.learner import TrainLearner
from fastai.basics import *
from helpers import *

pytestmark = pytest.mark.filterwarnings('ignore')
METHODS = 'predict get_loss backward step zero_grad'.split()

def learner(cls=TrainLearner, **kwargs):
    "3 batches to train on, 2 to validate"
    return small_learner(**{'data': partial(sums, 24, 16, 8), 'cls': cls, 'lr': .01, 'metrics': mae, 'splitter': groups_by_layer, **kwargs})

def outcome(cls, go=lambda learn: learn.fit(2), **kwargs):
    "All that `go` does to a `cls`"
    learn = learner(cls, **kwargs)
    set_seed(2, reproducible=True)
    go(learn)
    return dict(fingerprint(learn), pct=learn.pct_train, it=learn.train_iter, smooth=learn.smooth_loss)

def same_outcome(*args, cls=TrainLearner, cbs=lambda: None, **kwargs):
    "Callbacks have state, so `cbs` makes them"
    assert_same(outcome(cls, *args, cbs=cbs(), **kwargs), outcome(Learner, *args, cbs=cbs(), **kwargs))

# ---- the same training

OPTS = {**OPT_FUNCS, 'rms': RMSProp, 'radam': RAdam, 'qh': QHAdam, 'larc': Larc, 'ranger': ranger}
@pytest.mark.parametrize('opt', OPTS.values(), ids=OPTS)
def test_optimizers(opt): same_outcome(opt=opt)

class CancelSome(Callback):
    def before_backward(self):
        if self.iter==0: raise CancelBackwardException
    def before_step(self):
        if self.iter==1: raise CancelStepException
    def after_pred(self):
        if self.iter==2: raise CancelBatchException

class ScaledLoss(Callback):
    "As a gradient scaler does: `loss_grad` changes, `loss` does not"
    def before_backward(self): self.learn.loss_grad = self.loss_grad*1024
    def before_step(self):
        for p in self.model.parameters(): p.grad /= 1024

def setup(f): return On('before_fit', f, order=-99)
CBS = dict(none=lambda: [], accumulate=lambda: GradientAccumulation(20), clip=lambda: GradientClip(.1), mixup=lambda: MixUp(.4),
    mixed=lambda: [MixUp(.4), GradientAccumulation(16), GradientClip(.5), ScaledLoss()], bn=BnFreeze, nan=TerminateOnNaNCallback,
    stop=lambda: EarlyStoppingCallback(patience=0, min_delta=9), short=lambda: ShortEpochCallback(.5), cancel=CancelSome,
    train_metrics=lambda: setup(lambda l: setattr(l.recorder, 'train_metrics', True)),
    no_valid=lambda: setup(lambda l: setattr(l.recorder, 'valid_metrics', False)),
    no_cast=lambda: setup(lambda l: l.remove_cb(CastToTensor) if hasattr(l, 'cast_to_tensor') else None),
    stats=lambda: ActivationStats(with_hist=True), hooks=lambda: HookCallback(hook=lambda m,i,o: o.mean(), every=2),
    schedule=lambda: ParamScheduler(dict(lr=SchedCos(1e-2, 1e-4), wd=SchedLin(0., .1))), fetch=FetchPredsCallback,
    plateau=lambda: ReduceLROnPlateau(patience=0, min_delta=9), bf16=lambda: MixedPrecision('bf16'))
@pytest.mark.parametrize('cbs', CBS)
def test_callbacks(cbs):
    loss_func = MSELossFlat(reduction='mean') if cbs in ('mixup','mixed') else MSELossFlat()
    same_outcome(cbs=CBS[cbs], loss_func=loss_func)

def _frozen(learn): learn.freeze(); learn.fit(1); learn.unfreeze(); learn.fit(1, slice(1e-4,1e-2))
def _stopped(learn):
    learn.fit(1)
    learn.fit(1, cbs=RaiseAt(1, CancelFitException(), 'after_step'))
    learn.fit(1, reset_opt=True)
WAYS = dict(one_cycle=lambda l: l.fit_one_cycle(3, 1e-2), fine_tune=lambda l: l.fine_tune(2), flat=lambda l: l.fit_flat_cos(2), frozen=_frozen,
    twice=lambda l: (l.fit(1), l.validate(), l.fit(1, wd=.1)), skip=lambda l: l.fit(3, start_epoch=1), stopped=_stopped,
    lr_find=lambda l: (l.lr_find(num_it=6, show_plot=False), l.fit(1)))
@pytest.mark.parametrize('way', WAYS)
def test_ways_to_fit(way, tmp_path): same_outcome(WAYS[way], path=tmp_path)

def test_predictions():
    def preds(cls):
        learn = learner(cls)
        learn.fit(1)
        return [learn.get_preds(with_loss=True, with_input=True, with_decoded=True), learn.validate(), learn.get_preds(ds_idx=0),
                learn.get_preds(dl=[learn.dls.valid.one_batch()[:1]])]
    assert_same(preds(TrainLearner), preds(Learner))

def test_bars_graphs_and_files(tmp_path):
    def history(cls):
        learn = learner(cls, path=tmp_path/cls.__name__, progress=True, cbs=[CSVLogger(), SaveModelCallback(), ShowGraphCallback()])
        learn.path.mkdir()
        with contextlib.redirect_stdout(io.StringIO()): learn.fit(2)
        return pd.read_csv(learn.path/'history.csv').drop(columns='time').to_dict('list'),weights(learn)
    assert_same(history(TrainLearner), history(Learner))

@pytest.mark.cuda
@pytest.mark.parametrize('cbs', ['none','mixed','fp16','fp16_accumulate','bf16'])
def test_cuda(cbs, gpu):
    make = {**CBS, 'fp16': MixedPrecision, 'fp16_accumulate': lambda: [MixedPrecision(), GradientAccumulation(16), GradientClip(.1)]}[cbs]
    def trained(cls):
        learn = learner(cls, cbs=make(), loss_func=MSELossFlat(reduction='mean'))
        learn.dls.to(gpu)
        learn.fit(3)
        return weights(learn),learn.recorder.losses
    for cls in (TrainLearner,MiniLearner): assert_same(trained(cls), trained(Learner))

def test_zero_grad_without_an_optimizer_is_the_models():
    for cls in (Learner,TrainLearner):
        learn = learner(cls)
        assert learn.opt is None
        learn.loss_func(learn.model(learn.dls.one_batch()[0]), learn.dls.one_batch()[1]).backward()
        learn.zero_grad()
        assert all(p.grad is None for p in learn.model.parameters())

# ---- the five methods

class MiniLearner(TrainLearner):
    "miniai's five lines"
    def predict(self): self.preds = self.model(self.batch[0])
    def get_loss(self): self.loss = self.loss_func(self.preds, self.batch[1])
    def backward(self): self.loss.backward()
    def step(self): self.opt.step()
    def zero_grad(self): self.opt.zero_grad()

class FastaiLearner(TrainLearner):
    "fastai's lines"
    def get_loss(self):
        self.loss_grad = self.loss_func(self.pred, *self.yb)
        self.loss = self.loss_grad.clone()

@pytest.mark.parametrize('cls', [MiniLearner,FastaiLearner])
@pytest.mark.parametrize('cbs', ['none','accumulate','mixed','cancel','bf16'])
def test_overrides_in_miniais_and_fastais_way(cls, cbs): same_outcome(cls=cls, cbs=CBS[cbs], loss_func=MSELossFlat(reduction='mean'))

def loud(log, names):
    "A `TrainLearner` whose methods `names` log that they are called"
    def method(name):
        def f(self): log.append(name); getattr(super(cls, self), name)()
        return f
    cls = type('Loud', (TrainLearner,), {name: method(name) for name in names})
    return cls

@pytest.mark.parametrize('name', METHODS)
def test_each_method_alone(name):
    log = []
    assert_same(outcome(loud(log, [name]), lambda learn: learn.fit(1)), outcome(Learner, lambda learn: learn.fit(1)))
    assert len(log)==(3+2 if name in ('predict','get_loss') else 3)

def test_the_methods_come_between_the_events():
    log = []
    listen = [Callback(**{e: (lambda self, e=e: log.append(e)) for e in dir(event) if e.startswith(('before_','after_'))})]
    learner(loud(log, METHODS), cbs=listen).fit(1)
    i = log.index('before_batch')
    assert log[i:i+13]==('before_batch predict after_pred get_loss after_loss before_backward backward after_backward before_step step '
                         'after_step zero_grad after_batch').split()

def penalty(learn): return .1*sum((p**2).sum() for p in learn.model.parameters())
class Whole(TrainLearner):
    def get_loss(self): self.loss = self.loss_func(self.preds, *self.yb) + penalty(self)
class Added(TrainLearner):
    def get_loss(self): super().get_loss(); self.loss = self.loss + penalty(self)
class InPlace(TrainLearner):
    def get_loss(self): super().get_loss(); self.loss += penalty(self)
class ToGrad(TrainLearner):
    def get_loss(self): self.loss_grad = self.loss_func(self.pred, *self.yb) + penalty(self)

@pytest.mark.parametrize('cls', [Added,InPlace,ToGrad])
def test_a_penalty_is_trained_on_and_recorded_however_it_is_added(cls):
    assert_same(outcome(cls), outcome(Whole))
    assert outcome(cls)['recorder']['losses']!=outcome(Learner)['recorder']['losses']

def test_train_on_one_loss_and_record_another():
    class Two(TrainLearner):
        def get_loss(self):
            self.loss_grad = self.loss_func(self.preds, *self.yb)
            self.loss = self.loss_grad*0 + 7
    two = outcome(Two)
    assert_same(two['model'], outcome(Learner)['model'])
    assert torch.stack(two['recorder']['losses']).tolist()==pytest.approx([7]*6, abs=1e-3)

def test_backward_sees_what_callbacks_made_of_the_loss():
    seen = []
    class See(TrainLearner):
        def backward(self): seen.append((self.loss.item(), self.loss is self.loss_grad)); self.loss.backward()
    learner(See, cbs=[ScaledLoss(), On('after_backward', lambda learn: seen.append(learn.loss.item()))]).fit(1)
    assert all(is_same for _,is_same in seen[::2])
    assert [loss for loss,_ in seen[::2]]==pytest.approx([loss*1024 for loss in seen[1::2]])

def test_batch_and_preds():
    class Look(TrainLearner):
        def get_loss(self):
            assert self.preds is self.pred and isinstance(self.batch, tuple) and len(self.batch)==2
            assert self.batch[0] is self.xb[0] and self.batch[1] is self.yb[0]
            super().get_loss()
    class Change(Callback):
        def before_batch(self): self.learn.xb = (self.x*0,)
        def after_pred(self):
            assert self.learn.batch[0].abs().sum()==0
            self.learn.preds = self.learn.preds+1
            assert self.learn.pred is self.learn.preds
        def before_step(self):
            self.learn.batch = (self.y,self.x)
            assert self.learn.xb[0] is self.learn.batch[0]
    learn = learner(Look, cbs=Change())
    learn.fit(1)
    assert not hasattr(learn, 'batch') and not hasattr(learn, 'preds')

def test_no_warnings_of_shadowed_attributes():
    learn = learner()
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        learn.fit(1, cbs=[FetchPredsCallback(), GradientAccumulation(16)])
        learn.get_preds(with_loss=True)
        learn.validate()
        learn.fit(1, cbs=ShortEpochCallback(.1))

@pytest.mark.parametrize('name,what', [('predict','self.preds'), ('get_loss','self.loss')])
def test_a_method_that_sets_nothing(name, what):
    learn = learner(type('Lazy', (TrainLearner,), {name: lambda self: torch.zeros(8)}))
    with pytest.raises(RuntimeError, match=f'Lazy.{name}.*has to set `{what}`'): learn.fit(1)

# ---- the two meanings of predict

def table():
    set_seed(0)
    df = pd.DataFrame(dict(a=np.random.randn(80).astype('float32'), c=np.random.choice(['x','y'], 80)))
    df['t'] = np.where(df.a>0, 'p', 'n')
    dls = TabularDataLoaders.from_df(df, procs=[Categorify,Normalize], cat_names=['c'], cont_names=['a'], y_names='t', y_block=CategoryBlock(),
                                     bs=16, valid_idx=list(range(20)))
    learn = tabular_learner(dls, layers=[8], n_out=2, loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn,df

class StepOnly(TrainLearner):
    n = 0
    def predict(self):
        StepOnly.n += 1
        self.preds = self.model(*self.xb)
class StepAndItem(TrainLearner):
    def predict(self, *args, **kwargs):
        if args: return super().predict(*args, **kwargs)
        self.preds = self.model(*self.xb)
class ItemOnly(TrainLearner):
    def predict(self, item, twice=False): return super().predict(item)
class Deeper(StepOnly):
    def predict(self): super().predict(); self.preds = self.preds*1

@pytest.mark.parametrize('cls', [TrainLearner,StepOnly,StepAndItem,ItemOnly,Deeper])
def test_a_step_and_an_item(cls):
    def predicted(learn, df):
        set_seed(3, reproducible=True)
        learn.fit(1)
        return learn.predict(df.iloc[3])[1:]
    n = StepOnly.n
    learn,df = table()
    assert_same(predicted(cls.from_learner(learn), df), predicted(*table()))
    assert (StepOnly.n>n)==issubclass(cls, StepOnly)

@pytest.mark.parametrize('base', [TrainLearner,StepOnly])
def test_inference_first_in_the_list_of_bases(base):
    learn,df = table()
    learn.__class__ = type('Both', (TabularLearner,base), {})
    n = StepOnly.n
    learn.fit(1)
    assert len(learn.predict(df.iloc[0]))==3 and (StepOnly.n>n)==(base is StepOnly)

# ---- other learners, and files

def test_from_learner_changes_the_class_of_the_same_object():
    plain = learner(Learner, cbs=GradientClip())
    plain.fit(1)
    opt,cbs,dls = plain.opt,list(plain.cbs),plain.dls
    learn = TrainLearner.from_learner(plain)
    assert learn is plain and type(learn) is TrainLearner and learn.opt is opt and list(learn.cbs)==cbs and learn.dls is dls
    assert all(cb.learn is learn for cb in cbs)
    assert type(MiniLearner.from_learner(learn)) is MiniLearner
    assert TrainLearner.from_learner(learn) is learn and type(learn) is MiniLearner

@pytest.mark.parametrize('bad', [None, nn.Linear(1,1), Learner])
def test_from_learner_wants_a_learner(bad):
    with pytest.raises(TypeError, match='needs a `Learner`'): TrainLearner.from_learner(bad)

def test_from_learner_trains_the_same():
    assert_same(outcome(Learner, lambda l: (l.fit(1), TrainLearner.from_learner(l).fit(1))), outcome(Learner, lambda l: (l.fit(1), l.fit(1))))

def test_from_tabular_learner(tmp_path):
    learn,df = table()
    learn.path = tmp_path
    learn = TrainLearner.from_learner(learn)
    assert isinstance(learn, TabularLearner) and isinstance(learn, TrainLearner) and type(learn).__name__=='TrainTabularLearner'
    assert type(learn) is type(TrainLearner.from_learner(table()[0]))
    learn.fit(1)
    learn.export()
    again = load_learner(tmp_path/'export.pkl')
    assert type(again) is type(learn)
    assert_same(again.predict(df.iloc[1])[2], learn.predict(df.iloc[1])[2])

@pytest.mark.parametrize('copied', [lambda o: pickle.loads(pickle.dumps(o)), lambda o: cloudpickle.loads(cloudpickle.dumps(o)), deepcopy])
@pytest.mark.parametrize('make', [lambda: learner(MiniLearner), lambda: StepOnly.from_learner(table()[0])], ids=['MiniLearner','StepOnlyTabularLearner'])
def test_copies(copied, make, request):
    learn = make()
    learn.fit(1)
    copy = copied(learn)
    assert type(copy).__name__==type(learn).__name__==request.node.callspec.id.rpartition('-')[0] and all(cb.learn is copy for cb in copy.cbs)
    copy.fit(1)

def test_from_vision_learner():
    from fastai.vision.all import CategoryBlock,DataBlock,ImageBlock,resnet18,vision_learner
    set_seed(0)
    x = (torch.rand(24,16,16,3)*255).byte().numpy()
    block = DataBlock((ImageBlock,CategoryBlock), get_x=lambda i: x[i], get_y=lambda i: i%2, splitter=IndexSplitter(list(range(8))))
    dls = block.dataloaders(list(range(24)), bs=8, num_workers=0, device='cpu')
    def trained(convert):
        set_seed(1, reproducible=True)
        learn = vision_learner(dls, resnet18, pretrained=False, metrics=accuracy, normalize=False)
        if convert: learn = TrainLearner.from_learner(learn)
        dls.train.rng.seed(0)
        with quiet(learn):
            learn.fine_tune(1)
            return weights(learn),learn.get_preds(),learn.tta(n=1),learn.predict(x[0])
    assert_same(trained(True), trained(False))

def test_export_and_save(tmp_path):
    learn = learner(MiniLearner, path=tmp_path, cbs=GradientClip())
    learn.fit(1)
    batch = learn.dls.valid.one_batch()
    before = learn.get_preds(dl=[batch])
    learn.export()
    learn.save('m')
    again = load_learner(tmp_path/'export.pkl')
    assert isinstance(again, TrainLearner)
    assert_same(again.get_preds(dl=[batch]), before)
    learn.fit(1)
    learn.load('m')
    assert_same(learn.get_preds(dl=[batch]), before)

def test_the_arguments_are_learners(): assert inspect.signature(TrainLearner)==inspect.signature(Learner)
