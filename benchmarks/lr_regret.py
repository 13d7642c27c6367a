"""How good is the suggested learning rate? Only sweeps: what trainings give is in `lr_truth.json`, by `lr_truth.py`

    python benchmarks/lr_regret.py [--seeds 3] [--orders 12] [--no-refine] [--tasks a,b] [--detail]

regret: share of the way from the best validation loss of the grid to that of the untrained model; excess: loss over
the best loss, minus 1; both by interpolating the truth grid in log lr, averaged over its seeds. `dev` tasks were used
to choose constants, `val` tasks were not; `check` tasks were added afterwards and trained on for the last table only.
"""
from common import *
from typing import NamedTuple
from fastai.callback.schedule import valley,slide,minimum,steep
from fastai_anneal.all import *
from lr_tasks import *

TRUTH = json.loads(Path(__file__).with_name('lr_truth.json').read_text())
RULES = valley,slide,minimum,steep

class Pick(NamedTuple):
    "What a rule suggests, and what it costs"
    lr: float
    steps: int # Training steps

class Judged(NamedTuple):
    "A pick, judged by the truth"
    regret: float
    excess: float
    steps: int
    lr: float

def grid(name):
    "Log learning rates, mean validation losses (diverged or worse than untrained: as untrained), untrained loss"
    truth = TRUTH[name]
    untrained = np.mean(list(truth['untrained'].values()))
    losses = [[untrained if loss is None else min(loss, untrained) for loss in row] for row in truth['losses'].values()]
    return np.log(truth['lrs']),np.mean(losses, 0),untrained

def judged(name, pick):
    lrs,losses,untrained = grid(name)
    usable = math.isfinite(pick.lr) and pick.lr>0
    loss = np.interp(math.log(pick.lr), lrs, losses) if usable else untrained
    best = losses.min()
    regret = np.clip((loss-best)/(untrained-best), 0, 1)
    return Judged(float(regret), float(loss/best-1), pick.steps, pick.lr)

def torch_lr_finder(found):
    "torch-lr-finder's rule: the steepest gradient of its averaged loss, without the first 10 and last 5 points"
    finite,smooth = np.isfinite(found.losses),[]
    for loss in found.losses[finite]: smooth.append(.05*loss+.95*smooth[-1] if smooth else loss)
    lrs,smooth = found.lrs[finite][10:-5],np.array(smooth)[10:-5]
    return float(lrs[np.gradient(smooth).argmin()])

def n_steps(found):
    "Training steps of the sweep, the closer look and the probes"
    info = found.info
    return len(found.losses)+len(info.get('closer', {}).get('lrs', ()))+sum(p['steps'] for p in info.get('probes', ()))

def find(name, seed, order=None, **kwargs):
    learn = TASKS[name].learn(seed, order)
    with learn.no_bar(): return learn.lr_find(show_plot=False, **kwargs)

def picks(name, seed, order=None, refine=True, blind=True):
    "A pick of every rule, for one learner; `blind`: also without the horizon"
    n_epoch = TASKS[name].n_epoch
    found = find(name, seed, order, suggest_funcs=RULES, n_epoch=n_epoch)
    n_points = len(found.losses)
    res = {'ours': Pick(found.lr, n_steps(found)), 'torch-lr-finder': Pick(torch_lr_finder(found), n_points)}
    res.update({f"fastai's {rule.__name__}": Pick(lr, n_points) for rule,lr in zip(RULES, found)})
    if blind:
        found = find(name, seed, order, suggest_funcs=None)
        res['ours, horizon not given'] = Pick(found.lr, n_steps(found))
    if refine:
        found = find(name, seed, order, suggest_funcs=None, n_epoch=n_epoch, refine=True)
        res['ours, refine'] = Pick(found.lr, n_steps(found))
    return res

def detail(name, by_rule):
    "The best rate of a task, and what ours picked for it"
    lrs,losses,_ = grid(name)
    ours = {rule: [(round(j.regret, 3), round(j.excess, 2), float(f'{j.lr:.2g}')) for j in judgements[name]]
            for rule,judgements in by_rule.items() if rule.startswith('ours')}
    print(name, TRUTH[name]['its'], 'best', f'{np.exp(lrs[losses.argmin()]):.2g}', ours, flush=True)

def table(split, names, by_rule, n_seeds):
    names = [name for name in names if TASKS[name].split==split]
    if not names: return
    print(f'\n{split}: {len(names)} tasks, {n_seeds} seeds')
    print(f'{"rule":26} regret  median  worst  median   within  training')
    print(f'{"":26}  mean   regret regret   excess     5%    steps')
    for rule,judgements in by_rule.items():
        regret,excess,steps,_ = np.array([j for name in names for j in judgements[name]]).T
        print(f'{rule:26} {regret.mean():6.3f} {np.median(regret):7.3f} {regret.max():6.2f} {np.median(excess):9.1%} '
              f'{(excess<=.05).mean():7.0%} {steps.mean():7.0f}')

def spread_over_orders(names, n_orders):
    print(f'\nspread: largest over smallest suggestion of {n_orders} data orders, median (worst) over tasks')
    spreads = {}
    for name in names:
        found = [picks(name, 0, order, refine=False, blind=False) for order in range(n_orders)]
        for rule in found[0]:
            lrs = [by_rule[rule].lr for by_rule in found]
            spreads.setdefault(rule, []).append(max(lrs)/min(lrs))
    for rule,values in spreads.items(): print(f'{rule:26} {np.nanmedian(values):5.2f} ({np.nanmax(values):.3g})')

def main():
    parser = options(__doc__, seeds=3)
    parser.add_argument('--orders', type=int, default=0, help='of the data, to see how far suggestions spread')
    parser.add_argument('--no-refine', action='store_true')
    parser.add_argument('--tasks', type=words, default=list(TASKS))
    parser.add_argument('--detail', action='store_true')
    args = start(parser)
    by_rule = {}
    for name in args.tasks:
        for seed in range(args.seeds):
            for rule,pick in picks(name, seed, refine=not args.no_refine).items():
                by_rule.setdefault(rule, {}).setdefault(name, []).append(judged(name, pick))
        if args.detail: detail(name, by_rule)
    for split in ('dev','val','check'): table(split, args.tasks, by_rule, args.seeds)
    if args.orders: spread_over_orders(args.tasks, args.orders)

if __name__=='__main__': main()
