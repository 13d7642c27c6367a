"""Draw the pictures of the README into `docs/extra/figures/`, light and dark: `tools/figures [NAME ...]`

Each is a real run on the sample of MNIST, with fixed seeds; all of them take about a minute.
"""
import sys,warnings
from pathlib import Path

import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
from fastai.vision.all import accuracy,set_seed
from fastai_anneal.all import *

OUT = Path(__file__).resolve().parent.parent/'docs'/'extra'/'figures'
SIZE = (6.4, 3.8) # inches; two of them stand side by side
INK = dict(light='#24292f', dark='#e6edf3') # of text and axes, on a transparent ground
SEED = 42

def learner(**kwargs):
    set_seed(SEED)
    learn = TrainLearner(mnist_dls('sample', seed=SEED), mnist_mlp(), metrics=accuracy, **kwargs)
    learn.remove_cbs([cb for cb in learn.cbs if cb.name=='progress'])
    learn.logger = lambda *args: None
    return learn

# ---- the runs: each is made once and drawn twice

def sweep(): return learner().lr_find(n_epoch=5, show_plot=False)

def annealed_fit():
    annealing = SimAnnealHP({'lr': LogFloat(1e-4, 1), 'wd': LogFloat(1e-5, .3)}, seed=SEED)
    learner().fit(8, 3e-4, cbs=annealing)
    return annealing

def search():
    def make(p): return TrainLearner(mnist_dls('sample', seed=SEED), mnist_mlp(p=p), metrics=accuracy)
    space = {'lr': LogFloat(1e-4, .3), 'wd': LogFloat(1e-5, .3), 'p': LinFloat(0, .6)}
    return anneal_search(make, space, n_trials=60, n_epoch=2, seed=SEED, progress=False)

# ---- the pictures

def draw_sweep(found):
    ax = plt.subplots(figsize=SIZE)[1]
    found.plot(ax=ax)
    ax.set_title('lr_find: a learning rate, and where it may lie')

def draw_schedule(_):
    ax = plt.subplots(figsize=SIZE)[1]
    CosineAnneal(warmup='3%', cycles=3, cycle_mult=2., cycle_decay=.6).plot(14, 100, 1e-2, ax=ax)
    ax.set_title("CosineAnneal(warmup='3%', cycles=3, cycle_mult=2, cycle_decay=.6)")

def draw_fit(annealing):
    axs = plt.subplots(3, 1, figsize=(SIZE[0],4.6), sharex=True, layout='constrained')[1]
    annealing.plot(axs)
    axs[0].set_title('SimAnnealHP: one fit, begun 30 times too low')

def draw_search(found):
    axs = plt.subplots(2, 1, figsize=SIZE, sharex=True, layout='constrained', height_ratios=(3,1))[1]
    found.plot('trials', axs)
    axs[0].set_title('anneal_search: sixty short trainings')

PICTURES = dict(sweep=(sweep,draw_sweep), schedule=(lambda: None,draw_schedule), fit=(annealed_fit,draw_fit),
                search=(search,draw_search))

def style(ink):
    inked = 'text.color axes.edgecolor axes.labelcolor xtick.color ytick.color axes.titlecolor'.split()
    return {**dict.fromkeys(inked, ink), "figure.facecolor": "none", "axes.facecolor": "none",
            "savefig.transparent": True,
            'legend.facecolor': 'none', 'legend.edgecolor': ink, 'axes.titlesize': 10, 'font.size': 9,
            'svg.fonttype': 'path', 'svg.hashsalt': 'fastai_anneal'}

def draw(name):
    "Run once, draw light and dark"
    run,picture = PICTURES[name]
    result = run()
    for ground,ink in INK.items():
        with plt.rc_context(style(ink)):
            picture(result)
            path = OUT/f'{name}-{ground}.svg'
            plt.savefig(path, metadata={'Date': None}, bbox_inches='tight')
            plt.close('all')
        print(path.name, f'{path.stat().st_size/1000:.0f} KB')

if __name__=='__main__':
    warnings.simplefilter('ignore')
    OUT.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[1:] or PICTURES: draw(name)
