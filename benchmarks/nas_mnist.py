"""From the network without a hidden layer to one that beats the hand-written `mnist_cnn`, at equal training steps?

    python benchmarks/nas_mnist.py --data FOLDER [--trials 60] [--params 100000] [--macs 3000000] [--seed 0]
                                   [--storage nas.log] [--no-test]

The search trains each network for 600 steps (2 epochs of 19,200 of MNIST's training digits) and measures the energy on
the 12,000 held back. A single such loss is uncertain by some 3%, so the search gives a shortlist: its best four
networks are trained from scratch for 1,500 steps (2 epochs of all 48,000 digits), with the same two seeds, and the one
with the lowest mean loss on those held back is the network found. `mnist_cnn` gets the learning rate that is best for
it of four, by the same two seeds. Then both are trained with five seeds that nothing was chosen by, for 1,500 steps,
and each is tested once.

Steps are equal, sizes are not: the search may use more than the 42,106 parameters and 1,010,752 multiplications of the
network written by hand, and what the network found has is printed; `--params 50000 --macs 1500000` makes them nearly
equal. `--no-test` leaves the test set alone: for work on the method.
"""
from common import *
import torch
from fastai.basics import *
from fastai_anneal.all import *
from fastai_anneal.digits import Digits
from fastai_anneal.mnist import held_out_accuracy

FIRST_SEED = 100 # of those that nothing was chosen by
CNN_RATES = 2.5e-3,5e-3,1e-2,2e-2

def fit(dls, make_net, lr, n_epoch, seed):
    "The validation loss after a training from scratch, and the learner"
    set_seed(seed)
    learn = TrainLearner(dls, make_net(), metrics=accuracy)
    with learn.no_bar(),learn.no_logging(): learn.fit(n_epoch, lr, cbs=CosineAnneal(warmup='10%'))
    return learn.recorder.values[-1][1],learn

def first_digits(dls, n):
    "Loaders with the first `n` digits to train on, and all that validate"
    def part(dl, n, i): return dl.new(Digits(dl.dataset.x[:n], dl.dataset.y[:n], split_idx=i))
    return DigitsLoaders(part(dls.train, n, 0), part(dls.valid, None, 1))

def best_lr(dls, make_net, lrs, n_epoch, n_seeds=2):
    "The learning rate with the lowest mean validation loss"
    def loss(lr): return np.mean([fit(dls, make_net, lr, n_epoch, seed)[0] for seed in range(n_seeds)])
    return min(lrs, key=loss)

def n_macs(model, x):
    "Multiplications of the convolutions and linear layers of `model` for one item of the batch `x`"
    counts = []
    def hook(module, _, output): counts.append(module.weight[0].numel()*output[0].numel())
    layers = [module for module in model.modules() if isinstance(module, (nn.Conv2d,nn.Linear))]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    with torch.no_grad(): model.eval()(x[:1])
    for handle in handles: handle.remove()
    return sum(counts)

def module_of(net): return net.module(p=.2).to(memory_format=torch.channels_last)

def trained(name, dls, make_net, lr, args):
    "Train with each of the seeds; print, and return, losses and accuracies"
    watch,model,scores = Stopwatch(),make_net(),{}
    for seed in range(FIRST_SEED, FIRST_SEED+args.seeds):
        loss,learn = fit(dls, make_net, lr, args.final, seed)
        scores[seed] = loss,math.nan if args.no_test else held_out_accuracy(learn)
    loss,acc = np.mean(list(scores.values()), 0)
    n_params = sum(p.numel() for p in model.parameters())
    print(f'{name:10} {n_params:,} parameters, {n_macs(model, dls.one_batch()[0]):,} multiplications, '
          f'{args.final*len(dls.train)} steps at lr {lr:.4f}: valid loss {loss:.4f}, test {acc:.3%} ({watch})')
    for seed,(loss,acc) in scores.items():
        print(f'{"":10} seed {seed}: valid loss {loss:.4f}, test {acc:.2%}', flush=True)
    return np.array(list(scores.values()))

def describe(trial): return f'{trial.value:.4f} lr {trial.hps["lr"]:.4f} {trial.hps["net"]!r}'

def search(full, args, watch):
    "The hyperparameters of the network found, its learning rate among them"
    dls = first_digits(full, args.digits)
    def make_learner(net): return TrainLearner(dls, module_of(net), metrics=accuracy)
    def on_all(net): return TrainLearner(full, module_of(net), metrics=accuracy)
    def say(result):
        trial = result.trials[-1]
        print(f'{trial.number:3} {trial.state} {"*" if trial.accepted else " "} {describe(trial)} {watch}', flush=True)
    net = Net((1,28,28), 10, widths=(8,128), max_params=args.params, max_macs=args.macs)
    space = {'net': net, 'lr': LogFloat(1e-3,2e-2)}
    result = anneal_search(make_learner, space, n_trials=args.trials, n_epoch=args.epochs, seed=args.seed,
                           storage=args.storage, progress=False, callback=say)
    print(f'{result}\nsearch {watch}', flush=True)
    best = result.finals(args.finalists, args.final, distinct='net', make_learner=on_all)
    for trial in best.trials: print('finalist', describe(trial))
    print(f'{best}\nsearch and finals {watch}', flush=True)
    return best.best

def arguments():
    parser = options(__doc__, seeds=5, data=True)
    numbers = dict(trials=60, epochs=2, digits=19_200, final=2, finalists=4, params=100_000, macs=3_000_000, seed=0)
    for name,default in numbers.items(): parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--storage')
    parser.add_argument('--no-test', action='store_true')
    return start(parser)

def main():
    args = arguments()
    full,watch = mnist_dls(args.data, bs=64, seed=1, device='cpu'),Stopwatch()
    found = search(full, args, watch)
    theirs = trained('mnist_cnn', full, mnist_cnn, best_lr(full, mnist_cnn, CNN_RATES, args.final), args)
    ours = trained('found', full, partial(module_of, found['net']), found['lr'], args)
    ratio,better = ours[:,0].mean()/theirs[:,0].mean(),(ours[:,0]<theirs[:,0]).sum()
    gain = ours[:,1]-theirs[:,1]
    print(f'found / mnist_cnn: valid loss {ratio:.3f}, lower with {better} of {args.seeds} seeds; '
          f'test accuracy {gain.mean():+.3%} +- {standard_error(gain):.3%}; in all {watch}')

if __name__=='__main__': main()
