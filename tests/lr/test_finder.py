"""`lr_find` and `hp_find`: they change nothing, whatever happens, and say what they found"""
import math,os,pickle

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from fastai.basics import *
from fastai.callback.all import *
from fastai.callback.schedule import LRFinder as FastaiFinder

from fastai_anneal.lr.curve import ema_curve
from fastai_anneal.lr.finder import *
from fastai_anneal.lr.found import *
from fastai_anneal.lr.horizon import optimizer_kind
from fastai_anneal.lr.sweep import *
from helpers import *

FOUR = (valley, slide, minimum, steep)
three_groups = dict(splitter=groups_by_layer)

def a_learner(data=blobs, **kwargs): return small_learner(data, **{'lr': 1e-2, **kwargs})
def find(learn, **kwargs): return learn.lr_find(**{**dict(show_plot=False, num_it=30), **kwargs})

# ---- the no-op ----------------------------------------------------------------------------------
@pytest.mark.parametrize('opt', OPT_FUNCS)
@pytest.mark.parametrize('options', [{}, three_groups, dict(three_groups, frozen=True)])
@pytest.mark.parametrize('is_fresh', [True,False])
def test_find_then_fit_is_fit(opt, options, is_fresh):
    learn,other = [a_learner(opt=opt, **options) for _ in range(2)]
    for o in (learn,other):
        set_seed(5)
        if not is_fresh: o.fit_one_cycle(1, 1e-2)
    before = fingerprint(learn, attributes=True)
    assert len(find(learn).losses)>=10
    assert_same(before, fingerprint(learn, attributes=True))
    for o in (learn,other):
        set_seed(6)
        o.fit(1)
    assert_same(fingerprint(learn), fingerprint(other))

@pytest.mark.parametrize('opt', ['adam','adamw'])
@pytest.mark.parametrize('is_fresh', [True,False])
def test_repeats_and_refine_leave_no_trace(opt, is_fresh):
    learn = a_learner(opt=opt, **three_groups)
    if not is_fresh: learn.fit(1)
    before = fingerprint(learn, attributes=True)
    find(learn, repeats=2, refine=4, n_it=20, seed=1)
    assert_same(before, fingerprint(learn, attributes=True))

def test_seed_makes_it_reproducible():
    found = []
    for seed in (1,2):
        learn = a_learner()
        set_seed(seed)
        found.append(find(learn, seed=7, repeats=2, refine=4, n_it=20))
    assert found[0]==found[1]

EVENTS = '''before_fit before_epoch before_train before_batch after_pred after_loss before_backward after_backward
            before_step after_step after_batch after_fit after_cancel_fit'''.split()

@pytest.mark.parametrize('event', EVENTS)
@pytest.mark.parametrize('error', [KeyboardInterrupt(), RuntimeError('out of memory')])
def test_nothing_is_left_after_an_error_in_any_event(event, error):
    def fail(learn): raise error
    learn = a_learner(opt='sgd', frozen=True, **three_groups)
    learn.fit(1)
    once = event in ('before_fit','before_epoch','before_train','after_fit','after_cancel_fit')
    learn.add_cb(On(event, fail, nth=1 if once else 5))
    before = fingerprint(learn, attributes=True)
    with pytest.raises(type(error)): find(learn)
    assert_same(before, fingerprint(learn, attributes=True))

@pytest.mark.parametrize('cancel', [CancelFitException, CancelEpochException, CancelTrainException])
def test_cancels_by_callbacks(cancel):
    learn,seen = a_learner(),[]
    def stop(learn):
        seen.append(1)
        if len(seen)>12: raise cancel()
    learn.add_cb(On('before_batch', stop))
    before = fingerprint(learn, attributes=True)
    found = find(learn)
    assert len(found.losses)==12
    assert_same(before, fingerprint(learn, attributes=True))

