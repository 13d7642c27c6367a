"""How good is the suggested learning rate? Only finders run here; what trainings give is in `lr_truth.json`

    python benchmarks/lr_regret.py [--quick] [--kinds KINDS] [--tasks a,b] [--seeds 3] [--orders 12]
                                   [--rules sweep,quick,refine] [--cache DIR] [--out FILE] [--detail]

excess: the loss that the suggested rate leads to, over that of the best rate of the grid, minus 1; by interpolating
the losses of the grid, averaged over its seeds, in the logarithm of the rate. lost: the loss is above that at the
lowest rate of the grid. rate / best: median, and from a tenth to nine tenths. spread: largest over smallest suggestion
of `--orders` data orders, median and worst over tasks. steps: what a suggestion costs. `--quick`: one seed of the
trainings of 250 steps and less, some minutes.

Kinds: `dev` and `held`, the trainings of `lr_real.py`, and `dev-tunings` and `held-tunings`, its tunings: constants are
chosen on dev only; `old-dev`, `old-val` and `old-check`, the smaller ones of `lr_tasks.py`. `lr_truth.json` says what
was looked at when.

A new rule is one more entry of `RULES`: a function of what `lr_find` has found, which may read its `lrs` and `losses`,

    RULES['half of the edge'] = Rule(lambda found: found.lrs[np.nanargmin(found.losses)]/2)

and one that trains by itself is a `Rule(pick=...)`, a function of task and learner that returns a `Pick`.
"""
from common import *
from typing import Callable,NamedTuple
from fastai.callback.schedule import valley,slide,minimum,steep
from fastai_anneal.all import *
from fastai_anneal.lr.found import suggestion_of
from lr_real import *

FILE = Path(__file__).with_name('lr_truth.json')
TRUTH = json.loads(FILE.read_text())
ALL = TASKS|REAL
QUICK = 250 # Steps of a training
SPREAD_STEPS = dict(sweep=1000, quick=250, refine=250) # Of the longest trainings whose spread is measured, by run

class Pick(NamedTuple):
    "What a rule suggests, and what it costs"
    lr: float
    steps: int # Training steps
    low: float = math.nan # The best rate should lie between
    high: float = math.nan

class Rule(NamedTuple):
    "How a rate is found: what is read from a run of `lr_find`, or `pick`ed from a learner"
    read: Callable = None # Of what was found
    run: str = 'sweep' # Key of `RUNS`
    pick: Callable = None # Of task and learner

# ---- the rules

RUNS = dict(sweep={}, quick=dict(refine='quick'), refine=dict(refine=True)) # Arguments of `lr_find`

def torch_lr_finder(found):
    "torch-lr-finder's: the steepest gradient of its averaged loss, without the first 10 and last 5 points"
    finite,smooth = np.isfinite(found.losses),[]
    for loss in found.losses[finite]: smooth.append(.05*loss+.95*smooth[-1] if smooth else loss)
    lrs,smooth = found.lrs[finite][10:-5],np.array(smooth)[10:-5]
    return float(lrs[np.gradient(smooth).argmin()]) if len(lrs)>1 else math.nan

def fastais(rule): return Rule(lambda found: suggestion_of(rule, found)[0])

RULES = {'ours': Rule(lambda found: found.lr), 'ours, quick': Rule(lambda found: found.lr, 'quick'),
         'ours, refine': Rule(lambda found: found.lr, 'refine'),
         **{f"fastai's {rule.__name__}": fastais(rule) for rule in (valley,slide,minimum,steep)},
         'torch-lr-finder': Rule(torch_lr_finder)}

def n_steps_of(found):
    "Training steps of the sweep, the closer look and the probes"
    info = found.info
    return len(found.losses)+len(info.get('closer', {}).get('lrs', ()))+sum(p['steps'] for p in info.get('probes', ()))

def read_pick(rule, found):
    ours = rule.read(found)==found.lr
    bounds = [float(getattr(found, name, math.nan)) for name in ('low','high')] if ours else ()
    return Pick(float(rule.read(found)), n_steps_of(found) if ours else len(found.losses), *bounds)

