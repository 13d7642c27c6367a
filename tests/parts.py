"""Parts of learners that hold state in unusual places

    from parts import *

`LAZY` models, `LOSSES`, a learner `Mine` of one's own, `HOLDERS` of averages in callbacks, `LOADERS`: each makes a fresh one.
"""
import collections,dataclasses,random,types,weakref
import array as arrays
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


# ---- more kinds of state: each value makes a model, a callback or a learner

class Plain(nn.Module):
    "Tensors and numbers that are no buffers"
    def __init__(self):
        super().__init__()
        self.net,self.mean,self.n_seen = net(),torch.zeros(8),0
        self.seen = []
    def forward(self, x):
        if self.training:
            self.mean = .9*self.mean+.1*x.mean(0)
            self.n_seen += 1
            self.seen.append(float(x[0,0]))
        return self.net(x-self.mean)*(1+1/(1+self.n_seen+len(self.seen)))

class Recurrent(nn.Module):
    "Hidden state between batches, which `ModelResetter` resets"
    def __init__(self):
        super().__init__()
        self.rnn,self.head = nn.RNN(8, 16, batch_first=True),nn.Linear(16,3)
        self.reset()
    def reset(self): self.hidden = torch.zeros(1,1,16)
    def forward(self, x):
        out,hidden = self.rnn(x[:,None], self.hidden.expand(1,len(x),16).contiguous())
        self.hidden = hidden.detach().mean(1, keepdim=True)
        return self.head(out[:,-1])

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a,self.b,self.head = nn.Linear(8,8),nn.Linear(8,8),nn.Linear(8,3)
        self.b.weight = self.a.weight
    def forward(self, x): return self.head(F.relu(self.b(F.relu(self.a(x)))))

class OwnNoiseLayer(nn.Module):
    "A layer with a generator of its own"
    def __init__(self):
        super().__init__()
        self.net,self.generator = net(),torch.Generator().manual_seed(3)
    def forward(self, x):
        if self.training: x = x+.1*torch.randn(x.shape, generator=self.generator)
        return self.net(x)

def parametrized(parametrization):
    model = net()
    parametrization(model[0])
    return model

def hooked():
    "A forward hook that remembers"
    model,memory = net(),[0.]
    def hook(module, args, out):
        memory[0] += .01
        return out*(1+memory[0])
    model[0].register_forward_hook(hook)
    return model

MODELS = {'net': net, 'dropout': lambda: nn.Sequential(nn.Linear(8,16), nn.BatchNorm1d(16), nn.Dropout(.3), nn.Linear(16,3)), **LAZY,
          'no buffers': Plain, 'recurrent': Recurrent, 'tied': Tied, 'own noise': OwnNoiseLayer, 'hook': hooked,
          'weight norm': lambda: parametrized(nn.utils.parametrizations.weight_norm),
          'spectral norm': lambda: parametrized(nn.utils.parametrizations.spectral_norm)}

class ScalesLoss(Callback):
    "A callback that multiplies the gradient with `1+self.draw()`"
    run_valid = False
    def after_loss(self): self.learn.loss_grad = self.learn.loss_grad*(1+self.draw())

class Drawing(ScalesLoss):
    def __init__(self, generator): self.generator = generator
    def draw(self):
        if isinstance(self.generator, torch.Generator): return torch.rand(1, generator=self.generator).item()
        return float(self.generator.random() if hasattr(self.generator, 'random') else self.generator.rand())

class Collecting(ScalesLoss):
    "Containers of the standard library"
    def __init__(self):
        self.last,self.counts,self.set = collections.deque([0.], maxlen=3),collections.Counter(),set()
        self.ordered,self.numbers,self.bytes = collections.OrderedDict(),arrays.array('d'),bytearray()
        self.default,self.user = collections.defaultdict(list),collections.UserDict()
    def draw(self):
        n = sum(self.counts.values())
        self.last.append(float(self.learn.loss.detach()))
        self.counts[n%3] += 1
        self.set.add(n)
        self.ordered[n] = self.ordered.pop(n-2, 0.)+1.
        self.numbers.append(n)
        self.bytes.append(n%7)
        self.default[n%2].append(n)
        self.user['n'] = n
        return sum(self.last)*.1+.01*(len(self.set)+sum(self.ordered.values())+len(self.numbers)+sum(self.bytes)+len(self.default[0])+n)

@dataclasses.dataclass(slots=True)
class Slots:
    mean: torch.Tensor
    n: int = 0

class InSlots(ScalesLoss):
    def __init__(self): self.state = Slots(torch.zeros(()))
    def draw(self):
        self.state.n += 1
        self.state.mean = self.state.mean*.9+float(self.learn.loss.detach())*.1
        return self.state.mean.item()/self.state.n

class Decaying(ScalesLoss):
    "Changes what was an argument"
    def __init__(self, share=1., history=()): self.share,self.history = share,list(history)
    def draw(self):
        self.share *= .9
        self.history.append(self.share)
        return self.share+.01*len(self.history)

