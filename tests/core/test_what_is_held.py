"Kinds of state that a learner may hold: a search for a learning rate leaves none of them changed"
import random,types
import numpy as np,pytest,torch
from functools import partial
from torch import nn
from fastai.basics import *
from fastai.callback.all import *
from fastai_anneal.all import TrainLearner
from fastai_anneal.core.loaders import *
from fastai_anneal.core.undo import *

def data(n=64, bs=16):
    x = torch.randn(n, 8, generator=torch.Generator().manual_seed(0))
    items = list(zip(x, x[:,:3].argmax(1)))
    return DataLoaders.from_dsets(items, items, bs=bs, num_workers=0, device='cpu')

def net(): return nn.Sequential(nn.Linear(8,16), nn.ReLU(), nn.Linear(16,3))

def quiet(learn):
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

def weights(model): return torch.cat([p.detach().flatten() for p in model.parameters()])

def final_weights(make, disturb):
    "The weights after a fit of `make()`, with a fit undone before it if `disturb`"
    set_seed(0, True)
    learn = quiet(make())
    if disturb:
        with preserved(learn): learn.fit(2, 1e-1)
    learn.fit(1, 1e-2)
    return weights(learn.model)

# objects that become something else

LAZY = {'linear': lambda: nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(3)),
        'norm': lambda: nn.Sequential(nn.LazyLinear(16), nn.LazyBatchNorm1d(), nn.LazyLinear(3)),
        'mixed': lambda: nn.Sequential(nn.Linear(8,4), nn.Sequential(nn.LazyBatchNorm1d(affine=False), nn.LazyLinear(3)))}

@pytest.mark.parametrize('opt_func', [Adam, partial(OptimWrapper, opt=torch.optim.AdamW)])
@pytest.mark.parametrize('kind', LAZY)
def test_lazy_layers_are_lazy_again(kind, opt_func):
    def make(): return Learner(data(), LAZY[kind](), CrossEntropyLossFlat(), opt_func)
    learn = quiet(make())
    classes,params = [type(m) for m in learn.model.modules()],list(learn.model.parameters())
    with preserved(learn): learn.fit(1)
    assert [type(m) for m in learn.model.modules()]==classes
    assert all(p is q and type(p) is type(q) for p,q in zip(params, learn.model.parameters()))
    assert torch.equal(final_weights(make, True), final_weights(make, False))

# a loss with a memory

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

@pytest.mark.parametrize('kind', LOSSES)
def test_a_loss_forgets(kind):
    def make(): return Learner(data(), net(), LOSSES[kind]())
    assert torch.equal(final_weights(make, True), final_weights(make, False))

# what a learner of one's own holds

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

def test_what_a_learner_of_ones_own_holds():
    learn = quiet(Mine(data(), net(), CrossEntropyLossFlat()))
    learn.fit(1)
    before = (weights(learn.teacher), learn.opt2.state_dict()['state'][0]['step'].item(), list(learn.norms), learn.n_steps, learn.draws.bit_generator.state)
    with preserved(learn): learn.fit(2, 1e-1)
    after = (weights(learn.teacher), learn.opt2.state_dict()['state'][0]['step'].item(), list(learn.norms), learn.n_steps, learn.draws.bit_generator.state)
    assert torch.equal(before[0], after[0]) and before[1:]==after[1:]

# foreign objects in a callback

class Average(Callback):
    def __init__(self, holder): self.holder = holder
    def before_fit(self):
        if not hasattr(self.holder, 'shadow'): self.holder.n,self.holder.shadow = 0,[p.detach().clone() for p in self.model.parameters()]
    def after_step(self):
        self.holder.n += 1
        for a,p in zip(self.holder.shadow, self.model.parameters()): a.lerp_(p.detach(), .1)

def foreign_class(**attrs):
    cls = type('Ema', (), attrs)
    cls.__module__ = 'some_library.ema'
    return cls()

@pytest.mark.parametrize('holder', [types.SimpleNamespace, foreign_class])
def test_foreign_objects_that_hold_tensors(holder):
    cb = Average(holder())
    learn = quiet(Learner(data(), net(), CrossEntropyLossFlat(), cbs=cb))
    learn.fit(1, 1e-2)
    n,shadow = cb.holder.n,[a.clone() for a in cb.holder.shadow]
    with preserved(learn): learn.fit(1, 1e-1)
    assert cb.holder.n==n and all(torch.equal(a,b) for a,b in zip(shadow, cb.holder.shadow))

def test_an_iterator_in_a_callback_is_warned_of():
    class Drawing(Callback):
        def __init__(self): self.values = iter(range(1000))
        def after_batch(self): next(self.values)
    learn = quiet(Learner(data(), net(), CrossEntropyLossFlat(), cbs=Drawing()))
    with preserved(learn) as snapshot: learn.fit(1)
    assert any('range_iterator' in w for w in snapshot.warnings)
    with preserved(quiet(Learner(data(), net(), CrossEntropyLossFlat(), cbs=MixUp()))) as snapshot: pass
    assert not snapshot.warnings

# what a loader holds

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

@pytest.mark.parametrize('kind', [*LOADERS, 'language model'])
def test_loaders_begin_where_they_were(kind):
    if kind=='language model':
        model = lambda: nn.Sequential(nn.Embedding(20,8), nn.Linear(8,20))
        make = lambda: Learner(DataLoaders(lm_loader(), lm_loader()), model(), CrossEntropyLossFlat())
    else: make = lambda: Learner(DataLoaders(LOADERS[kind](), torch_loader()), net(), CrossEntropyLossFlat())
    assert torch.equal(final_weights(make, True), final_weights(make, False))

@pytest.mark.parametrize('kind', [o for o in LOADERS if o!='workers that stay'])
def test_state_of_loaders_is_plain_and_enough(kind):
    def make():
        set_seed(0)
        return DataLoaders(LOADERS[kind](), torch_loader())
    def epoch(dls): return torch.stack([b[0].sum() for b in dls.train])
    dls,other = make(),make()
    epoch(dls)
    state = random_state(dls)
    expected = epoch(dls)
    set_random_state(other, state)
    assert torch.equal(epoch(other), expected)

def test_data_are_not_copied():
    big = OwnNoise()
    big.x = torch.zeros(2**20)
    big.files = [f'{i}.png' for i in range(5000)]
    held = LoaderSnapshot(DataLoaders(torch_loader(big), torch_loader(big)))
    assert held.nbytes<2**20
