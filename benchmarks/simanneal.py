"""SimAnnealHP against whole trainings: final losses from bad learning rates, and what it costs

    python benchmarks/simanneal.py                       # MNIST sample, mlp, SGD and Adam, 3 seeds
    python benchmarks/simanneal.py --full --data FOLDER  # the 60,000 digits too, mlp and cnn, 5 seeds: hours
    python benchmarks/simanneal.py --full --cache peers  # the peers' runs are kept and not repeated
    python benchmarks/simanneal.py --full --sizes sample --only anneal --starts best/30 --seeds 30 # little noise

For each model and optimizer: the median final validation loss (and, in brackets, the loss on the test digits, which no
method has seen) after N epochs, relative to `fit_one_cycle(N, best lr of a grid)`, best by the median validation loss;
behind a bar the median of the ratios seed by seed (same weights at the start, same order of the data), and the standard
error of the mean of their logarithms. The best of the grid is the luckiest of four medians: with other seeds it would
itself end above 1. Starts: the best lr / 30, itself, and times 10.
  alone     fit at that lr
  plateau   the same with ReduceLROnPlateau
  restarts  two fits at random lrs (2N epochs), the better one by validation loss
  pbt       population based training of two (2N epochs): each epoch the worse copies the better, lr times .5 or 2
  anneal    fit at that lr with SimAnnealHP on lr and wd (at most 2N epochs of batches)
"""
from common import *
import contextlib
from dataclasses import dataclass
from fastai.vision.all import *
from fastai_anneal.all import *
from fastai_anneal.core.undo import Snapshot

OPTS = dict(sgd=partial(SGD, mom=.9), adam=Adam)
GRID = dict(sgd=(.01,.03,.1,.3), adam=(1e-3,3e-3,1e-2,3e-2))
MODELS = dict(mlp=partial(mnist_mlp, 50), cnn=mnist_cnn)
STARTS = {'best/30': 1/30, 'best': 1, 'best*10': 10}
SPACE = {'lr': LogFloat(1e-4, 1), 'wd': LogFloat(1e-5, .3)}

def learner(source, model, opt, seed, lr=1e-3):
    dls = mnist_dls(source, bs=64, seed=seed+1)
    set_seed(seed)
    learn = Learner(dls, MODELS[model](), loss_func=CrossEntropyLossFlat(), opt_func=OPTS[opt], lr=lr, metrics=accuracy)
    learn.remove_cb(learn.progress)
    learn.logger = noop
    return learn

# ---- methods: validation and test loss; `make(lr)` gives a learner

def score(learn): return float(learn.recorder.values[-1][1]),float(learn.validate(ds_idx=2)[0])

def one_cycle(make, n_epoch, lr):
    learn = make(lr)
    learn.fit_one_cycle(n_epoch, lr)
    return score(learn)

def alone(make, n_epoch, lr, seed, cbs=None):
    learn = make(lr)
    with contextlib.redirect_stdout(None): learn.fit(n_epoch, lr, cbs=cbs)
    return score(learn)

def plateau(make, n_epoch, lr, seed): return alone(make, n_epoch, lr, seed, ReduceLROnPlateau(patience=1, factor=3))

def with_annealing(make, n_epoch, lr, seed):
    learn,annealing = make(lr),SimAnnealHP(SPACE, seed=seed)
    learn.fit(n_epoch, lr, cbs=annealing)
    assert annealing.n_trained <= n_epoch*len(learn.dls.train) # with the fit's own, at most 2N epochs
    return score(learn)

def restarts(make, n_epoch, lr, seed):
    rng = np.random.default_rng(seed)
    return min(alone(make, n_epoch, SPACE['lr'].sample(rng), seed) for _ in range(2))

def pbt(make, n_epoch, lr, seed):
    rng = np.random.default_rng(seed)
    def neighbour(lr): return float(lr*rng.choice([.5,2.]))
    members,lrs,losses = [make(lr),make(lr)],[lr,neighbour(lr)],[0,0]
    for member in members: member.create_opt()
    for epoch in range(n_epoch):
        for i,member in enumerate(members):
            member.fit(1, lrs[i])
            loss = member.recorder.values[-1][1]
            losses[i] = loss if math.isfinite(loss) else math.inf
        good,bad = (0,1) if losses[0]<=losses[1] else (1,0)
        if epoch==n_epoch-1: break
        members[bad].model.load_state_dict(deepcopy(members[good].model.state_dict()))
        members[bad].opt.load_state_dict(deepcopy(members[good].opt.state_dict()))
        lrs[bad] = neighbour(lrs[good])
    return score(members[good])

METHODS = dict(alone=alone, plateau=plateau, restarts=restarts, pbt=pbt, anneal=with_annealing)

# ---- comparison

