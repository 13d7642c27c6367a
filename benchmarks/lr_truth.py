"""The truth for `lr_regret.py`: what does each task end at, as a function of the learning rate?

    python benchmarks/lr_truth.py [--tasks a,b] [--seeds 3] [--steps 800] [--free] [--out benchmarks/lr_truth.json]

An hour and a half on one core for everything. Tasks and seeds that are done are not redone; `--steps`: only those with
at most so many; `--free`: instead, what the optimizers of `lr_free.py` end at. The trainings of `REAL` are trained at
all rates at once, by `lr_stack.py`.
"""
from common import *
from lr_real import *
from lr_free import FREE
from lr_stack import Stack

FILE = Path(__file__).with_name('lr_truth.json')
SEEDS = 3
DIGITS = 5 # Of a loss that are kept

class StopOnNaN(Callback):
    "A training that has diverged is over; its score is a NaN"
    def after_batch(self):
        if self.training and not torch.isfinite(self.loss): raise CancelFitException

def shortened(loss): return float(f'{loss:.{DIGITS}g}') if math.isfinite(loss) else None

def train(task, seed, lr):
    "Validation loss after a fit at `lr`, or None where it diverged"
    learn = task.learn(seed)
    with learn.no_bar(),learn.no_logging(): task.fit(learn, lr, cbs=StopOnNaN)
    values,last = learn.recorder.values,learn.epoch+1
    return shortened(values[-1][1]) if last==learn.n_epoch==len(values) and len(values[-1])>1 else None

def untrained(task, seed):
    learn = task.learn(seed)
    with learn.no_bar(),learn.no_logging(): return shortened(float(learn.validate()[0]))

def losses_of(task, seed):
    "What the rates of the task's grid lead to"
    if isinstance(task, Training) and not isinstance(task, Tuning):
        return [shortened(loss) for loss in Stack(task.learn(seed), task.lrs()).fit_one_cycle(task.n_epoch)]
    return [train(task, seed, lr) for lr in task.lrs()]

def add_truth(task, seed, result):
    result['untrained'][seed] = untrained(task, int(seed))
    result['losses'][seed] = losses_of(task, int(seed))

def add_free(task, seed, result):
    for name,free in FREE.items():
        result.setdefault('free', {}).setdefault(name, {})[seed] = shortened(free(task, int(seed)))

def is_done(result, key, seed):
    "Are the losses with that seed known, or those of every optimizer?"
    if key=='losses': return seed in result['losses']
    return all(seed in result.get('free', {}).get(name, {}) for name in FREE)

def main():
    parser = options(__doc__, seeds=SEEDS)
    tasks = TASKS|REAL
    parser.add_argument('--tasks', type=words, default=list(tasks))
    parser.add_argument('--steps', type=int, default=10**6)
    parser.add_argument('--free', action='store_true')
    parser.add_argument('--out', default=FILE)
    args = start(parser)
    truth = Cache(args.out)
    add,key = (add_free,'free') if args.free else (add_truth,'losses')
    for seed in map(str, range(args.seeds)):
        for name in args.tasks:
            task = tasks[name]
            n_steps = task.n_epoch*len(task.dls().train)
            if n_steps>args.steps: continue
            result = truth.get(name, lambda: dict(its=n_steps, lrs=task.lrs(), untrained={}, losses={}))
            if is_done(result, key, seed): continue
            watch = Stopwatch()
            add(task, seed, result)
            truth[name] = result
            print(f'{name} {seed} {watch} {result[key]}', flush=True)

if __name__=='__main__': main()
