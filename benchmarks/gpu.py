"""What matters on a GPU: the loop's overhead, `lr_find` beside fastai's, the undo, mixed precision that skips steps

    python benchmarks/gpu.py                         # about three minutes; `tools/cuda` runs the tests before it
    python benchmarks/gpu.py --device cpu --quick    # tries the script where there is no GPU

Data is made up. Time is by the clock, when all kernels are done; what is compared takes turns in one process, and a
ratio is the median of the pairs. The table at the end is what is to be kept, with the name of the card.
"""
from common import *
import tempfile
import torch
import lr_find as finders # before the next one, or fastai's own `lr_find` is ours already
import loop
from fastai.basics import *
from fastai.callback.all import *
from fastai.callback.schedule import *
from fastai_anneal.all import *
from fastai_anneal.core.snapshot import Snapshot

class Clock:
    "Seconds, when `device` has done all its work"
    def __init__(self, device): self.device = device
    def __call__(self):
        if self.device.type=='cuda': torch.cuda.synchronize(self.device)
        return time.perf_counter()

class Table:
    "What was measured, a row each"
    def __init__(self): self.rows = []
    def add(self, what, ours, theirs='', ratio=''):
        self.rows.append((what, ours, theirs, ratio))
        print(f'... {what}: {ours} {theirs} {ratio}', flush=True)
    def show(self, card):
        ours = version('fastai_anneal')
        print(f'\n{card}, torch {torch.__version__}, fastai_anneal {ours}, {datetime.now():%Y-%m-%d}\n')
        for row in (('', 'ours', 'the other', 'ratio'), *self.rows): print_row(*row, width=18, first=56)

def milliseconds(times): return f'{statistics.median(times)*1e3:,.4g} ms'

def compared(table, what, times, per=1):
    "Add a row for `times` of ours and of the other, `per` so many batches"
    ours,theirs = ([seconds/per for seconds in times[name]] for name in times)
    table.add(what, milliseconds(ours), milliseconds(theirs), f'{statistics.median(ratios(ours, theirs)):.2f}')

# ---- what is measured

def loops(table, args, clock):
    "A small MLP, where the loop counts"
    n_train,n_valid = (10,2) if args.quick else (50,10)
    n_items = (n_train+n_valid)*loop.BATCH
    dls = loop.loaders(torch.rand(n_items, 784), torch.randint(10, (n_items,)), n_train, clock.device)
    n_rounds = 2 if args.quick else 40
    for name in loop.OPTS:
        for n_cbs in loop.EXTRA:
            overhead,epoch = loop.compare(name, n_cbs, dls, n_rounds, n_train+n_valid, clock)
            what = f'loop, {name}, {n_cbs} callbacks, share of fastai\'s'
            table.add(what, f'overhead {overhead:.2f}', '', f'epoch {epoch:.2f}')

def searches(table, args, clock, path):
    "`lr_find` and fastai's, both until they stop by themselves and over all steps"
    its,pairs = (10,1) if args.quick else (100,5)
    for kind in ('mlp','cnn') if args.quick else finders.MODELS:
        for name in ('fastai, all steps','fastai, both stop'):
            compared(table, f'lr_find, {kind}, {name}', finders.compare(kind, name, pairs, its, clock, path))

def trained(path, cbs=()):
    "A resnet18 whose optimizer has its state"
    learn = finders.learner('resnet18', path)
    learn.logger = noop
    with learn.no_bar(): learn.fit(1, 1e-3, cbs=[*cbs, ShortEpochCallback(.1)])
    return learn

def undo(table, args, clock, path):
    "A copy of a model with Adam's state, and the way back"
    learn = trained(path)
    for device in (None,'cpu'):
        def snapshot(): return Snapshot(learn.model, learn.opt, device=device)
        kept = snapshot()
        times = taking_turns(dict(snapshot=snapshot, restore=kept.restore), 3 if args.quick else 15, clock)
        gigabytes = kept.nbytes/2**30
        for name,seconds in times.items():
            place = f'on the {device}' if device else 'beside it'
            rate = f'{gigabytes/statistics.median(seconds):.3g} GiB/s'
            table.add(f'{name}, resnet18 and Adam, {place}', milliseconds(seconds), f'{gigabytes*1024:.0f} MiB', rate)

def rollbacks(table, args, clock, path):
    "A batch that `SimAnnealHP` trains, in the fit or in a candidate, beside a batch of a plain fit"
    learn,n_epoch = trained(path),2 if args.quick else 4
    n_batches,n_trained = n_epoch*len(learn.dls.train),[]
    def anneal():
        cb = SimAnnealHP({'lr': LogFloat(1e-4, 1e-1)}, seed=0)
        learn.fit(n_epoch, 1e-3, cbs=cb)
        n_trained.append(n_batches+cb.n_trained)
    runs = dict(ours=anneal, plain=partial(learn.fit, n_epoch, 1e-3))
    with learn.no_bar(): times = taking_turns(runs, 1 if args.quick else 3, clock)
    per_batch = [seconds/n for seconds,n in zip(times['ours'], n_trained)]
    plain = [seconds/n_batches for seconds in times['plain']]
    compared(table, 'SimAnnealHP, resnet18: a batch, all judging included', dict(ours=per_batch, plain=plain))

class SkippedSteps(Callback):
    "Counts the steps that mixed precision leaves out"
    def before_fit(self): self.n = 0
    def after_cancel_step(self): self.n += 1

PRECISIONS = {'full precision': lambda: [], 'fp16': lambda: [MixedPrecision()],
              'bf16': lambda: [MixedPrecision('bf16')],
              'fp16 from a scale of 2**40': lambda: [MixedPrecision(init_scale=2.**40)]}

def precisions(table, args, clock, path):
    "`TrainLearner` beside `Learner`, in each precision: the time of a batch, the steps skipped, the same bits"
    for name,make in PRECISIONS.items():
        learners,skipped = {},{}
        for which,to in (('ours',TrainLearner.from_learner), ('fastai',noop)):
            set_seed(0, reproducible=True)
            skipped[which] = SkippedSteps()
            learners[which] = to(trained(path, [*make(), skipped[which]]))
        weights = [torch.cat([p.detach().flatten() for p in learn.model.parameters()]) for learn in learners.values()]
        same = 'same bits' if torch.equal(*weights) else 'OTHER BITS'
        torch.backends.cudnn.deterministic = False
        runs = {which: partial(learn.fit, 1, 1e-3, cbs=make()) for which,learn in learners.items()}
        with learners['ours'].no_bar(),learners['fastai'].no_bar():
            times = taking_turns(runs, 1 if args.quick else 5, clock)
        compared(table, f'a batch of resnet18, {name}', times, per=len(learners['ours'].dls.train))
        table.add(f'steps skipped, {name}', skipped['ours'].n, skipped['fastai'].n, same)

def main():
    parser = options(__doc__)
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--quick', action='store_true', help='little of everything, to try the script')
    args = start(parser)
    device = torch.device(args.device)
    default_device(device.type=='cuda')
    table,clock = Table(),Clock(device)
    with tempfile.TemporaryDirectory() as path:
        loops(table, args, clock)
        for measure in (searches, undo, rollbacks, precisions): measure(table, args, clock, path)
    card = torch.cuda.get_device_name(device) if device.type=='cuda' else 'no card: the CPU, tried out'
    table.show(card)

if __name__=='__main__': main()
