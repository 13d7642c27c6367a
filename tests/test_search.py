"`anneal_search`: what it finds, what it leaves alone, what it survives"
import json,math,multiprocessing as mp,os,random,resource,signal,time,warnings
import numpy as np,pytest,torch
from torch import nn
from fastai.basics import *
from fastai.callback.core import Callback
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai_anneal.anneal import *
from fastai_anneal.search import *
from fastai_anneal import search as S

def data(n, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=g); y = (x[:,0]*x[:,1]>0).long()
    return list(zip(x,y))
def loaders(): return DataLoaders(DataLoader(data(96,0), bs=16, shuffle=True), DataLoader(data(64,1), bs=64))
dls = loaders()

def make(width=8, p=0., dls=dls, **kw):
    return Learner(dls, nn.Sequential(nn.Linear(6,width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(p), nn.Linear(width,2)), loss_func=CrossEntropyLossFlat(), metrics=accuracy, **kw)
def plain(width=8, p=0.): return make(width, p)
space = {'lr': LogFloat(1e-3,1), 'width': LogInt(2,32), 'p': Float(0,.5)}
def go(f=plain, sp=space, n_trials=8, n_epoch=2, seed=0, **kw):
    return anneal_search(f, sp, n_trials=n_trials, n_epoch=n_epoch, seed=seed, **{'progress':False, **kw})
def facts(r): return [(t.number, t.state, S._key(t.hps), t.curve, t.accepted, t.repeats, t.seed) for t in r.trials]

def test_result():
    r = go(n_trials=10)
    h = r.history
    assert len(h)==10 and set(h.state)<={'complete','stopped'} and h.repeats.notna().sum()==1 and {'lr','width','p'}<=set(h)
    assert r.best in [t.hps for t in r.trials] and r.best_n>=1
    assert r.best_value==pytest.approx(np.mean([t.value for t in r.trials if t.hps==r.best]))
    j = json.loads(r.to_json())
    assert j['best']==r.best and len(j['trials'])==10 and j['settings']['metric']=='valid_loss'
    axs = r.plot()
    assert set(axs)=={'trials','slices','parallel','importance'}
    assert sum(r.importance().values())==pytest.approx(1)
    with pytest.raises(ValueError, match="did you mean 'slices'"): r.plot('slice')
    assert 'valid_loss' in repr(r)
    import pickle
    p = pickle.loads(pickle.dumps(r))
    assert p.best==r.best and facts(p)==facts(r)
    with pytest.raises(SearchError, match='read from a file'): p.best_learner()

def test_best_learner_is_the_trial_again():
    r = go()
    t = r.best_trial
    kept,again = r.best_learner(),r.best_learner(retrain=True)
    for l in (kept,again):
        with l.no_bar(): assert l.validate()[0]==pytest.approx(t.value, abs=1e-6)
    assert all(torch.equal(a,b) for a,b in zip(kept.model.state_dict().values(), again.model.state_dict().values()))
    with r.best_learner(n_epoch=1).no_bar(): pass

def test_seed_and_what_is_left_alone():
    mine = loaders()
    def f(width, p): return make(width, p, mine)
    state,orders = (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()),[dl.rng.getstate() for dl in mine.loaders]
    a = go(f)
    assert random.getstate()==state[0] and (np.random.get_state()[1]==state[1]).all() and torch.equal(torch.get_rng_state(), state[2])
    assert [dl.rng.getstate() for dl in mine.loaders]==orders
    random.random(); torch.rand(3); next(iter(mine.train))
    assert facts(go(f))==facts(a)
    assert facts(go(f, seed=1))!=facts(a)

def test_reserved_names_are_applied_by_us():
    seen = []
    class Look(Callback):
        order = 80 # after `_Watch`
        def before_batch(self):
            if self.training and self.train_iter==3: seen.append(dict(lr=self.opt.hypers[-1]['lr'], wd=self.opt.hypers[-1]['wd'], mom=self.opt.hypers[-1]['mom'], bs=len(self.xb[0]), n=self.n_epoch))
    sp = {'lr': LogFloat(1e-3,1), 'wd': LogFloat(1e-3,.1), 'moms': Float(.5,.9), 'bs': Categorical(8,32), 'n_epoch': Int(1,3), 'width': 4}
    r = go(lambda width: make(width), sp, n_trials=6, sched=None, cbs=Look(), early=0, repeat=0)
    assert [{k:t.hps[k] for k in ('lr','wd','bs')} | dict(mom=t.hps['moms'], n=t.hps['n_epoch']) for t in r.trials if t.hps['bs']==8 or t.hps['n_epoch']>1]==seen
    assert [len(t.curve) for t in r.trials]==[t.hps['n_epoch'] for t in r.trials]
    assert dls.train.bs==16

@pytest.mark.parametrize('takes', ['named','kwargs'])
def test_reserved_names_that_the_function_takes(takes):
    got = []
    if takes=='named':
        def f(lr, bs): got.append((lr,bs)); return make(lr=lr)
    else:
        def f(**hps): got.append((hps['lr'],hps['bs'])); return make(lr=hps['lr'])
    r = go(f, {'lr': LogFloat(1e-3,1), 'bs': Categorical(8,16)}, n_trials=3, repeat=0)
    assert got==[(t.hps['lr'],t.hps['bs']) for t in r.trials]

@pytest.mark.parametrize('sched', ['one_cycle','cosine',None,'list'])
def test_schedules(sched):
    from fastai_anneal.schedule import CosineAnneal
    lrs = []
    class Look(Callback):
        order = 80
        def before_batch(self):
            if self.training: lrs.append(self.opt.hypers[-1]['lr'])
    go(sp={'lr': LogFloat(.0999,.1), 'moms': Categorical((.9,.8,.9),(.95,.85,.95)) if sched=='one_cycle' else .9}, n_trials=1, cbs=Look(), sched=[CosineAnneal()] if sched=='list' else sched)
    assert max(lrs)==pytest.approx(.1, rel=2e-2) and (len(set(lrs))==1)==(sched is None)

@pytest.mark.parametrize('kw,msg', [
    (dict(sp={'lr': LogFloat(1e-3,1), 'widht': LogInt(2,8)}), "did you mean 'width'"), (dict(sp={'lr': .1}), 'nothing to search'),
    (dict(f=lambda width, p, q: make(width)), 'needs q'), (dict(sp=LogFloat(1e-3,1)), 'a dict'), (dict(f=3), 'not a function'),
    (dict(n_trials=0), 'n_trials=0'), (dict(n_epoch=1.5), 'n_epoch=1.5'), (dict(early=2), 'early=2'), (dict(repeat=.9), 'repeat=.9|repeat=0.9'),
    (dict(metric='acuracy'), "did you mean 'accuracy'"), (dict(f=lambda width, p: nn.Linear(2,2)), 'has to return a Learner'), (dict(sched='cos'), "sched='cos'"),
    (dict(storage='x.txt'), 'search.jsonl'), (dict(storage='/no/such/folder/x.jsonl'), 'folder that can be written'),
    (dict(f=lambda width, p: Learner(DataLoaders(dls.train), nn.Linear(6,2), loss_func=CrossEntropyLossFlat())), 'validation set'),
    (dict(f={'a': plain}, sp=None), 'pair of a function'), (dict(f={'a': (plain, space)}), 'give no other'), (dict(start={'lr': 7.}), 'not in'),
])
def test_mistakes_are_named(kw, msg):
    with pytest.raises(ValueError, match=msg): go(**kw)

def test_failures_are_rejections():
    n = iter(range(100))
    def f(width, p):
        i = next(n)
        if i in (1,5): raise RuntimeError('out of memory, say')
        return make(width, p)
    class Diverge(Callback):
        def after_loss(self):
            if self.learn.opt.hypers[-1]['wd']>.05: self.learn.loss_grad = self.learn.loss_grad*math.nan; self.learn.loss = self.learn.loss_grad.detach()
    r = go(f, {**space, 'wd': Categorical(0.,.1)}, n_trials=12, cbs=Diverge(), early=0)
    bad = [t for t in r.trials if t.state=='failed']
    assert len(bad)>2 and not any(t.accepted for t in bad if t.repeats is None)
    assert r.trials[1].error=='RuntimeError: out of memory, say' and any('nan' in t.error or 'not finite' in t.error for t in bad)
    assert r.best['wd']==0 and r.history.error.astype(bool).sum()==len(bad)
    json.loads(r.to_json()); r.plot('trials')

def test_when_everything_fails_we_hear_why():
    def f(width, p): raise KeyError('dropuot')
    with pytest.raises(SearchError, match='first 3 trials failed.*dropuot'): go(f)
    r = go(max_params=3, n_trials=4)
    assert {t.state for t in r.trials}=={'failed'} and 'max_params' in r.trials[0].error and r.best is None and not any(t.epochs for t in r.trials)
    with pytest.raises(SearchError, match='no training came to its end'): r.best_learner()
    r.plot_trials(); r.plot_importance(); r.plot_slices(); r.plot_parallel()

def test_metric_to_maximise():
    r = go(metric='accuracy', n_trials=10, repeat=0)
    assert not r.settings['minimize'] and r.history.best.max()==max(t.value for t in r.trials if t.state=='complete')
    assert r.best_value>=np.median([t.value for t in r.trials]) and r.trials[0].energy==-r.trials[0].value

def test_interrupt_returns_what_there_is(tmp_path):
    class Stop(Callback):
        def before_epoch(self):
            if Stop.on and self.epoch==1: raise KeyboardInterrupt
    Stop.on,n = False,[]
    def cb(r): n.append(1); Stop.on = len(n)==4
    f = tmp_path/'s.jsonl'
    r = go(callback=cb, cbs=Stop(), storage=f)
    assert len(r.trials)==4 and r.best is not None
    Stop.on = False
    assert facts(go(cbs=Stop(), storage=f))==facts(go(cbs=Stop()))

def test_bar_and_table_respect_the_learner(capsys):
    go(progress=True, n_trials=3); out = capsys.readouterr().out
    assert 'trial' in out and 'valid_loss' in out
    def quiet(width, p): l = make(width, p); l.remove_cb(l.progress); return l
    go(quiet, progress=True, n_trials=3)
    go(n_trials=3)
    assert capsys.readouterr().out==''
    def silent(width, p): l = make(width, p); l.logger = noop; return l
    go(silent, progress=True, n_trials=3)
    assert 'width' not in capsys.readouterr().out

# ---- the file

def forked(f, *args):
    p = mp.get_context('fork').Process(target=f, args=args)
    p.start()
    return p

def test_killed_at_any_moment(tmp_path):
    f,kw = tmp_path/'s.jsonl',dict(n_trials=24, repeat=.2)
    whole = facts(go(**kw))
    rng,n,size = random.Random(0),0,0
    for i in range(30):
        p = forked(lambda: go(storage=f, **kw))
        size += rng.randint(0, 1200) # bytes of the file at which to kill: whatever the speed of the machine
        while p.exitcode is None and (f.stat().st_size if f.exists() else -1)<size: time.sleep(.002)
        if p.exitcode is not None: break
        time.sleep(rng.uniform(0, .05)); os.kill(p.pid, signal.SIGKILL); p.join(); n += 1
    r = go(storage=f, **kw)
    assert n>=3 and facts(r)==whole
    evs = [json.loads(l) for l in f.read_text().splitlines()]
    assert [e['trial'] for e in evs if e['event']=='ask']==[e['trial'] for e in evs if e['event']=='tell']==list(range(24))
    assert facts(go(storage=f, **kw))==whole and len(f.read_text().splitlines())==len(evs)

def test_cut_anywhere(tmp_path):
    a,b = tmp_path/'a.jsonl',tmp_path/'b.jsonl'
    whole = facts(go(storage=a, n_trials=5))
    data = a.read_bytes()
    for cut in (0, 5, 200, len(data)//2, len(data)-1, len(data)-7, data.index(b'tell')+3, data.index(b'\n')):
        b.write_bytes(data[:cut])
        assert facts(go(storage=b, n_trials=5))==whole, cut
        strip = lambda d: [[e for e in json.loads(l).items() if e[0]!='seconds'] for l in d.splitlines()]
        assert strip(b.read_bytes())==strip(data)
    b.write_bytes(data[:300]+b'\0'*50) # what a power cut leaves
    assert facts(go(storage=b, n_trials=5))==whole

def test_damaged_and_foreign_files_are_left_alone(tmp_path):
    f = tmp_path/'s.jsonl'
    go(storage=f, n_trials=3)
    ls = f.read_bytes().split(b'\n'); ls[2] = ls[2][:20]; f.write_bytes(b'\n'.join(ls))
    before = f.read_bytes()
    with pytest.raises(SearchError, match='line 3'): go(storage=f, n_trials=3)
    assert f.read_bytes()==before
    for other in (b'Dear diary', b'{"a": 1}\n', b'\x80\x04\x95', b'{"event": "tell"}\n'):
        f.write_bytes(other)
        with pytest.raises(SearchError): go(storage=f, n_trials=3)
        assert f.read_bytes()==other

def test_two_writers(tmp_path):
    f = tmp_path/'s.jsonl'
    def cb(r):
        if len(r.trials)==1:
            with pytest.raises(SearchError, match='another search'): go(storage=f)
            p = forked(lambda: os._exit(isinstance(_error(lambda: SearchFile(f)), SearchError)*7))
            p.join(); assert p.exitcode==7
    r = go(storage=f, callback=cb, n_trials=3)
    assert len(r.trials)==3
    j = SearchFile(f)
    p = forked(time.sleep, 30) # a child, such as a worker of a data loader, does not keep the lock
    time.sleep(.5); j.abandon()
    SearchFile(f).close()
    p.kill(); p.join()
def _error(f):
    try: f()
    except Exception as e: return e

def test_full_disk(tmp_path):
    f,out = tmp_path/'s.jsonl',tmp_path/'out.json'
    def child():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        def cb(r):
            if len(r.trials)==2: resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(f)+50, resource.RLIM_INFINITY))
            if len(r.trials)==5:
                SearchFile_lines.append(len(f.read_text().splitlines()))
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,)*2)
        SearchFile_lines = []
        with warnings.catch_warnings(record=True) as ws:
            warnings.simplefilter('always')
            r = go(storage=f, callback=cb)
        ws = [str(w.message) for w in ws if 'goes on' in str(w.message)]
        out.write_text(json.dumps([len(r.trials), SearchFile_lines, len(ws)]))
    p = forked(child); p.join()
    assert json.loads(out.read_text())==[8, [5], 1] # header, and ask and tell of two trials: no torn line
    assert facts(go(storage=f))==facts(go())

