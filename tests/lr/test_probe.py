"""The probe: it goes where the loss is lowest, flees divergence, and keeps to its budget"""
import math

import numpy as np
import pytest

from fastai_anneal.lr.horizon import POWER,horizon_factor
from fastai_anneal.lr.judge import Judgement
from fastai_anneal.lr.probe import *

def octaves(lr): return math.log2(lr)

def refined(loss, n_probes=10):
    "What a bracket finds from 1 if the loss at `2**e` is `loss(e)`, and where it was tried, in octaves"
    plan = ProbePlan(n_total=100, n_steps=100, n_probes=n_probes)
    found = probe(lambda lr, n_steps: Judgement(loss(octaves(lr))), 1., plan)
    return found,octaves(found.lr),[octaves(trial.lr) for trial in found.trials]

@pytest.mark.parametrize('best', [-4.,-1.4,0.,.6,3.])
@pytest.mark.parametrize('shift', [0.,-5.])
def test_goes_where_the_loss_is_lowest(best, shift):
    found,at,tried = refined(lambda e: 1+.2*(e-best)**2+shift)
    assert found.is_better and abs(at-best)<=.3 and len(tried)<=10 and min(abs(e-best) for e in tried)<=.5

def test_flees_divergence():
    found,at,tried = refined(lambda e: math.nan if e>-2.6 else 1+.2*(e+3)**2)
    assert found.is_better and at<=-2.6 and min(tried)<=-3
    found,at,tried = refined(lambda e: math.inf if e>1.6 else 1-.1*e) # the best next to divergence, by luck
    assert 1.5 in tried and at<=1

def test_gives_up_where_everything_diverges():
    found,_,tried = refined(lambda e: math.nan)
    assert not found.is_better and len(tried)==10

def test_small_budgets_are_kept_to():
    found,at,tried = refined(lambda e: 1+.2*(e-9)**2, 3)
    assert tried==[0,-1,1] and at==1
    assert len(refined(lambda e: 1+.2*e**2, 1)[2])==1

def test_cycles_train_at_a_rate_for_their_length():
    asked = []
    def train(lr, n_steps):
        asked.append((lr, n_steps))
        return Judgement(1.)
    plan = ProbePlan(n_total=1600, n_steps=100, n_probes=2, survey=(.1,), kind='sgd')
    found = probe(train, .1, plan, Judgement(2.))
    assert [n for _,n in asked]==[25,100,100,100]
    assert math.isclose(asked[0][0], .1*64**POWER['sgd']) and math.isclose(asked[1][0], .1*16**POWER['sgd'])
    assert [trial.stage for trial in found.trials]==['survey','control','bracket','bracket'] and found.trials[1].lr==.1

def surveyed(start, best=.05, power=POWER['adaptive'], mode='min', untrained=2.3):
    "What a survey of four decades says about a training whose best rate falls by `power` with its length"
    def train(lr, n_steps):
        distance = octaves(lr/(best*horizon_factor(1000, n_steps, power)))
        value = .3+.02*distance**2
        return Judgement(math.nan if distance>5 else -value if mode=='max' else value)
    plan = ProbePlan(1000, 100, 3, survey=tuple(np.geomspace(1e-4, 1, 8)), mode=mode, bounds=(1e-4,1.))
    return probe(train, start, plan, Judgement(-untrained if mode=='max' else untrained))

@pytest.mark.parametrize('mode', ['min','max'])
@pytest.mark.parametrize('start', [1e-4,1.])
def test_survey_finds_the_order_of_magnitude(start, mode):
    found = surveyed(start, mode=mode)
    assert found.is_better and abs(octaves(found.lr/.05))<.5

def test_a_start_that_is_best_stays():
    assert not surveyed(.05).is_better

@pytest.mark.parametrize('power', [0.,.7])
def test_a_trend_goes_on_in_part(power):
    "A training that deviates from the law is followed half of the way"
    followed = surveyed(1e-4, power=power)
    best_of_bracket = min((o for o in followed.trials if o.stage=='bracket'), key=lambda trial: trial.worth)
    assert abs(octaves(followed.lr/.05))<abs(octaves(best_of_bracket.lr/.05))+.3

def test_where_nothing_has_learned_the_largest_harmless_rate_leads():
    def train(lr, n_steps): return Judgement(math.nan if lr>.4 else 2.3 if n_steps<50 else 2.3-lr)
    plan = ProbePlan(200, 100, 3, survey=(1e-4,1e-3,1e-2,.1,1.))
    found = probe(train, 1e-3, plan, Judgement(2.3))
    assert found.is_better and found.lr>=.1

def test_bounds_are_kept_to():
    found = surveyed(1e-3, best=30.)
    assert found.lr<=1 and all(trial.lr<=1 for trial in found.trials)

@pytest.mark.parametrize('positions,worths,at', [([0,1,2],[4.,1.,4.],1.), ([0,1,2],[1.,2.,4.],0.), ([2,0,1],[4.,4.,1.],1.),
                                                 ([0,1,2],[-1.,-3.,-1.],1.), ([0,1,2],[4.,1.,math.inf],1.), ([5],[1.],5.)])
def test_lowest(positions, worths, at): assert math.isclose(lowest(positions, worths), at)
