"Contracts and faults of SimAnnealHP"
import math,pickle,warnings
from copy import deepcopy
import pytest
from fastai.basics import *
from fastai.callback.schedule import *
from fastai.callback.tracker import *
from fastai.callback.training import *
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.mixup import MixUp
from fastai_anneal.core import *
from fastai_anneal.anneal import *
from fastai_anneal.simanneal import *
from fastai_anneal.simanneal import _screen_cost
from fastai_anneal.schedule import Checkpoint,CosineAnneal
from fastai_anneal.learner import TrainLearner

for _n in [n for n in globals() if n.startswith("test")]: del globals()[_n]
LR = {'lr': LogFloat(1e-4,1)}

def blobs(n, seed):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 4, (n,), generator=g)
    return torch.randn(n, 5, generator=g)+F.one_hot(y, 5)*2, y

def learner(lr=1e-3, n=256, bs=16, n_valid=120, opt_func=partial(SGD, mom=.9), dropout=0., cbs=None, progress=False, cls=Learner, metrics=accuracy, **kwargs):
    set_seed(0)
    tr,va = [list(zip(*blobs(m, s))) for m,s in ((n,0),(n_valid,1))]
    dls = DataLoaders(DataLoader(tr, bs=bs, shuffle=True), DataLoader(va, bs=40))
    model = nn.Sequential(nn.Linear(5,16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16,4))
    l = cls(dls, model, loss_func=CrossEntropyLossFlat(), opt_func=opt_func, lr=lr, metrics=metrics, cbs=cbs, **kwargs)
    if not progress: l.remove_cb(l.progress)
    l.logger = noop
    return l

def weights(l): return torch.cat([t.detach().flatten().float() for t in (*l.model.parameters(), *l.model.buffers())])
def never(de, temp, se=0.): return 0.
def always(de, temp, se=0.): return 1.
def valid_loss(l): return l.recorder.values[-1][1]

def fit(l, n=3, **kwargs):
    l.fit(n, **kwargs)
    return l

@pytest.mark.parametrize('opt', [partial(SGD, mom=.9), Adam, partial(OptimWrapper, opt=torch.optim.AdamW)])
@pytest.mark.parametrize('every', ['1ep', '7it', '40%'])
@pytest.mark.parametrize('cbs', [[], [GradientClip], [GradientAccumulation(40)], [ReduceLROnPlateau(patience=1)]])
def test_rejecting_all_is_as_if_it_was_not_there(opt, every, cbs):
    mk = lambda: [c() if isinstance(c, type) else deepcopy(c) for c in cbs]
    a = fit(learner(opt_func=opt, dropout=.3), cbs=mk()); ra = rng_state()
    sa = SimAnnealHP({'lr': LogFloat(1e-4,1), 'wd': LogFloat(1e-5,.3)}, every=every, accept=never, cool=0, seed=1)
    b = fit(learner(opt_func=opt, dropout=.3), cbs=mk()+[sa]); rb = rng_state()
    assert len(sa.history)>0 and not sa.history.accepted.any()
    assert torch.equal(weights(a), weights(b))
    assert a.recorder.losses==b.recorder.losses and a.recorder.values==b.recorder.values and a.recorder.lrs==b.recorder.lrs
    assert torch.equal(ra['torch'], rb['torch']) and ra['python']==rb['python']
    assert str(a.opt.hypers)==str(b.opt.hypers)

@pytest.mark.parametrize('every', ['1ep', '7it', '3ep', '100%'])
def test_same_seed_same_fit(every):
    def one(seed):
        sa = SimAnnealHP(LR, every=every, seed=seed)
        return sa, fit(learner(dropout=.2), cbs=sa)
    (a,la),(b,lb),(c,_) = one(3),one(3),one(4)
    assert torch.equal(weights(la), weights(lb))
    pd.testing.assert_frame_equal(a.history, b.history)
    assert a.history.lr.tolist()!=c.history.lr.tolist()

@pytest.mark.parametrize('lr', [1e-4, 3., 1e4])
def test_rescues_a_bad_start(lr):
    l,sa = learner(lr, n=512),SimAnnealHP(LR, seed=0)
    fit(l, 5, cbs=sa)
    alone = fit(learner(lr, n=512), 5)
    good = learner(n=512); good.fit_one_cycle(5, .03)
    assert valid_loss(l) < 1.25*valid_loss(good)
    assert not valid_loss(l) > valid_loss(alone)
    assert sa.n_trained <= 5*len(l.dls.train)

def test_accepting_all_keeps_the_candidates_books():
    l,sa,took = learner(),SimAnnealHP(LR, accept=always, cool=0, seed=0),[]
    class After(Callback):
        order = 71
        def after_batch(self):
            if self.training and sa.acc and not sa.inner: took.append(sa.values['lr'])
    fit(l, 2, cbs=[sa,After()])
    assert len(l.recorder.losses)==len(l.recorder.lrs)==len(sa.log['lr'])==2*len(l.dls.train)
    np.testing.assert_allclose(l.recorder.lrs, sa.log['lr'])
    ok = sa.history[np.isfinite(sa.history.value)]
    assert ok[ok.stage=="round"].accepted.all() and not ok.accepted[ok.stage=="refine"].any()
    assert sa.log['lr'][0]==ok[ok.stage=="winner"].lr.item() # what a screening makes of its trials
    assert sa.log['lr'][0]==pytest.approx(took[0]) # and that is in the books from the first batch on

