"The command: options, what it writes, Ctrl-C, workers"
import json,re,signal,subprocess,sys,time

import pytest
from fastai.basics import *
from fastai_anneal.cli import main
from helpers import *

pytest.importorskip('mlxtend')
KEYS = 'test_accuracy valid_loss lr seconds seed device versions history'.split()
COMMAND = [sys.executable, '-u', '-W', 'ignore', '-c', 'from fastai_anneal.cli import main; raise SystemExit(main())']

def started(cwd, *args):
    "The command in a process of its own"
    return subprocess.Popen([*COMMAND, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd,
                            env={**os.environ, 'PYTHONPATH': str(ROOT)})

def interrupted(process):
    "Ctrl-C; what it still says"
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=120)[0]
    assert process.returncode==130, rest
    return rest

def results(out): return json.loads((out/'results.json').read_text())
def page(out): return (out/'report.html').read_text()
def predicts(out): return len(load_learner(out/'model.pkl').predict(torch.zeros(28,28, dtype=torch.uint8))[2])

# ---- options

@pytest.mark.parametrize('args', [['--help'], ['mnist','--help'], ['search','--help'], ['--version'], ['mnist','--epochs','x']])
def test_help_and_errors_do_not_import_torch(args):
    code = ("import sys; from fastai_anneal.cli import main\n"
            "try: main(sys.argv[1:])\nexcept SystemExit as e: print('STATUS', e.code, 'torch' in sys.modules)")
    assert re.search(r'STATUS [02] False', fresh_python(code, *args).stdout)

@pytest.mark.parametrize('args', [[], ['mnis'], ['mnist','--epochs','0'], ['mnist','--epochs','1.5'], ['mnist','--lr','0'], ['mnist','--lr','nan'],
    ['mnist','--lr','inf'], ['mnist','--model','rnn'], ['mnist','--device','tpu9'], ['mnist','--device','cuda:99'], ['mnist','--seed','-1'],
    ['mnist','--seed',str(2**32)], ['mnist','--out','/dev/null/x'], ['mnist','--nope'], ['mnist','--data','/no/such/folder'],
    ['search','--trials','0'], ['search','--model','rnn'], ['search','--workers','x'], ['search','--data','/no/such/folder'],
    ['search','--storage','no/such/folder/s.log'], ['search','--storage','nosuchdb://x'], ['search','--epochs','-1']])
