"Contracts and faults of the schedules inside a fit"
import math,pickle,warnings
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as tls
from fastai.basics import *
from fastai.callback.fp16 import MixedPrecision
from fastai.callback.schedule import *
from fastai.callback.tracker import *
from fastai.callback.training import *
from helpers import *
from fastai_anneal.core.hypers import attr_owner
from fastai_anneal.schedule.anneal import Anneal
from fastai_anneal.schedule.callback import scheduled_values
from fastai_anneal.schedule.checkpoint import Checkpoint
from fastai_anneal.schedule.family import *
from fastai_anneal.schedule.plateau import Plateau
from fastai_anneal.schedule.scale import HyperScale
from fastai_anneal.schedule.shapes import *
from fastai_anneal.schedule.torch_sched import TorchSched
from .common import make

OPTS = 'adam','sgd','adamw','torch_sgd'
FAMILY = [CosineAnneal(), CosineAnneal(warmup='10%'), CosineAnneal(warmup=.1, hold='5it', length='80%', ratio=.1), CosineAnneal(lr_min=1e-3, inclusive=True),
          CosineAnneal(cycles=2, cycle_mult=2., cycle_decay=.5), CosineAnneal(by='epoch'), CosineAnneal(by='epoch', warmup='1ep')]

@pytest.mark.parametrize('opt', OPTS)
@pytest.mark.parametrize('lr', [.1, slice(.1), slice(.01,.1), [.1,.2,.3]], ids=str)
def test_a_run_is_what_values_says(opt, lr):
    for cb in FAMILY:
        seen = hypers_of_fit(make(opt=opt), 3, cb, lr)
        np.testing.assert_array_equal(seen, cb.values(3, 10, lr, n_groups=3))

@pytest.mark.parametrize('cb', FAMILY, ids=lambda o: str(o.scheds))
@pytest.mark.parametrize('start', [0,1,2])
def test_start_epoch_needs_no_state(cb, start):
    learn = make()
    rec = Record('lr')
    learn.fit(3, .1, cbs=[deepcopy(cb), rec], start_epoch=start)
    np.testing.assert_array_equal(rec.seen, cb.values(3, 10, .1, n_groups=3)[start*10:])

def test_fastai_records_and_plots():
    import matplotlib; matplotlib.use('agg')
    learn = make()
    cb = CosineAnneal(warmup='10%')
    seen = hypers_of_fit(learn, 2, cb)
    assert list(learn.recorder.hps)==['lr'] and learn.recorder.hps['lr']==learn.recorder.lrs==list(seen[:,-1])
    learn.recorder.plot_sched()
    ax = plt.subplots()[1]
    assert cb.plot(2, 10, ax=ax) is ax and cb.plot(2, 10) is not ax
    plt.close('all')

def test_frozen_groups():
    learn = make()
    learn.freeze()
    np.testing.assert_array_equal(hypers_of_fit(learn, 2, CosineAnneal(), slice(.1)), CosineAnneal().values(2, 10, slice(.1), n_groups=3))

def test_fine_tune_like():
    learn = make()
    learn.freeze()
    a = hypers_of_fit(learn, 1, CosineAnneal(), slice(.1))
    learn.unfreeze()
    b = hypers_of_fit(learn, 2, CosineAnneal(), slice(.001,.01))
    np.testing.assert_array_equal(b, CosineAnneal().values(2, 10, slice(.001,.01), n_groups=3))

def test_the_next_fit_starts_from_its_own_lr():
    learn,cb = make(lr=.3),CosineAnneal()
    learn.add_cb(cb)
    for lr in (.1,.2,None): assert hypers_of_fit(learn, 1, [], lr)[0,0]==ifnone(lr, .3)