class Counts:
    n = 0

class Weak(ScalesLoss):
    def __init__(self): self.holder,self.strong = None,Counts()
    def draw(self):
        self.holder = weakref.ref(self.strong)
        self.holder().n += 1
        return self.holder().n*.1

class ByClosure(ScalesLoss):
    def __init__(self):
        total,n = torch.zeros(()),0
        def draw():
            nonlocal n
            n += 1
            total.add_(1)
            return total.item()*.1+n*.1
        self.draw = draw

class OfFunction(ScalesLoss):
    "Attributes of a function"
    def __init__(self):
        def f(): f.n += 1
        f.n,self.f = 0,f
    def draw(self):
        self.f()
        return self.f.n*.1

class Phases(ScalesLoss):
    "A state machine of bound methods"
    def __init__(self): self.phase,self.n = self.one,0
    def one(self): return .1
    def two(self): return .5
    def draw(self):
        self.n += 1
        if self.n==6: self.phase = self.two
        return self.phase()

class SwitchesOff(ScalesLoss):
    "Is off after some batches"
    def __init__(self): self.n = 0
    def draw(self):
        self.n += 1
        self.run = self.n<6
        return .5

class OwnSchedule(Callback):
    "A scheduler of torch by hand"
    run_valid = False
    def before_fit(self):
        if hasattr(self, 'sched'): return
        self.inner = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.)
        self.sched = torch.optim.lr_scheduler.ExponentialLR(self.inner, .9)
    def after_loss(self):
        self.learn.loss_grad = self.learn.loss_grad*self.inner.param_groups[0]['lr']
        self.inner.step()
        self.sched.step()

class Swa(Callback):
    "The weights are drawn to an average, which torch keeps"
    run_valid = False
    def before_fit(self):
        if not hasattr(self, 'average'): self.average = torch.optim.swa_utils.AveragedModel(self.model)
    def after_step(self):
        self.average.update_parameters(self.model)
        with torch.no_grad():
            for p,a in zip(self.model.parameters(), self.average.parameters()): p.lerp_(a, .1)

CALLBACKS = {'average': lambda: Average(types.SimpleNamespace()), 'foreign': lambda: Average(foreign_class()),
             'numpy': lambda: Drawing(np.random.default_rng(0)), 'random': lambda: Drawing(random.Random(0)), 'state': lambda: Drawing(np.random.RandomState(0)),
             'torch': lambda: Drawing(torch.Generator().manual_seed(0)), 'containers': Collecting, 'slots': InSlots, 'arguments': Decaying, 'weak': Weak,
             'closure': ByClosure, 'function': OfFunction, 'phases': Phases, 'off': SwitchesOff, 'scheduler': OwnSchedule, 'swa': Swa}

class Lookahead:
    "An optimizer around another one, with slow weights"
    def __init__(self, params, **kwargs):
        self.opt = torch.optim.SGD(params, **kwargs)
        self.param_groups,self.slow,self.n = self.opt.param_groups,{},0
    def __getattr__(self, name):
        if name=='opt': raise AttributeError(name)
        return getattr(self.opt, name)
    def step(self, closure=None):
        self.opt.step()
        self.n += 1
        with torch.no_grad():
            for p in (p for group in self.param_groups for p in group['params']):
                if p not in self.slow: self.slow[p] = p.clone()
                if self.n%3==0: p.copy_(self.slow[p].lerp_(p, .5))

class Counted(torch.utils.data.IterableDataset):
    "Goes on where it was in the epoch before"
    def __init__(self):
        self.x,self.at = torch.randn(64, 8, generator=torch.Generator().manual_seed(0)),0
    def __len__(self): return 64
    def __iter__(self):
        for _ in range(64):
            i = self.at = (self.at+7)%64
            yield self.x[i],int(self.x[i,:3].argmax())

def noisy(b, rng): return (b[0]+float(rng.random()), *b[1:]) if isinstance(b, tuple) else b

def items():
    x = OwnNoise().x
    return list(zip(x, x[:,:3].argmax(1)))

LOADERS.update({'iterable': lambda: torch_loader(Counted()), 'one worker': lambda: DataLoader(items(), bs=16, shuffle=True, num_workers=1),
                'partial': lambda: DataLoader(items(), bs=16, shuffle=True, after_batch=partial(noisy, rng=np.random.default_rng(0))),
                'sorted': lambda: sorted_loader(), 'weights': lambda: weighted_loader()})

def sorted_loader():
    from fastai.text.data import SortedDL
    return SortedDL(items(), sort_func=lambda o: float(o[0][0]), bs=16, shuffle=True, num_workers=0)

def weighted_loader():
    from fastai.callback.data import WeightedDL
    return WeightedDL(items(), wgts=np.arange(64)+1., bs=16, shuffle=True, num_workers=0)
