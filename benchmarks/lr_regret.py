"""How good is the suggested learning rate? Trains nothing for the truth (`lr_truth.json`, made by `lr_truth.py`), only sweeps.

`OMP_NUM_THREADS=1 python benchmarks/lr_regret.py [--seeds 3] [--orders 12] [--no-refine] [--tasks a,b] [--detail]`
regret: share of the way from the best validation loss of the grid to that of the untrained model; excess: loss over the best loss, minus 1;
both by interpolating the truth grid in log lr, averaged over its seeds. `dev` tasks were used to choose constants, `val` tasks were not;
`check` tasks were added afterwards and trained on for the last table only."""
import argparse,json,math,time,warnings
from pathlib import Path
warnings.filterwarnings('ignore')
import numpy as np,torch; torch.set_num_threads(1)
from fastai.callback.schedule import valley,slide,minimum,steep
from fastai_anneal.lr_finder import *
from lr_tasks import *

TRUTH = json.loads(Path(__file__).with_name('lr_truth.json').read_text())
FOUR = (valley, slide, minimum, steep)

def grid(name):
    "Log learning rates, mean validation losses (diverged or worse than untrained: as untrained), untrained loss"
    r = TRUTH[name]
    u = np.mean(list(r['untrained'].values()))
    ls = np.array([[u if v is None else min(v, u) for v in o] for o in r['losses'].values()])
    return np.log(r['lrs']),ls.mean(0),u

def judge(name, lr):
    "Regret and excess loss of `lr`"
    x,y,u = grid(name)
    v = np.interp(math.log(lr), x, y) if math.isfinite(lr) and lr>0 else u
    return float(np.clip((v-y.min())/(u-y.min()), 0, 1)),float(v/y.min()-1)

def torch_lr_finder(r):
    "torch-lr-finder's rule: the steepest gradient of its averaged loss (`smooth_f=.05`), without the first 10 and last 5 points"
    ok = np.isfinite(r.losses)
    s = []
    for l in r.losses[ok]: s.append(.05*l+.95*s[-1] if s else l)
    lrs,s = r.lrs[ok][10:-5],np.array(s)[10:-5]
    return float(lrs[np.gradient(s).argmin()])

def steps(r): return len(r.losses)+len(r.info.get('closer', {}).get('lrs', ()))+sum(p['steps'] for p in r.info.get('probes', ()))

def find(task, seed, order, **kw):
    with (l := task.learn(seed, order)).no_bar(): return l.lr_find(show_plot=False, **kw)

def picks(name, seed, order=None, refine=True, blind=True):
    "Suggestion and cost (training steps) of every rule, for one learner; `blind`: also without the horizon"
    t = TASKS[name]
    r = find(t, seed, order, suggest_funcs=FOUR, n_epoch=t.n_epoch)
    res = {'ours': (r.lr, steps(r)), 'torch-lr-finder': (torch_lr_finder(r), len(r.losses))}
    res.update({f"fastai's {f.__name__}": (v, len(r.losses)) for f,v in zip(FOUR, r)})
    if blind: r = find(t, seed, order, suggest_funcs=None); res['ours, horizon not given'] = r.lr,steps(r)
    if refine: r = find(t, seed, order, suggest_funcs=None, n_epoch=t.n_epoch, refine=True); res['ours, refine'] = r.lr,steps(r)
    return res

def row(name, rs):
    r,e,c = (np.array(o) for o in zip(*rs))
    return f'{name:26} {r.mean():6.3f} {np.median(r):7.3f} {r.max():6.2f} {np.median(e):9.1%} {(e<=.05).mean():7.0%} {c.mean():7.0f}'

if __name__=='__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--seeds', type=int, default=3); p.add_argument('--orders', type=int, default=0)
    p.add_argument('--no-refine', action='store_true'); p.add_argument('--tasks'); p.add_argument('--detail', action='store_true')
    a = p.parse_args()
    names,res = (a.tasks.split(',') if a.tasks else list(TASKS)),{}
    for n in names:
        for s in range(a.seeds):
            for rule,(lr,cost) in picks(n, s, refine=not a.no_refine).items():
                res.setdefault(rule, {}).setdefault(n, []).append((*judge(n, lr), cost, lr))
        if a.detail: print(n, TRUTH[n]['its'], 'best', '%.2g'%np.exp(grid(n)[0][grid(n)[1].argmin()]),
                           {k:[(round(o[0],3),round(o[1],2),float('%.2g'%o[3])) for o in v[n]] for k,v in res.items() if k.startswith('ours')}, flush=True)
    for split in ('dev','val','check'):
        ns = [n for n in names if TASKS[n].split==split]
        if not ns: continue
        print(f'\n{split}: {len(ns)} tasks, {a.seeds} seeds\n{"rule":26} regret  median  worst  median   within  training\n{"":26}  mean   regret regret   excess     5%    steps')
        for rule,d in res.items(): print(row(rule, [o[:3] for n in ns for o in d[n]]))
    if a.orders:
        print(f'\nspread: largest over smallest suggestion of {a.orders} data orders, median (worst) over tasks', flush=True)
        sp = {}
        for n in names:
            got = [picks(n, 0, o, refine=False, blind=False) for o in range(a.orders)]
            for rule in got[0]: sp.setdefault(rule, []).append(max(g[rule][0] for g in got)/min(g[rule][0] for g in got))
        for rule,v in sp.items(): print(f'{rule:26} {np.nanmedian(v):5.2f} ({np.nanmax(v):.3g})')