@pytest.mark.parametrize('event,nth', [('before_fit',None), ('before_batch',None), ('after_loss',None), ('before_fit',1), ('before_batch',40)])
@pytest.mark.parametrize('search', ['lr_find','repeats','refine','hp_find'])
def test_cancelled_before_its_first_point(event, nth, search):
    def stop(learn): raise CancelFitException()
    learn = a_learner(cbs=On(event, stop, nth=nth))
    before = fingerprint(learn, attributes=True)
    if search=='hp_find': found = learn.hp_find('wd', 1e-5, 1, num_it=30, show_plot=True)
    else: found = find(learn, show_plot=True, **dict(repeats=dict(repeats=2), refine=dict(refine=4, n_it=20)).get(search, {}))
    assert_same(before, fingerprint(learn, attributes=True))
    assert type(found).from_json(found.to_json())==found and len(found.to_df())==len(found.losses)
    assert math.isclose(found.group_lrs[-1], found.value) or math.isnan(found.value)
    if nth: return
    assert math.isnan(found.value) and len(found.losses)==0 and 'cancelled' in found.stop_reason
    assert found.warnings==['the sweep has no usable points: no suggestion']
    assert 'no usable point' in repr(found) and 'no usable point' in found._repr_markdown_()
    with pytest.raises(ValueError, match='no usable point'): found.apply()

def test_an_optimizer_that_never_steps_is_an_error():
    def skip(learn): raise CancelBatchException()
    with pytest.raises(ValueError, match='does not step'): find(a_learner(cbs=On('before_batch', skip)))

def test_bar_and_files(tmp_path, capsys):
    trackers = [CSVLogger(), SaveModelCallback(every_epoch=True), EarlyStoppingCallback(), ReduceLROnPlateau(), TerminateOnNaNCallback()]
    learn = a_learner(cbs=trackers, path=tmp_path, progress=True)
    (tmp_path/'history.csv').write_text('mine')
    os.chmod(tmp_path, 0o500)
    try: find(learn)
    finally: os.chmod(tmp_path, 0o700)
    assert [o.name for o in tmp_path.iterdir()]==['history.csv'] and (tmp_path/'history.csv').read_text()=='mine'
    assert 'epoch' not in capsys.readouterr().out

def test_trackers_go_on_as_if_nothing_happened(tmp_path):
    states = []
    for i in (0,1):
        trackers = [SaveModelCallback(fname=f'm{i}', reset_on_fit=False), EarlyStoppingCallback(reset_on_fit=False)]
        learn = a_learner(cbs=trackers, path=tmp_path)
        for seed in (1,2):
            set_seed(seed)
            learn.fit(2)
            if i and seed==1: find(learn)
        states.append((fingerprint(learn), learn.save_model.best, learn.early_stopping.wait))
    assert_same(*states)

class Counting(Callback):
    "Holds what nobody can turn back"
    def __init__(self): self.numbers = iter(range(10**6))
    def before_batch(self): next(self.numbers)

def test_what_cannot_be_turned_back_is_a_warning():
    learn = a_learner(cbs=Counting())
    for found in (find(learn), learn.hp_find('wd', 1e-5, 1, num_it=12, show_plot=False)):
        assert sum('cannot be turned back' in warning for warning in found.warnings)==1
    assert not any('turned back' in warning for warning in find(a_learner()).warnings)

# ---- in the middle of a fit ---------------------------------------------------------------------
MIDDLE = '''before_fit before_epoch before_train before_batch after_pred after_loss before_backward after_backward before_step
            after_step after_batch after_train before_validate after_validate after_epoch after_fit'''.split()
AROUND = dict(none=list, mixup=lambda: [MixUp(.4), GradientClip(.1)], bf16=lambda: [MixedPrecision(amp_mode='bf16')])

@pytest.mark.parametrize('event', MIDDLE)
@pytest.mark.parametrize('opt,around', [('adam','none'), ('torch_sgd','none'), ('adam','mixup'), ('torch_sgd','bf16')])
def test_in_any_event_of_a_fit(event, opt, around):
    states = []
    for search in (find, noop):
        found,nth = [],1 if event in ('before_fit','before_epoch','after_fit') else 2
        def do(learn):
            if not hasattr(learn, 'lr_finder'): found.append(search(learn, num_it=12) if search is find else None)
        learn = a_learner(opt=opt, cbs=AROUND[around]())
        learn.loss_func = CrossEntropyLossFlat()
        learn.add_cb(On(event, do, nth=nth, order=200))
        set_seed(3)
        learn.fit(2)
        states.append((fingerprint(learn), learn.recorder.values))
        assert len(found)==1 and (search is noop or len(found[0].losses)>=5)
    assert_same(*states)

