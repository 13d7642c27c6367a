"Every name that a benchmark uses exists"
import builtins,dis,importlib,sys,types

import pytest
from helpers import ROOT

SCRIPTS = sorted(path.stem for path in (ROOT/'benchmarks').glob('*.py'))

def globals_used(code):
    "Names that the code of a module, and of all functions in it, looks up"
    yield from (ins.argval for ins in dis.get_instructions(code) if ins.opname in ('LOAD_GLOBAL','LOAD_NAME'))
    for const in code.co_consts:
        if isinstance(const, types.CodeType): yield from globals_used(const)

@pytest.mark.parametrize('name', SCRIPTS)
def test_names_exist(name, monkeypatch):
    for package in ('sklearn','optuna'): pytest.importorskip(package)
    monkeypatch.syspath_prepend(ROOT/'benchmarks')
    for other in SCRIPTS: monkeypatch.delitem(sys.modules, other, raising=False)
    module = importlib.import_module(name)
    code = compile((ROOT/'benchmarks'/f'{name}.py').read_text(), name, 'exec')
    missing = {o for o in globals_used(code) if not hasattr(module, o) and not hasattr(builtins, o)}
    assert missing-{'__qualname__','__module__'}==set()
    for other in SCRIPTS: sys.modules.pop(other, None)
