"The Optuna sampler: Optuna's own suite, replay, resume, workers, faults, pruning"
import json,math,os,pickle,signal,subprocess,sys,warnings
import numpy as np,pytest
optuna = pytest.importorskip('optuna')
from optuna.distributions import *
from optuna.testing.pytest_samplers import BasicSamplerTestCase,RelativeSamplerTestCase,SingleOnlySamplerTestCase
from optuna.trial import TrialState,create_trial
from fastai_anneal.annealing.accept import AdaptiveT
from fastai_anneal.search.pruning import SimAnnealPruning
from fastai_anneal.search.sampler import SimAnnealSampler,anneal_history,best_by_mean,rejection_limit

warnings.filterwarnings('ignore', category=optuna.exceptions.ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.ERROR)

class TestOptunasOwn(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    @pytest.fixture(params=[dict(), dict(screen=None), dict(n_init=0, n_chains=2, n_trials=8)], ids=['gp','unscreened','chains'])
    def sampler(self, request): return lambda: SimAnnealSampler(seed=0, **request.param)

def f(t, noise=0.):
    x,lr,k = t.suggest_float('x', -1, 1),t.suggest_float('lr', 1e-5, 1, log=True),t.suggest_int('k', 1, 9)
    c,b = t.suggest_categorical('c', ['a','b','c']),t.suggest_categorical('bs', [16,32,64])
    e = x**2+(math.log10(lr)+2)**2+.1*abs(k-4)+.5*(c!='b')+.1*(b!=32)
    return e+noise*np.random.default_rng([t.number,7]).normal()

def study_of(n=0, obj=f, direction='minimize', study=None, **kw):
    study = study or optuna.create_study(direction=direction)
    study.sampler = SimAnnealSampler(**{**dict(seed=1, n_trials=30), **kw})
    study.optimize(obj, n_trials=n)
    return study
def params(study): return [t.params for t in study.trials]
def attrs(study): return [t.system_attrs['anneal'] for t in study.trials]
noisy = lambda t: f(t, .3)

@pytest.mark.parametrize('kw', [dict(), dict(screen=None), dict(n_chains=3), dict(n_trials=None), dict(n_trials=None, screen=None)], ids=str)
def test_resume_is_exact(kw):
    whole,part = study_of(30, noisy, **kw),study_of(11, noisy, **kw)
    part = study_of(7, noisy, study=part, **kw)
    part.sampler = pickle.loads(pickle.dumps(part.sampler)); part.optimize(noisy, n_trials=12)
    assert params(whole)==params(part) and attrs(whole)==attrs(part)
    other = study_of(12, noisy, **{**kw, 'seed':2})
    assert params(other)!=params(whole)[:12]

@pytest.mark.parametrize('kw', [dict(), dict(screen=None)], ids=str)
def test_maximize_mirrors_minimize(kw):
    a,b = study_of(30, noisy, **kw),study_of(30, lambda t: -noisy(t), 'maximize', **kw)
    assert params(a)==params(b) and attrs(a)==attrs(b)
    u,v = best_by_mean(a),best_by_mean(b)
    assert u.params==v.params and u.value==-v.value and u.n==v.n

def test_no_hidden_state():
    "A sampler that has seen another study asks this one for the same"
    a = study_of(12, noisy); s = a.sampler
    b = optuna.create_study(); b.optimize(lambda t: 1., n_trials=3); s.sample_relative(b, b.ask()._cached_frozen_trial, {})
    fresh = study_of(1, noisy, study=study_of(12, noisy)); a.optimize(noisy, n_trials=1)
    assert params(a)==params(fresh)

def test_what_is_remembered_of_a_study_is_what_a_new_sampler_finds():
    "However late trials end, and in whatever order"
    rng,st,running = np.random.default_rng(0),optuna.create_study(sampler=SimAnnealSampler(seed=1, screen=None, n_chains=2)),[]
    for i in range(90):
        t = st.ask(); noisy(t)
        fresh = optuna.create_study(sampler=SimAnnealSampler(seed=1, screen=None, n_chains=2))
        if i%9==0:
            fresh.add_trials([o for o in st.get_trials() if o.number<t.number])
            again = fresh.ask(); noisy(again)
            assert again.params==t.params and attrs(fresh)[-1]==attrs(st)[-1]
        running.append((t, f(t)))
        if len(running)>4: # the first ends last
            late = running.pop(0 if i in (20,70) else rng.integers(1, len(running)))
            st.tell(late[0], *((late[1],) if i%7 else (None,TrialState.FAIL)))

def test_reseed_and_same_seed_in_two_threads():
    s = SimAnnealSampler(seed=3); s.reseed_rng(); assert s.seed==3
    st = optuna.create_study(sampler=s); st.optimize(noisy, n_trials=12, n_jobs=2)
    assert len({json.dumps(p) for p in params(st)})==12
    assert SimAnnealSampler().seed!=SimAnnealSampler().seed

def test_acceptance_is_what_the_attributes_say():
    st = study_of(40, noisy, n_trials=40, screen=None, repeat=0); h = anneal_history(st)
    cur,known,n_up = None,[],0
    for r,t in zip(h.itertuples(), st.trials):
        e = t.value
        if cur is None: acc = True
        elif r.kind=='init' or e<=st.trials[cur].value: acc = e<=st.trials[cur].value
        else:
            rank = lambda v: sum(o<v for o in known)/len(known)
            p = math.exp(-(rank(e)-rank(st.trials[cur].value))/r.temp); acc = p>r.draw; n_up += acc
            assert abs(p-r.p)<1e-12
        assert r.accepted==acc and (t.number==0 or t.system_attrs['anneal']['parent']==cur)
        cur = t.number if acc else cur; known.append(e)
    assert n_up>0 and h.temp.is_monotonic_decreasing and set(h.kind)=={'init','walk'}

def test_each_chain_is_exact_with_a_trial_of_each_running():
    st = optuna.create_study(sampler=SimAnnealSampler(seed=0, n_trials=36, n_chains=3, screen=None, repeat=0))
    for _ in range(12):
        ts = [st.ask() for _ in range(3)]; vs = [noisy(t) for t in ts]
        for i in (2,0,1): st.tell(ts[i], vs[i])
    h = anneal_history(st); a = attrs(st)
    assert [o['chain'] for o in a]==[0,1,2]*12 and all(o.get('running', [])==list(range(t-t%3, t)) for t,o in enumerate(a))
    for c in range(3):
        g = h[h.chain==c]; at = None
        for r in g.itertuples():
            assert a[r.number]['parent']==at
            at = r.number if r.accepted else a[r.number]['parent']

def test_failed_nan_and_inf_are_rejections():
    def obj(t):
        x = t.suggest_float('x', 0, 1)
        if t.number%4==1: raise RuntimeError('out of memory')
        return [x,0,math.nan,math.inf][t.number%4]
    st = optuna.create_study(sampler=SimAnnealSampler(seed=0, n_trials=24)); st.optimize(obj, n_trials=24, catch=(RuntimeError,))
    h = anneal_history(st)
    assert not h[h.number%4!=0].accepted.any() and h.accepted.any()
    assert best_by_mean(st).trial.number%4==0
    bad = optuna.create_study(sampler=SimAnnealSampler(seed=0)); bad.optimize(lambda t: math.nan*t.suggest_float('x', 0, 1), n_trials=12)
    with pytest.raises(ValueError, match='12 trials'): best_by_mean(bad)

def trial(value=None, x=.5, inter=None, state=TrialState.COMPLETE, attr=None, **kw):
    return create_trial(state=state, value=value, params=dict(x=x), distributions=dict(x=FloatDistribution(0,1)), intermediate_values=inter or {},
                        system_attrs={'anneal':attr} if attr else {}, **kw)

@pytest.mark.parametrize('reported', [.5,.7])
def test_a_pruned_trial_is_never_accepted(reported):
    "However well it did where it was ended: what it would have come to is a guess"
    st = optuna.create_study(sampler=SimAnnealSampler(seed=0))
    st.add_trials([trial(.1, .2, {0:.9,1:.6,2:.1}), trial(.4, .9, {0:.95,1:.8,2:.4}),
                   trial(None, .3, {0:.9,1:reported}, TrialState.PRUNED, dict(chain=0, parent=0, temp=1., draw=0., kind='walk'))])
    assert not anneal_history(st).accepted.iloc[-1]
    assert anneal_history(st).energy.iloc[-1]==(.1 if reported==.5 else .4) # yet it is known as what it looked like
    assert best_by_mean(st).trial.number==0 and best_by_mean(st).value==.1
    st.add_trial(trial(None, .3, {}, TrialState.PRUNED, dict(chain=0, parent=0, temp=1., draw=0., kind='walk')))
    assert not anneal_history(st).accepted.iloc[-1] # never reported anything

REGIONS = {
    'half': lambda t: t.suggest_float('x', 0, 1)>.5,
    'half, before all is suggested': lambda t: t.suggest_float('a', 0, 1)>.5,
    'corner on a log axis': lambda t: t.suggest_float('x', 1e-4, 1, log=True)>1e-2 and t.suggest_int('k', 0, 9)>5,
    'band': lambda t: .4<t.suggest_float('x', 0, 1)<.65,
    'category': lambda t: t.suggest_categorical('c', ['a','b','c'])=='b',
    'two regions': lambda t: t.suggest_float('x', 0, 1)>.7 or t.suggest_float('y', 0, 1)<.2}

def fails(st, region, how, n=60):
    "Of `n` trials of which those in `region` fail: which do"
    failed = []
    def obj(t):
        if 'before' in region and REGIONS[region](t): failed.append(True); raise MemoryError
        x,y = [t.suggest_float(name, 0, 1) if region!='corner on a log axis' or name=='y' else t.suggest_float(name, 1e-4, 1, log=True) for name in 'xy']
        failed.append(bool(REGIONS[region](t)))
        if failed[-1] and how=='raise': raise MemoryError
        if failed[-1] and how=='prune': raise optuna.TrialPruned
        return dict(nan=math.nan, inf=math.inf)[how] if failed[-1] else (x-.6)**2+(y-.3)**2
    st.optimize(obj, n_trials=n, catch=MemoryError)
    return failed

@pytest.mark.parametrize('screen', ['gp',None])
@pytest.mark.parametrize('region,how', [*((region,'raise') for region in REGIONS), ('half','nan'), ('half','inf'), ('half','prune')])
def test_few_trials_fail_once_the_region_is_known(region, how, screen):
    shares = [np.mean(fails(optuna.create_study(sampler=SimAnnealSampler(seed, screen=screen)), region, how)[20:]) for seed in range(2)]
    assert np.mean(shares)<=.1

@pytest.mark.parametrize('screen', ['gp',None])
def test_what_failed_is_not_tried_again(screen):
    "In a table where every second row fails, until all others have been seen"
    st = optuna.create_study(sampler=SimAnnealSampler(seed=0, screen=screen))
    def obj(t):
        a,b = t.suggest_int('a', 0, 5),t.suggest_int('b', 0, 5)
        if a%2: raise RuntimeError
        return abs(a-3)+abs(b-2)
    st.optimize(obj, n_trials=60, catch=RuntimeError)
    failing = [json.dumps(t.params) for t in st.trials if t.state==TrialState.FAIL]
    assert len(failing)==len(set(failing))<=18

def test_all_fail_at_first():
    st = optuna.create_study(sampler=SimAnnealSampler(seed=0, n_init=4))
    def obj(t):
        x,y = t.suggest_float('x', 0, 1),t.suggest_float('y', 0, 1)
        if x<.8: raise RuntimeError
        return x+y
    st.optimize(obj, n_trials=40, catch=RuntimeError)
    assert np.mean([t.state==TrialState.FAIL for t in st.trials[20:]])<=.1

def test_repeats_are_tagged_and_the_mean_wins():
    st = study_of(60, lambda t: f(t, 1.), n_trials=60)
    rep = [t for t in st.trials if t.system_attrs['anneal']['kind']=='repeat']
    assert len(rep)==12 and all(t.params==st.trials[t.system_attrs['anneal']['of']].params for t in rep) and min(t.number for t in rep)==48
    b = best_by_mean(st); vs = [t.value for t in st.trials if t.params==b.params]
    assert b.n==len(vs) and b.value==pytest.approx(np.mean(vs)) and b.se>0
    lucky = optuna.create_study() # of two configurations one was lucky once
    ds = dict(x=FloatDistribution(0,1))
    for x,v in [(.2,1.),(.2,1.1),(.2,.9),(.8,.5),(.8,2.),(.8,2.2),(.5,3.),(.1,3.)]: lucky.add_trial(create_trial(value=v, params=dict(x=x), distributions=ds))
    assert lucky.best_params=={'x':.8} and best_by_mean(lucky).params=={'x':.2} and best_by_mean(lucky).n==3

def test_without_noise_there_is_no_final():
    st = study_of(40, n_trials=40)
    assert sum(a['kind']=='repeat' for a in attrs(st))<=3 and best_by_mean(st).value==st.best_value

def test_without_budget_repeats_are_spread():
    st = study_of(60, noisy, n_trials=None)
    assert 5<=sum(a['kind']=='repeat' for a in attrs(st))<=9 and attrs(st)[59]['temp']<attrs(st)[9]['temp']

@pytest.mark.parametrize('screen', ['gp',None])
def test_running_trials_are_not_duplicated(screen):
    st = optuna.create_study(sampler=SimAnnealSampler(seed=0, screen=screen, n_init=3))
    ds = dict(a=IntDistribution(0,4), b=CategoricalDistribution(['u','v','w']))
    for _ in range(4): t = st.ask(ds); st.tell(t, t.params['a'])
    ts = [st.ask(ds) for _ in range(8)]
    assert len({json.dumps(t.params) for t in ts}|{json.dumps(t.params) for t in st.trials[:4]})>=11
    late = optuna.create_study(sampler=SimAnnealSampler(seed=0, screen=screen, n_init=3)) # not yet suggested when the next one asks
    for _ in range(5): t = late.ask(ds); late.tell(t, t.params['a'])
    ts = [late.ask() for _ in range(4)]
    for t in ts: t.relative_params
    ps = [(t.suggest_int('a',0,4), t.suggest_categorical('b',['u','v','w'])) for t in ts]
    assert len(set(ps))==4

def test_an_exhausted_space_repeats():
    st = optuna.create_study(sampler=SimAnnealSampler(seed=0, n_init=2)); st.optimize(lambda t: t.suggest_int('a',0,2)+t.number%2*.1, n_trials=20)
    reps = [a for a in attrs(st) if a['kind']=='repeat']
    assert len(reps)>=10 and best_by_mean(st).params=={'a':0}

@pytest.mark.parametrize('how', ['func','set'])
def test_constraints(how):
    if how=='set' and not hasattr(optuna.trial.Trial, 'set_constraint'): pytest.skip('an older Optuna')
    def obj(t):
        x,y = t.suggest_float('x', 0, 1),t.suggest_float('y', 0, 1)
        t.set_user_attr('c', .6-x)
        if how=='set': t.set_constraint('c', .6-x)
        return x+y
    st = optuna.create_study(sampler=SimAnnealSampler(seed=0, n_trials=40, constraints_func=(lambda t: (t.user_attrs['c'],)) if how=='func' else None))
    st.optimize(obj, n_trials=40)
    b = best_by_mean(st)
    assert b.params['x']>=.6 and b.value<.75
    late = [t.params['x'] for t in st.trials[20:]]
    assert np.mean(np.array(late)>.5)>.7 # it searches along the border, not inside

def test_conditional_space_is_annealed_as_one():
    def obj(t):
        if t.suggest_categorical('m', ['mlp','cnn'])=='mlp': return .3+abs(t.suggest_float('w', 0, 1)-.5)
        return (t.suggest_float('d', 0, 1)-.3)**2+.02*abs(t.suggest_int('l', 1, 8)-3)
    best = []
    for s in range(3):
        st = optuna.create_study(sampler=SimAnnealSampler(seed=s, n_trials=40)); st.optimize(obj, n_trials=40); best.append(st.best_value)
        assert all(set(t.params) in ({'m','w'},{'m','d','l'}) for t in st.trials)
    assert np.median(best)<.02

def test_ranges_that_change():
    def obj(t):
        n = t.suggest_int('n', 1, 6)
        v = sum(abs(t.suggest_float(f'x{i}', 0, n)-i*.5) for i in range(n))
        return v+t.suggest_int('k', 0, n)
    st = optuna.create_study(sampler=SimAnnealSampler(seed=0)); st.optimize(obj, n_trials=25)
    assert all(0<=t.params['k']<=t.params['n'] for t in st.trials)

def test_foreign_and_enqueued_trials_join_in():
    st = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)); st.optimize(f, n_trials=10)
    st.enqueue_trial(dict(x=0., lr=.01, k=4, c='b', bs=32))
    st = study_of(10, study=st, n_trials=20)
    assert st.trials[10].value==0. and st.trials[11].system_attrs['anneal']['parent']==10
    assert best_by_mean(st).trial.number==10 or best_by_mean(st).params==st.trials[10].params

