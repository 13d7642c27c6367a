"Contracts and faults of the annealer"
import json,math,pickle
import numpy as np,pytest
from hypothesis import given,settings,strategies as st
from fastai_anneal.anneal import *

DIMS = [Float(-3,5), LogFloat(1e-5,10), Int(-2,7), LogInt(1,1000), Categorical('a','b','c'), Categorical(1,2,3,ordered=True), Bool()]
NESTED = {'opt': Categorical({'sgd': {'mom': Float(0,.99)}, 'adam': {'beta': Float(.9,.999), 'w': {'x': Int(1,3)}}}), 'lr': LogFloat(1e-4,1), 'v': Vector((2,3)), 'k': 5}
MIXED = {'lr': LogFloat(1e-5,1), 'layers': Int(1,5), 'act': Categorical('relu','gelu','tanh'), 'bn': Bool()}
def obj(p): return (math.log10(p['lr'])+2.5)**2+(p['layers']-3)**2/4+dict(relu=.2,gelu=0.,tanh=.5)[p['act']]+.1*p['bn']
class Tour:
    def __init__(self, order): self.order = list(order)
    def propose(self, rng, width):
        i,j = sorted(rng.choice(len(self.order)+1, 2, replace=False))
        return Tour(self.order[:i]+self.order[i:j][::-1]+self.order[j:])
PTS = np.exp(2j*np.pi*np.arange(12)/12)
def length(t): p = PTS[t.order]; return float(abs(p-np.roll(p, 1)).sum())
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
    (lambda: Geometric(1,2), 'hotter'), (lambda: Geometric(1,factor=2,n=5), 'factor=2'), (lambda: Geometric(1,factor=.9), 'give `n`'), (lambda: Tsallis(3), 'between 1 and 3'), (lambda: PowSpace(1,0,0), 'factor=0'),
    (lambda: Annealer(Float(0,1), 5, n_chains=0), 'n_chains=0'), (lambda: Annealer(Float(0,1), 5, ladder=.5), 'ladder=0.5'), (lambda: Annealer(Float(0,1), 5, reeval=1), 'reeval=1'),
    (lambda: Annealer(Float(0,1), 5, moves='some'), "'bowl'"), (lambda: Annealer(Float(0,1), 5, moves=()), "'bowl'"), (lambda: Gaussian('wrap'), "bounds='wrap'"), (lambda: Annealer(Float(0,1), 2.5), 'n_iter=2.5'),
    (lambda: Space([Float(0,1)]), 'is not a space'), (lambda: Space({'a': Float(0,1), 'k': Categorical({'x': {'a': Int(0,3)}, 'y': {}})}), "two parameters 'a'"),
    (lambda: Space({'a': Categorical(math.sin, math.cos)}).to_json(), 'give the choices names'), (lambda: Space.from_json('{"type": "Foo"}'), 'Foo'), (lambda: Space.from_json('x'), 'not the JSON'),
    (lambda: anneal(lambda p: None, Float(0,1), 5), 'not None'), (lambda: anneal(lambda p: (1,2,3), Float(0,1), 5), 'standard error'), (lambda: anneal(lambda p: (1,-1), Float(0,1), 5), 'se=-1'),
    (lambda: Annealer(Float(0,1), 5, width=.2), 'width=0.2'), (lambda: Annealer(Float(0,1), 5, p0=2), 'p0=2'), (lambda: Annealer(Float(0,1), 5, reheat=-1), 'reheat=-1'), (lambda: Annealer(Float(0,1), 5, n_init=0), 'n_init=0'),
    (lambda: Annealer(Float(0,1), 5, schedule=3), 'schedule=3'), (lambda: Annealer(Float(0,1), 5, accept=.1), 'accept=0.1'), (lambda: Annealer(Float(0,1), 5, n_screen=0), 'n_screen=0'),
    (lambda: Annealer(Float(0,1), 5).load_state_dict({}), 'no state'), (lambda: Annealer(MIXED, 5).load_state_dict(tells(Annealer(Float(0,1), 5), lambda p: p, 2).state_dict()), '1 coordinates'),
    (lambda: Reheat(3), 'not a temperature'), (lambda: Reheat(Geometric(1,.1), n=0), 'n=0'), (lambda: ShapeT(3), 'not a shape'), (lambda: Annealer(Tour(range(4)), 5, screen='gp'), 'space of dimensions')])
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

