"The command: options, what it writes, Ctrl-C"
import json,os,re,signal,subprocess,sys,time,pytest
from pathlib import Path
from fastai_anneal import cli

pytest.importorskip('mlxtend')
keys = 'test_accuracy valid_loss lr seconds seed device versions history'.split()

def run(*args, **kw):
    return subprocess.run([sys.executable, '-c', 'from fastai_anneal.cli import main; raise SystemExit(main())', *args],
                          capture_output=True, text=True, env={**os.environ, 'PYTHONPATH': str(Path(__file__).parent.parent)}, **kw)

def test_help_and_version_do_not_import_torch():
    code = "import sys; from fastai_anneal.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit as e: print('STATUS', e.code, 'torch' in sys.modules)"
    for a in (['--help'], ['mnist','--help'], ['--version'], ['mnist','--epochs','x']):
        out = subprocess.run([sys.executable, '-c', code, *a], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
        assert re.search(r'STATUS [02] False', out.stdout), out.stdout+out.stderr

@pytest.mark.parametrize('args', [[], ['mnis'], ['mnist','--epochs','0'], ['mnist','--epochs','1.5'], ['mnist','--lr','0'], ['mnist','--lr','nan'],
    ['mnist','--lr','inf'], ['mnist','--model','rnn'], ['mnist','--device','tpu9'], ['mnist','--device','cuda:99'], ['mnist','--seed','-1'],
    ['mnist','--seed',str(2**32)], ['mnist','--out','/dev/null/x'], ['mnist','--nope'], ['mnist','--data','/no/such/folder']])
def test_bad_options(args, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try: status = cli.main(args)
    except SystemExit as e: status = e.code
    err = capsys.readouterr().err
    assert status==2 and err.count('\n')==1 and err.startswith('fastai-anneal') and 'error: ' in err, err

def test_a_run(tmp_path):
    out = run('mnist', '--epochs', '1', '--out', 'o', cwd=tmp_path)
    assert out.returncode==0, out.stderr
    assert 'Warning' not in out.stderr, out.stderr
    res = json.loads((tmp_path/'o/results.json').read_text())
    assert set(keys)<=set(res) and len(res['history'])==1 and res['annealing'] and not res['interrupted'] and res['seed']==42
    assert .5<res['test_accuracy']<=1 and res['device']=='cpu'
    page = (tmp_path/'o/report.html').read_text()
    assert page.count('data:image/png;base64,')==5 and 'http' not in re.sub(r'base64,[^"]*', '', page)
    assert sorted(p.name for p in (tmp_path/'o').iterdir())==['model.pkl','report.html','results.json']
    assert [p.name for p in tmp_path.iterdir()]==['o']
    from fastai.learner import load_learner
    import torch
    learn = load_learner(tmp_path/'o/model.pkl')
    assert len(learn.predict(torch.zeros(28,28, dtype=torch.uint8))[2])==10

def test_no_anneal_and_lr_and_repeatable(tmp_path):
    args = ['--epochs','1','--no-anneal','--lr','.01','--model','mlp','--seed','3']
    a = [cli.train_mnist(epochs=1, lr=.01, anneal=False, seed=3, out=tmp_path/d) for d in 'ab']
    assert a[0]['lr']==.01 and a[0]['annealing']==[]
    assert {k: a[0][k] for k in ('test_accuracy','valid_loss')}=={k: a[1][k] for k in ('test_accuracy','valid_loss')}
    assert (tmp_path/'a/report.html').read_text().count('base64')==3

def test_interrupt_keeps_what_there_is(tmp_path):
    p = subprocess.Popen([sys.executable, '-u', '-c', 'from fastai_anneal.cli import main; raise SystemExit(main())', 'mnist', '--epochs', '500', '--out', 'o'],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(Path(__file__).parent.parent)})
    for line in p.stdout:
        if 'epochs' in line: break
    time.sleep(6)
    p.send_signal(signal.SIGINT)
    rest = p.communicate(timeout=120)[0]
    assert p.returncode==130, rest
    res = json.loads((tmp_path/'o/results.json').read_text())
    assert res['interrupted'] and res['test_accuracy']>.1 and len(res['history'])<500
    assert (tmp_path/'o/model.pkl').exists() and 'interrupted' in (tmp_path/'o/report.html').read_text()

def test_folder_data_and_corrupt_data(tmp_path, capsys):
    bad = tmp_path/'MNIST'/'raw'; bad.mkdir(parents=True)
    (bad/'train-images-idx3-ubyte').write_bytes(b'not an idx file')
    assert cli.main(['mnist','--data',str(tmp_path),'--out',str(tmp_path/'o')])==2
    assert str(tmp_path) in capsys.readouterr().err

# ---- search

@pytest.mark.parametrize('args', [['search','--trials','0'], ['search','--model','rnn'], ['search','--workers','x'], ['search','--data','/no/such/folder'],
    ['search','--workers','2','--storage','s.jsonl'], ['search','--storage','s.pkl','--trials','1'], ['search','--out','/dev/null/x'], ['search','--epochs','-1']])
def test_bad_options_of_search(args, capsys, tmp_path, monkeypatch): test_bad_options(args, capsys, tmp_path, monkeypatch)

def test_a_search_interrupted_and_continued(tmp_path):
    args = ['search', '--trials', '400', '--epochs', '1', '--final', '1', '--storage', 's.jsonl', '--out', 'o', '--model', 'linear']
    p = subprocess.Popen([sys.executable, '-u', '-W', 'ignore', '-c', 'from fastai_anneal.cli import main; raise SystemExit(main())', *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True, cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(Path(__file__).parent.parent)})
    f = tmp_path/'s.jsonl'
    for _ in range(600):
        time.sleep(.1)
        if f.exists() and f.read_text().count('"tell"')>=4: break
    p.send_signal(signal.SIGINT)
    rest = p.communicate(timeout=120)[0]
    assert p.returncode==130, rest
    res = json.loads((tmp_path/'o/results.json').read_text())
    n = len(res['trials'])
    assert res['interrupted'] and 4<=n<400 and 'interrupted' in (tmp_path/'o/report.html').read_text()
    r = cli.search_mnist(model='linear', trials=n+2, epochs=1, final=1, storage=f, out=tmp_path/'o')
    assert len(r['trials'])==n+2 and [t['lr'] for t in r['trials'][:n]]==[t['lr'] for t in res['trials']] and not r['interrupted']
    page = (tmp_path/'o/report.html').read_text()
    assert page.count('data:image/png;base64,')==6 and 'http' not in re.sub(r'base64,[^"]*', '', page)
    assert sorted(o.name for o in (tmp_path/'o').iterdir())==['model.pkl','report.html','results.json']
    from fastai.learner import load_learner
    import torch
    assert len(load_learner(tmp_path/'o/model.pkl').predict(torch.zeros(28,28, dtype=torch.uint8))[2])==10

def test_any_model(tmp_path):
    r = cli.search_mnist(model='any', trials=4, epochs=1, final=1, out=tmp_path/'o')
    assert {t['model'] for t in r['trials']}=={'linear','mlp','cnn'} and r['best_hps']['model'] in ('linear','mlp','cnn') and .3<r['test_accuracy']<=1
    assert 'a network of choice' in (tmp_path/'o/report.html').read_text()

def test_two_workers(tmp_path, monkeypatch):
    pytest.importorskip('optuna')
    monkeypatch.chdir(tmp_path); monkeypatch.setenv('PYTHONPATH', str(Path(__file__).parent.parent))
    assert cli.main(['search', '--trials', '6', '--workers', '2', '--model', 'linear', '--epochs', '1', '--final', '1', '--out', 'o'])==0
    res = json.loads((tmp_path/'o/results.json').read_text())
    assert len(res['trials'])==6 and (tmp_path/'o/search.log').exists() and all(t['state'] in ('complete','stopped') for t in res['trials'])
    assert len({t['lr'] for t in res['trials']})>=5
