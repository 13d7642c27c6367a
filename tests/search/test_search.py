"`anneal_search`: what it finds, what it leaves alone, what goes wrong, what its result says"
import json,math,pickle,random,sys
import numpy as np,pytest,torch
from .searches import *
from fastai_anneal.schedule.family import CosineAnneal
from fastai_anneal.search.early import forecast_end
from fastai_anneal.search.record import SearchError,SearchTrial
from fastai_anneal.search.result import SearchResult
from dataclasses import replace
from fastai_anneal.search.score import ranked

def test_result():
    res = search(n_trials=10)
    table = res.history
    assert len(table)==10 and set(table.state)<={'complete','stopped'} and table.repeats.notna().sum()==1 and set(space)<=set(table)
    assert res.best in [t.hps for t in res.trials]
    seen = [t.value for t in res.trials if t.state=='complete' and t.hps==res.best]
    assert res.best_value==pytest.approx(np.mean(seen[1:] or seen)) and res.score.seen==len(seen)
    assert (table.best.iloc[-1],table.seen.iloc[-1])==(res.best_value,len(seen))
    told = json.loads(res.to_json())
    assert told['best']==res.best and len(told['trials'])==10 and told['settings']['monitor']=='valid_loss'
    assert set(res.plot())=={'trials','slices','parallel','importance'}
    assert res.importance()=={} # of ten trials
    with pytest.raises(ValueError, match="did you mean 'slices'"): res.plot('slice')
    assert 'valid_loss' in repr(res)
    copy = pickle.loads(pickle.dumps(res))
    assert copy.best==res.best and facts(copy)==facts(res)
    with pytest.raises(SearchError, match='does not know how to make a learner'): copy.best_learner()

def test_to_json_writes_a_file(tmp_path):
    res = search(n_trials=2)
    assert res.to_json(tmp_path/'result.json')==(tmp_path/'result.json').read_text()

def test_best_learner_is_the_trial_again():
    res = search()
    kept,again = res.best_learner(),res.best_learner(retrain=True)
    for learn in (kept,again):
        with quiet(learn): assert learn.validate()[0]==pytest.approx(res.best_trial.value, abs=1e-6)
    assert_same(kept.model.state_dict(), again.model.state_dict())
    assert res.best_learner(n_epoch=1).n_epoch==1

def test_seed_and_what_is_left_alone():
    mine = quadrants()
    def make(width, p): return mlp(width, p, mine)
    def generators(): return random.getstate(),np.random.get_state(),torch.get_rng_state(),[dl.rng.getstate() for dl in mine.loaders]
    before = generators()
    res = search(make)
    assert_same(generators(), before)
    random.random(); torch.rand(3); next(iter(mine.train))
    assert facts(search(make))==facts(res)
    assert facts(search(make, seed=1))!=facts(res)

def test_reserved_names_are_applied():
    seen = []
    def look(learn):
        if not learn.training or learn.train_iter!=3: return
        hypers = {name: learn.opt.hypers[-1][name] for name in ('lr','wd','mom')}
        seen.append({**hypers, 'bs': len(learn.xb[0]), 'n': learn.n_epoch})
    spec = {'lr': LogFloat(1e-3,1), 'wd': LogFloat(1e-3,.1), 'moms': LinFloat(.5,.9), 'bs': Categorical(8,32), 'n_epoch': LinInt(1,3), 'width': 4}
    res = search(lambda width: mlp(width), spec, n_trials=6, sched=None, cbs=Each('before_batch', look), early=0, repeat=0)
    told = [dict(lr=t.hps['lr'], wd=t.hps['wd'], mom=t.hps['moms'], bs=t.hps['bs'], n=t.hps['n_epoch']) for t in res.trials]
    assert seen==[o for o in told if o['bs']==8 or o['n']>1] # three batches of 32 are an epoch
    assert [len(t.curve) for t in res.trials]==[t.hps['n_epoch'] for t in res.trials]
    assert dls.train.bs==16

@pytest.mark.parametrize('takes', ['named','kwargs'])
def test_reserved_names_that_the_function_takes(takes):
    got = []
    def named(lr, bs):
        got.append((lr,bs))
        return mlp(lr=lr)
    def kwargs(**hps): return named(hps['lr'], hps['bs'])
    res = search(named if takes=='named' else kwargs, {'lr': LogFloat(1e-3,1), 'bs': Categorical(8,16)}, n_trials=3, repeat=0)
    assert got==[(t.hps['lr'],t.hps['bs']) for t in res.trials]

