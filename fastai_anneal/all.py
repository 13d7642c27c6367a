"Everything public: `from fastai_anneal.all import *` after fastai's own `from fastai.vision.all import *` or another"
import importlib.util as _util

from .core import *
from .schedule import *
from .lr.finder import *
from .lr.found import FoundHP,FoundLR
from .lr.sweep import HPFinder,LRFinder
from .anneal import *
from .fit.simanneal import *
from .fit.hp import HP
from .search import *
from .nas import *
from .learner import *
from .mnist import *
if _util.find_spec('optuna'): from .sampler import * # the extra `optuna`
