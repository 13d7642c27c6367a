"Resuming: stateless at epochs, bitwise at every iteration with Checkpoint, changed horizons, torch schedulers and plateaus included"
import math,os,subprocess,sys,pickle,warnings
from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as tls
from fastai.basics import *
from fastai.callback.mixup import MixUp
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

class Kill(Callback):
    "Ctrl-C before some batch, counted over the whole run"
    def __init__(self, at=None, event='before_batch'): self.at,self.event = at,event
    def _maybe(self, event):
        if event==self.event and self.training and self.at is not None and self.epoch*10+self.iter==self.at: raise KeyboardInterrupt
    def before_batch(self): self._maybe('before_batch')
    def after_backward(self): self._maybe('after_backward')
    def before_validate(self):
        if self.event=='before_validate' and self.epoch*10==self.at: raise KeyboardInterrupt

class DropAcc(Callback):
    "State of a user's callback"
    def __init__(self): self.total = torch.zeros(1)
    def after_batch(self): self.total = self.total*.9 + float(self.loss)

CBS = dict(
    cosine=lambda: [CosineAnneal(warmup='10%')],
    many=lambda: [Anneal({'lr': ShapeWarm(length='10%') >> ShapeCos().repeat(2), 'wd': ShapeLin(1,3), 'model.3.p': ShapeLin(.1,.5).absolute()}), Plateau(patience=0, factor=.5, threshold=.5), DropAcc(), GradientClip()],
    torch_batch=lambda: [TorchSched(partial(tls.OneCycleLR, max_lr=.1, total_steps=40), by='batch')],
    torch_epoch=lambda: [TorchSched(partial(tls.ReduceLROnPlateau, patience=0, threshold=.5)), MixUp(), EarlyStoppingCallback(patience=9)],
    accumulate=lambda: [CosineAnneal(), GradientAccumulation(12)])

def killed_and_resumed(path, cbs, kill, opt, n=3, every='1it', event='before_batch'):
    kill = Kill(kill, event)
    learn = make(path=path, opt=opt)
    with pytest.raises(KeyboardInterrupt): learn.fit(n, .1, cbs=[*CBS[cbs](), Checkpoint(every=every), kill])
    learn = make(path=path, opt=opt)
    set_seed(123); learn.dls.train.rng.seed(5)
    for p in learn.model.parameters(): p.data.zero_()
    learn.fit(n, .1, cbs=[*CBS[cbs](), Checkpoint(every=every), Kill()])
    return fingerprint(learn)

def uninterrupted(path, cbs, opt, n=3, every='1it'):
    learn = make(path=path, opt=opt)
    learn.fit(n, .1, cbs=[*CBS[cbs](), Checkpoint(every=every), Kill()])
    assert not (path/'models'/'checkpoint.pth').exists()
    return fingerprint(learn)

@pytest.mark.parametrize('opt', ['adam','adamw'])
@pytest.mark.parametrize('cbs', CBS)
def test_resumed_at_iterations_is_uninterrupted(cbs, opt, tmp_path):
    want = uninterrupted(tmp_path, cbs, opt)
    for kill in (5, 10, 19): assert_same(killed_and_resumed(tmp_path, cbs, kill, opt), want)

def test_every_iteration_and_event(tmp_path):
    want = uninterrupted(tmp_path, 'cosine', 'sgd', n=2)
    go = partial(killed_and_resumed, tmp_path, 'cosine', opt='sgd', n=2)
    for kill in (1,2,5,9,10,11,15,19): assert_same(go(kill), want)
    for kill in (3, 15): assert_same(go(kill, event='after_backward'), want)
    for kill in (0, 10): assert_same(go(kill, event='before_validate'), want)

@pytest.mark.parametrize('every', ['1ep','3it','4it','2ep'])
def test_how_often(every, tmp_path):
    want = uninterrupted(tmp_path, 'many', 'adam', every=every)
    for kill in (12, 23): assert_same(killed_and_resumed(tmp_path, 'many', kill, 'adam', every=every), want)

def test_checkpoints_change_nothing(tmp_path):
    ends = []
    for cbs in ([], [Checkpoint(every='3it')]):
        learn = make(path=tmp_path)
        learn.fit(2, .1, cbs=[CosineAnneal(), *cbs])
        ends.append(fingerprint(learn))
    assert_same(*ends)