@pytest.mark.parametrize('n_ep', [5,20,40])
def test_cycles_longer_than_an_epoch(n_ep):
    "In a long fit the screening's cycles are longer than an epoch: its batches again, in another order, with other random numbers"
    l,sa,seen = learner(dropout=.2),SimAnnealHP(LR, seed=0),[]
    class Look(Callback):
        order = 71
        def before_batch(self):
            if self.training and sa.trial: seen.append((sa.trial, self.x.sum().item(), torch.get_rng_state().sum().item(), self.opt.hypers[0]['lr']))
    n_it = len(l.dls.train)
    fit(l, n_ep, cbs=[sa,Look()])
    h,n = sa.history,plan_rounds(n_ep, n_it, n_it, want=2)[0][1]
    assert set(h[h.stage.isin(['control','refine'])].n)=={n} and (n>n_it)==(n_ep>10) and n_ep*n_it/12<n<n_ep*n_it/8
    assert (h[h.stage=='winner'].n==min(n, n_it)).all() and sa.n_trained<=n_ep*n_it
    long = [o[1:] for o in seen if o[0]==n]
    trials = [long[i:i+n] for i in range(0, len(long), n)]
    assert len(trials)==4 and len({tuple(o[:2] for o in t) for t in trials})==1 # all of them the same
    a,b = trials[0][:n_it],trials[0][n_it:2*n_it]
    if n>=2*n_it:
        assert {o[0] for o in a}=={o[0] for o in b} and [o[0] for o in a]!=[o[0] for o in b] and len({o[:2] for o in a}&{o[:2] for o in b})<=n_it//4
    for t in trials: # one whole cycle: up, and down to nothing
        lrs = [o[2] for o in t]; i = int(np.argmax(lrs))
        assert .15<i/n<.35 and (np.diff(lrs[:i])>0).all() and (np.diff(lrs[i+1:])<0).all() and lrs[-1]<.1*lrs[i]

def test_the_bar_tells_how_far_the_trials_are(monkeypatch):
    import fastai_anneal.simanneal as m
    clock,said = itertools.count(),[]
    monkeypatch.setattr(m.time, 'monotonic', lambda: next(clock))
    l,sa = learner(),SimAnnealHP(LR, seed=0)
    class Said(Callback): name = 'progress'
    class Bar:
        comment,last_v,start_t,total = '.5',7,0,16
        def update_bar(self, v): said.append((v,self.comment))
    l.add_cb(Said()); l.progress.pbar = Bar()
    with l.no_logging(): fit(l, 6, cbs=sa)
    shares = [float(re.fullmatch(r'\.5 \| screening lr=[\d.e-]+ (\d+)%', c)[1]) for _,c in said if 'screening' in c]
    assert len(shares)>50 and shares==sorted(shares) and shares[0]<3 and shares[-1]==100 and {v for v,_ in said}=={7}
    assert any(re.fullmatch(r'\.5 \| trying lr=[\d.e-]+ \d+%', c) for _,c in said) and 'accepted' in l.progress.pbar.comment

@pytest.mark.parametrize('accept', [always,never])
def test_later_callbacks_hear_each_batch_once(accept):
    "What a callback after ours counts is what the fit trained, whether candidates are accepted or not"
    class Count(Callback):
        order = 90
        def before_fit(self): self.heard = dict(before_batch=0, after_step=0, after_batch=0)
        def before_batch(self): self.heard['before_batch'] += self.training
        def after_step(self): self.heard['after_step'] += 1
        def after_batch(self): self.heard['after_batch'] += self.training
    l,sa,c = learner(),SimAnnealHP({**LR, 'wd': LogFloat(1e-5,.3)}, accept=accept, every='5it', seed=0),Count()
    fit(l, 3, cbs=[c,sa])
    assert (sa.history.accepted.sum()>1)==(accept is always)
    assert set(c.heard.values())=={3*len(l.dls.train)} and c.run

@pytest.mark.parametrize('hps,msg', [
    ({'lrr': LogFloat(1e-4,1)}, "did you mean 'lr'"), ({'lr': .1}, 'not a space'), ({'lr': Vector(3)}, 'Vector'),
    ([HP('lr', Float(0,1)), HP('lr', Float(0,1))], 'twice'), (['lr'], 'LogFloat')])
def test_bad_hps(hps, msg):
    l = learner(); w = weights(l)
    with pytest.raises(ValueError, match=msg): fit(l, cbs=SimAnnealHP(hps))
    assert torch.equal(weights(l), w) and '_do_epoch' not in l.__dict__

@pytest.mark.parametrize('kw,msg', [
    (dict(monitor='accurracy'), "did you mean 'accuracy'"), (dict(every='4ep'), 'longer than this fit'), (dict(every='soon'), 'bad duration'),
    (dict(every='0it'), 'less than one batch'), (dict(budget=2), 'budget=2'), (dict(n_try=0), 'n_try=0'), (dict(budget=.01), 'no batch for a candidate')])
def test_bad_arguments(kw, msg):
    l = learner(); w = weights(l)
    with pytest.raises(ValueError, match=msg): fit(l, cbs=SimAnnealHP(LR, **kw))
    assert torch.equal(weights(l), w) and not getattr(l.recorder, 'values', [])

def test_no_validation_set():
    l = learner(); l.dls = DataLoaders(l.dls.train)
    with pytest.raises(ValueError, match='validation set'): fit(l, cbs=SimAnnealHP(LR))
    l = learner(); l.dls = DataLoaders(l.dls.train, DataLoader([], bs=4))
    with pytest.raises(ValueError, match='validation set'): fit(l, cbs=SimAnnealHP(LR))

def test_one_batch_loaders():
    l = learner(n=16); sa = SimAnnealHP(LR, seed=0)
    fit(l, 5, cbs=sa)
    assert 0<sa.n_trained<=5

