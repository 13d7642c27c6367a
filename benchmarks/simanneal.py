"""SimAnnealHP against whole trainings: final losses from bad learning rates, and what it costs

    python benchmarks/simanneal.py                 # MNIST sample, mlp, SGD and Adam, 3 seeds
    python benchmarks/simanneal.py --full --data FOLDER  # the 60,000 digits too (torchvision's layout), mlp and cnn, 5 seeds: hours
    python benchmarks/simanneal.py --full --data FOLDER --cache peers  # the peers' runs are kept in the folder and not repeated
    python benchmarks/simanneal.py --full --sizes sample --only anneal --starts best/30 --seeds 30 # one column and row, with little noise

For each model and optimizer: the median final validation loss (and, in brackets, the loss on the test digits, which no
method has seen) after N epochs, relative to `fit_one_cycle(N, best lr of a grid)`, best by the median validation loss; behind
a bar the median of the ratios seed by seed (same weights at the start, same order of the data), and the standard error of
the mean of their logarithms. The best of the grid is the luckiest of four medians: with other seeds it would itself end above 1.
Starts: the best lr / 30, itself, and times 10.
  alone     fit at that lr
  plateau   the same with ReduceLROnPlateau
  restarts  two fits at random lrs (2N epochs), the better one by validation loss
  pbt       population based training with two members (2N epochs): each epoch the worse copies the better, lr times .5 or 2
  anneal    fit at that lr with SimAnnealHP on lr and wd (at most 2N epochs of batches)
"""
import argparse,contextlib,json,math,time,warnings; warnings.filterwarnings('ignore')
from functools import partial
import numpy as np
from fastai.vision.all import *
from fastai_anneal.all import *

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument('--full', action='store_true'); p.add_argument('--data'); p.add_argument('--seeds', type=int)
p.add_argument('--models', default=None); p.add_argument('--opts', default='sgd,adam'); p.add_argument('--epochs', type=int)
p.add_argument('--sizes', default='sample,full'); p.add_argument('--cache', help='folder for the results of the peers'); p.add_argument('--only', default='alone,plateau,restarts,pbt,anneal'); p.add_argument('--starts', default='best/30,best,best*10'); p.add_argument('--cost', action='store_true', help='only the cost')
args = p.parse_args()
torch.set_num_threads(1)

OPTS = dict(sgd=partial(SGD, mom=.9), adam=Adam)
GRID = dict(sgd=(.01,.03,.1,.3), adam=(1e-3,3e-3,1e-2,3e-2))
MODELS = dict(mlp=partial(mnist_mlp, 50), cnn=mnist_cnn)
STARTS = {'best/30': 1/30, 'best': 1, 'best*10': 10}
SPACE = {'lr': LogFloat(1e-4, 1), 'wd': LogFloat(1e-5, .3)}

def learner(src, model, opt, seed, lr=1e-3):
    dls = mnist_dls(src, bs=64, seed=seed+1)
    set_seed(seed)
    learn = Learner(dls, MODELS[model](), loss_func=CrossEntropyLossFlat(), opt_func=OPTS[opt], lr=lr, metrics=accuracy)
    learn.remove_cb(learn.progress); learn.logger = noop
    return learn

def score(learn):
    v = learn.recorder.values[-1][1]
    return v,learn.validate(ds_idx=2)[0]

def one_cycle(mk, n, lr): l = mk(lr); l.fit_one_cycle(n, lr); return score(l)
def alone(mk, n, lr, seed): l = mk(lr); l.fit(n, lr); return score(l)
def plateau(mk, n, lr, seed):
    l = mk(lr)
    with contextlib.redirect_stdout(None): l.fit(n, lr, cbs=ReduceLROnPlateau(patience=1, factor=3))
    return score(l)
def anneal_hp(mk, n, lr, seed):
    l,cb = mk(lr),SimAnnealHP(SPACE, seed=seed)
    l.fit(n, lr, cbs=cb)
    assert cb.n_trained <= n*len(l.dls.train) # with the fit's own, at most 2N epochs
    return score(l)
def restarts(mk, n, lr, seed):
    rng = np.random.default_rng(seed)
    return min(alone(mk, n, SPACE['lr'].sample(rng), seed) for _ in range(2))
def pbt(mk, n, lr, seed):
    rng = np.random.default_rng(seed)
    ls,lrs,vs = [mk(lr),mk(lr)],[lr,float(lr*rng.choice([.5,2.]))],[0,0]
    for l,r in zip(ls,lrs): l.create_opt()
    for e in range(n):
        for i,l in enumerate(ls):
            l.fit(1, lrs[i]); v = l.recorder.values[-1][1]; vs[i] = v if math.isfinite(v) else math.inf
        g,b = (0,1) if vs[0]<=vs[1] else (1,0)
        if e<n-1:
            ls[b].model.load_state_dict(deepcopy(ls[g].model.state_dict())); ls[b].opt.load_state_dict(deepcopy(ls[g].opt.state_dict()))
            lrs[b] = float(lrs[g]*rng.choice([.5,2.]))
    return score(ls[g])

