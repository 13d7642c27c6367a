"Contracts and faults of the annealer"
import json,math,pickle
import numpy as np,pytest
from hypothesis import given,settings,strategies as st
from fastai_anneal.anneal import *

DIMS = [Float(-3,5), LogFloat(1e-5,10), Int(-2,7), LogInt(1,1000), Categorical('a','b','c'), Categorical(1,2,3,ordered=True), Bool()]
NESTED = {'opt': Categorical({'sgd': {'mom': Float(0,.99)}, 'adam': {'beta': Float(.9,.999), 'w': {'x': Int(1,3)}}}), 'lr': LogFloat(1e-4,1), 'v': Vector((2,3)), 'k': 5}
MIXED = {'lr': LogFloat(1e-5,1), 'layers': Int(1,5), 'act': Categorical('relu','gelu','tanh'), 'bn': Bool()}
def obj(p): return (math.log10(p['lr'])+2.5)**2+(p['layers']-3)**2/4+dict(relu=.2,gelu=0.,tanh=.5)[p['act']]+.1*p['bn']
def tells(a, f, n):
    for _ in range(n): a.tell(f(a.ask()))
    return a

@pytest.mark.parametrize('d', DIMS, ids=str)
def test_dim(d):
    rng = np.random.default_rng(0)
    vs = [d.sample(rng) for _ in range(300)]
    for v in vs:
        assert d.check(v)==v and 0<=d.unit(v)<=1
        assert d.value(d.unit(v))==(pytest.approx(v) if isinstance(v, float) else v)
        assert d.distance(v, v)==0
    assert d.value(0.)==(getattr(d, 'lo', None) if hasattr(d, 'lo') else d.choices[0])
    assert d.value(1.)==pytest.approx(d.hi) if hasattr(d, 'hi') else d.value(1.)==d.choices[-1]
    assert Space.from_json(json.dumps(json.loads(Space({'d':d}).to_json())))==Space({'d':d})
    assert pickle.loads(pickle.dumps(d))==d

@pytest.mark.parametrize('f,msg', [
    (lambda: Float(1,1), 'has to be below'), (lambda: LogFloat(-1,1), 'above 0'), (lambda: LogInt(0,5), 'above 0'), (lambda: Int(1.,2), 'whole'), (lambda: Float('a',1), 'finite'),
    (lambda: Float(0,math.inf), 'finite'), (lambda: Categorical(), 'two'), (lambda: Categorical(1,1), 'twice'), (lambda: Vector(0), 'shape'), (lambda: Space({'a': Float}), 'not a space'),
    (lambda: Space({1: Float(0,1)}), 'named by strings'), (lambda: Annealer(Float(0,1), 0), 'n_iter=0'), (lambda: Annealer(Float(0,1), 5, energy='x'), "energy='x'"),
    (lambda: Annealer(Float(0,1), 5, start=3.), 'not in'), (lambda: Annealer(Float(0,1), 5, screen='rf'), "screen='rf'"), (lambda: Annealer(Float(0,1), 5).tell(1), 'call `ask`'),
    (lambda: Geometric(1,2), 'hotter'), (lambda: Geometric(1,factor=2,n=5), 'factor=2'), (lambda: Geometric(1,factor=.9), 'give `n`'), (lambda: Tsallis(3), 'between 1 and 3'), (lambda: PowSpace(1,0,0), 'factor=0')])
def test_bad_input(f, msg):
    with pytest.raises(ValueError, match=msg): f()

def test_nested():
    s,rng = Space(NESTED),np.random.default_rng(0)
    for _ in range(100):
        v = s.value(s.sample(rng))
        assert ('mom' in v)==(v['opt']=='sgd') and ('w' in v)==('beta' in v)==(v['opt']=='adam') and v['k']==5 and v['v'].shape==(2,3)
        w = s.value(s.unit(v))
        assert w['opt']==v['opt'] and w['lr']==pytest.approx(v['lr']); np.testing.assert_allclose(w['v'], v['v'])
    assert Space.from_json(s.to_json())==s

