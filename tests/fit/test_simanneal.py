"Contracts of SimAnnealHP: what is rejected leaves no trace, what is accepted is trained, a fit cannot be lost"
import itertools,math,pickle,re,warnings
from copy import deepcopy
from functools import partial
import pytest
from fastai.basics import *
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import *
from fastai.callback.tracker import *
from fastai.callback.training import *
from fastai_anneal.annealing.space import *
from fastai_anneal.core.generators import rng_state
from fastai_anneal.fit.plan import plan_rounds
from fastai_anneal.fit.simanneal import SimAnnealHP
from fastai_anneal.learner import TrainLearner
from fastai_anneal.schedule.family import CosineAnneal
from fastai_anneal.schedule.checkpoint import Checkpoint
from helpers import *
from .common import *

LR_WD = {**LR, 'wd': LogFloat(1e-5,.3)}
N_ITER = 16
def learner(n=256, n_valid=120, lr=1e-3, opt='sgd', dropout=0., metrics=accuracy, **kwargs):
    return small_learner(partial(blobs, n=n, n_valid=n_valid), opt=opt, width=16, dropout=dropout, lr=lr, metrics=metrics, **kwargs)

def in_fit(learn): return not learn.sim_anneal_hp.in_trial

@pytest.mark.parametrize('opt', ['sgd','adam','adamw'])
@pytest.mark.parametrize('every', ['1ep','7it','40%'])
@pytest.mark.parametrize('cb', [None, GradientClip, partial(GradientAccumulation, 40), partial(ReduceLROnPlateau, patience=1)])
def test_rejecting_all_is_as_if_it_was_not_there(opt, every, cb):
    cbs = [[cb()] if cb else [] for _ in range(2)]
    a = fit(learner(opt=opt, dropout=.3), 3, *cbs[0])
    after_a = rng_state()
    sa = SimAnnealHP(LR_WD, every=every, accept=never, cool=0, seed=1)
    b = fit(learner(opt=opt, dropout=.3), 3, *cbs[1], sa)
    after_b = rng_state()
    assert len(sa.history) and not sa.history.accepted.any()
    assert torch.equal(weights(a), weights(b)) and str(a.opt.hypers)==str(b.opt.hypers)
    for what in ('losses','values','lrs'): assert getattr(a.recorder, what)==getattr(b.recorder, what)
    assert torch.equal(after_a['torch'], after_b['torch']) and after_a['python']==after_b['python']

@pytest.mark.parametrize('opt', ['sgd','adam','adamw'])
def test_a_fit_that_keeps_its_rate_is_one_cycle(opt):
    "Bit for bit, also where groups have rates of their own"
    a,b = learner(opt=opt, splitter=two_groups),learner(opt=opt, splitter=two_groups)
    a.fit_one_cycle(4, slice(.001,.01))
    b.fit(4, slice(.001,.01), cbs=SimAnnealHP(LR_WD, accept=never, seed=0))
    assert torch.equal(weights(a), weights(b)) and a.recorder.values==b.recorder.values and a.recorder.losses==b.recorder.losses

def test_nothing_to_anneal():
    assert torch.equal(weights(fit(learner(), 2)), weights(fit(learner(), 2, SimAnnealHP({}))))

@pytest.mark.parametrize('every', ['1ep','7it','3ep','100%'])
def test_same_seed_same_fit(every):
    def one(seed):
        sa = SimAnnealHP(LR, every=every, seed=seed)
        return sa,fit(learner(dropout=.2), 3, sa)
    (a,learn_a),(b,learn_b),(c,_) = one(3),one(3),one(4)
    assert torch.equal(weights(learn_a), weights(learn_b))
    pd.testing.assert_frame_equal(a.history, b.history)
    assert a.history.lr.tolist()!=c.history.lr.tolist()

