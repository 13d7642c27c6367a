"""What the training loop costs per batch, beyond the training itself: `TrainLearner` beside fastai's `Learner` and a bare PyTorch loop

A 784-50-10 MLP on MNIST in memory, batches of 64 cut beforehand, Recorder and a metric on, progress bar off. The overhead of a loop is its time less that of the bare
loop with the same optimizer, batches and validation. The three take turns in one process, in alternating order, in many short epochs; the fastest of each counts.
Time is that of the process (one thread), so that others on the same machine matter little.

    python benchmarks/loop.py            # about 2 minutes
    FASTAI_ANNEAL_DATA=folder python benchmarks/loop.py   # MNIST in torchvision's layout; random data of the same shape without
"""
import argparse,os,time,warnings
warnings.filterwarnings('ignore')
import torch
torch.set_num_threads(1)
from fastai.basics import *
from fastai.callback.all import *
from fastai_anneal.learner import TrainLearner

def data(n, path):
    if path:
        from torchvision.datasets import MNIST
        ds = MNIST(path, train=True)
        return ds.data[:n].view(n,784).float()/255, ds.targets[:n]
    g = torch.Generator().manual_seed(0)
    return torch.rand(n, 784, generator=g), torch.randint(10, (n,), generator=g)

class Batches:
    "Batches that were cut before, as a loader"
    def __init__(self, bs): self.bs = bs; self.dataset,self.n_inp,self.device = [b[0] for b in bs],1,torch.device('cpu')
    def __iter__(self): return iter(self.bs)
    def __len__(self): return len(self.bs)
    def to(self, d): pass

def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784,50), nn.ReLU(), nn.Linear(50,10))

class Quiet1(Callback):
    "A callback that has something to do for each batch"
    def after_batch(self): self.n = getattr(self, 'n', 0)+1
class Quiet2(Callback):
    def before_fit(self): pass
    def after_epoch(self): pass

opts = {'fastai Adam': Adam, 'fastai SGD': partial(SGD, mom=.9), 'OptimWrapper Adam': partial(OptimWrapper, opt=torch.optim.Adam)}
extra = {2: [], 8: [Quiet1,Quiet2,GradientClip,TerminateOnNaNCallback,EarlyStoppingCallback(patience=10**9)]}

def learner(cls, dls, opt, n_cbs):
    "A learner with `Recorder` and the training callbacks, which are always there, and `extra` ones"
    learn = cls(dls, mlp(), nn.CrossEntropyLoss(), opt_func=opt, lr=1e-3, metrics=accuracy, cbs=[deepcopy(c) for c in extra[n_cbs]])
    learn.remove_cb(ProgressCallback); learn.logger = noop
    if n_cbs==2: learn.remove_cb(CastToTensor)
    assert len(learn.cbs)==n_cbs
    return learn

def bare(dls, opt, n_cbs):
    "The same training with nothing around it; the optimizer is the one a `Learner` makes"
    learn = learner(Learner, dls, opt, n_cbs)
    learn.create_opt()
    model,loss_func,o = learn.model,learn.loss_func,learn.opt
    def epoch():
        model.train()
        for xb,yb in dls.train:
            loss_func(model(xb), yb).backward()
            if n_cbs==8: nn.utils.clip_grad_norm_(model.parameters(), 1.)
            o.step(); o.zero_grad()
        model.eval()
        loss,acc,n = 0.,0.,0
        with torch.no_grad():
            for xb,yb in dls.valid:
                p = model(xb)
                loss,acc,n = loss+loss_func(p, yb)*len(xb), acc+(p.argmax(-1)==yb).float().mean()*len(xb), n+len(xb)
        return loss/n,acc/n
    return epoch

def timed(f):
    t = time.process_time(); f()
    return time.process_time()-t

def ratios(ts):
    "Overhead and epoch of ours by fastai's from the fastest epoch of each of the rounds `ts`"
    m = {k: min(t[k] for t in ts) for k in ts[0]}
    return (m['ours']-m['bare'])/(m['fastai']-m['bare']), m['ours']/m['fastai'], m

def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('--batches', type=int, default=50, help='training batches of an epoch; a fifth as many to validate')
    ap.add_argument('--rounds', type=int, default=100, help='epochs of each loop, taking turns')
    ap.add_argument('--data', default=os.environ.get('FASTAI_ANNEAL_DATA'))
    a = ap.parse_args()
    nv = a.batches//5
    x,y = data((a.batches+nv)*64, a.data)
    bs = list(zip(x.split(64), y.split(64)))
    dls = DataLoaders(Batches(bs[:a.batches]), Batches(bs[a.batches:]), device=torch.device('cpu'))
    print(f"torch {torch.__version__}, 1 thread, {'MNIST' if a.data else 'random data'}, {a.batches}+{nv} batches an epoch, {a.rounds} rounds; microseconds of CPU time per batch of the fastest epoch;\nin brackets the range over five parts of the rounds\n")
    print(f"{'optimizer':18} {'callbacks':>9} {'bare':>6} {'fastai':>6} {'ours':>6}   {'overhead ours/fastai':>22}   {'epoch ours/fastai':>19}")
    worst = [0,0]
    for name,opt in opts.items():
        for n_cbs in extra:
            runs = dict(bare=bare(dls, opt, n_cbs), fastai=partial(learner(Learner, dls, opt, n_cbs).fit, 1), ours=partial(learner(TrainLearner, dls, opt, n_cbs).fit, 1))
            for f in runs.values(): f()
            ts = [{k: timed(runs[k]) for k in (list(runs) if i%2 else list(runs)[::-1])} for i in range(a.rounds)]
            over,epoch,m = ratios(ts)
            n = max(1, len(ts)//5)
            parts = [ratios(ts[i:i+n])[:2] for i in range(0, n*(len(ts)//n), n)]
            (o1,o2),(e1,e2) = [(min(p),max(p)) for p in zip(*parts)]
            worst = [max(worst[0], over), max(worst[1], epoch)]
            us = {k: v/(a.batches+nv)*1e6 for k,v in m.items()}
            print(f"{name:18} {n_cbs:9} {us['bare']:6.0f} {us['fastai']:6.0f} {us['ours']:6.0f}   {over:8.2f} ({o1:5.2f} -{o2:5.2f})   {epoch:5.2f} ({e1:5.2f} -{e2:5.2f})", flush=True)
    print(f"\nworst: overhead {worst[0]:.2f} of fastai's, epoch {worst[1]:.2f} of fastai's")

if __name__=='__main__': main()