def test_with_optunas_other_parts():
    def obj(t):
        v = noisy(t)
        for s in range(4):
            t.report(v+1/(s+1), s)
            if t.should_prune(): raise optuna.TrialPruned
        return v
    for pr in (optuna.pruners.HyperbandPruner(1,4), optuna.pruners.MedianPruner(3)):
        st = optuna.create_study(sampler=SimAnnealSampler(seed=0, n_trials=25), pruner=pr); st.optimize(obj, n_trials=25)
        assert {t.state for t in st.trials}=={TrialState.COMPLETE,TrialState.PRUNED}
    assert optuna.importance.get_param_importances(st)
    best_by_mean(st)

@pytest.mark.parametrize('kw,msg', [(dict(n_trials=0),'n_trials=0'), (dict(n_trials=2.5),'n_trials=2.5'), (dict(screen='rf'),"screen='rf'"), (dict(repeat=1.),'repeat=1.0'),
    (dict(n_chains=0),'n_chains=0'), (dict(width=.1),'width=0.1'), (dict(walk=-1),'walk=-1'), (dict(schedule=AdaptiveT()),'adapts by a state'), (dict(n_init='x'),"n_init='x'")])
def test_wrong_arguments(kw, msg):
    with pytest.raises(ValueError, match=msg): SimAnnealSampler(**kw)

