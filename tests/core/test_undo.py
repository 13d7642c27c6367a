"Contracts of the one undo"
import gc,pickle,random,signal,os
import numpy as np, pytest, torch
from copy import deepcopy
from functools import partial
from torch import nn
from fastai.basics import *
from fastai.callback.all import *
from fastai.torch_core import TensorCategory,TensorImage
from fastai.test_utils import synth_learner,RegModel
import fastai_anneal.core.undo as undo_module
from fastai_anneal.core.snapshot import *
from fastai_anneal.core.undo import *
from helpers import assert_same

class Net(nn.Module):
    "Dropout and buffers (persistent or not), so that every kind of state is in play"
    def __init__(self):
        super().__init__()
        self.a,self.bn,self.drop,self.b,self.head = nn.Linear(1,8),nn.BatchNorm1d(8),nn.Dropout(.3),nn.Linear(8,8),nn.Linear(8,1)
        self.register_buffer('calls', torch.zeros(1), persistent=False)
    def forward(self, x):
        if self.training: self.calls += 1
        return self.head(self.drop(torch.relu(self.b(torch.relu(self.bn(self.a(x)))))))

def three_groups(m): return [list(m.a.parameters())+list(m.bn.parameters()), list(m.b.parameters()), list(m.head.parameters())]

class EMA(Callback):
    "Shadow weights in an object of its own and in a module"
    class Shadow:
        def __init__(self): self.avg = {}
    def __init__(self): self.shadow,self.rng,self.seen = self.Shadow(),np.random.default_rng(0),[]
    def before_fit(self):
        if not self.shadow.avg: self.shadow.avg = {k:v.clone() for k,v in self.model.state_dict().items() if v.is_floating_point()}
        if not hasattr(self, 'twin'): self.twin = deepcopy(self.model)
    def after_step(self):
        self.seen.append(self.rng.random())
        for k,v in self.shadow.avg.items(): v.lerp_(self.model.state_dict()[k], .1)
        self.twin.a.weight.data.lerp_(self.model.a.weight.data, .1)

def learner(opt_func=Adam, splitter=three_groups, frozen=False, cbs=None, seed=0):
    set_seed(seed)
    dls = synth_learner(n_trn=5, n_val=2).dls
    learn = Learner(dls, Net(), MSELossFlat(), opt_func=opt_func, splitter=splitter, lr=.01, cbs=cbs, metrics=mse, path='.')
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    if frozen: learn.freeze()
    return learn

def state(learn):
    "All that training can change, as plain values"
    opt = learn.opt
    sd = None if opt is None else deepcopy(opt.state_dict())
    ema = [c for c in learn.cbs if isinstance(c, EMA)]
    return dict(params=[p.detach().clone() for p in learn.model.parameters()], buffers=[b.clone() for b in learn.model.buffers()],
        grads=[None if p.grad is None else p.grad.clone() for p in learn.model.parameters()],
        rg=[p.requires_grad for p in learn.model.parameters()], modes=[m.training for m in learn.model.modules()], opt=sd,
        hypers=None if opt is None else [dict(h) for h in opt.hypers], rngs=[str(dl.rng.getstate()) for dl in learn.dls.loaders],
        glob=[str(random.getstate()), str(np.random.get_state()), torch.get_rng_state()],
        rec={k:deepcopy(v) for k,v in learn.recorder.__dict__.items() if k!='learn'}, cbs=list(learn.cbs), keys=set(learn.__dict__),
        ema=[(deepcopy(c.shadow.__dict__), c.seen[:], c.rng.bit_generator.state) for c in ema],
        twin=[c.twin.a.weight.detach().clone() for c in ema if hasattr(c, 'twin')])

opts = {'Adam': Adam, 'SGD': partial(SGD, mom=.9), 'Lamb': Lamb, 'ranger': ranger,
        'AdamW': partial(OptimWrapper, opt=torch.optim.AdamW), 'torch SGD': partial(OptimWrapper, opt=torch.optim.SGD, momentum=.9)}

def interlude(learn):
    "Everything at once: other hypers, other frozen groups, other callbacks, a new optimizer, NaN, and an error at the end"
    learn.fit(1, .1, wd=.3, cbs=[GradientClip, GradientAccumulation(16)])
    learn.unfreeze(); learn.validate(); learn.get_preds()
    learn.fit(1, 1e8, reset_opt=True)
    learn.model.head.bias.data.fill_(float('nan')); learn.model.bn.train(); learn.add_cb(GradientClip); learn.lr = 5
    for p in learn.model.parameters(): p.requires_grad_(False)
    random.random(); np.random.rand(); torch.rand(3)

