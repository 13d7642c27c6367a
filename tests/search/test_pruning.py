"Pruning a training by what it reports to Optuna"
import math
import pytest
optuna = pytest.importorskip('optuna')
from optuna.trial import TrialState
from fastai_anneal.search.pruning import SimAnnealPruning
from fastai.test_utils import synth_learner
from fastai.callback.progress import *
from fastai.callback.core import Callback
from fastai.metrics import mse

def score(p, t): return -mse(p, t)

def fit(learn, n=3):
    with learn.no_bar(), learn.no_logging(): learn.fit(n)

class Never(optuna.pruners.BasePruner):
    def __init__(self, at=math.inf): self.at = at
    def prune(self, study, trial): return trial.last_step>=self.at

def test_pruning_reports_each_epoch_of_all_fits():
    st = optuna.create_study(pruner=Never()); t = st.ask(); learn = synth_learner(metrics=mse, cbs=SimAnnealPruning(t, 'mse'))
    fit(learn, 3); first = [r[2] for r in learn.recorder.values]
    learn.validate(); fit(learn, 1)
    iv = st.trials[0].intermediate_values
    assert sorted(iv)==[0,1,2,3] and [iv[i] for i in range(3)]==first

@pytest.mark.parametrize('direction,monitor,mode,sign', [('minimize','valid_loss',None,1),('maximize','valid_loss',None,-1),('minimize','mse',None,1),('maximize','score',None,1),('minimize','score',None,-1),('minimize','score','min',1)])
def test_pruning_turns_the_sign(direction, monitor, mode, sign):
    st = optuna.create_study(direction=direction, pruner=Never()); t = st.ask(); learn = synth_learner(metrics=mse if monitor=='mse' else score, cbs=SimAnnealPruning(t, monitor, mode))
    fit(learn, 1)
    assert st.trials[0].intermediate_values[0]==sign*learn.recorder.values[0][1 if monitor=='valid_loss' else 2]

def test_pruning_stops_and_everyone_cleans_up():
    class Last(Callback):
        order,done = 80,0
        def after_fit(self): self.done += 1
    st = optuna.create_study(pruner=Never(1)); t = st.ask(); last = Last(); learn = synth_learner(cbs=[SimAnnealPruning(t), last])
    with pytest.raises(optuna.TrialPruned, match='epoch 1'): fit(learn, 5)
    assert last.done==1 and len(learn.recorder.values)==2 and learn.xb==(None,)
    learn.remove_cb(SimAnnealPruning); fit(learn, 1) # trains on
    st = optuna.create_study(pruner=Never(1))
    st.optimize(lambda t: fit(synth_learner(lr=t.suggest_float('lr',.01,.02), cbs=SimAnnealPruning(t)), 4), n_trials=2)
    assert all(t.state==TrialState.PRUNED and len(t.intermediate_values)==2 for t in st.trials)

def test_pruning_wrong_inputs():
    st = optuna.create_study()
    with pytest.raises(ValueError, match="'accuracy' is not recorded: There is: train_loss, valid_loss"): fit(synth_learner(cbs=SimAnnealPruning(st.ask(), 'accuracy')))
    with pytest.raises(ValueError, match='prunes by one'): SimAnnealPruning(optuna.create_study(directions=['minimize']*2).ask())
    fit(synth_learner(cbs=SimAnnealPruning(optuna.trial.FixedTrial({}))), 1)
