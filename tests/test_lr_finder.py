import collections,copy,math,os,pickle,random,warnings
import numpy as np,pytest,torch
from functools import partial
from torch import nn
import matplotlib; matplotlib.use("agg")
import matplotlib.pyplot as plt
warnings.filterwarnings('ignore')
from fastai.basics import *
from fastai.callback.all import *
from fastai.callback.schedule import LRFinder as FastaiLRFinder
import fastai_anneal.lr_finder as lf
from fastai_anneal.lr_finder import *
from fastai_anneal.core import rng_state

for k in [k for k in globals() if k.startswith("test")]: del globals()[k] # fastcore has some, and they are no tests
torch.set_num_threads(1)
FOUR = (valley, slide, minimum, steep)

# ---- learners --------------------------------------------------------------------------------------------------------
def data(n=96, bs=16, seed=0, **kw):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=g)
    y = (x[:,0]*x[:,1]+x[:,2]>0).long()
    ds = list(zip(x,y))
    return DataLoaders(DataLoader(ds, bs=bs, shuffle=True, drop_last=True, **kw), DataLoader(ds[:32], bs=32), device='cpu')

def net(): return nn.Sequential(nn.Sequential(nn.Linear(6,16), nn.BatchNorm1d(16), nn.ReLU()), nn.Sequential(nn.Dropout(.1), nn.Linear(16,16), nn.ReLU()), nn.Linear(16,2))
def three(m): return [params(o) for o in m]
def one(m): return trainable_params(m)

OPTS = dict(adam=Adam, sgd=partial(SGD, mom=.9), lamb=Lamb, adamw=partial(OptimWrapper, opt=torch.optim.AdamW))

def learner(opt='adam', groups=1, frozen=False, cbs=None, dls=None, model=None, bar=False, tmp='.', **kw):
    set_seed(3)
    l = Learner(dls or data(), model or net(), CrossEntropyLossFlat(), opt_func=OPTS.get(opt, opt), splitter=three if groups==3 else one, lr=1e-2,
                cbs=cbs, path=tmp, **kw)
    if not bar: l.remove_cb(ProgressCallback)
    if frozen: l.freeze()
    l.logger = noop
    set_seed(4)
    return l

def state(l):
    "All that lr_find has to leave alone, as comparable values"
    f = lambda o: (o.detach().clone() if isinstance(o, Tensor) else {k:f(v) for k,v in o.items()} if isinstance(o, dict) else [f(x) for x in o] if isinstance(o, (list,tuple,L)) else o)
    return dict(model=f(l.model.state_dict()), grads=[None if p.grad is None else p.grad.clone() for p in l.model.parameters()],
                rg=[p.requires_grad for p in l.model.parameters()], modes=[m.training for m in l.model.modules()], has_opt=l.opt is not None,
                opt=None if l.opt is None else [dict(f(l.opt.state[p])) if not isinstance(l.opt, OptimWrapper) else f(dict(l.opt.opt.state[p])) for pg in l.opt.param_lists for p in pg],
                hypers=None if l.opt is None else f([dict(h) for h in l.opt.hypers]), rng=rng_state(), dls=[dl.rng.getstate() for dl in l.dls.loaders],
                rec={k:f(v) for k,v in vars(l.recorder).items() if k in ('lrs','losses','iters','values')}, cbs=[type(c) for c in l.cbs], run=[c.run for c in l.cbs],
                lr=l.lr, attrs=sorted(l.__dict__))

def same(a, b):
    if isinstance(a, Tensor): return isinstance(b, Tensor) and a.shape==b.shape and torch.equal(torch.nan_to_num(a, 7.), torch.nan_to_num(b, 7.)) if a.is_floating_point() else torch.equal(a,b)
    if isinstance(a, np.ndarray): return np.array_equal(a, b)
    if isinstance(a, dict): return a.keys()==b.keys() and all(same(v, b[k]) for k,v in a.items())
    if isinstance(a, (list,tuple)): return len(a)==len(b) and all(map(same, a, b))
    return a==b

