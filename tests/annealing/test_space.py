"Spaces: what a dimension promises, nested and conditional spaces, JSON, wrong input"
import json,math,pickle
import numpy as np,pytest
from fastai_anneal.annealing.space import *

DIMS = [LinFloat(-3,5), LogFloat(1e-5,10), LinInt(-2,7), LogInt(1,1000), Categorical('a','b','c'),
        Categorical(1,2,3,ordered=True), Bool()]
NESTED = {'opt': Categorical({'sgd': {'mom': LinFloat(0,.99)}, 'adam': {'beta': LinFloat(.9,.999), 'w': {'x': LinInt(1,3)}}}),
          'lr': LogFloat(1e-4,1), 'v': Vector((2,3)), 'k': 5}

@pytest.mark.parametrize('dim', DIMS, ids=str)
def test_dim(dim):
    for u in np.random.default_rng(0).random(300):
        value = dim.value(u)
        assert dim.check(value)==value and 0<=dim.unit(value)<=1
        assert dim.value(dim.unit(value))==(pytest.approx(value) if isinstance(value, float) else value)
    first,last = (dim.lo,dim.hi) if hasattr(dim, 'lo') else (dim.choices[0],dim.choices[-1])
    assert dim.value(0.)==first and dim.value(1.)==(pytest.approx(last) if isinstance(last, float) else last)
    assert Space.from_json(json.dumps(json.loads(Space({'d':dim}).to_json())))==Space({'d':dim})
    assert pickle.loads(pickle.dumps(dim))==dim

@pytest.mark.parametrize('make,msg', [
    (lambda: LinFloat(1,1), 'must be below'), (lambda: LogFloat(-1,1), 'above 0'), (lambda: LogInt(0,5), 'above 0'),
    (lambda: LinInt(1.,2), 'whole'), (lambda: LinFloat('a',1), 'finite'), (lambda: LinFloat(0,math.inf), 'finite'),
    (lambda: Categorical(), 'two'), (lambda: Categorical(1,1), 'twice'), (lambda: Vector(0), 'shape'),
    (lambda: Space({'a': LinFloat}), 'a: .* is not a space'), (lambda: Space({1: LinFloat(0,1)}), '1: the names'),
    (lambda: Space([LinFloat(0,1)]), 'is not a space'),
    (lambda: Space({'a': LinFloat(0,1), 'k': Categorical({'x': {'a': LinInt(0,3)}, 'y': {}})}), "two parameters 'a'"),
    (lambda: Space({'a': Categorical(math.sin, math.cos)}).to_json(), 'give the choices names'),
    (lambda: Space.from_json('{"type": "Foo"}'), 'Foo'), (lambda: Space.from_json('x'), 'not the JSON'),
    (lambda: LinInt(0,3).check(4), '4 is not in'), (lambda: Space(LinFloat(0,1)).check(2), '2 is not in')])
def test_bad_input(make, msg):
    with pytest.raises(ValueError, match=msg): make()

def test_nested():
    space,rng = Space(NESTED),np.random.default_rng(0)
    for _ in range(100):
        value = space.value(rng.random(space.n))
        is_adam = value['opt']=='adam'
        assert ('mom' in value)!=is_adam and ('w' in value)==('beta' in value)==is_adam
        assert value['k']==5 and value['v'].shape==(2,3)
        again = space.value(space.unit(value))
        assert again['opt']==value['opt'] and again['lr']==pytest.approx(value['lr'])
        np.testing.assert_allclose(again['v'], value['v'])
    assert Space.from_json(space.to_json())==space

def test_active_and_keys_of_many_points():
    space,rng = Space(NESTED),np.random.default_rng(0)
    us = rng.random((50,space.n))
    np.testing.assert_array_equal(space.active(us), [space.active(u) for u in us])
    u = us[0].copy()
    u[~space.active(u)] += .01 # what does not count makes no other point
    assert space.keys([u])==space.keys([us[0]]) and len(set(space.keys(us)))==50

def test_stratified_has_a_point_in_every_slice():
    us = Space(NESTED).stratified(np.random.default_rng(0), 7)
    assert (np.sort((us*7).astype(int), 0)==np.arange(7)[:,None]).all()

def test_names_do_not_hide_those_of_fastcore():
    import fastcore.all,fastai_anneal.annealing.space as mine
    assert not [name for name in mine.__all__ if hasattr(fastcore.all, name)]

@pytest.mark.parametrize('dim', [LogFloat(1e-160,1e160), LogFloat(5e-324,1.7e308), LinInt(0,2**63), LinInt(2**62,2**62+3),
    LogInt(1,10**300), LinFloat(0,5e-324), LinFloat(1,1+3e-16), LogFloat(1,1+3e-16)], ids=lambda dim: f'{dim!r:.40}')
def test_extreme_ranges_work(dim):
    us = np.linspace(0, 1, 101)
    values = [dim.value(float(u)) for u in us]
    assert values==sorted(values) and values[0]==dim.lo and all(dim.check(v)==v for v in values)
    assert len(set(values))==101 if dim.hi>1e9*max(dim.lo, 1) else len(set(values))<=4
    assert all(0<=dim.unit(v)<=1 for v in values)
    assert Space({'x': dim}).snapped(us[:,None]).min()>=0

@pytest.mark.parametrize('make', [lambda: LinFloat(-1e308,1e308), lambda: LinFloat(0,10**400), lambda: LogFloat(1,10**400),
    lambda: LinInt(0,10**400), lambda: LogInt(1,10**400), lambda: LogInt(2**60,2**60+1), lambda: Vector(3,-1e308,1e308)])
def test_ranges_that_no_float_can_hold_are_refused(make):
    with pytest.raises(ValueError, match='too wide or narrow a range'): make()