def test_disk_full_to_the_end_is_said(tmp_path):
    f,out = tmp_path/'s.jsonl',tmp_path/'out.json'
    def child():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        def cb(r):
            if len(r.trials)==2: resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(f), resource.RLIM_INFINITY))
        with warnings.catch_warnings(record=True) as ws:
            warnings.simplefilter('always'); go(storage=f, callback=cb, n_trials=4)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,)*2)
        out.write_text(json.dumps(any('4 events of the search are not in' in str(w.message) for w in ws)))
    p = forked(child); p.join()
    assert json.loads(out.read_text()) is True

class Odd:
    "Neither JSON nor pickle"
    def __init__(self, w): self.w,self.f = w,lambda: w
    def __reduce__(self): raise TypeError('no')
def test_values_that_are_neither_json_nor_pickle(tmp_path):
    f = tmp_path/'s.jsonl'
    acts = [nn.ReLU, partial(nn.LeakyReLU, .2), Odd(3), lambda: nn.GELU()]
    def mk(act, dt, width): 
        assert any(act is a for a in acts)
        return make(width)
    sp = {'act': Categorical(acts), 'dt': Categorical(torch.float32, torch.float16), 'width': LogInt(2,9), 'lr': .01}
    n = []
    def cb(r): n.append(1); return len(n)==3
    go(mk, sp, storage=f, callback=cb)
    a = go(mk, sp, storage=f)
    assert facts(a)==facts(go(mk, sp)) and len(a.trials)==8
    assert 'torch.nn.modules.activation.ReLU' in f.read_text() and ' at 0x' not in f.read_text()
    a.plot(); json.loads(a.to_json()); assert len(read_search(f).trials)==8; read_search(f).plot('slices')

