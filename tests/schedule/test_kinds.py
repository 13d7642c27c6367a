"Kinds of faults: infinite values, groups that are added late, accumulation, what a file may hold"
import math,warnings
import pytest,torch
from fastai.basics import *
from fastai.callback.all import *
from fastai_anneal.all import *
from fastai_anneal.core.files import packed,unpacked
from hypothesis import given,strategies as st
from helpers import *

LR = torch.optim.lr_scheduler

# ---- infinite and missing values

class Given(Metric):
    "A metric with given values, one for each epoch"
    name = 'given_loss'
    def __init__(self, values): self.values,self.i = values,-1
    def reset(self): self.i += 1
    def accumulate(self, learn): pass
    @property
    def value(self): return self.values[min(self.i, len(self.values)-1)]

@pytest.mark.parametrize('values', [[math.inf,5,4,3,2,1], [5,math.inf,4,3,2,1], [math.nan,5,4,3,2,1], [math.inf,math.inf,3,2,1,0], [5,4,math.nan,3,math.inf,2]])
@pytest.mark.parametrize('threshold_mode', ['rel','abs'])
def test_plateau_is_torchs_with_infinite_values(values, threshold_mode):
    learn = small_learner(metrics=Given([float(v) for v in values]))
    found = hypers_of_fit(learn, 6, Plateau('given_loss', patience=1, threshold_mode=threshold_mode))[::10,0]
    opt = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=.1)
    scheduler,expected = LR.ReduceLROnPlateau(opt, patience=1, threshold_mode=threshold_mode),[]
    for value in values:
        expected.append(opt.param_groups[0]['lr'])
        opt.step()
        scheduler.step(value)
    assert found.tolist()==pytest.approx(expected)

# ---- groups that are added in the middle of a fit

class AddGroup(Callback):
    "Another parameter group at the beginning of an epoch"
    order = 5
    def __init__(self, epoch, lr): self.at,self.lr = epoch,lr
    def before_epoch(self):
        if self.epoch==self.at: self.opt.opt.add_param_group({'params': [nn.Parameter(torch.zeros(3))], 'lr': self.lr})

def rates(cbs, n_epoch=4):
    learn,seen = small_learner(opt='torch_sgd'),[]
    look = On('before_step', lambda learn: seen.append([group['lr'] for group in learn.opt.opt.param_groups]))
    with quiet(learn): learn.fit(n_epoch, .1, cbs=[*L(cbs), AddGroup(2, .4), look])
    return seen

@pytest.mark.parametrize('cbs', [lambda: CosineAnneal(), lambda: StepAnneal('1ep', gamma=.5), lambda: OneCycle(moms=None), lambda: CosineAnneal(lr_min=.01)])
def test_a_new_group_follows_the_schedule(cbs):
    seen = rates(cbs())
    assert all(len(o)==1 for o in seen[:20]) and all(len(o)==2 for o in seen[20:])
    if 'lr_min' not in repr(vars(cbs())) or cbs().lr_min is None: assert [b/a for a,b in seen[20:-1]]==pytest.approx([4]*19)
    assert seen[-1][1]<seen[20][1]

def test_factors_hold_for_a_new_group():
    assert rates(HyperScale({'lr': .5}))[20:]==[[.05,.2]]*20
    seen = rates(Plateau(patience=0, threshold=10))
    assert [a for a,*_ in seen[::10]]==pytest.approx([.1,.1,.01,.001]) and seen[-1][1]==pytest.approx(.4*.01)

@pytest.mark.parametrize('cb,message', [(lambda: TorchSched(partial(LR.StepLR, step_size=1)), 'cannot take new ones in'), (lambda: HyperScale({'lr': [.5]}), None)])
def test_what_cannot_take_it_in_says_so(cb, message):
    if message is None: return rates(cb())
    with pytest.raises(ValueError, match=message): rates(cb())

# ---- torch's schedulers

@pytest.mark.parametrize('n_acc', [4,8,12,20])
@pytest.mark.parametrize('start', [1,2,3])
def test_skipped_epochs_count_as_steps_of_the_optimizer(n_acc, start):
    def run(start):
        seen = []
        learn = small_learner()
        with quiet(learn):
            learn.fit(4, .1, start_epoch=start, cbs=[TorchSched(partial(LR.ExponentialLR, gamma=.9), by='batch'), GradientAccumulation(n_acc),
                                                     On('before_step', lambda learn: seen.append((learn.epoch, learn.opt.hypers[-1]['lr'])))])
        return seen
    n_before = sum(epoch<start for epoch,_ in run(0))
    assert run(start)[0][1]==pytest.approx(.1*.9**n_before)

class NeedsEpoch:
    "A scheduler such as timm's: `step` wants the number of the epoch"
    def __init__(self, optimizer): self.optimizer,self.seen = optimizer,[]
    def step(self, epoch):
        self.seen.append(epoch)
        for group in self.optimizer.param_groups: group['lr'] = .1/(1+epoch)
    def state_dict(self): return dict(seen=self.seen)
    def load_state_dict(self, state): self.seen = state['seen']

def test_a_scheduler_whose_step_needs_the_epoch():
    assert hypers_of_fit(small_learner(), 3, TorchSched(NeedsEpoch))[::10,0].tolist()==pytest.approx([.1,.05,.1/3])
    with pytest.raises(ValueError, match="needs epoch"): hypers_of_fit(small_learner(), 1, TorchSched(NeedsEpoch, by='batch'))

