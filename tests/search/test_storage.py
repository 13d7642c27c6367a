"Searches that are kept: continued after any kill, shared by processes, read"
import json,os,random,signal,time
import numpy as np,pytest,torch
from .searches import *
from fastai_anneal.search.net import Net
from fastai_anneal.search.record import SearchError
from fastai_anneal.search.search import read_search
from fastai_anneal.search.storage import open_storage

optuna = pytest.importorskip('optuna')
KINDS = ['file','sqlite']
def where(kind, folder): return f'sqlite:///{folder}/search.db' if kind=='sqlite' else folder/'search.log'
def study_in(storage): return optuna.load_study(study_name='anneal_search', storage=open_storage(storage))

def make_net(net): return Learner(dls, net.module(), loss_func=CrossEntropyLossFlat())
networks = dict(make=make_net, spec={'net': Net((6,), 2, widths=(2,32)), 'lr': LogFloat(1e-3,.3)})

@pytest.mark.parametrize('kwargs', [{}, networks, {**networks, 'warm': True}], ids=['numbers','networks','warm'])
def test_killed_at_any_moment(kwargs, tmp_path):
    file,kwargs = tmp_path/'search.log',dict(n_trials=12, repeat=.2, **kwargs)
    whole = facts(search(**kwargs))
    rng,n_kills,size = random.Random(0),0,0
    for _ in range(30):
        process = forked(lambda: search(storage=file, **kwargs))
        size += rng.randint(1500, 7000) # bytes of the file at which to kill: whatever the speed of the machine
        while process.exitcode is None and (file.stat().st_size if file.exists() else -1)<size: time.sleep(.002)
        if process.exitcode is not None: break
        time.sleep(rng.uniform(0, .03))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if (lock := tmp_path/'search.log.lock').is_symlink(): lock.unlink() # Optuna waits for its owner for a while
        n_kills += 1
    assert n_kills>=3 and facts(search(storage=file, **kwargs))==whole
    size = file.stat().st_size
    assert facts(search(storage=file, **kwargs))==whole and file.stat().st_size-size<2000 # nothing is trained again
    assert facts(read_search(file))==whole