def test_validate_and_get_preds_are_left_alone():
    sa = SimAnnealHP(LR, every='50ep'); l = learner(cbs=sa)
    l.validate(); l.get_preds()
    sa.every = '1ep'; fit(l, 2); n = len(sa.history)
    l.validate(); l.get_preds()
    assert len(sa.history)==n>0

def test_pickles_and_exports(tmp_path):
    class Items(list):
        def new_empty(self): return Items()
    globals()['Items'] = Items; Items.__qualname__ = 'Items'
    sa = SimAnnealHP(LR, seed=0); l = learner(cbs=sa)
    l.dls = DataLoaders(*[dl.new(Items(dl.dataset)) for dl in l.dls.loaders]); fit(l, 2)
    l.path = tmp_path; l.export('x.pkl')
    l2 = load_learner(tmp_path/'x.pkl')
    pd.testing.assert_frame_equal(l2.sim_anneal_hp.history, sa.history)
    assert pickle.loads(pickle.dumps(SimAnnealHP(LR))).space==Space(LR)

class Stop(Callback):
    order = 100
    n = 0 # on the class, as the callback itself goes back with each candidate
    def __init__(self, at, exc, inner): self.at,self.exc,self.inner = at,exc,inner; Stop.n = 0
    def after_batch(self):
        if not self.training or self.learn.sim_anneal_hp.inner!=self.inner: return
        Stop.n += 1
        if Stop.n==self.at: raise self.exc

@pytest.mark.parametrize('exc', [KeyboardInterrupt(), RuntimeError('boom')])
@pytest.mark.parametrize('inner', [True, False])
def test_interrupted(exc, inner):
    l,sa = learner(),SimAnnealHP(LR, accept=never, seed=0, cool=0)
    with pytest.raises(type(exc)): fit(l, cbs=[sa, Stop(5, exc, inner)])
    ref = learner()
    with pytest.raises(KeyboardInterrupt):
        n = plan_rounds(3, 16, 16, want=2)[0][1] if inner else 5
        class At(Callback):
            order = 100
            def after_batch(self):
                if self.train_iter==n: raise KeyboardInterrupt
        fit(ref, cbs=At)
    assert torch.equal(weights(l), weights(ref))
    assert '_do_epoch' not in l.__dict__ and torch.isfinite(weights(l)).all()
    fit(l, 1); assert math.isfinite(valid_loss(l))

class Poison(Callback):
    "NaN weights in the middle of an epoch"
    def after_batch(self):
        if self.training and self.train_iter==24 and not self.learn.sim_anneal_hp.inner: self.model[0].weight.data.fill_(math.nan)

def test_a_fit_cannot_be_lost():
    l,sa = learner(1e-2),SimAnnealHP(LR, seed=0)
    fit(l, 4, cbs=[sa, Poison()])
    assert torch.isfinite(weights(l)).all() and math.isfinite(valid_loss(l))
    assert all(math.isfinite(v[1]) for v in l.recorder.values)

def test_multiplies_a_schedule():
    l,sa = learner(),SimAnnealHP(LR, seed=0)
    l.fit_one_cycle(3, .02, cbs=sa)
    assert sa.ref0['lr']==pytest.approx(.02, rel=1e-3) and 'lr' in sa.scheduled
    assert l.recorder.lrs[-1] < 1e-2*max(l.recorder.lrs)
    l2,sa2 = learner(),SimAnnealHP(LR, seed=0, accept=never)
    l2.fit_one_cycle(3, .02, cbs=sa2); l3 = learner(); l3.fit_one_cycle(3, .02)
    np.testing.assert_allclose(l2.recorder.lrs, l3.recorder.lrs)

def test_groups_keep_their_ratio():
    sp = lambda m: [list(m[0].parameters())+list(m[1].parameters()), list(m[4].parameters())]
    l,sa = learner(splitter=sp),SimAnnealHP(LR, seed=0, accept=always)
    seen = []
    class Look(Callback):
        order = 71
        def before_step(self): seen.append([h['lr'] for h in self.opt.hypers])
    l.fit(2, slice(1e-4,1e-3), cbs=[sa, Look])
    assert len({round(b/a, 6) for a,b in seen})==1 and len({b for a,b in seen})>3

def test_trackers_and_early_stopping(tmp_path):
    l,sa = learner(path=tmp_path),SimAnnealHP(LR, seed=0)
    l.fit(4, cbs=[sa, SaveModelCallback(), EarlyStoppingCallback(patience=3)])
    best = min(v[1] for v in l.recorder.values)
    assert l.validate()[0]==pytest.approx(best, rel=1e-5)

@pytest.mark.parametrize('monitor', ['accuracy', 'valid_loss'])
def test_monitor(monitor):
    l,sa = learner(1e-4, n=512),SimAnnealHP(LR, seed=0, monitor=monitor)
    fit(l, 4, cbs=sa)
    assert l.recorder.values[-1][2]>.8
    if monitor=='accuracy': assert sa.history.value.max()<=1

def test_user_target():
    drop = HP('drop', Float(0,.8), get=lambda l: l.model[3].p, set=lambda l,v: setattr(l.model[3], 'p', v))
    l,sa = learner(dropout=.5),SimAnnealHP({**LR, 'drop': drop}, accept=always, seed=0)
    fit(l, 5, cbs=sa)
    assert l.model[3].p==.5 and sa.history['drop'].nunique()>2 and len(set(sa.log['drop']))>1

class Seen(Callback):
    order = 71
    def __init__(self, f): self.f,self.vs = f,set()
    def before_step(self): Seen.all.add(float(self.f(self.learn)))

