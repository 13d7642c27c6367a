"""anneal against other searches that know only the values of a function

    python benchmarks/anneal.py            # 5 functions, 2 and 10 dimensions or mixed, 100 and 300 evaluations, 7 seeds
    python benchmarks/anneal.py --full     # all functions, 2 to 10 dimensions, up to 1000 evaluations, 30 seeds: hours
    python benchmarks/anneal.py --full --seeds 10 --cache peers    # the peers' runs are kept and not repeated
    python benchmarks/anneal.py --ablation # the same proposals, accepted by Metropolis, greedily, always

Peers (pip install scipy hyperopt optuna): scipy's dual_annealing without local search, hyperopt's anneal, Optuna's
random and TPE. Median of the best value over the seeds, all in one run. The optimum of every function is shifted by
a random amount, the same for all searches at the same seed, so that none gains from looking at the middle. A cell is
won when ours is not worse than *any* peer.
"""
from common import *
import itertools,logging
from functools import partial
from fastai_anneal.all import *
from fastai_anneal.annealing.space import Space
from fastai_anneal.annealing.accept import metropolis,threshold
from fastai_anneal.annealing.annealer import Annealer

# ---- functions

def rastrigin(x): return 10*len(x)+(x**2-10*np.cos(2*np.pi*x)).sum()
def rosenbrock(x): return (100*(x[1:]-x[:-1]**2)**2+(1-x[:-1])**2).sum()
def ackley(x): return -20*np.exp(-.2*np.sqrt((x**2).mean()))-np.exp(np.cos(2*np.pi*x).mean())+20+math.e
def griewank(x): return 1+(x**2).sum()/4000-np.cos(x/np.sqrt(np.arange(1, len(x)+1))).prod()

# with the radius that is searched
CONTINUOUS = dict(rastrigin=(rastrigin,5.12), rosenbrock=(rosenbrock,5.), ackley=(ackley,32.), griewank=(griewank,600.))

class Continuous:
    "A function of that name in `n_dims` dimensions, its optimum shifted"
    def __init__(self, name, n_dims, seed):
        self.f,radius = CONTINUOUS[name]
        self.shift = np.random.default_rng([seed,n_dims]).uniform(-.3, .3, n_dims)*radius
        self.space = {f'x{i}': LinFloat(-radius, radius) for i in range(n_dims)}
        if name=='rosenbrock': self.shift *= .2
    def __call__(self, values): return float(self.f(np.array(list(values.values()))-self.shift))

class Mixed:
    "A made-up training: learning rate, weight decay, layers, width, activation, normalisation, with interactions"
    space = {'lr': LogFloat(1e-5, 1), 'wd': LogFloat(1e-6, 1), 'layers': LinInt(1, 8), 'width': LogInt(8, 1024),
             'act': Categorical('relu', 'gelu', 'tanh', 'sin'), 'bn': Bool()}
    act_costs = dict(relu=.1, gelu=0., tanh=.4, sin=.8)
    def __init__(self, name, n_dims, seed):
        self.shift = np.random.default_rng([seed,99]).uniform(-.5, .5, 4)
        self.rugged = name=='mixed2'

    def __call__(self, v):
        shift,lr = self.shift,math.log10(v['lr'])+2.5
        cost = (lr-shift[0]+.2*(v['layers']-4)*(not v['bn']))**2
        cost += .2*(math.log10(v['wd'])+3-shift[1])**2
        cost += .1*(v['layers']-4-round(2*shift[2]))**2
        cost += .5*(math.log2(v['width'])-7-shift[3])**2/4
        cost += self.act_costs[v['act']]*(1+.3*abs(lr)) + .2*(not v['bn'])
        return cost+(.3*(1-math.cos(6*(lr-shift[0]))) if self.rugged else 0.)

def problem(name, n_dims, seed): return (Mixed if name.startswith('mixed') else Continuous)(name, n_dims, seed)

# ---- methods: the best value after each of `n` evaluations

def ours(f, n, seed, **kwargs): return [anneal(f, f.space, n, seed=seed, **kwargs).best_energy]

def dual_annealing(f, n, seed):
    from scipy.optimize import dual_annealing
    space,values = Space(f.space),[]
    def g(u):
        values.append(f(space.value(np.clip(u, 0, 1))))
        return values[-1]
    dual_annealing(g, [(0,1)]*space.n, no_local_search=True, maxfun=n, maxiter=10*n, seed=seed)
    return np.minimum.accumulate(values[:n])

def is_log(dim): return isinstance(dim, (LogFloat,LogInt))
def is_whole(dim): return isinstance(dim, (LinInt,LogInt))