METHODS = dict(alone=alone, plateau=plateau, restarts=restarts, pbt=pbt, anneal=anneal_hp)

def kept(key, f):
    "The result of `f()`, from the cache if it is there"
    path = args.cache and Path(args.cache)/('-'.join(map(str, key))+'.json')
    if path and path.exists(): return tuple(json.loads(path.read_text()))
    r = f()
    if path: path.parent.mkdir(parents=True, exist_ok=True); path.write_text(json.dumps(r))
    return r

def table(src, name, model, opt, n, seeds):
    mks = [lambda lr, s=s: learner(src, model, opt, s, lr) for s in range(seeds)]
    def run(m, lr, s):
        f = partial(METHODS[m], mks[s], n, lr, s)
        if m=='anneal': return f()
        return kept((name, model, opt, n, m, s)+(() if m=='restarts' else (f'{lr:.4g}',)), f)
    t = time.time()
    grid = {lr: [kept((name, model, opt, n, 'cycle', s, f'{lr:.4g}'), partial(one_cycle, mk, n, lr)) for s,mk in enumerate(mks)] for lr in GRID[opt]}
    med = {lr: np.nanmedian([v for v,_ in r]) for lr,r in grid.items()}
    best = min(med, key=med.get); ref = np.array(grid[best])
    print(f'\n{name} {model} {opt}, {n} epochs, {seeds} seeds; one cycle by lr: ' + ', '.join(f'{k:g}: {v:.4f}' for k,v in med.items()), flush=True)
    print(f"{'start':>10}" + ''.join(f'{m:>34}' for m in args.only.split(',')), flush=True)
    for what in args.starts.split(','):
        row = f'{what:>10}'
        for m in args.only.split(','):
            r = np.array([run(m, best*STARTS[what], s) for s in range(seeds)])
            q = np.nan_to_num(np.median(r, 0)/np.median(ref, 0), nan=np.inf)
            p = np.nan_to_num(np.median(r/ref, 0), nan=np.inf)
            se = np.log(r/ref)[:,0].std(ddof=1)/math.sqrt(seeds) if seeds>1 else math.nan
            row += f'{q[0]:>10.3f} ({q[1]:6.3f}) |{p[0]:6.3f} +-{se:5.3f}'
        print(row, flush=True)
    print(f'{time.time()-t:.0f} s', flush=True)

def cost():
    "A fit with nothing to anneal beside one without the callback; snapshot and rollback of a ResNet-18; in time of the processor"
    ts = {0:[],1:[]}
    for i in range(13):
        for k in (0,1) if i%2 else (1,0):
            l = learner('sample', 'mlp', 'adam', 0); t = time.process_time()
            l.fit(2, cbs=SimAnnealHP({}) if k else None); ts[k].append(time.process_time()-t)
    a = np.array(ts[1])/np.array(ts[0])
    print(f'nothing to anneal: {np.median(a):.3f} of a fit without (median of {len(a)} pairs), {min(ts[1])/min(ts[0]):.3f} by the fastest of each')
    m = resnet18(); opt = SGD(list(m.parameters()), lr=.1, mom=.9)
    m(torch.randn(2,3,64,64)).sum().backward(); opt.step(); opt.zero_grad()
    ts = [t.detach() for t in (*m.parameters(), *m.buffers())]+[s['grad_avg'] for s in opt.state.values() if 'grad_avg' in s]
    def bare(): cs = [o.clone() for o in ts]; [o.copy_(q) for o,q in zip(ts,cs)]
    def fresh(): Snapshot(m, opt).restore()
    def again(): s[0] = Snapshot(m, opt, reuse=s[0]); s[0].restore()
    s,res = [Snapshot(m, opt)],{}
    for _ in range(15):
        for n,f in (('bare clone and copy',bare),('snapshot and rollback',fresh),('the same in memory of an older one',again)):
            t = time.process_time(); f(); res.setdefault(n, []).append(time.process_time()-t)
    print(f'ResNet-18 with SGD momentum, {len(ts)} tensors: ' + ', '.join(f'{n} {np.median(v)*1e3:.0f} ms' for n,v in res.items()), flush=True)

if __name__=='__main__':
    cost()
    if not args.cost:
        seeds = args.seeds or (5 if args.full else 3)
        for model in (args.models or ('mlp,cnn' if args.full else 'mlp')).split(','):
            for opt in args.opts.split(','):
                if 'sample' in args.sizes: table('sample', 'sample', model, opt, args.epochs or 8, seeds)
                if args.full and args.data and 'full' in args.sizes: table(args.data, 'full', model, opt, args.epochs or 5, seeds)
