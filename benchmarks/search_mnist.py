"""The headline of the blog post, measured: simulated annealing over whole trainings on all of MNIST.

    FASTAI_ANNEAL_DATA=folder/with/MNIST python benchmarks/search_mnist.py [--trials 100] [--part linear|mlp] [--storage DIR]

1. A network without a hidden layer, over lr, wd and batch size: 100 trainings of 3 epochs. Bar: 92% on the test set.
2. A multilayer perceptron of 0 to 3 hidden layers over lr, wd, layers, widths and dropout: 100 trainings of 4 epochs with early rejection,
   then the best again for 15 epochs. Bar: 98.4% on the test set, in less than 15 minutes on two cores.

The energy is the loss on 12,000 digits held back from the training set. The test set is looked at once for each part, at the end.
Interrupt it and start it again with the same `--storage`: it goes on. Times are CPU times of this process (one thread) and wall times.
"""
import argparse,os,time,warnings
from functools import wraps
os.environ.setdefault('OMP_NUM_THREADS', '1')
import torch
from torch import nn
from fastai.basics import *
from fastai.metrics import accuracy
from fastai_anneal.all import *

def linear(): return nn.Sequential(nn.Flatten(), nn.Linear(784,10))
def mlp(layers, w1, w2, w3, p): return mnist_mlp(*(w1,w2,w3)[:layers], p=p) if layers else nn.Sequential(nn.Flatten(), nn.Dropout(p), nn.Linear(784,10))

lr = {'lr': LogFloat(3e-4,.1), 'wd': LogFloat(1e-4,.3)}
parts = dict(linear=(linear, {**lr, 'bs': Categorical(64,128,256,512, ordered=True)}, 3, 6, .92),
             mlp=(mlp, {**lr, 'layers': Int(0,3), 'w1': LogInt(32,512), 'w2': LogInt(32,512), 'w3': LogInt(32,512), 'p': Float(0,.5)}, 4, 15, .984))

def one(name, dls, args):
    net,space,n_epoch,n_final,bar = parts[name]
    @wraps(net) # whose parameters it takes
    def make_learner(**hps): return TrainLearner(dls, net(**hps), metrics=accuracy)
    cpu,wall = time.process_time(),time.perf_counter()
    say = lambda r: print(f'{name} {len(r.trials)} trials, best {r.best_value:.4f}, {time.process_time()-cpu:.0f} s CPU', flush=True) if len(r.trials)%10==0 else None
    res = anneal_search(make_learner, space, n_trials=args.trials, n_epoch=n_epoch, seed=args.seed, progress=False, callback=say,
                        storage=None if args.storage is None else f'{args.storage}/{name}.log')
    cpu_s,wall_s = time.process_time()-cpu,time.perf_counter()-wall
    learn = res.best_learner(n_epoch=n_final)
    acc = held_out_accuracy(learn)
    print(f'{name}: {res}\n{name}: early rejection {res.early}')
    print(f'{name}: search {cpu_s:.0f} s CPU ({cpu_s/120:.1f} minutes of two cores), {wall_s:.0f} s wall; with the final training of {n_final} epochs {time.process_time()-cpu:.0f} s CPU')
    print(f'{name}: test {acc:.2%} (bar {bar:.1%}) {"reached" if acc>=bar else "NOT REACHED"}', flush=True)

if __name__=='__main__':
    p = argparse.ArgumentParser()
    p.add_argument('--trials', type=int, default=100); p.add_argument('--seed', type=int, default=0)
    p.add_argument('--part', choices=list(parts)); p.add_argument('--storage')
    args = p.parse_args()
    warnings.simplefilter('ignore'); torch.set_num_threads(1)
    dls = mnist_dls(os.environ['FASTAI_ANNEAL_DATA'], bs=256, seed=1, device='cpu')
    for name in [args.part] if args.part else parts: one(name, dls, args)
