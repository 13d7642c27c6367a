"""Write the sources of the site into a folder: `python tools/pages.py FOLDER`

`python tools/pages.py --install-cells` writes the first cell of the tutorials, for Colab and Kaggle, from `repository`
in settings.ini; without an address there is none.

The pages are those of `docs/`, README.md, CHANGELOG.md and CONTRIBUTING.md, the notebooks as they are read
(`inside/`, `tutorials/`, `guides/`), and a reference of all public names, made from their signatures and docments.
`tools/docs` renders them with Sphinx.
"""
import ast,importlib,inspect,re,shutil,sys,textwrap
from configparser import ConfigParser
from html import escape
from pathlib import Path

import nbformat
from nbdev.showdoc import DocmentTbl
import fastai_anneal.all as public
from fastai_anneal._modidx import d as index

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = 'fastai_anneal'
DIRECTIVE = re.compile(r'^#\s*\|\s*(.*)$', re.M)
SIGNATURE_COLUMNS = 64 # what fits beside the two side bars at 1280 pixels
# Rooms in the order of the imports, and what they are about
ROOMS = {
    'schedule': 'Schedules and checkpoints', 'lr': 'The learning rate finder', 'fit': 'Annealing inside one fit',
    'search': 'Annealing over whole trainings', 'annealing': 'Simulated annealing itself', 'learner': 'The learner',
    'mnist': 'MNIST', 'digits': 'The digits', 'core': 'Undo', 'cli': 'The command',
}

def settings():
    config = ConfigParser(delimiters=['='], interpolation=None)
    config.read(ROOT/'settings.ini', encoding='utf-8')
    return config['DEFAULT']

REPOSITORY = settings().get('repository', '').rstrip('/')

# ---- what is public

def module_of(thing): return inspect.getmodule(inspect.unwrap(thing)).__name__

def room_of(module): return module.removeprefix(f'{PACKAGE}.').split('.')[0]

def patched(module):
    "Names such as `Learner.lr_find` that `module` adds to classes of others"
    own = importlib.import_module(module)
    for path in index['syms'].get(module, {}):
        names = path.removeprefix(f'{module}.').split('.')
        if len(names)!=2 or any(name.startswith('_') for name in names): continue
        owner = getattr(own, names[0], None)
        if owner is not None and module_of(owner)!=module: yield '.'.join(names),getattr(owner, names[1])

def public_names():
    "`{room: {name: object}}` of all that a user gets"
    rooms = {room: {} for room in ROOMS}
    for name in public.__all__:
        thing = getattr(public, name)
        if not callable(thing) or not module_of(thing).startswith(PACKAGE): continue
        rooms.setdefault(room_of(module_of(thing)), {})[name] = thing
    for module in index['syms']:
        for name,method in patched(module): rooms.setdefault(room_of(module), {})[name] = method
    return {room: names for room,names in rooms.items() if names}

# ---- the reference

def anchor(name):
    "The label of a name; Sphinx does not tell `anneal` from `Anneal`"
    return ('function-' if name.islower() else 'api-')+name.lower().replace('.', '-')

def source_link(thing):
    "A link to the lines of `thing`, if the repository has an address"
    if not REPOSITORY: return ''
    thing = inspect.unwrap(thing)
    path,line = Path(inspect.getsourcefile(thing)).relative_to(ROOT),inspect.getsourcelines(thing)[1]
    return f'[source]({REPOSITORY}/blob/main/{path}#L{line})\n\n'

def default_text(value):
    if value is inspect.Parameter.empty: return ''
    return '='+(value.__name__ if inspect.isroutine(value) or inspect.isclass(value) else repr(value))

def signature(name, func, skip_self=False):
    params = list(inspect.signature(func).parameters.values())[1 if skip_self else 0:]
    stars = {inspect.Parameter.VAR_POSITIONAL: '*', inspect.Parameter.VAR_KEYWORD: '**'}
    parts = [stars.get(param.kind, '')+param.name+default_text(param.default) for param in params]
    text = textwrap.fill(', '.join(parts), SIGNATURE_COLUMNS, break_long_words=False, break_on_hyphens=False)
    return f'```python\n{name}({textwrap.indent(text, " "*(len(name)+1)).strip()})\n```\n'

def own_methods(cls):
    "Public methods and properties of a class that say what they do"
    for name,member in vars(cls).items():
        func = member.fget if isinstance(member, property) else getattr(member, '__func__', member)
        if not name.startswith('_') and inspect.isroutine(func) and inspect.getdoc(func): yield name,member,func

