# TRANSITION: the flat modules of before still find their old names here; empty in the end
from .shapes import *
from .callback import *
from .anneal import *
from .family import *
from .scale import *
from .plateau import *
from .torch_sched import *
from .state import *
from .state import set_trained_state as _set_trained_state, trained_state as _trained_state
from .checkpoint import *
from ..core.refusing import refusing
from ..core.hypers import attr_owner, per_group
from ..core.monitor import monitor_mode as _mode
def lower_is_better(name): return _mode(name)=='min'
