"Resuming: stateless at epochs, bitwise at every iteration with Checkpoint, changed horizons, torch schedulers and plateaus included"
import os,subprocess,sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch.optim import lr_scheduler as tls
from fastai.callback.mixup import MixUp
from fastai.basics import *
from fastai.callback.schedule import *
from fastai.callback.tracker import *
from fastai.callback.training import *
from fastai_anneal.schedule import *
from test_schedule import make,quiet,run,weights,Seen

class Kill(Callback):
    "Ctrl-C before some batch, counted over the whole run"
    def __init__(self, at=None, event='before_batch'): self.at,self.event = at,event
    def _maybe(self, event):
        if event==self.event and self.training and self.at is not None and self.epoch*10+self.iter==self.at: raise KeyboardInterrupt
    def before_batch(self): self._maybe('before_batch')
    def after_backward(self): self._maybe('after_backward')
    def before_validate(self):
        if self.event=='before_validate' and self.epoch*10==self.at: raise KeyboardInterrupt

def noisy(x): return x + .1*torch.randn_like(x)

def a_learner(path, opt='fastai', seed=0, metrics=None):
    learn = make(opt=opt, seed=seed, path=path, metrics=metrics)
    return learn

def full_state(learn):
    o = learn.opt.opt.state_dict()['state'] if hasattr(learn.opt, 'opt') else [learn.opt.state[p] for p in learn.model.parameters()]
    flat = lambda o: [t for v in (o.values() if isinstance(o, dict) else o) for t in (flat(v) if isinstance(v, (dict,list)) else [v])]
    tens = [t.detach().clone() for t in learn.model.state_dict().values()] + [torch.as_tensor(t, dtype=torch.float64) for t in flat(o) if not isinstance(t, (bool,))]
    rec = learn.recorder
    return tens,[float(l) for l in rec.losses],rec.lrs,[list(v) for v in rec.values],rec.hps,[dict(h) for h in learn.opt.hypers],torch.rand(3)

def same(a, b):
    for x,y in zip(a[0], b[0], strict=True): assert torch.equal(x, y)
    assert a[1:6]==b[1:6] and torch.equal(a[6], b[6])

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
    learn = a_learner(path, opt)
    with pytest.raises(KeyboardInterrupt): quiet(learn, lambda l: l.fit(n, .1, cbs=[*CBS[cbs](), Checkpoint(every=every), kill]))
    learn = a_learner(path, opt, seed=0)
    set_seed(123); learn.dls.train.rng.seed(5)
    for p in learn.model.parameters(): p.data.zero_()
    quiet(learn, lambda l: l.fit(n, .1, cbs=[*CBS[cbs](), Checkpoint(every=every), Kill()]))
    return full_state(learn)

def uninterrupted(path, cbs, opt, n=3, every='1it'):
    learn = a_learner(path, opt)
    quiet(learn, lambda l: l.fit(n, .1, cbs=[*CBS[cbs](), Checkpoint(every=every), Kill()]))
    assert not (path/'models'/'checkpoint.pth').exists()
    return full_state(learn)

@pytest.mark.parametrize('opt', ['fastai','torch'])
@pytest.mark.parametrize('cbs', CBS)
def test_resumed_at_iterations_is_uninterrupted(cbs, opt, tmp_path):
    want = uninterrupted(tmp_path, cbs, opt)
    for kill in (5, 10, 19): same(killed_and_resumed(tmp_path, cbs, kill, opt), want)

def test_every_iteration_and_event(tmp_path):
    want = uninterrupted(tmp_path, 'cosine', 'sgd', n=2)
    go = partial(killed_and_resumed, tmp_path, 'cosine', opt='sgd', n=2)
    for kill in range(1, 20): same(go(kill), want)
    for kill in (3, 15): same(go(kill, event='after_backward'), want)
    for kill in (0, 10): same(go(kill, event='before_validate'), want)

@pytest.mark.parametrize('every', ['1ep','3it','4it','2ep'])
def test_how_often(every, tmp_path):
    want = uninterrupted(tmp_path, 'many', 'fastai', every=every)
    for kill in (12, 23): same(killed_and_resumed(tmp_path, 'many', kill, 'fastai', every=every), want)

def test_checkpoints_change_nothing(tmp_path):
    a,b = a_learner(tmp_path),a_learner(tmp_path)
    set_seed(3); a.dls.train.rng.seed(1); quiet(a, lambda l: l.fit(2, .1, cbs=CosineAnneal())); sa = full_state(a)
    set_seed(3); b.dls.train.rng.seed(1); quiet(b, lambda l: l.fit(2, .1, cbs=[CosineAnneal(), Checkpoint(every='3it')])); same(sa, full_state(b))

def test_with_progress_bar_and_workers(tmp_path, capsys):
    def fit(kill):
        learn = a_learner(tmp_path)
        learn.dls = DataLoaders(learn.dls.train.new(num_workers=2), learn.dls.valid)
        set_seed(7); learn.dls.train.rng.seed(2)
        learn.fit(2, .1, cbs=[CosineAnneal(), Checkpoint(every='1it'), Kill(kill)])
        return full_state(learn)
    want = fit(None)
    with pytest.raises(KeyboardInterrupt): fit(13)
    same(fit(None), want)