@pytest.mark.parametrize('lr', [1e-4,3.,1e4])
def test_rescues_a_bad_start(lr):
    learn,sa = learner(512, lr=lr),SimAnnealHP(LR, seed=0)
    fit(learn, 5, sa)
    alone,good = fit(learner(512, lr=lr), 5),learner(512)
    good.fit_one_cycle(5, .03)
    assert valid_loss(learn)<1.25*valid_loss(good) and not valid_loss(learn)>valid_loss(alone)
    assert sa.n_trained<=5*len(learn.dls.train)

@pytest.mark.parametrize('monitor', ['accuracy','valid_loss'])
def test_monitor(monitor):
    learn,sa = learner(512, lr=1e-4),SimAnnealHP(LR, seed=0, monitor=monitor)
    fit(learn, 4, sa)
    assert learn.recorder.values[-1][2]>.8 and (monitor=='valid_loss' or sa.history.value.max()<=1)

def test_accepting_all_keeps_the_candidates_books():
    learn,sa = learner(),SimAnnealHP(LR, accept=always, cool=0, seed=0)
    took = Record(lambda learn: None if sa.in_trial else sa.values['lr'], 'after_batch', order=71)
    fit(learn, 2, sa, took)
    assert len(learn.recorder.losses)==len(learn.recorder.lrs)==len(sa.log['lr'])==2*N_ITER
    np.testing.assert_allclose(learn.recorder.lrs, sa.log['lr'])
    rows = sa.history[np.isfinite(sa.history.value)]
    assert rows[rows.stage=='round'].accepted.all() and not rows[rows.stage=='bracket'].accepted.any()
    assert sa.log['lr'][0]==rows[rows.stage=='winner'].lr.item() in took.seen # in the books from the first batch on

@pytest.mark.parametrize('accept', [always,never])
def test_later_callbacks_hear_each_batch_once(accept):
    "What a callback after ours counts is what the fit trained, whether candidates are accepted or not"
    class Count(Callback):
        order = 90
        def before_fit(self): self.heard = dict(before_batch=0, after_step=0, after_batch=0)
        def before_batch(self): self.heard['before_batch'] += self.training
        def after_step(self): self.heard['after_step'] += 1
        def after_batch(self): self.heard['after_batch'] += self.training
    sa,count = SimAnnealHP(LR_WD, accept=accept, every='5it', seed=0),Count()
    fit(learner(), 3, count, sa)
    assert (sa.history.accepted.sum()>1)==(accept is always)
    assert set(count.heard.values())=={3*N_ITER} and count.run

@pytest.mark.parametrize('n_epoch', [5,20,40])
def test_cycles_longer_than_an_epoch(n_epoch):
    "In a long fit the longer cycles at the start are longer than an epoch: its batches again, in another order, with other random numbers"
    learn,sa = learner(dropout=.2),SimAnnealHP(LR, seed=0)
    def read(learn): return sa.in_trial,learn.x.sum().item(),torch.get_rng_state().sum().item(),learn.opt.hypers[0]['lr']
    record = Record(read, order=71)
    fit(learn, n_epoch, sa, record)
    n = plan_rounds(n_epoch, N_ITER, N_ITER, want=2)[0].length
    rows = sa.history[sa.history.stage.isin(['survey','control','bracket'])]
    assert set(rows[rows.stage!='survey'].n)=={n} and (n>N_ITER)==(n_epoch>10) and sa.n_trained<=n_epoch*N_ITER
    seen = [o[1:] for o in record.seen if o[0]]
    trials = [seen[end-n_trial:end] for end,n_trial in zip(rows.n.cumsum(), rows.n)]
    long = [trial for trial in trials if len(trial)==n]
    assert len(long)==4 and len({tuple(o[:2] for o in trial) for trial in long})==1 # all of them the same
    first,second = long[0][:N_ITER],long[0][N_ITER:2*N_ITER]
    if n>=2*N_ITER:
        assert {o[0] for o in first}=={o[0] for o in second} and [o[0] for o in first]!=[o[0] for o in second]
        assert len({o[:2] for o in first}&{o[:2] for o in second})<=N_ITER//4
    for trial in long: # one whole cycle: up, and down to nothing
        lrs = [o[2] for o in trial]
        top = int(np.argmax(lrs))
        assert .15<top/n<.35 and (np.diff(lrs[:top])>0).all() and (np.diff(lrs[top+1:])<0).all() and lrs[-1]<.1*lrs[top]

