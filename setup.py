"The package as `settings.ini` describes it: the one place for its name, version, requirements and extras"
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup

here = Path(__file__).parent
cfg = ConfigParser(delimiters=['='], interpolation=None)
cfg.read(here/'settings.ini', encoding='utf-8')
s = cfg['DEFAULT']
extras = {k.removesuffix('_requirements'): v.split() for k,v in s.items() if k.endswith('_requirements')}

setup(
    name=s['lib_name'], version=s['version'], description=s['description'], keywords=s['keywords'], author=s['author'],
    license=s['license'], packages=[s['lib_name']], python_requires=f">={s['min_python']}",
    install_requires=s['requirements'].split(), extras_require=extras,
    long_description=(here/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    classifiers=['Framework :: Jupyter', 'Programming Language :: Python :: 3', 'Programming Language :: Python :: 3 :: Only',
                 'Topic :: Scientific/Engineering :: Artificial Intelligence'],
    entry_points={'console_scripts': ['fastai-anneal = fastai_anneal.cli:main'],
                  'nbdev': [f"{s['lib_name']} = {s['lib_name']}._modidx:d"]})
