"Moves: symmetric proposals, Boltzmann's distribution, exchange, bowls"
import math
import numpy as np,pytest
from hypothesis import given,settings,strategies as st
from scipy.stats import chisquare
from fastai_anneal.annealing.accept import *
from fastai_anneal.annealing.moves import *
from fastai_anneal.annealing.space import *

NESTED = {'opt': Categorical({'sgd': {'mom': LinFloat(0,.99)}, 'adam': {'beta': LinFloat(.9,.999), 'w': {'x': LinInt(1,3)}}}),
          'lr': LogFloat(1e-4,1), 'v': Vector((2,3)), 'k': 5}

@given(st.lists(st.floats(-5,5), min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_reflect(us):
    us = np.array(us)
    inside = reflect(us)
    assert ((inside>=0)&(inside<=1)).all()
    np.testing.assert_allclose(reflect(-us), inside, atol=1e-12)
    np.testing.assert_allclose(reflect(us+2), inside, atol=1e-9)

def walk(energy, dim, temps, n, propose=None, width=.35, accept=metropolis, swap=None, seed=1):
    "The values that walks at constant temperatures visit, neighbours of which exchange their states after each step"
    space,rng,propose = Space(dim),np.random.default_rng(seed),propose or Gaussian()
    us,visited = [rng.random(space.n) for _ in temps],[]
    for step in range(n):
        for k,temp in enumerate(temps):
            new = propose(space, us[k], rng, width)
            if rng.random()<accept_prob(accept, energy(space.value(new)), energy(space.value(us[k])), temp): us[k] = new
        for k in range(step%2, len(temps)-1, 2):
            energies = [energy(space.value(u)) for u in us[k:k+2]]
            if rng.random()<swap(energies, temps[k:k+2]): us[k:k+2] = us[k:k+2][::-1]
        visited.append([space.value(u) for u in us])
    return np.array(visited).T

def boltzmann_p(visited, energies, temp, mass=1.):
    "p of the hypothesis that every 20th value is distributed as Boltzmann says"
    weights = mass*np.exp(-np.array(energies)/temp)
    counts = np.bincount(visited[::20], minlength=len(energies))
    return chisquare(counts, weights/weights.sum()*counts.sum()).pvalue

E6 = [0.,1.,.3,2.,.5,.1]

@pytest.mark.parametrize('propose', [Gaussian(), Tsallis(2.), Tsallis(2.6)], ids=repr)
@pytest.mark.parametrize('dim', [LinInt(0,5), LogInt(1,6), Categorical(*range(6)), Categorical(*range(6), ordered=True)], ids=repr)
def test_boltzmann(propose, dim):
    first = dim.value(0.)
    mass = np.bincount([dim.value(u)-first for u in np.linspace(0,1,10001)[:-1]], minlength=6) # of each value in [0,1]
    visited = walk(lambda v: E6[v-first], dim, [.7], 16000, propose)[0]-first
    assert boltzmann_p(visited, E6, .7, mass)>1e-4

@pytest.mark.parametrize('wrong', [dict(accept=lambda change,temp,se: 1. if change<=0 else math.exp(-change/temp)**1.5),
                                   dict(propose=Gaussian('clip'))], ids=['rule','clipping'])
def test_what_is_wrong_is_noticed(wrong):
    assert boltzmann_p(walk(lambda v: E6[v], LinInt(0,5), [.7], 16000, **wrong)[0], E6, .7)<1e-4

def test_penalty_corrects_noise():
    "With noise of known size the penalty method samples Boltzmann's distribution, and Metropolis does not"
    energies,temp,sd = np.array([0.,.6,1.2,1.8]),.6,.5
    boltzmann = np.exp(-energies/temp)/np.exp(-energies/temp).sum()
    def error(rule):
        rng,at,counts = np.random.default_rng(0),0,np.zeros(4)
        for _ in range(40000):
            new = (at+1+int(rng.random()*3))%4
            if rng.random()<rule(energies[new]-energies[at]+rng.normal(0, sd), temp, sd): at = new
            counts[at] += 1
        return abs(counts/counts.sum()-boltzmann).max()
    assert error(penalty)<.025 and error(metropolis)>.03

E5,TEMPS = [0.,3.,1.5,3.,.2],[.4,1.,3.]
def worst_p(swap):
    visited = walk(lambda v: E5[v], LinInt(0,4), TEMPS, 20000, width=.2, swap=swap, seed=0)
    return min(boltzmann_p(v, E5, temp) for v,temp in zip(visited, TEMPS))

def test_exchange_keeps_every_temperature_in_balance():
    assert worst_p(swap_prob)>1e-4
    assert worst_p(lambda energies,temps: .5)<1e-4 # exchanging blindly is noticed

def test_exchange_carries_the_cold_walk_over_a_barrier():
    energies = [0.]+[8.]*5+[0.] # two holes, which at temperature .5 a walk of single steps alone never leaves
    def left_right(space, u, rng, width): return np.array([(min(max(int(u[0]*7)+rng.integers(0,2)*2-1, 0), 6)+.5)/7])
    def crossings(temps):
        cold = walk(lambda v: energies[v], LinInt(0,6), temps, 6000, left_right, swap=swap_prob, seed=0)[0]
        return (np.diff(cold[np.isin(cold, (0,6))])!=0).sum()
    assert crossings([.5])==0 and crossings([.5,1.5,4.,12.])>20

@pytest.mark.parametrize('energies,temps,p', [((2,1),(1,3),1), ((1,2),(1,3),math.exp(-2/3)), ((1,2),(0,1),0), ((2,1),(0,1),1),
    ((math.nan,1),(1,2),0), ((math.inf,1),(1,2),1), ((1,math.inf),(1,2),0), ((math.inf,math.inf),(1,2),1)])
def test_swap_prob(energies, temps, p): assert swap_prob(energies, temps)==pytest.approx(p)

def test_clipping_stays_on_the_border():
    us = Gaussian('clip')(Space(LinFloat(0,1)), np.full((1000,1), .05), np.random.default_rng(0), .2)
    assert .2<(us==0).mean()<.6 and us.max()<=1

@pytest.mark.parametrize('n', [1,2,5])
def test_bowl(n):
    rng = np.random.default_rng(n)
    Q = np.linalg.qr(rng.standard_normal((n,n)))[0]
    H,bottom = Q@np.diag(10.**np.linspace(0,2,n))@Q.T,rng.uniform(.3,.7,n)
    us = bottom+rng.normal(0,.1,(3*(n+1)*(n+2),n))
    es = np.einsum('ij,jk,ik->i', us-bottom, H, us-bottom)
    us,es = us[es.argsort()],np.sort(es)
    space = Space({f'x{i}': LinFloat(0,1) for i in range(n)})
    assert abs(move_bowl(fit_bowl(space, us, es), rng)-bottom).max()<.05
    hill = move_bowl(fit_bowl(space, us[::-1], -es[::-1]), rng) # bends down everywhere: as far downhill as it may go
    assert ((hill>=0)&(hill<=1)).all()

@pytest.mark.parametrize('move', [move_all,move_one])
def test_moves_stay_where_they_may(move):
    space,rng = Space(NESTED),np.random.default_rng(0)
    u = rng.random(space.n)
    for _ in range(300):
        new,active = move(space, u, rng, .5),space.active(u)
        assert ((new>=0)&(new<=1)).all() and (new[~active]==u[~active]).all()
        if move is move_one: assert (new!=u).sum()==1
        u = new

def test_neighbours_of_many_points():
    space,rng = Space({'x': LinFloat(0,1), 'c': Categorical('a','b','c'), 'y': LinFloat(0,1)}),np.random.default_rng(0)
    us,best = np.tile([.5,.5,.5], (500,1)),rng.random((6,3))
    for between in (0.,1.):
        near = neighbours(space, us, rng, np.full(500,.1), best, between)
        assert near.shape==us.shape and ((near>=0)&(near<=1)).all() and (near!=us).any(1).mean()>.8
    assert abs(neighbours(space, us, rng, np.full(500,1e-3), best, 0.)[:,[0,2]]-.5).max()<.01

@pytest.mark.parametrize('make,msg', [(lambda: Tsallis(3), 'between 1 and 3'), (lambda: Gaussian('wrap'), "bounds='wrap'"),
                                      (lambda: AdaptiveT(-1.), 'start=-1'), (lambda: AdaptiveT(speed=0), 'speed=0')])
def test_bad_input(make, msg):
    with pytest.raises(ValueError, match=msg): make()
