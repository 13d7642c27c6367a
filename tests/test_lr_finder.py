import copy,math,pickle,random,warnings
import numpy as np,pytest,torch
from functools import partial
from torch import nn
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
