"""What does a search cost? Pairs our `lr_find` with fastai's, torch-lr-finder's and Lightning's, where installed

    python benchmarks/lr_find.py [--pairs 7] [--models mlp,cnn,resnet18] [--its 100] [--cpu]

All in one process; the order within a pair alternates. Printed is the median of the pairwise ratios of wall time
(`--cpu`: of processor time, for a busy machine), and the median times.
"""
from common import *
import contextlib,gc,importlib.util,io,tempfile
from typing import Callable,NamedTuple
import torch
from fastai.basics import *
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import Learner as FastaiLearner
from fastai.vision.models import resnet18

fastai_lr_find = FastaiLearner.lr_find # before ours takes its place
from fastai_anneal.all import *
from lr_tasks import FastDL,cnn,mlp

class Model(NamedTuple):
    make: Callable
    shape: tuple # Of an item
    bs: int

MODELS = dict(mlp=Model(lambda: mlp(784,128,64,10), (784,), 64),
              cnn=Model(lambda: cnn(10, (1,16,32,64)), (1,28,28), 64),
              resnet18=Model(lambda: nn.Sequential(resnet18(num_classes=10)), (3,32,32), 16))

def learner(kind, path):
    "On labels that can be learnt: on others the finder looks twice"
    model = MODELS[kind]
    set_seed(0)
    x = torch.randn(1024, *model.shape)
    y = (x.flatten(1)@torch.randn(x[0].numel(), 10)).argmax(1)
    items = torch.utils.data.TensorDataset(x, y)
    dls = DataLoaders(FastDL(items, bs=model.bs, shuffle=True), FastDL(items, bs=model.bs), device=default_device())
    return Learner(dls, model.make(), CrossEntropyLossFlat(), path=path).remove_cb(ProgressCallback)

@contextlib.contextmanager
def silent():
    with contextlib.redirect_stdout(io.StringIO()),contextlib.redirect_stderr(io.StringIO()): yield

# ---- finders: each returns the number of points it looked at

def ours(learn, n): return len(learn.lr_find(num_it=n, show_plot=False, stop_div=False).losses)
def ours_stopping(learn, n): return len(learn.lr_find(num_it=n, show_plot=False).losses)

def fastais(learn, n):
    fastai_lr_find(learn, num_it=n, show_plot=False, stop_div=False)
    return n

def fastais_stopping(learn, n):
    fastai_lr_find(learn, num_it=n, show_plot=False)
    return len(learn.recorder.lrs)

def torch_loader(learn):
    train = learn.dls.train
    return torch.utils.data.DataLoader(train.dataset, batch_size=train.bs, shuffle=True)

def torch_lr_finder(learn, n):
    from torch_lr_finder import LRFinder
    opt = torch.optim.Adam(learn.model.parameters(), 1e-7)
    finder = LRFinder(learn.model, opt, learn.loss_func, device=default_device())
    with silent(): finder.range_test(torch_loader(learn), end_lr=10, num_iter=n, diverge_th=1e9)
    finder.reset()
    return n

def lightning_tuner(learn):
    "A module and its tuner, made once, as a learner is"
    import lightning.pytorch as pl
    from lightning.pytorch.tuner import Tuner
    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model,self.loss_func,self.lr = learn.model,learn.loss_func,1e-3
        def training_step(self, batch, i): return self.loss_func(self.model(batch[0]), batch[1])
        def configure_optimizers(self): return torch.optim.Adam(self.parameters(), self.lr)
    with silent():
        trainer = pl.Trainer(accelerator='auto', devices=1, logger=False, enable_checkpointing=False,
                             enable_progress_bar=False, enable_model_summary=False, default_root_dir=learn.path)
    return Module(),Tuner(trainer)

def lightning(learn, n):
    if not hasattr(learn, '_tuner'): learn._tuner = lightning_tuner(learn)
    module,tuner = learn._tuner
    with silent():
        tuner.lr_find(module, torch_loader(learn), min_lr=1e-7, max_lr=10, num_training=n, early_stop_threshold=None,
                      update_attr=False)
    return n

RIVALS = {'fastai, all steps': (ours, fastais), 'fastai, both stop': (ours_stopping, fastais_stopping)}
if importlib.util.find_spec('torch_lr_finder'): RIVALS['torch-lr-finder'] = ours,torch_lr_finder
if importlib.util.find_spec('lightning'): RIVALS["Lightning's tuner"] = ours,lightning

def compare(kind, name, n_pairs, its, clock, path):
    "Print a line, and return the seconds of each run"
    learn,points = learner(kind, path),{}
    def run(which, finder):
        gc.collect()
        points[which] = finder(learn, its)
        if torch.cuda.is_available(): torch.cuda.synchronize()
    runs = {which: partial(run, which, finder) for which,finder in zip(('ours','theirs'), RIVALS[name])}
    for finder in RIVALS[name]: finder(learn, 10)
    times = taking_turns(runs, n_pairs, clock)
    medians = {which: f'{statistics.median(times[which]):.3f}s for {points[which]} points' for which in runs}
    print(f'{kind:9} against {name:18} ratio {spread(ratios(times["ours"], times["theirs"]))}; '
          f'ours {medians["ours"]}, theirs {medians["theirs"]}', flush=True)
    return times

def main():
    parser = options(__doc__)
    parser.add_argument('--pairs', type=int, default=7)
    parser.add_argument('--models', type=words, default=list(MODELS))
    parser.add_argument('--its', type=int, default=100)
    parser.add_argument('--cpu', action='store_true', help='time of the processor')
    parser.add_argument('--rivals', default='', help='only those whose name contains this')
    args = start(parser, 'torch-lr-finder', 'lightning')
    clock = time.process_time if args.cpu else time.perf_counter
    with tempfile.TemporaryDirectory() as path:
        for kind in args.models:
            for name in RIVALS:
                if args.rivals in name: compare(kind, name, args.pairs, args.its, clock, path)

if __name__=='__main__': main()
