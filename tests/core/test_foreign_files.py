"A foreign, damaged or prepared file is refused in one sentence, and runs no code"
import os
import pytest,torch
from fastai.basics import *
from fastai_anneal.annealing.space import Space
from fastai_anneal.lr.found import FoundLR
from fastai_anneal.schedule.checkpoint import Checkpoint
from helpers import *

@pytest.mark.parametrize('text', ['', 'garbage', '[]', '3', '{}', '{"a":1}', 'null', '{"hyper":3,"losses":"x"}'])
@pytest.mark.parametrize('cls', [FoundLR, Space])
def test_foreign_json(cls, text):
    with pytest.raises(ValueError, match=f'this is not the JSON of a {cls.__name__}|this is not the JSON of a space'): cls.from_json(text)

class Code:
    def __reduce__(self): return os.mkdir, (str(Path(os.environ['MADE'])),)

@pytest.mark.parametrize('content', [b'', b'garbage', 'half', 'code', 'other', 'keys', 'kinds'])
def test_a_checkpoint_that_is_none(content, tmp_path, monkeypatch):
    monkeypatch.setenv('MADE', str(tmp_path/'made'))
    with pytest.raises(KeyboardInterrupt): small_learner().fit(2, cbs=[Checkpoint(tmp_path/'c.pth', '2it'), StopAt(5)])
    file,good = tmp_path/'c.pth',torch.load(tmp_path/'c.pth', weights_only=True)
    if content=='half': file.write_bytes(file.read_bytes()[:2000])
    elif isinstance(content, bytes): file.write_bytes(content)
    else: torch.save({'code': Code(), 'other': [1,2], 'keys': {k: v for k,v in good.items() if k!='shared'},
                      'kinds': {**good, 'shared': [{'~kind': 'evil', '~number': 0}, 3]}}[content], file)
    bytes_before,learn = file.read_bytes(),small_learner()
    before = fingerprint(learn)
    with pytest.raises(ValueError, match='c.pth') as e: learn.fit(2, cbs=[Checkpoint(file), StopAt(None)])
    assert len(str(e.value).strip().splitlines())<=2 and not (tmp_path/'made').exists()
    assert file.read_bytes()==bytes_before
    assert_same(before, fingerprint(learn))