def test_other_arguments_and_more_trials(tmp_path):
    f = tmp_path/'s.jsonl'
    a = go(storage=f, n_trials=6)
    for kw in (dict(seed=1), dict(n_epoch=3), dict(metric='accuracy'), dict(sp={**space, 'lr': LogFloat(1e-3,2)}), dict(early=.1), dict(width=(.3,.02))):
        with pytest.raises(SearchError, match='other|another file'): go(storage=f, n_trials=6, **kw)
    assert facts(go(storage=f, n_trials=6, seed=None))==facts(a)
    assert facts(go(storage=f, n_trials=4))==facts(a)
    more = go(storage=f, n_trials=9)
    assert facts(more)[:6]==facts(a) and len(more.trials)==9
    assert facts(go(storage=f, n_trials=9))==facts(more)
    r = read_search(f)
    assert facts(r)==facts(more) and r.best==more.best
    with pytest.raises(SearchError, match='read from a file'): r.best_learner()
    r.plot('importance')

def test_timeout():
    assert len(go(timeout=0).trials)==0
    assert 'nothing' in repr(go(timeout=0))

# ---- early rejection, noise, warm starts

def engine(sp=None, n=60, seed=0, repeat=0., **kw): return S._Engine(sp or {'x': Float(0,1), 'y': Float(0,1)}, n, seed, repeat, **kw)
def tell(e, t, v): t.state,t.value,t.energy,t.curve = 'complete',v,v,[v]; e.tell(t)
def bowl(hps): return (hps['x']-.3)**2+(hps['y']-.6)**2

