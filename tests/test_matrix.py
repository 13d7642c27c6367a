"""Learners as fastai's factories make them, and all that is done with them here

`FASTAI_ANNEAL_MATRIX=1` runs every cell. By default some of those with resnet18, which take a minute in all, are left out: `multi_label` is the
same factory with a tiny network, and has them all.
"""
import os
import pytest
from fastai.collab import *
from fastai.tabular.all import *
from fastai.text.all import *
from fastai.vision.all import *
from fastai.vision.gan import GANLearner,basic_critic,basic_generator,generate_noise
from fastai_anneal.all import *
from helpers import *

pytestmark = pytest.mark.filterwarnings('ignore')

# ---- the learners: two batches an epoch

def images(block, label, **kwargs):
    "Loaders of 24 images of 16x16 pixels, with `label(generator)` each"
    rng = np.random.default_rng(0)
    items = [(rng.integers(0, 255, (16,16,3), dtype=np.uint8), label(rng)) for _ in range(24)]
    where = IndexSplitter(range(16,24))
    data = DataBlock((ImageBlock, block), get_x=ItemGetter(0), get_y=ItemGetter(1), splitter=where,
                     batch_tfms=aug_transforms(max_rotate=5., size=16))
    return data.dataloaders(items, bs=8, val_bs=3, num_workers=0, device='cpu')

def tiny_arch(pretrained=False):
    "A body of three convolutions, up to the pool"
    return nn.Sequential(ConvLayer(3, 8), ConvLayer(8, 8, stride=2), ConvLayer(8, 16, stride=2), nn.AdaptiveAvgPool2d(1))

TINY = dict(arch=tiny_arch, pretrained=False, normalize=False)

def vision():
    return vision_learner(images(CategoryBlock(vocab=['a','b','c']), lambda rng: 'abc'[rng.integers(3)]), resnet18, pretrained=False, metrics=accuracy)

def multi_label():
    dls = images(MultiCategoryBlock(vocab=['a','b','c']), lambda rng: [o for o in 'abc' if rng.random()<.5])
    return vision_learner(dls, metrics=accuracy_multi, **TINY)

def segmentation():
    dls = images(MaskBlock(codes=['ground','sky','tree']), lambda rng: rng.integers(0, 3, (16,16), dtype=np.uint8))
    return unet_learner(dls, metrics=DiceMulti(), **TINY)

WORDS = 'the a cat dog sees hears small big never always'.split()

def texts(n, least=4, most=40):
    rng = np.random.default_rng(0)
    return [' '.join(rng.choice(WORDS, rng.integers(least, most))) for _ in range(n)]

def config(of): return {**of, **dict(emb_sz=12, n_hid=14, n_layers=2)}

def language_model():
    splits = [list(range(16)),list(range(16,26))]
    dsets = Datasets(texts(26), [[str.split, Numericalize([PAD, *WORDS])]], splits=splits, dl_type=LMDataLoader)
    dls = dsets.dataloaders(bs=4, seq_len=45, num_workers=0, device='cpu') # the last batch is shorter
    return language_model_learner(dls, AWD_LSTM, config(awd_lstm_lm_config), pretrained=False, metrics=Perplexity())

def text_classifier():
    items,splits = [(o, 'yes' if 'cat' in o else 'no') for o in texts(30)],[list(range(16)),list(range(16,30))]
    vocab,cats = [PAD, *WORDS],Categorize(['no','yes'])
    dsets = Datasets(items, [[ItemGetter(0), str.split, Numericalize(vocab)], [ItemGetter(1), cats]], splits=splits, dl_type=SortedDL)
    dls = dsets.dataloaders(bs=8, val_bs=4, before_batch=partial(pad_input, pad_idx=0), num_workers=0, device='cpu')
    dls.vocab = L([vocab,cats.vocab])
    return text_classifier_learner(dls, AWD_LSTM, seq_len=20, config=config(awd_lstm_clas_config), pretrained=False, metrics=accuracy)

def tabular():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(dict(size=rng.normal(size=48), kind=rng.choice(list('abc'), 48)))
    table['label'] = np.where(table['size']+(table.kind=='a')>.3, 'yes', 'no')
    dls = TabularDataLoaders.from_df(table, procs=[Categorify,Normalize], cat_names=['kind'], cont_names=['size'], y_names='label', bs=16,
                                     valid_idx=list(range(32,48)), device='cpu')
    return tabular_learner(dls, layers=[8], metrics=accuracy)

