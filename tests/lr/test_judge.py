"""The judge: the same items, no trace, what it holds out"""
import math

import pytest
import torch
from fastai.basics import *
from fastai.callback.all import MixUp

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