def test_the_bar_tells_how_far_the_trials_are(monkeypatch):
    clock,said = itertools.count(),[]
    monkeypatch.setattr('fastai_anneal.fit.trials.time.monotonic', lambda: next(clock))
    learn,sa = learner(),SimAnnealHP(LR, seed=0)
    class Shown(Callback): name = 'progress'
    class Bar:
        comment,last_v,start_t,total = '.5',7,0,16
        def update_bar(self, v): said.append((v, self.comment))
    learn.add_cb(Shown())
    learn.progress.pbar = Bar()
    fit(learn, 6, sa)
    shares = [float(re.fullmatch(r'\.5 \| screening (\d+)% lr=[\d.e-]+', text)[1]) for _,text in said if 'screening' in text]
    assert len(shares)>50 and shares==sorted(shares) and shares[0]<3 and shares[-1]==100 and {v for v,_ in said}=={7}
    assert any(re.fullmatch(r'\.5 \| trying \d+% lr=[\d.e-]+', text) for _,text in said) and 'taken' in learn.progress.pbar.comment

@pytest.mark.parametrize('columns', [60,80,100,200])
def test_the_bar_fits_the_terminal(columns, monkeypatch, capfd):
    monkeypatch.setenv('COLUMNS', str(columns))
    monkeypatch.setattr('fastprogress.fastprogress.printing', lambda: True)
    learn = learner()
    learn.add_cb(ProgressCallback())
    fit(learn, 6, SimAnnealHP(LR_WD, seed=0))
    lines = re.split(r'[\r\n]', capfd.readouterr().out)
    bars = [line for line in lines if '%' in line and '|' in line]
    assert bars and max(map(len, bars))<=columns
    assert columns<80 or any('taken' in line for line in bars)

def test_a_line_after_the_fit(capsys):
    learn,sa = learner(),SimAnnealHP(LR, seed=0)
    assert repr(sa)=='SimAnnealHP'
    fit(learn, 6, sa)
    assert 'SimAnnealHP' not in capsys.readouterr().out # under `no_logging`
    assert re.fullmatch(r'SimAnnealHP: lr=[\d.e-]+; \d+ of \d+ candidates accepted, \d+ batches spent on them; held-out valid_loss [\d.]+', repr(sa))

@pytest.mark.parametrize('kwargs,msg', [
    (dict(monitor='accurracy'), "did you mean 'accuracy'"), (dict(every='4ep'), 'from 1 to 48'), (dict(every='soon'), 'bad duration'),
    (dict(every='0it'), 'from 1 to 48'), (dict(budget=2), 'budget=2'), (dict(n_try=0), 'n_try=0'), (dict(budget=.01), 'no batch for a candidate'),
    (dict(holdout=1), 'holdout=1'), (dict(max_gb=0), 'max_gb=0'), (dict(mode='less'), "mode='less'"), (dict(n_valid=0), 'n_valid=0'),
    (dict(n_valid=.5), 'n_valid=0.5'), (dict(n_valid='1024'), "n_valid='1024'")])
def test_bad_arguments_touch_nothing(kwargs, msg):
    learn = learner()
    before = fingerprint(learn)
    with pytest.raises(ValueError, match=msg): fit(learn, 3, SimAnnealHP(LR, **kwargs), lr=.5)
    assert_same(before['model'], fingerprint(learn)['model'])
    assert learn.lr==1e-3 and '_do_epoch' not in learn.__dict__ and not getattr(learn.recorder, 'values', [])

@pytest.mark.parametrize('valid', [[], [DataLoader([], bs=4)]])
def test_no_validation_set(valid):
    learn = learner()
    learn.dls = DataLoaders(learn.dls.train, *valid)
    with pytest.raises(ValueError, match='validation set'): fit(learn, 3, SimAnnealHP(LR))

