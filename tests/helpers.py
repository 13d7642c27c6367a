"""What many tests need: a small learner, what a fit did to it, callbacks that look or raise, processes

    from helpers import *

| learners | `small_learner` on the loaders `sums` (regression) or `blobs` (four classes), `quiet`, `hypers_of_fit` |
| state    | `weights`, `valid_loss`, `fingerprint`, `assert_same` |
| callbacks| `On`, `Record`, `RaiseAt`, `StopAt`, `KillAt`: nothing takes back what they count or keep, `SimAnnealHP` neither |
| processes| `fresh_python`, `forked`, `in_processes` |
"""
import itertools,multiprocessing,os,random,socket,subprocess,sys,time,traceback
from collections import defaultdict
from collections.abc import Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch,torch.distributed as dist
from torch import nn
from fastai.basics import *
from fastai.callback.progress import ProgressCallback

__all__ = ['ROOT', 'OPT_FUNCS', 'Items', 'sums', 'blobs', 'groups_by_layer', 'small_learner', 'quiet', 'hypers_of_fit', 'weights',
           'valid_loss', 'fingerprint', 'assert_same', 'On', 'Record', 'RaiseAt', 'StopAt', 'KillAt', 'fresh_python', 'forked',
           'in_processes', 'distributed']

ROOT = Path(__file__).parent.parent

class Items(list):
    "Items of a dataset that `Learner.export` can empty"
    def new_empty(self): return type(self)()

def sums(n=40, n_valid=8, bs=4):
    "Loaders of a regression: the sum of four numbers"
    x = torch.randn(n+n_valid, 4)
    y = x.sum(1, keepdim=True)
    parts = [Items(zip(x[:n], y[:n])), Items(zip(x[n:], y[n:]))]
    dls = DataLoaders(*[DataLoader(part, bs=bs, shuffle=i==0) for i,part in enumerate(parts)])
    dls.n_in,dls.c = 4,1
    return dls

def _blob(n, seed):
    gen = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 4, (n,), generator=gen)
    return Items(zip(torch.randn(n, 5, generator=gen)+F.one_hot(y, 5)*2, y))

def blobs(n=256, n_valid=120, bs=16):
    "Loaders of a classification: four overlapping clouds of points in five dimensions, the same for every seed"
    dls = DataLoaders(DataLoader(_blob(n, 0), bs=bs, shuffle=True), DataLoader(_blob(n_valid, 1), bs=40))
    dls.n_in,dls.c = 5,4
    return dls

OPT_FUNCS = dict(adam=Adam, sgd=partial(SGD, mom=.9), lamb=Lamb, adamw=partial(OptimWrapper, opt=torch.optim.AdamW),
                 torch_sgd=partial(OptimWrapper, opt=partial(torch.optim.SGD, momentum=.9)))

def groups_by_layer(model):
    "A splitter: each layer that has parameters is a group"
    return [list(layer.parameters()) for layer in model if list(layer.parameters())]

def small_learner(
    data=sums, # Makes the loaders, after the seed is set: `sums`, `blobs`, `partial(blobs, n=512)`
    model=None, # By default Linear, BatchNorm, ReLU, Dropout, Linear, which `groups_by_layer` parts into 3 groups
    opt='adam', # A key of `OPT_FUNCS`, or an optimizer function
    cls=Learner, # Or `TrainLearner`
    seed=0, # Of the data, the weights and what the first fit draws
    width=8, # Units of the hidden layer
    dropout=.1, # Probability of the dropout layer
    progress=False, # Bars and a table?
    frozen=False, # All but the last group frozen?
    **kwargs # To `cls`: `lr`, `splitter`, `metrics`, `cbs`, `path`
):
    "A learner that trains an epoch in some milliseconds"
    set_seed(seed)
    dls = data()
    if model is None:
        model = nn.Sequential(nn.Linear(dls.n_in, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, dls.c))
    loss_func = MSELossFlat() if dls.c==1 else CrossEntropyLossFlat()
    learn = cls(dls, model, **{'loss_func': loss_func, 'opt_func': OPT_FUNCS.get(opt, opt) if isinstance(opt, str) else opt, **kwargs})
    if not progress:
        if hasattr(learn, 'progress'): learn.remove_cb(ProgressCallback)
        learn.logger = noop
    if frozen: learn.freeze()
    return learn

@contextmanager
def quiet(learn):
    "Neither bars nor a table in the block"
    with learn.no_bar(),learn.no_logging(): yield learn

def hypers_of_fit(learn, n_epoch, cbs=(), lr=.1, hp='lr', **kwargs):
    "Fit, and return the hyperparameter `hp` of each batch and group as an array"
    record = Record(hp)
    with quiet(learn): learn.fit(n_epoch, lr, cbs=[*L(cbs), record], **kwargs)
    return np.array(record.seen)

def weights(learn):
    "All parameters and buffers, as one vector"
    return torch.cat([t.detach().flatten().float() for t in (*learn.model.parameters(), *learn.model.buffers())]).clone()

def valid_loss(learn):
    "Validation loss after the last epoch"
    return learn.recorder.values[-1][1]

def fingerprint(learn, attributes=False):
    "Copies of all that training changes, for `assert_same`; with `attributes` also what it adds to the learner and the recorder"
    opt,rec,model = learn.opt,learn.recorder,learn.model
    res = dict(
        model=model.state_dict(), buffers=list(model.buffers()), grads=[p.grad for p in model.parameters()],
        requires_grad=[p.requires_grad for p in model.parameters()], modes=[m.training for m in model.modules()],
        opt=opt and opt.state_dict(), hypers=opt and [dict(h) for h in opt.hypers],
        generators=[random.getstate(), np.random.get_state(), torch.get_rng_state(),
                    *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ())],
        loaders=[dl.rng.getstate() for dl in learn.dls.loaders],
        recorder={k: getattr(rec, k, None) for k in ('lrs','losses','iters','values','hps')})
    if attributes:
        res['recorder'] = {k: v for k,v in rec.__dict__.items() if k!='learn'}
        res['attributes'] = sorted(learn.__dict__)
        res['identities'] = [id(o) for o in (*learn.cbs, *model.parameters())]
    return deepcopy(res)

