"The package as `settings.ini` describes it: the one place for its name, version, requirements and extras"
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages,setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='], interpolation=None)
config.read(here/'settings.ini', encoding='utf-8')
settings = config['DEFAULT']
name = settings['lib_name']
extras = {key.removesuffix('_requirements'): value.split() for key,value in settings.items() if key.endswith('_requirements')}

setup(
    name=name, version=settings['version'], description=settings['description'], keywords=settings['keywords'],
    author=settings['author'], license=settings['license'], python_requires=f">={settings['min_python']}",
    packages=find_packages(include=[name, f'{name}.*']),
    install_requires=settings['requirements'].split(), extras_require=extras,
    long_description=(here/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    classifiers=['Framework :: Jupyter', 'Programming Language :: Python :: 3', 'Programming Language :: Python :: 3 :: Only',
                 'Topic :: Scientific/Engineering :: Artificial Intelligence'],
    entry_points={'console_scripts': ['fastai-anneal = fastai_anneal.cli:main'], 'nbdev': [f'{name} = {name}._modidx:d']})