def test_with_progress_bar_and_workers(tmp_path, capsys):
    def fit(kill):
        learn = make(path=tmp_path, progress=True)
        learn.dls = DataLoaders(learn.dls.train.new(num_workers=2), learn.dls.valid)
        set_seed(7); learn.dls.train.rng.seed(2)
        learn.fit(2, .1, cbs=[CosineAnneal(), Checkpoint(every='1it'), Kill(kill)])
        return fingerprint(learn)
    want = fit(None)
    with pytest.raises(KeyboardInterrupt): fit(13)
    assert_same(fit(None), want)

def test_finished_kept_and_foreign(tmp_path):
    learn = make(path=tmp_path)
    learn.fit(2, .1, cbs=[CosineAnneal(), Checkpoint(keep=True)])
    w = weights(learn)
    other = make(path=tmp_path, seed=1)
    other.fit(2, .1, cbs=[CosineAnneal(), Checkpoint(keep=True)])
    assert torch.equal(weights(other), w)
    with pytest.raises(ValueError, match='other callbacks'): other.fit(2, .1, cbs=Checkpoint())
    big = make(path=tmp_path); big.model = nn.Sequential(nn.Linear(4,1)); big.splitter = trainable_params
    with pytest.raises(ValueError, match='another model'): big.fit(2, .1, cbs=[CosineAnneal(), Checkpoint()])

def test_torn_write_leaves_the_old_one(tmp_path, monkeypatch):
    learn = make(path=tmp_path)
    with pytest.raises(KeyboardInterrupt): learn.fit(2, .1, cbs=[CosineAnneal(), Checkpoint(every='2it'), Kill(5)])
    f = tmp_path/'models'/'checkpoint.pth'
    old = f.read_bytes()
    def torn(o, file):
        file.write(b'half')
        raise OSError('disk full')
    monkeypatch.setattr(torch, 'save', torn)
    with pytest.raises(OSError, match='disk full'): make(path=tmp_path).fit(2, .1, cbs=[CosineAnneal(), Checkpoint(every='2it'), Kill()])
    assert f.read_bytes()==old and [o.name for o in f.parent.iterdir()]==[f.name]

def test_damaged_file(tmp_path):
    "The one before it is taken, if there is one"
    class Twice(Callback):
        order = 1500
        def after_batch(self):
            if self.training and self.learn.train_iter in (3,6): self.learn.checkpoint.save()
    learn = make(path=tmp_path)
    with pytest.raises(KeyboardInterrupt): learn.fit(2, .1, cbs=[CosineAnneal(), Checkpoint(), Twice(), Kill(8)])
    f = tmp_path/'models'/'checkpoint.pth'
    f.write_bytes(f.read_bytes()[:1000])
    learn = make(path=tmp_path)
    with pytest.warns(UserWarning, match='going on with checkpoint.previous.pth'): learn.fit(2, .1, cbs=[CosineAnneal(), Checkpoint(keep=True), Twice(), Kill()])
    f.write_bytes(b'nothing')
    f.with_name('checkpoint.previous.pth').unlink()
    with pytest.raises(ValueError, match='is damaged and cannot be read'): make(path=tmp_path).fit(2, .1, cbs=[CosineAnneal(), Checkpoint(), Twice(), Kill()])

def test_killed_process(tmp_path):
    "SIGKILL while it saves at each iteration, and another process goes on"
    script = tmp_path/'s.py'
    script.write_text(f'''
import sys,os,signal; sys.path[:0] = {sys.path!r}
from tests.schedule.test_resume import *
class Die(Callback):
    order = 2000
    def after_batch(self):
        if self.training and self.epoch*10+self.iter==16: os.kill(os.getpid(), signal.SIGKILL)
torch.set_num_threads(1)
make(path={str(tmp_path)!r}).fit(3, .1, cbs=[CosineAnneal(), Checkpoint(every='1it'), Die()])
''')
    class Die(Callback): order = 2000
    def fit(seed=0):
        learn = make(path=tmp_path, seed=seed)
        if seed: set_seed(seed); learn.dls = make().dls
        learn.fit(3, .1, cbs=[CosineAnneal(), Checkpoint(every='1it'), Die()])
        return weights(learn)
    want = fit()
    assert subprocess.run([sys.executable, '-W', 'ignore', str(script)], env={**os.environ, 'OMP_NUM_THREADS':'1'}).returncode==-9
    assert (tmp_path/'models'/'checkpoint.pth').exists() and torch.equal(fit(5), want)