def hyperopt_parameter(name, dim):
    from hyperopt import hp
    if isinstance(dim, Categorical): return hp.choice(name, dim.choices)
    low,high = (math.log(dim.lo), math.log(dim.hi)) if is_log(dim) else (dim.lo, dim.hi)
    if is_whole(dim): return (hp.qloguniform if is_log(dim) else hp.quniform)(name, low, high, 1)
    return (hp.loguniform if is_log(dim) else hp.uniform)(name, low, high)

def hyperopt(f, n, seed):
    import hyperopt
    logging.getLogger('hyperopt').setLevel(logging.ERROR)
    def whole(name, value):
        dim = f.space[name]
        return min(max(int(value), dim.lo), dim.hi) if is_whole(dim) else value
    trials = hyperopt.Trials()
    space = {name: hyperopt_parameter(name, dim) for name,dim in f.space.items()}
    def objective(values): return f({name: whole(name, value) for name,value in values.items()})
    hyperopt.fmin(objective, space, hyperopt.anneal.suggest, max_evals=n, trials=trials,
                  rstate=np.random.default_rng(seed), show_progressbar=False, verbose=False)
    return np.minimum.accumulate(trials.losses())

def optuna(f, n, seed, sampler):
    import optuna
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    def suggest(trial, name, dim):
        if isinstance(dim, Categorical): return trial.suggest_categorical(name, dim.choices)
        return (trial.suggest_int if is_whole(dim) else trial.suggest_float)(name, dim.lo, dim.hi, log=is_log(dim))
    study = optuna.create_study(sampler=getattr(optuna.samplers, sampler)(seed=seed))
    def objective(trial): return f({name: suggest(trial, name, dim) for name,dim in f.space.items()})
    study.optimize(objective, n_trials=n)
    return np.minimum.accumulate([trial.value for trial in study.trials])

METHODS = dict(anneal=ours, gp=partial(ours, screen='gp'), dual_annealing=dual_annealing, hyperopt=hyperopt,
               random=partial(optuna, sampler='RandomSampler'), tpe=partial(optuna, sampler='TPESampler'))
AWARE = 'anneal','gp' # know the budget: one run for each; the others' shorter runs are the beginning of the longest

# ---- comparisons

def best_values(method, function, n_dims, seed, budgets, cache):
    "Best value of `method` at each budget"
    f = problem(function, n_dims, seed)
    if method in AWARE: return [METHODS[method](f, n, seed)[-1] for n in budgets]
    def run(): return list(map(float, METHODS[method](f, budgets[-1], seed)))
    values = cache.get(f'{method}-{function}-{n_dims}-{seed}-{budgets[-1]}', run)
    return [values[n-1] for n in budgets]

def cells(functions, dims): return [(name,d) for name in functions for d in ([6] if name.startswith('mixed') else dims)]

def compare(methods, functions, dims, budgets, seeds, cache):
    "`{(function, dimensions): array of seeds x methods x budgets}`"
    results,cpu = {},dict.fromkeys(methods, 0.)
    for name,n_dims in cells(functions, dims):
        values = results[name,n_dims] = np.zeros((seeds,len(methods),len(budgets)))
        for seed in range(seeds):
            for i,method in enumerate(methods):
                watch = Stopwatch()
                values[seed,i] = best_values(method, name, n_dims, seed, budgets, cache)
                cpu[method] += watch.cpu
        for n,medians in zip(budgets, np.median(values, 0).T):
            print_row(f'{name:>12} {n_dims:>3}d {n:>6}', *(f'{median:.4g}' for median in medians))
    print_row('seconds in all', *(f'{s:.1f}' for s in cpu.values()))
    return results

def verdict(results, methods, budgets, ours='anneal'):
    "In how many cells is the median of `ours` not worse than that of each peer, and of all?"
    medians = np.stack([np.median(values, 0) for values in results.values()]) # cells x methods x budgets
    me,n_cells = methods.index(ours),len(results)*len(budgets)
    print_row(f'{ours} not worse', *(f'{n}/{n_cells}' for n in (medians[:,[me]]<=medians).sum((0,2))))
    peers = [i for i,method in enumerate(methods) if method not in AWARE]
    if not peers: return
    won = medians[:,me]<=medians[:,peers].min(1)
    by_budget = '  '.join(f'{n} evaluations: {w.sum()}/{len(w)}' for n,w in zip(budgets, won.T))
    print(f'{ours} not worse than every peer: {won.sum()}/{n_cells} cells = {100*won.mean():.0f}%   {by_budget}')

