"""Optimizers that promise to need no learning rate, each as its authors recommend

`FREE[name](task, seed)` is the validation loss after as many steps as the task has, on the same data; a training that
needs another optimizer than the task's is still judged by the task's loss. `pip install` what `FREE` says.
"""
from common import *
import contextlib,io,itertools
from lr_real import *

WD = .01 # As the Adam of the tasks has it
BATCHES = 50 # That a net with batch normalisation sees again before it is judged, as schedule-free's authors do it

def has_batch_norm(model): return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules())

class Free:
    "A plain training loop; `make` returns an optimizer, `decays`: the learning rate falls as a cosine to zero"
    def __init__(self, package, make, decays=True): self.package,self.make,self.decays = package,make,decays

    def __call__(self, task, seed):
        learn = task.learn(seed)
        if getattr(task, 'is_recipe', False): learn.unfreeze()
        model,n_steps = learn.model,task.n_epoch*len(learn.dls.train)
        trained = [p for p in model.parameters() if p.requires_grad]
        with contextlib.redirect_stdout(io.StringIO()): self.opt = self.make(trained, n_steps, model)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.opt, n_steps) if self.decays else None
        self.start(model)
        for _ in range(task.n_epoch):
            for x,y in learn.dls.train: self.step(learn, x, y, schedule)
        learn.model = self.trained(learn)
        with learn.no_bar(),learn.no_logging(): return float(learn.validate()[0])

    def start(self, model): model.train()

    def step(self, learn, x, y, schedule):
        learn.loss_func(learn.model(x), y).backward()
        self.opt.step()
        self.opt.zero_grad()
        if schedule: schedule.step()

    def trained(self, learn): return learn.model

class ScheduleFree(Free):
    def start(self, model):
        model.train()
        self.opt.train()

    def trained(self, learn):
        self.opt.eval()
        if has_batch_norm(learn.model):
            with torch.no_grad():
                for x,_ in itertools.islice(learn.dls.train, BATCHES): learn.model(x)
        return learn.model

class DistanceOverGradients(Free):
    def start(self, model):
        from dog import PolynomialDecayAverager
        model.train()
        self.averager = PolynomialDecayAverager(model)

    def step(self, *args):
        super().step(*args)
        self.averager.step()

    def trained(self, learn): return self.averager.averaged_model

def prodigy(params, n_steps, model):
    from prodigyopt import Prodigy
    return Prodigy(params, lr=1., weight_decay=WD)

def schedule_free(params, n_steps, model):
    from schedulefree import AdamWScheduleFree
    return AdamWScheduleFree(params, weight_decay=WD, warmup_steps=n_steps//20)

def d_adaptation(params, n_steps, model):
    from dadaptation import DAdaptAdam
    return DAdaptAdam(params, lr=1., weight_decay=WD, decouple=True)

def dog(params, n_steps, model):
    from dog import DoG
    return DoG(params, reps_rel=1e-4 if has_batch_norm(model) else 1e-6)

FREE = {'Prodigy': Free('prodigyopt', prodigy), 'D-Adaptation (Adam)': Free('dadaptation', d_adaptation),
        'schedule-free AdamW': ScheduleFree('schedulefree', schedule_free, decays=False),
        'DoG': DistanceOverGradients('dog-optimizer', dog, decays=False)}