@pytest.mark.parametrize('sched', ['one_cycle','cosine',None,[CosineAnneal()]])
def test_schedules(sched):
    lrs = []
    def look(learn):
        if learn.training: lrs.append(learn.opt.hypers[-1]['lr'])
    moms = Categorical((.9,.8,.9),(.95,.85,.95)) if sched=='one_cycle' else .9
    search(spec={'lr': LogFloat(.0999,.1), 'moms': moms}, n_trials=1, cbs=Each('before_batch', look), sched=sched)
    assert max(lrs)==pytest.approx(.1, rel=2e-2) and (len(set(lrs))==1)==(sched is None)

no_valid = DataLoaders(dls.train)
@pytest.mark.parametrize('kwargs,match', [
    (dict(spec={'lr': LogFloat(1e-3,1), 'widht': LogInt(2,8)}), "did you mean 'width'"), (dict(spec={'lr': .1}), 'nothing to search'),
    (dict(make=lambda width, p, q: mlp(width)), 'needs q'), (dict(spec=LogFloat(1e-3,1)), 'must be a dict'), (dict(make=3), 'not a function'),
    (dict(n_trials=0), 'n_trials=0'), (dict(n_epoch=1.5), 'n_epoch=1.5'), (dict(early=2), 'early=2'), (dict(repeat=.9), 'repeat=0.9'),
    (dict(monitor='acuracy'), "did you mean 'accuracy'"), (dict(mode='up'), "mode='up'"), (dict(sched='cos'), "sched='cos'"),
    (dict(make=lambda width, p: nn.Linear(2,2)), 'has to return a Learner'), (dict(make=lambda width, p: Learner(no_valid, nn.Linear(6,2), loss_func=CrossEntropyLossFlat())), 'validation set'),
    (dict(make={'a': make_mlp}, spec=None), 'pair of a function'), (dict(make={'a': (make_mlp, space)}), 'comes with its own space'), (dict(start={'lr': 7.}), 'not in'),
    (dict(annealer=dict(screen='gq')), "screen='gq'"), (dict(annealer=dict(widht=1)), 'widht'), (dict(storage=3), 'storage=3'),
])
def test_mistakes_are_named(kwargs, match):
    with pytest.raises((ValueError,TypeError), match=match): search(**kwargs)

def test_failures_are_rejections():
    count = iter(range(100))
    def make(width, p):
        if next(count) in (1,5): raise RuntimeError('out of memory, say')
        return mlp(width, p)
    def diverge(learn):
        if learn.opt.hypers[-1]['wd']<.05: return
        learn.loss_grad = learn.loss_grad*math.nan
        learn.loss = learn.loss_grad.detach()
    res = search(make, {**space, 'wd': Categorical(0.,.1)}, n_trials=12, cbs=Each('after_loss', diverge), early=0)
    failed = [t for t in res.trials if t.state=='failed']
    assert len(failed)>2 and not any(t.accepted for t in failed)
    assert res.trials[1].error=='RuntimeError: out of memory, say' and any('not finite' in t.error or 'nan' in t.error for t in failed)
    assert res.best['wd']==0 and res.history.error.astype(bool).sum()==len(failed)
    json.loads(res.to_json())
    res.plot('trials')

def test_when_everything_fails_we_hear_why():
    def make(width, p): raise KeyError('dropuot')
    with pytest.raises(SearchError, match='first 3 trials failed.*dropuot'): search(make)
    with pytest.raises(SearchError, match='first 2 trials failed'): search(make, n_trials=2)
    res = search(max_params=3, n_trials=4)
    assert {t.state for t in res.trials}=={'failed'} and 'max_params' in res.trials[0].error and res.best is None and not any(t.epochs for t in res.trials)
    with pytest.raises(SearchError, match='no training came to its end'): res.best_learner()
    with pytest.raises(SearchError, match='no finalists'): res.finals()
    res.plot()

@pytest.mark.parametrize('mode', [None,'max'])
def test_what_should_become_larger(mode):
    res = search(monitor='accuracy', mode=mode, n_trials=10, repeat=0)
    complete = [t.value for t in res.trials if t.state=='complete']
    assert res.settings['mode']=='max' and res.best_value==max(complete)==res.history.best.iloc[-1]
    assert res.best_value>=np.median([t.value for t in res.trials]) and res.trials[0].energy==-res.trials[0].value

def test_start():
    res = search(start={'lr': .1, 'width': 20}, n_trials=3)
    assert res.trials[0].hps==dict(lr=.1, width=20, p=.25)

def test_interrupt_returns_what_there_is(tmp_path):
    is_on = []
    def stop(learn):
        if learn.epoch==1 and len(is_on)==4: raise KeyboardInterrupt
    def callback(result): is_on.append(1)
    file = tmp_path/'search.log'
    res = search(callback=callback, cbs=Each('before_epoch', stop), storage=file)
    assert len(res.trials)==4 and res.interrupted and res.best is not None
    assert facts(search(storage=file))==facts(search()) # the same process goes on

