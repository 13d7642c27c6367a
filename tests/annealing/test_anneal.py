"Contracts and faults of the annealer"
import copy,math,pickle
import numpy as np,pytest
from fastai_anneal.annealing.accept import AdaptiveT,metropolis,penalty
from fastai_anneal.annealing.anneal import anneal
from fastai_anneal.annealing.annealer import Annealer
from fastai_anneal.annealing.moves import Gaussian,Tsallis
from fastai_anneal.annealing.space import *
from fastai_anneal.annealing.walk import *
from fastai_anneal.schedule.shapes import ShapeCos,ShapeExp,ShapeFn,ShapeNo,ShapeWarm

MIXED = {'lr': LogFloat(1e-5,1), 'layers': LinInt(1,5), 'act': Categorical('relu','gelu','tanh'), 'bn': Bool()}
def loss(p): return (math.log10(p['lr'])+2.5)**2+(p['layers']-3)**2/4+dict(relu=.2,gelu=0.,tanh=.5)[p['act']]+.1*p['bn']

POINTS = np.exp(2j*np.pi*np.arange(12)/12)
class Tour:
    "The order in which to visit points; a neighbour reverses a piece of it"
    def __init__(self, order): self.order = list(order)
    def propose(self, rng, width):
        i,j = sorted(rng.choice(len(self.order)+1, 2, replace=False))
        return Tour(self.order[:i]+self.order[i:j][::-1]+self.order[j:])
def length(tour):
    points = POINTS[tour.order]
    return float(abs(points-np.roll(points, 1)).sum())

def run(annealer, f, n):
    for _ in range(n): annealer.tell(f(annealer.ask()))
    return annealer
def energies(annealer): return annealer.history.energy.tolist()

def noisy(f, sd, seed, give_se):
    rng = np.random.default_rng(seed)
    def g(p):
        energy = f(p)+rng.normal(0, sd)
        return (energy,sd) if give_se else energy
    return g

@pytest.mark.parametrize('kw,msg', [(dict(n_iter=0), 'n_iter=0'), (dict(n_iter=2.5), 'n_iter=2.5'), (dict(energy='x'), "energy='x'"),
    (dict(start=3.), 'not in'), (dict(screen='rf'), "screen='rf'"), (dict(n_chains=0), 'n_chains=0'), (dict(ladder=.5), 'ladder=0.5'),
    (dict(repeat=1), 'repeat=1'), (dict(moves='some'), "'bowl'"), (dict(moves=()), "'bowl'"), (dict(width=.2), 'width=0.2'),
    (dict(p0=2), 'p0=2'), (dict(reheat=-1), 'reheat=-1'), (dict(n_init=0), 'n_init=0'), (dict(schedule=3), 'schedule=3'),
    (dict(accept=.1), 'accept=0.1'), (dict(n_screen=0), 'n_screen=0'), (dict(propose=1), 'propose=1'),
    (dict(space=Tour(range(4)), screen='gp'), 'space of dimensions')])
def test_wrong_arguments(kw, msg):
    with pytest.raises(ValueError, match=msg): Annealer(**{**dict(space=LinFloat(0,1), n_iter=5), **kw})

@pytest.mark.parametrize('f,msg', [(lambda p: None, 'not None|energy=None'), (lambda p: (1,2,3), 'standard error'), (lambda p: (1,-1), 'se=-1')])
def test_wrong_objectives(f, msg):
    with pytest.raises(ValueError, match=msg): anneal(f, LinFloat(0,1), 5)

def test_wrong_order_and_states():
    with pytest.raises(ValueError, match='call `ask` first'): Annealer(LinFloat(0,1), 5).tell(1)
    with pytest.raises(ValueError, match='no state'): Annealer(LinFloat(0,1), 5).load_state_dict({})
    other = run(Annealer(LinFloat(0,1), 5), lambda p: p, 2).state_dict()
    with pytest.raises(ValueError, match='must be a dict'): Annealer(MIXED, 5).load_state_dict(other)

OPTIONS = [{}, dict(energy='raw'), dict(schedule=AdaptiveT(1.), energy='raw'), dict(propose=Tsallis(2.)), dict(moves='all', adapt=False, reheat=0),
           dict(schedule=ShapeExp(.1,.001).repeat(3)), dict(n_chains=3, energy='raw'), dict(n_chains=4), dict(repeat=.2), dict(screen='gp')]
