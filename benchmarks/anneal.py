"""anneal against other searches that know only the values of a function

    python benchmarks/anneal.py            # 5 functions in 2 and 10 dimensions or mixed, 100 and 300 evaluations, 7 seeds
    python benchmarks/anneal.py --full     # all functions, 2, 5 and 10 dimensions, up to 1000 evaluations, 30 seeds: hours, mostly of TPE
    python benchmarks/anneal.py --full --seeds 10 --cache peers    # the peers' runs are kept in the folder and not repeated
    python benchmarks/anneal.py --ablation # what of it is Metropolis: the same proposals, accepted by Metropolis, greedily, always

Peers (pip install scipy hyperopt optuna): scipy's dual_annealing without local search, hyperopt's anneal, Optuna's random and TPE.
Median of the best value over the seeds, all in one run. The optimum of every function is shifted by a random amount, the same for
all searches at the same seed, so that none gains from looking at the middle. A cell is won when ours is not worse than *any* peer.
"""
import argparse,os,time,warnings,math,logging; warnings.filterwarnings('ignore')
import numpy as np
from fastai_anneal.anneal import *

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument('--full', action='store_true'); p.add_argument('--seeds', type=int); p.add_argument('--budgets'); p.add_argument('--funcs')
p.add_argument('--cache', help='folder for the results of the peers'); p.add_argument('--ablation', action='store_true')
p.add_argument('--plot', help='file for the figure'); p.add_argument('--dims'); p.add_argument('--methods', default='anneal,dual_annealing,hyperopt,random,tpe'); p.add_argument('--gp', action='store_true', help='also anneal with screen="gp"')

def rastrigin(x): return 10*len(x)+(x**2-10*np.cos(2*np.pi*x)).sum()
def rosenbrock(x): return (100*(x[1:]-x[:-1]**2)**2+(1-x[:-1])**2).sum()
def ackley(x): return -20*np.exp(-.2*np.sqrt((x**2).mean()))-np.exp(np.cos(2*np.pi*x).mean())+20+math.e
def griewank(x): return 1+(x**2).sum()/4000-np.cos(x/np.sqrt(np.arange(1,len(x)+1))).prod()
CONT = dict(rastrigin=(rastrigin,5.12), rosenbrock=(rosenbrock,5.), ackley=(ackley,32.), griewank=(griewank,600.))

class Continuous:
    def __init__(self, name, d, seed):
        self.f,self.r = CONT[name]
        self.shift = np.random.default_rng([seed,d]).uniform(-.3,.3,d)*self.r
        self.space = {f'x{i}': Float(-self.r,self.r) for i in range(d)}
        if name=='rosenbrock': self.shift *= .2
    def __call__(self, v): return float(self.f(np.array(list(v.values()))-self.shift))

class Mixed:
    "A made-up training: learning rate, weight decay, layers, width, activation, normalisation, with interactions"
    space = {'lr': LogFloat(1e-5,1), 'wd': LogFloat(1e-6,1), 'layers': Int(1,8), 'width': LogInt(8,1024), 'act': Categorical('relu','gelu','tanh','sin'), 'bn': Bool()}
    def __init__(self, name, d, seed): self.o = np.random.default_rng([seed,99]).uniform(-.5,.5,4); self.hard = name=='mixed2'
    def __call__(self, v):
        o,l = self.o,math.log10(v['lr'])+2.5
        a = dict(relu=.1,gelu=0.,tanh=.4,sin=.8)[v['act']]
        r = (l-o[0]+.2*(v['layers']-4)*(not v['bn']))**2+.2*(math.log10(v['wd'])+3-o[1])**2+.1*(v['layers']-4-round(2*o[2]))**2+.5*(math.log2(v['width'])-7-o[3])**2/4+a*(1+.3*abs(l))
        return r+(.3*(1-math.cos(6*(l-o[0]))) if self.hard else 0.)+.2*(not v['bn'])

def problem(name, d, seed): return (Mixed if name.startswith('mixed') else Continuous)(name, d, seed)

def ours(f, n, seed, **kw): return [anneal(f, f.space, n, seed=seed, **kw).best_energy]
def dual(f, n, seed):
    from scipy.optimize import dual_annealing
    s,best = Space(f.space),[]
    def g(u):
        best.append(f(s.value(np.clip(u,0,1))))
        return best[-1]
    dual_annealing(g, [(0,1)]*s.n, no_local_search=True, maxfun=n, maxiter=10*n, seed=seed)
    return np.minimum.accumulate(best[:n])