def test_bad_options(args, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try: status = main(args)
    except SystemExit as e: status = e.code
    err = capsys.readouterr().err
    assert status==2 and err.count('\n')==1 and err.startswith('fastai-anneal') and 'error: ' in err, err

def test_a_storage_that_is_something_else_is_left_as_it_is(tmp_path, capsys):
    file = tmp_path/'notes.txt'
    file.write_text('my notes\n')
    assert main(['search','--storage',str(file),'--out',str(tmp_path/'o')])==2
    assert 'notes.txt' in capsys.readouterr().err and file.read_text()=='my notes\n'

def test_corrupt_data(tmp_path, capsys):
    raw = tmp_path/'MNIST'/'raw'
    raw.mkdir(parents=True)
    (raw/'train-images-idx3-ubyte').write_bytes(b'not an idx file')
    assert main(['mnist','--data',str(tmp_path),'--out',str(tmp_path/'o')])==2
    assert str(tmp_path) in capsys.readouterr().err and not (tmp_path/'o').exists()

# ---- a training

def test_a_training(tmp_path):
    process = started(tmp_path, 'mnist', '--epochs', '1', '--out', 'o')
    said = process.communicate()[0]
    assert process.returncode==0 and 'Warning' not in said, said
    res,out = results(tmp_path/'o'),tmp_path/'o'
    assert set(KEYS)<=set(res) and len(res['history'])==1 and res['annealing'] and not res['interrupted'] and res['seed']==42
    assert .5<res['test_accuracy']<=1 and f"{res['test_accuracy']:.2%}" in said and f"{res['test_accuracy']:.2%}" in page(out)
    assert page(out).count('data:image/png;base64,')==4 and 'http' not in re.sub(r'base64,[^"]*', '', page(out))
    assert sorted(p.name for p in out.iterdir())==['model.pkl','report.html','results.json']
    assert [p.name for p in tmp_path.iterdir()]==['o']
    assert predicts(out)==10

def test_options_are_used_and_a_seed_repeats(tmp_path):
    def run(name):
        assert main(['mnist','--epochs','1','--no-anneal','--lr','.01','--seed','3','--out',str(tmp_path/name)])==0
        return results(tmp_path/name)
    a,b = run('a'),run('b')
    assert a['lr']==.01 and a['annealing']==[] and a['seed']==3
    assert [a[k] for k in ('test_accuracy','valid_loss')]==[b[k] for k in ('test_accuracy','valid_loss')]
    assert page(tmp_path/'a').count('base64')==2

def test_ctrl_c_keeps_what_there_is(tmp_path):
    process = started(tmp_path, 'mnist', '--epochs', '500', '--no-anneal', '--lr', '.01', '--out', 'o')
    while not process.stdout.readline().startswith('2 '): assert process.poll() is None # two epochs are done
    assert 'interrupted' in interrupted(process)
    res = results(tmp_path/'o')
    assert res['interrupted'] and res['test_accuracy']>.1 and 3<=len(res['history'])<500
    assert predicts(tmp_path/'o')==10 and 'interrupted' in page(tmp_path/'o')

# ---- a search

SHORT = ['--epochs', '1', '--final', '1', '--model', 'linear']

def test_a_search_interrupted_and_continued(tmp_path):
    pytest.importorskip('optuna')
    args = ['search', '--storage', str(tmp_path/'s.log'), '--out', str(tmp_path/'o'), *SHORT]
    process = started(tmp_path, *args, '--trials', '400')
    n_done = lambda: (tmp_path/'s.log').read_text().count('"state": 1')+(tmp_path/'s.log').read_text().count('"state":1')
    while not ((tmp_path/'s.log').exists() and n_done()>=4):
        assert process.poll() is None
        time.sleep(.1)
    interrupted(process)
    res = results(tmp_path/'o')
    n = len(res['trials'])
    assert res['interrupted'] and 4<=n<400 and 'interrupted' in page(tmp_path/'o')
    assert main([*args, '--trials', str(n+2)])==0
    more = results(tmp_path/'o')
    assert len(more['trials'])==n+2 and not more['interrupted']
    assert [t['lr'] for t in more['trials'][:n]]==[t['lr'] for t in res['trials']]
    assert page(tmp_path/'o').count('data:image/png;base64,')==6
    assert sorted(p.name for p in (tmp_path/'o').iterdir())==['model.pkl','report.html','results.json']
    assert predicts(tmp_path/'o')==10

def test_any_model(tmp_path):
    pytest.importorskip('optuna')
    assert main(['search','--model','any','--trials','4','--epochs','1','--final','1','--out',str(tmp_path)])==0
    res = results(tmp_path)
    assert {t['model'] for t in res['trials']}=={'linear','mlp','cnn'} and res['best_hps']['model'] in ('linear','mlp','cnn')
    assert .3<res['test_accuracy']<=1 and 'a network of choice' in page(tmp_path)

def test_two_workers(tmp_path, monkeypatch):
    pytest.importorskip('optuna')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    assert main(['search', '--trials', '6', '--workers', '2', '--out', 'o', *SHORT])==0
    trials = results(tmp_path/'o')['trials']
    assert len(trials)==6 and (tmp_path/'o/search.log').exists() and all(t['state'] in ('complete','stopped') for t in trials)
    new = [(t['lr'],t['wd']) for t in trials if t['repeats'] is None]
    assert len(new)>=4 and len(set(new))==len(new)