def test_multi_objective_says_what_to_do():
    st = optuna.create_study(directions=['minimize','maximize'], sampler=SimAnnealSampler())
    with pytest.raises(ValueError, match='has 2 objectives, annealing takes one'): st.optimize(lambda t: (t.suggest_float('x',0,1),1.), n_trials=1)
    with pytest.raises(ValueError, match='annealing takes one'): best_by_mean(st)

@pytest.mark.parametrize('d', [FloatDistribution(-1e300,1e300), FloatDistribution(1e-300,1e300,log=True), IntDistribution(0,10**15), IntDistribution(-5,5,step=5), FloatDistribution(0,1,step=.3),
    IntDistribution(1,2**40,log=True), CategoricalDistribution([None,True,'x',1.5]), CategoricalDistribution([1,True,0])], ids=str)
def test_odd_distributions(d):
    st = optuna.create_study(sampler=SimAnnealSampler(seed=0, n_init=3, n_trials=14))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for i in range(14):
            t = st.ask(dict(v=d)); assert d._contains(d.to_internal_repr(t.params['v'])); st.tell(t, i%5)

worker = r'''
import os,sys,time,json
import optuna; optuna.logging.set_verbosity(optuna.logging.ERROR)
from fastai_anneal.search.sampler import *
kind,path,n = sys.argv[1],sys.argv[2],int(sys.argv[3])
def storage():
    if kind=='sqlite': return optuna.storages.RDBStorage(f'sqlite:///{path}', engine_kwargs={'connect_args': {'timeout': 60}})
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path))
optuna.create_study(storage=storage(), study_name='s', load_if_exists=True)
def work(me):
    st = optuna.load_study(study_name='s', storage=storage(), sampler=SimAnnealSampler(seed=0, n_trials=n, n_chains=4))
    told = open(f'{path}.told{me}', 'a')
    def obj(t):
        x,k = t.suggest_float('x', -1, 1),t.suggest_int('k', 0, 9)
        if me==0 and t.number>=8: # in the middle of a trial
            open(f'{path}.killed', 'w').close(); os.kill(os.getpid(), 9)
        time.sleep(.01)
        return x*x+k+.01*(t.number%7)
    def note(st, t): print(t.number, file=told, flush=True)
    while not os.path.exists(f'{path}.killed') or len(st.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))<n: st.optimize(obj, n_trials=1, callbacks=[note])
pids = []
for me in range(4):
    pid = os.fork()
    if pid==0: work(me); os._exit(0)
    pids.append(pid)
print(json.dumps([os.waitpid(p, 0)[1] for p in pids]))
'''
@pytest.mark.parametrize('kind', ['sqlite','journal'])
def test_four_workers_on_one_study_and_one_killed(kind, tmp_path):
    path,n = str(tmp_path/f's.{kind}'),36
    out = subprocess.run([sys.executable, '-W', 'ignore', '-c', worker, kind, path, str(n)], capture_output=True, text=True, timeout=120)
    assert out.returncode==0, out.stderr
    assert sorted(json.loads(out.stdout))==[0,0,0,signal.SIGKILL], out.stderr
    st = optuna.load_study(study_name='s', storage=f'sqlite:///{path}' if kind=='sqlite' else optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(path)))
    ts = st.trials; done = [t for t in ts if t.state==TrialState.COMPLETE]
    assert [t.number for t in ts]==list(range(len(ts))) and len(done)>=n
    assert [t.state for t in ts if t.state!=TrialState.COMPLETE]==[TrialState.RUNNING] # of the killed worker
    told = [int(o) for i in range(4) for o in (tmp_path/f's.{kind}.told{i}').read_text().split()]
    assert sorted(told)==[t.number for t in done] # none lost, none told by two
    assert all(t.value==pytest.approx(t.params['x']**2+t.params['k']+.01*(t.number%7)) for t in done)
    new = [json.dumps(t.params, sort_keys=True) for t in ts if t.system_attrs['anneal']['kind']!='repeat']
    assert len(new)==len(set(new)) # none doubled
    assert {t.system_attrs['anneal']['chain'] for t in ts}=={0,1,2,3}
    h = anneal_history(st); assert len(h)==len(done) and best_by_mean(st).params['k']==0

