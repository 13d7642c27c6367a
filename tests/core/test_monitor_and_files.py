"Contracts of the monitored value, of spectators, of whole files and of what JSON can hold"
import json,math
import numpy as np,pytest,torch
from hypothesis import given,strategies as st
from fastai.basics import *
from fastai.callback.all import *
from fastai.test_utils import synth_learner
from fastai_anneal.core.callbacks import *
from fastai_anneal.core.files import *
from fastai_anneal.core.monitor import *

@pytest.mark.parametrize('monitor,mode', [('valid_loss','min'), ('error_rate','min'), ('rmse','min'), ('perplexity','min'), ('mae','min'),
                                          ('accuracy','max'), ('f1_score','max'), ('lossless_share','max'), ('roc_auc','max')])
def test_mode_by_name(monitor, mode):
    assert monitor_mode(monitor)==mode
    assert monitor_mode(monitor, 'max')=='max'

def test_mode_that_is_none():
    with pytest.raises(ValueError, match="mode='lower': must be 'min', 'max' or None"): monitor_mode('valid_loss', 'lower')

@pytest.mark.parametrize('train,valid', [(False,True), (True,True), (True,False)])
def test_names_before_the_fit_are_those_of_the_recorder(train, valid):
    learn = synth_learner(metrics=[mae,mse])
    learn.recorder.train_metrics,learn.recorder.valid_metrics = train,valid
    names = monitor_names(learn)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    if not (train and not valid): assert names==list(learn.recorder.metric_names[1:-1])

def test_monitor_of_a_cancelled_validation_is_none():
    class NoValidation(Callback):
        def before_validate(self): raise CancelValidException
    learn = synth_learner(metrics=mae, cbs=NoValidation())
    assert monitor_value(learn, 'mae') is None
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert monitor_value(learn, 'mae') is None or math.isnan(monitor_value(learn, 'mae'))

def test_muted_callbacks_hear_nothing_and_come_back():
    class Participant(Callback):
        heard = 0
        def before_step(self): self.heard += 1
    class Spectator(Participant): spectator = True
    watcher,actor = Spectator(),Participant()
    learn = synth_learner(cbs=[watcher,actor])
    with muted(learn): learn('before_step')
    assert (watcher.heard, actor.heard)==(0, 1)
    learn('before_step')
    assert (watcher.heard, actor.heard)==(1, 2)

def test_removal_is_told_once_however_the_fit_ends():
    told = []
    class Leaving(RemovableCallback):
        def __init__(self, error=None): self.error = error
        def on_remove(self): told.append(self.learn)
        def after_batch(self):
            if self.error: raise self.error
    learn = synth_learner()
    with learn.no_bar(), learn.no_logging():
        for error in (None, KeyboardInterrupt(), CancelFitException()):
            try: learn.fit(1, cbs=Leaving(error))
            except KeyboardInterrupt: pass
    assert told==[learn]*3

@pytest.mark.parametrize('error', [OSError('disk full'), KeyboardInterrupt()])
@pytest.mark.parametrize('mode,old,new', [('w','old','new'), ('wb',b'old',b'new')])
def test_a_file_is_the_old_one_or_the_new_one(tmp_path, mode, old, new, error):
    path = tmp_path/'folder'/'file'
    with atomic_write(path, mode) as f: f.write(old)
    with pytest.raises(type(error)):
        with atomic_write(path, mode) as f:
            f.write(new[:1])
            raise error
    read = path.read_bytes if mode=='wb' else path.read_text
    assert read()==old and [o.name for o in path.parent.iterdir()]==['file']
    with atomic_write(path, mode) as f: f.write(new)
    assert read()==new

values = st.recursive(st.none()|st.booleans()|st.integers()|st.floats()|st.text(), lambda o: st.lists(o)|st.tuples(o)|st.dictionaries(st.text(), o), max_leaves=10)
@given(values)
def test_plain_is_json_and_stays_as_it_is(value):
    res = plain(value)
    assert json.loads(json.dumps(res, allow_nan=False))==res==plain(res)

def test_plain_of_what_is_not_data():
    assert plain(np.int64(3))==3 and plain(torch.tensor([1.,math.nan]))==[1.,None]
    assert plain(partial(max, 1, key=abs))==dict(partial='builtins.max', args=[1], key='builtins.abs')
    assert '0x' not in plain(object())
