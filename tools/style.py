"""What the code has to read like: `python tools/style.py [--stats] [file or folder ...]`

Prints every place that breaks one of RULES and exits with 1 if there is one; `--stats` prints a table of densities
instead. By default it reads the package, `benchmarks/` and `tools/`.
"""
import ast,statistics,sys
from functools import cache
from pathlib import Path

MAX_LINES = 400   # of a module
MAX_COLUMNS = 120 # of a line
MAX_BODY = 900    # characters of a function's body, without docstring, comments and indentation
MAX_ASSIGNED = 3  # values in one assignment

PACKAGE = 'fastai_anneal'
# Rooms (packages, or modules of the top level) from bottom to top: each may import from those before it in this list.
LEVELS = ['core', 'schedule', 'annealing', 'lr', 'fit search', 'dispatch', 'learner',
          'digits', 'mnist', 'report console', 'outcome', 'cli']
DEFAULT = [PACKAGE, 'benchmarks', 'tools']
GENERATED = {'_modidx.py', 'all.py', '__init__.py'}

class Source:
    "A module: its path, lines and syntax tree"
    def __init__(self, path):
        self.path = Path(path)
        text = self.path.read_text(encoding='utf-8')
        self.lines,self.tree = text.splitlines(),ast.parse(text)
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        self.functions = [node for node in ast.walk(self.tree) if isinstance(node, kinds)]

    @property
    def package_folder(self):
        "The folder of the package that the module is in, or None"
        return next((folder for folder in self.path.absolute().parents if folder.name==PACKAGE), None)

    @property
    def parts(self):
        "Names of room and module, such as `('schedule','shapes')`; empty outside of the package"
        folder = self.package_folder
        return self.path.absolute().relative_to(folder).with_suffix('').parts if folder else ()

def modules(path):
    "The modules at `path`, without the generated index and the lists of names"
    found = sorted(Path(path).rglob('*.py')) if Path(path).is_dir() else [Path(path)]
    return [file for file in found if file.name not in GENERATED]

def is_docstring(stmt):
    return isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Constant) and isinstance(stmt.value.value, str)

def body_lines(func, lines):
    "The lines of the body of `func`, stripped, without docstring, comments and blank lines"
    stmts = func.body[1:] if is_docstring(func.body[0]) else func.body
    if not stmts: return []
    first = stmts[0].lineno
    rest = [lines[first-1][stmts[0].col_offset:]] + lines[first:func.end_lineno]
    return [line.strip() for line in rest if line.strip() and not line.strip().startswith('#')]

# ---- rules: each yields pairs of line number and message

def long_module(source):
    "At most MAX_LINES lines"
    if len(source.lines)>MAX_LINES: yield len(source.lines),f'{len(source.lines)} lines, {MAX_LINES} are allowed'

def long_lines(source):
    "At most MAX_COLUMNS columns"
    for i,line in enumerate(source.lines, 1):
        if len(line)>MAX_COLUMNS and not line.startswith("__all__"): # that line is made by nbdev
            yield i,f'{len(line)} columns, {MAX_COLUMNS} are allowed'

def long_functions(source):
    "At most MAX_BODY characters in a function"
    for func in source.functions:
        size = sum(map(len, body_lines(func, source.lines)))
        if size>MAX_BODY: yield func.lineno,f'{func.name} has {size} characters, {MAX_BODY} are allowed'

def packed_lines(source):
    "One statement a line; `if x: return y` is fine"
    for node in ast.walk(source.tree):
        for field in ('body','orelse','finalbody'):
            stmts = getattr(node, field, None)
            if not isinstance(stmts, list): continue
            for before,stmt in zip(stmts, stmts[1:]):
                if before.end_lineno==stmt.lineno: yield stmt.lineno,'two statements on one line'

def packed_assignments(source):
    "At most MAX_ASSIGNED values in one assignment"
    for node in ast.walk(source.tree):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)): continue
        n_values = len(node.value.elts)
        if isinstance(node.targets[0], ast.Tuple) and n_values>MAX_ASSIGNED:
            yield node.lineno,f'{n_values} assignments in one'

