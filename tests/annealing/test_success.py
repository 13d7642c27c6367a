"Failures: what is learned from them, and how few there are then"
import math
import numpy as np,pytest
from hypothesis import given,settings,strategies as st
from fastai_anneal.annealing.anneal import anneal
from fastai_anneal.annealing.space import *
from fastai_anneal.annealing.success import *
from fastai_anneal.annealing.walk import *

def told(us, outcomes):
    walk = Walk()
    for i,key in enumerate(outcomes):
        walk.begin(Step(i))
        walk.tell(Step(i), key)
    return Success(Space({f'x{i}': LinFloat(0,1) for i in range(len(us[0]))}), walk, lambda i: us[i])

@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([None,(0.,math.nan),(0.,math.inf),(0.,1.)]), min_size=2, max_size=12), st.integers(0, 99))
def test_what_failed_is_less_certain_than_what_did_not(outcomes, seed):
    us = np.random.default_rng(seed).random((len(outcomes),2))
    success = told(us, outcomes)
    good = np.array([key is not None and key[1]==1 for key in outcomes])
    lacking = success.lacking(us)
    assert (lacking>=0).all() and np.isfinite(lacking).all()
    if good.all(): assert not lacking.any()
    elif good.any(): assert success.certainty(us)[good].mean()>success.certainty(us)[~good].mean()

def test_a_failure_before_all_was_suggested_says_nothing_of_what_is_missing():
    us = np.random.default_rng(0).random((10,2))
    us[:4,1] = np.nan
    assert not told(us, [None]*4+[(0.,1.)]*6).lacking(us[4:]).any()

@pytest.mark.parametrize('screen', [None,'gp'])
@pytest.mark.parametrize('bad', [math.nan,math.inf])
@pytest.mark.parametrize('space', [{'x': LinFloat(0,1), 'y': LinFloat(0,1)}, {'x': LinInt(0,20), 'y': LogFloat(1e-4,1)}], ids=['floats','mixed'])
def test_a_walk_meets_few_failures(space, bad, screen):
    dims = Space(space)
    def objective(point):
        x,y = dims.unit(point)
        return bad if x>.5 else (x-.6)**2+(y-.3)**2
    history = [anneal(objective, space, 60, seed=seed, screen=screen).history.energy for seed in range(3)]
    assert np.mean([~np.isfinite(energies[20:]) for energies in history])<=.1

def test_a_discrete_walk_fails_once_at_each_point():
    energies = anneal(lambda p: math.nan if p['a']==1 else p['b'], {'a': LinInt(0,1), 'b': LinInt(0,15)}, 80, seed=0).history
    assert energies[energies.energy.isna()].b.is_unique