@pytest.mark.parametrize('kw', [{}, dict(energy='raw'), dict(accept=threshold), dict(screen=None)])
def test_limit_is_where_acceptance_ends(kw):
    e,rng,sharp = engine(**kw),np.random.default_rng(1),0
    for _ in range(60):
        t = e.ask(); lim = e.limit(t); v = bowl(t.hps)*rng.uniform(.3,3)
        if math.isfinite(lim): v = lim*(rng.choice([.97,1.03])) ; sharp += 1
        tell(e, t, v)
        if math.isfinite(lim) and v>lim: assert not t.accepted
        if math.isfinite(lim) and v<lim*.98 and e.a.energy=='raw': assert t.accepted
    assert sharp>20

def test_early_rejection_saves_epochs_and_audits():
    class Curve(Callback): # losses that follow from the hyperparameters alone
        order = 55
        def after_epoch(self):
            e = self.learn.recorder.values[-1]
            q = abs(math.log10(self.learn.q))+.1
            e[1] = q*(1+2**-self.epoch)
    def f(q): l = make(4); l.q = q; return l
    r = go(f, {'q': LogFloat(1e-2,1e2)}, n_trials=50, n_epoch=5, cbs=Curve(), repeat=0, audit=.3)
    e = r.early
    assert e['stopped']>12 and e['epochs_saved']>36 and e['epochs']+e['epochs_saved']==250
    assert e['audited']>=3 and e['wrong']==0 # curves that are exactly alike
    assert all(t.energy>0 and not t.accepted for t in r.trials if t.state=='stopped')
    none = go(f, {'q': LogFloat(1e-2,1e2)}, n_trials=20, n_epoch=5, cbs=Curve(), repeat=0, early=0)
    assert none.early['stopped']==0