def test_under_no_grad_and_inference_mode():
    learn = a_learner()
    with torch.no_grad():
        assert len(find(learn).losses)>=10 and not torch.is_grad_enabled()
    before = fingerprint(learn, attributes=True)
    for search in (find, lambda learn: learn.hp_find('wd', 1e-5, 1)):
        with pytest.raises(RuntimeError, match='inference_mode'), torch.inference_mode(): search(learn)
    assert_same(before, fingerprint(learn, attributes=True))

def test_a_sweep_inside_of_a_sweep_is_an_error():
    learn = a_learner()
    learn.add_cb(On('after_batch', find))
    before = fingerprint(learn, attributes=True)
    with pytest.raises(RuntimeError, match='inside of a sweep'): find(learn)
    assert_same(before, fingerprint(learn, attributes=True))

# ---- what the divergence raises -----------------------------------------------------------------
def bce(pred, y): return F.binary_cross_entropy(pred[:,0].exp()/pred.exp().sum(1), (y==0).float())
def solved(pred, y):
    if not pred.isfinite().all() or pred.abs().max()>1e3: raise torch.linalg.LinAlgError('the matrix is singular')
    return F.cross_entropy(pred, y)
def checked(pred, y):
    loss = F.cross_entropy(pred, y)
    if loss>1e4: raise ValueError('too much')
    return loss
@pytest.mark.parametrize('loss_func', [bce, solved, checked])
@pytest.mark.parametrize('options', [{}, dict(repeats=2), dict(refine=4, n_it=20)])
def test_what_the_divergence_raises_ends_the_sweep(loss_func, options):
    learn = a_learner(opt='sgd')
    learn.loss_func = loss_func
    before = fingerprint(learn, attributes=True)
    found = find(learn, num_it=60, stop_div=False, end_lr=1e6, **options)
    assert_same(before, fingerprint(learn, attributes=True))
    assert 20<len(found.losses)<60 and 'Error at lr' in found.stop_reason and found.lr<10

@pytest.mark.parametrize('error', [RuntimeError('out of memory'), KeyError('x'), ValueError('nan')])
def test_a_bug_is_raised(error):
    def fail(learn): raise error
    for nth in (1,) if 'nan' in str(error) else (1,12):
        with pytest.raises(type(error)): find(a_learner(cbs=On('after_pred', fail, nth=nth)))

# ---- what trains takes part ---------------------------------------------------------------------
def test_callbacks_that_train_take_part():
    norms = Record(lambda learn: nn.utils.clip_grad_norm_(learn.model.parameters(), 1e9).item(), 'before_step')
    epochs = On('after_epoch', lambda learn: 1/0)
    find(a_learner(cbs=[MixUp(.4), GradientClip(.1), norms, epochs]), num_it=20, stop_div=False)
    assert len(norms.seen)==20 and max(norms.seen)<=.1001

def test_one_point_per_step_under_accumulation():
    found = find(a_learner(cbs=GradientAccumulation(64)), num_it=20, stop_div=False)
    assert len(found.losses)==20 and len(set(found.lrs))==20 and np.isclose(found.lrs[0], 1e-7)

def test_skipped_steps_are_marked():
    n_steps = []
    def skip(learn):
        n_steps.append(1)
        if len(n_steps)<=3: raise CancelStepException()
    found = find(a_learner(cbs=On('before_step', skip, order=80)), num_it=20, stop_div=False)
    assert found.skipped[:4].tolist()==[True,True,True,False] and not found.skipped[3:].any()

