"""What does a search cost? Pairs our `lr_find` with fastai's (and torch-lr-finder's and Lightning's, where installed), in one process.

`OMP_NUM_THREADS=1 python benchmarks/lr_find.py [--pairs 7] [--models mlp,cnn,resnet18] [--its 100]`
The order within a pair alternates; printed is the median of the pairwise ratios of wall time (`--cpu`: of processor time, for a busy machine), and the median times."""
import argparse,contextlib,gc,io,statistics,tempfile,time,warnings
warnings.filterwarnings('ignore')
import torch
from torch import nn
from fastai.basics import *
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import LRFinder as FastaiFinder,SuggestionMethod,valley
from fastai.vision.models import resnet18
import fastai.callback.schedule as sched

theirs = sched.Learner.lr_find # before ours takes its place
from fastai_anneal.lr_finder import *
from lr_tasks import FastDL,cnn,mlp

MODELS = dict(mlp=(lambda: mlp(784,128,64,10), (784,), 64), cnn=(lambda: cnn(10, (1,16,32,64)), (1,28,28), 64),
              resnet18=(lambda: nn.Sequential(resnet18(num_classes=10)), (3,32,32), 16))

def learner(kind, path):
    f,shape,bs = MODELS[kind]
    set_seed(0)
    dev = default_device()
    x = torch.randn(1024, *shape) # labels that can be learnt: on others the finder looks twice
    ds = torch.utils.data.TensorDataset(x, (x.flatten(1)@torch.randn(x[0].numel(), 10)).argmax(1))
    l = Learner(DataLoaders(FastDL(ds, bs=bs, shuffle=True), FastDL(ds, bs=bs), device=dev), f(), CrossEntropyLossFlat(), path=path)
    return l.remove_cb(ProgressCallback)

def sync(): torch.cuda.synchronize() if torch.cuda.is_available() else None

clock = time.perf_counter
def timed(f):
    gc.collect(); sync(); s = clock(); r = f(); sync()
    return clock()-s, r

def fastai_(l, n): theirs(l, num_it=n, show_plot=False, stop_div=False); return n
def ours(l, n): return len(l.lr_find(num_it=n, show_plot=False, stop_div=False).losses)
def fastai_stop(l, n): theirs(l, num_it=n, show_plot=False); return len(l.recorder.lrs)
def ours_stop(l, n): return len(l.lr_find(num_it=n, show_plot=False).losses)

def others():
    try:
        from torch_lr_finder import LRFinder as TLF
        def tlf(l, n):
            opt = torch.optim.Adam(l.model.parameters(), 1e-7)
            f = TLF(l.model, opt, l.loss_func, device=default_device())
            with contextlib.redirect_stdout(io.StringIO()),contextlib.redirect_stderr(io.StringIO()): f.range_test(torch.utils.data.DataLoader(l.dls.train.dataset, batch_size=l.dls.train.bs, shuffle=True), end_lr=10, num_iter=n, diverge_th=1e9)
            f.reset(); return n
        yield 'torch-lr-finder', tlf
    except ImportError: print('torch-lr-finder is not installed')
    try:
        import lightning.pytorch as pl,logging
        from lightning.pytorch.tuner import Tuner
        logging.getLogger('lightning.pytorch').setLevel(logging.ERROR)
        class Module(pl.LightningModule):
            def __init__(self, l): super().__init__(); self.m,self.f,self.lr = l.model,l.loss_func,1e-3
            def training_step(self, b, i): return self.f(self.m(b[0]), b[1])
            def configure_optimizers(self): return torch.optim.Adam(self.parameters(), self.lr)
        def lightning(l, n):
            if not hasattr(l, '_pl'): # a tuner is made once, as a learner is
                with contextlib.redirect_stderr(io.StringIO()):
                    l._pl = Module(l),Tuner(pl.Trainer(accelerator='auto', devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                                                       default_root_dir=l.path))
            m,t = l._pl
            with contextlib.redirect_stdout(io.StringIO()),contextlib.redirect_stderr(io.StringIO()):
                t.lr_find(m, torch.utils.data.DataLoader(l.dls.train.dataset, batch_size=l.dls.train.bs, shuffle=True), min_lr=1e-7, max_lr=10, num_training=n,
                          early_stop_threshold=None, update_attr=False)
            return n
        yield "Lightning's tuner", lightning
    except ImportError: print('lightning is not installed')

if __name__=='__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--pairs', type=int, default=7); p.add_argument('--models', default='mlp,cnn,resnet18'); p.add_argument('--its', type=int, default=100); p.add_argument('--cpu', action='store_true'); p.add_argument('--rivals', default='', help='only those whose name contains this')
    a = p.parse_args()
    if a.cpu: clock = time.process_time
    rivals = [('fastai, all steps', ours, fastai_), ('fastai, both stop', ours_stop, fastai_stop)] + [(n, ours, f) for n,f in others()]
    rivals = [r for r in rivals if a.rivals in r[0]]
    with tempfile.TemporaryDirectory() as path:
        for kind in a.models.split(','):
            for name,f,g in rivals:
                l,ratios,us,them,pts = learner(kind, path),[],[],[],None
                f(l, 10); g(l, 10)
                for i in range(a.pairs):
                    r = [timed(lambda h=h: h(l, a.its)) for h in ((f,g) if i%2 else (g,f))]
                    (t,n),(u,m) = r if i%2 else r[::-1]
                    ratios.append(t/u); us.append(t); them.append(u); pts = n,m
                print(f'{kind:9} against {name:18} ratio {statistics.median(ratios):.2f} (from {min(ratios):.2f} to {max(ratios):.2f}); '
                      f'ours {statistics.median(us):.3f}s for {pts[0]} points, theirs {statistics.median(them):.3f}s for {pts[1]}', flush=True)
