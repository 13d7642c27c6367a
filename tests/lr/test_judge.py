"""The judge: the same items, no trace, what it holds out"""
import math
from collections import UserDict

import pytest
import torch
from fastai.basics import *
from fastai.callback.all import MixUp

from fastai.callback.progress import ProgressCallback
from fastai_anneal.fit.simanneal import SimAnnealHP
from fastai_anneal.annealing.space import LogFloat
from fastai_anneal.lr.judge import *
from helpers import *

def a_learner(n_valid=120, **kwargs): return small_learner(partial(blobs, n_valid=n_valid), **kwargs)

def test_judging_leaves_no_trace():
    learn = a_learner(metrics=accuracy, cbs=MixUp(.4))
    learn.fit(1)
    before = fingerprint(learn, attributes=True)
    judge = Judge(learn, 'accuracy')
    assert judge().value==judge().value
    judge([t*2 for t in floats(learn.model)])
    assert_same(before, fingerprint(learn, attributes=True))

@pytest.mark.parametrize('n_items,holdout,n_held', [(1024,.5,60), (1024,0.,120), (30,0.,30), (1024,.75,30), (1,.5,1)])
def test_items_are_spread_over_the_set(n_items, holdout, n_held):
    judge = Judge(a_learner(), n_items=n_items, holdout=holdout)
    assert len(judge().losses)==n_held and judge.stride==120//n_held

def test_little_room_is_kept_to():
    assert len(Judge(a_learner(), max_gb=400/2**30)().losses)<=20

def test_without_validation_set_training_items_judge():
    learn = a_learner()
    learn.dls = DataLoaders(learn.dls.train)
    assert len(Judge(learn, n_items=64)().losses)==64

def test_judge_says_what_validate_says():
    learn = a_learner(metrics=accuracy)
    learn.fit(1)
    loss,acc = learn.validate()
    assert math.isclose(Judge(learn, holdout=0.)().value, loss, rel_tol=1e-5)
    assert math.isclose(Judge(learn, 'accuracy', holdout=0.)().value, acc, rel_tol=1e-5)

def test_held_out_and_judged_items_make_the_set():
    learn = a_learner()
    judge = Judge(learn, holdout=.7)
    score = HeldOutScore(judge)
    for event in ('before_validate','after_loss','after_validate'):
        learn.add_cb(On(event, lambda learn, event=event: learn.training or getattr(score, event)()))
    learn.fit(2)
    share = len(judge().losses)/120
    assert share<=.3 and len(score.history)==2
    assert math.isclose(share*judge().value+(1-share)*score.value, valid_loss(learn), rel_tol=1e-5)

class Mean(nn.Module):
    "A loss that cannot say the loss of an item"
    def forward(self, pred, y): return F.cross_entropy(pred, y)

def test_loss_without_items():
    learn = a_learner()
    learn.loss_func = Mean()
    losses = Judge(learn, n_items=40, holdout=0.)().losses
    assert len(losses)==40 and len(losses.unique())<40

def test_cancelled_validation_is_nan():
    def cancel(learn): raise CancelValidException()
    judgement = Judge(a_learner(cbs=On('after_pred', cancel)))()
    assert math.isnan(judgement.value) and judgement.losses is None

def test_paired_change():
    old,new = Judgement(2., torch.tensor([1.,3.])),Judgement(1., torch.tensor([0.,2.]))
    assert paired_change(new, old)==(-.5,0.)
    assert paired_change(Judgement(.3), Judgement(.2), 'max')[0]<0<paired_change(Judgement(.3), Judgement(.2))[0]
    assert math.isinf(worth(Judgement(math.nan))) and worth(Judgement(.5), 'max')==-.5

@pytest.mark.parametrize('now,lowest,untrained,is_lost', [
    (.3,.1,2.3,False), (.6,.1,2.3,True), (math.inf,.1,2.3,True), # half of the gain is half of the way of the logarithm
    (-1.5,-2.,-.5,False), (-1.,-2.,-.5,True), # negative values: half of the way itself
    (2.4,2.3,2.3,False), (2.6,2.3,2.3,True), (5.,2.,math.inf,False)]) # nothing gained yet, nothing known
def test_collapse(now, lowest, untrained, is_lost): assert has_collapsed(now, lowest, untrained)==is_lost

# ---- batches of all kinds

class Encoding(UserDict): "As tokenizers of other libraries return"

class Lookup(nn.Module):
    "Of a mapping, a tuple or a tensor: the mean of some embeddings"
    def __init__(self):
        super().__init__()
        self.emb = nn.EmbeddingBag(20, 3)
    def forward(self, x): return self.emb(x['ids'] if isinstance(x, (dict,UserDict)) else x)