def test_one_batch_loaders():
    sa = SimAnnealHP(LR, seed=0)
    fit(learner(16), 5, sa)
    assert 0<sa.n_trained<=5

def test_validate_and_get_preds_are_left_alone():
    sa = SimAnnealHP(LR, every='50ep')
    learn = learner(cbs=sa)
    learn.validate()
    learn.get_preds()
    sa.every = '1ep'
    fit(learn, 2)
    n = len(sa.history)
    learn.validate()
    learn.get_preds()
    assert len(sa.history)==n>0

def test_pickles_and_exports(tmp_path):
    sa = SimAnnealHP(LR, seed=0)
    learn = learner(cbs=sa, path=tmp_path)
    fit(learn, 2)
    learn.export('x.pkl')
    loaded = load_learner(tmp_path/'x.pkl')
    pd.testing.assert_frame_equal(loaded.sim_anneal_hp.history, sa.history)
    assert loaded.sim_anneal_hp.score==sa.score and pickle.loads(pickle.dumps(SimAnnealHP(LR))).space==Space(LR)

@pytest.mark.parametrize('error', [KeyboardInterrupt(), RuntimeError('boom')])
@pytest.mark.parametrize('in_trial', [True,False])
def test_interrupted(error, in_trial):
    "The incumbent is left, finite, and nothing of the candidate"
    learn,sa,count = learner(),SimAnnealHP(LR, accept=never, seed=0, cool=0),itertools.count(1)
    stop = RaiseAt(lambda learn: sa.in_trial==in_trial and next(count)==5, error, 'after_batch', order=100)
    with pytest.raises(type(error)): fit(learn, 3, sa, stop)
    n = plan_rounds(3, N_ITER, N_ITER, want=2)[0].length if in_trial else 5
    ref = learner()
    with pytest.raises(KeyboardInterrupt): fit(ref, 3, StopAt(n, 'after_batch'))
    assert torch.equal(weights(learn), weights(ref)) and '_do_epoch' not in learn.__dict__
    fit(learn, 1)
    assert math.isfinite(valid_loss(learn))

def fill(learn, value):
    for p in learn.model.parameters(): p.data.fill_(value)

def test_a_fit_cannot_be_lost():
    "NaN weights in the middle of an epoch: back to the last good ones"
    learn,sa = learner(lr=1e-2),SimAnnealHP(LR, seed=0)
    poison = On('after_batch', lambda learn: learn.training and learn.train_iter==24 and in_fit(learn) and fill(learn, math.nan), order=0)
    fit(learn, 4, sa, poison)
    assert torch.isfinite(weights(learn)).all() and all(math.isfinite(v[1]) for v in learn.recorder.values)
    assert 'recover' in set(sa.history.stage)

def test_divergence_of_all_is_left_out():
    learn = learner(lr=1e-2)
    diverge = On('after_batch', lambda learn: learn.training and 20<learn.train_iter<=36 and fill(learn, math.nan), order=90)
    fit(learn, 5, SimAnnealHP(LR, seed=0), diverge)
    assert torch.isfinite(weights(learn)).all()

def test_multiplies_a_schedule():
    a,b,c = learner(),learner(),learner()
    sa = SimAnnealHP(LR, seed=0, front=0)
    a.fit_one_cycle(3, .02, cbs=sa)
    assert sa.log['lr'][0]==pytest.approx(.02/25, rel=1e-3) and a.recorder.lrs[-1]<1e-2*max(a.recorder.lrs)
    b.fit_one_cycle(3, .02, cbs=SimAnnealHP(LR, seed=0, accept=never))
    c.fit_one_cycle(3, .02)
    np.testing.assert_allclose(b.recorder.lrs, c.recorder.lrs)