# ---- loaders ------------------------------------------------------------------------------------
class Stream(torch.utils.data.IterableDataset):
    "`n` points, or an endless stream of them"
    def __init__(self, n=None): self.n = n
    def __iter__(self):
        generator,i = torch.Generator().manual_seed(1),0
        while self.n is None or i<self.n:
            x = torch.randn(5, generator=generator)
            yield x,(x[0]>0).long()
            i += 1

_points = torch.randn(48, 5, generator=torch.Generator().manual_seed(0))
ITEMS = Items(zip(_points, (_points[:,0]>0).long()))
LOADERS = dict(
    one=lambda: DataLoader(ITEMS, bs=48), short=lambda: DataLoader(ITEMS, bs=16, shuffle=True),
    infinite=lambda: DataLoader(Stream(), bs=16), iterable=lambda: DataLoader(Stream(40), bs=16),
    counted=lambda: DataLoader(Stream(), bs=16, n=40), torch_stream=lambda: torch.utils.data.DataLoader(Stream(), batch_size=16),
    torch=lambda: torch.utils.data.DataLoader(ITEMS, batch_size=16, shuffle=True, generator=torch.Generator()),
    empty=lambda: DataLoader(ITEMS, bs=64, drop_last=True), empty_stream=lambda: DataLoader(Stream(0), bs=16))

def learner_on(kind):
    def data():
        dls = DataLoaders(LOADERS[kind](), DataLoader(ITEMS, bs=48), device='cpu')
        dls.n_in,dls.c = 5,4
        return dls
    return a_learner(data)

@pytest.mark.parametrize('kind', [o for o in LOADERS if 'empty' not in o])
def test_loaders(kind):
    found = find(learner_on(kind), num_it=25, stop_div=False, widen=False)
    assert len(found.losses)==25 and np.isfinite(found.losses).all()

@pytest.mark.parametrize('kind', ['empty','empty_stream'])
def test_no_batch_is_a_clear_error(kind):
    with pytest.raises(ValueError, match='no batch'): find(learner_on(kind))

# ---- groups -------------------------------------------------------------------------------------
@pytest.mark.parametrize('start,end,first', [([1e-7,1e-6,1e-5],[.1,1,10],[1e-7,1e-6,1e-5]),
                                             (slice(1e-7,1e-5),slice(.1,10),[1e-7,1e-6,1e-5]), (slice(1e-5),10,[1e-6,1e-6,1e-5])])
def test_ranges_of_groups(start, end, first):
    learn = a_learner(**three_groups)
    found = find(learn, start_lr=start, end_lr=end)
    np.testing.assert_allclose(found.values[0], first)
    assert len(found.group_lrs)==3 and math.isclose(found.group_lrs[-1], found.lr)
    found.apply()
    np.testing.assert_allclose(learn.lr, found.group_lrs)
    learn.fit_one_cycle(1)
    assert FoundLR.from_json(found.to_json())==found

def test_present_ratios_are_kept():
    learn = a_learner(**three_groups)
    learn.lr = slice(1e-4, 1e-2)
    before = fingerprint(learn, attributes=True)
    found = find(learn, ratios=True)
    np.testing.assert_allclose(found.group_lrs, [found.lr/100, found.lr/10, found.lr])
    assert_same(before, fingerprint(learn, attributes=True))

@pytest.mark.parametrize('kwargs,match', [
    (dict(start_lr=[1e-7]*2), 'groups'), (dict(start_lr=1, end_lr=.1), 'grow'), (dict(start_lr=0), 'positive'),
    (dict(mode='log'), "'exp'"), (dict(num_it=0), 'num_it'), (dict(end_lr=math.nan), 'finite'), (dict(repeats=0), 'repeats'),
    (dict(ratios=[0,1,1]), 'positive'), (dict(refine=-1), 'refine'), (dict(refine=2.5), 'refine'), (dict(refine='yes'), 'refine')])
def test_bad_arguments(kwargs, match):
    learn = a_learner(**three_groups)
    before = fingerprint(learn, attributes=True)
    with pytest.raises(ValueError, match=match): find(learn, **kwargs)
    assert_same(before, fingerprint(learn, attributes=True))

