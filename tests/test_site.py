"The tools that make the site: what they find wrong, what they show and what they leave out; `tools/docs` builds the whole"
import nbformat,pytest
from nbformat.v4 import new_code_cell,new_markdown_cell
import links,pages

PAGE = '<html><body>{}</body></html>'

@pytest.mark.parametrize('body,fault', [
    ('<a href="gone.html">x</a>', 'gone.html: no such file'), ('<a href="b.html#gone">x</a>', 'b.html#gone: no such anchor'),
    ('<a href="#gone">x</a>', '#gone: no such anchor'), ('<img src="gone.png">', 'gone.png: no such file'),
    ('<script src="https://cdn.example.org/x.js"></script>', 'loads https://cdn.example.org/x.js'),
    ('<link rel="stylesheet" href="//fonts.example.org/x.css">', 'loads //fonts.example.org/x.css')])
def test_a_broken_site_is_found(tmp_path, body, fault):
    (tmp_path/'a.html').write_text(PAGE.format(body))
    (tmp_path/'b.html').write_text(PAGE.format('<h1 id="here">x</h1>'))
    assert fault in [message for _,message in links.faults(tmp_path)]

def test_a_whole_site_has_no_faults(tmp_path):
    body = '<a href="b.html#here">x</a><a href="https://example.org">x</a><a href="#top" id="top">x</a><img src="data:,">'
    (tmp_path/'a.html').write_text(PAGE.format(body))
    (tmp_path/'b.html').write_text(PAGE.format('<h1 id="here">x</h1>'))
    assert not list(links.faults(tmp_path))

@pytest.mark.parametrize('source', ["#| hide\nimport x", "#| default_exp lr.curve", "#| export\nimport math\nfrom a import b"])
def test_what_a_reader_does_not_need_is_left_out(source): assert pages.read_cell(new_code_cell(source)) is None

def test_exported_code_is_folded():
    shown = pages.read_cell(new_code_cell('#| export\ndef found(x): return x\ndef _own(): pass'))
    assert shown.cell_type=='markdown' and '<code>found</code></summary>' in shown.source and 'def _own' in shown.source
    assert '#|' not in shown.source

def test_names_in_prose_lead_to_the_reference():
    text = pages.linked('`CosineAnneal` and `lr_find`, `nothing`\n# `CosineAnneal`\n[`Anneal`](anneal.html)\n```\n`Anneal`\n```\n')
    assert '[`CosineAnneal`](#api-cosineanneal)' in text and '[`lr_find`](#api-learner-lr_find)' in text
    assert '`nothing`' in text and '\n# `CosineAnneal`\n' in text and text.count('api-anneal')==0

def test_links_between_notebooks():
    cell = pages.read_cell(new_markdown_cell('[a](../core/undo.html) [b](family.html#Which-shape?) [c](https://x.org/y.html)'))
    assert cell.source=='[a](../core/undo.ipynb) [b](family.ipynb#which-shape) [c](https://x.org/y.html)'

def test_every_public_name_is_in_the_reference():
    import fastai_anneal.all as public
    documented = {name for names in pages.NAMES.values() for name in names}
    missing = {name for name in public.__all__ if callable(getattr(public, name))}-documented
    assert not missing and {'Learner.lr_find','Learner.hp_find'}<=documented

@pytest.mark.parametrize('address', ['', 'https://github.com/someone/fastai_anneal'])
def test_links_elsewhere_need_an_address(address, monkeypatch):
    monkeypatch.setattr(pages, 'REPOSITORY', address)
    cells = pages.colab_links(pages.ROOT/'nbs'/'tutorials'/'mnist.ipynb')
    shown = pages.source_link(pages.public.CosineAnneal)
    assert bool(cells)==bool(shown)==bool(address)
    if address: assert 'colab.research.google.com/github/someone' in cells[0].source and '/blob/main/fastai_anneal/schedule/family.py#L' in shown

def test_tutorials_install_what_they_need_elsewhere(monkeypatch):
    for path in pages.tutorials():
        notebook = nbformat.read(path, 4)
        sources = [cell.source for cell in notebook.cells]
        assert [cell.source for cell in pages.with_install_cell(notebook).cells]==sources, 'python tools/pages.py --install-cells'
        with monkeypatch.context() as m:
            m.setattr(pages, 'REPOSITORY', 'https://github.com/someone/fastai_anneal')
            changed = pages.with_install_cell(notebook)
            assert 'git+https://github.com/someone/fastai_anneal' in changed.cells[1].source
        assert [cell.source for cell in pages.with_install_cell(changed).cells]==sources