def test_loaded_state_is_given_back():
    sched = TorchSched(partial(LR.StepLR, step_size=1))
    state = {}
    hypers_of_fit(small_learner(), 2, [sched, On('after_batch', lambda learn: state.update(sched.state_dict()))])
    other = TorchSched(partial(LR.StepLR, step_size=1))
    other.load_state_dict(state)
    assert other.state_dict()==state
    anneal = CosineAnneal()
    anneal.load_state_dict(dict(horizon=(2,10), run=(2,10), at=(1,1), rate=[(0,1),(0,1),(1,1)]))
    assert anneal.state_dict()['horizon']==(2,10)

@pytest.mark.parametrize('at', range(18, 24))
def test_a_cycled_momentum_at_its_start_goes_on(at, tmp_path):
    def make(): return small_learner(opt='torch_sgd', path=tmp_path)
    def cbs(): return [TorchSched(partial(LR.CyclicLR, base_lr=.01, max_lr=.1, step_size_up=5, step_size_down=5), by='batch')]
    whole = make()
    with quiet(whole): whole.fit(4, .1, cbs=cbs())
    for stop in (at, None):
        learn = make()
        try:
            with quiet(learn): learn.fit(4, .1, cbs=[*cbs(), Checkpoint(tmp_path/'c.pth', every='1it'), StopAt(stop)])
        except KeyboardInterrupt: pass
    assert torch.equal(weights(whole), weights(learn))

# ---- files are data

def stopped(tmp_path, **kwargs):
    "A learner that was stopped with a checkpoint"
    learn = small_learner(path=tmp_path)
    with quiet(learn), pytest.raises(KeyboardInterrupt): learn.fit(2, cbs=[Checkpoint(tmp_path/'c.pth', every='4it', **kwargs), StopAt(9)])
    return tmp_path/'c.pth'

class Evil:
    def __reduce__(self): return (print, ('code of the file runs',))

def refused(tmp_path, match):
    learn = small_learner(path=tmp_path)
    before = fingerprint(learn)
    with quiet(learn), pytest.raises(ValueError, match=match): learn.fit(2, cbs=[Checkpoint(tmp_path/'c.pth'), StopAt(None)])
    assert_same(before, fingerprint(learn))

def test_a_checkpoint_is_data(tmp_path):
    saved = torch.load(stopped(tmp_path), weights_only=True)
    assert saved['epoch']==0 and saved['iter']==8

def test_a_prepared_file_runs_no_code(tmp_path, capsys):
    torch.save(Evil(), tmp_path/'c.pth')
    refused(tmp_path, 'holds more than data')
    assert 'code of the file runs' not in capsys.readouterr().out

@pytest.mark.parametrize('content,match', [(dict(model=torch.ones(2)), 'is no checkpoint'), ([1,2], 'is no checkpoint'), (torch.ones(2), 'is no checkpoint')])
def test_foreign_files(tmp_path, content, match):
    torch.save(content, tmp_path/'c.pth')
    refused(tmp_path, match)

def test_a_newer_file(tmp_path):
    file = stopped(tmp_path)
    saved = torch.load(file, weights_only=True)
    torch.save({**saved, 'format': (saved['format'][0], 99)}, file)
    refused(tmp_path, 'version 99')

class Holder(Callback):
    "A callback whose state is no plain data"
    def __init__(self): self.n = 0
    def after_batch(self): self.n += 1
    def state_dict(self): return dict(n=self.n, obj=Seen(self.n))
    def load_state_dict(self, state): self.obj = state['obj']

class Seen:
    def __init__(self, n): self.n = n
    def __eq__(self, o): return self.n==o.n

def test_what_is_no_data_is_named_or_trusted(tmp_path):
    for trust in (False,True):
        first,second = small_learner(path=tmp_path),small_learner(path=tmp_path)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            with quiet(first), pytest.raises(KeyboardInterrupt):
                first.fit(2, cbs=[Holder(), Checkpoint(tmp_path/'t.pth', every='4it', trust=trust), StopAt(9)])
        assert any("Seen" in str(w.message) and 'trust=True' in str(w.message) for w in caught)!=trust
        holder = Holder()
        with quiet(second): second.fit(2, cbs=[holder, Checkpoint(tmp_path/'t.pth', trust=trust), StopAt(None)])
        assert holder.obj==(Seen(8) if trust else None)

def test_a_bar_is_no_part_of_a_training(tmp_path):
    stopped(tmp_path)
    learn = small_learner(path=tmp_path, progress=True)
    with quiet(learn): learn.fit(2, cbs=[Checkpoint(tmp_path/'c.pth'), StopAt(None)])
    whole = small_learner()
    with quiet(whole): whole.fit(2)
    assert torch.equal(weights(whole), weights(learn))

values = st.recursive(st.none()|st.booleans()|st.integers()|st.floats(allow_nan=False)|st.text()|st.binary()|st.fractions(),
                      lambda o: st.lists(o)|st.tuples(o,o)|st.dictionaries(st.text(), o)|st.sets(st.integers()), max_leaves=8)
@given(values)
def test_packed_comes_back(value):
    left_out = []
    assert unpacked(packed(value, 'x', left_out))==value and left_out==[]