# ---- the result ---------------------------------------------------------------------------------
def test_fastai_suggestions_are_fastais():
    learn,other = a_learner(),a_learner()
    found,finder = find(learn, num_it=100, suggest_funcs=FOUR),FastaiFinder(num_it=100)
    with other.no_logging(): other.fit(100//len(other.dls.train)+1, cbs=finder)
    lrs,losses = other.recorder.lrs,[float(o) for o in other.recorder.losses]
    n = min(len(lrs), len(found.lrs))
    assert n>50
    np.testing.assert_allclose(found.lrs[:n], lrs[:n])
    np.testing.assert_allclose(ema_curve(found.losses)[:n], losses[:n], rtol=1e-5)
    if len(lrs)>n: return
    for func in FOUR:
        theirs = func(tensor(lrs[10:-5]), tensor(losses[10:-5]), 100)[0]
        assert math.isclose(getattr(found, func.__name__), theirs, rel_tol=1e-5), func.__name__

def test_unpacking_and_round_trip():
    learn = a_learner()
    first,second = found = find(learn, suggest_funcs=(valley, partial(slide, lr_diff=5)))
    assert (first,second)==(found.valley,found.slide)==(found[0],found[1]) and found._fields==('valley','slide')
    assert math.isfinite(found.minimum) and math.isfinite(found.steep)
    assert FoundLR.from_json(found.to_json())==found and pickle.loads(pickle.dumps(found))==found
    assert list(found.to_df().columns)==['lr','loss','smoothed','skipped'] and len(found.to_df())==len(found.losses)
    assert found.apply()==learn.lr==found.lr
    with pytest.raises(AttributeError, match='valley'): found.valey

class Scaled(nn.Module):
    "Predictions times `factor`, from the forward pass `after`+1 on"
    def __init__(self, factor, after=0):
        super().__init__()
        self.linear,self.factor,self.after,self.n_passes = nn.Linear(5,4),factor,after,0
    def forward(self, x):
        self.n_passes += 1
        return self.linear(x)*(self.factor if self.n_passes>self.after else 1)

@pytest.mark.parametrize('factor,after', [(math.nan,0), (math.nan,9), (math.inf,0)])
def test_nan_ends_the_sweep_and_is_named(factor, after):
    learn = a_learner(model=Scaled(factor, after))
    before = fingerprint(learn, attributes=True)
    found = find(learn, num_it=60)
    assert 'nan' in found.stop_reason and len(found.losses)==after+1
    assert_same(before, fingerprint(learn, attributes=True))
    if not after:
        assert math.isnan(found.lr) and found.warnings
        with pytest.raises(ValueError, match='no suggestion'): found.apply()
    assert FoundLR.from_json(found.to_json())==found
    found.plot()
    assert 'nan' in repr(found) and 'nan' in found._repr_markdown_()

def test_suggestion_functions_may_fail():
    def bad(lrs, losses, num_it): raise IndexError('oh')
    def mine(lrs, losses, num_it): return float(lrs[3])
    found = find(a_learner(), suggest_funcs=(mine, bad))
    assert found.mine==found[0] and math.isnan(found.bad) and any('bad failed' in warning for warning in found.warnings)

@pytest.mark.parametrize('n', [1,2,3,7,8,15])
def test_few_points(n):
    found = find(a_learner(), num_it=n, suggest_funcs=FOUR, widen=False)
    assert len(found.losses)<=n and (n>=8 or math.isnan(found.lr)) and (n>8 or 'usable point' in found.warnings[0])
    found.plot()

def test_plot_and_words():
    found = find(a_learner(), suggest_funcs=FOUR)
    ax = plt.subplots()[1]
    assert found.plot(ax=ax) is ax and ax.get_xscale()=='log' and len(ax.get_legend().get_texts())>=7
    assert 'lr=' in repr(found) and '| valley |' in found._repr_markdown_()

def lrs_of(fit, lr, **options):
    learn = a_learner(**options)
    getattr(learn, fit)(1, lr)
    return [group['lr'] for group in learn.opt.hypers],weights(learn)

@pytest.mark.parametrize('fit', ['fit','fit_one_cycle','fit_flat_cos','fine_tune'])
@pytest.mark.parametrize('opt', ['adam','torch_sgd'])
@pytest.mark.parametrize('options', [{}, three_groups])
def test_a_result_is_a_number_where_a_rate_is_wanted(fit, opt, options):
    found = find(a_learner(opt=opt, **options), suggest_funcs=(valley,slide,minimum))
    assert_same(lrs_of(fit, found, opt=opt, **options), lrs_of(fit, found.lr, opt=opt, **options))

def test_a_result_as_a_number():
    found = find(a_learner())
    assert found/10==found.lr/10 and 2*found==2*found.lr and float(found)==found.lr and found<1<1/found
    assert_same(lrs_of('fit', slice(found/10, found), **three_groups), lrs_of('fit', slice(found.lr/10, found.lr), **three_groups))
    assert_same(lrs_of('fit', slice(found), **three_groups), lrs_of('fit', slice(found.lr), **three_groups))
    grouped = find(a_learner(**three_groups), start_lr=[1e-7,1e-6,1e-5], end_lr=[.1,1,10])
    np.testing.assert_allclose(lrs_of('fit', grouped, **three_groups)[0], grouped.group_lrs)

@pytest.mark.parametrize('fit', ['fit','fit_one_cycle','fit_flat_cos','fine_tune'])
def test_no_suggestion_is_no_rate(fit):
    learn = a_learner()
    nothing,before = find(learn, num_it=3),weights(learn)
    with pytest.raises(ValueError, match='no suggestion to use: .* too few'): getattr(learn, fit)(1, nothing)
    with pytest.raises(ValueError, match='found for wd'): learn.fit(1, learn.hp_find('wd', 1e-5, 1, num_it=30, show_plot=False))
    assert torch.equal(before, weights(learn))

def test_it_says_what_length_it_assumed():
    learn = a_learner()
    for told in (dict(n_epoch=3), dict(n_it=40)):
        assert 'since no' not in repr(find(learn, **told))+find(learn, **told)._repr_markdown_()
    found = find(learn)
    for text in (repr(found), found._repr_markdown_()): assert 'for a fit of 80 steps, since no `n_epoch`' in text
    assert 'for a fit of 128 steps' in repr(find(learner_on('infinite'), num_it=12))
    assert FoundLR.from_json(found.to_json())==found

# ---- where the sweep goes -----------------------------------------------------------------------
def test_widened_once_and_said():
    found = find(a_learner(), end_lr=1e-4, num_it=40)
    assert len(found.losses)==60 and found.lrs[-1]>1e-4 and (math.isnan(found.lr) or any('went on' in o for o in found.warnings))
    assert len(find(a_learner(), end_lr=1e-4, num_it=40, widen=False).losses)==40
    assert len(find(a_learner(), end_lr=1e-4, num_it=40, stop_div=False).losses)==40

def test_linear_mode():
    found = find(a_learner(), start_lr=1e-3, end_lr=1, mode='linear', num_it=50, stop_div=False)
    np.testing.assert_allclose(np.diff(found.lrs), np.diff(found.lrs)[0])

def noise_learner(**kwargs):
    def data():
        torch.manual_seed(0)
        items = Items((torch.randn(5), torch.randint(0, 4, ())) for _ in range(64))
        dls = DataLoaders(DataLoader(items, bs=16, shuffle=True), DataLoader(items, bs=64), device='cpu')
        dls.n_in,dls.c = 5,4
        return dls
    return a_learner(data, **kwargs)

def test_closer_look_once_and_only_if_needed():
    learn = noise_learner()
    before = fingerprint(learn, attributes=True)
    found = find(learn, num_it=40)
    assert_same(before, fingerprint(learn, attributes=True))
    closer = found.info['closer']['lrs']
    assert len(closer)<=40 and any('once more' in warning for warning in found.warnings)
    assert closer[0]>found.lrs[0] and closer[1]/closer[0]<found.lrs[1]/found.lrs[0]
    assert FoundLR.from_json(found.to_json())==found
    found.plot()
    assert 'closer' not in find(noise_learner(), num_it=40, widen=False).info
    assert 'closer' not in find(noise_learner(), num_it=40, stop_div=False).info

class Constant(nn.Module):
    def forward(self, pred, y): return F.cross_entropy(pred*0, y)+pred.sum()*0

class Shifted(nn.Module):
    def forward(self, pred, y): return F.cross_entropy(pred, y)-50

def test_no_notice_no_suggestion():
    learn = a_learner()
    learn.loss_func = Constant()
    found = find(learn)
    assert math.isnan(found.lr) and any('no notice' in warning for warning in found.warnings)

class Dusty(nn.Module):
    def forward(self, pred, y): return 1+pred.sum()*0+.01*torch.randn(())

class Critic(nn.Module):
    def forward(self, pred, y): return pred[y==0].mean()-pred[y>0].mean()

def self_tuned(opt): return partial(OptimWrapper, opt=opt)
NONSENSE = dict(constant=(Constant,'adam','no notice'), dusty=(Dusty,'adam','no notice'), dusty_sgd=(Dusty,'sgd','no notice'),
                critic=(Critic,'adam','without a minimum'), critic_sgd=(Critic,'sgd','without a minimum'),
                rprop=(nn.CrossEntropyLoss,self_tuned(torch.optim.Rprop),'little notice'),
                adafactor=(nn.CrossEntropyLoss,self_tuned(torch.optim.Adafactor),'little notice'))

@pytest.mark.parametrize('kind', NONSENSE)
def test_no_nonsense(kind):
    loss,opt,why = NONSENSE[kind]
    learn = a_learner(opt=opt)
    learn.loss_func = loss()
    found = find(learn, num_it=100)
    assert math.isnan(found.lr) and len(found.warnings)==1 and why in found.warnings[0]
    with pytest.raises(ValueError, match=why): found.apply()

@pytest.mark.parametrize('opt', ['adam','sgd'])
@pytest.mark.parametrize('n', [2,3,5,6,7,8,10,12])
def test_a_few_steps_suggest_nothing_implausible(n, opt):
    found = find(a_learner(opt=opt), num_it=n)
    assert found.lr<2 or math.isnan(found.lr) and len(found.warnings)==1

def test_cancelled_early_suggests_nothing():
    def stop(learn): raise CancelFitException()
    found = find(a_learner(cbs=On('before_batch', stop, nth=20)), num_it=100)
    assert math.isnan(found.lr) and len(found.warnings)==1 and 'cancelled' in found.warnings[0]

def test_negative_losses():
    learn = a_learner()
    learn.loss_func = Shifted()
    found = find(learn, num_it=100)
    assert len(found.losses)>50 and math.isfinite(found.lr) and found.losses[0]<-40

# ---- optimizers ---------------------------------------------------------------------------------
@pytest.mark.parametrize('opt,kind', [
    (Adam,'adaptive'), (RAdam,'adaptive'), (QHAdam,'adaptive'), (RMSProp,'adaptive'), (ranger,'adaptive'), (SGD,'sgd'),
    (partial(SGD, mom=.9),'sgd'), (Lamb,'trust'), (Larc,'trust'), (partial(OptimWrapper, opt=torch.optim.AdamW),'adaptive'),
    (partial(OptimWrapper, opt=torch.optim.SGD),'sgd'), (partial(OptimWrapper, opt=torch.optim.NAdam),'adaptive')])
def test_kind_of_optimizer(opt, kind):
    assert optimizer_kind(opt(L(nn.Linear(2,2).parameters()), lr=.1))==kind

def test_momentum_of_the_sweep_and_of_the_fit():
    "Fits cycle the momentum, whatever it is in the sweep; the plain SGD of fastai has none"
    def factor(opt, moms=None):
        learn = a_learner(opt=opt)
        if moms: learn.moms = moms
        return find(learn, num_it=12).info.get('momentum', 1.)
    assert factor('sgd')==factor('adam')==factor(SGD)==1.
    assert factor(partial(SGD, mom=.5))<1<factor(partial(SGD, mom=.95)) and factor(partial(Adam, mom=.5))>1
    assert factor('sgd', (.95,.95,.95))<1 # the same sweep, a fit with more momentum

# ---- refine -------------------------------------------------------------------------------------
def test_result_remembers_repeats_and_probes():
    found = find(a_learner(), num_it=40, repeats=3, refine=6, n_it=20)
    assert len(found.info['repeats'])==3 and found.info['spread']>=1 and 4<=len(found.info['probes'])<=6
    assert math.isclose(found.info['one_sweep'], float(np.median(found.info['repeats'])), rel_tol=1e-6)
    assert FoundLR.from_json(found.to_json())==found

@pytest.mark.parametrize('has_valid', [True,False])
def test_probes_are_as_long_as_planned(has_valid):
    learn = a_learner()
    if not has_valid: learn.dls = DataLoaders(learn.dls.train)
    before = fingerprint(learn, attributes=True)
    found = find(learn, refine=4, n_it=20, widen=False)
    assert_same(before, fingerprint(learn, attributes=True))
    probes = found.info['probes']
    assert all(probe['steps']==20 for probe in probes) and any(math.isfinite(probe['score']) for probe in probes)
    assert min(probe['lr'] for probe in probes)<=found.lr<=max(probe['lr'] for probe in probes)

# ---- alone, and other hyperparameters -----------------------------------------------------------
def test_as_a_callback_of_fit():
    learn = a_learner()
    before,finder = weights(learn),LRFinder(num_it=30)
    learn.fit(1, cbs=finder)
    assert len(finder.losses)>=10 and torch.equal(before, weights(learn)) and 'all_batches' not in learn.__dict__
    learn.fit(1)

@pytest.mark.parametrize('hyper,start,stop,mode', [('wd',1e-5,10,'exp'), ('mom',.5,.999,'linear')])
def test_other_hyperparameters(hyper, start, stop, mode):
    learn = a_learner(opt='sgd', **three_groups)
    before = fingerprint(learn, attributes=True)
    found = learn.hp_find(hyper, start, stop, mode=mode, num_it=40, show_plot=False)
    assert found.hyper==found.to_df().columns[0]==hyper and len(found.losses)>=10 and start<=found.value<=stop
    assert_same(before, fingerprint(learn, attributes=True))

def test_what_a_setter_sets_is_put_back():
    learn = a_learner()
    def set_p(learn, p): learn.model[3].p = p
    found = learn.hp_find('dropout', .01, .9, setter=set_p, mode='linear', num_it=30, show_plot=False)
    assert len(found.losses)>=10 and learn.model[3].p==.1
    with pytest.raises(ValueError, match="did you mean 'wd'"): learn.hp_find('wdd', .1, 1, show_plot=False)

# ---- two processes ------------------------------------------------------------------------------
def find_in_parallel(rank):
    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(5,16), nn.ReLU(), nn.Linear(16,4)))
    learn = a_learner(model=model)
    set_seed(rank) # another order of the data for each
    found = learn.lr_find(num_it=60, n_it=20, refine=3)
    return dict(json=found.to_json(), n_plots=len(plt.get_fignums()), weights=weights(learn))

def test_two_processes_agree(tmp_path):
    first,second = in_processes(2, find_in_parallel, tmp_path)
    assert first['json']==second['json'] and (first['n_plots'],second['n_plots'])==(1,0)
    assert torch.equal(first['weights'], second['weights'])

@pytest.mark.parametrize('refine,n_it,budget', [('quick',50,400), ('quick',5000,400), (True,300,1000), (True,2400,600)])
def test_refine_keeps_to_its_budget(refine, n_it, budget):
    found = find(a_learner(), refine=refine, n_it=n_it, seed=1)
    assert 0<sum(trial['steps'] for trial in found.info['probes'])<=budget
    assert found.low<found.lr<found.high

def test_a_number_for_ratios_is_a_decay():
    learn = a_learner(**three_groups)
    found = find(learn, ratios=.5, n_it=20)
    expected = .5**np.arange(found.values.shape[1])[::-1]
    assert found.values.shape[1]==3
    assert np.allclose(found.values/found.values[:,-1:], expected)