def test_timeout():
    assert len(search(timeout=0).trials)==0
    assert 'nothing' in repr(search(timeout=0))

def test_bar_and_table_respect_the_learner(capsys):
    search(progress=True, n_trials=3)
    out = capsys.readouterr().out
    assert 'trial' in out and 'valid_loss' in out
    def quiet_one(width, p):
        learn = mlp(width, p)
        learn.remove_cb(learn.progress)
        return learn
    search(quiet_one, progress=True, n_trials=3)
    search(n_trials=3)
    assert capsys.readouterr().out==''
    def silent(width, p):
        learn = mlp(width, p)
        learn.logger = noop
        return learn
    search(silent, progress=True, n_trials=3)
    assert 'width' not in capsys.readouterr().out

def test_without_optuna():
    code = """if True:
        import sys
        sys.modules['optuna'] = None
        from fastai_anneal.search.search import anneal_search
        from fastai_anneal.search.net import Net
        try: anneal_search(lambda lr: None, {})
        except ValueError as e: print(e)
        """
    assert "pip install 'fastai_anneal[search]'" in fresh_python(code).stdout

# ---- early rejection, noise, finals, weights, models

def with_curves(q):
    "A learner whose losses follow from `q` alone"
    learn = mlp(4)
    learn.q = q
    return learn

def fake_loss(learn): learn.recorder.values[-1][1] = (abs(math.log10(learn.q))+.1)*(1+2**-learn.epoch)

def test_early_rejection_saves_epochs_and_audits():
    fake = dict(make=with_curves, spec={'q': LogFloat(1e-2,1e2)}, n_epoch=5, cbs=Each('after_epoch', fake_loss, 55), repeat=0)
    res = search(n_trials=50, audit=.3, **fake)
    early = res.early
    assert early['stopped']>5 and early['epochs_saved']>15 and early['epochs']+early['epochs_saved']==250
    assert early['audited']>=1 and early['wrong']==0 # curves that are exactly alike
    assert not any(t.accepted for t in res.trials if t.state=='stopped')
    assert search(n_trials=20, early=0, **fake).early['stopped']==0

def test_forecast_covers():
    rng = np.random.default_rng(0)
    def curve():
        end,speed = rng.lognormal(-1, .5),rng.uniform(.5, 2)
        return [end*(1+math.exp(-speed*i))*rng.lognormal(0, .03) for i in range(5)]
    for alpha in (.05,.2):
        wrong = []
        for _ in range(300):
            curves,new = [(curve(),1.) for _ in range(60)],curve()
            if new[-1]<=np.median([c[-1] for c,_ in curves]): wrong.append(new[-1]<forecast_end(new[:2], curves, alpha)[0])
        assert np.mean(wrong)<=alpha+.06
    accuracies = [([-.1-i/100,-.5-i/100,-.6-i/100],1.) for i in range(14)]
    low,expected = forecast_end([-.2], accuracies)
    assert -.8<low<=expected==pytest.approx(-.7)
    assert forecast_end([.1], accuracies[:9])==(None,None) and forecast_end([math.nan], accuracies)==(None,None)

def result_of(*groups):
    "A result with the energies of each group for one configuration"
    trials = []
    for x,energies in enumerate(groups):
        first = len(trials)
        trials += [SearchTrial(first+i, {'x': x}, 0, first if i else None, state='complete', value=e, energy=e, curve=[e]) for i,e in enumerate(energies)]
    return SearchResult(trials, {'x': LinInt(0,99)}, dict(monitor='v', mode='min', n_epoch=1))

def test_score_of_a_search_and_of_finals():
    once = result_of([.3],[.2])
    assert once.score.value==.2 and math.isnan(once.score.se) and 'seen once' in repr(once)
    again = result_of([.10,.13,.12],[.2],[.3],[.4])
    assert again.best_value==pytest.approx(.125) and again.score.low<.125<again.score.high and 'seen 3 times' in repr(again)
    losing = result_of([.10,.13,.12],[.11,.13,.14],[.12,.14,.16],[.2]).score # the best of three is a lucky one
    assert (losing.low+losing.high)/2>losing.value
    finals = SearchResult(again.trials, again.spec, {**again.settings, 'finals': True})
    assert finals.best_value==pytest.approx(np.mean([.10,.13,.12]))
    largest = SearchResult([replace(t, energy=-t.value) for t in again.trials], again.spec, {**again.settings, 'mode': 'max'})
    assert largest.best_value==.4 and largest.score.low<.4<largest.score.high

