"Checkpoint in a distributed training: one writes, all go on bitwise"
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist,torch.multiprocessing as mp
from fastai.basics import *
from fastai_anneal.schedule import *
import fastai_anneal.schedule as schedule
from gloo import member

class StopAt(Callback):
    def __init__(self, at): self.at = at
    def before_batch(self):
        if self.training and self.train_iter==self.at: raise KeyboardInterrupt

def learner(rank, path):
    set_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(6,16), nn.BatchNorm1d(16), nn.Dropout(.2), nn.Linear(16,1)))
    x = torch.randn(64,6)[rank::2]; ds = list(zip(x, x.sum(1, keepdim=True)))
    set_seed(10+rank)
    return Learner(DataLoaders(DataLoader(ds, bs=4, shuffle=True), DataLoader(ds, bs=32), device='cpu'), model, MSELossFlat(), path=path)

def fit(rank, path, at=None, seed=None, **kwargs):
    l = learner(rank, path)
    if seed is not None: set_seed(seed+rank); l.dls.train.rng.seed(seed)
    with l.no_bar(), l.no_logging():
        try: l.fit(2, .1, cbs=[CosineAnneal(warmup='10%'), Checkpoint(every='3it', **kwargs), StopAt(at)])
        except KeyboardInterrupt: assert at is not None
    return dict(state={k:v.clone() for k,v in l.model.state_dict().items()}, losses=[float(o) for o in l.recorder.losses], lrs=l.recorder.lrs, rand=torch.rand(2))

def work(rank, port, path):
    with member(rank, port): _work(rank, path)

def _work(rank, path):
    path,save,writes = Path(path),schedule._atomic_save,[]
    def counted(*args): writes.append(1); save(*args)
    schedule._atomic_save = counted
    res = dict(whole=fit(rank, path), there0=(path/'models'/'checkpoint.pth').exists())
    for at in (7,8,11): # on the boundary of epochs, and in the middle
        fit(rank, path, at)
        dist.barrier()
        res[at] = dict(there=(path/'models'/'checkpoint.pth').exists(), **fit(rank, path, seed=77))
    fit(rank, path, 11, fname=str(path/'left.pth'))
    torch.save({'writes':len(writes), **res}, path/f'{rank}.pt')

def test_two_processes_go_on_bitwise(tmp_path):
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    mp.spawn(work, (port, str(tmp_path)), nprocs=2)
    a,b = [torch.load(tmp_path/f'{i}.pt', weights_only=False) for i in (0,1)]
    assert a['writes']>10 and b['writes']==0
    assert not torch.equal(a['whole']['rand'], b['whole']['rand'])
    for r in (a,b):
        assert not r['there0']
        for at in (7,8,11):
            assert r[at]['there'] and r[at]['losses']==r['whole']['losses'] and r[at]['lrs']==r['whole']['lrs'] and torch.equal(r[at]['rand'], r['whole']['rand'])
            for k,v in r['whole']['state'].items(): assert torch.equal(r[at]['state'][k], v), k
    f = tmp_path/'left.pth'
    assert len(torch.load(f, weights_only=False)['own'])==2
    with pytest.raises(ValueError, match='with 2 processes, and this one has 1'): one_process(tmp_path, f)

def one_process(path, f):
    l = learner_without_ddp(path)
    with l.no_bar(), l.no_logging(): l.fit(2, .1, cbs=[CosineAnneal(warmup='10%'), Checkpoint(fname=str(f)), StopAt(None)])

def learner_without_ddp(path):
    x = torch.randn(32,6); ds = list(zip(x, x.sum(1, keepdim=True)))
    model = nn.Sequential(nn.Linear(6,16), nn.BatchNorm1d(16), nn.Dropout(.2), nn.Linear(16,1))
    return Learner(DataLoaders(DataLoader(ds, bs=4, shuffle=True), DataLoader(ds, bs=32), device='cpu'), model, MSELossFlat(), path=path)

def test_other_ranks_do_not_write(tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, '_rank', lambda: 1)
    l = learner_without_ddp(tmp_path)
    with l.no_bar(), l.no_logging(): l.fit(2, .1, cbs=[CosineAnneal(), Checkpoint(keep=True)])
    assert not (tmp_path/'models'/'checkpoint.pth').exists()

def test_iterations_of_a_loader_that_will_be_shared_out(tmp_path, monkeypatch):
    "`DistributedTrainer` wraps the loaders in its `before_fit`, which is after that of a schedule"
    class DistributedTrainer(Callback): pass
    l = learner_without_ddp(tmp_path)
    assert schedule._n_iter(l)==8
    l.add_cb(DistributedTrainer())
    assert schedule._n_iter(l)==8
    monkeypatch.setenv('WORLD_SIZE', '3')
    assert schedule._n_iter(l)==3
