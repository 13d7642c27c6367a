"When candidates are tried: within the budget, within an epoch, one after the other"
import pytest
from fastai_anneal.fit.plan import plan_rounds,screen_cost

def cost(plan, n_try, n_iter): return sum(screen_cost(o.length, n_try, n_iter) if o.screen else o.length*o.n_try for o in plan)

@pytest.mark.parametrize('n_epoch', [1,2,7,40])
@pytest.mark.parametrize('n_iter', [1,2,5,63])
@pytest.mark.parametrize('n_try', [1,4])
@pytest.mark.parametrize('budget', [.1,.5,1.])
def test_plan(n_epoch, n_iter, n_try, budget):
    for every in {1,3,n_iter,n_epoch*n_iter}:
        plan = plan_rounds(n_epoch, n_iter, every, n_try, budget)
        assert cost(plan, n_try, n_iter)<=budget*n_epoch*n_iter+1e-9
        assert all(o.start%n_iter+o.length<=n_iter for o in plan if not o.screen)
        assert all(a.start+min(a.length, n_iter)<=b.start for a,b in zip(plan, plan[1:]))
        assert all(o.start==0 for o in plan if o.screen)

def test_without_a_share_there_is_no_screening():
    assert not any(o.screen for o in plan_rounds(8, 100, 100, front=0)) and plan_rounds(8, 100, 100)[0].screen