def test_winner_is_by_mean_not_by_luck():
    assert result_of([.10],[.12,.13,.12],[.11,.3],[.4],[.5],[.6]).best['x']==1
    assert result_of([.3],[.2],[.25]).best['x']==1 and result_of([.3],[.05],[.25,.2501]).best['x']==1
    rng,regrets = np.random.default_rng(0),[]
    for _ in range(200):
        true = rng.normal(0, .05, 40)
        groups = [[e] for e in true+rng.normal(0, .05, 40)]
        for x in sorted(range(40), key=groups.__getitem__)[:5]: groups[x] += list(true[x]+rng.normal(0, .05, 2))
        lucky = min(range(40), key=lambda x: min(groups[x]))
        regrets.append((true[result_of(*groups).best['x']]-true.min(), true[lucky]-true.min()))
    by_mean,by_luck = np.mean(regrets, 0)
    assert by_mean<.9*by_luck

def test_repeats_have_other_seeds():
    res = search(n_trials=20, repeat=.3, early=0)
    repeats = [t for t in res.trials if t.repeats is not None]
    assert 4<=len(repeats)<=6
    assert all(t.hps==res.trials[t.repeats].hps and t.seed!=res.trials[t.repeats].seed and t.accepted is None for t in repeats)
    assert {t.repeats for t in repeats}&{t.number for group in ranked(res.trials)[:3] for t in group} # the best, not any

def test_finals():
    res = search(n_trials=10)
    finals = res.finals(3, n_epoch=3, n_seeds=2)
    first,second = finals.trials[:3],finals.trials[3:]
    assert [t.epochs for t in finals.trials]==[3]*6 and len({key_of(t.hps) for t in first})==3
    assert len({t.seed for t in first})==1 and {t.seed for t in first}!={t.seed for t in second}
    assert [t.repeats for t in finals.trials]==[None]*3+[0,1,2] and first[0].hps==res.best
    assert finals.best_value==pytest.approx(min(np.mean([a.value,b.value]) for a,b in zip(first, second)))
    with quiet(finals.best_learner()) as learn: assert learn.validate()[0]==pytest.approx(finals.best_trial.value, abs=1e-6)
    assert facts(finals)==facts(res.finals(3, n_epoch=3, n_seeds=2)) and len(res.trials)==10 and res.settings['n_epoch']==2
    assert json.loads(finals.to_json())['best']==finals.best and len(finals.history)==6
    seen = []
    def other(width, p):
        seen.append(width)
        return mlp(width, p)
    one = res.finals(4, n_seeds=1, distinct='width', make_learner=other)
    assert [t.hps['width'] for t in one.trials]==seen and len(set(seen))==len(seen) and one.settings['n_epoch']==2

@pytest.mark.parametrize('kwargs,match', [(dict(n=0), 'n=0'), (dict(n_seeds=1.5), 'n_seeds=1.5'), (dict(n_epoch=0), 'n_epoch=0'),
    (dict(distinct='widht'), "did you mean 'width'"), (dict(make_learner=lambda: 1), 'takes no')])
def test_what_is_no_finals(kwargs, match):
    with pytest.raises(SearchError, match=match): search(n_trials=3).finals(**kwargs)

def test_warm_continues():
    kwargs = dict(make=lambda width: mlp(width), n_trials=6, spec={'lr': LogFloat(1e-2,1.1e-2), 'width': 8}, repeat=0, early=0)
    warm,cold = search(warm=True, **kwargs),search(**kwargs)
    assert np.mean([t.value for t in warm.trials[3:]])<np.mean([t.value for t in cold.trials[3:]])

def linear(p): return Learner(dls, nn.Sequential(nn.Dropout(p), nn.Linear(6,2)), loss_func=CrossEntropyLossFlat(), metrics=accuracy)
models = {'linear': (linear, {'p': LinFloat(0,.5), 'lr': LogFloat(1e-3,1)}), 'mlp': (make_mlp, {'width': LogInt(4,32), 'lr': LogFloat(1e-3,1)})}

def test_model_selection():
    res = search(models, None, n_trials=24, n_epoch=3)
    table = res.history
    assert set(table.model)=={'linear','mlp'} and table.width[table.model=='linear'].isna().all() and res.best['model']=='mlp'
    assert (table.model=='mlp').sum()>(table.model=='linear').sum() # the promising one gets more
    assert set(res.best)=={'model','width','lr'} and res.best_learner().model[0].out_features==res.best['width']
    res.plot()
    assert {t.hps['model'] for t in res.finals(2, n_seeds=1, distinct='model').trials}=={'linear','mlp'}
    with pytest.raises(SearchError, match="make_learner\\['mlp'\\] takes no 'widht'"): search({'mlp': (make_mlp, {'widht': LogInt(4,32)})}, None)

def test_a_single_model():
    res = search({'mlp': models['mlp']}, None, n_trials=3)
    assert all(t.hps['model']=='mlp' for t in res.trials)