def picks(name, seed, order, runs):
    "A pick of every rule that needs one of `runs`, for one learner"
    task,res = ALL[name],{}
    for run in runs:
        rules = {rule_name: rule for rule_name,rule in RULES.items() if rule.run==run}
        learn,args = task.learn(seed, order),task.find_args|RUNS[run]
        with learn.no_bar(): found = learn.lr_find(show_plot=False, suggest_funcs=None, n_epoch=task.n_epoch, **args)
        for rule_name,rule in rules.items():
            res[rule_name] = rule.pick(task, task.learn(seed, order)) if rule.pick else read_pick(rule, found)
    return res

# ---- the truth

class Truth:
    "What the rates of a grid lead to; diverged, or worse than untrained, is as untrained"
    def __init__(self, name):
        truth = TRUTH[name]
        self.untrained = np.mean(list(truth['untrained'].values()))
        self.log_lrs = np.log(truth['lrs'])
        self.losses = np.mean([[self.bounded(loss) for loss in row] for row in truth['losses'].values()], 0)
        self.best,self.best_lr = self.losses.min(),truth['lrs'][self.losses.argmin()]
        self.free = {rival: np.mean([self.bounded(loss) for loss in losses.values()])
                     for rival,losses in truth.get('free', {}).items()}

    def bounded(self, loss): return self.untrained if loss is None else min(loss, self.untrained)

    def loss(self, lr):
        usable = math.isfinite(lr) and lr>0
        return np.interp(math.log(lr), self.log_lrs, self.losses) if usable else self.untrained

class Judged(NamedTuple):
    "A pick, judged by the truth"
    excess: float
    is_lost: bool
    factor: float # Of the best rate
    is_within: bool # Is the best rate between the bounds that it names?
    steps: int

def judged(name, pick):
    truth = Truth(name)
    loss = truth.loss(pick.lr)
    is_within = pick.low<=truth.best_lr<=pick.high
    return Judged(loss/truth.best-1, loss>truth.losses[0], pick.lr/truth.best_lr, is_within, pick.steps)

def kind_of(name):
    if name not in REAL: return f'old-{TASKS[name].split}'
    return REAL[name].split+('-tunings' if isinstance(REAL[name], Tuning) else '')

# ---- the tables

HEADER = ('rule', 'excess median', 'worst', 'within 5%', 'lost', 'rate / best', 'spread', 'steps')

def middle(values):
    "The median, and where eight tenths of `values` are"
    low,high = np.quantile(values, (.1,.9))
    return f'{np.median(values):.2f} ({low:.2g} to {high:.2g})'

def excess_cells(excess): return f'{np.median(excess):.1%}',f'{np.max(excess):.0%}',f'{np.mean(excess<=.05):.0%}'

def row_of(rule, judgements, spreads):
    "A row of the table, from all judgements of a rule"
    excess,lost,factor,_,steps = np.array(judgements, float).T
    spread = f'{np.nanmedian(spreads):.2f} ({np.nanmax(spreads):.2g})' if spreads else ''
    factor = factor[np.isfinite(factor)]
    return rule,*excess_cells(excess),f'{lost.sum():.0f}',middle(factor),spread,f'{np.median(steps):.0f}'

def free_rows(names):
    "Rows of the optimizers that need no rate"
    for rival in dict.fromkeys(rival for name in names for rival in TRUTH[name].get('free', {})):
        truths = [truth for truth in map(Truth, names) if rival in truth.free]
        excess = np.array([truth.free[rival]/truth.best-1 for truth in truths])
        lost = sum(truth.free[rival]>truth.losses[0] for truth in truths)
        yield rival,*excess_cells(excess),f'{lost}','','','0'

def against_free(names, picked):
    "Where the loss of a rule, averaged over its picks, is below that of the best of the optimizers without a rate"
    wins = []
    for name in names:
        truth = Truth(name)
        loss = np.mean([truth.loss(pick.lr) for pick in picked.get(name, ())] or [math.nan])
        if truth.free and loss==loss: wins.append(loss<min(truth.free.values()))
    return f'{np.mean(wins):.0%} of {len(wins)}' if wins else ''

def table(kind, names, by_rule, spreads):
    "Lines in Markdown"
    lines = [f'\n**{kind}**: {len(names)} trainings\n', f'| {" | ".join(HEADER)} |', '|'+'---|'*len(HEADER)]
    for rule,picked in by_rule.items():
        judgements = [judged(name, pick) for name in names for pick in picked.get(name, ())]
        spread = [spreads[rule][name] for name in names if name in spreads.get(rule, {})]
        if judgements: lines.append(f'| {" | ".join(row_of(rule, judgements, spread))} |')
    lines += [f'| {" | ".join(row)} |' for row in free_rows(names)]
    return lines+['']+notes(names, by_rule)

