"What the tests of this room share"
__all__ = ['LR', 'always', 'never', 'two_groups', 'fit']
from fastai_anneal.annealing.space import LogFloat

LR = {'lr': LogFloat(1e-4,1)}
def always(change, temp, se=0.): return 1.
def never(change, temp, se=0.): return 0.
def two_groups(model): return [list(model[:2].parameters()), list(model[2:].parameters())]

def fit(learn, n_epoch, *cbs, **kwargs):
    "`learn`, after a fit with callbacks `cbs`"
    learn.fit(n_epoch, cbs=list(cbs), **kwargs)
    return learn
