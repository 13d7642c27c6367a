import math,pytest,sys,torch
import torch.distributed as dist,torch.multiprocessing as mp
from gloo import member

def work(rank, port, path):
    with member(rank, port): _work(rank, path)

def _work(rank, path):
    from torch import nn
    from fastai.basics import Learner,DataLoader,DataLoaders,CrossEntropyLossFlat,set_seed,noop
    from fastai_anneal.lr_finder import FoundLR
    import matplotlib.pyplot as plt
    set_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(6,16), nn.ReLU(), nn.Linear(16,2)))
    set_seed(rank)
    x = torch.randn(64,6); ds = list(zip(x, (x[:,0]>0).long()))
    l = Learner(DataLoaders(DataLoader(ds, bs=16, shuffle=True), DataLoader(ds, bs=64), device='cpu'), model, CrossEntropyLossFlat())
    with l.no_bar(): r = l.lr_find(num_it=60, n_it=40)
    torch.save(dict(json=r.to_json(), plots=len(plt.get_fignums()), w=[p.detach() for p in model.parameters()]), f'{path}/{rank}.pt')

def test_two_processes_agree(tmp_path):
    import socket
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    mp.spawn(work, (port, str(tmp_path)), nprocs=2)
    a,b = [torch.load(tmp_path/f'{i}.pt', weights_only=False) for i in (0,1)]
    assert a['json']==b['json'] and (a['plots'],b['plots'])==(1,0)
    assert all(torch.equal(x,y) for x,y in zip(a['w'],b['w']))
