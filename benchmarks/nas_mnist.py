"""From the network without a hidden layer to one that beats the hand-written `mnist_cnn`, at equal training steps?

    FASTAI_ANNEAL_DATA=folder/with/MNIST python benchmarks/nas_mnist.py [--trials 70] [--epochs 2] [--final 2] [--storage nas.jsonl]

The search sees the small sample only (3,200 digits to train on, 800 for the energy). Then the network found and `mnist_cnn`, each at three learning rates of which the
held-back part chooses, are trained from scratch for the same number of steps on all of MNIST, and tested once. Prints the networks, parameters, and CPU times.
"""
import argparse,os,time,warnings
os.environ.setdefault('OMP_NUM_THREADS', '1')
import torch
from fastai.basics import *
from fastai.metrics import accuracy
from fastai_anneal.all import *

def final(dls, make_net, lrs, n_epoch):
    "Test loss and accuracy of the training whose validation loss is the lowest"
    best = None
    for lr in lrs:
        set_seed(0); learn = TrainLearner(dls, make_net(), metrics=accuracy)
        with learn.no_bar(), learn.no_logging(): learn.fit(n_epoch, lr, cbs=CosineAnneal(warmup='10%'))
        if best is None or learn.recorder.values[-1][1]<best[0]: best = learn.recorder.values[-1][1],lr,learn
    return best[0],best[1],held_out_accuracy(best[2])

if __name__=='__main__':
    p = argparse.ArgumentParser()
    for k,v in (('trials',70),('epochs',2),('final',2),('seed',0)): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--storage')
    args = p.parse_args()
    warnings.simplefilter('ignore'); torch.set_num_threads(1)
    dls,cpu = mnist_dls('sample', seed=1, device='cpu'),time.process_time()
    def make_learner(net): return TrainLearner(dls, net.module(p=.2), metrics=accuracy)
    net = Net((1,28,28), 10, widths=(8,64), max_params=50_000, max_macs=1_500_000)
    res = anneal_search(make_learner, {'net': net, 'lr': LogFloat(1e-3,2e-2)}, n_trials=args.trials, n_epoch=args.epochs, seed=args.seed, storage=args.storage, progress=False)
    print(res, f'\nsearch {time.process_time()-cpu:.0f} s CPU', flush=True)
    full = mnist_dls(os.environ['FASTAI_ANNEAL_DATA'], bs=64, seed=1, device='cpu')
    lrs = [2.5e-3,5e-3,1e-2]
    for name,f,n in (('mnist_cnn',mnist_cnn,sum(p.numel() for p in mnist_cnn().parameters())),('found',partial(res.best['net'].module, p=.2),res.best['net'].n_params)):
        cpu = time.process_time(); loss,lr,acc = final(full, f, lrs, args.final)
        print(f'{name:10} {n:7,} parameters, {args.final*len(full.train)} steps at lr {lr}: valid loss {loss:.4f}, test {acc:.2%} ({time.process_time()-cpu:.0f} s CPU)', flush=True)
