import math,os,pytest,sys,torch
import torch.distributed as dist,torch.multiprocessing as mp

def work(rank, port, path):
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE='2')
    torch.set_num_threads(1)
    dist.init_process_group('gloo', rank=rank, world_size=2)
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
    dist.barrier() # nobody leaves while the other one still talks to it
    dist.destroy_process_group()
    os._exit(0) # all is saved: no teardown of gloo's threads, which now and then aborts

def test_two_processes_agree(tmp_path):
    import socket
    with socket.socket() as s: s.bind(('127.0.0.1', 0)); port = s.getsockname()[1]
    mp.spawn(work, (port, str(tmp_path)), nprocs=2)
    a,b = [torch.load(tmp_path/f'{i}.pt', weights_only=False) for i in (0,1)]
    assert a['json']==b['json'] and (a['plots'],b['plots'])==(1,0)
    assert all(torch.equal(x,y) for x,y in zip(a['w'],b['w']))
