"What the tests of searches share: a small problem, and what there is to say of a result"
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.basics import *
from helpers import *
from fastai_anneal.annealing.space import *
from fastai_anneal.search.record import key_of
from fastai_anneal.search.search import anneal_search

def _items(n, seed):
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=gen)
    return list(zip(x, (x[:,0]*x[:,1]>0).long()))

def quadrants():
    "Loaders of a classification that needs a hidden layer"
    return DataLoaders(DataLoader(_items(96, 0), bs=16, shuffle=True), DataLoader(_items(64, 1), bs=64))

dls = quadrants()

def mlp(width=8, p=0., dls=dls, **kwargs):
    model = nn.Sequential(nn.Linear(6,width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(p), nn.Linear(width,2))
    return Learner(dls, model, loss_func=CrossEntropyLossFlat(), metrics=accuracy, **kwargs)

def make_mlp(width=8, p=0.): return mlp(width, p)

space = {'lr': LogFloat(1e-3,1), 'width': LogInt(2,32), 'p': LinFloat(0,.5)}

class Each(Callback):
    "Call `do(learn)` at each `event`; unlike `On` it may be copied, which a search does"
    def __init__(self, event, do, order=80): # after `TrialWatch`
        self.event,self.do,self.order = event,do,order
    def __call__(self, event):
        if event==self.event: self.do(self.learn)

def search(make=make_mlp, spec=space, n_trials=8, n_epoch=2, seed=0, progress=False, **kwargs):
    return anneal_search(make, spec, n_trials=n_trials, n_epoch=n_epoch, seed=seed, progress=progress, **kwargs)

def facts(result):
    "All that has to be the same when a search is the same"
    return [(t.number, t.state, key_of(t.hps), t.curve, t.accepted, t.repeats, t.seed) for t in result.trials]

def after(n):
    "A callback that ends a search after `n` trials"
    return lambda result: len(result.trials)>=n

__all__ = [name for name in dir() if not name.startswith('_')]