OBJECTIVES = dict(loss=loss, nan=lambda p: math.nan, inf=lambda p: math.inf, low=lambda p: -math.inf, equal=lambda p: 1.,
                  some_nan=lambda p: math.nan if p['bn'] else loss(p))

@pytest.mark.parametrize('kw', OPTIONS, ids=str)
@pytest.mark.parametrize('name', OBJECTIVES)
def test_any_objective(name, kw):
    a = anneal(OBJECTIVES[name], MIXED, 40, seed=0, **kw)
    h = a.history
    assert len(h)==40 and not h.accepted[~(h.energy<math.inf)].any()
    assert (a.best is None)==(not (h.energy<math.inf).any())
    if a.best is not None and 'repeat' not in kw: assert a.best_energy==h.energy.min()
    for row in h.to_dict('records'): Space(MIXED).check({k:row[k] for k in MIXED})

@pytest.mark.parametrize('kw', [{}, dict(energy='raw'), dict(schedule=AdaptiveT()), dict(screen='gp'), dict(n_chains=3), dict(n_chains=2, screen='gp'),
                                dict(repeat=.3), dict(moves='all', adapt=False)], ids=str)
def test_continues_bit_for_bit(kw):
    n = 25 if kw.get('screen') else 80
    whole,half = run(Annealer(MIXED, n, seed=3, **kw), loss, n),run(Annealer(MIXED, n, seed=3, **kw), loss, n//2)
    state,copied = pickle.loads(pickle.dumps(half.state_dict())),pickle.loads(pickle.dumps(half))
    run(half, loss, 3) # the state does not notice
    again = run(Annealer(MIXED, n, **kw).load_state_dict(state), loss, n-n//2)
    assert energies(whole)==energies(again)==energies(run(copied, loss, n-n//2))
    assert energies(whole)!=energies(run(Annealer(MIXED, n, seed=4, **kw), loss, n))

def test_a_state_needs_no_picklable_functions():
    rule = lambda change,temp,se: metropolis(change, temp)
    a = run(Annealer(MIXED, 30, seed=0, accept=rule), loss, 15)
    b = Annealer(MIXED, 30, accept=rule).load_state_dict(pickle.loads(pickle.dumps(a.state_dict())))
    assert energies(run(a, loss, 15))==energies(run(b, loss, 15))

def test_global_rng_untouched():
    import random
    np.random.seed(0)
    random.seed(0)
    before = np.random.get_state()[1].copy(),random.getstate()
    anneal(loss, MIXED, 30, seed=0)
    anneal(loss, MIXED, 8, screen='gp')
    assert (np.random.get_state()[1]==before[0]).all() and random.getstate()==before[1]

@pytest.mark.parametrize('f,r', [(lambda x: (x**4-16*x**2+5*x).sum()/2, 5.), (lambda x: ((x-1)**2*(1+10*np.sin(np.pi*x+1)**2)).sum(), 10.)],
                         ids=['styblinski','levy'])
def test_finds_on_functions_not_in_the_benchmark(f, r):
    space = Space({f'x{i}': LinFloat(-r,r) for i in range(4)})
    def g(p): return float(f(np.array([*p.values()])))
    ours = np.median([anneal(g, space, 200, seed=s).best_energy for s in range(9)])
    us = np.random.default_rng(0).random((9,200,4))
    assert ours<np.median([min(g(space.value(u)) for u in run) for run in us])

def test_chains():
    a = anneal(loss, MIXED, 121, n_chains=3, ladder=2., reheat=0, seed=0)
    h = a.history
    assert h.chain.tolist()==[i%3 for i in range(121)] and 0<a.swaps[0]<=a.swaps[1]
    temps = h.temp[h.i>=9].values[:111].reshape(-1,3)
    assert (temps[:,0]<temps[:,1]).all() and (temps[:,1]<temps[:,2]).all() and temps[5,1]/temps[5,0]==pytest.approx(2, rel=.1)

@pytest.mark.parametrize('kw', [{}, dict(screen='gp'), dict(n_chains=2), dict(energy='raw')], ids=str)
def test_no_point_of_a_discrete_space_twice(kw):
    space = {'a': LinInt(1,4), 'b': Categorical('x','y','z')}
    h = anneal(lambda p: abs(p['a']-3)+(p['b']!='y'), space, 12, seed=0, **kw).history
    assert len(h[['a','b']].drop_duplicates())==12

def test_small_discrete_spaces():
    assert len(anneal(lambda p: p['a'], {'a': LinInt(1,4)}, 20, seed=0).history)==20 # more evaluations than points is no trouble
    space = {'opt': Categorical({'sgd': {'nesterov': Bool()}, 'adam': {}}), 'n': LinInt(1,2)}
    h = anneal(lambda p: p['n'], space, 6, seed=0).history
    assert len(h[['opt','nesterov','n']].astype(str).drop_duplicates())==6

def test_repeats():
    a = anneal(noisy(loss, .3, 0, True), MIXED, 50, seed=0) # a standard error turns them on
    h = a.history
    assert (h.move[:40]!='repeat').all() and (h.move[40:]=='repeat').all() and h.of[:40].isna().all() and not h.accepted[40:].any()
    for i,k in h.of[40:].items(): assert h.lr[i]==h.lr[k] and k<40
    assert anneal(loss, MIXED, 50, seed=0).history.of.isna().all()
    assert (anneal(noisy(loss, .3, 0, True), MIXED, 50, seed=0, repeat=0).history.move!='repeat').all()

def test_repeats_end_when_there_is_no_noise():
    assert (anneal(loss, MIXED, 50, seed=0, repeat=.4).history.move=='repeat').sum()<=5

def test_repeats_find_better_and_know_how_good():
    true,said = {},{}
    for share in (0.,.3):
        runs = [anneal(noisy(loss, .3, s, False), MIXED, 100, seed=s, repeat=share) for s in range(30)]
        true[share] = np.mean([loss(r.best) for r in runs])
        said[share] = np.mean([r.best_energy-loss(r.best) for r in runs])
    assert true[.3]<true[0.] and said[0.]<-.5 and abs(said[.3])<.2 # without, the winner is a lucky draw

@pytest.mark.parametrize('by_rank', [True,False])
def test_standard_errors_make_it_careful(by_rank):
    def p_of(energy, se):
        walk = Walk(by_rank=by_rank)
        for i,(e,s) in enumerate([*((e,0.) for e in np.linspace(1, 9, 20)), (2.,se), (energy,se)]):
            step = Step(i, 'walk' if i==21 else 'init', temp=.5, draw=1. if 0<i<20 else .5)
            if i==20: walk.chains[0].current = None # it stands at 2
            walk.begin(step)
            walk.tell(step, (0.,e), s)
        return step.p
    assert p_of(3., 2.)<.9*p_of(3., 0.)<.9 and p_of(1.9, 2.)<p_of(1.9, 0.)==1.

def test_acceptance_by_temperature():
    a = anneal(loss, MIXED, 400, seed=0, energy='raw', moves='all', adapt=False, reheat=0)
    t = a.acceptance(5)
    assert t.n.sum()==400-a.plan.n_init and (np.diff(t.temp)<0).all()
    assert t.accepted.iloc[0]>t.accepted.iloc[-1]+.2 and t.accepted_up.iloc[0]>t.accepted_up.iloc[-1]
    assert len(anneal(loss, MIXED, 2, seed=0, n_init=2).acceptance())==0

def test_screening_is_worth_it():
    best = {c:np.median([anneal(loss, MIXED, 20, seed=s, screen=c).best_energy for s in range(9)]) for c in (None,'gp')}
    assert best['gp']<best[None]

@pytest.mark.parametrize('kw', [{}, dict(n_chains=3), dict(energy='raw')], ids=str)
def test_own_state(kw):
    start = Tour(np.random.default_rng(0).permutation(12))
    a = anneal(length, start, 1500, seed=0, **kw)
    assert a.best_energy==pytest.approx(length(Tour(range(12))), rel=.1) and a.space.spec is start and len(a.plot())==3
    b = run(Annealer(start, 60, seed=1, **kw), length, 30)
    c = run(Annealer(start, 60, **kw).load_state_dict(pickle.loads(pickle.dumps(b.state_dict()))), length, 30)
    assert energies(run(b, length, 30))==energies(c)

def test_image_of_784_numbers():
    import torch
    goal = torch.linspace(0, 1, 784, dtype=torch.float64).reshape(28,28)
    a = anneal(lambda v: float(((v-goal)**2).mean()), Vector((28,28), tensor=True), 1500, seed=0)
    assert a.best.shape==(28,28) and isinstance(a.best, torch.Tensor) and a.best_energy<.75*a.history.energy[0]

def test_temperatures_are_shapes():
    h = anneal(loss, MIXED, 60, schedule=ShapeWarm(.01,.1,length='20%') >> ShapeCos(.1,.001), seed=0).history # on ranks: as it says
    assert h.temp.max()==pytest.approx(.1, rel=.1) and h.temp.iloc[-1]==pytest.approx(.001) and h.temp.idxmax()>5
    raw = dict(energy='raw', seed=0, moves='all')
    a,b = (anneal(lambda p: 1000*loss(p), MIXED, 60, schedule=s, **raw).history for s in (ShapeNo(2.),ShapeNo(1.)))
    assert a.temp[8]==pytest.approx(2*b.temp[8]) and b.temp.iloc[-1]>50 # of a start temperature that it finds
    assert set(anneal(loss, MIXED, 60, schedule=ShapeNo(2.).absolute(), **raw).history.temp)=={2.}
    assert anneal(loss, MIXED, 60, schedule=ShapeFn(lambda pos: .1*(1-pos)), seed=0).history.temp.iloc[-1]==0

def test_adaptive_temperature_follows_acceptance():
    h = anneal(loss, MIXED, 400, schedule=AdaptiveT(), energy='raw', seed=0, moves='all', adapt=False, reheat=0).history
    assert h.temp.nunique()>100 and .2<h.accepted[80:240].mean()<.7

def test_interrupt_keeps_what_there_is(capsys):
    seen = []
    def f(p):
        if len(seen)==7: raise KeyboardInterrupt
        seen.append(p)
        return loss(p)
    assert len(anneal(f, MIXED, 50, seed=0).history)==7 and 'interrupted after 7 of 50' in capsys.readouterr().out

def test_callback_stops():
    a = anneal(loss, MIXED, 50, seed=0, callback=lambda a: a.i==7)
    assert len(a.history)==7 and a.best is not None

def test_empty_and_fixed_spaces(): assert anneal(lambda p: 1., {'a': 3}, 5, seed=0).best=={'a': 3}
def test_plot(): assert len(anneal(loss, MIXED, 20, seed=0).plot())>=5

def test_walk_replayed_from_its_steps_stands_where_it_stood():
    a = run(Annealer(MIXED, 60, seed=0, n_chains=2), loss, 60)
    replayed = Walk(1)
    steps = [s for s in a.walk.steps.values() if s.chain==0]
    known = Walk(1)
    for s in steps:
        step = Step(s.number, s.kind, temp=s.temp, draw=s.draw)
        known.begin(step)
        limit = known.limit(Step(s.number, s.kind, parent=known.chains[0].current, temp=s.temp, draw=s.draw))
        known.tell(step, s.key)
        if step.energy>limit: assert not step.accepted
        again = Step(s.number, s.kind, temp=s.temp, draw=s.draw)
        replayed.begin(again)
        assert replayed.tell(again, s.key).accepted==step.accepted
    assert replayed.chains[0].current==known.chains[0].current

def test_posterior_shrinks_what_is_uncertain():
    means,variances = posterior([0.,0.,2.], [1e-12,1.,1e12], 2., 1.)
    np.testing.assert_allclose(means, [0.,1.,2.], atol=1e-9)
    np.testing.assert_allclose(variances, [0.,.5,1.], atol=1e-9)

def test_an_error_keeps_what_was_found():
    def objective(x):
        if len(seen)==7: raise KeyError('disk')
        seen.append(x)
        return x
    seen = []
    with pytest.raises(ZeroDivisionError, match='division') as info: anneal(lambda x: 1/0, LinFloat(0,1))
    assert len(info.value.annealer.history)==0
    with pytest.raises(KeyError, match='disk') as info: anneal(objective, LinFloat(0,1), 20, seed=0)
    assert info.value.annealer.history.value.tolist()==seen and info.value.annealer.best==min(seen)

def test_caught_errors_are_failed_evaluations():
    def objective(x): return 1/0 if x>.5 else x
    with pytest.warns(UserWarning, match='has failed: ZeroDivisionError'):
        found = anneal(objective, LinFloat(0,1), 30, catch=ZeroDivisionError, seed=0)
    assert found.i==30 and found.history.energy.isna().any() and found.best<=.5
    assert (found.history.energy.isna()==(found.history.value>.5)).all()
    with pytest.raises(ZeroDivisionError, match='division'): anneal(objective, LinFloat(0,1), 30, catch=(KeyError,), seed=0)

def test_target_and_timeout():
    found = anneal(abs, LinFloat(-1,1), 500, target=.1, seed=0)
    assert found.best_energy<=.1 and found.i<500 and (found.history.energy[:-1]>.1).all()
    assert anneal(abs, LinFloat(-1,1), 5, timeout=0).i==0 and anneal(abs, LinFloat(-1,1), 5, timeout=1e9, seed=0).i==5
    for bad in (dict(timeout=-1), dict(timeout='1'), dict(target='low'), dict(target=math.nan)):
        with pytest.raises(ValueError, match=next(iter(bad))+'='): anneal(abs, LinFloat(-1,1), 5, **bad)

class InPlace:
    def __init__(self): self.order,self.length,self.rng,self.back = [3,0,2,1],None,np.random.default_rng(0),lambda: self
    def swap(self): self.order[0],self.order[1] = self.order[1],self.order[0]
class Itself(InPlace):
    def propose(self, rng, width):
        self.swap()
        return self
class Shared(InPlace):
    def propose(self, rng, width):
        moved = copy.copy(self)
        moved.swap()
        return moved
class Items(list):
    def propose(self, rng, width):
        self.reverse()
        return self

@pytest.mark.parametrize('state', [Itself(), Shared(), Items([1,2])], ids=lambda s: type(s).__name__)
def test_a_state_changed_in_place_is_noticed(state):
    with pytest.raises(ValueError, match='propose` changed .* change a copy'): anneal(lambda s: 0., state, 5)

def test_a_state_may_remember_and_draw_and_stay():
    class Tour(InPlace):
        def propose(self, rng, width):
            self.length,self.n_stops = sum(self.order),4 # computed when first needed
            if self.rng.random()<.3: return self
            moved = Tour()
            moved.order = rng.permutation(self.order).tolist()
            return moved
    assert anneal(lambda s: s.order[0], Tour(), 50, seed=0).best.order[0]==0

NARROW = {'x': LinFloat(0,1), 'n': LinInt(1,4), 'act': Categorical({'a': {}, 'b': {'p': LogFloat(.1,1)}})}
WIDE = {'x': LinFloat(-3,2), 'n': LinInt(1,9), 'act': Categorical({'new': {'q': Bool()}, 'a': {}, 'b': {'p': LogFloat(1e-3,1)}})}
def wanted(p): return (p['x']+1)**2+(p['n']-7)**2/9+dict(a=.5, b=1., new=0.)[p['act']]

@pytest.mark.parametrize('kw', [{}, dict(screen='gp'), dict(n_chains=2)], ids=str)
def test_a_space_that_has_grown_takes_its_points_along(kw):
    before = run(Annealer(NARROW, 80, seed=0, **kw), wanted, 20)
    before.ask()
    state = pickle.loads(pickle.dumps(before.state_dict()))
    grown = Annealer(WIDE, 80, **kw).load_state_dict(state)
    for u,v in zip(before.points, grown.points):
        assert grown.space.value(v)['act']==before.space.value(u)['act'] and grown.space.value(v)['n']==before.space.value(u)['n']
        assert grown.space.value(v)['x']==pytest.approx(before.space.value(u)['x'])
    assert wanted(grown.best)==pytest.approx(grown.best_energy) and wanted(grown.ask())==pytest.approx(wanted(before.ask()))
    run(grown, wanted, 60)
    assert grown.i==80 and grown.best['x']<0 and grown.best['n']>4 and {'a','new'}<=set(grown.history.act)

def test_choices_that_are_no_json_go_on():
    space = {'k': Categorical((1,2), (3,4)), 'x': LinFloat(0,1)}
    a = run(Annealer(space, 20, seed=0), lambda p: p['x'], 10)
    b = Annealer(space, 20).load_state_dict(a.state_dict())
    assert energies(run(a, lambda p: p['x'], 10))==energies(run(b, lambda p: p['x'], 10))

@pytest.mark.parametrize('change,match', [(dict(x=LinFloat(.4,.5)), 'no longer: .* is not in LinFloat'),
    (dict(act=Categorical('a','c')), 'no longer: '), (dict(more=Bool()), 'this space has')])
def test_a_space_that_has_lost_something_is_refused(change, match):
    state = run(Annealer(NARROW, 80, seed=0), wanted, 20).state_dict()
    with pytest.raises(ValueError, match=match): Annealer({**NARROW, **change}, 80).load_state_dict(state)
