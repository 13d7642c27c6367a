"The books are not the experiment: searches whose storage breaks, whose workers are killed, whose server is restarted"
import itertools,os,random,signal,socket,time
import pytest
from .searches import *
from fastai_anneal.search.net import Net
from fastai_anneal.search.record import SearchError
from fastai_anneal.search.search import read_search

optuna = pytest.importorskip('optuna')
from optuna.exceptions import StorageInternalError
from optuna.storages import InMemoryStorage,RDBStorage
from optuna.trial import TrialState
from fastai_anneal.search import alive
from fastai_anneal.search.storage import open_storage
from .postgres import Postgres

def make_net(net): return Learner(dls, net.module(), loss_func=CrossEntropyLossFlat())
NETWORKS = dict(make=make_net, spec={'net': Net((6,), 2, widths=(2,32)), 'lr': LogFloat(1e-3,.3)})
SPECS = dict(numbers={}, networks=NETWORKS)

@pytest.fixture(scope='module')
def postgres():
    server = Postgres()
    yield server
    server.close()

@pytest.fixture(params=['postgres','sqlite','journal'])
def storage(request, tmp_path):
    if request.param=='sqlite': return f'sqlite:///{tmp_path}/search.db'
    if request.param=='journal': return str(tmp_path/'search.log')
    return request.getfixturevalue('postgres').url

def study_of(storage, name='anneal_search'):
    "The study as Optuna reads it, None while there is none"
    try: return optuna.load_study(study_name=name, storage=open_storage(storage))
    except (KeyError,SearchError): return None

def n_complete(study): return sum(t.state==TrialState.COMPLETE for t in study.get_trials(deepcopy=False))

def wait_for(condition, seconds=120):
    "Wait until `condition()` is true, or fail"
    until = time.monotonic()+seconds
    while not condition():
        assert time.monotonic()<until, 'waited in vain'
        time.sleep(.02)

def assert_all_done(result, storage, n, name):
    "`n` of `n`: none lost, none twice"
    assert [(t.number, t.state, t.error) for t in result.trials]==[(i, 'complete', '') for i in range(n)]
    assert len({t.seed for t in result.trials})==n
    states = [t.state for t in study_of(storage, name).get_trials(deepcopy=False)[:n]]
    assert states==[TrialState.COMPLETE]*n

# ---- a storage that fails

def failing(url, share, seed, n_failures):
    "A database that loses some of the questions, and some of the answers"
    rng,left = random.Random(seed),itertools.count(n_failures, -1)
    class Failing(RDBStorage):
        def __getattribute__(self, name):
            found = object.__getattribute__(self, name)
            if not name.lstrip('_').startswith(('set_trial','create_new_trial','get_trials')): return found
            def shaky(*args, **kwargs):
                fails = rng.random()
                if fails<share and next(left)>0: raise StorageInternalError('server closed the connection unexpectedly')
                result = found(*args, **kwargs)
                if fails>1-share and next(left)>0: raise ConnectionResetError('connection reset by peer')
                return result
            return shaky
    return Failing(url)

@pytest.mark.parametrize('seed', range(3))
def test_lost_questions_and_answers_are_no_results(seed, tmp_path, monkeypatch):
    monkeypatch.setattr('fastai_anneal.search.patient._FIRST_WAIT', .001)
    monkeypatch.setattr('fastai_anneal.search.study._ORPHAN', .05)
    trained = []
    storage = failing(f'sqlite:///{tmp_path}/search.db', .1, seed, 40)
    result = search(cbs=Each('before_fit', lambda learn: trained.append(1)), storage=storage, n_trials=10, early=0)
    assert [(t.number, t.state, t.error) for t in result.trials]==[(i, 'complete', '') for i in range(10)]
    assert len({t.seed for t in result.trials})==len(trained)==10

def test_a_storage_that_never_comes_back_ends_the_search():
    class Gone(InMemoryStorage):
        def set_trial_intermediate_value(self, *args): raise StorageInternalError('no route to host')
    with pytest.raises(SearchError, match='the storage fails for .*no route to host'): search(storage=Gone(), storage_timeout=.2)

def test_what_a_training_raises_is_its_own(tmp_path):
    def make(width=8, p=0.):
        if width>8: raise StorageInternalError('the database of the features is down')
        return mlp(width, p)
    result = search(make, n_trials=8, early=0, storage_timeout=.1)
    failed = [t for t in result.trials if t.state=='failed']
    assert failed and all('features' in t.error for t in failed) and len(failed)<8

@pytest.mark.parametrize('url,advice', [
    ('sqlite:////no/such/folder/x.db', 'folder to write to'), ('mysql+nothing://host/db', 'URL like'),
    ('postgresql+pg8000://host/db', 'install the driver'), ('a b://', 'URL like')])
def test_what_cannot_be_opened_is_said_at_once(url, advice):
    began = time.monotonic()
    with pytest.raises(SearchError, match=f'cannot be opened.*{advice}'): open_storage(url)
    assert time.monotonic()-began<60 # and not after all the patience

