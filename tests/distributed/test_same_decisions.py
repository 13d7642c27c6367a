"""Every process decides the same: what was found, tried, taken and trained, with fastai's own `distrib_ctx`

The processes are started once for two and once for three of them, run all functions in `CHECKS`, and keep what these return or raise.
"""
import hashlib,itertools,traceback
import pytest
from fastai.basics import *
from fastai.callback.training import GradientAccumulation
from helpers import *
from fastai_anneal.all import *
from fastai_anneal.core.ranks import all_gathered
from fastai_anneal.lr.judge import Judge

CHECKS = []
def check(f):
    CHECKS.append(f)
    return f

uneven = partial(blobs, n=201, n_valid=121, bs=8) # the last batches are smaller, and fastai gives some items twice
def bits(learn): return hashlib.sha1(b''.join(p.detach().numpy().tobytes() for p in learn.model.parameters())).hexdigest()

def annealed(learn, n_epoch=3, cbs=(), monitor='valid_loss', **kwargs):
    "What a fit with `SimAnnealHP` did; the bits of the weights after each batch of the fit and of the trials"
    cb = SimAnnealHP({'lr': LogFloat(1e-4, 1.), 'wd': LogFloat(1e-4, 1.)}, monitor=monitor, **kwargs)
    record = Record(bits, 'after_batch')
    with distributed(learn): learn.fit(n_epoch, 1e-3, cbs=[cb, record, *cbs])
    rows = learn.recorder.values[-1]
    return dict(values=cb.values, seen=record.seen, scores=cb.scores, history=cb.history.to_dict('list'), valid=list(rows))

@check
def anneal(rank, path): return annealed(small_learner(uneven, metrics=accuracy, dropout=0.), seed=0)

@check
def anneal_by_a_metric(rank, path):
    learn = small_learner(uneven, metrics=[accuracy, F1Score(average='macro')])
    return [annealed(learn, monitor=monitor, seed=0, every='50%') for monitor in ('accuracy','f1_score')]

@check
def anneal_without_a_seed(rank, path): return annealed(small_learner(uneven, opt='sgd'))

@check
def anneal_accumulating(rank, path):
    "Batches that are dropped, and steps that are not at each batch"
    learn = small_learner(uneven)
    learn.dls.train.drop_last = True
    return annealed(learn, cbs=[GradientAccumulation(24)], seed=1, every='50%')

@check
def anneal_own_loop(rank, path):
    "`TrainLearner` trains what `Learner` trains"
    return [annealed(small_learner(uneven, cls=cls), 2, seed=0) for cls in (Learner,TrainLearner)]

@check
def anneal_diverging(rank, path):
    "The loss of one process is NaN at high rates, of which the look for one tries some, and once in the fit"
    def poison(learn):
        in_trial = first(cb for cb in learn.cbs if isinstance(cb, SimAnnealHP)).in_trial
        is_bad = learn.opt.hypers[-1]['lr']>.1 if in_trial else (learn.epoch,learn.iter)==(1,3)
        if rank==1 and learn.training and is_bad: learn.loss_grad = learn.loss = learn.loss*math.nan
    return annealed(small_learner(uneven, cbs=On('after_loss', poison)), seed=0)

@check
def held_items(rank, path):
    learn,found = small_learner(uneven, metrics=accuracy),[]
    learn.create_opt()
    def judge(learn):
        for monitor in ('valid_loss','accuracy'): found.append(Judge(learn, monitor)())
    with distributed(learn): learn.fit(1, 0., cbs=On('before_batch', judge, nth=1))
    return found

@check
def full_batches(rank, path):
    "One batch per process and epoch, which together are all items: the very gradients of one process"
    return whole_batches(annealed, world=num_distrib())

