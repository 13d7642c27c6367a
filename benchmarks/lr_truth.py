"""Trains every task of `lr_tasks` at every learning rate of its grid and keeps the validation losses in `lr_truth.json`.

Half an hour on one core: `OMP_NUM_THREADS=1 nice python benchmarks/lr_truth.py [task ...]`; done (task, seed) pairs are not redone."""
import json,sys,time
from pathlib import Path
import torch; torch.set_num_threads(1)
from lr_tasks import *

FILE,SEEDS = Path(__file__).with_name('lr_truth.json'),3

class StopOnNaN(Callback):
    "A training that has diverged is over; its score is a NaN"
    def after_batch(self):
        if self.training and not torch.isfinite(self.loss): raise CancelFitException

def train(task, seed, lr):
    "Validation loss after `fit_one_cycle` at `lr`, or None where it diverged"
    l = task.learn(seed)
    with l.no_bar(),l.no_logging(): l.fit_one_cycle(task.n_epoch, lr, cbs=StopOnNaN)
    v = float(l.recorder.values[-1][1]) if len(l.recorder.values)==task.n_epoch and len(l.recorder.values[-1])>1 else math.nan
    return v if math.isfinite(v) else None

def untrained(task, seed):
    l = task.learn(seed)
    with l.no_bar(),l.no_logging(): return float(l.validate()[0])

if __name__=='__main__':
    res = json.loads(FILE.read_text()) if FILE.exists() else {}
    for seed in range(SEEDS):
        for n in sys.argv[1:] or TASKS:
            t,r = TASKS[n],res.setdefault(n, dict(its=TASKS[n].n_epoch*len(TASKS[n].dls().train), lrs=TASKS[n].lrs(), untrained={}, losses={}))
            if str(seed) in r['losses']: continue
            s = time.time()
            r['untrained'][str(seed)] = untrained(t, seed)
            r['losses'][str(seed)] = [train(t, seed, lr) for lr in t.lrs()]
            FILE.write_text(json.dumps(res))
            print(f'{n} {seed} {time.time()-s:.0f}s', flush=True)