@pytest.mark.parametrize('kw', [{}, dict(energy='raw'), dict(schedule=AdaptiveT(1.), energy='raw'), dict(propose=Cauchy()), dict(moves='all', adapt=False, reheat=0), dict(schedule=Reheat(Geometric(.1,.001))), dict(n_chains=3, energy='raw'), dict(n_chains=4), dict(reeval=.2)], ids=str)
@pytest.mark.parametrize('f', [obj, lambda p: math.nan, lambda p: math.inf, lambda p: -math.inf, lambda p: 1., lambda p: math.nan if p['bn'] else obj(p)])
def test_any_objective(f, kw):
    a = anneal(f, MIXED, 40, seed=0, **kw)
    h = a.history
    assert len(h)==40 and not h.accepted[~(h.energy<math.inf)].any()
    assert (a.best is None)==(not (h.energy<math.inf).any())
    if a.best is not None and 'reeval' not in kw: assert a.best_energy==h.energy.min()
    for p in h.to_dict('records'): Space(MIXED).check({k:p[k] for k in MIXED})

@pytest.mark.parametrize('kw', [{}, dict(energy='raw'), dict(schedule=AdaptiveT()), dict(screen='gp'), dict(n_chains=3), dict(n_chains=2, screen='gp'), dict(reeval=.3), dict(moves='all', adapt=False)], ids=str)
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

def boltzmann(E, T): w = np.exp(-np.asarray(E)/T); return w/w.sum()

def exchanged(swap):
    from scipy.stats import chisquare
    E,Ts = [0.,3.,1.5,3.,.2],[.4,1.,3.]
    ws = tempered_walk(lambda v: E[v], Int(0,4), Ts, 30000, width=.2, swap=swap, seed=0)
    return [chisquare(np.bincount(w[::20], minlength=5), boltzmann(E, T)*len(w[::20])).pvalue for w,T in zip(ws, Ts)]

def test_exchange_keeps_every_temperature_in_balance():
    assert min(exchanged(swap_prob))>1e-4
    assert min(exchanged(lambda e1,e2,t1,t2: .5))<1e-4 # exchanging blindly is noticed

def test_exchange_carries_the_cold_walk_over_a_barrier():
    E = [0.]+[8.]*5+[0.] # two holes, which at temperature .5 a walk of single steps alone never leaves
    prop = lambda sp,u,rng,w: np.array([(min(max(int(u[0]*7)+rng.integers(0,2)*2-1, 0), 6)+.5)/7])
    crossings = lambda Ts: int((np.abs(np.diff([v for v in tempered_walk(lambda v: E[v], Int(0,6), Ts, 6000, prop, seed=0)[0] if E[v]==0]))>0).sum())
    assert crossings([.5])==0 and crossings([.5,1.5,4.,12.])>20

def test_swap_prob():
    assert swap_prob(2,1,1,3)==1 and swap_prob(1,2,1,3)==pytest.approx(math.exp(-2/3)) and swap_prob(1,2,0,1)==0 and swap_prob(2,1,0,1)==1
    assert swap_prob(math.nan,1,1,2)==0 and swap_prob(math.inf,1,1,2)==1 and swap_prob(1,math.inf,1,2)==0 and swap_prob(math.inf,math.inf,1,2)==1

def test_chains():
    a = anneal(obj, MIXED, 121, n_chains=3, ladder=2., reheat=0, seed=0); h = a.history
    assert h.chain.tolist()==[i%3 for i in range(121)] and 0<a.swaps[0]<=a.swaps[1]
    t = h.temp[h.i>=9].values[:111].reshape(-1,3)
    assert (t[:,0]<t[:,1]).all() and (t[:,1]<t[:,2]).all()
    assert t[5,1]/t[5,0]==pytest.approx(2, rel=.1)

def test_no_point_of_a_discrete_space_twice():
    sp = {'a': Int(1,4), 'b': Categorical('x','y','z')}
    for kw in ({}, dict(screen='gp'), dict(n_chains=2), dict(energy='raw')):
        h = anneal(lambda p: abs(p['a']-3)+(p['b']!='y'), sp, 12, seed=0, **kw).history
        assert len(h[['a','b']].drop_duplicates())==12
    assert len(anneal(lambda p: p['a'], sp, 20, seed=0).history)==20 # more evaluations than points is no trouble
    cond = {'opt': Categorical({'sgd': {'nesterov': Bool()}, 'adam': {}}), 'n': Int(1,2)}
    h = anneal(lambda p: p['n'], cond, 6, seed=0).history
    assert len(h[['opt','nesterov','n']].astype(str).drop_duplicates())==6

def noisy(f, sd, seed, give_se):
    rng = np.random.default_rng(seed)
    def g(p): e = f(p)+rng.normal(0, sd); return (e,sd) if give_se else e
    return g