def collab():
    rng = np.random.default_rng(0)
    ratings = pd.DataFrame(dict(user=rng.integers(0, 9, 60), item=rng.integers(0, 7, 60), rating=rng.integers(1, 6, 60)))
    return collab_learner(CollabDataLoaders.from_df(ratings, bs=16, seed=0, device='cpu'), n_factors=4, y_range=(0.,5.5), metrics=rmse)

class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body,self.kind,self.size = nn.Linear(8, 8),nn.Linear(8, 3),nn.Linear(8, 1)
    def forward(self, a, b):
        x = F.relu(self.body(torch.cat([a, b], 1)))
        return self.kind(x),self.size(x)

class TwoLosses(nn.Module):
    "Of a class and a number, for `reduction` to tell the loss of each item"
    reduction = 'mean'
    def forward(self, pred, kind, size):
        return F.cross_entropy(pred[0], kind, reduction=self.reduction)+F.mse_loss(pred[1].flatten(), size, reduction=self.reduction)

def kind_accuracy(pred, kind, size): return (pred[0].argmax(1)==kind).float().mean()

class Pairs(Items): n_inp = 2

def several():
    "Two inputs and two outputs"
    x = torch.randn(40, 8)
    items = [(o[:5], o[5:], int(o[:3].argmax()), o.sum()) for o in x]
    dls = DataLoaders.from_dsets(Pairs(items[:28]), Pairs(items[28:]), bs=14, val_bs=5, num_workers=0, device='cpu')
    return Learner(dls, TwoHeads(), TwoLosses(), metrics=kind_accuracy, splitter=lambda m: L(m.body, nn.ModuleList([m.kind,m.size])).map(params))

def gan():
    rng = np.random.default_rng(0)
    items = [rng.integers(0, 255, (16,16,3), dtype=np.uint8) for _ in range(24)]
    data = DataBlock((TransformBlock, ImageBlock), get_x=partial(generate_noise, size=10), splitter=IndexSplitter(range(16,24)))
    dls = data.dataloaders(items, bs=8, num_workers=0, device='cpu')
    return GANLearner.wgan(dls, basic_generator(16, 3, in_sz=10, n_features=8), basic_critic(16, 3, n_features=8), opt_func=RMSProp)

LEARNERS = dict(vision=vision, multi_label=multi_label, segmentation=segmentation, language_model=language_model, text_classifier=text_classifier,
                tabular=tabular, collab=collab, several=several, gan=gan)

def made(name, *cbs):
    "The learner, quiet"
    set_seed(0)
    learn = LEARNERS[name]()
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    learn.add_cbs(cbs)
    return learn

# ---- what is done with them

def outcome(learn):
    "What a training left"
    return dict(fingerprint(learn), values=learn.recorder.values)

def finds(name, **kwargs):
    learn = made(name)
    learn.fit(1, 1e-2)
    before = fingerprint(learn, attributes=True)
    found = learn.lr_find(show_plot=False, num_it=12, **kwargs)
    assert_same(before, fingerprint(learn, attributes=True))
    assert math.isfinite(found.lr) or found.warnings
    return found

def lr_find(name): finds(name)
def refined_lr_find(name): finds(name, refine=2, n_it=4)

def trains(name, cb, hyper='lr', n_epoch=3):
    "The values that `cb` gave `hyper` of the last group, a batch each"
    learn = made(name)
    seen = hypers_of_fit(learn, n_epoch, cb, 1e-2, hyper)
    assert math.isfinite(learn.recorder.values[-1][1])
    return seen[:,-1]

def cosine(name):
    seen = trains(name, CosineAnneal())
    assert seen[0]==1e-2 and (np.diff(seen)<0).all()

def torch_sched(name):
    seen = trains(name, TorchSched(partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=.5)))
    assert np.allclose(np.unique(seen), [.0025,.005,.01])

def plateau(name):
    seen = trains(name, Plateau(monitor='valid_loss', threshold=1., patience=0, factor=.1))
    assert np.allclose(np.unique(seen), [.001,.01])

def sim_anneal():
    return SimAnnealHP({'lr': LogFloat(1e-4, 1e-1), 'wd': LogFloat(1e-4, 1e-1)}, n_try=2, seed=0)

def sim_anneal_hp(name):
    learn,cb = made(name),sim_anneal()
    learn.fit(3, 1e-2, cbs=cb)
    assert len(cb.history) and np.isfinite(cb.history.value).any() and set(cb.values)=={'lr','wd'}
    assert len(cb.scores)==3