def test_forecast_covers():
    rng = np.random.default_rng(0)
    def curve(): end = rng.lognormal(-1,.5); return [end*(1+math.exp(-rng.uniform(.5,2)*i))*rng.lognormal(0,.03) for i in range(5)]
    for alpha in (.05,.2):
        wrong = []
        for _ in range(300):
            cs,new = [(curve(),1.) for _ in range(60)],curve()
            cut = np.median([c[-1] for c,_ in cs])
            if new[-1]<=cut: wrong.append(new[-1]<forecast_end(new[:2], cs, alpha)[0])
        assert np.mean(wrong)<=alpha+.06
    neg = [([-.1-i/100,-.5-i/100,-.6-i/100],1.) for i in range(14)] # accuracies, as energies
    lo,mid = forecast_end([-.2], neg)
    assert -.8<lo<=mid==pytest.approx(-.7)
    assert forecast_end([.1], neg[:9])==(None,None) and forecast_end([math.nan], neg)==(None,None)

def result(*groups):
    ts = []
    for g,es in enumerate(groups):
        for i,v in enumerate(es):
            t = SearchTrial(len(ts), {'x': g}, 0, None if i==0 else len(ts)-i)
            t.state,t.value,t.energy,t.curve = 'complete',v,v,[v]; ts.append(t)
    return SearchResult(ts, {'x': Int(0,99)}, dict(metric='v', minimize=True, n_epoch=1))