@pytest.mark.parametrize('opt', OPTS)
@pytest.mark.parametrize('on_learner', [False,True])
def test_other_hypers_are_put_back(opt, on_learner):
    learn = make(opt=opt)
    learn.create_opt()
    learn.opt.set_hyper('wd', [.1,.2,.3])
    drop = learn.model[3]
    cb = Anneal({'wd': ShapeLin(), 'model.3.p': ShapeLin(.5,.1).absolute(), 'mom': ShapeCos(.95,.85).absolute()})
    mom = learn.opt.hypers[0]['mom']
    if on_learner: learn.add_cb(cb)
    seen = hypers_of_fit(learn, 2, [] if on_learner else cb, hp='wd')
    np.testing.assert_allclose(seen[:,1], .2*ShapeLin().values(2, 10))
    assert [h['wd'] for h in learn.opt.hypers]==[.1,.2,.3] and drop.p==.1 and learn.opt.hypers[0]['mom']==mom
    class Stop(Callback):
        order = 2000
        def before_batch(self):
            if self.train_iter==7: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): hypers_of_fit(learn, 2, [Stop()] if on_learner else [cb, Stop()])
    if on_learner: assert learn.opt.hypers[0]['wd']!=.1; hypers_of_fit(learn, 1, [])
    assert [h['wd'] for h in learn.opt.hypers]==[.1,.2,.3] and drop.p==.1 and learn.opt.hypers[0]['mom']==mom

def test_interrupted_then_set_by_hand():
    learn = make()
    cb = Anneal({'wd': ShapeLin()})
    learn.add_cb(cb)
    class Stop(Callback):
        def after_batch(self):
            if self.train_iter==7: raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): learn.fit(2, .1, wd=.1, cbs=Stop())
    rec = Record('wd')
    learn.fit(2, .1, wd=.5, cbs=rec)
    assert rec.seen[0]==[.5]*3

class InBetween(Callback):
    "Validates and predicts in the middle of a fit"
    order = 90
    def __init__(self, f): self.f = f
    def after_epoch(self):
        if not self.learn.lock.locked(): self.f(self.learn)

@pytest.mark.parametrize('f', [lambda l: l.validate(), lambda l: l.get_preds()], ids=['validate','get_preds'])
def test_validate_and_predict_change_nothing(f):
    cb = Anneal({'lr': ShapeCos(), 'wd': ShapeLin()})
    a = make(cbs=cb); sa = hypers_of_fit(a, 2, [], wd=.1)
    hps = deepcopy(a.recorder.hps)
    with a.no_bar(), a.no_logging(): f(a)
    assert a.recorder.hps==hps
    b = make(cbs=Anneal({'lr': ShapeCos(), 'wd': ShapeLin()}))
    with b.no_bar(), b.no_logging(): f(b)
    sb = hypers_of_fit(b, 2, [], wd=.1)
    np.testing.assert_array_equal(sa, sb)
    c = make(); sc = hypers_of_fit(c, 2, [Anneal({'lr': ShapeCos(), 'wd': ShapeLin()}), InBetween(f)], wd=.1)
    np.testing.assert_array_equal(sa, sc)
    assert c.opt.hypers[0]['wd']==.1

def test_no_error_from_validate():
    learn = make(cbs=CosineAnneal(warmup='9ep', hp='nonsense'))
    with learn.no_bar(), learn.no_logging(): learn.validate(); learn.get_preds()