def test_without_optuna():
    code = '''
import sys
sys.modules['optuna'] = None
from fastai_anneal.annealing.anneal import anneal
try: import fastai_anneal.search.sampler
except ImportError as e: assert "pip install 'fastai_anneal[search]'" in str(e), e
else: raise AssertionError
'''
    out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True)
    assert out.returncode==0, out.stderr

# what the search room relies on
def test_attributes_of_a_trial():
    st = study_of(30, noisy)
    for number,a in enumerate(attrs(st)):
        assert set(a)>={'kind','chain','parent','of','temp','width','draw'} and 0<=a['draw']<1 and 0<a['width']<=.2
        assert a['kind'] in ('init','walk','repeat') and (a['of'] is not None)==(a['kind']=='repeat')
        assert a['parent'] is None or a['parent']<number
    widths = [a['width'] for a in attrs(st)]
    assert widths==sorted(widths, reverse=True)

def test_rejection_limit():
    "What is above the limit is rejected, and what is below is not"
    for number in range(8, 40):
        for above in (True,False):
            st = study_of(number, noisy, n_trials=60, n_init=4, screen=None)
            t = st.ask()
            noisy(t)
            limit = rejection_limit(st, t)
            if math.isinf(limit): break
            st.tell(t, limit+1e-9 if above else min(v.value for v in st.trials[:-1])-1)
            assert anneal_history(st).accepted.iloc[-1]!=above
        if number>12 and not math.isinf(limit): break
    assert not math.isinf(limit)

