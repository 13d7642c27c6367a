"""From the network without a hidden layer to one that beats the hand-written `mnist_cnn`, at equal training steps?

    FASTAI_ANNEAL_DATA=folder/with/MNIST python benchmarks/nas_mnist.py [--trials 60] [--params 100000] [--macs 3000000] [--seed 0] [--storage nas.log] [--no-test]

The search trains each network for 600 steps (2 epochs of 19,200 of MNIST's training digits) and measures the energy on the 12,000 held back. A single such loss is uncertain by some 3%, so the search gives a
shortlist: its best four networks are trained from scratch for 1,500 steps (2 epochs of all 48,000 digits), with the same two seeds, and the one with the lowest mean loss on those held back is the network found. `mnist_cnn` gets the learning
rate that is best for it of four, by the same two seeds. Then both are trained with five seeds that nothing was chosen by, for 1,500 steps, and each is tested once.

Steps are equal, sizes are not: the search may use more than the 42,106 parameters and 1,010,752 multiplications of the network written by hand, and what the network found has is printed; `--params 50000 --macs 1500000` makes them nearly equal.
`--no-test` leaves the test set alone: for work on the method.
"""
import argparse,os,time,warnings
os.environ.setdefault('OMP_NUM_THREADS', '1')
import torch
from fastai.basics import *
from fastai.metrics import accuracy
from fastai_anneal.all import *
from fastai_anneal.search.result import ranked

def fit(dls, make_net, lr, n_epoch, seed):
    "The validation loss after a training from scratch, and the learner"
    set_seed(seed); learn = TrainLearner(dls, make_net(), metrics=accuracy)
    with learn.no_bar(), learn.no_logging(): learn.fit(n_epoch, lr, cbs=CosineAnneal(warmup='10%'))
    return learn.recorder.values[-1][1],learn

def part(dls, n_train, n_valid=None):
    "Loaders of the first digits only"
    few = lambda dl,n,i: dl.new(Digits(dl.dataset.x[:n], dl.dataset.y[:n], split_idx=i))
    return DigitsLoaders(few(dls.train, n_train, 0), few(dls.valid, n_valid, 1))

def best_lr(dls, make_net, lrs, n_epoch, n_seeds=2):
    "The learning rate with the lowest mean validation loss"
    return min(lrs, key=lambda lr: np.mean([fit(dls, make_net, lr, n_epoch, s)[0] for s in range(n_seeds)]))

def n_macs(model, x):
    "Multiplications of the convolutions and linear layers of `model` for one item of the batch `x`"
    ns = []
    def hook(m, i, o): ns.append(m.weight[0].numel()*o[0].numel())
    hs = [m.register_forward_hook(hook) for m in model.modules() if isinstance(m, (nn.Conv2d,nn.Linear))]
    with torch.no_grad(): model.eval()(x[:1])
    for h in hs: h.remove()
    return sum(ns)

def net_model(net): return net.module(p=.2).to(memory_format=torch.channels_last)

def show(name, dls, make_net, lr, n_epoch, seeds, test):
    "Train with each of `seeds`; print, and return, the losses and the accuracies"
    cpu,model,rs = time.process_time(),make_net(),[]
    for s in seeds:
        loss,learn = fit(dls, make_net, lr, n_epoch, s)
        rs.append((loss, held_out_accuracy(learn) if test else math.nan))
    (loss,acc),n = np.mean(rs, 0),sum(p.numel() for p in model.parameters())
    print(f'{name:10} {n:,} parameters, {n_macs(model, dls.one_batch()[0]):,} multiplications, {n_epoch*len(dls.train)} steps at lr {lr:.4f}: valid loss {loss:.4f}, test {acc:.3%} ({time.process_time()-cpu:.0f} s CPU)')
    for s,(l,a) in zip(seeds, rs): print(f'{"":10} seed {s}: valid loss {l:.4f}, test {a:.2%}', flush=True)
    return np.array(rs)

if __name__=='__main__':
    p = argparse.ArgumentParser()
    for k,v in dict(trials=60, epochs=2, digits=19_200, final=2, finalists=4, seeds=5, params=100_000, macs=3_000_000, seed=0).items(): p.add_argument(f'--{k}', type=int, default=v)
    p.add_argument('--storage'); p.add_argument('--no-test', action='store_true')
    args = p.parse_args()
    warnings.simplefilter('ignore'); torch.set_num_threads(1)
    full,cpu = mnist_dls(os.environ['FASTAI_ANNEAL_DATA'], bs=64, seed=1, device='cpu'),time.process_time()
    dls = part(full, args.digits)
    def make_learner(net): return TrainLearner(dls, net_model(net), metrics=accuracy)
    def on_all(net): return TrainLearner(full, net_model(net), metrics=accuracy)
    def told(r):
        t = r.trials[-1]
        print(f'{t.number:3} {t.state[:5]} {t.value:.4f} {"*" if t.accepted else " "} lr {t.hps["lr"]:.4f} {t.hps["net"]!r} {"" if t.repeats is None else f"repeats {t.repeats} "}{time.process_time()-cpu:.0f} s', flush=True)
    net = Net((1,28,28), 10, widths=(8,128), max_params=args.params, max_macs=args.macs)
    res = anneal_search(make_learner, {'net': net, 'lr': LogFloat(1e-3,2e-2)}, n_trials=args.trials, n_epoch=args.epochs, seed=args.seed, storage=args.storage, progress=False, callback=told)
    print(res, f'\nsearch {time.process_time()-cpu:.0f} s CPU', flush=True)
    top = res.finals(args.finalists, args.final, distinct='net', make_learner=on_all)
    for g in ranked(top.trials): print('finalist', ', '.join(f'{t.value:.4f}' for t in g), f'lr {g[0].hps["lr"]:.4f} {g[0].hps["net"]!r}')
    print(f'search and finals {time.process_time()-cpu:.0f} s CPU', flush=True)
    lr,seeds = best_lr(full, mnist_cnn, [2.5e-3,5e-3,1e-2,2e-2], args.final),range(100, 100+args.seeds)
    a = show('mnist_cnn', full, mnist_cnn, lr, args.final, seeds, not args.no_test)
    b = show('found', full, partial(net_model, top.best['net']), top.best['lr'], args.final, seeds, not args.no_test)
    d,n = b-a,len(a)
    print(f'found / mnist_cnn: valid loss {b[:,0].mean()/a[:,0].mean():.3f}, lower with {(d[:,0]<0).sum()} of {n} seeds; test accuracy {d[:,1].mean():+.3%} +- {d[:,1].std(ddof=1)/n**.5:.3%}; in all {time.process_time()-cpu:.0f} s CPU')