def test_reevaluation():
    a = anneal(noisy(obj, .3, 0, True), MIXED, 50, seed=0); h = a.history # a standard error turns it on
    assert (h.move[:40]!='repeat').all() and (h.move[40:]=='repeat').all() and h.of[:40].isna().all() and not h.accepted[40:].any()
    for i,k in h.of[40:].items(): assert MIXED.keys()==a.best.keys() and h.lr[i]==h.lr[k] and k<40
    assert anneal(obj, MIXED, 50, seed=0).history.of.isna().all()
    assert (anneal(noisy(obj, .3, 0, True), MIXED, 50, seed=0, reeval=0).history.move!='repeat').all()

def test_reevaluation_finds_better_and_knows_how_good():
    true,said = {},{}
    for share in (0.,.3):
        rs = [anneal(noisy(obj, .3, s, False), MIXED, 100, seed=s, reeval=share) for s in range(30)]
        true[share],said[share] = np.mean([obj(r.best) for r in rs]),np.mean([r.best_energy-obj(r.best) for r in rs])
    assert true[.3]<true[0.] and said[0.]<-.5 and abs(said[.3])<.2 # without, the winner is a lucky draw

def test_posterior():
    m,v = posterior([0.,0.,2.], [1e-12,1.,1e12], 2., 1.)
    np.testing.assert_allclose(m, [0.,1.,2.], atol=1e-9); np.testing.assert_allclose(v, [0.,.5,1.], atol=1e-9)

def test_standard_errors_make_it_careful():
    up = {}
    for se in (0.,.5):
        a = anneal(lambda p: (obj(p),se), MIXED, 300, seed=0, reeval=0, schedule=Geometric(.3,.2)); h = a.history[a.n_init:]
        up[se] = h.p[h.p<1].mean()
    assert up[.5]<.8*up[0.]

def test_acceptance_by_temperature():
    a = anneal(obj, MIXED, 400, seed=0, energy='raw', moves='all', adapt=False, reheat=0)
    t = a.acceptance(5)
    assert t.n.sum()==400-a.n_init and (np.diff(t.temp)<0).all() and t.accepted.iloc[0]>t.accepted.iloc[-1]+.2 and t.accepted_up.iloc[0]>t.accepted_up.iloc[-1]
    assert len(anneal(obj, MIXED, 2, seed=0, n_init=2).acceptance())==0

def test_clipping_is_offered_and_is_not_symmetric():
    from scipy.stats import chisquare
    s,rng = Space(Float(0,1)),np.random.default_rng(0)
    us = np.array([Gaussian('clip')(s, np.array([.05]), rng, .2)[0] for _ in range(1000)])
    assert .2<(us==0).mean()<.6 and us.max()<=1
    E = np.zeros(6)
    vs = metropolis_walk(lambda v: 0., Int(0,5), .7, 24000, Gaussian('clip'), .35, seed=1)[::20]
    assert chisquare(np.bincount(vs, minlength=6)).pvalue<1e-4

def test_bowl():
    rng = np.random.default_rng(0)
    for n in (1,2,5):
        Q = np.linalg.qr(rng.standard_normal((n,n)))[0]; H = Q@np.diag(10.**np.linspace(0,2,n))@Q.T; c = rng.uniform(.3,.7,n)
        us = c+rng.normal(0,.1,(3*(n+1)*(n+2),n)); es = np.einsum('ij,jk,ik->i', us-c, H, us-c); ix = es.argsort()
        sp = Space({f'x{i}': Float(0,1) for i in range(n)})
        o,s,V,h,g = fit_bowl(sp, us[ix], es[ix])
        np.testing.assert_allclose(o-s*(V@(g/h)), c, atol=1e-4)
        assert abs(move_bowl(sp, (o,s,V,h,g), rng)-c).max()<.05
    hill = move_bowl(sp, fit_bowl(sp, us[ix[::-1]], -es[ix[::-1]]), rng) # bends down everywhere: as far downhill as it may go, inside the walls
    assert ((hill>=0)&(hill<=1)).all()
    assert neighbour(sp, us[0], rng, 'bowl', best=(us[:3],es[:3])).shape==(5,) # too few points

@pytest.mark.parametrize('move', ['all','one'])
def test_moves_stay_where_they_may(move):
    s,rng = Space(NESTED),np.random.default_rng(0); u = s.sample(rng)
    for _ in range(300):
        r = neighbour(s, u, rng, move, .5)
        assert ((r>=0)&(r<=1)).all() and (r[~s.active(u)]==u[~s.active(u)]).all()
        if move=='one': assert (r!=u).sum()==1
        u = r

