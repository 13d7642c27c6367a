"""What a GPU has of its own: generators, mixed precision that skips steps, memory of two kinds

`tools/cuda` runs these; `FASTAI_ANNEAL_DEVICE=cpu pytest -m cuda` tries them without a GPU, with torch's mixed precision of the CPU.
"""
import pytest
from fastai.basics import *
from fastai.callback.all import *
from fastai_anneal.all import *
from fastai_anneal.core.undo import preserved
from helpers import *

pytestmark = pytest.mark.cuda

# The scale of the last begins so high that the first gradients overflow: their steps are skipped, and it is halved
PRECISIONS = dict(full=lambda: [], fp16=lambda: [MixedPrecision()], bf16=lambda: [MixedPrecision('bf16')],
                  skipping=lambda: [MixedPrecision(init_scale=2.**40)])
every_precision = pytest.mark.parametrize('precision', PRECISIONS)

def a_learner(gpu, precision='full', cls=Learner, width=64, **kwargs):
    "With dropout, which draws from the GPU's generator; it lies on the CPU until it is trained"
    def data():
        dls = blobs(n=512, bs=16)
        dls.to(gpu)
        return dls
    return small_learner(data, width=width, dropout=.3, cls=cls, cbs=PRECISIONS[precision](), **kwargs)

class SkippedSteps(Callback):
    "Counts the steps that mixed precision leaves out, where no undo finds it"
    def __init__(self, counts): self.add = counts.append
    def after_cancel_step(self): self.add(1)

def device_rng(gpu): return torch.cuda.get_rng_state(gpu) if gpu.type=='cuda' else torch.get_rng_state()

@every_precision
@pytest.mark.parametrize('refine', [0,2])
@pytest.mark.parametrize('trained', [False,True])
@pytest.mark.parametrize('device', [None,'cpu'])
def test_a_search_leaves_no_trace(precision, refine, trained, device, gpu):
    ends = []
    for searches in (False,True):
        learn = a_learner(gpu, precision)
        if trained: learn.fit(1, 1e-3)
        before = fingerprint(learn),device_rng(gpu)
        where = {p.device for p in learn.model.parameters()}
        if searches: learn.lr_find(show_plot=False, num_it=30, refine=refine, n_it=10, device=device)
        assert_same(before, (fingerprint(learn), device_rng(gpu)))
        assert {p.device for p in learn.model.parameters()}==where
        learn.fit(1, 1e-3)
        ends.append((fingerprint(learn), device_rng(gpu)))
    assert_same(*ends)

@every_precision
def test_a_search_in_the_middle_of_a_fit(precision, gpu):
    "The scaler of the fit goes on where it was"
    def scale(learn): return learn.scaler.get_scale() if getattr(learn, 'scaler', None) else 1.
    ends = []
    for searches in (False,True):
        learn,scales = a_learner(gpu, precision),Record(scale, 'after_batch')
        if searches: learn.add_cb(On('after_epoch', lambda learn: learn.lr_find(show_plot=False, num_it=20), nth=1))
        learn.fit(2, 1e-3, cbs=scales)
        ends.append((fingerprint(learn), device_rng(gpu), scales.seen[-32:]))
    assert_same(ends[0][:2], ends[1][:2])
    assert_same(ends[0][2], ends[1][2])

SCHEDULES = dict(plain=lambda: [], cosine=lambda: [CosineAnneal(warmup='10%')],
                 torch=lambda: [TorchSched(partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=96), by='batch')])

@pytest.mark.parametrize('schedule', SCHEDULES)
def test_skipped_steps(schedule, gpu):
    "Both loops skip the same steps, and schedules go on by batches"
    ends = []
    for cls in (Learner,TrainLearner):
        counts,lrs = [],Record('lr')
        learn = a_learner(gpu, 'skipping', cls)
        learn.fit(3, 1e-2, cbs=[*SCHEDULES[schedule](), SkippedSteps(counts), lrs])
        assert 5<len(counts)<60
        ends.append((fingerprint(learn), len(counts), np.array(lrs.seen)))
    assert_same(*ends)

