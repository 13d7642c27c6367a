"The project holds together: version, requirements, README, names, layering"
import ast,os,re,subprocess,sys,pytest
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).parent.parent
pkg = root/'fastai_anneal'
cfg = ConfigParser(delimiters=['='], interpolation=None); cfg.read(root/'settings.ini')
cfg = cfg['DEFAULT']

def modules(): return sorted(p for p in pkg.glob('*.py') if not p.name.startswith('_'))

def imports(p):
    "The modules that `p` imports, with where in the file"
    for o in ast.walk(ast.parse(p.read_text())):
        if isinstance(o, ast.Import): yield from (a.name for a in o.names)
        elif isinstance(o, ast.ImportFrom): yield ('fastai_anneal.' if o.level else '') + (o.module or '')

def test_version_has_one_place():
    import fastai_anneal
    assert fastai_anneal.__version__==cfg['version']

def test_only_declared_packages_are_imported():
    fastais = 'fastai fastcore fastprogress torch numpy pandas PIL scipy sklearn'.split() # what fastai requires is there
    declared = re.findall(r'[\w-]+', ' '.join(re.sub(r'[<>=!]=?[\d.]+', '', cfg[k]) for k in cfg if k.endswith('requirements')))
    for p in modules():
        for m in imports(p):
            top = m.partition('.')[0]
            assert top in sys.stdlib_module_names or top in fastais+declared+['fastai_anneal'], f'{p.name} imports {m}'

order = 'core schedule lr_finder anneal sampler simanneal search nas learner mnist all cli'.split()

def test_imports_go_one_way():
    for p in modules():
        if p.stem=='all': continue
        for m in imports(p):
            if not m.startswith('fastai_anneal.'): continue
            assert order.index(m.split('.')[1])<order.index(p.stem), f'{p.name} imports {m}'

@pytest.mark.parametrize('first', ['vision','tabular','text'])
def test_star_import_after_fastai(first):
    code = f'''
from fastai.{first}.all import *
before = set(globals())
from fastai_anneal.all import *
need = "mnist_dls SimAnnealHP CosineAnneal LRFinder Float LogFloat Int LogInt Categorical TrainLearner preserved".split()
missing = [o for o in need if o not in globals()]
assert not missing, missing
assert Learner.__module__=='fastai.learner' and DataLoaders.__module__=='fastai.data.core' and L([1])[0]==1
import fastai_anneal.all as a, fastai.{first}.all as f
shadowed = sorted(k for k in vars(a) if not k.startswith('_') and k in before and hasattr(f,k) and getattr(f,k) is not getattr(a,k))
print('SHADOWED', *shadowed)
'''
    out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, cwd=root)
    assert out.returncode==0, out.stderr
    # the finder takes fastai's place, the spaces that of fastcore's base classes for numbers; submodules come along with `all`
    assert set(out.stdout.split('SHADOWED')[1].split())<={'LRFinder','Float','Int','core','learner','schedule'}, out.stdout

def blocks(lang): return re.findall(rf'```{lang}\n(.*?)```', (root/'README.md').read_text(), re.S)

def test_readme_python_runs(tmp_path):
    pytest.importorskip('mlxtend')
    bs = blocks('python')
    assert 'SimAnnealHP' in bs[0]
    for b in bs:
        code = "import matplotlib; matplotlib.use('Agg')\n" + b
        out = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, cwd=tmp_path,
                             env={**os.environ, 'PYTHONPATH': str(root)})
        assert out.returncode==0, out.stderr
    assert not list(tmp_path.iterdir()), 'a README example left files behind'

def test_readme_names_the_two_commands():
    sh = '\n'.join(blocks('sh')).splitlines()
    assert sh==["pip install '.[demo]' && fastai-anneal mnist", "pip install -e '.[dev]' && pytest"]

def test_readme_lists_the_notebooks():
    have = {p.stem for p in (root/'nbs').glob('*.ipynb')}
    assert have==set(re.findall(r'^\| `(\d\d\w?_[\w.]+)`', (root/'README.md').read_text(), re.M))

@pytest.mark.parametrize('nb', ['00_core','10_tutorial.mnist'])
def test_notebooks_run_in_jupyter_from_a_users_folder(nb, tmp_path):
    nbformat,nbclient = pytest.importorskip('nbformat'),pytest.importorskip('nbclient')
    pytest.importorskip('mlxtend')
    book = nbformat.read(root/'nbs'/f'{nb}.ipynb', 4)
    old = os.environ.get('PYTHONPATH')
    os.environ['PYTHONPATH'] = str(root)
    try: nbclient.NotebookClient(book, timeout=600, kernel_name='python3', resources=dict(metadata=dict(path=str(tmp_path)))).execute()
    finally:
        if old is None: del os.environ['PYTHONPATH']
        else: os.environ['PYTHONPATH'] = old
    assert not list(tmp_path.iterdir()), 'a notebook left files behind'

def test_no_notebook_needs_the_project_around_it():
    for p in (root/'nbs').glob('*.ipynb'): assert 'nbdev_export' not in p.read_text(), p.name

def test_public_things_have_docstrings():
    import importlib
    for p in modules():
        if p.stem=='all': continue
        m = importlib.import_module(f'fastai_anneal.{p.stem}')
        for n in m.__all__:
            o = getattr(m, n)
            if callable(o) and getattr(o, '__module__', '')==m.__name__: assert o.__doc__, f'{m.__name__}.{n} has no docstring'