def test_finished_kept_and_foreign(tmp_path):
    learn = a_learner(tmp_path)
    quiet(learn, lambda l: l.fit(2, .1, cbs=[CosineAnneal(), Checkpoint(keep=True)]))
    w = weights(learn)
    other = a_learner(tmp_path, seed=1)
    quiet(other, lambda l: l.fit(2, .1, cbs=[CosineAnneal(), Checkpoint(keep=True)]))
    assert torch.equal(weights(other), w)
    with pytest.raises(ValueError, match='other callbacks'): quiet(other, lambda l: l.fit(2, .1, cbs=Checkpoint()))
    big = a_learner(tmp_path); big.model = nn.Sequential(nn.Linear(4,1)); big.splitter = trainable_params
    with pytest.raises(ValueError, match='another model'): quiet(big, lambda l: l.fit(2, .1, cbs=[CosineAnneal(), Checkpoint()]))

def test_torn_write_leaves_the_old_one(tmp_path, monkeypatch):
    learn = a_learner(tmp_path)
    with pytest.raises(KeyboardInterrupt): quiet(learn, lambda l: l.fit(2, .1, cbs=[CosineAnneal(), Checkpoint(every='2it'), Kill(5)]))
    f = tmp_path/'models'/'checkpoint.pth'
    old = f.read_bytes()
    def torn(o, fh): fh.write(b'half'); raise OSError('disk full')
    import fastai_anneal.schedule as m
    monkeypatch.setattr(m.torch, 'save', torn)
    with pytest.raises(OSError): m._atomic_save({}, f)
    assert f.read_bytes()==old

def test_killed_process(tmp_path):
    "SIGKILL while it saves at each iteration, and another process goes on"
    script = tmp_path/'s.py'
    script.write_text(f'''
import sys,os,signal; sys.path[:0] = {sys.path!r}
from test_schedule import *
class Die(Callback):
    order = 2000
    def after_batch(self):
        if self.training and self.epoch*10+self.iter==16: os.kill(os.getpid(), signal.SIGKILL)
torch.set_num_threads(1)
quiet(make(path={str(tmp_path)!r}), lambda l: l.fit(3, .1, cbs=[CosineAnneal(), Checkpoint(every='1it'), Die()]))
''')
    class Die(Callback): order = 2000
    def fit(seed=0):
        learn = make(path=tmp_path, seed=seed)
        if seed: set_seed(seed); learn.dls = make().dls
        quiet(learn, lambda l: l.fit(3, .1, cbs=[CosineAnneal(), Checkpoint(every='1it'), Die()]))
        return weights(learn)
    want = fit()
    assert subprocess.run([sys.executable, '-W', 'ignore', str(script)], env={**os.environ, 'OMP_NUM_THREADS':'1'}).returncode==-9
    assert (tmp_path/'models'/'checkpoint.pth').exists() and torch.equal(fit(5), want)

@pytest.mark.parametrize('new,how', [(6,'rescale'),(6,'keep'),(3,'rescale'),(3,'keep')])
def test_changed_horizon(new, how, tmp_path):
    def fit(n, kill, horizon): 
        learn = a_learner(tmp_path)
        quiet(learn, lambda l: l.fit(n, .1, cbs=[CosineAnneal(), Checkpoint(every='1it', horizon=horizon), Kill(kill)]))
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
    with pytest.raises(ValueError, match='horizon'): cb.load_state_dict({}, 'guess')

def test_torch_sched_start_epoch():
    for by,sched in (('epoch', partial(tls.ExponentialLR, gamma=.5)), ('batch', partial(tls.CosineAnnealingLR, T_max=30))):
        whole = run(make(), 3, TorchSched(sched, by))
        for e in (1,2): np.testing.assert_array_equal(run(make(), 3, TorchSched(sched, by), start_epoch=e), whole[e*10:])

@pytest.mark.parametrize('opt', ['fastai','torch'])
@pytest.mark.parametrize('cb', [lambda: CosineAnneal(warmup='10%'), lambda: Anneal({'lr': ShapeCos(), 'wd': ShapeLin(1,3)}), lambda: WSD(), lambda: CosineAnneal(by='epoch'),
                                lambda: TorchSched(partial(tls.CosineAnnealingLR, T_max=30), 'batch'), lambda: Plateau(patience=0, threshold=.9)])
def test_stopped_and_resumed_between_epochs_is_uninterrupted(cb, opt, tmp_path):
    class StopAfter(Callback):
        order = 900
        def __init__(self, e): self.e = e
        def after_epoch(self):
            if self.epoch+1==self.e: raise CancelFitException()
    def fit(e):
        learn,c = a_learner(tmp_path, opt),cb()
        set_seed(4); learn.dls.train.rng.seed(4)
        quiet(learn, lambda l: l.fit(3, .1, cbs=[c, StopAfter(e)]))
        if e is not None: quiet(learn, lambda l: l.fit(3, .1, cbs=c, start_epoch=e))
        return weights(learn)
    want = fit(None)
    for e in (1,2): assert torch.equal(fit(e), want)
