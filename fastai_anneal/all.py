"Everything public: `from fastai_anneal.all import *` after fastai's own `from fastai.vision.all import *` or another"
import importlib.util as _util

from .core.generators import preserved_rng
from .core.undo import preserved
from .schedule.algebra import Shape
from .schedule.shapes import (ShapeCos,ShapeExp,ShapeFn,ShapeInvSqrt,ShapeLin,ShapeMultiStep,ShapeNo,ShapePoly,ShapePow,ShapeRex,
                              ShapeSqrt,ShapeStep,ShapeWarm)
from .schedule.anneal import Anneal
from .schedule.family import (CosineAnneal,ExpAnneal,InvSqrtAnneal,LambdaAnneal,LinearAnneal,MultiStepAnneal,OneCycle,PolyAnneal,
                              RexAnneal,StepAnneal,WSD,WarmRestarts)
from .schedule.scale import HyperScale
from .schedule.plateau import Plateau
from .schedule.torch_sched import TorchSched
from .schedule.checkpoint import Checkpoint
from .annealing.space import Bool,Categorical,LinFloat,LinInt,LogFloat,LogInt,Space,Vector
from .annealing.accept import AdaptiveT,metropolis,penalty,threshold
from .annealing.moves import Gaussian,Tsallis
from .annealing.annealer import Annealer
from .annealing.anneal import anneal
from .lr.sweep import HPFinder,LRFinder
from .lr.found import FoundHP,FoundLR
from .lr import finder as _finder # `learn.lr_find`, `learn.hp_find`
from .fit.hp import HP
from .fit.simanneal import SimAnnealHP
from .search.record import SearchError
from .search.result import SearchResult
from .search.search import anneal_search,read_search
from .search.net import Layer,Net
from .search.net_module import NetModule
from .learner import TrainLearner
from .mnist import DigitsLoaders,held_out_accuracy,mnist_cnn,mnist_dls,mnist_mlp
from .digits import Digits,MNISTError
if _util.find_spec('optuna'): # the extra `search`
    from .search.sampler import BestByMean,SimAnnealSampler,anneal_history,best_by_mean
    from .search.pruning import SimAnnealPruning

__all__ = [name for name in dir() if not name.startswith('_')]
