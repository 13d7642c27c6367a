# TRANSITION: the flat modules of before still find their old names here; empty in the end
from .durations import *
from .hypers import *
from .hypers import set_hyper as _set
from .monitor import *
from .generators import *
from .undo import *
from .snapshot import *
from .loaders import *
from .callbacks import *
from .ranks import *
from .files import *
from .undo import remember_attrs as _shallow, delayed_interrupt as _uninterrupted, _remember_modes as _modes
from .generators import loaders_of as _loaders
import torch as _torch
def _dl_state(dl): return ([] if isinstance(dl, _torch.utils.data.DataLoader) else [dl]), loader_generators(dl)