def test_a_maximising_study_has_the_mirrored_limit():
    a,b = study_of(15, noisy),study_of(15, lambda t: -noisy(t), 'maximize')
    assert rejection_limit(a, a.ask())==rejection_limit(b, b.ask())

def test_empty_space():
    "Of states that are no parameters, such as networks, the sampler says who is the parent and who is repeated"
    st = optuna.create_study(sampler=SimAnnealSampler(seed=0, n_trials=30, has_states=True))
    energy = {}
    def obj(t):
        a = t.study._storage.get_trial(t._trial_id).system_attrs['anneal']
        energy[t.number] = energy[a['of']] if a['kind']=='repeat' else energy.get(a['parent'], 5.)+np.random.default_rng(t.number).normal()-.1
        return energy[t.number]+.1*np.random.default_rng(1000+t.number).normal()
    st.optimize(obj, n_trials=30)
    kinds = [a['kind'] for a in attrs(st)]
    assert kinds.count('repeat')==6 and kinds.count('walk')>=16 and all(t.params=={} for t in st.trials)
    assert best_by_mean(st).params=={} and rejection_limit(st, st.ask())>0

def test_states_beside_parameters_are_no_repeats():
    st = optuna.create_study(sampler=SimAnnealSampler(seed=0, n_trials=30, repeat=0, has_states=True))
    st.optimize(lambda t: t.suggest_categorical('bs', [32,64])/64+.1*np.random.default_rng(t.number).normal(), n_trials=30)
    assert {a['kind'] for a in attrs(st)}=={'init','walk'}
