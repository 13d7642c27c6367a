"Sphinx's settings of the site; `tools/docs` runs it"
from importlib.metadata import version as version_of
from latex2mathml.converter import convert

project = 'fastai_anneal'
author = 'the fastai_anneal authors'
version = release = version_of('fastai_anneal')

extensions = ['myst_nb', 'sphinx_copybutton']
myst_enable_extensions = ['dollarmath', 'attrs_inline']
myst_heading_anchors = 4
nb_execution_mode = 'off' # the outputs are those that the notebooks keep; CI runs them
nb_ipywidgets_js = {}     # no page loads anything from elsewhere
nb_merge_streams = True
suppress_warnings = ['myst.header', 'mystnb.unknown_mime_type']

html_theme = 'furo'
html_title = 'fastai_anneal'
html_static_path = ['static']
html_extra_path = ['extra']
html_css_files = ['site.css']
html_show_sphinx = False
html_copy_source = False
html_show_search_summary = False # a page opened from a folder may not fetch others
html_math_renderer = 'mathml'

def visit_inline(self, node):
    self.body.append(convert(node.astext()))
    raise_skip()

def visit_block(self, node):
    self.body.append(convert(node.astext(), display='block'))
    raise_skip()

def raise_skip():
    from docutils.nodes import SkipNode
    raise SkipNode

def setup(app):
    "Formulas as MathML, which browsers show without a script"
    app.add_html_math_renderer('mathml', (visit_inline, None), (visit_block, None))
