"What can be annealed: each name reaches its value, all is back after the fit, mistakes are named"
import math
from functools import partial
import pytest
from fastai.basics import *
from fastai.callback.mixup import MixUp
from fastai.vision.augment import Brightness,Rotate
from fastai_anneal.annealing.space import *
from fastai_anneal.fit.hp import HP
from fastai_anneal.fit.simanneal import SimAnnealHP
from helpers import *
from .common import *

learner = partial(small_learner, blobs, opt='sgd', width=16, lr=1e-3)

def smoothing(learn): return getattr(learn.loss_func, 'func', learn.loss_func).label_smoothing

@pytest.mark.parametrize('name,read,cbs', [
    ('dropout', lambda learn: learn.model[3].p, []),
    ('model.3.p', lambda learn: learn.model[3].p, []),
    ('label_smoothing', smoothing, []),
    ('mixup', lambda learn: float(learn.mix_up.distrib.concentration1), [MixUp(.4)])])
def test_named(name, read, cbs):
    sa,learn = SimAnnealHP({**LR, name: LinFloat(.1,.6)}, seed=0, accept=always),learner(dropout=.5)
    if name=='label_smoothing': learn.loss_func = CrossEntropyLossFlat(label_smoothing=.3)
    record = Record(read, 'before_step')
    with learn.added_cbs(cbs):
        before = read(learn)
        fit(learn, 5, sa, record)
        assert len(set(record.seen))>2 and read(learn)==before

@pytest.mark.parametrize('name,msg', [('dropout','no dropout layer'), ('label_smoothing','no label smoothing'), ('mixup','no MixUp'),
                                      ('batch_tfms','no random batch transform'), ('model.9.p',"no attribute '9'"), ('droput',"did you mean 'dropout'")])
def test_missing(name, msg):
    learn = learner()
    learn.model[3],learn.loss_func = nn.Identity(),F.cross_entropy
    before = fingerprint(learn)
    with pytest.raises(ValueError, match=msg): fit(learn, 2, SimAnnealHP({name: LinFloat(0,.5)}))
    assert_same(before['model'], fingerprint(learn)['model'])

@pytest.mark.parametrize('hps,msg', [
    ({'lrr': LogFloat(1e-4,1)}, "did you mean 'lr'"), ({'lr': .1}, 'not a space'), ({'lr': Vector(3)}, 'Vector'), (['lr'], 'LogFloat'),
    ([HP('lr', LogFloat(.1,1)), HP('lr', LogFloat(.1,1))], 'twice'), ([HP('lr', LogFloat(.1,10), group=5)], 'no parameter group 5'),
    ([HP('dropout', LinFloat(0,1), group=0)], 'only an optimizer'), ([dict(lr=1)], 'give a dict')])
def test_bad_hps(hps, msg):
    learn = learner(dropout=.1)
    with pytest.raises(ValueError, match=msg): fit(learn, 3, SimAnnealHP(hps))
    assert '_do_epoch' not in learn.__dict__

def test_half_a_target():
    with pytest.raises(ValueError, match='give both'): HP('x', LinFloat(0,1), get=lambda learn: 1)

def test_get_and_set():
    drop = HP('drop', LinFloat(0,.8), get=lambda learn: learn.model[3].p, set=lambda learn,p: setattr(learn.model[3], 'p', p))
    sa,learn = SimAnnealHP({**LR, 'drop': drop}, accept=always, seed=0),learner(dropout=.5)
    fit(learn, 5, sa)
    assert learn.model[3].p==.5 and sa.history['drop'].nunique()>2 and len(set(sa.log['drop']))>1

def test_dropout_layers_keep_their_ratio():
    learn = learner(dropout=.4)
    learn.model[2] = nn.Sequential(nn.ReLU(), nn.Dropout(.1))
    record = Record(lambda learn: (learn.model[2][1].p, learn.model[3].p))
    fit(learn, 4, SimAnnealHP({'dropout': LinFloat(.1,.8)}, seed=0, accept=always), record)
    assert len(set(record.seen))>1 and {round(b/a, 6) for a,b in record.seen}=={4.}
    assert (learn.model[2][1].p,learn.model[3].p)==(.1,.4)

def test_groups_keep_their_ratio():
    learn,record = learner(splitter=two_groups),Record('lr', 'before_step')
    fit(learn, 2, SimAnnealHP(LR, seed=0, accept=always), record, lr=slice(1e-4,1e-3))
    assert len({round(b/a, 6) for a,b in record.seen})==1 and len({b for a,b in record.seen})>3

def test_one_group_and_multipliers():
    hps = [HP('lr', LogFloat(.1,10), mult=True), HP('wd', LogFloat(1e-4,.1), group=0), HP('mom', LinFloat(.5,.95), group=1)]
    learn,sa = learner(splitter=two_groups, wd=.05),SimAnnealHP(hps, seed=0, accept=always)
    records = {name: Record(name, 'before_step') for name in ('lr','wd','mom')}
    fit(learn, 5, sa, *records.values(), lr=slice(1e-3,1e-2))
    lr,wd,mom = [np.array(o.seen) for o in records.values()]
    assert set(sa.values)=={'lr','wd[0]','mom[1]'}
    assert set((lr[:,1]/lr[:,0]).round(6))=={10.}
    assert set(wd[:,1])=={.05} and len(set(wd[:,0]))>1 and set(mom[:,0])=={.9} and len(set(mom[:,1]))>1
    assert [hyper['wd'] for hyper in learn.opt.hypers]==[.05,.05]

def with_transforms():
    set_seed(0)
    y = torch.randint(0, 2, (160,))
    x = torch.rand(160,3,8,8)*.2+y[:,None,None,None]*.3
    def loader(at, **kwargs): return DataLoader([(TensorImage(x[i]), y[i]) for i in at], bs=16, **kwargs)
    tfms = Pipeline([Brightness(.4, p=1.), Rotate(20., p=1.)])
    dls = DataLoaders(loader(range(128), shuffle=True, after_batch=tfms), loader(range(128,160)))
    learn = Learner(dls, nn.Sequential(nn.Flatten(), nn.Linear(192,2)), loss_func=CrossEntropyLossFlat(), opt_func=SGD, lr=.01)
    learn.remove_cb(learn.progress)
    learn.logger = noop
    return learn

def test_batch_transforms_are_drawn_anew():
    a,b,sa = fit(with_transforms(), 4),with_transforms(),SimAnnealHP({'batch_tfms': LinFloat(0,2)}, accept=never, seed=0)
    tfms = {type(f):f for f in b.dls.train.after_batch.fs}
    def strengths(learn=None): return tfms[Brightness].fs[0].max_lighting,tfms[Rotate].aff_fs[0].keywords['max_deg']
    fit(b, 4, sa)
    assert torch.equal(weights(a), weights(b)) and sa.history.change.abs().max()>0
    assert strengths()==(.4,20.)
    sa.accept,record = always,Record(strengths, 'after_batch')
    fit(b, 4, sa, record)
    assert len(set(record.seen))>1 and strengths()==(.4,20.)

def test_a_loss_that_is_annealed_does_not_judge():
    "What validation says does not depend on the smoothing in force"
    learn = learner(loss_func=CrossEntropyLossFlat(label_smoothing=.3))
    record = On('before_validate', lambda learn: seen.append(smoothing(learn)))
    seen = []
    fit(learn, 4, SimAnnealHP({'label_smoothing': LinFloat(0,.6)}, seed=0, accept=always), record)
    assert seen==[.3]*4