def method_line(cls, name, member, func):
    if isinstance(member, property): shown = f'.{name}'
    else:
        params = [param for param in inspect.signature(func).parameters.values()][1:]
        shown = f".{name}({', '.join(param.name+default_text(param.default) for param in params)})"
    return f'- `{shown}`: {linked(inspect.getdoc(func))}\n'

def parameter_table(func):
    try: table = DocmentTbl(func)._repr_markdown_() or ''
    except OSError: return '' # a record's `__init__` has no source; its fields are in the signature
    rows = [row.split(' | ') for row in table.splitlines()]
    if len(rows)<3: return ''
    for row in rows[2:]:
        if '**' not in row[0]: row[0] = f"| `{row[0].strip('| ')}`"
    table = '\n'.join(' | '.join(row) for row in rows)
    return table.replace('NoneType', '').replace('|    | **', '| **Parameter** | **', 1)+'\n'

def entry(name, thing):
    "Heading, signature, docstring, table of parameters and methods of a public name"
    is_class = inspect.isclass(thing)
    func = thing.__init__ if is_class else thing
    is_method = '.' in name
    text = f'({anchor(name)})=\n### `{name}`\n\n{source_link(thing)}'
    text += signature('learn.'+name.split('.')[1] if is_method else name, func, skip_self=is_class or is_method)
    text += f'\n{linked(inspect.getdoc(thing) or "")}\n\n{parameter_table(func)}\n'
    if is_class: text += ''.join(method_line(thing, *found) for found in own_methods(thing))
    return text+'\n'

def reference_page(room, names):
    classes_first = sorted(names, key=lambda name: (name.islower(), name.lower()))
    return f'# {ROOMS.get(room, room)}\n\n'+''.join(entry(name, names[name]) for name in classes_first)

# ---- links from prose to the reference

NAMES = public_names()
TARGETS = {name: anchor(name) for names in NAMES.values() for name in names}
TARGETS |= {name.split('.')[1]: target for name,target in TARGETS.items() if '.' in name}

def linked(text):
    "Names of the package in backticks, outside of code, headings and links, become links to the reference"
    pieces = re.split(r'(^```.*?^```\s*?$|^#.*$|\[[^\]]*\]\([^)]*\))', text, flags=re.M|re.S)
    def link(match):
        target = TARGETS.get(match[1])
        return f'[{match[0]}](#{target})' if target else match[0]
    return ''.join(piece if n%2 else re.sub(r'(?<!`)`([A-Za-z_]+)`(?!`)', link, piece) for n,piece in enumerate(pieces))

# ---- notebooks

def directives(cell): return [found.split()[0] for found in DIRECTIVE.findall(cell.source) if found.strip()]

def defined(source):
    "Public names that a cell defines at its top"
    return [node.name for node in ast.parse(source).body if hasattr(node, 'name') and not node.name.startswith('_')]

def export_cell(cell):
    "An exported cell is a part of the inside: its source, folded"
    source = DIRECTIVE.sub('', cell.source).strip()
    if all(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.parse(source).body): return None
    names = ', '.join(f'<code>{escape(name)}</code>' for name in defined(source))
    title = f'Source of {names}' if names else 'Source'
    text = f'<details class="source"><summary>{title}</summary>\n\n```python\n{source}\n```\n\n</details>'
    return nbformat.v4.new_markdown_cell(text)

def notebook_link(match):
    "A link of nbdev's to another notebook, as MyST writes it"
    heading = re.sub(r'[^\w-]', '', match[2] or '').lower()
    return f'](' + match[1] + '.ipynb' + (f'#{heading}' if heading else '') + ')'

def read_cell(cell):
    "The cell as a reader sees it, or None"
    if cell.cell_type!='code':
        cell.source = linked(re.sub(r'\]\(([\w./]+)\.html(#[^)]*)?\)', notebook_link, cell.source))
        return cell
    found = directives(cell)
    if {'hide','default_exp','eval:'} & set(found): return None
    if {'export','exporti','exports'} & set(found): return export_cell(cell)
    cell.source = DIRECTIVE.sub('', cell.source).strip()
    for output in cell.outputs: output.get('data', {}).pop('text/latex', None)
    return cell

def colab_links(path):
    "Links that open a tutorial elsewhere, if the repository has an address"
    if not REPOSITORY: return []
    path = path.relative_to(ROOT)
    where = REPOSITORY.removeprefix('https://')
    colab = f"https://colab.research.google.com/{where.replace('github.com', 'github')}/blob/main/{path}"
    kaggle = f'https://www.kaggle.com/kernels/welcome?src={REPOSITORY}/blob/main/{path}'
    return [nbformat.v4.new_markdown_cell(f'[Open in Colab]({colab}) · [Open in Kaggle]({kaggle})')]

