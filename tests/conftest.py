import os,signal
os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ.setdefault('OMP_NUM_THREADS', '1')

import matplotlib.pyplot as plt, pytest, torch
from fastai.callback import fp16
from pathlib import Path

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler) # a shell's background job ignores it, and so would all that the tests start

DEVICE = os.environ.get('FASTAI_ANNEAL_DEVICE', 'cuda') # `cpu` tries the tests marked `cuda` without one

def pytest_collection_modifyitems(items):
    items[:] = [o for o in items if not o.function.__module__.startswith(('fastcore','fastai.'))] # `import *` brings their `test_eq`
    skip = pytest.mark.skip(reason='needs a CUDA device')
    for o in items:
        if 'cuda' in o.keywords and not torch.cuda.is_available() and DEVICE=='cuda': o.add_marker(skip)

@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close('all')

@pytest.fixture
def mnist_path():
    "Full MNIST in torchvision's layout"
    p = os.environ.get('FASTAI_ANNEAL_DATA')
    if not p: pytest.skip("FASTAI_ANNEAL_DATA is not set (a folder with the full MNIST in torchvision's layout)")
    return Path(p)

@pytest.fixture
def gpu(monkeypatch):
    "The device for a test marked `cuda`, with kernels that give the same bits each time"
    monkeypatch.setattr(torch.backends.cudnn, 'deterministic', True)
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', False)
    if DEVICE=='cpu': # where fastai's mixed precision would be none
        monkeypatch.setattr(fp16, 'autocast', lambda device, **kwargs: torch.autocast('cpu', **kwargs))
        monkeypatch.setattr(fp16, 'GradScaler', lambda device, **kwargs: torch.amp.GradScaler('cpu', **kwargs))
    return torch.device(DEVICE)