@pytest.mark.parametrize('name,f,kw,cbs', [
    ('dropout', lambda l: l.model[3].p, dict(dropout=.5), []),
    ('model.3.p', lambda l: l.model[3].p, dict(dropout=.5), []),
    ('label_smoothing', lambda l: (l.loss_func if not hasattr(l.loss_func, 'func') else l.loss_func.func).label_smoothing, {}, []),
    ('mixup', lambda l: l.mix_up.distrib.concentration1, {}, [MixUp(.4)])])
def test_named_targets(name, f, kw, cbs):
    sa,l = SimAnnealHP({**LR, name: Float(.1,.6)}, seed=0, accept=always),learner(**kw)
    if name=='label_smoothing': l.loss_func = CrossEntropyLossFlat(label_smoothing=.3)
    Seen.all = set()
    with l.added_cbs(cbs):
        before = float(f(l)); fit(l, 5, cbs=[sa, Seen(f)])
        assert len(Seen.all)>2 and float(f(l))==before

@pytest.mark.parametrize('name', ['dropout','label_smoothing','mixup','model.9.p','drop'])
def test_missing_targets(name):
    l = learner(); l.model[3] = nn.Identity(); l.loss_func = F.cross_entropy
    with pytest.raises(ValueError): fit(l, cbs=SimAnnealHP({name: Float(0,.5)}))

def test_nothing_to_anneal():
    a,b = fit(learner(), 2),fit(learner(), 2, cbs=SimAnnealHP({}))
    assert torch.equal(weights(a), weights(b))