def hyper(f, n, seed):
    import hyperopt; from hyperopt import hp
    logging.getLogger('hyperopt').setLevel(logging.ERROR)
    def one(k,d):
        if isinstance(d, Categorical): return hp.choice(k, d.choices)
        if isinstance(d, (LogFloat,LogInt)): return (hp.loguniform if isinstance(d, LogFloat) else lambda k,a,b: hp.qloguniform(k,a,b,1))(k, math.log(d.lo), math.log(d.hi))
        return hp.uniform(k, d.lo, d.hi) if isinstance(d, Float) else hp.quniform(k, d.lo, d.hi, 1)
    fix = lambda v: {k:(min(max(int(x),f.space[k].lo),f.space[k].hi) if isinstance(f.space[k], (Int,LogInt)) else x) for k,x in v.items()}
    t = hyperopt.Trials()
    hyperopt.fmin(lambda v: f(fix(v)), {k:one(k,d) for k,d in f.space.items()}, algo=hyperopt.anneal.suggest, max_evals=n, trials=t, rstate=np.random.default_rng(seed), show_progressbar=False, verbose=False)
    return np.minimum.accumulate(t.losses())
def opt(f, n, seed, cls):
    import optuna; optuna.logging.set_verbosity(optuna.logging.ERROR)
    def one(t,k,d):
        if isinstance(d, Categorical): return t.suggest_categorical(k, d.choices)
        log = isinstance(d, (LogFloat,LogInt))
        return (t.suggest_float if isinstance(d, (Float,LogFloat)) else t.suggest_int)(k, d.lo, d.hi, log=log)
    st = optuna.create_study(sampler=getattr(optuna.samplers, cls)(seed=seed))
    st.optimize(lambda t: f({k:one(t,k,d) for k,d in f.space.items()}), n_trials=n)
    return np.minimum.accumulate([t.value for t in st.trials])
METHODS = dict(anneal=ours, dual_annealing=dual, hyperopt=hyper, random=lambda f,n,s: opt(f,n,s,'RandomSampler'), tpe=lambda f,n,s: opt(f,n,s,'TPESampler'),
               gp=lambda f,n,s: ours(f,n,s,screen='gp'))
AWARE = ('anneal','gp') # know the budget: one run for each; the others' shorter runs are the beginning of the longest

def overhead(n=2000, d=10):
    "Microseconds of CPU time for an evaluation, on a smooth function (less what it takes itself) or on noise, whichever is more"
    return max(_overhead(n, d, lambda v: sum((x-.3)**2 for x in v.values())), _overhead(n, d, lambda v: hash(v['x0'])%1013))

def _overhead(n, d, f):
    a = Annealer({f'x{i}': Float(0,1) for i in range(d)}, n, seed=0)
    t = time.process_time()
    for i in range(n): a.tell(f(a.ask()))
    t,vs = time.process_time()-t,[a.space.value(u) for u in a.us]
    u = time.process_time()
    for v in vs: f(v)
    return (t-(time.process_time()-u))/n*1e6

def peer(m, fn, d, s, n, cache):
    "Best so far of a peer that does not know the budget, over `n` evaluations"
    path = cache and os.path.join(cache, f'{m}-{fn}-{d}-{s}-{n}.npy')
    if path and os.path.exists(path): return np.load(path)
    r = METHODS[m](problem(fn,d,s), n, s)
    if path: os.makedirs(cache, exist_ok=True); np.save(path, r)
    return r

def best_values(m, fn, d, s, budgets, cache=None):
    "Best value of method `m` at each budget"
    if m in AWARE: return [METHODS[m](problem(fn,d,s), b, s)[-1] for b in budgets]
    r = peer(m, fn, d, s, budgets[-1], cache)
    return [r[b-1] for b in budgets]

def cells(funcs, dims): return [(fn,d) for fn in funcs for d in ([6] if fn.startswith('mixed') else dims)]

def compare(ms, funcs, dims, budgets, seeds, cache=None):
    "`{(function, dimensions): array of seeds x methods x budgets}`"
    res,secs = {},{m:0. for m in ms}
    for fn,d in cells(funcs, dims):
        res[fn,d] = np.zeros((seeds,len(ms),len(budgets)))
        for s in range(seeds):
            for i,m in enumerate(ms):
                t = time.process_time(); res[fn,d][s,i] = best_values(m, fn, d, s, budgets, cache); secs[m] += time.process_time()-t
        med = np.median(res[fn,d], 0)
        for j,b in enumerate(budgets): print(f'{fn:>12} {d:>3}d {b:>6}  '+''.join(f'{o:>16.4g}' for o in med[:,j]), flush=True)
    print('seconds in all              '+''.join(f'{o:>16.1f}' for o in secs.values()))
    return res

