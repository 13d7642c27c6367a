"""From the network without a hidden layer to one that beats the hand-written `mnist_cnn`, at equal training steps?

    FASTAI_ANNEAL_DATA=folder/with/MNIST python benchmarks/nas_mnist.py [--trials 80] [--epochs 3] [--digits 12800] [--final 2] [--seed 0] [--storage nas.jsonl] [--no-test]

The search trains each network on 12,800 digits of MNIST's training part (3 epochs: 600 steps) and measures the energy on 4,000 of the held-back ones. Then the network found and
`mnist_cnn`, each at two learning rates of which the whole held-back part chooses, are trained from scratch for the same number of steps on all that there is to train on, with two
seeds, and each is tested once. Prints the networks, parameters, multiplications and CPU times. `--no-test` leaves the test set alone: for work on the method.
"""
import argparse,os,time,warnings
os.environ.setdefault('OMP_NUM_THREADS', '1')
import torch
from fastai.basics import *
from fastai.metrics import accuracy
from fastai_anneal.all import *

def fit(dls, make_net, lr, n_epoch, seed):
    set_seed(seed); learn = TrainLearner(dls, make_net(), metrics=accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit(n_epoch, lr, cbs=CosineAnneal(warmup='10%'))
    return learn.recorder.values[-1][1],learn

def final(dls, make_net, lrs, n_epoch, test):
    "The learning rate with the lowest validation loss; with it, of each of two seeds the validation loss and the test accuracy"
    tried = {lr:fit(dls, make_net, lr, n_epoch, 0) for lr in lrs}
    lr = min(lrs, key=lambda o: tried[o][0])
    runs = [tried[lr],*(fit(dls, make_net, lr, n_epoch, s) for s in (1,))]
    return lr,[l for l,_ in runs],[held_out_accuracy(o) if test else math.nan for _,o in runs]

def part(dls, n_train, n_valid):
    "Loaders of the first digits only"
    few = lambda dl,n,i: dl.new(Digits(dl.dataset.x[:n], dl.dataset.y[:n], split_idx=i))
    return DigitsLoaders(few(dls.train, n_train, 0), few(dls.valid, n_valid, 1))

if __name__=='__main__':
    p = argparse.ArgumentParser()
    for k,v in (('trials',80),('epochs',3),('digits',12_800),('final',2),('seed',0)): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--storage'); p.add_argument('--no-test', action='store_true')
    args = p.parse_args()
    warnings.simplefilter('ignore'); torch.set_num_threads(1)
    full,cpu = mnist_dls(os.environ['FASTAI_ANNEAL_DATA'], bs=64, seed=1, device='cpu'),time.process_time()
    dls = part(full, args.digits, 4000)
    def make_learner(net): return TrainLearner(dls, net.module(p=.2), metrics=accuracy)
    def told(r):
        t = r.trials[-1]
        print(f'{t.number:3} {t.state[:5]} {t.value:.4f} {"*" if t.accepted else " "} lr {t.hps["lr"]:.4f} {t.hps["net"]!r} {time.process_time()-cpu:.0f} s', flush=True)
    net = Net((1,28,28), 10, widths=(8,64), max_params=50_000, max_macs=1_500_000)
    res = anneal_search(make_learner, {'net': net, 'lr': LogFloat(1e-3,2e-2)}, n_trials=args.trials, n_epoch=args.epochs, seed=args.seed, storage=args.storage, progress=False, callback=told)
    print(res, f'\nsearch {time.process_time()-cpu:.0f} s CPU', flush=True)
    hand = NS(f=mnist_cnn, n=sum(p.numel() for p in mnist_cnn().parameters()))
    for name,f,n in (('mnist_cnn',hand.f,f'{hand.n:,} parameters'),('found',partial(res.best['net'].module, p=.2),f"{res.best['net'].n_params:,} parameters, {res.best['net'].macs:,} multiplications")):
        cpu = time.process_time(); lr,losses,accs = final(full, f, [5e-3,1e-2], args.final, not args.no_test)
        print(f'{name:10} {n}, {args.final*len(full.train)} steps at lr {lr}: valid loss {np.mean(losses):.4f}, test {np.mean(accs):.2%} ({", ".join(f"{a:.2%}" for a in accs)}; {time.process_time()-cpu:.0f} s CPU)', flush=True)