@pytest.mark.parametrize('opt,mom', [('adam',.9), (partial(SGD, mom=0.),0.)])
def test_momentum_is_cycled_as_in_one_cycle(opt, mom):
    def moms(method, *cbs):
        learn,record = learner(lr=.01, opt=opt),Record(lambda learn: (not hasattr(learn, 'sim_anneal_hp') or in_fit(learn), learn.opt.hypers[0]['mom']), 'before_step')
        getattr(learn, method)(3, .01, cbs=[*cbs, record])
        return np.array([value for is_fit,value in record.seen if is_fit]),learn
    annealed,learn = moms('fit', SimAnnealHP(LR, accept=never, seed=0))
    assert learn.opt.hypers[0]['mom']==mom
    if not mom:
        assert not annealed.any()
        return
    np.testing.assert_allclose(annealed, moms('fit_one_cycle')[0], atol=1e-6)
    kept,_ = moms('fit', SimAnnealHP({**LR, 'mom': LinFloat(.8,.95)}, accept=never, seed=0))
    assert set(kept.round(6))=={.9}

def test_trackers(tmp_path):
    learn = learner(path=tmp_path)
    fit(learn, 4, SimAnnealHP(LR, seed=0), SaveModelCallback(), EarlyStoppingCallback(patience=3))
    best = min(v[1] for v in learn.recorder.values)
    assert learn.validate()[0]==pytest.approx(best, rel=1e-5)

