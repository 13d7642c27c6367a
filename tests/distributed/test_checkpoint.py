"Checkpoint in a distributed training: one process writes, all go on bitwise"
import pytest
import torch
from torch import nn
from fastai.basics import *
from fastai.callback.progress import ProgressCallback
from helpers import *
from fastai_anneal.core import ranks
from fastai_anneal.schedule import checkpoint
from fastai_anneal.schedule.callback import train_batches
from fastai_anneal.schedule.checkpoint import Checkpoint
from fastai_anneal.schedule.family import CosineAnneal

def learner(path, part=slice(None), wrap=noop):
    "On `part` of the data, the same model for all"
    set_seed(0)
    model = wrap(nn.Sequential(nn.Linear(6,16), nn.BatchNorm1d(16), nn.Dropout(.2), nn.Linear(16,1)))
    x = torch.randn(64,6)[part]
    items = list(zip(x, x.sum(1, keepdim=True)))
    dls = DataLoaders(DataLoader(items, bs=4, shuffle=True), DataLoader(items, bs=32), device='cpu')
    learn = Learner(dls, model, MSELossFlat(), path=path)
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

def fit(rank, path, stop_at=None, seed=None, **kwargs):
    learn = learner(path, slice(rank, None, 2), nn.parallel.DistributedDataParallel)
    set_seed(10+rank)
    if seed is not None:
        set_seed(seed+rank)
        learn.dls.train.rng.seed(seed)
    try: learn.fit(2, .1, cbs=[CosineAnneal(warmup='10%'), Checkpoint(every='3it', **kwargs), StopAt(stop_at)])
    except KeyboardInterrupt: assert stop_at is not None
    return dict(state=learn.model.state_dict(), losses=learn.recorder.losses, lrs=learn.recorder.lrs, rand=torch.rand(2))

STOPS = 7,8,11 # before the end of an epoch, at its end, in the middle

def work(rank, path):
    written,write = [],checkpoint.atomic_write
    checkpoint.atomic_write = lambda file, mode: (written.append(file), write(file, mode))[1]
    file = path/'models'/'checkpoint.pth'
    res = dict(whole=fit(rank, path), is_left=file.exists())
    for at in STOPS:
        fit(rank, path, at)
        ranks.barrier()
        res[at] = dict(is_there=file.exists(), **fit(rank, path, seed=77))
    fit(rank, path, 11, fname=str(path/'left.pth'))
    return dict(res, n_written=len(written))

def test_two_processes_go_on_bitwise(tmp_path):
    both = in_processes(2, work, tmp_path, tmp_path)
    assert both[0]['n_written']>10 and both[1]['n_written']==0
    assert not torch.equal(*[o['whole']['rand'] for o in both])
    for res in both:
        assert not res['is_left']
        for at in STOPS:
            assert res[at].pop('is_there')
            assert_same(res[at], res['whole'])
    file = tmp_path/'left.pth'
    with pytest.raises(ValueError, match='with 2 processes, and this one has 1'):
        learner(tmp_path).fit(2, .1, cbs=[CosineAnneal(warmup='10%'), Checkpoint(fname=str(file)), StopAt(None)])

def test_other_ranks_do_not_write(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, 'rank', lambda: 1)
    learner(tmp_path).fit(2, .1, cbs=[CosineAnneal(), Checkpoint(keep=True)])
    assert not (tmp_path/'models'/'checkpoint.pth').exists()

def test_iterations_of_a_loader_that_will_be_shared_out(tmp_path, monkeypatch):
    "`DistributedTrainer` wraps the loaders in its `before_fit`, which is after that of a schedule"
    class DistributedTrainer(Callback): pass
    learn = learner(tmp_path)
    learn.add_cb(DistributedTrainer())
    assert train_batches(learn)==16
    monkeypatch.setenv('WORLD_SIZE', '3')
    assert train_batches(learn)==6
