"Contracts of durations, of checked names and of values per group"
import pytest,torch
from fractions import Fraction
from functools import partial
from hypothesis import given,strategies as st
from fastai.basics import *
from fastai.test_utils import synth_learner
from fastai_anneal.core.durations import *
from fastai_anneal.core.hypers import *

# durations

@given(st.integers(0,50), st.integers(1,50), st.integers(1,1000))
def test_durations_agree(n, ep, it):
    assert duration_its(n, ep, it)==duration_its(f'{n}ep', ep, it)==duration_its(f'{n*it}it', ep, it)==n*it

@given(st.lists(st.integers(0,100), min_size=1, max_size=6), st.integers(1,20), st.integers(1,5000))
def test_shares_add_up(ws, ep, it):
    tot = sum(ws) or 1
    parts = [Fraction(w,tot)*ep*it for w in ws]
    assert duration_its('100%', ep, it)==duration_its(1., ep, it)==ep*it
    assert sum(parts) in (0, ep*it)

@pytest.mark.parametrize('d,its', [('10%',103),('.5ep',51),('2.5it',3),(.1,103),('2 epochs',206),('7iters',7),(0,0),('0%',0),(1,103),(1.,1030)])
def test_duration_values(d, its): assert duration_its(d, 10, 103)==(52 if d=='.5ep' else its)

@pytest.mark.parametrize('bad', ['', '10', 'ep', '1e3it', '-1ep', '101%', 'nan%', -1, 1.01, -.1, float('nan'), float('inf'), True, None, [1]])
def test_bad_durations(bad):
    with pytest.raises(ValueError, match='bad duration'): parse_duration(bad)

OPTS = {'Adam': Adam, 'SGD': partial(SGD, mom=.9), 'AdamW': partial(OptimWrapper, opt=torch.optim.AdamW),
        'torch SGD': partial(OptimWrapper, opt=torch.optim.SGD, momentum=.9)}

def an_opt(name, n_groups=3):
    params = [[nn.Parameter(torch.zeros(1))] for _ in range(n_groups)]
    return OPTS[name](params, lr=.01)

@pytest.mark.parametrize('name', OPTS)
def test_checked_names(name):
    opt = an_opt(name)
    assert {'lr','wd'} <= set(hyper_names(opt)) and 'params' not in hyper_names(opt)
    with pytest.raises(ValueError, match="'lrr'.*did you mean 'lr'"): check_hypers(opt, ['wd','lrr'])

@pytest.mark.parametrize('name', OPTS)
@pytest.mark.parametrize('hyper', ['lr','mom'])
def test_values_go_in_and_come_out_as_with_fastai(name, hyper):
    opt = an_opt(name)
    opt.set_hyper(hyper, [.1,.2,.3])
    assert get_hyper(opt, hyper)==[h[hyper] for h in opt.hypers]==[.1,.2,.3]
    set_hyper(opt, hyper, [.3,.2,.1])
    assert [h[hyper] for h in opt.hypers]==[.3,.2,.1]

@pytest.mark.parametrize('value', [.1, slice(1e-3,1e-1), slice(1e-2), [.1,.2,.3], torch.tensor([.1,.2,.3])])
def test_per_group_agrees_with_set_hyper(value):
    opt = an_opt('Adam')
    opt.set_hyper('lr', value.tolist() if isinstance(value, torch.Tensor) else value)
    assert per_group(value, 3)==pytest.approx(get_hyper(opt, 'lr'), rel=1e-6)

@pytest.mark.parametrize('value,message', [([1,2], '2 values of lr for 3'), ('x', 'must be numbers'), (float('nan'), 'must be finite')])
def test_per_group_refuses(value, message):
    with pytest.raises(ValueError, match=message): per_group(value, 3, 'lr')

@pytest.mark.parametrize('path,message', [('model.nothing', "no attribute 'nothing'"), ('model', 'only a number')])
def test_paths_that_lead_nowhere(path, message):
    with pytest.raises(ValueError, match=message): attr_owner(synth_learner(), path)

def test_n_batches():
    class It(torch.utils.data.IterableDataset):
        def __iter__(self): return iter(range(3))
    with pytest.raises(ValueError, match='no length'): n_batches(DataLoader(It(), bs=2))
    with pytest.raises(ValueError, match='no batch'): n_batches(DataLoader([], bs=2))
