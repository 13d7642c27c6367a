"""Which shape wins? Every schedule at equal budget on all of MNIST with shifts, each at its own best learning rate

    python benchmarks/anneal_shapes.py [--opts adam,sgd] [--steps 400,3200] [--seeds 3] [--cache DIR]

Ten minutes on one core. All shapes at all rates of a setting are trained at once, by `lr_stack.py`. A shape's loss is
that at the best of its rates, which `--seeds` trainings averaged choose; the rates are a factor of 1.5 apart.
"""
from common import *
import torch
from fastai.basics import *
from fastai_anneal.all import *
from lr_stack import Stack
from lr_real import Training,moving_digits,sgdm,thin

SHAPES = {
    'constant':      lambda: [],
    'cosine':        lambda: CosineAnneal(),
    'cosine to 10%': lambda: CosineAnneal(ratio=.1),
    'linear':        lambda: LinearAnneal(),
    '1-sqrt':        lambda: Anneal({'lr': ShapeSqrt()}),
    'REX':           lambda: RexAnneal(),
    'exp to 1%':     lambda: ExpAnneal(.01),
    'steps 50/75%':  lambda: MultiStepAnneal(),
    'inv-sqrt':      lambda: InvSqrtAnneal(),
    'WSD 1-sqrt':    lambda: WSD(warmup='10%'),
    'WSD linear':    lambda: WSD(warmup='10%', shape='linear'),
    'warm cosine':   lambda: CosineAnneal(warmup='10%'),
    'warm linear':   lambda: LinearAnneal(warmup='10%'),
    'warm REX':      lambda: RexAnneal(warmup='10%'),
    'one-cycle':     lambda: OneCycle(),
}
RATES = dict(adam=np.geomspace(2e-3, 8e-2, 10), sgd=np.geomspace(2e-2, 1., 10)) # Peaks
OPTS = dict(adam=Adam, sgd=sgdm)
MOM = .9 # Where a shape leaves it alone

def values_of(name, n_steps):
    "Factors of the peak and momenta of a shape, one per step"
    cbs = tuplify(SHAPES[name]())
    values = cbs[0].values(1, n_steps, 1.) if cbs else np.ones(n_steps)
    if isinstance(values, dict): return values['lr'],values['mom']
    return values,np.full(n_steps, MOM)

def losses_of(opt, n_steps, seed):
    "The validation losses by shape, one per rate"
    rates = torch.tensor(RATES[opt]).float()
    task = Training(None, partial(moving_digits, n_steps), thin, OPTS[opt])
    columns = [np.array(column) for column in zip(*(values_of(name, n_steps) for name in SHAPES))]
    factors,moms = [torch.tensor(column).float().repeat_interleave(len(rates), 0).T for column in columns]
    losses = Stack(task.learn(seed), rates.repeat(len(SHAPES)).tolist()).fit(1, factors, moms)
    return dict(zip(SHAPES, np.array(losses).reshape(len(SHAPES), -1).tolist()))

def summary(runs):
    "By shape: the losses of all seeds at its best rate, and which that is"
    best = {}
    for name in SHAPES:
        losses = np.array([run[name] for run in runs])
        at = np.nan_to_num(losses.mean(0), nan=np.inf).argmin()
        best[name] = losses[:,at],at
    return best

def print_setting(opt, n_steps, best):
    print(f'\n{opt}, {n_steps} steps: loss at the best rate, its difference to the cosine in thousandths, the rate')
    cosine = best['cosine'][0]
    for name,(losses,at) in sorted(best.items(), key=lambda item: item[1][0].mean()):
        difference = 1000*(losses-cosine)
        edge = ' (at the edge)' if at in (0,len(RATES[opt])-1) else ''
        print(f'  {name:14} {losses.mean():.4f}  {difference.mean():+6.1f} ± {standard_error(difference):.1f}'
              f'  {RATES[opt][at]:.2g}{edge}')

def main():
    parser = options(__doc__, seeds=3, cache=True)
    parser.add_argument('--steps', type=whole_numbers, default=[400,3200])
    parser.add_argument('--opts', type=words, default=list(OPTS))
    args = start(parser)
    results,watch = Cache(args.cache),Stopwatch()
    for opt in args.opts:
        for n_steps in args.steps:
            runs = [results.get(f'{opt} {n_steps} {seed}', partial(losses_of, opt, n_steps, seed))
                    for seed in range(args.seeds)]
            print_setting(opt, n_steps, summary(runs))
    print(watch)

if __name__=='__main__': main()