@pytest.mark.parametrize('when', ['fresh', 'mid'])
@pytest.mark.parametrize('frozen', [False, True])
@pytest.mark.parametrize('opt', opts)
@pytest.mark.parametrize('ending', ['returns', 'error', 'interrupt', 'cancel'])
def test_preserved_is_a_bitwise_noop(opt, frozen, when, ending):
    learn = learner(opts[opt], frozen=frozen, cbs=EMA())
    if when=='mid':
        learn.fit(1)
        learn.model(torch.randn(4,1)).sum().backward() # gradients that are not zero belong to the state
    ex = dict(returns=None, error=ValueError('x'), interrupt=KeyboardInterrupt(), cancel=CancelFitException())[ending]
    before,ids = state(learn),[id(p) for p in learn.model.parameters()]
    try:
        with preserved(learn):
            interlude(learn)
            if ex: raise ex
    except (ValueError,KeyboardInterrupt,CancelFitException) as e: assert e is ex
    assert_same(before, state(learn))
    assert ids==[id(p) for p in learn.model.parameters()]

@pytest.mark.parametrize('opt', opts)
def test_fit_after_preserved_is_the_same_fit(opt):
    def run(between):
        learn = learner(opts[opt], cbs=EMA())
        learn.fit(1)
        if between:
            with preserved(learn): interlude(learn)
        learn.fit(2)
        return state(learn)
    a,b = run(False),run(True)
    for s in (a,b): s.pop('cbs'); s['rec'] = {k: s['rec'][k] for k in ('lrs','losses','iters','values')} # the rest holds times of day
    assert_same(a, b)

_events = [e for e in dir(event) if e.startswith(('before_','after_')) and e!='after_create' and 'cancel' not in e]

class Interrupt(Callback):
    order = 200
    def __init__(self, at): self.at = at
    def __call__(self, name):
        if name==self.at: raise KeyboardInterrupt

@pytest.mark.parametrize('at', _events)
def test_interrupt_at_any_event(at):
    learn = learner(cbs=EMA())
    learn.fit(1)
    before = state(learn)
    with pytest.raises(KeyboardInterrupt):
        with preserved(learn): learn.fit(2, cbs=[Interrupt(at), GradientClip, ParamScheduler({'lr': SchedCos(.1,.01)})])
    assert_same(before, state(learn))

def test_identity_and_later_additions():
    m = nn.Linear(2,2)
    d,l,s = {'a': 1},[1,[2]],{1,2}
    holder = SimpleNamespace()
    snap = Snapshot(m, d, l, s)
    inner,w = l[1],m.weight
    d['b'] = 2; l.append(3); inner.append(9); s.add(3)
    m.weight = nn.Parameter(torch.zeros(5,5)); m.extra = 1; m.register_buffer('buf', torch.ones(1)); m.register_forward_hook(noop)
    w.requires_grad_(False)
    snap.restore()
    assert d=={'a':1} and l==[1,[2]] and l[1] is inner and s=={1,2}
    assert m.weight is w and w.requires_grad and not hasattr(m, 'extra') and not hasattr(m, 'buf') and not m._forward_hooks

def test_moved_tensor_comes_back():
    t = torch.arange(3.)
    snap = Snapshot(t)
    t.data = torch.zeros(7, dtype=torch.float64)
    snap.restore()
    assert torch.equal(t, torch.arange(3.)) and t.dtype==torch.float32

def test_generators():
    gens = random.Random(3),np.random.default_rng(3),np.random.RandomState(3),torch.Generator().manual_seed(3)
    draw = lambda: (gens[0].random(), gens[1].random(), gens[2].rand(), torch.rand(1, generator=gens[3]).item())
    snap = Snapshot(gens)
    a = draw(); draw(); snap.restore()
    assert draw()==a
    snap.restore(); assert draw()==a

def test_arrays_deques_and_nested():
    from collections import deque,OrderedDict
    o = dict(a=np.arange(3), q=deque([1,2], maxlen=3), t=(torch.ones(2), [torch.zeros(1)]), o=np.array([[1],[2]], dtype=object))
    snap = Snapshot(o)
    o['a'][:] = 9; o['q'].append(5); o['t'][0].zero_(); o['t'][1].clear()
    snap.restore()
    assert o['a'].tolist()==[0,1,2] and list(o['q'])==[1,2] and o['q'].maxlen==3 and o['t'][0].sum()==2 and len(o['t'][1])==1

def test_foreign_objects_are_left_alone():
    class Run:
        n = 0
    Run.__module__ = 'wandb.sdk'
    class CB(Callback): pass
    cb,learn = CB(),learner()
    cb.wandb_run = Run(); cb.wandb_run.name = "run"; learn.add_cb(cb)
    with preserved(learn): cb.wandb_run.n = 5; cb.extra = 1
    assert cb.wandb_run.n==5 and not hasattr(cb, 'extra')

def test_zero_grads_cost_no_copy():
    m = nn.Linear(1000,1000)
    m(torch.ones(1,1000)).sum().backward()
    m.zero_grad(set_to_none=False)
    snap = Snapshot(m)
    assert snap.nbytes==4*(1000*1000+1000)
    m.weight.grad.fill_(3.); snap.restore(); assert m.weight.grad.abs().sum()==0