def test_winner_is_by_mean_not_by_luck():
    assert result([.10],[.12,.13,.12],[.11,.3],[.4],[.5],[.6]).best['x']==1
    assert result([.3],[.2],[.25]).best['x']==1 and result([.3],[.05],[.25,.2501]).best['x']==1
    rng,regret = np.random.default_rng(0),[]
    for _ in range(200):
        true = rng.normal(0, .05, 40); first = true+rng.normal(0, .05, 40)
        gs = [[f] for f in first]
        for k in np.argsort(first)[:5]: gs[k] += list(true[k]+rng.normal(0, .05, 2))
        flat = min((v,k) for k,g in enumerate(gs) for v in g)[1]
        regret.append((true[result(*gs).best['x']]-true.min(), true[flat]-true.min()))
    w,l = np.mean(regret, 0)
    assert w<.9*l

def test_repeats_and_the_noise_that_they_measure():
    for seed in range(4):
        rng,e = np.random.default_rng(seed),engine(n=50, seed=seed, repeat=.3)
        while (t := e.ask()) is not None: tell(e, t, bowl(t.hps)+rng.normal()*.05)
        reps = [t for t in e.trials if t.repeats is not None]
        assert len(reps)==15 and sum(t.number<40 for t in reps)==7 and all(t.hps==e.trials[t.repeats].hps and t.seed!=e.trials[t.repeats].seed for t in reps)
        assert e.sigma==pytest.approx(.05, rel=.7)

def test_noise_does_not_stop_a_cold_walk():
    "A state that was measured to be better by more than the noise is moved to at any temperature, one as good now and then"
    def accepted(better, n=200):
        got = 0
        for seed in range(n):
            e = engine({'x': Float(0,1)}, 60, seed, screen=None)
            for i in range(40): t = e.ask(); tell(e, t, 1+.01*(i%20))
            e.sigma,ch = .02,e.a.chains[0]; ch.e,ch.se,e.a.i = 1.1,.01,59
            assert e.a.temp<.002
            t = e.ask(); tell(e, t, 1.1-better); got += t.accepted
        return got/n
    assert accepted(.03)>.95 and .02<accepted(0.)<.4 and accepted(-.04)<.02

def test_finals():
    r = go(n_trials=10)
    f = r.finals(3, n_epoch=3, n_seeds=2)
    assert [t.epochs for t in f.trials]==[3]*6 and len({S._key(t.hps) for t in f.trials})==3 and f.best in [t.hps for t in r.trials]
    assert len({t.seed for t in f.trials[:3]})==1 and len({t.seed for t in f.trials})==2 and [t.repeats for t in f.trials]==[None]*3+[0,1,2]
    assert f.trials[0].hps==r.best and f.best_n==2 and f.best_value==pytest.approx(min(np.mean([a.value,b.value]) for a,b in zip(f.trials[:3], f.trials[3:])))
    with f.best_learner().no_bar(): assert f.best_learner().validate()[0]==pytest.approx(f.best_trial.value, abs=1e-6)
    assert facts(f)==facts(r.finals(3, n_epoch=3, n_seeds=2)) and len(r.trials)==10 and r.settings['n_epoch']==2
    assert json.loads(f.to_json())['best']==f.best and len(f.history)==6
    seen = []
    def other(width, p): seen.append(width); return make(width, p)
    one = r.finals(4, n_seeds=1, distinct='width', make_learner=other)
    assert [t.hps['width'] for t in one.trials]==seen and len(set(seen))==len(seen) and one.settings['n_epoch']==2

