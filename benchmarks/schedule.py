"""What a schedule costs per batch: ours, fastai's ParamScheduler, torch's scheduler step, and a bare set_hyper

    python benchmarks/schedule.py

Microseconds per batch, best of 15 rounds; "over bare" is per hyperparameter and group; the ratio is to ParamScheduler
with the same shapes, the median of the pairs.
"""
from common import *
import torch
from fastai.basics import *
from fastai.callback.schedule import *
from fastai_anneal.all import *

N_BATCHES = 1000
OPTS = dict(fastai=Adam, OptimWrapper=partial(OptimWrapper, opt=torch.optim.AdamW))

class LongLoader(DataLoader):
    "Says that it has `N_BATCHES`"
    def __len__(self): return N_BATCHES

def learner(opt, n_groups):
    x = torch.randn(8,4)
    model = nn.Sequential(*[nn.Linear(4,4) for _ in range(n_groups)])
    dls = DataLoaders(LongLoader(list(zip(x,x)), bs=4), DataLoader(list(zip(x,x)), bs=4))
    def by_layer(model): return [list(layer.parameters()) for layer in model]
    return Learner(dls, model, loss_func=MSELossFlat(), opt_func=OPTS[opt], splitter=by_layer)

def microseconds(learn, cb):
    "Per batch, in the events of `cb`, called as the learner calls them"
    learn.create_opt()
    learn.opt.set_hyper('lr', .1)
    learn.n_epoch,learn.epoch = 1,0
    learn.n_iter,learn.iter = N_BATCHES,0
    learn.pct_train,learn.train_iter,learn.training = 0.,0,True
    learn.add_cb(cb)
    for name in ('before_fit','before_train'): cb(name)
    def batches():
        for i in range(N_BATCHES):
            learn.iter,learn.pct_train = i,i/N_BATCHES
            cb('before_batch')
            cb('after_batch')
    return seconds(batches, time.perf_counter)/N_BATCHES*1e6

class Nothing(Callback):
    "The price of calling a callback at all"
    run_valid = False
    def before_batch(self): pass
    def after_batch(self): pass

class Bare(Nothing):
    "A bare `set_hyper` of the same values"
    def __init__(self, hypers): self.hypers = hypers
    def before_batch(self):
        for name,values in self.hypers.items(): self.learn.opt.set_hyper(name, values)

class BareRecorded(Bare):
    "And what has to be recorded"
    def before_fit(self): self.record = {name: [] for name in self.hypers}
    def after_batch(self):
        for name in self.hypers: self.record[name].append(self.learn.opt.hypers[-1][name])

class TorchStep(Nothing):
    def __init__(self, n_groups):
        groups = [{'params': [nn.Parameter(torch.zeros(1))], 'lr': .1} for _ in range(n_groups)]
        opt = torch.optim.SGD(groups, lr=.1)
        self.sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, N_BATCHES)
        opt.step()
    def after_batch(self): self.sched.step()

def param_schedulers(n_groups):
    "fastai's, with the shapes of ours"
    def groups(value): return np.array([value]*n_groups)
    warm = combined_cos(.1, groups(0.), groups(.1), groups(0.))
    one_cycle,moms = combined_cos(.25, groups(.004), groups(.1), groups(1e-6)),combined_cos(.25, .95, .85, .95)
    return {'ParamScheduler cos': lambda: ParamScheduler({'lr': SchedCos(groups(.1), 0.)}),
            'ParamScheduler 2-piece': lambda: ParamScheduler({'lr': warm}),
            'ParamScheduler one-cycle': lambda: ParamScheduler({'lr': one_cycle, 'mom': moms})}

def cases(n_groups):
    lr,mom = [.1]*n_groups,[.9]*n_groups
    cosine = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=N_BATCHES)
    return {'nothing': Nothing, 'set_hyper lr': lambda: Bare({'lr': lr}),
            'set_hyper lr+record': lambda: BareRecorded({'lr': lr}),
            'set_hyper lr,mom+record': lambda: BareRecorded({'lr': lr, 'mom': mom}), **param_schedulers(n_groups),
            'CosineAnneal': CosineAnneal, "CosineAnneal(warmup='10%')": lambda: CosineAnneal(warmup='10%'),
            'OneCycle': OneCycle, 'torch scheduler.step': lambda: TorchStep(n_groups),
            'TorchSched': lambda: TorchSched(cosine, by='batch')}

# the peer with the same shapes, and the bare work: with its number of hyperparameters
PEERS = {'CosineAnneal': ('ParamScheduler cos', 'set_hyper lr+record', 1),
         "CosineAnneal(warmup='10%')": ('ParamScheduler 2-piece', 'set_hyper lr+record', 1),
         'OneCycle': ('ParamScheduler one-cycle', 'set_hyper lr,mom+record', 2)}

def main():
    parser = options(__doc__)
    parser.add_argument('--rounds', type=int, default=15)
    args = start(parser)
    for opt in OPTS:
        for n_groups in (1,3):
            makers = cases(n_groups)
            times = {name: [] for name in makers}
            for _ in range(args.rounds):
                for name,make in makers.items(): times[name].append(microseconds(learner(opt, n_groups), make()))
            print(f'\n{opt}, {n_groups} group{"s" if n_groups>1 else ""}')
            for name,values in times.items():
                print(f'  {name:28} {min(values):7.2f}  {against(name, times, n_groups)}', flush=True)

def against(name, times, n_groups):
    if name not in PEERS: return ''
    peer,bare,n_hypers = PEERS[name]
    over = (min(times[name])-min(times[bare]))/(n_hypers*n_groups)
    return f'over bare {over:5.2f} (recording)  ratio {statistics.median(ratios(times[name], times[peer])):.2f}'

if __name__=='__main__': main()