def assert_same(a, b, path=''):
    "Fail, saying where, unless the nested values `a` and `b` are equal bit for bit; NaN equals NaN"
    if isinstance(a, (torch.Tensor, np.ndarray)):
        a,b = torch.as_tensor(a),torch.as_tensor(b)
        assert a.dtype==b.dtype and a.shape==b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True), f'{path}: {a} != {b}'
    elif isinstance(a, Mapping):
        assert list(a)==list(b), f'{path}: {list(a)} != {list(b)}'
        for key in a: assert_same(a[key], b[key], f'{path}.{key}')
    elif isinstance(a, (list,tuple,L)):
        assert len(a)==len(b), f'{path}: {len(a)} items != {len(b)}'
        for i,(x,y) in enumerate(zip(a, b)): assert_same(x, y, f'{path}[{i}]')
    elif isinstance(a, Metric): assert_same(a.__dict__, b.__dict__, path)
    else: assert a is b or a==b or (a!=a and b!=b), f'{path}: {a!r} != {b!r}'

_counts,_seen = defaultdict(int),defaultdict(list) # of the callbacks by number, here, where no snapshot finds them
_numbers = itertools.count()

class On(Callback):
    "Call `do(learn)` at each `event`, or only the `nth` time that it comes"
    def __init__(self, event, do, nth=None, order=100):
        self.order,self.number = order,next(_numbers)
        def handle():
            _counts[self.number] += 1
            if nth in (None, _counts[self.number]): do(self.learn)
        setattr(self, event, handle)

class Record(On):
    "Keep in `seen` what `read(learn)` returns at each training batch; `read` may name a hyperparameter: its value in each group"
    run_valid = False
    def __init__(self, read, event='before_batch', order=1000):
        if isinstance(read, str): hyper,read = read,lambda learn: [group[hyper] for group in learn.opt.hypers]
        super().__init__(event, lambda learn: self.seen.append(read(learn)), order=order)
    @property
    def seen(self): return _seen[self.number]

class RaiseAt(On):
    "Raise `error` when `at` training batches are done (None: never), or when `at(learn)` is true"
    run_valid = False
    def __init__(self, at, error, event='before_batch', order=2000):
        def batches_done(learn): return learn.epoch*learn.n_iter + learn.iter + (event=='after_batch')
        def raise_it(learn):
            if at(learn) if callable(at) else batches_done(learn)==at: raise error
        super().__init__(event, raise_it, order=order)

class StopAt(RaiseAt):
    "Ctrl-C when `at` training batches are done"
    def __init__(self, at, event='before_batch', order=2000): super().__init__(at, KeyboardInterrupt, event, order)

class KillAt(RaiseAt):
    "RuntimeError('killed') when `at` training batches are done"
    def __init__(self, at, event='before_batch', order=2000): super().__init__(at, RuntimeError('killed'), event, order)

def fresh_python(code, *args, cwd=None, timeout=600, check=True):
    "Run `code` in another Python that imports this checkout; returns what it printed and said, see `subprocess.run`"
    out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code, *map(str, args)], capture_output=True, text=True, cwd=cwd or ROOT,
                         timeout=timeout, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert not check or out.returncode==0, out.stdout+out.stderr
    return out

def forked(f, *args):
    "A child that runs `f(*args)`, started"
    process = multiprocessing.get_context('fork').Process(target=f, args=args)
    process.start()
    return process

@contextmanager
def distributed(learn, **kwargs):
    "Train `learn` with the other processes in the block, as fastai does it"
    import fastai.distributed # `distrib_ctx`
    with quiet(learn), learn.distrib_ctx(in_notebook=False, sync_bn=False, cpu=True, **kwargs): yield learn

def _member(rank, n, port, work, folder, args):
    "One of `n` processes that talk by gloo"
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(n), LOCAL_RANK=str(rank),
                      ACCELERATE_USE_CPU='true')
    torch.set_num_threads(1)
    torch.Tensor.cuda = lambda self,*args,**kwargs: self # fastai broadcasts through `.cuda()`
    try:
        dist.init_process_group('gloo', rank=rank, world_size=n)
        torch.save(work(rank, *args), Path(folder)/f'rank{rank}.pt')
        dist.barrier() # nobody leaves while the other one still talks to it
        os._exit(0) # all is saved: no teardown of gloo's threads, which now and then aborts
    except BaseException:
        traceback.print_exc()
        os._exit(1)

def started_processes(n, work, folder, *args):
    "`n` processes that train together and run `work(rank, *args)`"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    return [forked(_member, rank, n, port, work, folder, args) for rank in range(n)]

def in_processes(n, work, folder, *args, timeout=300):
    "What `work(rank, *args)` returns in each of `n` processes that train together; None for one that has failed"
    processes,deadline = started_processes(n, work, folder, *args),time.monotonic()+timeout
    try:
        for process in processes: process.join(max(0, deadline-time.monotonic()))
        assert not any(process.is_alive() for process in processes), 'it hangs'
    finally:
        for process in processes: process.kill()
    files = [Path(folder)/f'rank{rank}.pt' for rank in range(n)]
    return [torch.load(file, weights_only=False) if file.exists() else None for file in files]