def test_finals_of_models_and_what_is_no_finals():
    models = {'a': (plain, space), 'b': (lambda width: make(width), {'width': LogInt(2,8)})}
    r = anneal_search(models, n_trials=8, n_epoch=1, seed=0, progress=False)
    f = r.finals(2, n_seeds=1, distinct='model')
    assert {t.hps['model'] for t in f.trials}=={'a','b'} and all(t.state=='complete' for t in f.trials)
    for kw,msg in ((dict(n=0), 'n=0'), (dict(n_seeds=1.5), 'n_seeds=1.5'), (dict(n_epoch=0), 'n_epoch=0'), (dict(distinct='widht'), "did you mean 'width'"), (dict(make_learner=lambda: 1), 'takes no')):
        with pytest.raises(SearchError, match=msg): go(n_trials=3).finals(**kw)
    import pickle
    with pytest.raises(SearchError, match='read from a file'): pickle.loads(pickle.dumps(r)).finals()
    with pytest.raises(SearchError, match='no finalists'): SearchResult([], r.spec, r.settings, r._search).finals()

def test_warm_start_continues_and_survives(tmp_path):
    f = tmp_path/'s.jsonl'
    kw = dict(warm=True, n_trials=6, sp={'lr': LogFloat(1e-2,1.1e-2), 'width': 8}, repeat=0)
    a = go(lambda width: make(width), **kw)
    b = go(lambda width: make(width), **{**kw, 'warm': False})
    assert a.trials[-1].value<b.trials[-1].value
    n = []
    def cb(r): n.append(1); return len(n)==3
    go(lambda width: make(width), storage=f, callback=cb, **kw)
    assert facts(go(lambda width: make(width), storage=f, **kw))==facts(a)