def verdict(res, ms, budgets, ours='anneal'):
    med = np.stack([np.median(r, 0) for r in res.values()]) # cells x methods x budgets
    i = ms.index(ours); rest = [k for k,m in enumerate(ms) if m not in ('anneal','gp')]
    beat = (med[:,[i]]<=med).sum((0,2)); n = len(res)*len(budgets)
    print(f'{ours} not worse             '[:28]+''.join(f"{f'{o}/{n}':>16}" for o in beat))
    if not rest: return
    won = med[:,i]<=med[:,rest].min(1)
    print(f'{ours} not worse than every peer: {won.sum()}/{n} cells = {100*won.mean():.0f}%   '+'  '.join(f'{b} evaluations: {w.sum()}/{len(w)}' for b,w in zip(budgets, won.T)))

def figure(res, ms, budgets, path):
    "Rank of each method's median at each budget, averaged over the cells"
    import matplotlib; matplotlib.use('agg'); import matplotlib.pyplot as plt
    from scipy.stats import rankdata
    med = np.stack([np.median(r, 0) for r in res.values()])
    ax = plt.subplots(figsize=(6,4), layout='constrained')[1]
    for m,r in zip(ms, rankdata(med, axis=1).mean(0)): ax.plot(budgets, r, 'o-', label=m, lw=3 if m=='anneal' else 1.5)
    ax.set(xscale='log', xlabel='evaluations', ylabel='mean rank of the median best value (1 is best)', xticks=budgets, xticklabels=budgets); ax.minorticks_off(); ax.legend()
    ax.figure.savefig(path, dpi=110)

RULES = dict(metropolis=dict(accept=metropolis), greedy=dict(accept=threshold, schedule=Geometric(1e-12,1e-13)), always=dict(accept=lambda de,t,se=0: 1.))
def ablation(funcs, dims, budgets, seeds):
    "The same proposals under three acceptance rules, with all kinds of proposals and with only the plain ones of the textbook"
    for name,kw in (('default proposals',{}),('plain walk',dict(moves='all', adapt=False, reheat=0, n_init=1))):
        wins,n = {k:0. for k in RULES},0
        for fn,d in cells(funcs, dims):
            for b in budgets:
                es = {k:np.array([anneal(f := problem(fn,d,s), f.space, b, seed=s, **kw, **r).best_energy for s in range(seeds)]) for k,r in RULES.items()}
                print(f'{name:<18}{fn:>11} {d:>2}d {b:>5}  '+''.join(f'{k} {np.median(e):>10.4g}   ' for k,e in es.items()), flush=True)
                for k in RULES: wins[k] += (es['metropolis']<es[k]).mean()+.5*(es['metropolis']==es[k]).mean()
                n += 1
        print(f'{name}: at the same seed, Metropolis ends lower (ties half) than '+', '.join(f'{k} in {100*w/n:.0f}%' for k,w in wins.items() if k!='metropolis')+f' of {n*seeds} runs')

def main():
    args = p.parse_args()
    print(f'own overhead (CPU time), 10 dimensions: {min(overhead() for _ in range(3)):.0f} us for an evaluation')
    budgets = [int(o) for o in args.budgets.split(',')] if args.budgets else [100,300,1000] if args.full else [100,300]
    dims = [int(o) for o in args.dims.split(',')] if args.dims else [2,5,10] if args.full else [2,10]
    funcs = args.funcs.split(',') if args.funcs else [*CONT,'mixed','mixed2'] if args.full else ['rastrigin','rosenbrock','ackley','griewank','mixed']
    seeds,ms = args.seeds or (30 if args.full else 7),args.methods.split(',')+(['gp'] if args.gp else [])
    if args.ablation: return ablation(funcs, dims, budgets, seeds)
    print(f"{'median best of '+str(seeds):<26}"+''.join(f'{m:>16}' for m in ms))
    res = compare(ms, funcs, dims, budgets, seeds, args.cache)
    for m in ('anneal','gp'):
        if m in ms: verdict(res, ms, budgets, m)
    if args.plot: figure(res, ms, budgets, args.plot)

if __name__=='__main__': main()
