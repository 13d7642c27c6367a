"A process of a distributed training that fails, is interrupted or killed: the others end within seconds, and say why"
import os,signal,time
import pytest
from fastai.basics import *
from helpers import *
from fastai_anneal.all import *
from fastai_anneal.core import together

def hit(rank, how, path):
    "What happens to the process 1 in the middle of a training"
    def do(learn):
        if rank!=1: return
        if how in ('SIGINT','SIGKILL'): os.kill(os.getpid(), getattr(signal, how))
        raise ValueError('boom')
    learn = small_learner(partial(blobs, n=200, bs=8), path=path)
    if how=='judging': # the first batches without training are the judge's
        cb = On('after_pred', do, nth=2)
        cb.run_train = False
        return learn,cb
    return learn,On('after_epoch' if how=='epoch' else 'before_batch', do, nth=1 if how=='epoch' else 20)

FITS = dict(anneal=lambda learn: learn.fit(3, 1e-3, cbs=SimAnnealHP({'lr': LogFloat(1e-4, 1.)}, seed=0)),
            checkpoint=lambda learn: learn.fit(3, 1e-3, cbs=[CosineAnneal(), Checkpoint(every='4it')]),
            find=lambda learn: learn.lr_find(show_plot=False))

def work(rank, path, what, how):
    "Saves what went wrong by itself, as no process comes to its regular end"
    if how=='stays': together._GRACE = .5
    learn,cb = hit(rank, how, path)
    try:
        with distributed(learn):
            learn.add_cb(cb)
            try: FITS[what](learn)
            finally: restored = not any(hasattr(dl, 'world_size') for dl in learn.dls.loaders) and not hasattr(learn.model, 'module')
    except BaseException as e:
        torch.save((type(e).__name__, str(e), restored), path/f'rank{rank}.pt')
        if how=='stays' and rank==1: time.sleep(4)
        raise

CASES = [('anneal','error'), ('anneal','SIGKILL'), ('anneal','judging'), ('checkpoint','epoch'), ('checkpoint','SIGINT'), ('find','SIGKILL'),
         ('find','SIGINT'), ('checkpoint','stays')]
@pytest.mark.parametrize('what,how', CASES)
def test_all_end(what, how, tmp_path, capfd):
    ends = in_processes(3, work, tmp_path, tmp_path, what, how, timeout=20)
    assert (ends[1] is None)==(how=='SIGKILL')
    if how!='SIGKILL': assert ends[1][0]==('KeyboardInterrupt' if how=='SIGINT' else 'ValueError')
    for kind,message,restored in [end for i,end in enumerate(ends) if i!=1 and end]:
        assert kind=='RuntimeError' and 'so this one stops' in message
        assert restored or what!='find'
    assert [bool(end) for end in ends[::2]]==[how!='stays']*2 # those that wait for one that lives on are ended from outside
    said = {'SIGKILL': 'ended or was killed', 'SIGINT': 'process 1 has failed, and so this one stops: KeyboardInterrupt'}
    assert said.get(how, 'process 1 has failed, and so this one stops: ValueError') in (str(ends[0]) if how!='stays' else capfd.readouterr().err)
