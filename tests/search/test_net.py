"Networks as states: moves, modules, inherited weights"
import json
from dataclasses import replace
import numpy as np,pytest,torch
from torch import nn
from fastai.basics import *
from fastai_anneal.annealing.annealer import Annealer
from fastai_anneal.search.plots import columns
from fastai_anneal.search.net import *
from fastai_anneal.search.net_module import NetModule
from fastai_anneal.search.net_moves import MOVES,afforded,edges,inserted,moved,rewired,with_layer
from .searches import *

def walk(seed, n=15, shape=(1,12,12), **kw):
    rng = np.random.default_rng(seed)
    net = Net(shape, 5, **{**dict(widths=(2,24), max_params=30_000), **kw})
    for _ in range(n): net = net.propose(rng, .3)
    return net,rng

def settled(net, seed=0):
    "A module whose statistics and biases are not those it begins with"
    torch.manual_seed(seed)
    m = net.module().train()
    for _ in range(3): m(torch.randn(8,*net.shape)*2+1)
    with torch.no_grad():
        for n,p in m.named_parameters():
            if p.dim()==1: p.add_(torch.randn_like(p)*.3)
    return m.eval()

def change(a, b):
    m = settled(a)
    x = torch.randn(6,*a.shape)
    torch.manual_seed(1)
    return ((b.module().eval().inherit(m)(x)-m(x)).abs().max()/(m(x).abs().max()+1e-9)).item()

@pytest.mark.parametrize('shape', [(1,12,12),(3,7,9),(20,)])
def test_a_walk_stays_among_networks(shape):
    for seed in range(4):
        net,rng = walk(seed, 0, shape)
        for _ in range(40):
            new = net.propose(rng, .2)
            assert new.problem()=='' and new.n_params<=30_000 and len(new.layers)<=8
            net = new
        m = net.module().eval()
        assert m(torch.randn(3,*shape)).shape==(3,5) and sum(p.numel() for p in m.parameters())==net.n_params
    assert all(o.kind=='dense' for o in net.layers) or len(shape)==3

def test_every_move_happens_and_is_small():
    seen = set()
    for seed in range(3):
        net,rng = walk(seed, 12)
        for name,move in MOVES.items():
            for _ in range(20):
                new = move(net, rng)
                if new is None or new==net or new.problem(): continue
                seen.add(name)
                assert abs(len(new.layers)-len(net.layers))<=1
                break
    assert seen==set(MOVES)

def test_from_nothing_and_back():
    net,rng = walk(0, 30)
    sizes = set()
    for _ in range(600): net = net.propose(rng, .3); sizes.add(len(net.layers))
    assert min(sizes)<=1 and max(sizes)>=6

def test_max_macs():
    net,rng = walk(0, 0, max_macs=20_000)
    for _ in range(60): net = net.propose(rng, .3); assert net.macs<=20_000

def test_growth_beyond_the_limits_is_paid_by_narrower_layers():
    layers = [Layer(1,'conv',16,(0,), stride=2), Layer(2,'conv',32,(1,), stride=2)]
    net = Net((1,28,28), 10, layers, widths=(4,64), max_params=21_000, max_macs=300_000)
    for grown in (replace(net[2], width=40), replace(net[2], stride=1), replace(net[1], k=5)):
        new = with_layer(net, grown)
        got = afforded(new)
        assert new.problem() and got.problem()==''
        assert [o.id for o in got.layers]==[1,2] and all(a.width<=b.width for a,b in zip(got.layers, new.layers)) and got!=new
        assert replace(got[grown.id], width=grown.width)==grown and got.max_params==21_000 and got.max_macs==300_000
    assert afforded(net) is net
    assert afforded(with_layer(net, replace(net[1], stride=1, k=7)).but(max_macs=20_000)) is None # out of reach
    wrong = with_layer(net, replace(net[2], src=(9,)))
    assert afforded(wrong) is wrong and 'reads 9' in wrong.problem()

def test_deepening_keeps_the_function():
    for o in (Layer(1,'conv',8,(0,), k=5, stride=2), Layer(1,'dense',9,(0,))):
        net = Net((1,12,12), 5, [o, replace(o, id=2, src=(1,), stride=1)], head=(1,2))
        for seed in range(4):
            new = MOVES['deepen'](net, np.random.default_rng(seed))
            assert not new.problem() and len(new.layers)==3 and new[3].width==o.width and new[3].stride==1
            assert change(net, new)<1e-5
    assert MOVES['deepen'](Net((1,12,12), 5), np.random.default_rng(0)) is None

def grown_in_all_ways(net, rng, most=40):
    "Names, networks that `net` may grow into, and by how much they may differ"
    for o in net.layers:
        for width in {min(most, o.width+1), min(most, o.width*2)}-{o.width}: yield 'wider',with_layer(net, replace(o, width=width)),1e-5
        if o.kind=='conv' and o.k<7: yield 'kernel',with_layer(net, replace(o, k=o.k+2)),1e-5
        yield 'norm',with_layer(net, replace(o, norm=not o.norm)),2e-5
        if o.act!='relu': continue
        for reader in [reader for source,reader in edges(net) if source==o.id]: # the identity in the place of a connection
            new = inserted(net, Layer(net.new_id(), o.kind, o.width, (o.id,)), reader)
            yield 'in place',rewired(new, reader, lambda src: [net.new_id() if s==o.id else s for s in src]),1e-5
    for name in ('connect','add')*20:
        new = MOVES[name](net, rng)
        if not set(edges(net))-set(edges(new)): yield 'beside',new,1e-5

