from ..anneal import *
from ..anneal import Dim,Vector,Geometric,accept_prob,penalty,Gaussian,reflect
