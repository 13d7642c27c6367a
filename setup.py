"The package as `settings.ini` describes it: the one place for its name, version, requirements and extras"
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages,setup

here = Path(__file__).parent
config = ConfigParser(delimiters=['='], interpolation=None)
config.read(here/'settings.ini', encoding='utf-8')
settings = config['DEFAULT']
name = settings['lib_name']
address = settings.get('repository', '').rstrip('/') # left out of everything while it is empty
urls = {'Source': address, 'Changelog': f'{address}/blob/main/CHANGELOG.md', 'Issues': f'{address}/issues'} if address else {}
python_versions = [f'Programming Language :: Python :: 3.{minor}' for minor in range(10,15)]
extras = {key.removesuffix('_requirements'): value.split() for key,value in settings.items() if key.endswith('_requirements')}

setup(
    name=name, version=settings['version'], description=settings['description'], keywords=settings['keywords'],
    author=settings['author'], license=settings['license'], python_requires=f">={settings['min_python']}",
    packages=find_packages(include=[name, f'{name}.*']), package_data={name: ['py.typed']}, project_urls=urls,
    install_requires=settings['requirements'].split(), extras_require=extras,
    long_description=(here/'README.md').read_text(encoding='utf-8'), long_description_content_type='text/markdown',
    classifiers=['Development Status :: 4 - Beta', 'Framework :: Jupyter', 'Intended Audience :: Developers',
                 'Intended Audience :: Science/Research', 'Programming Language :: Python :: 3',
                 'Programming Language :: Python :: 3 :: Only', *python_versions,
                 'Topic :: Scientific/Engineering :: Artificial Intelligence', 'Typing :: Typed'],
    entry_points={'console_scripts': ['fastai-anneal = fastai_anneal.cli:main'], 'nbdev': [f'{name} = {name}._modidx:d']})
