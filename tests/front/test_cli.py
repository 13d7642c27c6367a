"The command: options, what it writes, Ctrl-C, workers"
import argparse,io,json,re,signal,subprocess,sys,time
from contextlib import redirect_stdout
from types import SimpleNamespace

import pytest
from fastai.basics import *
from fastprogress.fastprogress import ConsoleMasterBar,ConsoleProgressBar
from fastai_anneal import cli
from fastai_anneal.cli import main
from fastai_anneal.console import Console
from fastai_anneal.outcome import Run,finish,free_out,why_hopeless
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

def test_an_interrupt_that_became_an_error_keeps_the_search(monkeypatch):
    def searched(args, dls, timeout):
        if timeout==0: return SimpleNamespace(interrupted=False)
        try: raise KeyboardInterrupt
        except BaseException: raise FileNotFoundError('the lock')
    monkeypatch.setattr(cli, '_searched', searched)
    assert cli._found(options(storage='s.log'), None, None).interrupted
    with pytest.raises(FileNotFoundError, match='the lock'): cli._found(options(storage=None), None, None)

def test_any_model(tmp_path):
    pytest.importorskip('optuna')
    assert main(['search','--model','any','--trials','4','--epochs','1','--final','1','--out',str(tmp_path)])==0
    res = results(tmp_path)
    assert {t['model'] for t in res['trials']}=={'linear','mlp','cnn'} and res['best_hps']['model'] in ('linear','mlp','cnn')
    assert .3<res['test_accuracy']<=1 and 'a network of choice' in page(tmp_path)

def test_two_workers(tmp_path, monkeypatch, capfd):
    pytest.importorskip('optuna')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    assert main(['search', '--trials', '6', '--workers', '2', '--out', 'o', *SHORT])==0
    trials = results(tmp_path/'o')['trials']
    assert len(trials)==6 and (tmp_path/'o/search.log').exists() and all(t['state'] in ('complete','stopped') for t in trials)
    new = [(t['lr'],t['wd']) for t in trials if t['repeats'] is None]
    assert len(new)>=4 and len(set(new))==len(new)
    assert main(['search', '--trials', '6', '--workers', '2', '--out', 'o', *SHORT, '--seed', '1', '--force'])==2
    err = capfd.readouterr().err
    assert err.count('error')==1 and f"remove {Path('o/search.log')}" in err and 'seed=42, not 1' in err, err

# ---- kept when things break

def options(**kwargs): return argparse.Namespace(**{**dict(command='mnist', force=False, json=False, quiet=False, saved=[]), **kwargs})

@pytest.fixture
def a_run(tmp_path, monkeypatch):
    "A run that is trained and tested, as far as `finish` can see"
    dls = SimpleNamespace(c=10, device='cpu')
    learn = SimpleNamespace(dls=dls, recorder=SimpleNamespace(), export=lambda path: Path(path).write_bytes(b'a model'))
    out = io.StringIO()
    args = options(out=tmp_path/'o', data='sample', model='mlp', epochs=1, seed=42, console=Console(out), stdout=Console(out))
    run = Run(args, learn, False, 0., dict(lr=.01))
    tested = dict(test_accuracy=.9, valid_loss=.3, **run._told())
    monkeypatch.setattr(Run, 'test', lambda self: tested)
    monkeypatch.setattr(Run, 'page', lambda self, results: 'a page')
    run.said,run.tested = out,tested
    return run

def test_a_full_disk_costs_the_files_only(a_run, capsys):
    def export(path): raise OSError(28, 'No space left on device')
    a_run.learn.export = export
    assert finish(a_run)==1
    err = capsys.readouterr().err
    assert err.count('\n')==1 and 'model.pkl: No space left' in err and '90.00%' in a_run.said.getvalue()
    assert sorted(p.name for p in a_run.args.out.iterdir())==['report.html','results.json']

def test_results_are_told_before_they_are_written(a_run):
    def export(path): raise KeyboardInterrupt
    a_run.learn.export = export
    with pytest.raises(KeyboardInterrupt): finish(a_run)
    assert '90.00%' in a_run.said.getvalue()
    assert a_run.args.saved==[str(a_run.args.out/'results.json')]
    assert [p.name for p in a_run.args.out.iterdir()]==['results.json']

def test_a_second_ctrl_c_says_what_was_saved(capsys):
    def run(args):
        args.saved.append('o/results.json')
        raise KeyboardInterrupt
    assert cli._with_console(options(run=run))==130
    assert capsys.readouterr().err=='fastai-anneal: interrupted, saved: o/results.json\n'

def test_a_report_that_is_a_folder(tmp_path, capsys, a_run):
    (tmp_path/'o'/'report.html').mkdir(parents=True)
    with pytest.raises(SystemExit, match='2'): main(['mnist','--out',str(tmp_path/'o')])
    assert finish(a_run)==1 # made in the meantime
    assert capsys.readouterr().err.count('\n')==2

def test_what_goes_wrong_is_one_line(capsys, monkeypatch):
    def run(args): raise RuntimeError('CUDA error\nand more')
    assert cli._with_console(options(run=run))==1
    assert capsys.readouterr().err.startswith('fastai-anneal mnist: error: RuntimeError: CUDA error (')
    monkeypatch.setenv('FASTAI_ANNEAL_TRACEBACK', '1')
    with pytest.raises(RuntimeError, match='CUDA error'): cli._with_console(options(run=run))

