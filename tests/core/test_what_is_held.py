"Kinds of state that a learner may hold: a search for a learning rate leaves none of them changed"
import types
import pytest,torch
from functools import partial
from torch import nn
from fastai.basics import *
from fastai.callback.all import *
from fastai_anneal.core.loaders import *
from fastai_anneal.core.undo import *
from helpers import weights
from parts import *

def final_weights(make, disturb):
    "The weights after a fit of `make()`, with a fit undone before it if `disturb`"
    set_seed(0, True)
    learn = silent(make())
    if disturb:
        with preserved(learn): learn.fit(2, 1e-1)
    learn.fit(1, 1e-2)
    return weights(learn)

# objects that become something else

@pytest.mark.parametrize('opt_func', [Adam, partial(OptimWrapper, opt=torch.optim.AdamW)])
@pytest.mark.parametrize('kind', LAZY)
def test_lazy_layers_are_lazy_again(kind, opt_func):
    def make(): return Learner(data(), LAZY[kind](), CrossEntropyLossFlat(), opt_func)
    learn = silent(make())
    classes,params = [type(m) for m in learn.model.modules()],list(learn.model.parameters())
    with preserved(learn): learn.fit(1)
    assert [type(m) for m in learn.model.modules()]==classes
    assert all(p is q and type(p) is type(q) for p,q in zip(params, learn.model.parameters()))
    assert torch.equal(final_weights(make, True), final_weights(make, False))

# a loss with a memory

@pytest.mark.parametrize('kind', LOSSES)
def test_a_loss_forgets(kind):
    def make(): return Learner(data(), net(), LOSSES[kind]())
    assert torch.equal(final_weights(make, True), final_weights(make, False))

# what a learner of one's own holds

def test_what_a_learner_of_ones_own_holds():
    learn = silent(Mine(data(), net(), CrossEntropyLossFlat()))
    learn.fit(1)
    before = (nn.utils.parameters_to_vector(learn.teacher.parameters()).detach(), learn.opt2.state_dict()['state'][0]['step'].item(), list(learn.norms), learn.n_steps, learn.draws.bit_generator.state)
    with preserved(learn): learn.fit(2, 1e-1)
    after = (nn.utils.parameters_to_vector(learn.teacher.parameters()).detach(), learn.opt2.state_dict()['state'][0]['step'].item(), list(learn.norms), learn.n_steps, learn.draws.bit_generator.state)
    assert torch.equal(before[0], after[0]) and before[1:]==after[1:]

# foreign objects in a callback

@pytest.mark.parametrize('holder', [types.SimpleNamespace, foreign_class])
def test_foreign_objects_that_hold_tensors(holder):
    cb = Average(holder())
    learn = silent(Learner(data(), net(), CrossEntropyLossFlat(), cbs=cb))
    learn.fit(1, 1e-2)
    n,shadow = cb.holder.n,[a.clone() for a in cb.holder.shadow]
    with preserved(learn): learn.fit(1, 1e-1)
    assert cb.holder.n==n and all(torch.equal(a,b) for a,b in zip(shadow, cb.holder.shadow))

def test_an_iterator_in_a_callback_is_warned_of():
    class Drawing(Callback):
        def __init__(self): self.values = iter(range(1000))
        def after_batch(self): next(self.values)
    learn = silent(Learner(data(), net(), CrossEntropyLossFlat(), cbs=Drawing()))
    with preserved(learn) as snapshot: learn.fit(1)
    assert any('range_iterator' in w for w in snapshot.warnings)
    with preserved(silent(Learner(data(), net(), CrossEntropyLossFlat(), cbs=MixUp()))) as snapshot: pass
    assert not snapshot.warnings

# what a loader holds

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
    order = LoaderState(dls)
    epoch(dls)
    state = order.saved()
    expected = epoch(dls)
    LoaderState(other).give(state)
    assert torch.equal(epoch(other), expected)

def test_data_are_not_copied():
    big = OwnNoise()
    big.x = torch.zeros(2**20)
    big.files = [f'{i}.png' for i in range(5000)]
    held = LoaderSnapshot(DataLoaders(torch_loader(big), torch_loader(big)))
    assert held.nbytes<2**20