def assert_same(a, b):
    for k in a: assert same(a[k], b[k]), f'{k} differs: {a[k]} {b[k]}'

def find(l, **kw): return l.lr_find(**{**dict(show_plot=False, num_it=30), **kw})

# ---- the no-op -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('opt', OPTS)
@pytest.mark.parametrize('groups,frozen', [(1,False),(3,False),(3,True)])
@pytest.mark.parametrize('fresh', [True,False])
def test_find_then_fit_is_fit(opt, groups, frozen, fresh):
    a,b = [learner(opt, groups, frozen) for _ in range(2)]
    for l in (a,b):
        set_seed(5)
        if not fresh: l.fit_one_cycle(1, 1e-2)
    before = state(a)
    r = find(a)
    assert len(r.losses)>=10
    assert_same(before, state(a))
    for l in (a,b): set_seed(6); l.fit(2)
    assert_same(state(a), state(b))

def test_fastai_suggestions_are_fastais():
    a,b = learner(),learner()
    r = find(a, num_it=100, suggest_funcs=FOUR)
    with b.no_logging():
        cb = FastaiLRFinder(num_it=100)
        b.fit(100//len(b.dls.train)+1, cbs=cb)
    n = min(len(b.recorder.lrs), len(r.lrs))
    assert n>50
    np.testing.assert_allclose(r.lrs[:n], b.recorder.lrs[:n])
    np.testing.assert_allclose(lf.ema_curve(r.losses)[:n], [float(o) for o in b.recorder.losses[:n]], rtol=1e-5)
    if len(b.recorder.lrs)<=len(r.lrs):
        lrs,losses = tensor(b.recorder.lrs[10:-5]),tensor(b.recorder.losses[10:-5])
        for f in FOUR: assert math.isclose(getattr(r, f.__name__), f(lrs, losses, 100)[0], rel_tol=1e-5), f.__name__

def test_unpacking_and_round_trip(tmp_path):
    l = learner()
    v,s = r = find(l, suggest_funcs=(valley, partial(slide, lr_diff=5)))
    assert (v,s)==(r.valley,r.slide)==(r[0],r[1]) and r._fields==('valley','slide') and len(r)==2
    only, = find(l)
    assert only==find(l).valley and math.isfinite(r.minimum) and math.isfinite(r.steep)
    assert FoundLR.from_json(r.to_json())==r and pickle.loads(pickle.dumps(r))==r
    assert list(r.to_df().columns)==['lr','loss','smoothed','skipped'] and len(r.to_df())==len(r.losses)
    assert r.apply()==l.lr==r.lr
    with pytest.raises(AttributeError, match='valley'): r.valey

def test_result_remembers_repeats_and_probes():
    l = learner()
    r = find(l, num_it=40, repeats=3, refine=6, n_it=30)
    assert len(r.info['repeats'])==3 and r.info['spread']>=1 and len(r.info['probes'])==6
    assert math.isclose(r.info['one_sweep'], float(np.median(r.info['repeats'])), rel_tol=1e-6)
    assert FoundLR.from_json(r.to_json())==r

def test_repeats_and_refine_leave_no_trace():
    for fresh in (True,False):
        for opt in ('adam','adamw'):
            l = learner(opt, 3)
            if not fresh: l.fit(1)
            before = state(l)
            find(l, repeats=2, refine=4, n_it=30, seed=1)
            assert_same(before, state(l))

def test_seed_makes_it_reproducible():
    rs = []
    for s in (1,2):
        l = learner(); set_seed(s)
        rs.append(find(l, seed=7, repeats=2, refine=4, n_it=30))
    assert rs[0]==rs[1]

# ---- interrupts and errors -------------------------------------------------------------------------------------------
EVENTS = [e for e in 'before_fit before_epoch before_train before_batch after_pred after_loss before_backward after_backward before_step after_step after_batch after_fit after_cancel_fit'.split()]

class Boom(Callback):
    order = 95
    def __init__(self, at, exc, after=4): self.at,self.exc,self.after,self.n = at,exc,after,0
    def _go(self):
        self.n += 1
        if self.n>(self.after if 'batch' in self.at or self.at in ('after_pred','after_loss') or 'backward' in self.at or 'step' in self.at else 0): raise self.exc
for e in EVENTS: setattr(Boom, e, lambda self, e=e: self._go() if self.at==e else None)

@pytest.mark.parametrize('event', EVENTS)
@pytest.mark.parametrize('exc', [KeyboardInterrupt(), RuntimeError('out of memory')])
@pytest.mark.parametrize('fresh', [True,False])
def test_nothing_is_left_after_an_error_in_any_event(event, exc, fresh):
    l = learner('sgd', 3, True)
    if not fresh: l.fit(1)
    before = state(l)
    l.add_cb(Boom(event, exc))
    with pytest.raises(type(exc)): find(l)
    assert l.boom.n==0
    l.remove_cb(l.boom)
    assert_same(before, state(l))

@pytest.mark.parametrize('exc', [CancelFitException, CancelEpochException, CancelTrainException, CancelBatchException])
def test_cancels_by_callbacks(exc):
    l = learner()
    before = state(l)
    l.add_cb(Boom('before_batch', exc(), 12))
    if exc is CancelBatchException:
        with pytest.raises(ValueError, match='does not step'): find(l)
    elif exc is CancelFitException:
        r = find(l)
        assert len(r.losses)==12 and 'cancelled' in r.stop_reason
    else: # raised by every batch from the thirteenth on: a pass without a batch
        r = find(l)
        assert len(r.losses)==12
    l.remove_cb(l.boom)
    assert_same(before, state(l))

class Broken(nn.Module):
    def __init__(self, kind, after=0): super().__init__(); self.l,self.kind,self.after,self.n = nn.Linear(6,2),kind,after,0
    def forward(self, x):
        self.n += 1
        if self.n>self.after:
            if self.kind=='raise': raise RuntimeError('CUDA out of memory')
            return self.l(x)*self.kind
        return self.l(x)

@pytest.mark.parametrize('kind,after,word', [(math.nan,0,'nan'), (math.nan,9,'nan'), (math.inf,0,'nan')])
def test_nan_ends_the_sweep_and_is_named(kind, after, word):
    l = learner(model=Broken(kind, after), groups=1)
    before = state(l)
    r = find(l, num_it=60)
    assert word in r.stop_reason and len(r.losses)==after+1
    assert_same(before, state(l))
    if not after:
        assert math.isnan(r.lr) and r.warnings
        with pytest.raises(ValueError, match='no suggestion'): r.apply()
    assert FoundLR.from_json(r.to_json())==r
    r.plot(); plt.close('all'); repr(r); r._repr_markdown_()

def test_error_in_the_model():
    l = learner(model=Broken('raise', 5), groups=1)
    before = state(l)
    with pytest.raises(RuntimeError, match='out of memory'): find(l)
    assert_same(before, state(l))

# ---- other callbacks -------------------------------------------------------------------------------------------------
class EMA(Callback):
    "Shadow weights, kept by a callback of the user"
    def before_fit(self):
        if not hasattr(self, 'shadow'): self.shadow = [p.detach().clone() for p in self.learn.model.parameters()]
    def after_step(self):
        for s,p in zip(self.shadow, self.learn.model.parameters()): s.lerp_(p.detach(), .1)

class Seen(Callback):
    "Counts the events it gets"
    def __init__(self): self.n = collections.Counter()
for e in EVENTS+['after_epoch','before_validate','after_validate']: setattr(Seen, e, lambda self, e=e: self.n.update([e]))

def test_no_file_and_no_word(tmp_path, capsys):
    l = learner(cbs=[CSVLogger(), SaveModelCallback(every_epoch=True), EarlyStoppingCallback(), ReduceLROnPlateau(), ShowGraphCallback(), TerminateOnNaNCallback()], tmp=tmp_path, bar=True)
    l.remove_cb(ShowGraphCallback)
    (tmp_path/'history.csv').write_text('mine')
    os.chmod(tmp_path, 0o500)
    try: find(l)
    finally: os.chmod(tmp_path, 0o700)
    assert [o.name for o in tmp_path.iterdir()]==['history.csv'] and (tmp_path/'history.csv').read_text()=='mine'
    assert 'epoch' not in capsys.readouterr().out

def test_trackers_and_ema_go_on_as_if_nothing_happened(tmp_path):
    res = []
    for i in (0,1):
        l = learner(cbs=[EMA(), SaveModelCallback(fname=f'm{i}', reset_on_fit=False), EarlyStoppingCallback(reset_on_fit=False), ReduceLROnPlateau(reset_on_fit=False)], tmp=tmp_path)
        set_seed(1); l.fit(2)
        best = l.save_model.best
        if i: find(l); assert l.save_model.best==best
        set_seed(2); l.fit(2)
        res.append((state(l), [o.clone() for o in l.ema.shadow], l.save_model.best, l.early_stopping.wait))
    a,b = res
    for k in a[0]: assert same(a[0][k], b[0][k]), k
    assert same(a[1], b[1]) and a[2:]==b[2:]

def test_callbacks_that_train_take_part_and_epochs_are_not_seen():
    l = learner(cbs=[Seen(), MixUp(.4), GradientClip(.1)])
    class Count(Callback):
        def after_step(self): n.append(nn.utils.clip_grad_norm_(l.model.parameters(), 1e9).item())
    n = []
    l.add_cb(Count()); seen = l.seen
    log = collections.Counter()
    seen.after_loss = lambda: log.update(['loss'])
    r = find(l, num_it=20, stop_div=False)
    assert len(n)==20 and max(n)<=.1001 and log['loss']==20
    assert not seen.n # its own count was undone too

# ---- one point per step ----------------------------------------------------------------------------------------------
def test_one_point_per_step_under_accumulation():
    l = learner(cbs=GradientAccumulation(64))
    r = find(l, num_it=20, stop_div=False)
    assert len(r.losses)==20 and np.isclose(r.lrs[0], 1e-7) and len(set(r.lrs))==20
    b = learner(dls=data(bs=64, n=128), groups=1)
    assert abs(r.losses[0]-find(b, num_it=20).losses[0])<.3

class SkipSome(Callback):
    order = 80
    def __init__(self): self.n = 0
    def before_step(self):
        self.n += 1
        if self.n<=3: raise CancelStepException()

def test_skipped_steps_are_marked():
    r = find(learner(cbs=SkipSome()), num_it=20, stop_div=False)
    assert r.skipped[:4].tolist()==[True]*3+[False] and not r.skipped[3:].any()

# ---- loaders ---------------------------------------------------------------------------------------------------------
class Stream(torch.utils.data.IterableDataset):
    def __init__(self, n=None): self.n = n
    def __iter__(self):
        g,i = torch.Generator().manual_seed(1),0
        while self.n is None or i<self.n: x = torch.randn(6, generator=g); i += 1; yield x, (x[0]>0).long()

def loaders(kind):
    ds = list(zip(torch.randn(48,6), torch.randint(0,2,(48,))))
    dl = dict(one=lambda: DataLoader(ds, bs=48), short=lambda: DataLoader(ds, bs=16, shuffle=True), infinite=lambda: DataLoader(Stream(), bs=16),
              iterable=lambda: DataLoader(Stream(40), bs=16), counted=lambda: DataLoader(Stream(), bs=16, n=40),
              torch=lambda: torch.utils.data.DataLoader(ds, batch_size=16, shuffle=True, generator=torch.Generator()),
              torch_stream=lambda: torch.utils.data.DataLoader(Stream(), batch_size=16), empty=lambda: DataLoader(ds, bs=64, drop_last=True),
              empty_stream=lambda: DataLoader(Stream(0), bs=16))[kind]()
    return DataLoaders(dl, DataLoader(ds, bs=48), device='cpu')

@pytest.mark.parametrize('kind', 'one short infinite iterable counted torch torch_stream'.split())
def test_loaders(kind):
    r = find(learner(dls=loaders(kind)), num_it=25, stop_div=False, widen=False)
    assert len(r.losses)==25 and np.isfinite(r.losses).all() and math.isfinite(r.lr)

@pytest.mark.parametrize('kind', ['empty','empty_stream'])
def test_no_batch_is_a_clear_error(kind):
    with pytest.raises(ValueError, match='no batch'): find(learner(dls=loaders(kind)))

# ---- groups ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('start,end,first', [([1e-7,1e-6,1e-5],[.1,1,10],[1e-7,1e-6,1e-5]), (slice(1e-7,1e-5),slice(.1,10),[1e-7,1e-6,1e-5]), (slice(1e-5),10,[1e-6,1e-6,1e-5])])
def test_discriminative(start, end, first):
    l = learner(groups=3)
    r = find(l, start_lr=start, end_lr=end)
    np.testing.assert_allclose(r.values[0], first)
    assert len(r.group_lrs)==3 and math.isclose(r.group_lrs[-1], r.lr)
    r.apply(); np.testing.assert_allclose(l.lr, r.group_lrs)
    l.fit_one_cycle(1)
    assert FoundLR.from_json(r.to_json())==r

def test_present_ratios_are_kept():
    l = learner(groups=3); l.lr = slice(1e-4, 1e-2)
    before = state(l)
    r = find(l, ratios=True)
    np.testing.assert_allclose(r.values[:,0]/r.values[:,-1], .01)
    np.testing.assert_allclose(r.group_lrs, [r.lr/100, r.lr/10, r.lr])
    assert_same(before, state(l))

@pytest.mark.parametrize('kw,match', [(dict(start_lr=[1e-7]*2), 'groups'), (dict(start_lr=1, end_lr=.1), 'grow'), (dict(start_lr=0), 'positive'), (dict(mode='log'), "'exp'"),
    (dict(num_it=0), 'num_it'), (dict(end_lr=math.nan), 'finite'), (dict(repeats=0), 'repeats'), (dict(ratios=[0,1,1]), 'positive')])
def test_bad_arguments(kw, match):
    l = learner(groups=3); before = state(l)
    with pytest.raises(ValueError, match=match): find(l, **kw)
    assert_same(before, state(l))

# ---- stop rule, widening, the numbers --------------------------------------------------------------------------------
def test_negative_losses():
    class Neg(nn.Module):
        def forward(self, p, y): return F.cross_entropy(p, y)-50
    l = learner(); l.loss_func = Neg()
    r = find(l, num_it=100)
    assert len(r.losses)>50 and math.isfinite(r.lr) and r.losses[0]<-40

def test_widened_once_and_said():
    r = find(learner(), end_lr=1e-4, num_it=40)
    assert len(r.losses)==60 and any('went on' in w for w in r.warnings) and r.lrs[-1]>1e-4
    assert len(find(learner(), end_lr=1e-4, num_it=40, widen=False).losses)==40
    assert len(find(learner(), end_lr=1e-4, num_it=40, stop_div=False).losses)==40

@pytest.mark.parametrize('n', [1,2,3,6,7,8,15])
def test_few_points(n):
    r = find(learner(), num_it=n, suggest_funcs=FOUR, widen=False)
    assert len(r.losses)<=n and (n>=8 or (n<3)==math.isnan(r.lr)) and (n>8 or r.warnings)
    r.plot(); plt.close('all'); r.to_df()

def test_linear_mode():
    r = find(learner(), start_lr=1e-3, end_lr=1, mode='linear', num_it=50, stop_div=False)
    np.testing.assert_allclose(np.diff(r.lrs), np.diff(r.lrs)[0])

def test_user_function_may_fail():
    def bad(lrs, losses, num_it): raise IndexError('oh')
    def mine(lrs, losses, num_it): return float(lrs[3])
    r = find(learner(), suggest_funcs=(mine, bad))
    assert r.mine==r[0] and math.isnan(r.bad) and any('bad failed' in w for w in r.warnings)

def test_smoothing_has_no_lag():
    x = np.linspace(-4, 4, 101)
    y = 1-np.exp(-x**2)
    assert abs(int(smooth_curve(y).argmin())-50)<=1
    assert int(lf.ema_curve(y).argmin())>55
    np.testing.assert_allclose(smooth_curve(3*x+1), 3*x+1)

@pytest.mark.parametrize('scale,shift', [(1,0),(7,0),(1,-100),(.01,3)])
def test_suggestion_does_not_depend_on_the_units_of_the_loss(scale, shift):
    lrs = np.geomspace(1e-7, 10, 100)
    z = np.log10(lrs)
    y = 2.3-1.6/(1+np.exp(-4*(z+2)))+np.exp(3*(z-.2))+.02*np.random.default_rng(0).normal(size=100)
    a,b = suggest(lrs, y, 100),suggest(lrs, y*scale+shift, 100)
    assert math.isclose(a['descent'], b['descent'], rel_tol=1e-6) and math.isclose(a['ascent'], b['ascent'], rel_tol=1e-6)
    assert math.isclose(suggest(lrs*30, y, 100)['lr'], 30*a['lr'], rel_tol=1e-6)
    assert suggest(lrs, y, 1000)['lr'] < suggest(lrs, y, 100)['lr'] <= a['ascent']/2
    assert .003<a['lr']<.3

def test_noise_alone_is_not_divergence():
    r = np.random.default_rng(0)
    for f in (lambda: 2+.1*r.normal(size=70), lambda: .3*np.exp(.5*r.normal(size=70)), lambda: r.standard_t(3, size=70)):
        alarms = 0
        for _ in range(100):
            d = lf._Divergence(100)
            for l in f():
                d.add(float(l))
                if d.over: alarms += 1; break
        assert alarms<=3 # of the skewed ones, a few
    d = lf._Divergence(100)
    for l in (n := 2.3+.1*r.normal(size=40)): d.add(float(l))
    for l in (3.,4.,6.,9.): d.add(l)
    assert d.over

def test_a_lucky_dip_does_not_count():
    x = np.linspace(-7, 1, 100)
    y = 2.3-1.6/(1+np.exp(-4*(x+2)))+np.exp(3*(x-.2))
    a = read_curve(10**x, y)
    z = y.copy(); z[20:25] -= .8 # early, it comes back
    z[72:75] += .5 # late, it goes again
    b = read_curve(10**x, z)
    assert abs(math.log(a['descent']/b['descent']))<.5 and abs(math.log(a['ascent']/b['ascent']))<.5

@pytest.mark.parametrize('opt,kind', [(Adam,'adaptive'), (RAdam,'adaptive'), (QHAdam,'adaptive'), (RMSProp,'adaptive'), (ranger,'adaptive'), (SGD,'sgd'), (partial(SGD, mom=.9),'sgd'),
    (Lamb,'trust'), (Larc,'trust'), (partial(OptimWrapper, opt=torch.optim.AdamW),'adaptive'), (partial(OptimWrapper, opt=torch.optim.SGD),'sgd'), (partial(OptimWrapper, opt=torch.optim.NAdam),'adaptive')])
def test_kind_of_optimizer(opt, kind):
    l = learner(opt)
    assert find(l, num_it=12).info['kind']==kind

def test_rules_know_the_optimizer_and_the_horizon():
    lrs = np.geomspace(1e-7, 10, 100)
    z = np.log10(lrs)
    y = 2.3-1.6/(1+np.exp(-4*(z+2)))+np.exp(3*(z-.2))
    lr = lambda n,k: suggest(lrs, y, n, k)['lr']
    assert lr(128,'sgd')>lr(128,'adaptive')>lr(128,'trust')
    assert lr(128,'adaptive')/lr(1280,'adaptive') > lr(128,'sgd')/lr(1280,'sgd') > 1

def test_momentum_of_the_sweep_and_of_the_fit():
    "Fits cycle the momentum, whatever it is in the sweep; the plain SGD of fastai has none"
    def factor(opt, moms=None):
        l = learner(opt)
        if moms: l.moms = moms
        return find(l, num_it=12).info.get('momentum', 1.)
    assert factor('sgd')==factor('adam')==factor(SGD)==1.
    assert factor(partial(SGD, mom=.5))<1<factor(partial(SGD, mom=.95)) and factor(partial(Adam, mom=.5))>1
    assert factor('sgd', (.95,.95,.95))<1 # the same sweep, a fit with more momentum

def test_closer_look_once_and_only_if_needed():
    torch.manual_seed(0)
    noise = [(torch.randn(6), torch.randint(0, 2, ())) for _ in range(64)]
    def l(): return learner(dls=DataLoaders(DataLoader(noise, bs=16, shuffle=True), DataLoader(noise, bs=64), device='cpu'))
    a = l(); before = state(a)
    r = find(a, num_it=40)
    assert_same(before, state(a))
    assert len(r.info['closer']['lrs'])<=40 and any('once more' in w for w in r.warnings) and FoundLR.from_json(r.to_json())==r
    assert r.info['closer']['lrs'][0]>r.lrs[0] and r.info['closer']['lrs'][1]/r.info['closer']['lrs'][0] < r.lrs[1]/r.lrs[0]
    r.plot(); plt.close('all')
    assert 'closer' not in find(l(), num_it=40, widen=False).info and 'closer' not in find(l(), num_it=40, stop_div=False).info
    three = find(learner(groups=3, dls=l().dls), num_it=40, start_lr=slice(1e-8,1e-7), end_lr=slice(1.,10.))
    assert len(three.group_lrs)==3 and math.isfinite(three.lr)

@pytest.mark.parametrize('n_valid', [0,1,100])
def test_probes_are_judged_on_what_is_held_out(n_valid):
    ds = list(zip(torch.randn(64,6), torch.randint(0,2,(64,))))
    tr = DataLoader(ds, bs=16, shuffle=True)
    dls = DataLoaders(tr, device='cpu') if not n_valid else DataLoaders(tr, DataLoader(ds[:n_valid]*(n_valid if n_valid>1 else 1), bs=8), device='cpu')
    seen = []
    class Count(Callback):
        def after_batch(self):
            if not self.training: seen.append(len(self.y))
    l = learner(dls=dls, cbs=Count()); before = state(l)
    r = find(l, num_it=30, refine=4, n_it=20, widen=False)
    assert_same(before, state(l))
    whole = [p for p in r.info['probes'] if math.isfinite(p['score'])]
    assert whole and all(p['steps']==20 for p in r.info['probes']) and len(seen)==len(whole)*{0:4, 1:1, 100:20}[n_valid]

def test_probes_are_as_long_as_planned_up_to_a_cap(monkeypatch):
    monkeypatch.setattr(lf, '_probe_cap', 30)
    for n,steps in ((12,12),(30,30),(3000,30)):
        r = find(learner(), num_it=40, refine=True, n_it=n)
        ps = r.info['probes']
        assert all(p['steps']==steps for p in ps) and 5<=len(ps)<=10 and len({p['lr'] for p in ps})==len(ps)
        up = ps[0]['lr']/r.info['one_sweep'] # of the first probe over what it speaks for
        assert math.isclose(up, max(1, n/30)**lf._probe_power['adaptive'], rel_tol=1e-6)
        lo,hi = min(p['lr'] for p in ps)/up,max(p['lr'] for p in ps)/up
        assert lo*.99<=r.lr<=hi*1.01

def _fake_refined(monkeypatch, loss, n_probes=10):
    "What probes find if the loss after training at `2**e` is `loss(e)`"
    monkeypatch.setattr(lf, '_probed', lambda sweep, lrs, n, seed, bar: loss(math.log2(lrs[-1])))
    lr,ps = lf._refined(None, 1., [1.], 100, n_probes, 'adaptive', 0, False)
    return math.log2(lr),[math.log2(p['lr']) for p in ps]

@pytest.mark.parametrize('best', [-4.,-1.4,0.,.6,3.])
def test_probes_go_where_the_loss_is_lowest(monkeypatch, best):
    e,asked = _fake_refined(monkeypatch, lambda e: 1+.2*(e-best)**2)
    assert abs(e-best)<=.5 and len(asked)<=10 and min(abs(a-best) for a in asked)<=.5

def test_probes_flee_divergence_and_give_up(monkeypatch):
    e,asked = _fake_refined(monkeypatch, lambda e: math.inf if e>-2.6 else 1+.2*(e+3)**2)
    assert e<=-2.6 and min(asked)<=-3
    e,asked = _fake_refined(monkeypatch, lambda e: math.inf if e>1.6 else 1-.1*e) # best next to divergence, by luck
    assert 1.5 in asked and e<=1
    e,asked = _fake_refined(monkeypatch, lambda e: math.inf)
    assert e==0 and len(asked)<=10
    e,asked = _fake_refined(monkeypatch, lambda e: 1+.2*(e-9)**2, 3)
    assert len(asked)==3 and e<=1.01

@pytest.mark.parametrize('refine', [-1, 2.5, 'yes'])
def test_bad_refine_is_named(refine):
    with pytest.raises(ValueError, match='refine'): find(learner(), refine=refine)

def test_basin():
    es,f = [0,-1,1,-2,2,.5,1.5],lambda e: .1+.05*(e-.8)**2
    assert abs(lf._basin(es, [f(e) for e in es])-.8)<.3
    assert lf._basin(es, [f(e) if e<1.2 else math.inf for e in es])<1.1
    assert abs(lf._basin(es, [f(e)-5 for e in es])-.8)<.5 # negative losses

def test_no_notice_no_suggestion():
    class Flat(nn.Module):
        def forward(self, p, y): return F.cross_entropy(p*0, y)+p.sum()*0
    l = learner(); l.loss_func = Flat()
    r = find(l)
    assert math.isnan(r.lr) and any('no notice' in w for w in r.warnings)

def test_no_descent_is_said():
    lrs = np.geomspace(1e-7, 10, 100)
    r = suggest(lrs, 2.3+.02*np.random.default_rng(0).normal(size=100), 100)
    assert any('fell by only' in w for w in r['warnings']) and r['lr']<=5

# ---- the callback alone, other hyperparameters ----------------------------------------------------------------------
def test_as_a_callback_of_fit():
    l = learner()
    w = [p.clone() for p in l.model.parameters()]
    cb = LRFinder(num_it=30)
    with l.no_logging(): l.fit(1, cbs=cb)
    assert len(cb.losses)>=10 and same(w, [p.detach() for p in l.model.parameters()]) and 'all_batches' not in l.__dict__
    l.fit(1)

def test_other_hyperparameters():
    l = learner('sgd', 3); before = state(l)
    for kw in (dict(hyper='wd', start=1e-5, stop=10), dict(hyper='mom', start=.5, stop=.999, mode='linear')):
        r = l.hp_find(**kw, num_it=40, show_plot=False)
        assert r.hyper==kw['hyper'] and len(r.losses)>=10 and kw['start']<=r.value<=kw['stop'] and r.to_df().columns[0]==r.hyper
        assert_same(before, state(l))
    def set_p(learn, v): learn.model[1][0].p = v
    r = l.hp_find('dropout', .01, .9, setter=set_p, mode='linear', num_it=30, show_plot=False)
    assert len(r.losses)>=10 and l.model[1][0].p==.1
    with pytest.raises(ValueError, match="did you mean 'wd'"): l.hp_find('wdd', .1, 1, show_plot=False)

def test_shape_of_plot_and_repr():
    r = find(learner(), suggest_funcs=FOUR)
    ax = plt.subplots()[1]
    assert r.plot(ax=ax) is ax and ax.get_xscale()=='log' and len(ax.get_legend().get_texts())>=7
    plt.close('all')
    assert 'lr=' in repr(r) and '| valley |' in r._repr_markdown_()

@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA')
def test_amp():
    res = []
    for i in (0,1):
        d = data(); d.device = torch.device('cuda')
        l = learner(dls=d, cbs=MixedPrecision())
        set_seed(1); l.fit(1)
        if i: b = state(l); find(l); assert_same(b, state(l))
        set_seed(2); l.fit(1)
        res.append(state(l)['model'])
    assert same(*res)