def test_torn_anywhere(tmp_path):
    a,b = tmp_path/'a.log',tmp_path/'b.log'
    whole = facts(search(storage=a, n_trials=4))
    data = a.read_bytes()
    for cut in (0, 200, len(data)//2, len(data)-1, data.index(b'\n')):
        b.write_bytes(data[:cut])
        hand_over(b)
        assert facts(search(storage=b, n_trials=4))==whole, cut
    b.write_bytes(data[:300]+b'\0'*50) # what a power cut leaves
    assert facts(search(storage=b, n_trials=4))==whole

def hand_over(file):
    "Let the running trial of the journal `file` be one of a process that is dead"
    file.write_text(file.read_text().replace(f'",{os.getpid()},', '",999999999,'))

def test_damaged_and_foreign_files_are_left_alone(tmp_path):
    file = tmp_path/'search.log'
    search(storage=file, n_trials=3)
    lines = file.read_bytes().split(b'\n')
    lines[2] = lines[2][:20]
    file.write_bytes(b'\n'.join(lines))
    for content,match in ((file.read_bytes(),'line 3'), (b'Dear diary','something else'), (b'{"a": 1}\n','something else'), (b'\x80\x04\x95','something else')):
        file.write_bytes(content)
        with pytest.raises(SearchError, match=match): search(storage=file, n_trials=3)
        assert file.read_bytes()==content

@pytest.mark.parametrize('storage', ['/no/such/folder/search.log','sqlite:////no/such/folder/x.db'])
def test_where_nothing_can_be_kept(storage):
    with pytest.raises(SearchError, match='cannot be opened'): search(storage=storage)

class Odd:
    "Neither JSON nor pickle"
    def __init__(self, width): self.width,self.f = width,lambda: width
    def __reduce__(self): raise TypeError('no')

@pytest.mark.parametrize('kind', KINDS)
def test_spaces_of_all_kinds(kind, tmp_path):
    acts = [nn.ReLU, partial(nn.LeakyReLU, .2), Odd(3), lambda: nn.GELU()]
    spec = {**space, 'act': Categorical(acts), 'dt': Categorical(torch.float32, torch.float16), 'b': Bool(), 'sub': {'x': LinFloat(0,1)},
            'kind': Categorical({'a': {}, 'c': {'z': LogInt(1,8)}}), 'v': Vector(2), 'fix': 3}
    seen = []
    def make(width, p, act, dt, b, sub, kind, v, fix, z=None):
        assert any(act is o for o in acts) and v.shape==(2,) and fix==3 and (kind=='c')==(z is not None)
        seen.append((b, sub['x']))
        return mlp(width, p)
    storage = where(kind, tmp_path)
    part = search(make, spec, storage=storage, n_trials=6)
    n = len(seen)
    more = search(make, spec, storage=storage, n_trials=9)
    assert len(more.trials)==9 and len(seen)==n+3 and facts(more)[:6]==facts(part)
    for result in (more, read_search(storage)):
        json.loads(result.to_json())
        result.plot()
        assert facts(result)==facts(more)
    assert 'torch.nn.modules.activation.ReLU' in more.to_json() and ' at 0x' not in more.to_json()
    with quiet(more.best_learner(retrain=True)) as learn: assert learn.validate()[0]==pytest.approx(more.best_trial.value, abs=1e-6)
    trials = study_in(storage).trials
    assert len(trials)==9 and all('anneal' in t.system_attrs for t in trials) and trials[0].intermediate_values

@pytest.mark.parametrize('kind', KINDS)
def test_other_arguments_and_more_trials(kind, tmp_path):
    storage = where(kind, tmp_path)
    res = search(storage=storage, n_trials=6)
    for kwargs in (dict(seed=1), dict(n_epoch=3), dict(monitor='accuracy'), dict(spec={**space, 'lr': LogFloat(1e-3,2)}), dict(early=.1), dict(annealer=dict(width=(.3,.02)))):
        with pytest.raises(SearchError, match='give the same arguments, or another storage'): search(storage=storage, n_trials=6, **kwargs)
    assert facts(search(storage=storage, n_trials=6, seed=None))==facts(res)
    assert facts(search(storage=storage, n_trials=4))==facts(res)
    more = search(storage=storage, n_trials=9)
    assert facts(more)[:6]==facts(res) and len(more.trials)==9
    assert len(search(storage=storage, n_trials=9, study_name='another').trials)==9

def test_a_seed_of_its_own_is_kept(tmp_path):
    a = search(storage=tmp_path/'search.log', n_trials=3, seed=None)
    assert facts(search(storage=tmp_path/'search.log', n_trials=3, seed=None))==facts(a)
    assert facts(search(n_trials=3, seed=a.settings['seed']))==facts(a)

def test_start_and_a_study_that_is_not_ours(tmp_path):
    file = tmp_path/'search.log'
    for n in (1,3): res = search(storage=file, n_trials=n, start={'lr': .1})
    assert res.trials[0].hps['lr']==.1 and len(res.trials)==3
    optuna.create_study(study_name='mine', storage=open_storage(file)).ask()
    with pytest.raises(SearchError, match='not of `anneal_search`'): search(storage=file, study_name='mine')
    with pytest.raises(SearchError, match='not of `anneal_search`'): read_search(file, 'mine')

def test_what_cannot_be_read(tmp_path):
    with pytest.raises(SearchError, match='there is no file'): read_search(tmp_path/'nothing.log')
    search(storage=tmp_path/'search.log', n_trials=1)
    with pytest.raises(SearchError, match="no study 'another'"): read_search(tmp_path/'search.log', 'another')
    with pytest.raises(SearchError, match='does not know how to make a learner'): read_search(tmp_path/'search.log').best_learner()

def test_a_pruner_of_optuna_ends_trainings(tmp_path):
    res = search(storage=where('sqlite', tmp_path), monitor='accuracy', n_trials=16, n_epoch=3, early=0, pruner=optuna.pruners.MedianPruner(n_startup_trials=4))
    assert any(t.state=='stopped' for t in res.trials) and not any(t.accepted for t in res.trials if t.state=='stopped')

def test_warm_needs_a_folder_that_all_see(tmp_path):
    with pytest.raises(SearchError, match="warm='folder'"): search(storage='postgresql://host/db', warm=True)
    kwargs = dict(storage=tmp_path/'search.log', n_trials=4, early=0, spec={'lr': LogFloat(1e-2,1.1e-2), 'width': 8}, make=lambda width: mlp(width))
    search(warm=tmp_path/'weights', callback=after(3), **kwargs)
    assert list((tmp_path/'weights').glob('*.pth'))
    for file in (tmp_path/'weights').glob('*.pth'): file.unlink()
    with pytest.warns(UserWarning, match='there are no weights of trial'): search(warm=tmp_path/'weights', **kwargs)

def test_a_state_says_what_it_is():
    class Mute:
        def propose(self, rng, width): return self
    with pytest.raises(SearchError, match='`to_json` and `with_json`'): search(lambda s: mlp(), {'s': Mute()})
    with pytest.raises(SearchError, match='no surrogate'): search(**networks, annealer=dict(screen='gp'))

# ---- many processes

@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('kwargs', [{}, networks], ids=['numbers','networks'])
def test_four_workers_one_killed(kind, kwargs, tmp_path, monkeypatch):
    monkeypatch.setattr('fastai_anneal.search.storage._LOCK_GRACE', 8) # should the killed one have held the journal's lock
    storage,n = where(kind, tmp_path),14
    kwargs = dict(storage=storage, n_trials=n, early=0, **kwargs)
    def work(): search(cbs=Each('after_epoch', lambda learn: time.sleep(.02)), **kwargs)
    workers = [forked(work) for _ in range(4)]
    for _ in range(1500): # until it trains
        time.sleep(.01)
        try: trials = study_in(storage).get_trials(deepcopy=False)
        except Exception: continue
        mine = [t for t in trials if t.state.name=='RUNNING' and t.user_attrs.get('who', [0,0])[1]==workers[1].pid and 'seed' in t.user_attrs]
        if mine and sum(t.state.name=='COMPLETE' for t in trials)>=3: break
    os.kill(workers[1].pid, signal.SIGKILL)
    for process in workers: process.join()
    assert [process.exitcode for process in workers]==[0,-9,0,0]
    res = search(**kwargs)
    assert [(t.number, t.error) for t in res.trials if t.state!='complete']==[] and len(res.trials)==n
    assert len({t.seed for t in res.trials})==n # nothing was trained twice
    trials = study_in(storage).trials
    assert [t.number for t in trials[:n]]==list(range(n)) and len({t.user_attrs['who'][1] for t in trials[:n]})>=3

def test_a_storage_that_fails_for_a_while_fails_no_training(monkeypatch):
    from optuna.exceptions import StorageInternalError
    from optuna.storages import InMemoryStorage
    report,failures = InMemoryStorage.set_trial_intermediate_value,iter([True,False,True,True])
    def locked(self, *args):
        if next(failures, False): raise StorageInternalError('database is locked')
        return report(self, *args)
    monkeypatch.setattr(InMemoryStorage, 'set_trial_intermediate_value', locked)
    res = search(n_trials=3)
    assert [t.error for t in res.trials]==['']*3 and next(failures, None) is None

def test_a_trial_that_is_read_half_is_not_counted(tmp_path):
    storage = where('sqlite', tmp_path)
    search(storage=storage, n_trials=2)
    study = study_in(storage)
    trial = study.ask() # its parameters are not written down yet
    for name,value in dict(seed=1, hps=dict(lr=.1)).items(): trial.set_user_attr(name, value)
    assert len(read_search(storage).trials)==2 and len(search(storage=storage, n_trials=2).trials)==2