def test_mixed_precision_bf16_cpu_runs():
    l,sa = learner(),SimAnnealHP(LR, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore'); fit(l, 2, cbs=[sa, MixedPrecision()])
    assert math.isfinite(valid_loss(l)) and len(sa.history)

def test_progress_bar(capsys):
    l,sa = learner(progress=True),SimAnnealHP(LR, seed=0); l.logger = print
    fit(l, 2, cbs=sa)
    with l.no_bar(): fit(l, 2, cbs=SimAnnealHP(LR, seed=0))
    import matplotlib; matplotlib.use('agg')
    assert len(sa.plot())==2

def test_plan_never_exceeds_its_budget():
    for n_ep in (1,2,7,40):
        for n_it in (1,2,5,63):
            for ev in {1,3,n_it,n_ep*n_it}:
                for b in (.1,.5,1.):
                    for n_try in (1,4):
                        p = plan_rounds(n_ep, n_it, ev, n_try, b)
                        screen = [o for o in p if o[0]==0 and o[2]==2*n_try]
                        assert sum(_screen_cost(s, n_try, n_it) if (b0,s,k) in screen else s*k for b0,s,k in p)<=b*n_ep*n_it+1e-9
                        p = [(b0,min(s, n_it),k) if (b0,s,k) in screen else (b0,s,k) for b0,s,k in p] # what the fit itself trains of it
                        assert all(b0%n_it+s<=n_it for b0,s,_ in p)
                        assert all(a[0]+a[1]<=c[0] for a,c in zip(p,p[1:])), p

def test_groups_and_multipliers():
    sp = lambda m: [list(m[0].parameters())+list(m[1].parameters()), list(m[4].parameters())]
    hps = [HP('lr', LogFloat(.1,10), mult=True), HP('wd', LogFloat(1e-4,.1), group=0), HP('mom', Float(.5,.95), group=1)]
    l,sa,seen = learner(splitter=sp, wd=.05),SimAnnealHP(hps, seed=0, accept=always),[]
    class Look(Callback):
        order = 71
        def before_step(self): seen.append([(h['lr'],h['wd'],h['mom']) for h in self.opt.hypers])
    l.fit(5, slice(1e-3,1e-2), cbs=[sa, Look])
    assert {'lr','wd[0]','mom[1]'}<=set(sa.history) and sa.ref0=={'lr':1., 'wd[0]':.05, 'mom[1]':.9}
    assert {round(b[0]/a[0], 6) for a,b in seen}=={10.}
    assert {b[1] for _,b in seen}=={.05} and len({a[1] for a,_ in seen})>1
    assert {a[2] for a,_ in seen}=={.9} and len({b[2] for _,b in seen})>1
    assert [h['wd'] for h in l.opt.hypers]==[.05,.05]

@pytest.mark.parametrize('hp,msg', [(HP('lr', LogFloat(.1,1), group=5), 'no parameter group 5'), (HP('dropout', Float(0,1), group=0), 'only these have'),
                                    (HP('batch_tfms', Float(0,2)), 'no random batch transform')])
def test_bad_groups(hp, msg):
    with pytest.raises(ValueError, match=msg): fit(learner(dropout=.1), cbs=SimAnnealHP([hp]))

def test_dropout_layers_keep_their_ratio():
    l = learner(dropout=.4); l.model[2] = nn.Sequential(nn.ReLU(), nn.Dropout(.1))
    sa,seen = SimAnnealHP({'dropout': Float(.1,.8)}, seed=0, accept=always),set()
    class Look(Callback):
        order = 71
        def before_batch(self): seen.add((self.model[2][1].p, self.model[3].p))
    fit(l, 4, cbs=[sa, Look])
    assert len(seen)>1 and {round(b/a, 6) for a,b in seen}=={4.} and (l.model[2][1].p,l.model[3].p)==(.1,.4)

def test_batch_transforms_are_drawn_anew():
    from fastai.vision.augment import Brightness,Rotate
    from fastai.torch_core import TensorImage
    def mk(**kw):
        set_seed(0)
        y = torch.randint(0, 2, (160,)); x = torch.rand(160,3,8,8)*.2+y[:,None,None,None]*.3
        ds = lambda a,b: [(TensorImage(x[i]), y[i]) for i in range(a,b)]
        mkdl = lambda d,s: DataLoader(d, bs=16, shuffle=s, after_batch=Pipeline([Brightness(.4, p=1.), Rotate(20., p=1.)]) if s else None)
        l = Learner(DataLoaders(mkdl(ds(0,128),True), mkdl(ds(128,160),False)), nn.Sequential(nn.Flatten(), nn.Linear(192,2)), loss_func=CrossEntropyLossFlat(), opt_func=SGD, lr=.01)
        l.remove_cb(l.progress); l.logger = noop
        return l
    a = fit(mk(), 4); b = mk()
    fs = b.dls.train.after_batch.fs
    strong = lambda: (next(f for f in fs if isinstance(f, Brightness)).fs[0].max_lighting, next(f for f in fs if isinstance(f, Rotate)).aff_fs[0].keywords['max_deg'])
    sa = SimAnnealHP({'batch_tfms': Float(0,2)}, accept=never, seed=0); fit(b, 4, cbs=sa)
    assert torch.equal(weights(a), weights(b)) and len(sa.history) and sa.history.change.abs().max()>0
    assert strong()==(.4,20.)
    seen = set()
    class Look(Callback):
        order = 71
        def after_batch(self): seen.add(strong())
    sa.accept = always; fit(b, 4, cbs=[sa, Look])
    assert len(seen)>1 and strong()==(.4,20.)

@pytest.mark.parametrize('monitor', ['valid_loss','accuracy'])
def test_held_out_items_are_never_judged_by(monitor):
    sa,l = SimAnnealHP(LR, seed=0, holdout=.6, monitor=monitor),learner()
    judged = []
    hold = sa._hold_valid
    def spy(): hold(); judged.extend(b[0] for b in sa.valid)
    sa._hold_valid = spy
    fit(l, 3, cbs=sa)
    x,y = zip(*l.dls.valid.dataset); x,y = torch.stack(x),torch.stack(y)
    j = torch.cat(judged)
    used = (x[:,None]==j[None]).all(-1).any(-1)
    assert used.sum()==40==len(j) and len(sa.scores)==3
    l.model.eval()
    with torch.no_grad(): p = l.model(x[~used])
    want = F.cross_entropy(p, y[~used]).item() if monitor=='valid_loss' else (p.argmax(1)==y[~used]).float().mean().item()
    assert sa.score==pytest.approx(want, rel=1e-5)
    with pytest.raises(ValueError, match='holdout=1'): SimAnnealHP(LR, holdout=1)

@pytest.mark.parametrize('every', ['1ep', '3it'])
@pytest.mark.parametrize('at', [20, 37, 48, 70, 84, 95])
def test_a_killed_fit_goes_on(at, every, tmp_path):
    from fastai_anneal.schedule import Checkpoint
    def one(kill=None, name='a'):
        l,sa = learner(path=tmp_path, opt_func=Adam),SimAnnealHP({**LR, 'wd': LogFloat(1e-4,.1)}, seed=0)
        class Kill(Callback):
            order = 2000
            def after_batch(self):
                if kill and self.training and self.train_iter==kill and not self.learn.sim_anneal_hp.inner: raise RuntimeError('killed')
        l.fit(6, cbs=[sa, Checkpoint(name, every), Kill()])
        return l,sa
    a,sa = one(name='ref')
    with pytest.raises(RuntimeError): one(at)
    b,sb = one()
    assert torch.equal(weights(a), weights(b))
    pd.testing.assert_frame_equal(sa.history, sb.history)
    assert sa.n_trained==sb.n_trained and sa.scores==sb.scores and sa.log==sb.log
    assert not list(tmp_path.glob('models/*.pth'))

@pytest.mark.parametrize('damage', [b'', b'garbage', 'half'])
def test_damaged_checkpoint(tmp_path, damage):
    "The file before it takes its place, and the fit ends as if nothing had happened; without one it is an error that says so"
    from fastai_anneal.schedule import Checkpoint
    def one(kill=None):
        l = learner(path=tmp_path)
        class Kill(Callback):
            order = 2000
            def after_epoch(self):
                if self.epoch==kill: raise RuntimeError('killed')
        l.fit(6, cbs=[SimAnnealHP(LR, seed=0, accept=always), Checkpoint('a'), Kill()])
        return l
    a = one()
    with pytest.raises(RuntimeError): one(4)
    file,before = [tmp_path/'models'/f for f in ('a.pth','a.previous.pth')]
    file.write_bytes(file.read_bytes()[:file.stat().st_size//2] if damage=='half' else damage)
    kept = file.read_bytes(),before.read_bytes()
    with pytest.warns(UserWarning, match='going on with a.previous.pth'): b = one()
    assert torch.equal(weights(a), weights(b)) and not list(tmp_path.glob('models/*.pth'))
    file.write_bytes(kept[0])
    with pytest.raises(ValueError, match='damaged.*remove it'): one()

def test_two_generations_on_the_disk(tmp_path):
    from fastai_anneal.schedule import Checkpoint
    l,sa = learner(1e-4, path=tmp_path),SimAnnealHP(LR, seed=0, accept=always)
    fit(l, 4, cbs=[sa, Checkpoint('c', keep=True)])
    a,b = [torch.load(tmp_path/'models'/f, weights_only=False) for f in ('c.previous.pth','c.pth')]
    assert (a['epoch'],a['iter'])<(b['epoch'],b['iter'])

def test_divergence_of_all_is_left_out():
    l = learner(1e-2)
    class Diverge(Callback):
        order = 90
        def after_batch(self):
            if self.training and 20<self.train_iter<=36: self.model[0].weight.data.fill_(math.nan)
    fit(l, 5, cbs=[SimAnnealHP(LR, seed=0), Diverge()])
    assert torch.isfinite(weights(l)).all()

class Scaled(Callback):
    "Steps through a `GradScaler`, as `MixedPrecision` does, on the CPU; a candidate makes its scale overflow"
    order = MixedPrecision.order
    def before_fit(self): self.learn.scaler,self.ends = torch.amp.GradScaler('cpu', init_scale=2.**10, growth_interval=4),[]
    def before_backward(self): self.learn.loss_grad = self.scaler.scale(self.loss_grad)
    def before_step(self):
        "fastai's `Optimizer` is none that `GradScaler` knows: unscale and step as it does in `MixedPrecision`"
        self.skip = True
        if self.learn.sim_anneal_hp.inner: self.learn.opt.all_params()[0][0].grad.fill_(math.inf)
        self.scaler.step(self)
        if self.skip: raise CancelStepException()
    def after_step(self): self.scaler.update()
    @property
    def param_groups(self): return self.opt.param_groups
    def step(self, *args, **kwargs): self.skip = False
    def after_batch(self):
        if self.training and not self.learn.sim_anneal_hp.inner: self.ends.append(dict(self.scaler.state_dict()))

def test_the_scaler_goes_back_too():
    a,b = learner(),learner()
    a.add_cb(sa := SimAnnealHP(LR, seed=0, accept=never, cool=0)); b.add_cb(sb := SimAnnealHP({}))
    ca,cb = Scaled(),Scaled()
    fit(a, 3, cbs=ca); fit(b, 3, cbs=cb)
    assert len(sa.history) and sa.n_trained and not sa.history.accepted.any()
    assert ca.ends==cb.ends and len({o['scale'] for o in ca.ends})>1
    assert torch.equal(weights(a), weights(b))

def test_refused_before_anything_is_touched():
    l = learner(); before = str(l.opt),l.lr,weights(l)
    with pytest.raises(ValueError): l.fit(2, .5, cbs=SimAnnealHP(LR, monitor='acuracy'))
    assert (str(l.opt),l.lr)==before[:2] and torch.equal(weights(l), before[2])

@pytest.mark.parametrize('opt', [partial(SGD, mom=.9), Adam, partial(OptimWrapper, opt=torch.optim.AdamW)])
def test_a_fit_that_keeps_its_rate_is_one_cycle(opt):
    "Bit for bit, also where groups have rates of their own"
    def trained(one, **kw):
        l = learner(opt_func=opt, splitter=lambda m: [list(m[:2].parameters()), list(m[2:].parameters())])
        (l.fit_one_cycle if one else l.fit)(4, slice(.001,.01), **kw)
        return l
    a,b = trained(True),trained(False, cbs=SimAnnealHP({**LR, 'wd': LogFloat(1e-4,.1)}, accept=never, seed=0))
    assert torch.equal(weights(a), weights(b)) and a.recorder.values==b.recorder.values and a.recorder.losses==b.recorder.losses

@pytest.mark.parametrize('warm,cool,want', [
    (.25, .75, {0:.04, .125:.52, .25:1, .625:.5, 1:0}), (0, .5, {0:1, .5:1, .75:.5, 1:0}), (.3, .3, {.15:.52, .31:1, .69:1, .85:.5}),
    (.5, 1, {.25:.52, .5:1, .75:.5}), (1, .5, {.5:.52, 1:1}), (.1, .2, {0:.04, .05:.52, .5:1, .9:.5})])
def test_one_cycle_at(warm, cool, want):
    from fastai.callback.schedule import combined_cos
    for p,v in want.items(): assert abs(one_cycle_at(p, .04, 1., 0., warm, cool)-v)<1e-6
    if warm==.25:
        f = combined_cos(.25, .04, 1., 0.)
        assert all(one_cycle_at(p, .04, 1., 0.)==f(p) for p in np.linspace(0,1,57))

@pytest.mark.parametrize('opt,want', [(Adam, .9), (partial(SGD, mom=0.), 0.)])
def test_momentum_is_cycled_as_in_one_cycle(opt, want):
    def moms(f, *cbs):
        l,seen = learner(.01, opt_func=opt),[]
        class Look(Callback):
            order = 71
            def before_step(self):
                if not (hasattr(self.learn, 'sim_anneal_hp') and self.learn.sim_anneal_hp.inner): seen.append(self.opt.hypers[0]['mom'])
        f(l, [*cbs, Look()])
        return np.array(seen),l
    a,l = moms(lambda l,cbs: l.fit(3, .01, cbs=cbs), SimAnnealHP(LR, accept=never, seed=0))
    assert l.opt.hypers[0]['mom']==want
    if not want: assert not a.any(); return
    b,_ = moms(lambda l,cbs: l.fit_one_cycle(3, .01, cbs=cbs))
    np.testing.assert_allclose(a, b, atol=1e-6)
    c,_ = moms(lambda l,cbs: l.fit(3, .01, cbs=cbs), SimAnnealHP({**LR, 'mom': Float(.8,.95)}, accept=never, seed=0))
    assert set(c.round(6))=={.9}

class Break(Callback):
    "Makes the model forget all at the end of the first epoch, once"
    order = 65
    def __init__(self, factor): self.factor,self.done = factor,False
    def after_batch(self):
        sa = self.learn.sim_anneal_hp
        if self.done or not self.training or sa.inner or self.iter+1<self.n_iter: return
        self.done = True
        for p in self.model.parameters(): p.data.mul_(self.factor)

@pytest.mark.parametrize('factor', [1.,100.])
def test_collapse_is_undone(factor):
    "What loses half of the screening's gain within an epoch goes back, to half the learning rate; what does not, does not"
    l,sa = learner(),SimAnnealHP(LR, seed=0)
    fit(l, 6, cbs=[sa, Break(factor)])
    h = sa.history
    win, = h[h.stage=='winner'].lr
    r = h[h.stage=='recover']
    assert len(r)==(factor>1)
    if len(r):
        assert r.lr.iloc[0]==win/2 and valid_loss(l)<1. and abs(r.batch.iloc[0]-16)<=1

def test_a_collapse_goes_back_to_the_best_epoch():
    l,sa,ends = learner(),SimAnnealHP(LR, seed=0),[]
    class Late(Callback):
        order = 69
        def after_batch(self):
            if not self.training or sa.inner or self.iter+1<self.n_iter: return
            if self.epoch==2 and not sa.history.stage.eq('recover').any():
                for p in self.model.parameters(): p.data.mul_(100)
    class Look(Callback):
        order = 71
        def after_batch(self):
            if self.training and not sa.inner and self.iter+1==self.n_iter: ends.append((weights(self.learn), sa.gain))
    fit(l, 8, cbs=[sa,Late(),Look()])
    r, = sa.history[sa.history.stage=='recover'].batch
    assert abs(r-3*16)<=1 and torch.equal(ends[2][0], ends[1][0]) and not torch.equal(ends[1][0], ends[0][0])
    a,b = zip(*[g for _,g in ends[:5]])
    assert len(set(a))==1 and b[0]>b[1]==b[2]>b[3] # where it began, and the best so far

def test_no_gain_is_no_collapse():
    "A fit that gets nowhere is left alone as long as it does not get much worse"
    l,sa = learner(),SimAnnealHP({**LR, 'wd': LogFloat(1e-5,.3)}, seed=0, max_gb=1e-6)
    fit(l, 40, cbs=sa)
    assert (sa.history.stage=='recover').sum()<5 and valid_loss(l)<1

@pytest.mark.parametrize('old,new,s,short,lim', [(.1,.1,40,10,1.),(.1,.05,40,10,.5),(.1,.2,40,10,2.),(.1,10.,40,10,1000.)])
def test_trend_of_the_screening(old, new, s, short, lim):
    "A trend goes on in its direction, half as fast, the less the less it is to be believed, and up at most by what the trial was stretched"
    from fastai_anneal.simanneal import _drifted,_horizon
    r = _drifted(new, old, s, short, 400)
    want = min(_horizon, .5*math.log(new/old)/math.log(s/short))
    assert r==pytest.approx(new*10**want)
    assert (r<new)==(new<old) and (r>new)==(new>old) and r<=new*10**_horizon*(1+1e-9)
    assert abs(math.log(_drifted(new, old, s, short, 400, .3)/new))<=abs(math.log(r/new)) and _drifted(new, old, s, short, 400, 0.)==new
    assert _drifted(.05, .1, 1, 1, 400)==.05 and _drifted(0., .1, 40, 10, 400)==0

@pytest.mark.parametrize('ys,want,flat', [
    ([2.3,2.,1.5,3.], 2, False), ([2.3,2.299,2.305,2.4], 2, True), ([2.3,math.inf,2.31,2.4], 2, True), # the largest one that does no harm
    ([2.4,2.5,2.6,math.inf], 0, True), ([-.1,-.1,-.1005,-.05], 2, True), ([-.1,-.3,-.4,-.05], 2, False)])
def test_where_to_look_around(ys, want, flat):
    from fastai_anneal.simanneal import _foremost
    start = 2.3 if ys[0]>0 else -.1
    assert _foremost(ys, [.1,.2,.3,.4], start)==(want,flat)

def test_how_far_a_difference_is_believed():
    from fastai_anneal.simanneal import _sure
    assert _sure(-.1, 0.)==_sure(0., 0.)==_sure(-math.inf, 0.)==_sure(math.nan, 0.)==1 and _sure(-.2, .1)==_sure(.2, .1)==pytest.approx(4/5)
    assert _sure(.1, .1)<_sure(.2, .1)<_sure(.2, .01)<1 and _sure(.2, .1, 2.)==pytest.approx(2/3)

@pytest.mark.parametrize('old,worth,new_worth,de,want', [
    (.01, .33, .3, -.2, None), (.01, .5, .3, -.04, .03), (.01, .5, .3, -.02, None), # lower: stays in a tie, or if all may be noise
    (.007, .33, .3, -.02, .03), (.007, .33, .34, .02, None), # much lower: stays only if it is better
    (.03, .33, .3, -.2, None), (.05, .33, .3, -.2, 'between'), (.05, .33, .3, -.05, None), (.05, .5, .3, -.04, .03), # higher: a compromise in a tie
    (.15, .33, .3, -.05, 'between'), # and if it is higher than what the screening makes of its trials by more than its cycles can tell
    (.3, .33, .3, -.05, .03), (.3, .3, .33, .1, .03), (.3, .3, .5, .4, None), # much higher: stays only if it is better for sure
    (.3, 2.5, .3, -.9, .03), (.3, math.inf, .3, math.nan, .03), (.3, math.inf, math.inf, math.nan, None)])
def test_verdict_of_a_screening(old, worth, new_worth, de, want):
    "An incumbent that a short cycle cannot tell from what a screening finds has a say: below all, above less the further it is, far above none"
    from fastai_anneal.simanneal import _between
    sa,lr = SimAnnealHP(LR),.03
    new,cur = dict(worth=new_worth, vals=dict(lr=lr), d=dict(de=de, se=.05, acc=de!=de)),dict(worth=worth, vals=dict(lr=old))
    got = sa._verdict(new, cur, lr, 2.3)
    if want=='between': assert got==_between(lr, old) and lr<got<old
    else: assert got==want
    sa.accept = never
    assert sa._verdict(new, cur, lr, 2.3) is None

def test_vertex_of_three_points():
    from fastai_anneal.simanneal import _vertex
    for f,at in ((lambda x: 2+(x-.43)**2, None), (lambda x: math.exp(3*(x-.43)**2), .43), (lambda x: -3+(x-.43)**2, .43), (lambda x: 2-x, .6), (lambda x: x, .3)):
        for xs in ((.3,.45,.6), (.45,.3,.6), (.6,.3,.55)):
            v = _vertex(xs, [f(x) for x in xs])
            assert abs(v-at)<1e-9 if at else .42<v<.44
    assert _vertex((.3,.45,.6), (1.,.5,math.inf))==.45 and _vertex((.3,.3,.6), (.5,.5,1.))==.3 and _vertex((.1,.2,.3), (math.inf,)*3)==.1

def test_between_leans_to_a_start_that_is_near():
    from fastai_anneal.simanneal import _between
    w = [math.log(_between(.01, .01*2**d)/.01)/(d*math.log(2)) for d in (.1,1,2,3,5)]
    assert .65<w[0]<.7 and w==sorted(w, reverse=True) and w[-1]<.05
    assert _between(0., .1)==0 and _between(.1, 0.)==.1

def test_rounds_fit_into_the_memory():
    "Segments are shortened to what `max_gb` has room for, and the fit goes through"
    l = learner(1e-4)
    gb = sum(t.numel()*t.element_size() for t in l.dls.one_batch())/2**30
    a,b = [fit(learner(1e-4), 6, cbs=sa) and sa for sa in (SimAnnealHP(LR, seed=0), SimAnnealHP(LR, seed=0, max_gb=3.5*gb))]
    assert a.history.n.max()>3 and b.history.n.max()==3 and set(b.history.batch)==set(a.history.batch)
    with pytest.raises(ValueError, match='max_gb'): SimAnnealHP(LR, max_gb=0)

def test_held_out_as_a_column():
    "`ValueMetric(sa.held_out)` records the score of each epoch, changes nothing else, and can be pickled"
    a,b = SimAnnealHP(LR, seed=0),SimAnnealHP(LR, seed=0)
    l,m = learner(1e-3),learner(1e-3, metrics=[accuracy, ValueMetric(b.held_out)])
    fit(l, 4, cbs=a); fit(m, 4, cbs=b)
    assert m.recorder.metric_names[-2]=='held_out' and math.isnan(SimAnnealHP(LR).held_out())
    assert [v[-1] for v in m.recorder.values]==b.scores==a.scores and [v[:-1] for v in m.recorder.values]==l.recorder.values
    m.validate()
    assert b.score==b.scores[-1] and len(b.scores)==4
    assert pickle.loads(pickle.dumps(m.metrics[-1])).value==b.score

@pytest.mark.parametrize('n_valid', [0, -1, .5, '1024'])
def test_n_valid_is_a_number_of_items(n_valid):
    with pytest.raises(ValueError, match='n_valid'): SimAnnealHP(LR, n_valid=n_valid)

def test_more_items_judge_where_segments_are_long():
    "By default a quarter of the items that the longest segment trains, from 1024 to 8192, as far as `max_gb` has room"
    def judged(**kw):
        sa,l,got = SimAnnealHP({'lr': LogFloat(1e-4,1)}, seed=0, **kw),learner(n=8000, n_valid=24000),[]
        class Stop(Callback):
            def after_batch(self):
                if sa.valid and not sa.inner: got.append(sum(find_bs(b) for b in sa.valid)); raise CancelFitException
        l.fit(8, cbs=[sa,Stop()])
        return got[0]
    longest = max(s for _,s,_ in plan_rounds(8, 500, 500, want=2))
    assert 24000//judged()==24000//(longest*16//4) and judged()>1500
    assert judged(n_valid=100)==100 and 1024<=judged(max_gb=1e-7)<1100

@pytest.mark.parametrize('cls', [Learner, TrainLearner])
def test_no_attribute_shadows_the_learner(cls, tmp_path):
    with warnings.catch_warnings(record=True) as ws:
        warnings.simplefilter('always')
        fit(learner(1e-3, cls=cls, path=tmp_path), 2, cbs=[SimAnnealHP(LR, seed=0), CosineAnneal(), Checkpoint('a')])
    assert not [w for w in ws if 'shadowing' in str(w.message)]

@pytest.mark.parametrize('opt', [partial(SGD, mom=.9), Adam, partial(OptimWrapper, opt=torch.optim.AdamW)])
@pytest.mark.parametrize('every', ['1ep', '5it'])
def test_a_resumed_fit_goes_back_as_far_as_the_one_that_was_not_killed(opt, every, tmp_path):
    "The state to go back to after a divergence is in the file"
    class Poison(Callback):
        order = 2000
        def after_batch(self):
            if self.training and self.train_iter==40 and not self.learn.sim_anneal_hp.inner:
                for p in self.model.parameters(): p.data.fill_(math.nan)
    class Kill(Callback):
        order = 2001
        def after_batch(self):
            if kill and self.training and self.train_iter==37: raise RuntimeError('killed')
    def one(name='a'):
        l,sa = learner(path=tmp_path, opt_func=opt, dropout=.2),SimAnnealHP(LR, seed=0)
        l.fit(5, cbs=[sa, Checkpoint(name, every), Poison(), Kill()])
        return l,sa
    kill = False
    a,sa = one('b')
    kill = True
    with pytest.raises(RuntimeError, match='killed'): one()
    kill = False
    b,sb = one()
    assert 'recover' in set(sa.history.stage) and math.isfinite(valid_loss(b))
    assert torch.equal(weights(a), weights(b)) and sa.history.equals(sb.history) and sa.log==sb.log and sa.scores==sb.scores
