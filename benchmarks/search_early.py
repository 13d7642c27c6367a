"""How often does early rejection in `anneal_search` give up what would have been accepted, and what does it save?

    python benchmarks/search_early.py [--seeds 3] [--trials 60]

Every training that would be given up is trained to its end (`audit=1`), so each decision can be looked up, as
`SearchResult.early` does. Three problems, on whose seeds 10 and 11 the number of curves that a forecast needs was
chosen (12), which is why the seeds here are others: handwritten digits (scikit-learn) and a tabular classification by
multilayer perceptrons, and a convolutional network. Prints, per problem and over all: trials given up, the share of
those that would have been accepted, the share of all acceptable trials that were lost, and the share of epochs that
would have been saved.
"""
from common import *
from functools import wraps
import torch
from sklearn.datasets import load_digits,make_classification
from fastai.basics import *
from fastai_anneal.all import *

N_EPOCH = 6

def loaders(x, y):
    "Three quarters to train on"
    x,y = torch.tensor(x, dtype=torch.float),torch.tensor(y)
    order,n = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)),len(x)*3//4
    train,valid = [list(zip(x[rows], y[rows])) for rows in (order[:n], order[n:])]
    return DataLoaders(DataLoader(train, bs=64, shuffle=True, drop_last=True), DataLoader(valid, bs=512))

RATES = {'lr': LogFloat(1e-4,1), 'wd': LogFloat(1e-4,.3)}
MLP_SPACE = {**RATES, 'width': LogInt(8,128), 'depth': LinInt(0,3), 'p': LinFloat(0,.5)}
CNN_SPACE = {**RATES, 'c1': LogInt(2,16), 'c2': LogInt(2,32), 'p': LinFloat(0,.5)}

def mlp(n_in, n_out):
    def make(width, depth, p):
        sizes = [n_in]+[width]*depth
        layers = [[nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU(), nn.Dropout(p)] for a,b in zip(sizes, sizes[1:])]
        return nn.Sequential(nn.Flatten(), *sum(layers, []), nn.Linear(sizes[-1], n_out))
    return make

def cnn(n_out):
    def make(c1, c2, p):
        layers = [nn.Conv2d(1, c1, 3, padding=1), nn.BatchNorm2d(c1), nn.ReLU(),
                  nn.Conv2d(c1, c2, 3, stride=2, padding=1), nn.ReLU()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(p), nn.Linear(c2*16, n_out))
    return make

def problems():
    "Loaders, network and space, by name"
    x,y = load_digits(return_X_y=True)
    x = (x/8-1).astype('float32')
    rows,labels = make_classification(1600, 20, n_informative=8, n_classes=4, flip_y=.05, random_state=0)
    return dict(digits_mlp=(loaders(x,y), mlp(64,10), MLP_SPACE),
                tabular_mlp=(loaders(rows.astype('float32'), labels), mlp(20,4), MLP_SPACE),
                digits_cnn=(loaders(x.reshape(-1,1,8,8), y), cnn(10), CNN_SPACE))

def search(problem, seed, n_trials):
    dls,net,space = problem
    @wraps(net) # whose parameters it takes
    def make_learner(**hps): return Learner(dls, net(**hps), loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    return anneal_search(make_learner, space, n_trials=n_trials, n_epoch=N_EPOCH, seed=seed, audit=1., repeat=0,
                         progress=False)

def counts(result):
    "Trials given up, and of these wrongly; acceptable trials; epochs saved; epochs in all"
    early,trials = result.early,result.trials
    saved = sum(N_EPOCH-trial.audit['epoch'] for trial in trials if trial.audit and trial.state=='complete')
    acceptable = sum(bool(trial.accepted) for trial in trials)
    return np.array([early['audited'], early['wrong'], acceptable, saved, early['epochs']])

def print_counts(name, given_up, wrong, acceptable, saved, epochs):
    print(f'{name:12} {given_up:4.0f} given up, wrongly {wrong/max(given_up,1):6.2%} of them, '
          f'lost {wrong/acceptable:6.2%} of the acceptable, epochs saved {saved/epochs:.0%}', flush=True)

def main():
    parser = options(__doc__, seeds=3)
    parser.add_argument('--trials', type=int, default=60)
    args = start(parser)
    totals = []
    for name,problem in problems().items():
        totals.append(sum(counts(search(problem, seed, args.trials)) for seed in range(args.seeds)))
        print_counts(name, *totals[-1])
    print_counts('all', *sum(totals))

if __name__=='__main__': main()
