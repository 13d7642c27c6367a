"""Trains every configuration of a small grid on small real data and keeps the validation curves, for hpo.py

    python benchmarks/hpo_table.py     # some minutes on one core; writes benchmarks/hpo_table.json

Digits (error), breast cancer (loss) and diabetes (squared error) from scikit-learn, a two-layer network, 8 epochs,
3 seeds each.
"""
from common import *
import itertools
import torch
from sklearn.datasets import load_digits,load_breast_cancer,load_diabetes
from torch import nn
from torch.nn import functional as F

GRID = dict(lr=[1e-4,5e-4,2e-3,1e-2,5e-2,.2], wd=[0.,1e-3,1e-1], width=[4,16,64], act=['relu','tanh'],
            opt=['sgd','adam'])
CATEGORIES,EPOCHS,SEEDS = ('act','opt'),8,3
BATCH = 32
LARGEST = 10. # what is larger has diverged

class Problem:
    "Two thirds of a data set to train on, one third to validate"
    def __init__(self, name):
        load = dict(digits=load_digits, cancer=load_breast_cancer, diabetes=load_diabetes)[name]
        self.is_regression,self.counts_errors = name=='diabetes',name=='digits'
        x,y = load(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(x))
        x,y,n = x[order],y[order],len(x)*2//3
        x = (x-x[:n].mean(0))/(x[:n].std(0)+1e-6)
        if self.is_regression: y = (y-y[:n].mean())/y[:n].std()
        x = torch.tensor(x, dtype=torch.float32)
        y = torch.tensor(y, dtype=torch.float32 if self.is_regression else torch.long)
        self.x,self.y = x[:n],y[:n]
        self.valid_x,self.valid_y = x[n:],y[n:]

    def loss(self, preds, targets):
        return F.mse_loss(preds[:,0], targets) if self.is_regression else F.cross_entropy(preds, targets)

    def network(self, width, act):
        n_out = 1 if self.is_regression else int(self.y.max())+1
        act = nn.ReLU() if act=='relu' else nn.Tanh()
        return nn.Sequential(nn.Linear(self.x.shape[1], width), act, nn.Linear(width, n_out))

    @torch.no_grad()
    def validate(self, model):
        preds = model(self.valid_x)
        if self.counts_errors: return float((preds.argmax(1)!=self.valid_y).float().mean())
        return float(self.loss(preds, self.valid_y))

def optimizer(model, opt, lr, wd):
    if opt=='sgd': return torch.optim.SGD(model.parameters(), lr, momentum=.9, weight_decay=wd)
    return torch.optim.AdamW(model.parameters(), lr, weight_decay=wd)

def curve(problem, seed, lr, wd, width, act, opt):
    "Validation after each epoch of a training"
    torch.manual_seed(seed)
    model,n_batches = problem.network(width, act),len(problem.x)//BATCH
    opt = optimizer(model, opt, lr, wd)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, EPOCHS*n_batches)
    values = []
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(problem.x))[:n_batches*BATCH].view(-1, BATCH):
            problem.loss(model(problem.x[batch]), problem.y[batch]).backward()
            opt.step()
            opt.zero_grad()
            sched.step()
        value = problem.validate(model)
        values.append(round(value, 5) if value<LARGEST else LARGEST)
    return values

def table(name):
    problem,configurations = Problem(name),itertools.product(*GRID.values())
    curves = [[curve(problem, seed, *values) for seed in range(SEEDS)] for values in configurations]
    last = np.array(curves)[:,:,-1].mean(1)
    print(f'{name}: {len(last)} configurations, best {last.min():.4f}, median {np.median(last):.4f}', flush=True)
    return dict(params={k: [k in CATEGORIES, len(v)] for k,v in GRID.items()}, curves=curves)

def main():
    parser = options(__doc__)
    parser.add_argument('--tasks', type=words, default=['digits','cancer','diabetes'])
    parser.add_argument('--out', default=Path(__file__).with_name('hpo_table.json'))
    args = start(parser, 'scikit-learn')
    tables = {name: table(name) for name in args.tasks}
    Path(args.out).write_text(json.dumps(dict(grid=GRID, tasks=tables), separators=(',',':')))

if __name__=='__main__': main()