def notes(names, by_rule):
    "What stands below a table"
    lines = []
    for rule in [rule for rule in by_rule if rule.startswith('ours')]:
        picked = by_rule[rule]
        lines.append(f'{rule}: a lower loss than the best optimizer without a rate on {against_free(names, picked)}.  ')
        judgements = [judged(name, pick) for name in names for pick in picked.get(name, ())]
        near = np.mean([.5<=judgement.factor<=2 for judgement in judgements])
        lines.append(f'{rule}: within a factor of two of the best rate in {near:.0%}.  ')
        within = [judged(name, pick).is_within for name in names for pick in picked.get(name, ()) if pick.low==pick.low]
        if within: lines.append(f'{rule}: the best rate lies between low and high in {np.mean(within):.0%}.  ')
    return lines

def detail(names, by_rule):
    for name in names:
        truth = Truth(name)
        ours = {rule: [(float(f'{pick.lr:.2g}'), f'{judged(name, pick).excess:.0%}') for pick in picked.get(name, ())]
                for rule,picked in by_rule.items() if rule.startswith('ours')}
        print(f'{name:18} {TRUTH[name]["its"]:6} best {truth.best_lr:.2g} loss {truth.best:.4g} {ours}', flush=True)

# ---- the run

def all_picks(names, n_seeds, runs, results):
    "Picks by rule and task, of as many weights and data orders"
    by_rule = {}
    for name in names:
        for seed in range(n_seeds):
            for run in runs:
                found = results.get(f'{name} {seed} {run}', lambda: picks(name, seed, None, [run]))
                for rule,pick in found.items(): by_rule.setdefault(rule, {}).setdefault(name, []).append(Pick(*pick))
    return {rule: by_rule[rule] for rule in RULES if rule in by_rule}

def all_spreads(names, n_orders, runs, results):
    "Largest over smallest suggestion of `n_orders` data orders, by rule and task"
    spreads = {}
    for run in runs:
        for name in [name for name in names if n_orders and TRUTH[name]['its']<=SPREAD_STEPS[run]]:
            found = [results.get(f'{name} {order} {run} order', lambda: picks(name, 0, order, [run]))
                     for order in range(n_orders)]
            for rule in found[0]:
                lrs = [Pick(*by_rule[rule]).lr for by_rule in found]
                spreads.setdefault(rule, {})[name] = max(lrs)/min(lrs)
    return spreads

def chosen_tasks(args):
    names = [name for name in args.tasks or ALL if name in TRUTH and (args.tasks or kind_of(name) in args.kinds)]
    return [name for name in names if TRUTH[name]['its']<=(QUICK if args.quick else args.steps)]

def options_of():
    parser = options(__doc__, seeds=3, cache=True)
    parser.add_argument('--orders', type=int, default=12, help='of the data, to see how far suggestions spread')
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--kinds', type=words, default=['dev','held','dev-tunings','held-tunings'])
    parser.add_argument('--rules', type=words, default=list(RUNS), help='runs of `lr_find`: '+', '.join(RUNS))
    parser.add_argument('--steps', type=int, default=10**6, help='of the longest training')
    parser.add_argument('--tasks', type=words)
    parser.add_argument('--out', help='a file for the tables')
    parser.add_argument('--detail', action='store_true')
    return start(parser, 'prodigyopt', 'schedulefree', 'dadaptation', 'dog-optimizer')

def main():
    args = options_of()
    names,results = chosen_tasks(args),Cache(args.cache)
    by_rule = all_picks(names, 1 if args.quick else args.seeds, args.rules, results)
    spreads = all_spreads(names, 0 if args.quick else args.orders, args.rules, results)
    if args.detail: detail(names, by_rule)
    lines = [f'{datetime.now():%Y-%m-%d}, `python benchmarks/lr_regret.py {" ".join(sys.argv[1:])}`']
    for kind in dict.fromkeys(map(kind_of, names)):
        lines += table(kind, [name for name in names if kind_of(name)==kind], by_rule, spreads)
    print('\n'.join(lines))
    if args.out: Path(args.out).write_text('\n'.join(lines)+'\n')

if __name__=='__main__': main()
