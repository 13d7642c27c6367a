"The Gaussian process and what it proposes"
import math
import numpy as np,pytest
from fastai_anneal.annealing.gp import *
from fastai_anneal.annealing.space import *
from fastai_anneal.annealing.surrogate import *
from fastai_anneal.annealing.walk import *

NESTED = {'opt': Categorical({'sgd': {'mom': LinFloat(0,.99)}, 'adam': {'beta': LinFloat(.9,.999), 'w': {'x': LinInt(1,3)}}}),
          'lr': LogFloat(1e-4,1), 'v': Vector((2,3)), 'k': 5}

def test_prediction_as_scikit_learns():
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel,Matern,WhiteKernel
    rng = np.random.default_rng(0)
    X,Z = rng.random((25,3)),rng.random((10,3))
    y = np.sin(5*X[:,0])+X[:,1]**2
    theta = np.array([-.3,.2,.5,.1,-9.,-3.])
    kernel = ConstantKernel(math.exp(.1))*Matern(np.exp(theta[:3]), nu=2.5)+WhiteKernel(math.exp(-3.)+math.exp(-9.))
    mean,sd = GP(np.zeros(3, dtype=bool)).condition(theta, X, np.arange(25), y).predict(Z)
    mean2,sd2 = GaussianProcessRegressor(kernel, optimizer=None).fit(X, y).predict(Z, return_std=True)
    np.testing.assert_allclose(mean, mean2, atol=1e-4)
    np.testing.assert_allclose(sd**2+math.exp(-3.)+math.exp(-9.), sd2**2, atol=1e-4)

def test_gradient():
    rng = np.random.default_rng(1)
    X = rng.random((12,3))
    X[:,2],X[[1,5,7],1] = np.round(X[:,2]),np.nan
    X[10] = X[11] = X[0]
    ids,y,gp = np.array([*range(10),0,0]),rng.standard_normal(12),GP(np.array([False,False,True]))
    args = gp.distances(X, X),ids[:,None]==ids,y
    theta = gp.prior+.5*rng.standard_normal(6)
    numeric = [(gp.loss(theta+d, *args)[0]-gp.loss(theta-d, *args)[0])/2e-5 for d in 1e-5*np.eye(6)]
    np.testing.assert_allclose(gp.loss(theta, *args)[1], numeric, rtol=1e-4, atol=1e-5)

def told(space, us, energies):
    walk = Walk()
    for i,energy in enumerate(energies):
        walk.begin(Step(i))
        walk.tell(Step(i), (0.,energy))
    return Surrogate(space, walk, lambda i: space.present(us[i]))

@pytest.mark.parametrize('energies', [np.random.default_rng(5).random(8), np.ones(8), [1.,math.inf]*4], ids=['random','equal','inf'])
def test_a_proposal_is_pure_and_in_the_space(energies):
    space,rng = Space(NESTED),np.random.default_rng(0)
    us = rng.random((8,space.n))
    a,b = (told(space, us, energies).propose(us[:1], us, .1, set(), np.random.default_rng(3), 40) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    space.check(space.value(a))

def test_nothing_that_is_taken():
    space = Space({'a': LinInt(0,2), 'b': Bool()})
    us = space.snapped(np.random.default_rng(0).random((6,2)))
    model,taken = told(space, us, np.arange(6.)),set(space.keys(us))
    for _ in range(20):
        u = model.propose(us[:1], us, .1, taken, np.random.default_rng(len(taken)))
        if u is None: break
        assert space.keys([u])[0] not in taken
        taken.add(space.keys([u])[0])
    assert len(taken)==6 and u is None # all six points

def test_what_was_measured_often_is_known_well():
    space,us = Space(LinFloat(0,1)),np.linspace(0,1,8)[:,None]
    walk,rng = Walk(),np.random.default_rng(0)
    for i in range(30):
        step = Step(i) if i<8 else Step(i, 'repeat', of=7)
        walk.begin(step)
        walk.tell(step, (0.,us[min(i,7),0]+.3*rng.normal()))
    model = Surrogate(space, walk, lambda i: us[i])
    sd = np.sqrt(np.diag(model.gp.predict(us[[0,7]], np.array([0,7]), cov=True)[1]))
    assert sd[1]<.7*sd[0]