@pytest.mark.parametrize('new,how', [(6,'rescale'),(6,'keep'),(3,'rescale'),(3,'keep')])
def test_changed_horizon(new, how, tmp_path):
    def fit(n, kill, horizon): 
        learn = make(path=tmp_path)
        learn.fit(n, .1, cbs=[CosineAnneal(), Checkpoint(every='1it', horizon=horizon), Kill(kill)])
        return np.array(learn.recorder.hps['lr'])
    with pytest.raises(KeyboardInterrupt): fit(4, 15, 'error')
    with pytest.raises(ValueError, match="4 epochs of 10 iterations, and this fit has"): fit(new, None, 'error')
    with pytest.raises(KeyboardInterrupt): fit(new, 25, how)
    got,old = fit(new, None, 'error'),CosineAnneal().values(4, 10, .1)
    np.testing.assert_array_equal(got[:15], old[:15])
    k = np.arange(15, new*10)
    s = np.minimum(k, 40) if how=='keep' else 15+25*(k-15)/(new*10-15)
    np.testing.assert_allclose(got[15:], .05*(1+np.cos(np.pi*s/40)), atol=1e-16)

def test_state_dict_by_hand():
    cb = CosineAnneal()
    assert cb.state_dict()=={} 
    with pytest.raises(ValueError, match="horizon='guess'"): cb.load_state_dict({}, 'guess')

def test_torch_sched_start_epoch():
    for by,sched in (('epoch', partial(tls.ExponentialLR, gamma=.5)), ('batch', partial(tls.CosineAnnealingLR, T_max=30))):
        whole = hypers_of_fit(make(), 3, TorchSched(sched, by))
        for e in (1,2): np.testing.assert_array_equal(hypers_of_fit(make(), 3, TorchSched(sched, by), start_epoch=e), whole[e*10:])

@pytest.mark.parametrize('opt', ['adam','adamw'])
@pytest.mark.parametrize('cb', [lambda: CosineAnneal(warmup='10%'), lambda: Anneal({'lr': ShapeCos(), 'wd': ShapeLin(1,3)}), lambda: WSD(), lambda: CosineAnneal(by='epoch'),
                                lambda: TorchSched(partial(tls.CosineAnnealingLR, T_max=30), 'batch'), lambda: Plateau(patience=0, threshold=.9)])
def test_stopped_and_resumed_between_epochs_is_uninterrupted(cb, opt, tmp_path):
    class StopAfter(Callback):
        order = 900
        def __init__(self, e): self.e = e
        def after_epoch(self):
            if self.epoch+1==self.e: raise CancelFitException()
    def fit(e):
        learn,c = make(path=tmp_path, opt=opt),cb()
        set_seed(4); learn.dls.train.rng.seed(4)
        learn.fit(3, .1, cbs=[c, StopAfter(e)])
        if e is not None: learn.fit(3, .1, cbs=c, start_epoch=e)
        return weights(learn)
    want = fit(None)
    for e in (1,2): assert torch.equal(fit(e), want)

class TakesTurns(nn.Module):
    "The second branch is left out at first; what is there is remembered in plain attributes"
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(9, 4, sparse=True)
        self.branches = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])
        self.n_calls,self.last = 0,[torch.zeros(4)]
    def forward(self, x):
        x = self.emb(x).mean(1)+self.last[0]
        if self.training:
            self.n_calls += 1
            self.last = [x.detach().mean(0)]
        return self.branches[self.n_calls>4 and self.n_calls%2](x)

@pytest.mark.parametrize('opt', ['adam', 'torch'])
@pytest.mark.parametrize('at', [2,5,6,9])
def test_sparse_and_missing_gradients_and_hidden_states(opt, at, tmp_path):
    def learner():
        set_seed(0)
        x = torch.randint(0, 9, (24,3))
        items = Items(zip(x, (x[:,:1]>4).float()))
        opt_func = Adam if opt=='adam' else partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=0.))
        dls = DataLoaders.from_dsets(items, items[:8], bs=6, num_workers=0, device='cpu')
        learn = Learner(dls, TakesTurns(), MSELossFlat(), opt_func, path=tmp_path, cbs=GradientAccumulation(12))
        if opt=='adam': learn.model.emb.sparse = False
        return learn
    with quiet(learner()) as whole: whole.fit(3, .1, cbs=KillAt(None))
    with quiet(learner()) as learn, pytest.raises(RuntimeError, match='killed'): learn.fit(3, .1, cbs=[Checkpoint(every='1it'), KillAt(at)])
    with quiet(learner()) as learn: learn.fit(3, .1, cbs=[Checkpoint(every='1it'), KillAt(None)])
    assert_same(fingerprint(whole), fingerprint(learn))
    assert_same(whole.model.last, learn.model.last)
    assert whole.model.n_calls==learn.model.n_calls==12
