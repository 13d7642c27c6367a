"What the tests of schedules share"
from functools import partial
from fastai.basics import trainable_params
from helpers import groups_by_layer,small_learner,sums

def make(n=40, bs=4, groups=3, **kwargs):
    "A learner with `n//bs` batches in an epoch and 3 parameter groups, or 1"
    splitter = groups_by_layer if groups==3 else trainable_params
    return small_learner(partial(sums, n=n, bs=bs), splitter=splitter, **kwargs)
