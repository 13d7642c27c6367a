"""A training at many learning rates at once: as many copies of the weights, one pass through the data

    python benchmarks/lr_stack.py [--tasks a,b]  # is it what a `Learner` does? Losses of both, and milliseconds a step

What `fit_one_cycle` does with fastai's Adam, SGD and Lamb and with torch's AdamW, up to rounding. Five times faster
than one training after the other where the networks are small.
"""
from common import *
from fastai.callback.schedule import combined_cos
from torch.func import functional_call,grad_and_value,vmap
from lr_real import *

def each(values, like):
    "A number for each copy, to be multiplied with the stacked tensor `like`"
    return values.view(-1, *[1]*(like.dim()-1))

def rms(stacked): return each(stacked.flatten(1).square().mean(1).sqrt(), stacked)

def trust(weight, step):
    "Lamb's ratio, which is 1 where one of them is zero"
    ratio = rms(weight)/rms(step)
    return torch.where((ratio==0)|~ratio.isfinite(), 1., ratio.clamp(max=10))

class StackedOpt:
    "The optimizer of a learner for stacked weights, with a learning rate for each copy"
    def __init__(self, learn, weights):
        learn.create_opt()
        opt = learn.opt
        self.weights,self.hypers,self.n_steps = weights,dict(opt.hypers[-1]),0
        self.kind = 'adamw' if isinstance(opt, OptimWrapper) else opt.cbs[-1].__name__
        has_wd = {name: opt.state[p].get('do_wd', True) for name,p in learn.model.named_parameters()}
        self.wd = {name: self.hypers.get('wd', 0.)*(has_wd[name] or self.kind=='adamw') for name in weights}
        self.avg,self.sqr_avg = [{k: torch.zeros_like(w) for k,w in weights.items()} for _ in range(2)]

    def step(self, grads, lr, mom):
        self.n_steps += 1
        for name,weight in self.weights.items():
            rates = each(lr, weight)
            if self.wd[name]: weight.mul_(1-rates*self.wd[name])
            at_copies = each(mom, weight) if isinstance(mom, torch.Tensor) else mom
            weight.sub_(rates*self.direction(name, weight, grads[name], at_copies))

    def direction(self, name, weight, grad, mom):
        if self.kind=='sgd_step': return grad
        avg,sqr_avg,sqr_mom = self.avg[name],self.sqr_avg[name],self.hypers.get('sqr_mom')
        if self.kind=='momentum_step': return avg.mul_(mom).add_(grad)
        avg.mul_(mom).add_(grad*(1-mom))
        sqr_avg.mul_(sqr_mom).addcmul_(grad, grad, value=1-sqr_mom)
        debiased = (sqr_avg/(1-sqr_mom**self.n_steps)).sqrt_().add_(self.hypers['eps'])
        step = avg/(1-mom**self.n_steps)/debiased
        return step*trust(weight, step) if self.kind=='lamb_step' else step

class Stack:
    "Copies of the learner's model, one for each of the learning rates `lrs`"
    def __init__(self, learn, lrs):
        self.learn,self.lrs,n = learn,torch.tensor(lrs),len(lrs)
        self.weights = {name: torch.stack([p.detach()]*n) for name,p in learn.model.named_parameters()}
        self.buffers = {name: torch.stack([b]*n) for name,b in learn.model.named_buffers()}
        self.opt = StackedOpt(learn, self.weights)
        self.over_copies = partial(vmap, in_dims=(0,0,None,None), randomness='different')

    def loss(self, weights, buffers, x, y):
        return self.learn.loss_func(functional_call(self.learn.model, (weights,buffers), (x,)), y)

    def fit_one_cycle(self, n_epoch):
        "Train all copies, and return the last validation losses"
        pos = np.arange(n_epoch*len(self.learn.dls.train))/(n_epoch*len(self.learn.dls.train))
        lr_at,mom_at = combined_cos(.25, 1/25, 1., 1e-5),combined_cos(.25, *self.learn.moms)
        return self.fit(n_epoch, [lr_at(p) for p in pos], [mom_at(p) for p in pos])

    def fit(self, n_epoch, factors, moms):
        "Train all copies; factors of the rates and momenta, one per step, are numbers, or one for each copy"
        gradient = self.over_copies(grad_and_value(self.loss))
        self.learn.model.train()
        batches = (batch for _ in range(n_epoch) for batch in self.learn.dls.train)
        for (x,y),factor,mom in zip(batches, factors, moms):
            grads,_ = gradient(self.weights, self.buffers, x, y)
            self.opt.step(grads, self.lrs*factor, mom)
        return self.validate()

    def validate(self):
        self.learn.model.eval()
        total,n = 0,0
        with torch.no_grad():
            for x,y in self.learn.dls.valid:
                total,n = total+self.over_copies(self.loss)(self.weights, self.buffers, x, y)*len(x),n+len(x)
        return (total/n).tolist()

def main():
    parser = options(__doc__)
    tasks = 'mlp_adam_200,mlp_adamw_200,mlp_sgd_200,mlp_lamb_200,cnn_adam_200,numpy_adam_200,tiny_diabetes'
    parser.add_argument('--tasks', type=words, default=words(tasks))
    args = start(parser)
    for name in args.tasks:
        task = REAL[name]
        lrs = task.lrs()[3:-3:3]
        stacked,one_by_one = Stopwatch(),[]
        losses = Stack(task.learn(0), lrs).fit_one_cycle(task.n_epoch)
        print(f'{name} {stacked} {[float(f"{loss:.4g}") for loss in losses]}', flush=True)
        watch = Stopwatch()
        for lr in lrs:
            learn = task.learn(0)
            with learn.no_bar(),learn.no_logging(): task.fit(learn, lr)
            one_by_one.append(float(f'{learn.recorder.values[-1][1]:.4g}'))
        print(f'{name} {watch} {one_by_one}', flush=True)

if __name__=='__main__': main()