def test_mixed_precision():
    learn,sa = learner(),SimAnnealHP(LR, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        fit(learn, 2, sa, MixedPrecision())
    assert math.isfinite(valid_loss(learn)) and len(sa.history)

def test_bars_and_plot():
    learn,sa = learner(progress=True),SimAnnealHP(LR, seed=0)
    learn.logger = noop
    fit(learn, 2, sa)
    with learn.no_bar(): fit(learn, 2, SimAnnealHP(LR, seed=0))
    assert len(sa.plot())==2

@pytest.mark.parametrize('cls', [Learner,TrainLearner])
def test_no_attribute_shadows_the_learner(cls, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        fit(learner(cls=cls, path=tmp_path), 2, SimAnnealHP(LR, seed=0), CosineAnneal(), Checkpoint('a'))
    assert not [w for w in caught if 'shadowing' in str(w.message)]

class Scaled(Callback):
    "Steps through a `GradScaler`, as `MixedPrecision` does, on the CPU; a candidate makes its scale overflow"
    order = MixedPrecision.order
    def before_fit(self): self.learn.scaler,self.ends = torch.amp.GradScaler('cpu', init_scale=2.**10, growth_interval=4),[]
    def before_backward(self): self.learn.loss_grad = self.scaler.scale(self.loss_grad)
    def before_step(self):
        "fastai's `Optimizer` is none that `GradScaler` knows: unscale and step as it does in `MixedPrecision`"
        self.skip = True
        if self.learn.sim_anneal_hp.in_trial: self.learn.opt.all_params()[0][0].grad.fill_(math.inf)
        self.scaler.step(self)
        if self.skip: raise CancelStepException()
    def after_step(self): self.scaler.update()
    @property
    def param_groups(self): return self.opt.param_groups
    def step(self, *args, **kwargs): self.skip = False
    def after_batch(self):
        if self.training and not self.learn.sim_anneal_hp.in_trial: self.ends.append(dict(self.scaler.state_dict()))

def test_the_scaler_goes_back_too():
    a,b,sa = learner(),learner(),SimAnnealHP(LR, seed=0, accept=never, cool=0)
    scaled_a,scaled_b = Scaled(),Scaled()
    fit(a, 3, sa, scaled_a)
    fit(b, 3, SimAnnealHP({}), scaled_b)
    assert sa.n_trained and not sa.history.accepted.any()
    assert scaled_a.ends==scaled_b.ends and len({o['scale'] for o in scaled_a.ends})>1
    assert torch.equal(weights(a), weights(b))

@pytest.mark.parametrize('monitor', ['valid_loss','accuracy'])
def test_held_out_items_are_never_judged_by(monitor):
    sa,learn,judged = SimAnnealHP(LR, seed=0, holdout=.6, monitor=monitor),learner(),[]
    fit(learn, 3, sa, On('before_train', lambda learn: judged.append(torch.cat([b[0] for b in sa.trials.bench.judge.batches]))))
    x,y = [torch.stack(o) for o in zip(*learn.dls.valid.dataset)]
    used = (x[:,None]==judged[0][None]).all(-1).any(-1)
    assert used.sum()==40==len(judged[0]) and len(sa.scores)==3
    learn.model.eval()
    with torch.no_grad(): pred = learn.model(x[~used])
    want = F.cross_entropy(pred, y[~used]) if monitor=='valid_loss' else (pred.argmax(1)==y[~used]).float().mean()
    assert sa.score==pytest.approx(want.item(), rel=1e-5)

def test_held_out_as_a_column():
    "`ValueMetric(sa.held_out)` records the score of each epoch, changes nothing else, and can be pickled"
    a,b = SimAnnealHP(LR, seed=0),SimAnnealHP(LR, seed=0)
    without,learn = learner(),learner(metrics=[accuracy, ValueMetric(b.held_out)])
    fit(without, 4, a)
    fit(learn, 4, b)
    assert learn.recorder.metric_names[-2]=='held_out' and math.isnan(SimAnnealHP(LR).held_out())
    assert [v[-1] for v in learn.recorder.values]==b.scores==a.scores
    assert [v[:-1] for v in learn.recorder.values]==without.recorder.values
    learn.validate()
    assert b.score==b.scores[-1] and len(b.scores)==4
    assert pickle.loads(pickle.dumps(learn.metrics[-1])).value==b.score

def test_more_items_judge_where_segments_are_long():
    "By default a quarter of the items that the longest segment trains"
    def n_judged(**kwargs):
        sa,learn,got = SimAnnealHP(LR, seed=0, **kwargs),learner(8000, 24000),[]
        def count(learn):
            got.append(sum(find_bs(b) for b in sa.trials.bench.judge.batches))
            raise CancelFitException
        fit(learn, 8, sa, On('before_train', count))
        return got[0]
    longest = max(o.length for o in plan_rounds(8, 500, 500, want=2))
    assert 24000//n_judged()==24000//(longest*16//4) and n_judged()>1500 and n_judged(n_valid=100)==100

def test_rounds_fit_into_the_memory():
    "Segments are shortened to what `max_gb` has room for, and the fit goes through"
    def history(**kwargs):
        sa = SimAnnealHP(LR, seed=0, **kwargs)
        fit(learner(lr=1e-4), 6, sa)
        return sa.history
    gb = sum(t.numel()*t.element_size() for t in learner().dls.one_batch())/2**30
    a,b = history(),history(max_gb=3.5*gb)
    assert a.n.max()>3 and b.n.max()==3 and set(b.batch)==set(a.batch)

def break_weights(factor, at):
    "Multiply all weights at the end of an epoch, once"
    def scale(learn):
        if not (learn.training and in_fit(learn) and learn.train_iter==at): return
        if 'recover' in set(learn.sim_anneal_hp.history.stage): return
        for p in learn.model.parameters(): p.data.mul_(factor)
    return On('after_batch', scale, order=69)

@pytest.mark.parametrize('factor', [1.,100.])
def test_a_collapse_goes_back_to_the_best_epoch(factor):
    "What loses half of the gain since the start goes back, to half the learning rate; what does not, does not"
    learn,sa = learner(),SimAnnealHP(LR, seed=0)
    ends = Record(lambda learn: (learn.train_iter, in_fit(learn), weights(learn)), 'after_batch', order=71)
    fit(learn, 8, sa, break_weights(factor, 3*N_ITER), ends)
    rows = sa.history[sa.history.stage=='recover']
    assert len(rows)==(factor>1)
    if not len(rows): return
    at = {n:w for n,is_fit,w in ends.seen if is_fit}
    assert rows.batch.item()==3*N_ITER and rows.lr.item()==sa.history[sa.history.stage=='winner'].lr.item()/2
    assert any(torch.equal(at[3*N_ITER], at[n*N_ITER]) for n in (1,2)) and valid_loss(learn)<1