def test_a_study_of_ones_own():
    study = optuna.create_study(study_name='mine')
    result = search(storage=study, n_trials=5, early=0)
    assert len(result.trials)==len(study.trials)==5
    assert facts(search(storage=study, n_trials=5, early=0))==facts(result)

# ---- workers that are killed

def worker(storage, n, name, spec, pause=.02):
    def pause_a_little(learn): time.sleep(pause)
    search(storage=storage, n_trials=n, early=0, study_name=name, cbs=Each('after_epoch', pause_a_little), **SPECS[spec])

def kill_in_a_trial(process, storage, name):
    "Kill the worker in the middle of a training"
    def trains():
        study = study_of(storage, name)
        if study is None or n_complete(study)<3: return False
        trials = study.get_trials(deepcopy=False)
        return any(t.state==TrialState.RUNNING and 'seed' in t.user_attrs and t.user_attrs['who'][1]==process.pid for t in trials)
    wait_for(trains)
    os.kill(process.pid, signal.SIGKILL)

@pytest.mark.parametrize('spec', SPECS)
def test_four_workers_one_killed(storage, spec, monkeypatch):
    monkeypatch.setattr('fastai_anneal.search.storage._LOCK_GRACE', 8) # should the killed one have held the journal's lock
    n,name = 30 if spec=='numbers' else 16,f'killed {spec}'
    workers = [forked(worker, storage, n, name, spec, .5 if i==1 else .02) for i in range(4)] # the second is seen in a trial
    kill_in_a_trial(workers[1], storage, name)
    if storage.startswith('postgresql') and spec=='numbers':
        server = Postgres.running
        server.restart()
    for process in workers: process.join()
    assert [process.exitcode for process in workers]==[0,-9,0,0]
    assert_all_done(read_search(storage, name), storage, n, name) # nobody has started anything again

@pytest.mark.parametrize('kind', ['heartbeat','age'])
def test_a_machine_that_never_comes_back(kind, tmp_path, monkeypatch):
    monkeypatch.setattr('fastai_anneal.search.storage.HEARTBEAT', 1)
    monkeypatch.setattr('fastai_anneal.search.storage.GRACE', 2)
    monkeypatch.setattr(alive, '_AGE_LEAST', 2.)
    monkeypatch.setattr('fastai_anneal.search.storage._LOCK_GRACE', 3)
    storage = f'sqlite:///{tmp_path}/search.db' if kind=='heartbeat' else str(tmp_path/'search.log')
    def elsewhere():
        socket.gethostname = lambda: 'another-machine'
        worker(storage, 6, 'dead', 'numbers', pause=.2)
    process = forked(elsewhere)
    kill_in_a_trial(process, storage, 'dead')
    process.join()
    assert study_of(storage, 'dead').get_trials(states=[TrialState.RUNNING])
    assert_all_done(search(storage=storage, n_trials=6, early=0, study_name='dead'), storage, 6, 'dead')

def test_a_slow_machine_is_not_taken_for_a_dead_one(tmp_path, monkeypatch):
    monkeypatch.setattr('fastai_anneal.search.storage.HEARTBEAT', 1)
    monkeypatch.setattr('fastai_anneal.search.storage.GRACE', 3)
    storage = f'sqlite:///{tmp_path}/search.db'
    def slow():
        socket.gethostname = lambda: 'another-machine'
        worker(storage, 3, 'slow', 'numbers', pause=4.)
    process = forked(slow)
    wait_for(lambda: (study := study_of(storage, 'slow')) is not None and any('seed' in t.user_attrs for t in study.trials))
    seen = []
    result = search(storage=storage, n_trials=3, early=0, study_name='slow', cbs=Each('before_fit', lambda learn: seen.append(1)))
    process.join()
    assert len(seen)==2 and [t.state for t in result.trials]==['complete']*3

def test_the_sampler_by_itself_forgets_who_never_comes_back():
    from fastai_anneal.search.sampler import SimAnnealSampler
    study = optuna.create_study(sampler=SimAnnealSampler(seed=0, n_chains=2))
    def objective(trial): return trial.suggest_float('x', 0, 1)
    study.optimize(objective, n_trials=20)
    study.ask()
    study.optimize(objective, n_trials=60)
    chains = [t.system_attrs['anneal']['chain'] for t in study.trials[40:]]
    assert abs(chains.count(0)-chains.count(1))<=10

def test_a_lost_point_of_a_small_space_is_tried_again():
    from fastai_anneal.search.sampler import SimAnnealSampler
    def objective(trial): return (trial.suggest_int('k', 0, 4)-3)**2+(trial.suggest_categorical('c', ['a','b'])=='a')
    for seed in range(3):
        study = optuna.create_study(sampler=SimAnnealSampler(seed=seed))
        study.enqueue_trial({'k': 3, 'c': 'b'})
        objective(study.ask()) # and the process is killed
        study.optimize(objective, n_trials=60)
        assert study.best_value==0
