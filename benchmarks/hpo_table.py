"""Trains every configuration of a small grid on small real data and keeps the validation curves: benchmarks/hpo_table.json, for hpo.py

    python benchmarks/hpo_table.py     # some minutes on one core

Digits (error), breast cancer (loss) and diabetes (squared error) from scikit-learn, a two-layer network, 8 epochs, 3 seeds each.
"""
import itertools,json
from pathlib import Path
import numpy as np,torch
from sklearn.datasets import load_digits,load_breast_cancer,load_diabetes
from torch import nn
torch.set_num_threads(1)

GRID = dict(lr=[1e-4,5e-4,2e-3,1e-2,5e-2,.2], wd=[0.,1e-3,1e-1], width=[4,16,64], act=['relu','tanh'], opt=['sgd','adam'])
CAT,EPOCHS,SEEDS = ('act','opt'),8,3

def data(name):
    x,y = dict(digits=load_digits, cancer=load_breast_cancer, diabetes=load_diabetes)[name](return_X_y=True)
    i = np.random.default_rng(0).permutation(len(x)); x,y = x[i],y[i]; n = len(x)*2//3
    x = (x-x[:n].mean(0))/(x[:n].std(0)+1e-6)
    if name=='diabetes': y = (y-y[:n].mean())/y[:n].std()
    y = torch.tensor(y, dtype=torch.float32 if name=='diabetes' else torch.long); x = torch.tensor(x, dtype=torch.float32)
    return x[:n],y[:n],x[n:],y[n:]

def train(d, seed, reg, err, lr, wd, width, act, opt):
    x,y,vx,vy = d; torch.manual_seed(seed); bs = 32
    m = nn.Sequential(nn.Linear(x.shape[1],width), nn.ReLU() if act=='relu' else nn.Tanh(), nn.Linear(width, 1 if reg else int(y.max())+1))
    o = torch.optim.SGD(m.parameters(), lr, momentum=.9, weight_decay=wd) if opt=='sgd' else torch.optim.AdamW(m.parameters(), lr, weight_decay=wd)
    lf = (lambda p,t: nn.functional.mse_loss(p[:,0], t)) if reg else nn.functional.cross_entropy
    curve,n = [],EPOCHS*(len(x)//bs); sched = torch.optim.lr_scheduler.CosineAnnealingLR(o, n)
    for _ in range(EPOCHS):
        for b in torch.randperm(len(x))[:len(x)//bs*bs].view(-1,bs):
            lf(m(x[b]), y[b]).backward(); o.step(); o.zero_grad(); sched.step()
        with torch.no_grad(): p = m(vx); v = float((p.argmax(1)!=vy).float().mean() if err else lf(p, vy))
        curve.append(round(v, 5) if v<10 else 10.) # diverged
    return curve

def main():
    out = {}
    for name in ('digits','cancer','diabetes'):
        d,rows = data(name),[]
        for vs in itertools.product(*GRID.values()): rows.append([train(d, s, name=='diabetes', name=='digits', **dict(zip(GRID, vs))) for s in range(SEEDS)])
        out[name] = dict(params={k:[k in CAT,len(v)] for k,v in GRID.items()}, curves=rows)
        c = np.array(rows)[:,:,-1].mean(1); print(f'{name}: {len(rows)} configurations, best {c.min():.4f}, median {np.median(c):.4f}', flush=True)
    json.dump(dict(grid=GRID, tasks=out), open(Path(__file__).parent/'hpo_table.json','w'), separators=(',',':'))

if __name__=='__main__': main()
