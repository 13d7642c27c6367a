"""How often the interval that a search gives for its winner holds the truth, which the tables know

    python benchmarks/search_interval.py                # all suites of hpo.py: 30, 60, 100 trials, 40 seeds
    python benchmarks/search_interval.py --screen gp --seeds 5

`finals` stands for the best four of a search, three trainings each.
"""
from common import *
from collections import defaultdict
import optuna
from hpo import SUITES,tasks
from fastai_anneal.search.record import SearchTrial
from fastai_anneal.search.sampler import SimAnnealSampler
from fastai_anneal.search.score import by_belief,ranked,score_of

NOISES = .1,.5,1. # Of the bowl, in standard deviations of its best tenth
N_DIMS = 4

class Bowl:
    "A noisy quadratic function"
    parameters = range(N_DIMS)
    def __init__(self, noise): self.name,self.noise = f'bowl/noise {noise}',noise
    def objective(self, seed):
        rng = np.random.default_rng(seed)
        middle = rng.uniform(.2, .8, N_DIMS)
        best = np.sort(((rng.random((1000,N_DIMS))-middle)**2).sum(1))[:100]
        def truth(params): return sum((params[f'x{i}']-m)**2 for i,m in enumerate(middle))
        def run(params): return truth(params)+self.noise*best.std()*rng.standard_normal()
        return truth,run,lambda trial: {f'x{i}': trial.suggest_float(f'x{i}', 0, 1) for i in range(N_DIMS)}

class Table:
    "A task of hpo.py"
    def __init__(self, task): self.task,self.name,self.parameters = task,task.name,task.parameters
    def objective(self, seed):
        def suggest(trial, name, is_category, n):
            return trial.suggest_categorical(name, range(n)) if is_category else trial.suggest_int(name, 0, n-1)
        def params(trial): return {name: suggest(trial, name, *o) for name,o in self.parameters.items()}
        return lambda params: self.task.means[self.task.row(params)],self.task.observer(seed),params

def record(number, params, value):
    return SearchTrial(number, params, 0, state='complete', value=value, energy=value)

def holds(problem, n_trials, seed, screen):
    "Do the interval of a search, one around its lowest value, and the interval of finals hold the truth?"
    truth,run,suggest = problem.objective(seed)
    n_init = max(1, min(len(problem.parameters)+2, n_trials//5)) # as in `anneal_search`
    sampler = SimAnnealSampler(seed, n_trials, n_init, repeat=.1, screen=screen)
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: run(suggest(trial)), n_trials)
    trials = [record(t.number, t.params, t.value) for t in study.trials]
    best,lowest = ranked(trials),min(trials, key=lambda t: t.value)
    score = score_of(best)
    noise = score.se*math.sqrt(max(1, score.seen-1))
    finals = by_belief([[record(0, group[0].hps, run(group[0].hps)) for _ in range(3)] for group in best[:4]])
    final = score_of(finals, are_finals=True)
    return (score.low<=truth(best[0][0].hps)<=score.high, abs(lowest.value-truth(lowest.hps))<=1.64*noise,
            final.low<=truth(finals[0][0].hps)<=final.high)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--trials', type=int, nargs='*', default=[30,60,100])
    parser.add_argument('--seeds', type=int, default=40)
    parser.add_argument('--screen', default=None, help='gp: searches as they are by default, which take longer')
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problems = [Table(task) for task in tasks([*SUITES,'digits'])]+[Bowl(noise) for noise in NOISES]
    print('share that holds the truth: interval of the search, lowest value ± 1.64 se, interval of finals')
    for n_trials in args.trials: compare(problems, n_trials, args)

def compare(problems, n_trials, args):
    "A line for each kind of problem"
    found = defaultdict(list)
    for problem in problems:
        for seed in range(args.seeds):
            held = holds(problem, n_trials, seed, args.screen)
            for name in (problem.name.split('/')[0],'all'): found[name].append(held)
    for name,held in found.items():
        print(f'{n_trials:4} trials {name:12}', *(f'{share:6.1%}' for share in np.mean(held, 0)), flush=True)

if __name__=='__main__': main()