def never(*args): return 0.

@every_precision
@pytest.mark.parametrize('device', [None,'cpu'])
def test_rejected_candidates_leave_no_trace(precision, device, gpu):
    ends = []
    for anneals in (False,True):
        learn = a_learner(gpu, precision)
        cb = SimAnnealHP({'lr': LogFloat(1e-4, 1)}, seed=0, accept=never, cool=0, device=device)
        learn.fit(3, 1e-3, cbs=[cb] if anneals else [])
        assert not anneals or len(cb.history) and not cb.history.accepted.any()
        ends.append((fingerprint(learn), device_rng(gpu)))
    for o in ends: o[0]['recorder'].pop('hps')
    assert_same(*ends)

@every_precision
def test_accepted_candidates_and_a_way_back(precision, gpu):
    "From a rate that destroys the model: what is left is finite and lies on the GPU"
    learn,cb = a_learner(gpu, precision, opt='sgd'),SimAnnealHP({'lr': LogFloat(1e-4, 1e6)}, seed=0)
    learn.fit(4, 1e5, cbs=cb)
    assert cb.history.accepted.any() and math.isfinite(valid_loss(learn))
    assert {p.device.type for p in learn.model.parameters()}=={gpu.type}

def leave_autocast(gpu):
    "In a batch that is killed fastai's mixed precision stays on: another process would not have that"
    while torch.autocast_increment_nesting()>1:
        for _ in range(2): torch.autocast_decrement_nesting()
    torch.autocast_decrement_nesting()
    torch.set_autocast_enabled(gpu.type, False)
    torch.clear_autocast_cache()

@every_precision
@pytest.mark.parametrize('cbs', ['cosine','anneal'])
@pytest.mark.parametrize('at', [9,64,70])
def test_killed_and_resumed(precision, cbs, at, tmp_path, gpu):
    "With the GPU's generator and the scaler, whose scale was halved on the way"
    make = dict(cosine=lambda: CosineAnneal(), anneal=lambda: SimAnnealHP({'lr': LogFloat(1e-4, 1)}, seed=0, every='8it'))[cbs]
    def fit(kill):
        learn = a_learner(gpu, precision)
        try: learn.fit(3, 1e-3, cbs=[make(), Checkpoint(tmp_path/'c.pth', every='8it'), KillAt(kill)])
        finally: leave_autocast(gpu)
        return fingerprint(learn),device_rng(gpu)
    whole = fit(None)
    with pytest.raises(RuntimeError, match='killed'): fit(at)
    if not (tmp_path/'c.pth').exists(): return # killed before the first save: there is nothing to go on from
    if gpu.type=='cuda': torch.cuda.manual_seed_all(123)
    assert_same(whole, fit(None))

@pytest.mark.parametrize('device', [None,'cpu'])
def test_undo_of_anything(device, gpu):
    "Weights, the optimizer's state, gradients, the generators of both"
    learn = a_learner(gpu, 'fp16')
    learn.fit(1)
    before = fingerprint(learn),device_rng(gpu)
    with preserved(learn, device=device):
        learn.fit(1)
        torch.rand(3, device=gpu)
    assert_same(before, (fingerprint(learn), device_rng(gpu)))

def test_a_checkpoint_of_the_gpu_is_read_on_the_cpu(tmp_path, gpu):
    for where,kill in ((gpu,20), (torch.device('cpu'),None)):
        learn = a_learner(where)
        cbs = [CosineAnneal(), Checkpoint(tmp_path/'c.pth', every='8it'), KillAt(kill)]
        if kill is None: learn.fit(2, 1e-3, cbs=cbs)
        else:
            with pytest.raises(RuntimeError, match='killed'): learn.fit(2, 1e-3, cbs=cbs)
    assert math.isfinite(valid_loss(learn)) and next(learn.model.parameters()).device.type=='cpu'
