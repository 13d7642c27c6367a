"The project holds together: version, requirements, names, documents, rooms, README, notebooks"
import ast,importlib,inspect,json,os,re,subprocess,sys
from configparser import ConfigParser
from dataclasses import is_dataclass
from pathlib import Path

import pytest,torch
from fastcore.docments import docments
from helpers import ROOT,fresh_python

PACKAGE,NOTEBOOKS = ROOT/'fastai_anneal',ROOT/'nbs'
config = ConfigParser(delimiters=['='], interpolation=None)
config.read(ROOT/'settings.ini')
settings = config['DEFAULT']

def module_files(): return sorted(p for p in PACKAGE.rglob('*.py') if not p.name.startswith('_') and p!=PACKAGE/'all.py')
def module_name(path): return '.'.join(path.relative_to(ROOT).with_suffix('').parts)
def notebooks(): return sorted(p for p in NOTEBOOKS.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
def notebook_name(path): return path.relative_to(NOTEBOOKS).with_suffix('').as_posix()
def public_names():
    import fastai_anneal.all as everything
    return {name: o for name,o in vars(everything).items() if not name.startswith('_')}

# ---- version and requirements

def test_version_has_one_place():
    import fastai_anneal
    assert fastai_anneal.__version__==settings['version']
    assert f"version: {settings['version']}\n" in (ROOT/'CITATION.cff').read_text()
    assert f"## {settings['version']}" in (ROOT/'CHANGELOG.md').read_text()

def imported(path):
    "The packages that a module imports"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import): yield from (alias.name.partition('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level: yield node.module.partition('.')[0]

def test_only_declared_packages_are_imported():
    of_fastai = set('fastai fastcore fastprogress torch numpy pandas PIL scipy sklearn'.split()) # what fastai requires is there
    declared = {re.split('[<>=!]', need)[0] for key in settings if key.endswith('requirements') for need in settings[key].split()}
    for path in module_files():
        unknown = set(imported(path))-of_fastai-declared-set(sys.stdlib_module_names)-{'fastai_anneal'}
        assert not unknown, f'{path} imports {unknown}'

def test_optuna_is_optional():
    assert 'optuna' not in settings['requirements'] and 'optuna' in settings['search_requirements']
    fresh_python('''
import sys
sys.modules['optuna'] = None
from fastai_anneal.all import *
anneal(lambda v: v['x']**2, {'x': LogFloat(1e-3,1)}, 5)
try: anneal_search(lambda: None, {'lr': LogFloat(1e-3,1)}, n_trials=1, n_epoch=1)
except Exception as e: assert "pip install 'fastai_anneal[search]'" in str(e), e
else: raise AssertionError('no error without Optuna')
''')

def test_annealing_itself_needs_neither_fastai_nor_optuna():
    modules = [module_name(p) for p in module_files() if p.parent==PACKAGE/'annealing']
    assert modules
    out = fresh_python(f'''
import importlib,sys
for name in {modules}+['fastai_anneal.schedule.shapes', 'fastai_anneal.core.durations']: importlib.import_module(name)
print(*sorted({{'fastai','optuna','torch'}} & set(sys.modules)))
''')
    assert out.stdout.strip()==''

# ---- names

def test_what_a_user_gets():
    names = public_names()
    must = '''TrainLearner LRFinder lr_find hp_find CosineAnneal Anneal OneCycle WSD TorchSched Plateau Checkpoint SimAnnealHP LogFloat LogInt
        Categorical anneal anneal_search SimAnnealSampler mnist_dls mnist_mlp mnist_cnn'''.split()
    from fastai.learner import Learner
    assert len(names)<=80
    assert [name for name in must if name not in names and not hasattr(Learner, name)]==[]
    assert [name for name in names if name.startswith('_')]==[]

def test_no_name_of_fastai_means_something_else():
    out = fresh_python('''
from fastcore.all import *
from fastai.vision.all import *
from fastai.tabular.all import *
from fastai.text.all import *
before = dict(globals())
from fastai_anneal.all import *
print('CHANGED', *[name for name,o in before.items() if not name.startswith('__') and globals()[name] is not o])
''')
    assert out.stdout.split('CHANGED')[1].split()==['LRFinder'] # a finder that leaves no trace

def of_ours(o): return (getattr(o, '__module__', None) or '').startswith('fastai_anneal.')

def undocumented(f):
    "Parameters of a function, or of a class, that no comment explains"
    if inspect.isclass(f) and issubclass(f, tuple):
        fields = [node for node in ast.parse(inspect.getsource(f).lstrip()).body[0].body if isinstance(node, ast.AnnAssign)]
        lines = inspect.getsource(f).splitlines()
        return [node.target.id for node in fields if '#' not in lines[node.end_lineno-1]]
    if inspect.isclass(f) and not is_dataclass(f):
        f = f.__init__
        if not of_ours(f): return []
    try: parameters = inspect.signature(f).parameters.values()
    except (TypeError,ValueError): return []
    named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.name not in ('self','cls')]
    documents = docments(f, returns=False) if named else {}
    return [name for name in named if not documents.get(name)]

def test_every_public_parameter_is_documented():
    from fastai.learner import Learner
    patched = {name: f for name,f in vars(Learner).items() if of_ours(f) and not name.startswith('_')}
    missing = {name: undocumented(o) for name,o in {**public_names(), **patched}.items() if callable(o) and of_ours(o)}
    assert {name: parameters for name,parameters in missing.items() if parameters}=={}

def test_every_public_thing_has_a_docstring():
    for path in module_files():
        module = importlib.import_module(module_name(path))
        for name in getattr(module, '__all__', []):
            o = getattr(module, name)
            if callable(o) and getattr(o, '__module__', '')==module.__name__: assert inspect.getdoc(o), f'{module.__name__}.{name}'

def test_one_word_for_one_thing():
    "`monitor` and `mode`, `repeat`, `n_init`: no other words for them in a signature"
    others = {'metric','comp','less','minimize','maximize','reeval','n_startup','temperature','multiplier'}
    for path in module_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith('_'):
                words = others & {arg.arg for arg in node.args.args+node.args.kwonlyargs}
                assert not words, f'{path}:{node.lineno}: {node.name} takes {words}'

# ---- README

def blocks(language): return re.findall(rf'```{language}\n(.*?)```', (ROOT/'README.md').read_text(), re.S)

def test_readme_python_runs(tmp_path):
    pytest.importorskip('mlxtend')
    examples = blocks('python')
    assert 'SimAnnealHP' in examples[0]
    for example in examples: fresh_python("import matplotlib; matplotlib.use('Agg')\n"+example, cwd=tmp_path)
    assert not list(tmp_path.iterdir()), 'a README example left files behind'

def test_readme_names_the_two_commands():
    assert '\n'.join(blocks('sh')).splitlines()==["pip install '.[demo]' && fastai-anneal mnist", "pip install -e '.[dev]' && pytest"]

def test_readme_commands_exist():
    text = (ROOT/'README.md').read_text()
    commands = set(re.findall(r'fastai-anneal (\w+)', text))
    options = set(re.findall(r'`(--[a-z-]+)', text))
    assert commands>={'mnist','search'}
    helps = {c: fresh_python('from fastai_anneal.cli import main\nmain()', c, '--help', check=False).stdout for c in commands}
    assert all(helps.values()), helps
    known = set(re.findall(r'--[a-z-]+', ' '.join(helps.values())))
    assert options-known==set()
    assert [path for path in re.findall(r'`((?:tools|\.ci|benchmarks|tests)/[\w./]*)`', text) if not (ROOT/path).exists()]==[]

def test_readme_lists_the_notebooks():
    "A row of the table names notebooks, or a folder of them as `room/`, and the notebook to begin with"
    rows = re.findall(r'^\| (`[^|]*`) \|[^|]*\| `(\w+)` \|$', (ROOT/'README.md').read_text(), re.M)
    rows = [(re.findall('`([^`]+)`', cell), first) for cell,first in rows]
    named = {name for names,_ in rows for name in names}
    found = [notebook_name(p) for p in notebooks()]
    assert [name for name in found if name not in named and name.split('/')[0]+'/' not in named]==[]
    assert [name for name in named if not (NOTEBOOKS/(name if name.endswith('/') else f'{name}.ipynb')).exists()]==[]
    begin = [names[0]+first if names[0].endswith('/') else first for names,first in rows]
    assert [name for name in begin if name not in found]==[]

# ---- notebooks and modules

def exported_module(path):
    "The module that a notebook exports, in dots, or None"
    cells = [''.join(cell['source']) for cell in json.loads(path.read_text())['cells']]
    return next((found[1] for cell in cells if (found := re.search(r'^#\|\s*default_exp\s+(\S+)', cell, re.M))), None)

def test_each_module_has_its_notebook():
    exported = {module: notebook_name(p) for p in notebooks() if (module := exported_module(p))}
    modules = [module_name(p).removeprefix('fastai_anneal.') for p in module_files()]
    assert sorted(exported)==sorted(modules)
    assert {m: n for m,n in exported.items() if '.' in m and m.replace('.', '/')!=n}=={}

def test_packages_are_packages():
    folders = {p.parent for p in module_files()}
    assert [folder for folder in folders if not (folder/'__init__.py').exists()]==[]
    from setuptools import find_packages
    found = find_packages(str(ROOT), include=['fastai_anneal','fastai_anneal.*'])
    assert set(found)=={'.'.join(folder.relative_to(ROOT).parts) for folder in folders}

TRIED = [NOTEBOOKS/'core'/'undo.ipynb', NOTEBOOKS/'tutorials'/'mnist.ipynb']

@pytest.mark.parametrize('path', TRIED, ids=notebook_name)
def test_notebooks_run_in_jupyter_from_a_users_folder(path, tmp_path, monkeypatch):
    nbformat,nbclient = pytest.importorskip('nbformat'),pytest.importorskip('nbclient')
    pytest.importorskip('mlxtend')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    book,metadata = nbformat.read(path, 4),dict(path=str(tmp_path))
    nbclient.NotebookClient(book, timeout=600, kernel_name='python3', resources=dict(metadata=metadata)).execute()
    assert not list(tmp_path.iterdir()), 'a notebook left files behind'

def test_no_notebook_needs_the_project_around_it():
    assert [p.name for p in notebooks() if 'nbdev_export' in p.read_text()]==[]

# ---- tests

def test_tests_look_at_the_messages_of_errors():
    bare = re.compile(r'raises\((ValueError|TypeError|\((ValueError|TypeError),\s*\w+\))\):')
    assert [p.name for p in (ROOT/'tests').rglob('test_*.py') if p.name!='test_project.py' and bare.search(p.read_text())]==[]

@pytest.mark.skipif(torch.cuda.is_available(), reason='a machine with a GPU would run it')
def test_tools_cuda_says_that_there_is_no_gpu():
    env = {**os.environ, 'PATH': os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])}
    out = subprocess.run([ROOT/'tools/cuda'], capture_output=True, text=True, env=env)
    assert out.returncode==2 and len(out.stdout.splitlines())==1 and 'no CUDA device' in out.stdout, out.stdout+out.stderr
