"tools/style.py catches what it is there to catch"
import pytest
from helpers import ROOT
import style

def messages(tmp_path, code, module='fit/hp.py', **others):
    "What the checker says about `code` as a module of a package"
    package = tmp_path/'fastai_anneal'
    for name,text in {module: code, **others}.items():
        (package/name).parent.mkdir(parents=True, exist_ok=True)
        (package/name).write_text(text)
    style.classes_of.cache_clear()
    return [message for _,message in style.check(package/module)]

def test_good_code_passes(tmp_path):
    assert messages(tmp_path, '''
from ..core.hypers import get_hyper, check_hypers
from .replay import *
from . import replay
from .. import __version__
from fastai.basics import *
def double(x): return 2*x
def first(values, default=None):
    "The first of `values`"
    for value in values: return value
    a,b,c = 1,2,3
    return default
class Mine:
    def change(self): self.x,self.y = 1,2
@patch
def lr_find(self:Learner): pass
''')==[]

@pytest.mark.parametrize('code,message', [
    ('x = 1\n'*401, '401 lines, 400 are allowed'),
    ('x = "'+'a'*120+'"', '126 columns, 120 are allowed'),
    ('def f():\n'+'    some_name = another_name\n'*40, 'f has 960 characters, 900 are allowed'),
    ('class A:\n    def f(self):\n'+'        some_name = another_name\n'*40, 'f has 960 characters, 900 are allowed'),
    ('x = 1; y = 2', 'two statements on one line'),
    ('if x: y = 1; z = 2', 'two statements on one line'),
    ('def f(): a(); b()', 'two statements on one line'),
    ('try:\n    a()\nfinally: b(); c()', 'two statements on one line'),
    ('a,b,c,d = 1,2,3,4', '4 assignments in one'),
    ('from ..core.hypers import _write', 'imports the private name _write of core.hypers'),
    ('from .replay import _segment', 'imports the private name _segment of fit.replay'),
    ('from fastai_anneal.core.undo import _walk', 'imports the private name _walk of core.undo'),
    ('from ..search.nas import Net', 'fit must not import from search'),
    ('from ..cli import main', 'fit must not import from cli'),
    ('from .. import learner', 'fit must not import from learner'),
    ('from fastai_anneal.learner import TrainLearner', 'fit must not import from learner'),
    ('def f():\n    from ..mnist import mnist_dls', 'fit must not import from mnist'),
    ('from ..simanneal import HP', 'simanneal is no room that tools/style.py knows')])
def test_bad_code_is_reported(tmp_path, code, message): assert messages(tmp_path, code)==[message]

def test_modules_of_the_top_level(tmp_path):
    assert messages(tmp_path, 'from .core.undo import *\nfrom .fit.hp import HP', 'learner.py')==[]
    assert messages(tmp_path, 'def f():\n    from .all import *', 'cli.py')==[]
    assert messages(tmp_path, 'from .learner import *', 'dispatch.py')==['dispatch must not import from learner']
    assert messages(tmp_path, 'from ..annealing.space import *', 'schedule/shapes.py')==['schedule must not import from annealing']
    assert messages(tmp_path, 'from ..schedule.shapes import *', 'annealing/temps.py')==[]

def test_patching_a_class_of_the_package(tmp_path):
    other = {'core/undo.py': 'class Snapshot: pass'}
    bad = '@patch(as_prop=True)\ndef f(self:Snapshot): pass'
    assert messages(tmp_path, bad, **other)==['f is patched onto Snapshot, a class of ours']

def test_comments_and_docstrings_are_free(tmp_path):
    assert messages(tmp_path, 'def f():\n    """'+'many words\n'*100+'    """\n'+'    # more words\n'*100+'    return 1')==[]

def test_command(tmp_path, capsys):
    (tmp_path/'a.py').write_text('x = 1; y = 2\n')
    assert style.main([str(tmp_path)])==1 and f'{tmp_path/"a.py"}:1: two statements on one line' in capsys.readouterr().out
    (tmp_path/'a.py').write_text('def f(n, item):\n    return n*item\n')
    assert style.main([str(tmp_path)])==0 and capsys.readouterr().out==''
    assert style.main(['--stats', str(tmp_path)])==0
    assert '2 lines  13.0 characters a line of a body   50% names of 1-2 letters' in capsys.readouterr().out

def test_this_project_reads_as_it_should(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert style.main([])==0, capsys.readouterr().out