def test_model_selection():
    def lin(p): return Learner(dls, nn.Sequential(nn.Dropout(p), nn.Linear(6,2)), loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    cands = {'linear': (lin, {'p': Float(0,.5), 'lr': LogFloat(1e-3,1)}), 'mlp': (plain, {'width': LogInt(4,32), 'lr': LogFloat(1e-3,1)})}
    r = go(cands, None, n_trials=24, n_epoch=3)
    h = r.history
    assert set(h.model)=={'linear','mlp'} and h.width[h.model=='linear'].isna().all() and r.best['model']=='mlp'
    assert (h.model=='mlp').sum()>(h.model=='linear').sum() # the promising one gets more
    assert set(r.best)=={'model','width','lr'} and r.best_learner().model[0].out_features==r.best['width']
    r.plot()
    with pytest.raises(SearchError, match="make_learner\\['mlp'\\] takes no 'widht'"): go({'mlp': (plain, {'widht': LogInt(4,32)})}, None)

# ---- several processes

def url(kind, p): return f'sqlite:///{p}/s.db' if kind=='sqlite' else f'journal:{p}/s.log'

@pytest.mark.parametrize('kind', ['sqlite','journal'])
def test_a_study_as_storage(kind, tmp_path):
    pytest.importorskip('fastai_anneal.sampler') and pytest.importorskip('optuna')
    sp = {**space, 'act': Categorical(nn.ReLU, nn.GELU), 'b': Bool(), 'sub': {'x': Float(0,1)}, 'k': Categorical({'a': {}, 'c': {'z': LogInt(1,8)}}), 'v': Vector(2), 'fix': 3}
    seen = []
    def f(width, p, act, b, sub, k, v, fix, z=None): seen.append((act, b, sub['x'], k, z, v.shape, fix)); return make(width, p)
    u = url(kind, tmp_path)
    a = go(f, sp, storage=u, n_trials=6)
    assert len(a.trials)==6 and {o[0] for o in seen}<={nn.ReLU,nn.GELU} and all((o[3]=='c')==(o[4] is not None) and o[5]==(2,) and o[6]==3 for o in seen)
    with pytest.raises(SearchError, match='cannot be opened'): go(storage='sqlite:////no/such/folder/x.db')
    n = len(seen)
    more = go(f, sp, storage=u, n_trials=9)
    assert len(more.trials)==9 and len(seen)==n+3 and facts(more)[:6]==facts(a)
    l = more.best_learner(retrain=True)
    with l.no_bar(): assert l.validate()[0]==pytest.approx(more.best_trial.value, abs=1e-6)
    more.plot(); json.loads(more.to_json())
    with pytest.raises(SearchError, match='seed=0, not 1'): go(f, sp, storage=u, n_trials=9, seed=1)
    assert len(go(f, sp, storage=u, n_trials=9, seed=None).trials)==9
    with pytest.raises(SearchError, match='warm'): go(f, sp, storage=u, warm=True)
    with pytest.raises(SearchError, match='start'): go(f, sp, storage=u, start={'lr': .1})
    import optuna
    st = optuna.load_study(study_name='anneal_search', storage=S._study_storage(u))
    assert len(st.trials)==9 and all('anneal' in t.system_attrs for t in st.trials) and st.trials[0].intermediate_values

def test_study_maximises_fails_and_prunes(tmp_path):
    optuna = pytest.importorskip('fastai_anneal.sampler') and pytest.importorskip('optuna')
    n = iter(range(99))
    def f(width, p):
        if next(n)==3: raise RuntimeError('no')
        return make(width, p)
    r = go(f, storage=url('sqlite', tmp_path), metric='accuracy', n_trials=16, n_epoch=3, pruner=optuna.pruners.MedianPruner(n_startup_trials=4))
    assert r.trials[3].state=='failed' and 'no' in r.trials[3].error and any(t.state=='stopped' for t in r.trials)
    assert r.best_value>.5 and r.sign==-1

@pytest.mark.parametrize('kind', ['sqlite','journal'])
def test_four_workers_one_killed(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(S, '_lock_grace', 8) # the forked workers see it too
    optuna = pytest.importorskip('fastai_anneal.sampler') and pytest.importorskip('optuna')
    u,n = url(kind, tmp_path),14
    def worker(i):
        class Slow(Callback):
            def after_epoch(self): time.sleep(.02)
        go(storage=u, n_trials=n, cbs=Slow(), early=0)
    ps = [forked(worker, i) for i in range(4)]
    st = None
    def at_work(t): return t.state.name=='RUNNING' and t.user_attrs.get('who', [0,0])[1]==ps[1].pid and 'seed' in t.user_attrs and len(t.intermediate_values)<2
    for _ in range(1500): # until it trains: killed while it asks, it has nothing yet that could be done again
        time.sleep(.01)
        try: st = st or optuna.load_study(study_name='anneal_search', storage=S._study_storage(u))
        except Exception: continue
        ts = st.get_trials()
        if sum(t.state.name=='COMPLETE' for t in ts)>=3 and any(map(at_work, ts)): break
    os.kill(ps[1].pid, signal.SIGKILL)
    for p in ps: p.join()
    assert [p.exitcode for p in ps]==[0,-9,0,0]
    r = go(storage=u, n_trials=n, early=0)
    assert len(r.trials)==n and all(t.state=='complete' for t in r.trials)
    ts = st.get_trials()
    lost = [t for t in ts if t.user_attrs.get('lost')=='killed']
    again = [t.user_attrs['again'] for t in ts if 'again' in t.user_attrs]
    assert len(lost)<=1 and again==[t.number for t in lost]
    assert len({t.seed for t in r.trials})==n # nothing was trained twice
    assert len({t.user_attrs['who'][1] for t in ts})>=3

def test_reading_what_is_no_file_of_a_search(tmp_path):
    with pytest.raises(SearchError, match='Optuna study.*same arguments'): read_search('sqlite:///a.db')
    with pytest.raises(SearchError, match='no file'): read_search(tmp_path/'nothing.jsonl')
