"""Trains every task of `lr_tasks` at every learning rate of its grid and keeps the validation losses, for lr_regret.py

    nice python benchmarks/lr_truth.py [--tasks a,b]     # half an hour on one core; writes benchmarks/lr_truth.json

Pairs of task and seed that are done are not redone.
"""
from common import *
from lr_tasks import *

FILE,SEEDS = Path(__file__).with_name('lr_truth.json'),3

class StopOnNaN(Callback):
    "A training that has diverged is over; its score is a NaN"
    def after_batch(self):
        if self.training and not torch.isfinite(self.loss): raise CancelFitException

def train(task, seed, lr):
    "Validation loss after `fit_one_cycle` at `lr`, or None where it diverged"
    learn = task.learn(seed)
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(task.n_epoch, lr, cbs=StopOnNaN)
    values = learn.recorder.values
    if len(values)<task.n_epoch or len(values[-1])<2: return None
    return float(values[-1][1]) if math.isfinite(values[-1][1]) else None

def untrained(task, seed):
    learn = task.learn(seed)
    with learn.no_bar(),learn.no_logging(): return float(learn.validate()[0])

def main():
    parser = options(__doc__, seeds=SEEDS)
    parser.add_argument('--tasks', type=words, default=list(TASKS))
    parser.add_argument('--out', default=FILE)
    args = start(parser)
    truth = Cache(args.out)
    for seed in map(str, range(args.seeds)):
        for name in args.tasks:
            task = TASKS[name]
            its = task.n_epoch*len(task.dls().train)
            result = truth.get(name, lambda: dict(its=its, lrs=task.lrs(), untrained={}, losses={}))
            if seed in result['losses']: continue
            watch = Stopwatch()
            result['untrained'][seed] = untrained(task, int(seed))
            result['losses'][seed] = [train(task, int(seed), lr) for lr in task.lrs()]
            truth[name] = result
            print(f'{name} {seed} {watch}', flush=True)

if __name__=='__main__': main()