def resumed(name, make_cbs, stops, folder, n_epoch=2):
    "A fit that is killed after so many batches, and goes on, ends as one that is not"
    def learner(): return made(name, *make_cbs())
    whole = learner()
    whole.fit(n_epoch, 1e-2)
    for at in stops(len(whole.dls.train)):
        file = folder/f'{at}.pth'
        with pytest.raises((KeyboardInterrupt,RuntimeError)):
            learner().fit(n_epoch, 1e-2, cbs=[Checkpoint(file, every='1it'), KillAt(at)])
        other = learner()
        set_seed(9)
        other.fit(n_epoch, 1e-2, cbs=[Checkpoint(file, every='1it'), KillAt(None)])
        assert_same(outcome(whole), outcome(other))

def checkpoint(name, tmp_path): resumed(name, lambda: [CosineAnneal()], lambda n: (1,n+1), tmp_path)
def checkpoint_of_sim_anneal_hp(name, tmp_path): resumed(name, lambda: [sim_anneal()], lambda n: (n,n+1), tmp_path)

def both(name, *make_cbs, n_epoch=2):
    "Learner and TrainLearner end with the same bits"
    ends = []
    for make in (noop, TrainLearner.from_learner):
        learn = make(made(name, *[o() for o in make_cbs]))
        learn.fit(n_epoch, 1e-2)
        ends.append(outcome(learn))
    assert_same(*ends)

def train_learner(name): both(name)

def fine_tune(name):
    ends = []
    for looks in (False,True):
        learn,cb = made(name),SimAnnealHP({'wd': LogFloat(1e-4, 1e-1)}, seed=0)
        if looks:
            learn.freeze()
            learn.lr_find(show_plot=False, num_it=8)
        learn.fine_tune(2, 1e-2, cbs=cb)
        assert len(cb.history)
        ends.append(outcome(learn))
    assert_same(*ends)

def export(name, tmp_path):
    learn = TrainLearner.from_learner(made(name, CosineAnneal()))
    learn.path = tmp_path
    learn.fit(1, 1e-2)
    if name=='gan': learn.unfreeze() # fastai cannot export what its trainer has frozen
    learn.export()
    preds = []
    for o in (learn, load_learner(tmp_path/'export.pkl')):
        set_seed(0) # a GAN's validation items are noise
        preds.append(o.get_preds(dl=learn.dls.valid, reorder=False)[0])
    assert_same(*preds)

def plays_along(name, *make_cbs):
    "With `make_cbs` in the learner the search is no more than a search, the lean loop no other, and annealing works"
    both(name, *make_cbs)
    learn = made(name, *[o() for o in make_cbs])
    before = fingerprint(learn)
    learn.lr_find(show_plot=False, num_it=8)
    assert_same(before, fingerprint(learn))
    cb = sim_anneal()
    learn.fit(2, 1e-2, cbs=cb)
    assert len(cb.history)

NO_MIXUP = dict(segmentation='must match', language_model='expected dtype long|Long', text_classifier='expected dtype long|Long', tabular="no attribute|has no",
                collab='expected dtype|Long', several='no attribute', gan='GAN') # what fastai says in the first batch

def mixup(name):
    if name not in NO_MIXUP: return plays_along(name, MixUp)
    learn = made(name, MixUp())
    before = weights(learn)
    with pytest.raises(Exception, match=NO_MIXUP[name]): learn.lr_find(show_plot=False)
    assert_same(before, weights(learn))
    with pytest.raises(Exception, match=NO_MIXUP[name]): learn.fit(2, 1e-2, cbs=sim_anneal())

def fp16(name): plays_along(name, MixedPrecision)
def bf16(name): plays_along(name, lambda: MixedPrecision('bf16'))
def accumulation(name): plays_along(name, lambda: GradientAccumulation(20))

ACTIONS = [lr_find, refined_lr_find, cosine, torch_sched, plateau, sim_anneal_hp, checkpoint, checkpoint_of_sim_anneal_hp, train_learner, fine_tune,
           export, mixup, fp16, bf16, accumulation]

DEAR = checkpoint,checkpoint_of_sim_anneal_hp,fine_tune,mixup,fp16,bf16,accumulation,refined_lr_find
SEARCHES = lr_find,refined_lr_find,sim_anneal_hp,checkpoint_of_sim_anneal_hp,fine_tune,fp16,bf16,accumulation
CELLS = [(name, action) for name in LEARNERS for action in ACTIONS
         if os.environ.get('FASTAI_ANNEAL_MATRIX') or name!='vision' or action not in DEAR]

@pytest.mark.parametrize('name,action', CELLS, ids=lambda o: getattr(o, '__name__', o))
def test_matrix(name, action, tmp_path):
    do = partial(action, name, tmp_path) if 'tmp_path' in inspect.signature(action).parameters else partial(action, name)
    if name!='gan' or action not in SEARCHES: return do()
    with pytest.raises(ValueError, match='the two of a GAN work against each other'): do()