@given(st.lists(st.floats(-5,5), min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_reflect(us):
    r = reflect(np.array(us))
    assert ((r>=0)&(r<=1)).all()
    np.testing.assert_allclose(reflect(-np.array(us)), r, atol=1e-12); np.testing.assert_allclose(reflect(np.array(us)+2), r, atol=1e-9)

@pytest.mark.parametrize('propose', [Gaussian(), Cauchy(), Tsallis(2.6)], ids=repr)
@pytest.mark.parametrize('space', [Int(0,5), LogInt(1,6), Categorical(*range(6)), Categorical(*range(6), ordered=True)], ids=repr)
def test_boltzmann(propose, space):
    from scipy.stats import chisquare
    E = [0.,1.,.3,2.,.5,.1]; off = 1 if isinstance(space, LogInt) else 0
    us = np.linspace(0,1,100001)[:-1]
    mass = np.bincount([space.value(u)-off for u in us[::10]], minlength=6) # of each value in [0,1]
    w = mass*np.exp(-np.array(E)/.7)
    vs = np.array(metropolis_walk(lambda v: E[v-off], space, .7, 24000, propose, .35, seed=1)[::20])-off
    assert chisquare(np.bincount(vs, minlength=6), w/w.sum()*len(vs)).pvalue>1e-4

def test_a_wrong_rule_is_noticed():
    from scipy.stats import chisquare
    E = np.array([0.,1.,.3,2.,.5,.1]); w = np.exp(-E/.7)
    vs = metropolis_walk(lambda v: E[v], Int(0,5), .7, 24000, width=.4, accept=lambda de,t,se: 1. if de<=0 else math.exp(-de/t)**1.5, seed=1)[::20]
    assert chisquare(np.bincount(vs, minlength=6), w/w.sum()*len(vs)).pvalue<1e-4

def test_penalty_corrects_noise():
    "With noise of known size the penalty method samples Boltzmann's distribution, and Metropolis does not"
    E,T,sd = np.array([0.,.6,1.2,1.8]),.6,.5
    w = np.exp(-E/T); w /= w.sum()
    def err(rule):
        rng,i,c = np.random.default_rng(0),0,np.zeros(4)
        for _ in range(60000):
            j = (i+1+int(rng.random()*3))%4
            de = E[j]-E[i]+rng.normal(0, sd)
            if rng.random()<rule(de, T, sd): i = j
            c[i] += 1
        return abs(c/c.sum()-w).max()
    assert err(penalty)<.02 and err(metropolis)>.03

@pytest.mark.parametrize('kw', [{}, dict(energy='raw'), dict(schedule=AdaptiveT(1.), energy='raw'), dict(propose=Cauchy()), dict(moves='all', adapt=False, reheat=0), dict(schedule=Reheat(Geometric(.1,.001)))], ids=str)
@pytest.mark.parametrize('f', [obj, lambda p: math.nan, lambda p: math.inf, lambda p: -math.inf, lambda p: 1., lambda p: math.nan if p['bn'] else obj(p)])
def test_any_objective(f, kw):
    a = anneal(f, MIXED, 40, seed=0, **kw)
    h = a.history
    assert len(h)==40 and not h.accepted[~(h.energy<math.inf)].any()
    assert (a.best is None)==(not (h.energy<math.inf).any())
    if a.best is not None: assert a.best_energy==h.energy.min()
    for p in h.to_dict('records'): Space(MIXED).check({k:p[k] for k in MIXED})

@pytest.mark.parametrize('kw', [{}, dict(energy='raw'), dict(schedule=AdaptiveT()), dict(screen='gp')], ids=str)
def test_continues_bit_for_bit(kw):
    n = 25 if kw.get('screen') else 80
    a,b = tells(Annealer(MIXED, n, seed=3, **kw), obj, n),tells(Annealer(MIXED, n, seed=3, **kw), obj, n//2)
    sd = pickle.loads(pickle.dumps(b.state_dict()))
    tells(b, obj, 3)
    c = tells(Annealer(MIXED, n, **kw).load_state_dict(sd), obj, n-n//2)
    np.testing.assert_array_equal(a.history.energy, c.history.energy)
    assert a.history.energy.tolist()!=tells(Annealer(MIXED, n, seed=4, **kw), obj, n).history.energy.tolist()

def test_global_rng_untouched():
    import random
    np.random.seed(0); random.seed(0); s = np.random.get_state()[1].copy(),random.getstate()
    anneal(obj, MIXED, 30, seed=0); anneal(obj, MIXED, 8, screen='gp')
    assert (np.random.get_state()[1]==s[0]).all() and random.getstate()==s[1]

def test_finds_on_functions_not_in_the_benchmark():
    styb = lambda v: sum(x**4-16*x**2+5*x for x in v.values())/2
    levy = lambda v: sum((x-1)**2*(1+10*math.sin(math.pi*x+1)**2) for x in v.values())
    for f,r,d in ((styb,5.,4),(levy,10.,4)):
        sp = {f'x{i}': Float(-r,r) for i in range(d)}
        ours = np.median([anneal(f, sp, 200, seed=s).best_energy for s in range(9)])
        rng = np.random.default_rng(0); rand = np.median([min(f(Space(sp).value(rng.random(d))) for _ in range(200)) for _ in range(9)])
        assert ours<rand

def test_callback_stops_and_interrupt_keeps():
    a = anneal(obj, MIXED, 50, seed=0, callback=lambda a: a.i==7)
    assert len(a.history)==7 and a.best is not None

def test_empty_and_fixed_spaces():
    assert anneal(lambda p: 1., {'a': 3}, 5, seed=0).best=={'a': 3}

@pytest.mark.parametrize('t', [Geometric(1,.01), Geometric(1,factor=.9,n=20), LinearT(1,0), PowSpace(1,0,3), LogarithmicT(1), CauchyT(1), Geometric()], ids=repr)
def test_temperatures_fall(t):
    ys = [t.started(2.)(p) for p in np.linspace(0,1,50)]
    assert all(a>=b>=0 for a,b in zip(ys,ys[1:])) and ys[0]==pytest.approx(t.start or 2.)
    assert pickle.loads(pickle.dumps(t))(.3)==pytest.approx(t(.3)) if t.start else True

def test_plot():
    import matplotlib; matplotlib.use('agg')
    assert len(anneal(obj, MIXED, 20, seed=0).plot())>=5
    assert Geometric(1,.1).plot() is not None