@dataclass
class Setting:
    "What is trained, and how often"
    source: str # Of the digits
    size: str # 'sample' or 'full'
    model: str
    opt: str
    n_epoch: int
    seeds: int
    cache: Cache

    def make(self, seed): return partial(learner, self.source, self.model, self.opt, seed)
    def kept(self, compute, *key):
        return tuple(self.cache.get('-'.join(map(str, (self.size, self.model, self.opt, self.n_epoch, *key))), compute))

    def one_cycle(self, lr, seed):
        return self.kept(lambda: one_cycle(self.make(seed), self.n_epoch, lr), 'cycle', seed, f'{lr:.4g}')

    def grid(self):
        "Scores of `fit_one_cycle` by learning rate: arrays of seeds x (validation, test)"
        return {lr: np.array([self.one_cycle(lr, seed) for seed in range(self.seeds)]) for lr in GRID[self.opt]}

    def run(self, method, lr, seed):
        def compute(): return METHODS[method](self.make(seed), self.n_epoch, lr, seed)
        if method=='anneal': return compute()
        return self.kept(compute, method, seed, *([] if method=='restarts' else [f'{lr:.4g}']))

    def cell(self, method, lr, reference):
        "The scores of a method relative to those of the best one-cycle"
        scores = np.array([self.run(method, lr, seed) for seed in range(self.seeds)])
        valid,test = np.nan_to_num(np.median(scores, 0)/np.median(reference, 0), nan=np.inf)
        paired = np.nan_to_num(np.median(scores/reference, 0), nan=np.inf)[0]
        error = standard_error(np.log(scores/reference)[:,0])
        return f'{valid:>10.3f} ({test:6.3f}) |{paired:6.3f} +-{error:5.3f}'

    def table(self, methods, starts):
        watch,grid = Stopwatch(),self.grid()
        medians = {lr: np.nanmedian(scores[:,0]) for lr,scores in grid.items()}
        best = min(medians, key=medians.get)
        by_lr = ', '.join(f'{lr:g}: {loss:.4f}' for lr,loss in medians.items())
        print(f'\n{self.size} {self.model} {self.opt}, {self.n_epoch} epochs, {self.seeds} seeds; one cycle: {by_lr}')
        print_row('', *methods, first=10, width=34)
        for start in starts:
            cells = [self.cell(method, best*STARTS[start], grid[best]) for method in methods]
            print_row(start, *cells, first=10, width=34)
        print(watch, flush=True)

# ---- cost, in time of the processor

def cost_of_nothing():
    "A fit with nothing to anneal beside one without the callback"
    def fit(cbs): learner('sample', 'mlp', 'adam', 0).fit(2, cbs=cbs())
    times = taking_turns({'without': partial(fit, noop), 'with': partial(fit, lambda: SimAnnealHP({}))}, 13)
    by_pair = spread(ratios(times['with'], times['without']), 3)
    fastest = min(times['with'])/min(times['without'])
    print(f'nothing to anneal: {by_pair} of a fit without, {fastest:.3f} by the fastest of each')

def cost_of_snapshots():
    "Snapshot and rollback of a ResNet-18"
    model = resnet18()
    opt = SGD(list(model.parameters()), lr=.1, mom=.9)
    model(torch.randn(2,3,64,64)).sum().backward()
    opt.step()
    opt.zero_grad()
    tensors = [t.detach() for t in (*model.parameters(), *model.buffers())]
    tensors += [state['grad_avg'] for state in opt.state.values() if 'grad_avg' in state]
    latest = [Snapshot(model, opt)]
    def bare():
        for t,kept in zip(tensors, [t.clone() for t in tensors]): t.copy_(kept)
    def fresh(): Snapshot(model, opt).restore()
    def again():
        latest[0] = Snapshot(model, opt, reuse=latest[0])
        latest[0].restore()
    runs = {'bare clone and copy': bare, 'snapshot and rollback': fresh, 'the same in memory of an older one': again}
    times = [f'{name} {statistics.median(t)*1e3:.0f} ms' for name,t in taking_turns(runs, 15).items()]
    print(f'ResNet-18 with SGD momentum, {len(tensors)} tensors: {", ".join(times)}', flush=True)

def arguments():
    parser = options(__doc__, seeds=0, data=True, cache=True)
    parser.add_argument('--full', action='store_true')
    parser.add_argument('--models', type=words)
    parser.add_argument('--opts', type=words, default=list(OPTS))
    parser.add_argument('--sizes', type=words, default=['sample','full'])
    parser.add_argument('--only', type=words, default=list(METHODS))
    parser.add_argument('--starts', type=words, default=list(STARTS))
    parser.add_argument('--epochs', type=int)
    parser.add_argument('--cost', action='store_true', help='only the cost')
    args = start(parser)
    args.models = args.models or (['mlp','cnn'] if args.full else ['mlp'])
    args.seeds = args.seeds or (5 if args.full else 3)
    return args

def main():
    args = arguments()
    cost_of_nothing()
    cost_of_snapshots()
    if args.cost: return
    sizes = [('sample', 'sample', 8), ('full', args.data, 5)]
    for model in args.models:
        for opt in args.opts:
            for size,source,n_epoch in sizes:
                if size not in args.sizes or size=='full' and not (args.full and args.data): continue
                setting = Setting(source, size, model, opt, args.epochs or n_epoch, args.seeds, Cache(args.cache))
                setting.table(args.only, args.starts)

if __name__=='__main__': main()
