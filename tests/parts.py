"""Parts of learners that hold state in unusual places

    from parts import *

`LAZY` models, `LOSSES`, a learner `Mine` of one's own, `HOLDERS` of averages in callbacks, `LOADERS`: each makes a fresh one.
"""
import random,types
import numpy as np,torch
from copy import deepcopy
from functools import partial
from torch import nn
from fastai.basics import *
from fastai.callback.progress import ProgressCallback
from fastai_anneal.all import TrainLearner

def data(n=64, bs=16):
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(0))
    items = list(zip(x, x[:,:3].argmax(1)))
    return DataLoaders.from_dsets(items, items, bs=bs, num_workers=0, device='cpu')

def silent(learn):
    "`learn` without a bar and a table"
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

def net(): return nn.Sequential(nn.Linear(8,16), nn.ReLU(), nn.Linear(16,3))

LAZY = {'linear': lambda: nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(3)),
        'norm': lambda: nn.Sequential(nn.LazyLinear(16), nn.LazyBatchNorm1d(), nn.LazyLinear(3)),
        'mixed': lambda: nn.Sequential(nn.Linear(8,4), nn.Sequential(nn.LazyBatchNorm1d(affine=False), nn.LazyLinear(3)))}

class Balanced:
    "A loss with an estimate of the frequencies of the classes, and a counter"
    def __init__(self): self.frequency,self.calls = torch.ones(3)/3,0
    def __call__(self, pred, y):
        self.frequency,self.calls = .9*self.frequency+.1*torch.bincount(y, minlength=3)/len(y),self.calls+1
        return F.cross_entropy(pred, y, 1/(3*self.frequency))
    def loss(self, pred, y, scale=1.): return self(pred, y)*scale

class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer('n', torch.zeros(()))
    def loss(self, pred, y):
        self.n += 1
        return F.cross_entropy(pred, y)*(1+1/self.n)

class Slotted:
    "The same without a `__dict__`"
    __slots__ = 'total','history'
    def __init__(self): self.total,self.history = torch.zeros(()),[]
    def __call__(self, pred, y):
        self.total = self.total+1
        self.history.append(1)
        return F.cross_entropy(pred, y)*(1+1/self.total)

def closure():
    memory,n = torch.zeros(3),0
    def loss(pred, y):
        nonlocal n
        n += 1
        memory.add_(torch.bincount(y, minlength=3))
        return F.cross_entropy(pred, y, 1+memory/memory.sum())*(1+1/n)
    return loss

def in_partial(pred, y, memory, seen):
    memory += 1
    seen.append(1)
    return F.cross_entropy(pred, y)*(1+1/memory.mean())*(1+1/len(seen))

LOSSES = {'object': Balanced, 'method': lambda: Balanced().loss, 'module method': lambda: Counting().loss, 'slots': Slotted,
          'partial of a method': lambda: partial(Balanced().loss, scale=2.), 'closure': closure,
          'partial': lambda: partial(in_partial, memory=torch.zeros(2), seen=[])}

class Mine(TrainLearner):
    "A second optimizer for the head, a teacher that follows, a list, and a generator"
    def __init__(self, *args, **kwargs):
        super().__init__(*args, splitter=lambda m: [list(m[0].parameters())], **kwargs)
        self.opt2,self.teacher = torch.optim.Adam(self.model[2].parameters(), 1e-3),deepcopy(self.model)
        self.norms,self.draws,self.n_steps = [],np.random.default_rng(0),0
    def step(self):
        self.opt.step()
        self.opt2.step()
        self.n_steps += 1
        self.norms.append(self.draws.random())
        for p,q in zip(self.teacher.parameters(), self.model.parameters()): p.data.lerp_(q.data, .1)
    def zero_grad(self):
        self.opt.zero_grad()
        self.opt2.zero_grad()

class Average(Callback):
    "An average of the weights, kept in `holder`"
    def __init__(self, holder): self.holder = holder
    def after_step(self):
        if not hasattr(self.holder, 'shadow'): self.holder.n,self.holder.shadow = 0,[p.detach().clone() for p in self.model.parameters()]
        self.holder.n += 1
        for a,p in zip(self.holder.shadow, self.model.parameters()): a.lerp_(p.detach(), .1)

def foreign_class(**attrs):
    cls = type('Ema', (), attrs)
    cls.__module__ = 'some_library.ema'
    return cls()

class OwnShuffle:
    "A sampler that shuffles its own list with python's global generator"
    def __init__(self, n): self.idxs = list(range(n))
    def __len__(self): return len(self.idxs)
    def __iter__(self):
        random.shuffle(self.idxs)
        return iter(self.idxs)

class OwnGenerator(Transform):
    "A transform of a batch with a generator of its own"
    def __init__(self): self.rng = np.random.default_rng(0)
    def encodes(self, x:Tensor): return x+float(self.rng.random()) if x.is_floating_point() else x

class OwnNoise(torch.utils.data.Dataset):
    "A dataset that draws"
    def __init__(self):
        self.rng,self.x = random.Random(0),torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    def __len__(self): return len(self.x)
    def __getitem__(self, i): return self.x[i]+self.rng.random(),int(self.x[i,:3].argmax())

def torch_loader(dataset=None, **kwargs):
    return torch.utils.data.DataLoader(dataset or OwnNoise(), batch_size=16, **kwargs)

def lm_loader():
    from fastai.text.all import LMDataLoader,TensorText
    return LMDataLoader([TensorText(torch.arange(i,i+40)%20) for i in range(12)], bs=4, seq_len=12, num_workers=0, shuffle=True, device='cpu')

LOADERS = {'sampler': lambda: torch_loader(sampler=OwnShuffle(64)), 'dataset': torch_loader,
           'workers that stay': lambda: torch_loader(num_workers=1, persistent_workers=True, shuffle=True),
           'weighted': lambda: torch_loader(sampler=torch.utils.data.WeightedRandomSampler(torch.ones(64), 64)),
           'generator': lambda: torch_loader(shuffle=True, generator=torch.Generator()),
           'transform': lambda: DataLoader(OwnNoise(), bs=16, shuffle=True, after_batch=Pipeline([OwnGenerator()]))}