def whole_batches(run, world=1):
    set_seed(0)
    learn = small_learner(partial(blobs, n=120, n_valid=121, bs=120//world), opt='sgd', model=nn.Linear(5,4))
    return run(learn, 40, seed=0, every='5ep')

@check
def find(rank, path):
    learn = small_learner(uneven)
    with distributed(learn):
        before = fingerprint(learn, attributes=True)
        lr,refined,wd = learn.lr_find(show_plot=False),learn.lr_find(show_plot=False, refine=4),learn.hp_find('wd', 1e-4, 10., show_plot=False)
        assert_same(fingerprint(learn, attributes=True), before)
    return dict(lr=lr.lr, losses=lr.losses, refined=refined.lr, probes=refined.info['probes'], wd=wd.suggestion, wds=wd.losses)

@check
def stopped_and_resumed(rank, path):
    def fit(stop_at, **kwargs):
        learn = small_learner(uneven, path=path)
        cbs = [CosineAnneal(warmup='10%'), Checkpoint('anneal', every='5it'), StopAt(stop_at)]
        try: return annealed(learn, 2, cbs=cbs, seed=0, every='50%', **kwargs)
        except KeyboardInterrupt: assert stop_at is not None
    whole = fit(None)
    fit(17)
    resumed = fit(None)
    return dict(whole=whole, resumed=resumed)

@check
def schedulers(rank, path):
    sched = partial(torch.optim.lr_scheduler.StepLR, step_size=4)
    lrs = []
    for start in (0,1):
        learn = small_learner(uneven)
        with distributed(learn): lrs.append(hypers_of_fit(learn, 3, [TorchSched(sched, by='batch'), GradientAccumulation(32)], start_epoch=start))
    return lrs

@check
def plateau_of_own_values(rank, path):
    "Each process has a value of its own, one gets better and the other does not: the first process decides for all"
    epochs = itertools.count()
    learn = small_learner(uneven, metrics=ValueMetric(lambda: float(next(epochs)*(rank or -1)), 'own'))
    with distributed(learn): return hypers_of_fit(learn, 4, [Plateau('own', mode='min', patience=0), CosineAnneal()])

def refused(f, *args, **kwargs):
    try: f(*args, **kwargs)
    except Exception as e: return type(e).__name__,str(e)

@check
def refusals(rank, path):
    "Of one process are those of all, and nothing is lost: the processes can go on"
    learn,found = small_learner(uneven, path=path),[]
    file = path/f'only{min(rank, 1)}.pth'
    if rank==0: file.touch()
    all_gathered(None)
    for cb in (SimAnnealHP({'lr': LogFloat(1e-4, 1.)}, every='1000it' if rank==1 else '1ep'),
               CosineAnneal(hp='nothing' if rank==1 else 'lr'), Checkpoint(str(file))):
        with distributed(learn): found.append(refused(learn.fit, 2, 1e-3, cbs=cb))
    found.append(refused(anneal_search, lambda lr: learn, dict(lr=LogFloat(1e-4, 1.))))
    return found

@check
def error_of_all(rank, path):
    "All fail in the same place: each with its own error, and they go on together"
    learn,errors = small_learner(uneven, path=path),[]
    for cbs,fit in ((SimAnnealHP({'lr': LogFloat(1e-4, 1.)}, seed=0), learn.fit), (None, learn.lr_find)):
        boom = KillAt(5)
        learn.add_cb(boom)
        with distributed(learn): errors.append(refused(fit, 3, cbs=cbs) if cbs else refused(fit, show_plot=False))
        learn.remove_cb(boom)
        learn.model = getattr(learn.model, 'module', learn.model) # fastai's own fit leaves it wrapped
    return errors,all_gathered(rank)

def run_checks(rank, path):
    def outcome(f):
        try: return f(rank, path)
        except Exception: return traceback.format_exc()
    return {f.__name__: outcome(f) for f in CHECKS}

@pytest.fixture(scope='module', params=[2,3])
def ranks(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(f'ranks{request.param}')
    return in_processes(request.param, run_checks, path, path, timeout=150)

def found(ranks, f):
    "What `f` found in each process; fails with the error of the first that failed"
    for rank in ranks: assert not isinstance(rank[f.__name__], str), rank[f.__name__]
    return [rank[f.__name__] for rank in ranks]

SAME = [f for f in CHECKS if f not in (refusals, error_of_all)]
@pytest.mark.parametrize('f', SAME, ids=lambda f: f.__name__)
def test_the_same_in_all(ranks, f):
    first,*others = found(ranks, f)
    for other in others: assert_same(other, first)

def test_anneals(ranks):
    run = found(ranks, anneal)[0]
    assert len(set(run['history']['value']))>5 and len(set(run['seen']))>40

def test_train_learner_trains_the_same(ranks):
    ours,theirs = found(ranks, anneal_own_loop)[0]
    assert_same(ours, theirs)

def test_divergence_is_seen(ranks):
    run = found(ranks, anneal_diverging)[0]
    assert any(map(math.isnan, run['history']['value'])) and math.isfinite(run['valid'][1])

def test_each_item_counts_once(ranks):
    alone = small_learner(uneven, metrics=accuracy)
    alone.create_opt()
    for judgement,monitor in zip(found(ranks, held_items)[0], ('valid_loss','accuracy')):
        expected = Judge(alone, monitor)()
        assert len(judgement.losses)==61
        assert torch.allclose(judgement.losses, expected.losses, rtol=1e-5) and math.isclose(judgement.value, expected.value, rel_tol=1e-5)

def test_as_one_process(ranks):
    def alone(learn, n_epoch, **kwargs):
        cb = SimAnnealHP({'lr': LogFloat(1e-4, 1.), 'wd': LogFloat(1e-4, 1.)}, **kwargs)
        with quiet(learn): learn.fit(n_epoch, 1e-3, cbs=cb)
        return cb
    run,cb = found(ranks, full_batches)[0],whole_batches(alone)
    assert run['history']['accepted']==list(cb.history.accepted) and run['history']['stage']==list(cb.history.stage)
    assert np.allclose(run['history']['value'], cb.history.value, rtol=1e-4) and np.allclose(run['scores'], cb.scores, rtol=1e-4)

def test_resumes_exactly(ranks):
    for run in found(ranks, stopped_and_resumed):
        assert run['whole']['seen'][-1]==run['resumed']['seen'][-1]
        for part in ('values','history','scores','valid'): assert_same(run['whole'][part], run['resumed'][part])

def test_steps_of_the_scheduler(ranks):
    whole,late = found(ranks, schedulers)[0]
    assert len(set(whole[:,0]))>1
    assert_same(late, whole[-len(late):])

def test_plateau_follows_the_first(ranks):
    lrs = found(ranks, plateau_of_own_values)[0]
    assert lrs[-2]>.1*lrs[0]/1e3

def test_refusals_are_of_all(ranks):
    for rank,(anneal_,cosine,checkpoint,search) in enumerate(found(ranks, refusals)):
        for kind,message in (anneal_, cosine):
            assert ('process 1 has failed' in message)==(rank!=1) and (kind=='ValueError')==(rank==1)
        assert 'not see' in checkpoint[1] or 'damaged' in checkpoint[1]
        assert search[0]=='SearchError' and 'distributed' in search[1]

def test_an_error_of_all_leaves_them_together(ranks):
    for errors,everybody in found(ranks, error_of_all):
        assert everybody==list(range(len(ranks)))
        assert all('killed' in message for _,message in errors)