@pytest.mark.parametrize('error', [BrokenPipeError(32, 'Broken pipe'), OSError(28, 'No space left on device')])
def test_output_that_ends_does_not_end_the_run(capsys, monkeypatch, error):
    class Ended(io.StringIO):
        def write(self, text): raise error
    done = []
    def run(args):
        for i in range(3): print('a line', flush=True)
        done.append(True)
        return 0
    monkeypatch.setattr(sys, 'stdout', Ended())
    assert cli._with_console(options(run=run))==1 and done
    assert error.strerror in capsys.readouterr().err

@pytest.mark.parametrize('garbage', [b'\x00\xff'*99, b'{"a": 1}\n', b'{"op_code": 99}\n', b'{"op_code": 0, "worker_id": "x"}\n'])
def test_garbage_in_a_storage(tmp_path, capsys, garbage):
    pytest.importorskip('optuna')
    (tmp_path/'s.log').write_bytes(garbage)
    assert main(['search','--storage',str(tmp_path/'s.log'),'--out',str(tmp_path/'o')])==2
    assert capsys.readouterr().err.count('\n')==1 and not (tmp_path/'o').exists()
    assert (tmp_path/'s.log').read_bytes()==garbage

@pytest.mark.parametrize('device', ['meta','hpu','vulkan'])
def test_a_device_that_cannot_be_used(device, capsys):
    with pytest.raises(SystemExit, match='2'): main(['mnist','--device',device])
    assert capsys.readouterr().err.count('\n')==1

@pytest.mark.parametrize('out', ['x'*300, 'a\0b', '/proc/x', '/dev/null/x'])
def test_a_folder_that_cannot_be_made(out, capsys):
    try: status = main(['mnist','--epochs','1','--out',out])
    except SystemExit as e: status = e.code
    assert status==2 and capsys.readouterr().err.count('\n')==1

# ---- results that are there, and those that are none

def test_results_of_another_run_are_kept(tmp_path, capsys):
    args = options(out=tmp_path/'o', storage='a.log')
    (tmp_path/'o').mkdir()
    assert free_out(args)==tmp_path/'o'
    (tmp_path/'o/results.json').write_text('{"storage": "a.log"}')
    assert free_out(args)==tmp_path/'o' # the same search, continued
    args.storage = 'b.log'
    (tmp_path/'o-2').mkdir()
    (tmp_path/'o-2/model.pkl').touch()
    assert free_out(args)==tmp_path/'o-3'
    args.force = True
    assert free_out(args)==tmp_path/'o'

@pytest.mark.parametrize('loss,accuracy,train_loss,says', [(1e28,.1,1.,'too high'), (None,.1,None,'too high'), (2.31,.094,None,'too high'),
    (1e28,.5,1.,'too high'), (2.31,.12,2.3,'too few epochs'), (.3,.9,.3,''), (1.9,.4,1.9,'')])
def test_a_hopeless_end(loss, accuracy, train_loss, says):
    why = why_hopeless(dict(valid_loss=loss, test_accuracy=accuracy, lr=1e6, history=[dict(train_loss=train_loss)]), 10)
    assert says in why and bool(says)==bool(why)

def test_a_hopeless_end_is_an_error(a_run, capsys):
    a_run.tested.update(test_accuracy=.1, valid_loss=1e28)
    assert finish(a_run)==1 and 'came to nothing' in capsys.readouterr().err
    assert len(list(a_run.args.out.iterdir()))==3

# ---- what is said, and where

def test_json_and_quiet(a_run):
    a_run.args.json,a_run.args.console = True,Console(None)
    assert finish(a_run)==0
    assert json.loads(a_run.said.getvalue())['test_accuracy']==.9

class Terminal(io.StringIO):
    def isatty(self): return True

def bars(n=20):
    "Bars of fastprogress with a long comment, over a table of epochs"
    master = ConsoleMasterBar(range(2))
    master.update(0)
    master.write('epoch train_loss valid_loss accuracy time'.split(), table=True)
    for epoch in range(2):
        bar = ConsoleProgressBar(range(n), parent=master, leave=False)
        for i in range(n+1):
            bar.comment = '0.1234 | lr=0.00123 wd=0.0123 T=0.0012 12 accepted 34 rejected, and so on'
            bar.update(i)
            bar.wait_for = 0 # or it would show itself five times a second
        bar.on_iter_end()
        master.write([str(epoch),'0.571992','0.295239','0.902500','00:00'], table=True)
        master.update(epoch+1)

@pytest.mark.parametrize('cols', [60,80,100,200])
def test_no_bar_wraps_in_a_terminal(cols, monkeypatch):
    monkeypatch.setenv('COLUMNS', str(cols))
    terminal = Terminal()
    with redirect_stdout(Console(terminal)): bars()
    said = terminal.getvalue()
    assert said.count('\r')>20 and 'lr=0.00123' in said and '\x1b' not in said
    assert max(len(part) for line in said.split('\n') for part in line.split('\r'))<cols
    assert len([line for line in said.split('\n') if '0.295239' in line])==2

def test_no_bars_without_a_terminal():
    file = io.StringIO()
    with redirect_stdout(Console(file)):
        bars()
        print('x'*1000)
    lines = file.getvalue().splitlines()
    assert '\r' not in file.getvalue() and len(lines)==4 and max(map(len, lines))==100

@pytest.mark.parametrize('command', [[],['mnist'],['search']])
def test_help_has_an_example_and_no_default_that_is_none(command, capsys):
    with pytest.raises(SystemExit, match='0'): main([*command,'--help'])
    said = capsys.readouterr().out
    assert 'example:' in said and 'None' not in said and not re.search(r'\(default: [^)]*\)\s*\(default', said)