def imports(source):
    "Line, module below the package, and names of each import from the package"
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ImportFrom): continue
        names = [alias.name for alias in node.names]
        module = node.module or ''
        if node.level and source.parts:
            above = source.parts[:len(source.parts)-node.level]
            target = '.'.join(above)+'.'+module if above else module
            if module: yield node.lineno,target,names
            else: # modules, as in `from . import replay`
                for name in names:
                    if not name.startswith('__'): yield node.lineno,'.'.join((*above, name)),[]
        elif not node.level and module.startswith(PACKAGE+'.'):
            yield node.lineno,module.removeprefix(PACKAGE+'.'),names

def private_imports(source):
    "No private name of another module"
    for line,module,names in imports(source):
        for name in names:
            private = name.startswith('_') and not name.startswith('__')
            if private: yield line,f'imports the private name {name} of {module}'

def level(room):
    "Position of a room in LEVELS, or None"
    return next((i for i,rooms in enumerate(LEVELS) if room in rooms.split()), None)

def upward_imports(source):
    "Rooms import from lower rooms only"
    if not source.parts: return
    here = source.parts[0]
    for line,module,_ in imports(source):
        there = module.split('.')[0]
        if there=='all': continue # the commands import what a user does
        for room in (here, there):
            if level(room) is None: yield line,f'{room} is no room that tools/style.py knows'
        if None in (level(here), level(there)) or here==there: continue
        if level(there)>=level(here): yield line,f'{here} must not import from {there}'

@cache
def classes_of(folder):
    "Names of all classes that the package defines"
    return {node.name for file in modules(folder) for node in ast.walk(ast.parse(file.read_text(encoding='utf-8')))
            if isinstance(node, ast.ClassDef)}

def patched_own_classes(source):
    "`@patch` is for classes of others"
    if not source.parts: return
    for func in source.functions:
        names = {getattr(o.func if isinstance(o, ast.Call) else o, 'id', '') for o in func.decorator_list}
        if 'patch' not in names or not func.args.args: continue
        patched = ast.unparse(func.args.args[0].annotation or ast.Constant(''))
        if patched in classes_of(source.package_folder):
            yield func.lineno,f'{func.name} is patched onto {patched}, a class of ours'

RULES = [long_module, long_lines, long_functions, packed_lines, packed_assignments, private_imports, upward_imports,
         patched_own_classes]

def check(path):
    "Sorted pairs of line number and message of the module at `path`"
    source = Source(path)
    return sorted({found for rule in RULES for found in rule(source)})

# ---- densities

def local_names(func):
    "The names that `func` assigns or takes as arguments, `self` not counted"
    args = func.args
    names = {arg.arg for arg in args.posonlyargs+args.args+args.kwonlyargs}
    names |= {node.id for node in ast.walk(func) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return names-{'self','cls','_'}

def densities(paths):
    "A line about the modules `paths` together"
    sources = [Source(path) for path in paths]
    n_lines = sum(len(source.lines) for source in sources)
    bodies = [body_lines(func, source.lines) for source in sources for func in source.functions]
    sizes = sorted(map(len, bodies))
    chars = sum(len(line) for body in bodies for line in body)/max(sum(sizes), 1)
    names = [name for source in sources for func in source.functions for name in local_names(func)]
    short = sum(len(name)<=2 for name in names)/max(len(names), 1)
    long = sum(len(line)>MAX_COLUMNS for source in sources for line in source.lines)/max(n_lines, 1)
    p95 = sizes[int(.95*len(sizes))] if sizes else 0
    median = statistics.median(sizes or [0])
    return (f'{n_lines:6} lines {chars:5.1f} characters a line of a body  {short:4.0%} names of 1-2 letters  '
            f'{long:5.1%} over {MAX_COLUMNS} columns  body median {median:.0f}, p95 {p95} lines')

def main(argv):
    "Exit status: is there a place that breaks a rule?"
    places = [arg for arg in argv if not arg.startswith('--')] or DEFAULT
    paths = [file for place in places for file in modules(place)]
    if '--stats' in argv:
        for path in paths: print(f'{str(path):40} {densities([path])}')
        print(f'{"all":40} {densities(paths)}')
        return 0
    found = [(path, *finding) for path in paths for finding in check(path)]
    for path,line,message in found: print(f'{path}:{line}: {message}')
    return int(bool(found))

if __name__=='__main__': sys.exit(main(sys.argv[1:]))