def test_gp_gradient_and_prediction():
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel,Matern,WhiteKernel
    rng = np.random.default_rng(0); X = rng.random((25,3)); y = np.sin(5*X[:,0])+X[:,1]**2; y = (y-y.mean())/y.std()
    t = np.array([-.3,.2,.5,.1,-3.]); g = GP(X, y, t, 0); g._distances()
    num = [(g._loss(t+e)[0]-g._loss(t-e)[0])/2e-5 for e in np.eye(5)*1e-5]
    np.testing.assert_allclose(g._loss(t)[1], num, rtol=1e-4, atol=1e-6)
    sk = GaussianProcessRegressor(ConstantKernel(math.exp(.1))*Matern(np.exp(t[:3]), nu=2.5)+WhiteKernel(math.exp(-3.)), optimizer=None).fit(X, y)
    Z = rng.random((10,3)); m,s = g.predict(Z); m2,s2 = sk.predict(Z, return_std=True)
    np.testing.assert_allclose(m, m2, atol=1e-5); np.testing.assert_allclose(s**2+math.exp(-3.), s2**2, atol=1e-5)
    fit = GP(X, y); assert np.abs(fit.predict(X)[0]-y).max()<.2 and fit._loss is not None

def test_screened_is_pure_and_takes_anything():
    s,rng = Space(NESTED),np.random.default_rng(0)
    us = [s.sample(rng) for _ in range(8)]
    for es in (rng.random(8), np.ones(8), [math.inf]*8, [1.,math.inf]*4):
        a,b = (screened(s, us, es, np.random.default_rng(3), n_screen=40)[0] for _ in range(2))
        np.testing.assert_array_equal(a, b); s.check(s.value(a))

def test_screening_is_worth_it():
    best = {c:np.median([anneal(obj, MIXED, 20, seed=s, screen=c).best_energy for s in range(9)]) for c in (None,'gp')}
    assert best['gp']<best[None]

def test_own_state():
    start = Tour(np.random.default_rng(0).permutation(12))
    for kw in ({}, dict(n_chains=3), dict(energy='raw')):
        a = anneal(length, start, 1500, seed=0, **kw)
        assert a.best_energy==pytest.approx(length(Tour(range(12))), rel=.1)
        b = tells(Annealer(start, 60, seed=1, **kw), length, 30); sd = pickle.loads(pickle.dumps(b.state_dict()))
        c = tells(Annealer(start, 60, **kw).load_state_dict(sd), length, 30); tells(b, length, 30)
        np.testing.assert_array_equal(b.history.energy, c.history.energy)
    assert a.space.spec is start and len(a.plot())==3

def test_image_of_784_numbers():
    import torch
    goal = torch.linspace(0, 1, 784, dtype=torch.float64).reshape(28,28)
    f = lambda v: float(((v-goal)**2).mean())
    a = anneal(f, Vector((28,28), tensor=True), 1500, seed=0)
    assert a.best.shape==(28,28) and isinstance(a.best, torch.Tensor) and a.best_energy<.75*a.history.energy[0]

def test_shapes_of_learning_rates_are_temperatures():
    from fastai_anneal.schedule import ShapeCos,ShapeWarm,ShapeNo
    sh = ShapeWarm(.1,1.,length='20%') >> ShapeCos(1.,.01)
    t = ShapeT(sh, 2., n=100)
    np.testing.assert_allclose([t(k/99) for k in range(100)], 2*sh.values(1, 100))
    assert pickle.loads(pickle.dumps(t))(.5)==t(.5)
    h = anneal(obj, MIXED, 60, schedule=sh, seed=0).history # its values multiply the start temperature
    assert h.temp.max()==pytest.approx(.1, rel=.1) and h.temp.iloc[-1]<.01
    assert anneal(obj, MIXED, 60, schedule=sh*.5, energy='raw', seed=0).best is not None

def test_pickles_whole():
    a = tells(Annealer(MIXED, 40, seed=0, n_chains=2), obj, 20); b = pickle.loads(pickle.dumps(a))
    assert tells(a, obj, 20).history.energy.tolist()==tells(b, obj, 20).history.energy.tolist()

def test_interrupt_keeps_what_there_is(capsys):
    def f(p):
        if len(seen)==7: raise KeyboardInterrupt
        seen.append(p); return obj(p)
    seen = []
    assert len(anneal(f, MIXED, 50, seed=0).history)==7 and 'interrupted after 7 of 50' in capsys.readouterr().out

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
