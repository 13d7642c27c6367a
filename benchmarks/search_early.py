"""How often does early rejection in `anneal_search` give up a training that would have been accepted, and what does it save?

    python benchmarks/search_early.py [seeds]

Every training that would be given up is trained to its end (`audit=1`), so each decision can be looked up. Three problems, on whose seeds 10 and 11
the number of curves that a forecast needs was chosen (12), which is why the seeds here are others: handwritten digits (scikit-learn) and a tabular classification by multilayer perceptrons, and a convolutional
network. Prints, per problem and over all: trials given up, the share of those that would have been accepted, the share of all acceptable trials
that were lost, and the share of epochs that would have been saved.
"""
import sys,warnings
from functools import wraps
import numpy as np,torch
from torch import nn
from sklearn.datasets import load_digits,make_classification
from fastai.basics import *
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai_anneal.all import *

def loaders(x, y, bs=64):
    x,y = torch.tensor(x, dtype=torch.float),torch.tensor(y)
    i = torch.randperm(len(x), generator=torch.Generator().manual_seed(0)); n = len(x)*3//4
    ds = [list(zip(x[j],y[j])) for j in (i[:n],i[n:])]
    return DataLoaders(DataLoader(ds[0], bs=bs, shuffle=True, drop_last=True), DataLoader(ds[1], bs=512))

def mlp(n, c):
    def make(width, depth, p):
        ns = [n]+[width]*depth
        ls = [l for a,b in zip(ns, ns[1:]) for l in (nn.Linear(a,b), nn.BatchNorm1d(b), nn.ReLU(), nn.Dropout(p))]
        return nn.Sequential(nn.Flatten(), *ls, nn.Linear(ns[-1], c))
    return make, {'lr': LogFloat(1e-4,1), 'wd': LogFloat(1e-4,.3), 'width': LogInt(8,128), 'depth': Int(0,3), 'p': Float(0,.5)}

def cnn(c):
    def make(c1, c2, p):
        return nn.Sequential(nn.Conv2d(1,c1,3,padding=1), nn.BatchNorm2d(c1), nn.ReLU(), nn.Conv2d(c1,c2,3,stride=2,padding=1), nn.ReLU(),
                             nn.Flatten(), nn.Dropout(p), nn.Linear(c2*16, c))
    return make, {'lr': LogFloat(1e-4,1), 'wd': LogFloat(1e-4,.3), 'c1': LogInt(2,16), 'c2': LogInt(2,32), 'p': Float(0,.5)}

def problems():
    x,y = load_digits(return_X_y=True); x = (x/8-1).astype('float32')
    xt,yt = make_classification(1600, 20, n_informative=8, n_classes=4, flip_y=.05, random_state=0)
    return dict(digits_mlp=(loaders(x,y), *mlp(64,10)), tabular_mlp=(loaders(xt.astype('float32'),yt), *mlp(20,4)),
                digits_cnn=(loaders(x.reshape(-1,1,8,8),y), *cnn(10)))

def one(dls, net, space, seed, n_epoch=6, n_trials=60):
    @wraps(net) # whose parameters it takes
    def make_learner(**hps): return Learner(dls, net(**hps), loss_func=CrossEntropyLossFlat(), metrics=accuracy)
    return anneal_search(make_learner, space, n_trials=n_trials, n_epoch=n_epoch, seed=seed, audit=1., repeat=0, progress=False)

if __name__=='__main__':
    warnings.simplefilter('ignore'); torch.set_num_threads(1)
    seeds,total = int(sys.argv[1]) if len(sys.argv)>1 else 3,np.zeros(5)
    for name,(dls,net,space) in problems().items():
        tot = np.zeros(5)
        for seed in range(seeds):
            r = one(dls, net, space, seed)
            au = [t for t in r.trials if t.audit and t.state=='complete']
            wrong,good = sum(t.energy<=t.audit['limit'] for t in au),sum(bool(t.accepted) for t in r.trials)
            tot += [len(au), wrong, good, sum(6-t.audit['epoch'] for t in au), sum(t.epochs for t in r.trials)]
        total += tot
        print(f'{name:12} {tot[0]:4.0f} given up, wrongly {tot[1]/max(tot[0],1):6.2%} of them, lost {tot[1]/tot[2]:6.2%} of the acceptable, epochs saved {tot[3]/tot[4]:.0%}', flush=True)
    print(f'{"all":12} {total[0]:4.0f} given up, wrongly {total[1]/max(total[0],1):6.2%} of them, lost {total[1]/total[2]:6.2%} of the acceptable, epochs saved {total[3]/total[4]:.0%}')
