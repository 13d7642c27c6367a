"""What a schedule costs per batch: ours, fastai's ParamScheduler, torch's scheduler step, and a bare set_hyper.

    python benchmarks/schedule.py
"""
import time
from statistics import median
from fastai.basics import *
from fastai.callback.schedule import *
from fastai.optimizer import OptimWrapper
from fastai_anneal.schedule.anneal import *
from fastai_anneal.schedule.family import *
from fastai_anneal.schedule.shapes import *
from fastai_anneal.schedule.torch_sched import *

N = 1000

def learner(opt, groups):
    x = torch.randn(8,4)
    model = nn.Sequential(*[nn.Linear(4,4) for _ in range(groups)])
    dls = DataLoaders(DataLoader(list(zip(x,x)), bs=4), DataLoader(list(zip(x,x)), bs=4))
    return Learner(dls, model, loss_func=MSELossFlat(), opt_func=opt, splitter=lambda m: [list(l.parameters()) for l in m])

def events(learn, cb, n=N):
    "Seconds per batch in the events of `cb`, called as the learner calls them"
    learn.create_opt(); learn.opt.set_hyper('lr', .1)
    learn.n_epoch,learn.epoch,learn.n_iter,learn.iter,learn.pct_train,learn.train_iter,learn.training = 1,0,n,0,0.,0,True
    learn.dls.train.__class__.__len__ = lambda self: n
    try:
        learn.add_cb(cb)
        for e in ('before_fit','before_train'): cb(e)
        t = time.perf_counter()
        for i in range(n):
            learn.iter,learn.pct_train = i,i/n
            cb('before_batch'); cb('after_batch')
        return (time.perf_counter()-t)/n
    finally: learn.remove_cb(cb); learn.dls.train.__class__.__len__ = _len
_len = DataLoader.__len__

class Nothing(Callback):
    "The price of calling a callback at all"
    run_valid = False
    def before_batch(self): pass
    def after_batch(self): pass

class Bare(Nothing):
    "A bare `set_hyper` of the same values"
    def __init__(self, hps): self.hps = hps
    def before_batch(self):
        for k,v in self.hps.items(): self.learn.opt.set_hyper(k, v)

class Bare2(Bare):
    "And what has to be recorded"
    def before_fit(self): self.rec = {k:[] for k in self.hps}
    def after_batch(self):
        for k in self.hps: self.rec[k].append(self.learn.opt.hypers[-1][k])

class TorchStep(Nothing):
    def __init__(self, groups):
        self.o = torch.optim.SGD([{'params':[nn.Parameter(torch.zeros(1))], 'lr':.1} for _ in range(groups)], lr=.1)
        self.s = torch.optim.lr_scheduler.CosineAnnealingLR(self.o, N); self.o.step()
    def after_batch(self): self.s.step()

def main():
    torch.set_num_threads(1)
    print('microseconds per batch, best of 15 rounds;  "over bare" is per hyperparameter and group, ratio is to ParamScheduler with the same shapes, median of the pairs')
    for oname,opt in dict(fastai=Adam, OptimWrapper=partial(OptimWrapper, opt=torch.optim.AdamW)).items():
        for g in (1,3):
            cases = {
                'nothing': lambda: Nothing(), 'set_hyper lr': lambda: Bare({'lr':[.1]*g}), 'set_hyper lr+record': lambda: Bare2({'lr':[.1]*g}), 'set_hyper lr,mom+record': lambda: Bare2({'lr':[.1]*g, 'mom':[.9]*g}),
                'ParamScheduler cos': lambda: ParamScheduler({'lr': SchedCos(np.array([.1]*g), 0.)}), 'CosineAnneal': lambda: CosineAnneal(),
                'ParamScheduler 2-piece': lambda: ParamScheduler({'lr': combined_cos(.1, np.array([0.]*g), np.array([.1]*g), np.array([0.]*g))}), "CosineAnneal(warmup='10%')": lambda: CosineAnneal(warmup='10%'),
                'ParamScheduler one-cycle': lambda: ParamScheduler({'lr': combined_cos(.25, np.array([.004]*g), np.array([.1]*g), np.array([1e-6]*g)), 'mom': combined_cos(.25, .95, .85, .95)}),
                'OneCycle': lambda: OneCycle(), 'torch scheduler.step': lambda: TorchStep(g), 'TorchSched': lambda: TorchSched(partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=N), by='batch')}
            ts = {k:[] for k in cases}
            for _ in range(15):
                for k,f in cases.items(): ts[k].append(events(learner(opt, g), f())*1e6)
            m = {k: min(v) for k,v in ts.items()}
            over = lambda k,bare,hg: f"over bare {(m[k]-m[bare])/hg:5.2f}"
            ratio = lambda a,b: f"ratio {median(x/y for x,y in zip(ts[a],ts[b])):.2f}"
            print(f'\n{oname}, {g} group{"s" if g>1 else ""}')
            for k in cases:
                extra = {'CosineAnneal': over(k,'set_hyper lr',g)+'  '+over(k,'set_hyper lr+record',g)+' (recording)  '+ratio(k,'ParamScheduler cos'),
                         "CosineAnneal(warmup='10%')": over(k,'set_hyper lr',g)+'  '+over(k,'set_hyper lr+record',g)+' (recording)  '+ratio(k,'ParamScheduler 2-piece'),
                         'OneCycle': over(k,'set_hyper lr,mom+record',2*g)+' (recording)  '+ratio(k,'ParamScheduler one-cycle')}.get(k, '')
                print(f'  {k:28} {m[k]:7.2f}  {extra}')

if __name__=='__main__': main()