class Graphs(nn.Module):
    "Of nodes, and of which graph each of them is"
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(2, 3)
    def forward(self, nodes, graph): return torch.zeros(int(graph.max())+1, 3).index_add(0, graph, self.lin(nodes))

def words(lengths, kind):
    "Batches of four texts, all of one length within a batch"
    gen = torch.Generator().manual_seed(0)
    for length in lengths:
        ids = torch.randint(0, 20, (4,length), generator=gen)
        yield {'tensor': ids, 'dict': {'ids': ids}, 'encoding': Encoding(ids=ids, n=4)}[kind],ids[:,0]%3

def graphs():
    gen = torch.Generator().manual_seed(0)
    for n_graphs in (4,4,3):
        graph = torch.arange(n_graphs).repeat_interleave(3)
        yield torch.randn(len(graph), 2, generator=gen),graph,torch.arange(n_graphs)%3

class Ready:
    "A loader of batches that are made already"
    def __init__(self, batches):
        self.batches,self.bs = list(batches),4
        self.n_inp = len(self.batches[0])-1
    def __len__(self): return len(self.batches)
    def __iter__(self): return iter(self.batches)

BATCHES = {kind: lambda kind=kind: (words([5,5,3,7], kind), Lookup()) for kind in ('tensor','dict','encoding')}
BATCHES['graphs'] = lambda: (graphs(), Graphs())
BATCHES['equal'] = lambda: (words([5,5,5,5], 'dict'), Lookup())

def of_batches(kind, **kwargs):
    set_seed(0)
    batches,model = BATCHES[kind]()
    batches = list(batches)
    learn = Learner(DataLoaders(Ready(batches), Ready(batches)), model, CrossEntropyLossFlat(), **kwargs)
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

@pytest.mark.parametrize('kind', BATCHES)
def test_batches_of_any_kind_are_judged_as_they_are(kind):
    learn = of_batches(kind, metrics=accuracy)
    learn.fit(1, 0.)
    valid_loss,acc = learn.validate()
    judge = Judge(learn, holdout=0.)
    assert math.isclose(judge().value, valid_loss, rel_tol=1e-5)
    assert math.isclose(Judge(learn, 'accuracy', holdout=0.)().value, acc, rel_tol=1e-5)
    judge = Judge(learn)
    score = HeldOutScore(judge)
    for event in ('before_validate','after_loss','after_validate'):
        learn.add_cb(On(event, lambda learn, event=event: learn.training or getattr(score, event)()))
    learn.fit(1, 0.)
    n_held,n_all = len(judge().losses),len(Judge(learn, holdout=0.)().losses)
    assert n_all/3<n_held<n_all
    assert math.isclose((n_held*judge().value+(n_all-n_held)*score.value)/n_all, valid_loss, rel_tol=1e-5)

def test_batches_are_joined_where_items_have_one_shape():
    assert [len(Judge(of_batches(kind)).batches) for kind in ('equal','tensor','graphs')]==[2,3,2]

class Hidden(nn.Module):
    "Remembers the last batch"
    def __init__(self):
        super().__init__()
        self.lin,self.hidden = nn.Linear(5, 4),torch.zeros(4)
    def forward(self, x):
        out = self.lin(x)+self.hidden
        self.hidden = out.mean(0).detach()
        return out

def test_a_hidden_state_is_left_alone():
    learn = a_learner(model=Hidden())
    learn.fit(1)
    before = learn.model.hidden.clone()
    judge = Judge(learn)
    assert judge().value==judge().value
    judge.check()
    assert torch.equal(learn.model.hidden, before)

def of_training(pred, y): raise KeyError('not in a validation')

@pytest.mark.parametrize('metric,monitor,match', [(of_training,'of_training','KeyError.*not in a validation'),
                                                  (lambda pred, y: 'good','<lambda>','TypeError.*unsupported operand')])
def test_what_cannot_be_judged_is_refused_before_the_fit(metric, monitor, match):
    learn = a_learner(metrics=AvgMetric(metric))
    learn.create_opt()
    before = fingerprint(learn)
    with pytest.raises(ValueError, match=f'cannot be judged .{match}'):
        learn.fit(2, 1e-2, cbs=SimAnnealHP({'lr': LogFloat(1e-4, 1)}, monitor=monitor, mode='max'))
    assert_same(before, fingerprint(learn))

def test_a_callback_that_waits_for_its_epoch_is_no_reason_to_refuse():
    "What it makes in `before_train` is not there in `before_fit`"
    class Late(Callback):
        def before_train(self): self.batches = []
        def after_loss(self): self.batches.append(self.loss.item())
    learn,cb = a_learner(cbs=Late()),SimAnnealHP({'lr': LogFloat(1e-4, 1)}, seed=0)
    learn.fit(2, 1e-2, cbs=cb)
    assert len(cb.history)
