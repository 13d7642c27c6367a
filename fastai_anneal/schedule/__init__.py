from ..old_schedule import * # TRANSITION
from ..old_schedule import _set_trained_state,_trained_state,_read,_write,_atomic_save,_rank,_n_iter # TRANSITION