def fastai_lr_find(learn):
    "fastai's `lr_find`, also where ours has taken its place"
    import fastai.callback.schedule as fs
    with learn.no_bar(), learn.no_logging(): learn.fit(30//len(learn.dls.train)+1, cbs=fs.LRFinder(num_it=30))

def test_fastai_lr_find():
    learn,plain = make(cbs=CosineAnneal(warmup='90ep')),make()
    for l in (learn,plain):
        set_seed(1)
        fastai_lr_find(l)
    assert len(learn.recorder.lrs)>5 and learn.recorder.lrs==plain.recorder.lrs
    learn = make(cbs=CosineAnneal())
    fastai_lr_find(learn)
    np.testing.assert_array_equal(hypers_of_fit(learn, 1, []), CosineAnneal().values(1, 10, .1, n_groups=3))

@pytest.mark.parametrize('n,bs,n_epoch', [(4,4,1),(4,4,3),(8,4,1),(40,4,0)])
def test_small_runs(n, bs, n_epoch):
    for cb in (CosineAnneal(), CosineAnneal(warmup='10%'), CosineAnneal(inclusive=True), CosineAnneal(hold=.5, by='epoch')):
        seen = hypers_of_fit(make(n=n, bs=bs), n_epoch, cb)
        assert len(seen)==n_epoch*n//bs
        if len(seen): np.testing.assert_array_equal(seen, cb.values(n_epoch, n//bs, .1, n_groups=3))
        if n_epoch==1 and n==bs: assert (seen==.1).all()

def test_short_and_cancelled_epochs():
    vals = CosineAnneal().values(3, 10, .1, n_groups=3)
    class Cancel(Callback):
        order = 2000
        def __init__(self, ex, at): self.ex,self.at = ex,at
        def before_batch(self):
            if self.training and self.iter==self.at: raise self.ex
    seen = hypers_of_fit(make(), 3, [CosineAnneal(), ShortEpochCallback(.3)])
    np.testing.assert_array_equal(seen, vals[[e*10+i for e in range(3) for i in range(4)]])
    for ex,at in ((CancelEpochException,4), (CancelTrainException,4)):
        seen = hypers_of_fit(make(), 3, [CosineAnneal(), Cancel(ex, at)])
        np.testing.assert_array_equal(seen, vals[[e*10+i for e in range(3) for i in range(5)]])
    np.testing.assert_array_equal(hypers_of_fit(make(), 3, [CosineAnneal(), Cancel(CancelBatchException, 4)]), vals)
    np.testing.assert_array_equal(hypers_of_fit(make(), 3, [CosineAnneal(), Cancel(CancelFitException, 4)]), vals[:5])
    np.testing.assert_array_equal(hypers_of_fit(make(), 3, [CosineAnneal(), GradientAccumulation(12)]), vals)

def test_loader_of_another_length_in_mid_run():
    class Swap(Callback):
        def before_epoch(self):
            if self.epoch==1: self.learn.dls = DataLoaders(self.dls.train.new(bs=2), self.dls.valid)
    seen = hypers_of_fit(make(groups=1), 2, [CosineAnneal(), Swap()])[:,0]
    np.testing.assert_allclose(seen, [.05*(1+math.cos(math.pi*x)) for x in [*(np.arange(10)/20), *(.5+np.arange(20)/40)]])

@pytest.mark.parametrize('bad,match', [
    (lambda: CosineAnneal(warmup='3ep'), 'longer than the whole'), (lambda: CosineAnneal(warmup='60%', hold='50%'), 'longer than the whole'),
    (lambda: CosineAnneal(warmup='-1it'), 'bad duration'), (lambda: CosineAnneal(warmup=float('nan')), 'bad duration'),
    (lambda: CosineAnneal(length='3ep'), 'the run has 20'), (lambda: CosineAnneal(by='step'), "'batch' or by 'epoch'"),
    (lambda: CosineAnneal(cycles=0), 'at least 1'), (lambda: CosineAnneal(cycles=2.5), 'at least 1'), (lambda: CosineAnneal(cycles=50), 'too few'),
    (lambda: CosineAnneal(cycle_mult=-1.), 'cycle_mult|mult'), (lambda: CosineAnneal(lr_min=-1.), 'lr_min=-1.0: must be a finite number of at least 0'), (lambda: CosineAnneal(lr_min=float('nan')), 'lr_min=nan'),
    (lambda: CosineAnneal(lr_min=1.), 'below its floor'), (lambda: CosineAnneal(lr_min=[.01,.02]), '2 values of lr_min for 3'),
    (lambda: CosineAnneal(lr_min=.01, ratio=.1), 'give one'), (lambda: CosineAnneal(ratio=float('nan')), 'ratio'), (lambda: CosineAnneal(hp='momm'), "did you mean 'mom'"),
    (lambda: CosineAnneal(hp='model.drop.p'), "no attribute 'drop'"), (lambda: CosineAnneal(hp='model.0.weight'), 'only a number'),
    (lambda: Anneal({}), 'must be a dict'), (lambda: Anneal({'lr': 3}), 'neither a shape'), (lambda: Anneal({'lr': ShapeFn(lambda p: float('nan'))}), 'gives'),
    (lambda: Anneal({'lr': ShapeCos}), 'is a class'), (lambda: LambdaAnneal(lambda k: -1.), 'at step 0: must be at least 0'), (lambda: LambdaAnneal(lambda k: 'a'), 'fails at step 0'), (lambda: LambdaAnneal(lambda k: 1/(k-5)), 'fails at step 5|at least 0'),
    (lambda: ExpAnneal(gamma=1e300, every='1it'), 'fails at step'), (lambda: Anneal({'model.3.p': ShapeLin(.5,1.5).absolute()}), 'must be at most 1'), (lambda: Anneal({'wd': ShapeLin(1,-1)}), 'at least 0'),
    (lambda: OneCycle(div=0), 'div=0'), (lambda: OneCycle(moms=(.9,.8)), 'three numbers'), (lambda: Anneal({'lr': ShapeCos()>>3}), 'must be a shape'), (lambda: CosineAnneal(ratio=2.), 'anneal upwards'),
    (lambda: HyperScale({'lr': [.1,.2]}), '2 values of the factors of lr for 3'), (lambda: [Checkpoint('a'), Checkpoint('b')], 'two Checkpoints'), (lambda: Checkpoint(every=0), 'must be longer than 0'),
    (lambda: [CosineAnneal(), Anneal({'lr': ShapeCos()})], 'CosineAnneal and Anneal both set .lr.'),
    (lambda: [CosineAnneal(), ReduceLROnPlateau()], 'CosineAnneal and ReduceLROnPlateau'),
    (lambda: [CosineAnneal(), ParamScheduler({'lr': SchedCos(1,0)})], 'CosineAnneal and ParamScheduler')])
def test_refused_before_the_first_batch(bad, match):
    learn = make()
    learn.create_opt()
    w,logger,seen = weights(learn),learn.logger,Record('lr')
    with pytest.raises(ValueError, match=match): learn.fit(2, .1, cbs=L(bad())+seen)
    assert not seen.seen and (weights(learn)==w).all() and learn.logger is logger and not learn.opt.state.get(next(learn.model.parameters()), {}).get('step')
    assert learn.cbs.attrgot('name')==make().cbs.attrgot('name')
    hypers_of_fit(learn, 1, CosineAnneal())

def attrs(o): return {k:(list(v) if isinstance(v, list) else v) for k,v in o.__dict__.items()}
def facts(learn):
    "All that a refused fit could have changed"
    opt = learn.opt
    return dict(opt=opt, hypers=None if opt is None else [dict(h) for h in opt.hypers], state=None if opt is None else [(id(s), list(s)) for s in opt.state.values()],
                inner=[(id(s), sorted(s)) for s in opt.opt.state.values()] if isinstance(opt, OptimWrapper) else None,
                rg=[p.requires_grad for p in learn.model.parameters()], w=[p._version for p in learn.model.parameters()], learn=attrs(learn), cbs=[(cb, attrs(cb)) for cb in learn.cbs], rng=torch.get_rng_state().tolist())

REFUSED = {'longer than the whole': lambda: CosineAnneal(warmup='9ep'), "did you mean 'mom'": lambda: CosineAnneal(hp='momm'),
           "both set 'lr'": lambda: [CosineAnneal(), OneCycle()], "did you mean 'valid_loss'": lambda: Plateau('valid_los'),
           "did you mean 'wd'": lambda: [CosineAnneal(), HyperScale({'wdd': .5})],
           "argument: 'step_size'": lambda: TorchSched(torch.optim.lr_scheduler.StepLR),
           '2 values of min_lr': lambda: [CosineAnneal(), Plateau(min_lr=[.1,.2])],
           'at least 0': lambda: Anneal({'lr': ShapeLin(1,-1)}),
           'must be finite': lambda: Anneal({'wd': ShapeFn(lambda p: math.nan if .2<p<.3 else p)})}

@pytest.mark.parametrize('opt', ['adam','adamw','built'])
@pytest.mark.parametrize('how', ['new','trained','on the learner','fit_one_cycle','reset_opt'])
def test_a_refused_fit_leaves_everything(opt, how):
    learn = make(opt='adamw' if opt=='built' else opt)
    if opt=='built': learn.opt_func = OptimWrapper(opt=torch.optim.AdamW([{'params': g} for g in groups_by_layer(learn.model)], lr=.2))
    if how in ('trained','reset_opt'):
        hypers_of_fit(learn, 1, CosineAnneal(), .07, wd=.3)
        learn.opt.set_hyper('lr', [.1,.2,.3]); learn.opt.set_hyper('mom', .8)
    if how=='fit_one_cycle': # it makes an optimizer, and writes its `lr` there, before it calls `fit`
        learn.create_opt()
        learn.opt.set_hyper('lr', .6)
    for message,bad in REFUSED.items():
        bad,kw = L(bad()),dict(reset_opt=True) if how=='reset_opt' else {}
        if how=='on the learner': learn.add_cbs(bad)
        else: kw['cbs'] = bad
        was = facts(learn)
        fit = learn.fit_one_cycle if how=='fit_one_cycle' else learn.fit
        with pytest.raises((ValueError,TypeError), match=message): fit(2, .6, wd=.5, **kw)
        now = facts(learn)
        for k,v in was.items(): assert now[k]==v, (k, bad)
        if how=='on the learner': learn.remove_cbs(bad)
    hypers_of_fit(learn, 1, CosineAnneal())

def test_other_errors_are_not_undone():
    class Bang(Callback):
        def before_epoch(self): raise ValueError('bang')
    learn = make()
    with pytest.raises(ValueError, match='bang'): learn.fit(1, .5, cbs=[CosineAnneal(), Bang()])
    assert learn.opt.hypers[-1]['lr']==.5

def test_a_refused_fit_does_not_lose_what_was_to_be_resumed():
    class Stop(Callback):
        order = 2000
        def after_epoch(self): self.sd = self.learn.cosine_anneal.state_dict(); raise CancelFitException
    learn,stop = make(),Stop()
    hypers_of_fit(learn, 4, [CosineAnneal(), stop])
    cb = CosineAnneal(); cb.load_state_dict(stop.sd, 'keep')
    with pytest.raises(ValueError, match='monitor'): hypers_of_fit(learn, 8, [cb, Plateau('nonsense')], start_epoch=1)
    np.testing.assert_array_equal(hypers_of_fit(learn, 8, cb, start_epoch=1)[:30], CosineAnneal().values(4, 10, .1, n_groups=3)[10:])

def test_fit_is_still_fastais():
    for name in ('fit','fit_one_cycle','fit_flat_cos','fit_sgdr','added_cbs'):
        assert getattr(Learner, name).__module__.startswith('fastai.')
    learn = make()
    hypers_of_fit(learn, 1, CosineAnneal())
    assert 'added_cbs' not in vars(learn)
    learn.add_cb(CosineAnneal())
    hypers_of_fit(learn, 1, Plateau())
    assert 'added_cbs' in vars(learn)
    learn.remove_cb(CosineAnneal)
    assert 'added_cbs' not in vars(learn)

@pytest.mark.parametrize('copied', [deepcopy, lambda learn: pickle.loads(pickle.dumps(learn))], ids=['deepcopy','pickle'])
def test_a_copy_of_a_learner_refuses_for_itself(copied):
    learn = make(cbs=CosineAnneal(warmup='9ep'))
    copy = copied(learn)
    learn.create_opt()
    with pytest.raises(ValueError, match='longer than the whole'): copy.fit(2, .6, wd=.5)
    assert copy.opt is None and learn.opt is not None

def test_who_refuses_last_undoes_all():
    "In whatever order callbacks were added, and wherever they are"
    learn = make(cbs=CosineAnneal(warmup='10%'))
    hypers_of_fit(learn, 1, [], wd=.3)
    was = facts(learn)
    for cbs in ([Plateau('nonsense'), Anneal({'wd': ShapeLin()})], [Anneal({'wd': ShapeLin()}), HyperScale({'x': 1.}), Checkpoint('c')]):
        with pytest.raises(ValueError, match='did you mean|There is'): learn.fit(2, .6, wd=.5, cbs=cbs)
        assert facts(learn)==was and cbs[0].learn is None

def test_values_of_no_run():
    for n,m in ((0,10),(2,0),(-1,10)):
        with pytest.raises(ValueError, match='no batch'): CosineAnneal().values(n, m, .1)
    with pytest.raises(ValueError, match='n_groups'): CosineAnneal().values(1, 10, slice(.1))

def test_scheduled_values():
    class Look(Callback):
        def before_train(self): self.got = {k: scheduled_values(self.learn, k) for k in ('lr','wd','mom','model.3.p')}
    learn,look = make(),Look()
    hypers_of_fit(learn, 2, [CosineAnneal(warmup='10%'), Anneal({'model.3.p': ShapeLin(.5,.1).absolute()}, by='epoch'), look])
    np.testing.assert_array_equal(look.got['lr'], CosineAnneal(warmup='10%').values(2, 10, .1, n_groups=3))
    np.testing.assert_allclose(look.got['model.3.p'], [[.5],[.3]])
    assert look.got['wd'] is None and look.got['mom'] is None
    hypers_of_fit(make(), 2, [TorchSched(partial(torch.optim.lr_scheduler.StepLR, step_size=1)), look])
    assert look.got['lr'] is None
    o,a = attr_owner(learn, 'model.3.p')
    assert o is learn.model[3] and a=='p'

@pytest.mark.parametrize('lr', [float('nan'), float('inf'), -1., [.1,float('nan'),.1], 'a', slice(-.1,.1)], ids=str)
def test_bad_lr(lr):
    with pytest.raises(ValueError, match='finite|negative|numbers'): hypers_of_fit(make(), 1, CosineAnneal(), lr)

def test_one_cycle_with_another_schedule():
    learn = make()
    learn.fit_one_cycle(2, .1, wd=.1, cbs=Anneal({'wd': ShapeLin()}))
    assert set(learn.recorder.hps)=={'lr','mom','wd'} and len(learn.recorder.hps['wd'])==20
    with pytest.raises(ValueError, match='CosineAnneal and ParamScheduler both set .lr.*fit_one_cycle'): learn.fit_one_cycle(2, .1, cbs=CosineAnneal())

def test_two_schedules_record_both():
    learn = make()
    hypers_of_fit(learn, 2, [CosineAnneal(), CosineAnneal(hp='wd', ratio=10.)], wd=.01)
    assert set(learn.recorder.hps)=={'lr','wd'} and len(learn.recorder.hps['wd'])==20
    assert learn.recorder.hps['wd'][0]==.01 and learn.recorder.hps['wd'][-1]>.09
    hypers_of_fit(learn, 1, CosineAnneal())
    assert set(learn.recorder.hps)=={'lr'}

@pytest.mark.parametrize('cb', FAMILY + [Anneal({'lr': ShapeWarm(length='10%') >> ShapeCos().repeat(2), 'wd': SchedCos(.1,.2)})], ids=lambda o: type(o).__name__)
def test_pickle_and_export(cb, tmp_path):
    learn = make(path=tmp_path)
    learn.add_cb(pickle.loads(pickle.dumps(cb)))
    a = hypers_of_fit(learn, 2, [])
    learn.export('x.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        l2 = load_learner(tmp_path/'x.pkl')
    l2.dls = make().dls
    np.testing.assert_array_equal(hypers_of_fit(l2, 2, []), a)

def test_scales_compose_and_leave_nothing():
    learn = make()
    s = HyperScale({'lr': [.1,.5,1.], 'wd': .5})
    seen = hypers_of_fit(learn, 2, [CosineAnneal(), s, HyperScale({'lr': 2.})])
    np.testing.assert_allclose(seen, CosineAnneal().values(2, 10, .1, n_groups=3)*[.2,1,2], rtol=1e-15)
    class Stop(Callback):
        order = 3000
        def before_batch(self): raise KeyboardInterrupt
    wd = learn.opt.hypers[0]['wd']
    with pytest.raises(KeyboardInterrupt): hypers_of_fit(learn, 1, [s, Stop()])
    assert [h['lr'] for h in learn.opt.hypers]==[.1]*3 and learn.opt.hypers[0]['wd']==wd and not learn._hyper_base if hasattr(learn, '_hyper_base') else True
    with pytest.raises(KeyboardInterrupt): hypers_of_fit(learn, 1, [Anneal({'wd': ShapeLin()}), s, Stop()])
    assert learn.opt.hypers[0]['wd']==wd
    learn.fit_one_cycle(1, .1, cbs=HyperScale({'lr': .5}))
    assert max(learn.recorder.lrs)<=.05+1e-9