def figure(results, methods, budgets, path):
    "Rank of each method's median at each budget, averaged over the cells"
    import matplotlib.pyplot as plt
    from scipy.stats import rankdata
    medians = np.stack([np.median(values, 0) for values in results.values()])
    ax = plt.subplots(figsize=(6,4), layout='constrained')[1]
    for method,ranks in zip(methods, rankdata(medians, axis=1).mean(0)):
        ax.plot(budgets, ranks, 'o-', label=method, lw=3 if method=='anneal' else 1.5)
    ax.set(xscale='log', xlabel='evaluations', xticks=budgets, xticklabels=budgets)
    ax.set_ylabel('mean rank of the median best value (1 is best)')
    ax.minorticks_off()
    ax.legend()
    ax.figure.savefig(path, dpi=110)

COLD = ShapeExp(1e-12, 1e-13).absolute()
RULES = dict(metropolis=dict(accept=metropolis), greedy=dict(accept=threshold, schedule=COLD),
             always=dict(accept=lambda change,temp,se=0: 1.))
PROPOSALS = {'default proposals': {}, 'plain walk': dict(moves='all', adapt=False, reheat=0, n_init=1)}

def ablation(functions, dims, budgets, seeds):
    "The same proposals under three acceptance rules: all kinds of proposals, and only the plain ones of the textbook"
    for title,options in PROPOSALS.items():
        wins = {rule: [] for rule in RULES}
        for (name,n_dims),n in itertools.product(cells(functions, dims), budgets):
            best = {rule: best_by_seed(name, n_dims, n, seeds, **options, **kwargs) for rule,kwargs in RULES.items()}
            row = [f'{rule} {np.median(values):.4g}' for rule,values in best.items()]
            print_row(f'{title:<18}{name:>11} {n_dims:>2}d {n:>5}', *row, first=40, width=24)
            ours = best['metropolis']
            for rule,values in best.items(): wins[rule].append((ours<values).mean()+.5*(ours==values).mean())
        shares = ', '.join(f'{rule} in {100*np.mean(wins[rule]):.0f}%' for rule in ('greedy','always'))
        n_runs = len(wins['greedy'])*seeds
        print(f'{title}: at the same seed, Metropolis ends lower (ties half) than {shares} of {n_runs} runs')

def best_by_seed(name, n_dims, n, seeds, **kwargs):
    problems = [problem(name, n_dims, seed) for seed in range(seeds)]
    return np.array([anneal(f, f.space, n, seed=seed, **kwargs).best_energy for seed,f in enumerate(problems)])

# ---- overhead

def overhead(f, n=2000, n_dims=10):
    "Microseconds of CPU time of an evaluation of `f`, less what it takes itself"
    annealer = Annealer({f'x{i}': LinFloat(0, 1) for i in range(n_dims)}, n, seed=0)
    asked = []
    def walk():
        for _ in range(n):
            asked.append(annealer.ask())
            annealer.tell(f(asked[-1]))
    def alone():
        for values in asked: f(values)
    return (seconds(walk)-seconds(alone))/n*1e6

def smooth(values): return sum((x-.3)**2 for x in values.values())
def noise(values): return hash(values['x0'])%1013

def arguments():
    parser = options(__doc__, seeds=0, cache=True)
    parser.add_argument('--full', action='store_true')
    parser.add_argument('--budgets', type=whole_numbers)
    parser.add_argument('--dims', type=whole_numbers)
    parser.add_argument('--functions', type=words)
    parser.add_argument('--methods', type=words, default=['anneal','dual_annealing','hyperopt','random','tpe'])
    parser.add_argument('--gp', action='store_true', help='also anneal with screen="gp"')
    parser.add_argument('--ablation', action='store_true')
    parser.add_argument('--plot', help='file for the figure')
    args = start(parser, 'numpy')
    args.budgets = args.budgets or ([100,300,1000] if args.full else [100,300])
    args.dims = args.dims or ([2,5,10] if args.full else [2,10])
    args.functions = args.functions or [*CONTINUOUS, 'mixed', *(['mixed2'] if args.full else [])]
    args.seeds = args.seeds or (30 if args.full else 7)
    return args

def main():
    args = arguments()
    what = args.functions,args.dims,args.budgets
    if args.ablation: return ablation(*what, args.seeds)
    cpu = min(max(overhead(smooth), overhead(noise)) for _ in range(3))
    print(f'own overhead (CPU time), 10 dimensions: {cpu:.0f} us for an evaluation')
    methods = args.methods+(['gp'] if args.gp else [])
    print_row(f'median best of {args.seeds}', *methods)
    results = compare(methods, *what, args.seeds, Cache(args.cache))
    for method in AWARE:
        if method in methods: verdict(results, methods, args.budgets, method)
    if args.plot: figure(results, methods, args.budgets, args.plot)

if __name__=='__main__': main()
