"""The headline of the blog post, measured: simulated annealing over whole trainings on all of MNIST

    python benchmarks/search_mnist.py --data FOLDER [--trials 100] [--part linear|mlp] [--storage FOLDER]

1. A network without a hidden layer, over lr, wd and batch size: 100 trainings of 3 epochs. Bar: 92% on the test set.
2. A multilayer perceptron of 0 to 3 hidden layers over lr, wd, layers, widths and dropout: 100 trainings of 4 epochs
   with early rejection, then the best again for 15 epochs. Bar: 98.4% on the test set, in less than 15 minutes on two
   cores.

The energy is the loss on 12,000 digits held back from the training set. The test set is looked at once for each part,
at the end. Interrupt it and start it again with the same `--storage`: it goes on. Times are CPU times of this process
(one thread) and wall times.
"""
from common import *
from functools import wraps
from typing import Callable,NamedTuple
import torch
from fastai.basics import *
from fastai_anneal.all import *
from fastai_anneal.mnist import held_out_accuracy

def linear(): return nn.Sequential(nn.Flatten(), nn.Linear(784,10))

def mlp(layers, w1, w2, w3, p):
    if layers: return mnist_mlp(*(w1,w2,w3)[:layers], p=p)
    return nn.Sequential(nn.Flatten(), nn.Dropout(p), nn.Linear(784,10))

RATES = {'lr': LogFloat(3e-4,.1), 'wd': LogFloat(1e-4,.3)}
WIDTHS = {name: LogInt(32,512) for name in ('w1','w2','w3')}

class Part(NamedTuple):
    net: Callable
    space: dict
    n_epoch: int # Of each training of the search
    n_final: int # Of the last one
    bar: float # For the accuracy on the test set

PARTS = dict(linear=Part(linear, {**RATES, 'bs': Categorical(64,128,256,512, ordered=True)}, 3, 6, .92),
             mlp=Part(mlp, {**RATES, 'layers': LinInt(0,3), **WIDTHS, 'p': LinFloat(0,.5)}, 4, 15, .984))

def search(name, dls, args, watch):
    part = PARTS[name]
    @wraps(part.net) # whose parameters it takes
    def make_learner(**hps): return TrainLearner(dls, part.net(**hps), metrics=accuracy)
    def say(result):
        n = len(result.trials)
        if n%10==0: print(f'{name} {n} trials, best {result.best_value:.4f}, {watch}', flush=True)
    storage = args.storage and f'{args.storage}/{name}.log'
    return anneal_search(make_learner, part.space, n_trials=args.trials, n_epoch=part.n_epoch, seed=args.seed,
                         progress=False, callback=say, storage=storage)

def run(name, dls, args):
    part,watch = PARTS[name],Stopwatch()
    result = search(name, dls, args, watch)
    print(f'{name}: {result}\n{name}: early rejection {result.early}')
    print(f'{name}: search {watch}, {watch.cpu/120:.1f} minutes of two cores')
    reached = held_out_accuracy(result.best_learner(n_epoch=part.n_final))
    print(f'{name}: with the final training of {part.n_final} epochs {watch}')
    verdict = 'reached' if reached>=part.bar else 'NOT REACHED'
    print(f'{name}: test {reached:.2%} (bar {part.bar:.1%}) {verdict}', flush=True)

def main():
    parser = options(__doc__, data=True)
    parser.add_argument('--trials', type=int, default=100)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--part', choices=list(PARTS))
    parser.add_argument('--storage', help='folder for the files of the searches')
    args = start(parser)
    if args.storage: Path(args.storage).mkdir(parents=True, exist_ok=True)
    dls = mnist_dls(args.data, bs=256, seed=1, device='cpu')
    for name in [args.part] if args.part else PARTS: run(name, dls, args)

if __name__=='__main__': main()