INSTALL = '# Colab and Kaggle have no fastai_anneal'

def install_cells():
    "The cell that installs the package where a tutorial is opened elsewhere, if the repository has an address"
    if not REPOSITORY: return []
    source = f"#| eval: false\n{INSTALL}\n%pip install -q 'fastai_anneal[demo] @ git+{REPOSITORY}'"
    return [nbformat.v4.new_code_cell(source, id='install')]

def with_install_cell(notebook):
    "`notebook`, with the cell that installs the package behind its title, or without"
    kept = [cell for cell in notebook.cells if INSTALL not in cell.source]
    notebook.cells = kept[:1]+install_cells()+kept[1:]
    return notebook

def write_notebook(source, target):
    notebook = nbformat.read(source, 4)
    cells = [read_cell(cell) for cell in notebook.cells]
    notebook.cells = [cell for cell in cells if cell is not None]
    if source.parent.name=='tutorials': notebook.cells[1:1] = colab_links(source)
    for n,cell in enumerate(notebook.cells): cell['id'] = f'cell-{n}'
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)

def title_of(path):
    "Title and one line of a notebook or page"
    text = nbformat.read(path, 4).cells[0].source if path.suffix=='.ipynb' else path.read_text(encoding='utf-8')
    title,line = re.search(r'^# (.*)$', text, re.M),re.search(r'^> (.*)$', text, re.M)
    return title[1] if title else path.stem, line[1] if line else ''

# ---- the whole

def toctree(pages): return '\n'.join(['```{toctree}', ':maxdepth: 1', '', *pages, '```\n'])

def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')

def write_inside(out):
    "The notebooks of the package, a page for each room"
    rooms = sorted({path.parent.name for path in (ROOT/'nbs').glob('*/*.ipynb')} - {'tutorials', 'guides'})
    for path in (ROOT/'nbs').rglob('*.ipynb'):
        folder = path.parent.relative_to(ROOT/'nbs')
        inside = folder.name not in ('tutorials', 'guides')
        write_notebook(path, out/('inside' if inside else '')/folder/path.name)
    for room in rooms:
        pages = sorted((out/'inside'/room).glob('*.ipynb'))
        write(out/'inside'/room/'index.md', f'# {room}/\n\n'+toctree([page.stem for page in pages]))
    alone = sorted(path.stem for path in (out/'inside').glob('*.ipynb'))
    text = 'The notebooks that the package is made from: prose, a small piece, and a lesson that shows what it does.'
    pages = [f'{room}/index' for room in rooms]+alone
    write(out/'inside'/'index.md', f'# How it works\n\n{text}\n\n'+toctree(pages))

def write_reference(out):
    for room,names in NAMES.items(): write(out/'reference'/f'{room}.md', reference_page(room, names))
    text = '# Reference\n\nAll that `from fastai_anneal.all import *` brings, by rooms.\n\n'
    write(out/'reference'/'index.md', text+toctree(NAMES))

def root_page(name):
    "A page of the root, with links to files that are no pages shown as code"
    text = (ROOT/name).read_text(encoding='utf-8')
    return linked(text.replace('](docs/', '](').replace('"docs/extra/', '"').replace('](nbs/', '](inside/'))

def write_llms(out):
    "The index of the pages for language models, as llmstxt.org describes it"
    lines = [f'# {PACKAGE}', '', f"> {settings()['description']}", '']
    for folder in ('guides', 'tutorials', 'reference', 'inside'):
        lines += [f'## {folder.title()}', '']
        pages = [path for path in (out/folder).rglob('*') if path.suffix in ('.md','.ipynb') and path.stem!='index']
        for path in sorted(pages):
            title,line = title_of(path)
            lines.append(f"- [{title}]({path.relative_to(out).with_suffix('.html')})"+(f': {line}' if line else ''))
        lines.append('')
    write(out/'extra'/'llms.txt', '\n'.join(lines))

def build(out):
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(ROOT/'docs', out)
    write_inside(out)
    write_reference(out)
    for name in ('README.md','CHANGELOG.md','CONTRIBUTING.md'):
        target = 'index.md' if name=='README.md' else name.lower()
        page = root_page(name)
        if name=='README.md': page += '\n'+(out/'contents.md').read_text(encoding='utf-8')
        write(out/target, page)
    (out/'contents.md').unlink()
    write_llms(out)

def tutorials(): return sorted((ROOT/'nbs'/'tutorials').glob('*.ipynb'))

def main(target):
    if target!='--install-cells': return build(Path(target).resolve())
    for path in tutorials(): nbformat.write(with_install_cell(nbformat.read(path, 4)), path)

if __name__=='__main__': main(sys.argv[1])
