"""Reading a sweep: smoothing, divergence, the suggestion"""
import math

import numpy as np
import pytest

from fastai_anneal.lr.curve import *

RATES = np.geomspace(1e-7, 10, 100)
LOG = np.log10(RATES)
CURVE = 2.3-1.6/(1+np.exp(-4*(LOG+2)))+np.exp(3*(LOG-.2)) # falls at .01, rises from 1 on

def noise(sd=.02, n=100, seed=0): return sd*np.random.default_rng(seed).normal(size=n)

def test_smoothing_has_no_lag():
    x = np.linspace(-4, 4, 101)
    valley = 1-np.exp(-x**2)
    assert abs(int(smooth_curve(valley).argmin())-50)<=1
    assert int(ema_curve(valley).argmin())>55
    np.testing.assert_allclose(smooth_curve(3*x+1), 3*x+1)

@pytest.mark.parametrize('scale,shift', [(1,0), (7,0), (1,-100), (.01,3)])
def test_suggestion_does_not_depend_on_units(scale, shift):
    losses = CURVE+noise()
    a,b = suggest(RATES, losses, 100),suggest(RATES, losses*scale+shift, 100)
    assert math.isclose(a.reading.descent, b.reading.descent, rel_tol=1e-6)
    assert math.isclose(a.reading.ascent, b.reading.ascent, rel_tol=1e-6)
    assert math.isclose(suggest(RATES*30, losses, 100).value, 30*a.value, rel_tol=1e-6)

def test_suggestion_lies_below_the_ascent():
    found = suggest(RATES, CURVE+noise(), 100)
    assert .003<found.value<.3 and found.value<=found.reading.ascent/2 and not found.warnings

def test_rules_know_the_optimizer_and_the_horizon():
    def rate(n, kind): return suggest(RATES, CURVE+noise(), n, kind).value
    assert rate(128,'sgd')>rate(128,'adaptive')>rate(128,'trust')
    assert rate(128,'adaptive')/rate(1280,'adaptive')>rate(128,'sgd')/rate(1280,'sgd')>1

@pytest.mark.parametrize('draw', [lambda r: 2+.1*r.normal(size=70), lambda r: .3*np.exp(.5*r.normal(size=70)),
                                  lambda r: r.standard_t(3, size=70)])
def test_noise_alone_is_not_divergence(draw):
    rng,n_alarms = np.random.default_rng(0),0
    for _ in range(100):
        divergence = Divergence(100)
        for loss in draw(rng):
            divergence.add(float(loss))
            if divergence.is_over:
                n_alarms += 1
                break
    assert n_alarms<=3 # of the skewed ones, a few

def test_divergence_is_seen():
    divergence = Divergence(100)
    for loss in 2.3+noise(.1, 40): divergence.add(float(loss))
    assert not divergence.is_over
    for loss in (3.,4.,6.,9.): divergence.add(loss)
    assert divergence.is_over

def test_a_lucky_dip_does_not_count():
    x = np.linspace(-7, 1, 100)
    losses = 2.3-1.6/(1+np.exp(-4*(x+2)))+np.exp(3*(x-.2))
    dipped = losses.copy()
    dipped[20:25] -= .8 # early, it comes back
    dipped[72:75] += .5 # late, it goes again
    a,b = read_curve(10**x, losses),read_curve(10**x, dipped)
    assert abs(math.log(a.descent/b.descent))<.5 and abs(math.log(a.ascent/b.ascent))<.5

def test_no_descent_is_said():
    found = suggest(RATES, 2.3+noise(), 100)
    assert any('fell by only' in warning for warning in found.warnings) and found.value<=5

@pytest.mark.parametrize('n', [0,2,3,7])
def test_few_points_are_said(n):
    found = suggest(RATES[:n], CURVE[:n])
    assert math.isnan(found.value) and len(found.warnings)==1 and 'usable points' in found.warnings[0]

def test_edge():
    found = suggest_edge(RATES, CURVE+noise())
    assert RATES[int(CURVE.argmin())]<found.value<3
    falling = suggest_edge(RATES, np.linspace(2, 1, 100))
    assert falling.value==RATES[-1] and 'did not rise' in falling.warnings[0]