def test_memory_is_used_again():
    m = nn.Sequential(nn.Conv2d(3,256,3), nn.Conv2d(256,600,3).to(memory_format=torch.channels_last), nn.BatchNorm2d(600), nn.Linear(2,2).to(torch.bfloat16))
    m.register_buffer('odd', torch.arange(12.).reshape(3,4)[:,::2], persistent=False)
    snap = Snapshot(m); ptrs = [t.data_ptr() for t in snap.copies.copies]
    for p in m.parameters(): p.data.add_(1)
    new = [t.clone() for t in (*m.parameters(), *m.buffers())]
    snap = Snapshot(m, reuse=snap)
    assert [t.data_ptr() for t in snap.copies.copies]==ptrs
    for t in (*m.parameters(), *m.buffers()): t.data.zero_()
    snap.restore()
    assert all(torch.equal(a,b) for a,b in zip(new, (*m.parameters(), *m.buffers())))
    m.extra = nn.Linear(2,2)
    other = Snapshot(m, reuse=snap)
    assert len(other.copies.copies)==len(ptrs)+2 and not snap.copies.copies

def test_sparse_gradients_and_none():
    e = nn.Embedding(5,2,sparse=True); e(tensor([1,3])).sum().backward(); l = nn.Linear(2,2)
    snap,g = Snapshot(e, l),e.weight.grad.to_dense().clone()
    e.weight.grad = None; l(torch.ones(1,2)).sum().backward(); snap.restore()
    assert torch.equal(e.weight.grad.to_dense(), g) and l.weight.grad is None

def test_copies_can_live_elsewhere():
    m = nn.Linear(2,2)
    w = m.weight.detach().clone()
    snap = Snapshot(m, device='cpu')
    m.weight.data.zero_(); snap.restore()
    assert torch.equal(m.weight, w)

def test_torch_dataloader_generator():
    g = torch.Generator().manual_seed(1)
    ds = [(torch.randn(1),torch.randn(1)) for _ in range(16)]
    mk = lambda s: torch.utils.data.DataLoader(ds, batch_size=4, shuffle=s, generator=g)
    learn = Learner(DataLoaders(mk(True), mk(False)), RegModel(), MSELossFlat())
    learn.remove_cb(ProgressCallback); learn.logger = noop
    before = g.get_state()
    with preserved(learn): learn.fit(1)
    assert torch.equal(before, g.get_state())

def test_autocast_left_on_is_switched_off():
    learn = learner()
    assert not torch.is_autocast_enabled('cpu')
    with preserved(learn):
        torch.autocast('cpu', dtype=torch.bfloat16).__enter__()
        torch.set_grad_enabled(False)
        assert torch.is_autocast_enabled('cpu')
    assert not torch.is_autocast_enabled('cpu') and torch.is_grad_enabled()
    torch.autocast_increment_nesting(); assert torch.autocast_decrement_nesting()==0

def test_second_interrupt_waits_for_the_undo(monkeypatch):
    learn = learner(); before = state(learn)
    restore = Snapshot.restore
    def interrupted(self):
        os.kill(os.getpid(), signal.SIGINT)
        restore(self)
    monkeypatch.setattr(undo_module.Snapshot, 'restore', interrupted)
    with pytest.raises(KeyboardInterrupt):
        with preserved(learn): learn.fit(1)
    assert_same(before, state(learn))

def test_opt_func_that_is_an_instance():
    set_seed(0)
    m = Net()
    opt = OptimWrapper(m.parameters(), torch.optim.SGD, lr=.1)
    learn = Learner(synth_learner().dls, m, MSELossFlat(), opt_func=opt)
    learn.remove_cb(ProgressCallback); learn.logger = noop
    with preserved(learn): learn.fit(1, 3.)
    assert learn.opt is None and opt.hypers[0]['lr']==.1


def test_tensors_that_repeat_themselves():
    "As the random transforms of images keep them"
    rows,window = torch.arange(3.),torch.arange(6.).unfold(0, 3, 1)
    holder = [rows.expand(4,3), torch.ones(()).expand(2,2), window]
    before = [t.clone() for t in holder]
    snap = Snapshot(holder)
    rows += 1
    holder[1].as_strided((1,),(0,)).zero_()
    window[:,0] += 5
    snap.restore()
    assert_same(before, holder)

def test_tensors_of_several_classes():
    "fastai's do not mix in one call of torch"
    holder = [TensorImage(torch.ones(2)), TensorCategory(torch.tensor([1,2])), TensorBase(torch.ones(3)), torch.ones(4)]
    snap = Snapshot(holder)
    for t in holder: t.zero_()
    snap.restore()
    assert [t.sum().item() for t in holder]==[2,3,3,4] and isinstance(holder[0], TensorImage)