@pytest.mark.parametrize('seed', range(6))
def test_growing_keeps_the_function(seed):
    net,rng = walk(seed, 14)
    net = net.but(widths=(2,40), max_layers=20, max_params=None)
    tried = [(name, change(net, new), most) for name,new,most in grown_in_all_ways(net, rng) if new!=net and not new.problem()]
    assert len(tried)>5
    assert not [o for o in tried if o[1]>=o[2]]

def test_wider_units_can_part_ways():
    a = Net((6,), 3, [Layer(1,'dense',4,(0,))])
    m = with_layer(a, replace(a[1], width=8)).module().inherit(settled(a))
    w = m.head.weight
    assert len({tuple(c.tolist()) for c in w.T.round(decimals=4)})==8 # shared out unevenly

def test_shrinking_keeps_the_largest():
    a = Net((6,), 3, [Layer(1,'dense',8,(0,), norm=False)])
    m = settled(a)
    with torch.no_grad(): m.layers['1'].lin.weight[2:].mul_(1e-3); m.head.weight[:,2:].mul_(1e-3)
    b = with_layer(a, replace(a[1], width=4)).module().inherit(m).eval()
    x = torch.randn(5,6)
    assert (b(x)-m(x)).abs().max()<.02

@pytest.mark.parametrize('seed', range(4))
def test_any_parent_will_do(seed):
    a,_ = walk(seed, 20); b,_ = walk(seed+50, 20)
    m = b.module().inherit(a.module())
    assert all(torch.isfinite(p).all() for p in m.parameters()) and torch.isfinite(m.eval()(torch.randn(2,*b.shape))).all()
    b.module().inherit(nn.Linear(2,2)); Net((4,),2).module().inherit(a.module())

def test_gradients_reach_what_began_at_zero():
    a = Net((1,8,8), 3)
    b = rewired(inserted(a, Layer(1,'conv',4,(0,)), None), None, lambda src: (*src,1))
    m = b.module().inherit(a.module())
    assert (m.head.weight[:,64:]==0).all()
    opt = torch.optim.SGD(m.parameters(), .1)
    x,y = torch.randn(16,1,8,8),torch.randint(0,3,(16,))
    for _ in range(2): opt.zero_grad(); F.cross_entropy(m(x), y).backward(); opt.step()
    assert m.layers['1'].lin.weight.grad.abs().max()>0

def test_json_and_equality():
    net,rng = walk(3, 20)
    j = json.loads(json.dumps(net.to_json()))
    back = Net((1,12,12), 5, widths=(2,24), max_params=30_000).with_json(j)
    assert back==net and hash(back)==hash(net) and back.n_params==net.n_params and back!=net.propose(rng, .1)
    assert 'head' in repr(net) and set(net.features())=={'layers','convs','connections','params'}

@pytest.mark.parametrize('kw,msg', [
    (dict(shape=(1,2)), 'shape'), (dict(layers=[Layer(1,'conv',8,(2,))]), 'does not come before'), (dict(layers=[Layer(1,'dense',8,(0,)),Layer(2,'conv',8,(1,))]), 'flat'),
    (dict(layers=[Layer(1,'conv',8,(0,), k=4)]), 'kernel 4'), (dict(layers=[Layer(1,'conv',8,(0,)),Layer(1,'conv',8,(0,))]), 'the id 1'), (dict(layers=[Layer(1,'conv',999,(0,))]), 'width 999'),
    (dict(layers=[Layer(1,'conv',8,(0,))], head=(0,)), 'nobody reads'), (dict(layers=[Layer(1,'conv',8,(0,), act='rleu')]), 'did you mean .relu'), (dict(max_params=10), 'max_params'),
    (dict(layers=[Layer(1,'conv',8,())]), 'read something'), (dict(head=(7,)), 'not there'), (dict(layers=[Layer(1,'pool',8,(0,))]), "kind 'pool'"), (dict(max_macs=3), 'max_macs')])
def test_what_is_no_network(kw, msg):
    with pytest.raises(ValueError, match=msg): Net(**{**dict(shape=(1,8,8), c=3), **kw})

def make(net): return Learner(dls, net.module(), loss_func=CrossEntropyLossFlat())

@pytest.mark.parametrize('warm', [False,True])
def test_in_a_search(warm):
    spec = {'net': Net((6,), 2, widths=(2,32)), 'lr': LogFloat(1e-3,.3)}
    res = search(make, spec, n_trials=14, seed=1, warm=warm)
    assert res.trials[0].hps['net']==spec['net'] and len({t.hps['net'] for t in res.trials})>4 and res.best_value<res.trials[0].value
    assert isinstance(res.best_learner().model, NetModule)
    res.plot('slices')
    res.plot('parallel')
    assert 'net.params' in {c.name for c in columns(res.trials, res.spec)}

def test_too_large_is_not_trained():
    seen = []
    def small(net):
        seen.append(net.n_params)
        return make(net)
    search(small, {'net': Net((6,), 2, widths=(2,8), max_params=100)}, n_trials=12, n_epoch=1)
    assert max(seen)<=100

def test_alone_with_an_annealer():
    "Without any training: towards a given number of parameters"
    a = Annealer(Net((6,), 2, widths=(2,64)), 150, seed=0)
    for _ in range(150): a.tell(abs(a.ask().n_params-777))
    assert a.best_energy<60
