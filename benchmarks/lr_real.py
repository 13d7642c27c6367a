"""Trainings on real data, of 40 to 12,800 steps, and ten fine-tunings: `REAL[name].learn(seed, order)`

`split='dev'`: constants may be chosen on it; `'held'`: looked at in the end only. What was looked at, and when, says
`lr_truth.json`, which also has the losses that rates of a grid lead to (by `lr_truth.py`).
"""
from lr_tasks import *
import copy,importlib,inspect,pkgutil

# ---- data without an end: an epoch is as many fresh batches as it is told to be

class Endless(DataLoader):
    "`n_batches` of an epoch, drawn from all the items; `draw` makes a batch of their numbers"
    def __init__(self, n_items, n_batches, draw, bs=64):
        super().__init__(range(n_items), bs=bs, shuffle=True, drop_last=True)
        self.n_batches,self.draw = n_batches,draw
    def __len__(self): return self.n_batches
    def get_idxs(self):
        rng = np.random.RandomState(self.rng.getrandbits(32))
        return rng.randint(0, self.n, self.bs*self.n_batches).tolist()
    def create_batches(self, rows):
        for chosen in torch.tensor(list(rows)).split(self.bs): yield self.draw(chosen)

@cache
def full_mnist(side, digits=tuple(range(10))):
    "Pairs of pixels and labels to train on and to validate, in `side` by `side` pixels"
    from torchvision.datasets import MNIST
    def pixels_of(mnist):
        kept = torch.isin(mnist.targets, torch.tensor(digits))
        x,y = mnist.data[kept][:,None].float()/255,mnist.targets[kept]-min(digits)
        return (F.avg_pool2d(x, 28//side)-.13)/.31,y
    folder = os.environ['FASTAI_ANNEAL_DATA']
    return pixels_of(MNIST(folder, train=True)),pixels_of(MNIST(folder, train=False))

def shifted(x, reach=1):
    "Each image moved by up to `reach` pixels in both directions; what leaves on one side enters on the other"
    n,side = len(x),x.shape[-1]
    rows,columns = ((torch.arange(side)+torch.randint(-reach, reach+1, (n,1)))%side for _ in range(2))
    return x[torch.arange(n)[:,None,None], 0, rows[:,:,None], columns[:,None]][:,None]

def moving_digits(n_batches, bs=64, side=14, digits=tuple(range(10)), is_flat=True, n_valid=4000):
    "Loaders of all of MNIST, with random shifts"
    (x,y),(valid_x,valid_y) = full_mnist(side, digits)
    def shaped(x): return x.flatten(1) if is_flat else x
    def draw(rows): return shaped(shifted(x[rows])),y[rows]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        valid = torch.utils.data.TensorDataset(shaped(shifted(valid_x))[:n_valid], valid_y[:n_valid])
    return Endless(len(x), n_batches, draw, bs),FastDL(valid, bs=1000)

# ---- text

LETTERS = '\n'+''.join(map(chr, range(32, 127)))

def encode(text): return torch.tensor([LETTERS.index(c) for c in text if c in LETTERS])

def docstrings(package):
    "Of everything that the public modules of `package` name, one after the other"
    modules = [package]+[f'{package}.{m.name}' for m in pkgutil.iter_modules(importlib.import_module(package).__path__)
                         if not m.name.startswith('_') and m.name not in ('conftest','tests','f2py','distutils')]
    found = {}
    for module in map(importlib.import_module, modules):
        for name in sorted(vars(module)): found.setdefault(inspect.getdoc(vars(module)[name]))
    return '\n'.join(sorted(filter(None, found)))

@cache
def text_of(source, n=600_000):
    "The first letters of the docstrings of numpy or scipy, or of Python's own modules, as numbers"
    if source!='python': return encode(docstrings(source))[:n]
    folder = Path(os.__file__).parent
    return encode(''.join(path.read_text(errors='ignore') for path in sorted(folder.glob('[a-d]*.py'))))[:n]

def letters(n_batches, source='numpy', bs=16, length=32, n_valid=600):
    "Loaders of pieces of a text, with the next letter as target; the last tenth of it is held back"
    text = text_of(source)
    n_train = len(text)*9//10
    def pieces(starts, text):
        windows = text[starts[:,None]+torch.arange(length+1)]
        return windows[:,:-1],windows[:,1:]
    held = text[n_train:]
    starts = torch.linspace(0, len(held)-length-1, n_valid).long()
    valid = torch.utils.data.TensorDataset(*pieces(starts, held))
    return Endless(n_train-length, n_batches, lambda starts: pieces(starts, text), bs),FastDL(valid, bs=100)

# ---- tables

def rows_of(data, bs=64, n=None):
    "Loaders of the pairs that `data` returns; with `n` only so many rows to train on, and all others to validate"
    (x,y),(valid_x,valid_y) = data()
    if n:
        x,rest_x = x[:n],x[n:]
        y,rest_y = y[:n],y[n:]
        valid_x,valid_y = torch.cat([valid_x,rest_x]),torch.cat([valid_y,rest_y])
    train,valid = torch.utils.data.TensorDataset(x, y),torch.utils.data.TensorDataset(valid_x, valid_y)
    return FastDL(train, bs=bs, shuffle=True, drop_last=True),FastDL(valid, bs=1000)

@cache
def moved_columns(name, n_valid, is_moved):
    "One half of the rows of a table of scikit-learn's; `is_moved`: the other half, its columns moved and scaled"
    (x,y),(valid_x,valid_y) = sk(name, n_valid)
    rng,half = np.random.RandomState(1),len(x)//2
    if not is_moved: return (x[:half],y[:half]),(valid_x,valid_y)
    scale,offset = (torch.tensor(v).to(x) for v in (rng.uniform(.5, 2, x.shape[1]), rng.randn(x.shape[1])))
    return (x[half:]*scale+offset,y[half:]),(valid_x*scale+offset,valid_y)

# ---- models in parts, for tuning: each part is a parameter group

class Letters(nn.Module):
    "What stands there, and where"
    def __init__(self, d, length):
        super().__init__()
        self.letter,self.place = nn.Embedding(len(LETTERS), d),nn.Parameter(torch.randn(length, d)*.02)
    def forward(self, x): return self.letter(x)+self.place[:x.shape[1]]

class Block(nn.Module):
    "Attention to what came before, and two layers at each position; pre-norm"
    def __init__(self, d, n_heads=4):
        super().__init__()
        self.n_heads,self.norms = n_heads,nn.ModuleList([nn.LayerNorm(d), nn.LayerNorm(d)])
        self.qkv,self.out = nn.Linear(d, 3*d),nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 2*d), nn.GELU(), nn.Linear(2*d, d))
    def attend(self, x):
        heads = self.qkv(x).view(*x.shape[:2], 3, self.n_heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(*heads, is_causal=True)
        return self.out(seen.transpose(1, 2).flatten(2))
    def forward(self, x):
        x = x+self.attend(self.norms[0](x))
        return x+self.mlp(self.norms[1](x))

def reader(d=32, n_blocks=2, length=32):
    head = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, len(LETTERS)))
    return nn.Sequential(Letters(d, length), *[Block(d) for _ in range(n_blocks)], head)

def seer(n_out, channels=(1,8,16)):
    "A CNN of three parts"
    *body,pool,flatten,head = cnn(n_out, channels)
    return nn.Sequential(nn.Sequential(*body[:3]), nn.Sequential(*body[3:], pool, flatten), head)

def by_columns(*sizes, n_out):
    "An MLP of as many parts as layers"
    hidden = [nn.Sequential(nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()) for a,b in zip(sizes, sizes[1:])]
    return nn.Sequential(*hidden, nn.Linear(sizes[-1], n_out))

# ---- trainings and tunings

SPANS['text'] = 8e-4,.3 # Of Adam and AdamW, for trainings that take long

class Training(Task):
    "A training of loaders, whose result is judged"
    def __init__(self,
        split, # 'dev' or 'held'
        loaders, # A function that returns two: to train on, to validate
        model, # A function that makes it
        opt, # Optimizer function
        n_epoch=1,
        span='adam', # Key of `SPANS`
        loss=None, # By default cross entropy
        factor=1.4 # Between two rates that the truth is known for
    ):
        store_attr()
        self.splitter = trainable_params

    def dls(self): return DataLoaders(*self.loaders(), device=torch.device('cpu'))

    def lrs(self):
        "The rates that the truth is known for"
        low,high = SPANS[self.span]
        n = 1+math.ceil(math.log(high/low, self.factor))
        return [float(f'{lr:.3g}') for lr in np.geomspace(low, high, n)]
    def made(self): return self.model()

    def learn(self, seed, order=None):
        "A new learner; `order` is another seed for the order of its data, and for their shifts"
        set_seed(seed)
        model = self.made()
        set_seed(seed if order is None else 1000+order)
        loss = self.loss or CrossEntropyLossFlat()
        return Learner(self.dls(), model, loss_func=loss, opt_func=self.opt, splitter=self.splitter)

def parts(model): return [params(part) for part in model]

class Tuning(Training):
    "The tuning of a model that `pretrained` returns"
    def __init__(self,
        split,loaders,pretrained,opt,n_epoch=1,span='adam',
        is_new=False, # Is the last part new?
        is_frozen=False, # All but the last part
        ratios=None, # Of the learning rates of the parts, to that of the last one
        is_recipe=False # By `fine_tune`, instead of `fit_one_cycle`
    ):
        store_attr()
        self.loss,self.splitter,self.factor = None,parts,1.8

    def made(self):
        model = copy.deepcopy(self.pretrained())
        for layer in flatten_model(model[-1]) if self.is_new else (): layer.reset_parameters()
        return model

    def learn(self, seed, order=None):
        learn = super().learn(seed, order)
        if self.is_frozen: learn.freeze()
        return learn

    @property
    def find_args(self): return dict(ratios=self.ratios) if self.ratios else {}

    def fit(self, learn, lr, **kwargs):
        "Tune `learn` at the peak `lr`"
        if self.is_recipe: learn.fine_tune(self.n_epoch-1, lr, **kwargs)
        else: learn.fit_one_cycle(self.n_epoch, [lr*ratio for ratio in self.ratios] if self.ratios else lr, **kwargs)

@cache
def pretrained(loaders, model, lr=5e-3):
    "A model after a training with Adam, the same at every call"
    with torch.random.fork_rng():
        learn = Training(None, loaders, model, Adam).learn(99)
        with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(1, lr)
    return learn.model

# ---- the list

thin,wide,deep = P(mlp,196,64,32,10),P(mlp,784,128,64,10),P(mlp,196,*[48]*7,10)
few_digits,old_digits = P(mnist,28,4000),tuple(range(5))
tiny = dict(n=60, bs=15) # with ten epochs: 40 steps

def rows(name, n_valid, **kwargs): return P(rows_of, P(sk,name,n_valid), **kwargs)
def targets(name, n_valid, **kwargs): return P(rows_of, P(sk_reg,name,n_valid), **kwargs)
def package_mlp():
    from fastai_anneal.mnist import mnist_mlp
    return mnist_mlp(128, 64)

@cache
def whole_mnist():
    train,valid = full_mnist(28)
    return train,valid

def decayed(decay, n): return [decay**depth for depth in reversed(range(n))]

read_numpy,see_old = P(letters,1500,'numpy'),P(moving_digits,600,digits=old_digits,is_flat=False)
reader_before,seer_before = P(pretrained,read_numpy,reader),P(pretrained,see_old,P(seer,5))
new_digits = P(moving_digits,digits=tuple(range(5,10)),is_flat=False)
digits_before = P(pretrained,P(rows_of,P(moved_columns,'digits',350,False)),P(by_columns,64,48,32,n_out=10))

REAL = dict(
    # 200 steps and less
    few_mlp_adam     = Training('dev',  P(rows_of,flat(few_digits)), wide, Adam, 3),
    few_cnn_adam     = Training('dev',  P(rows_of,P(mnist,14,4000)), P(cnn,10), Adam, 3),
    few_mlp_sgd      = Training('held', P(rows_of,flat(few_digits)), wide, sgdm, 3, 'sgd'),
    few_mlp_lamb     = Training('held', P(rows_of,flat(few_digits)), wide, Lamb, 3, 'lamb'),
    mlp_adam_200     = Training('dev',  P(moving_digits,200), thin, Adam),
    mlp_adamw_200    = Training('held', P(moving_digits,200), thin, adamw),
    mlp_sgd_200      = Training('dev',  P(moving_digits,200), thin, sgdm, span='sgd'),
    mlp_lamb_200     = Training('dev',  P(moving_digits,200), thin, Lamb, span='lamb'),
    cnn_adam_200     = Training('held', P(moving_digits,200,is_flat=False), P(cnn,10), Adam),
    cnn_adamw_200    = Training('dev',  P(moving_digits,200,is_flat=False), P(cnn,10), adamw),
    cnn_sgd_200      = Training('held', P(moving_digits,200,is_flat=False), P(cnn,10), sgdm, span='sgd'),
    numpy_adam_200   = Training('dev',  P(letters,200,'numpy'), reader, Adam),
    scipy_adamw_200  = Training('held', P(letters,200,'scipy'), reader, adamw),
    tiny_bc_adam     = Training('dev',  rows('breast_cancer', 150, **tiny), P(mlp,30,32,2), Adam, 10),
    tiny_wine_adam   = Training('held', rows('wine', 58, **tiny), P(mlp,13,64,64,3), Adam, 10),
    tiny_diabetes    = Training('dev',  targets('diabetes', 110, **tiny), P(mlp,10,64,64,1), adamw, 10, loss=mse),
    tiny_bc_sgd      = Training('held', rows('breast_cancer', 150, **tiny), P(mlp,30,32,32,2,bn=True), sgdm, 10, 'sgd'),
    # 300 to 1,000 steps
    mlp_adamw_800    = Training('dev',  P(moving_digits,200), thin, adamw, 4),
    mlp_adam_800     = Training('held', P(moving_digits,200), thin, Adam, 4),
    mlp_sgd_800      = Training('held', P(moving_digits,200), thin, sgdm, 4, 'sgd'),
    mlp_lamb_800     = Training('held', P(moving_digits,200), thin, Lamb, 4, 'lamb'),
    cnn_adam_800     = Training('dev',  P(moving_digits,200,is_flat=False), P(cnn,10), Adam, 4),
    cnn_sgd_800      = Training('dev',  P(moving_digits,200,is_flat=False), P(cnn,10), sgdm, 4, 'sgd'),
    cnn_adamw_800    = Training('held', P(moving_digits,200,is_flat=False), P(cnn,10), adamw, 4),
    deep_sgd_516     = Training('dev',  P(rows_of,flat(P(mnist,14,2752))), deep, sgdm, 12, 'sgd'),
    deep_sgd_800     = Training('held', P(moving_digits,200), P(mlp,196,*[32]*6,10), SGD, 4, 'sgd'),
    scipy_adam_800   = Training('dev',  P(letters,200,'scipy'), reader, Adam, 4, 'text'),
    numpy_adamw_800  = Training('held', P(letters,200,'numpy'), reader, adamw, 4, 'text'),
    digits_adam_440  = Training('dev',  rows('digits', 350), P(mlp,64,64,32,10), Adam, 20),
    digits_sgd_880   = Training('held', rows('digits', 350), P(mlp,64,64,32,10), sgdm, 40, 'sgd'),
    diabetes_adam    = Training('held', targets('diabetes', 110, bs=32), P(mlp,10,32,16,1), Adam, 40, loss=mse),
    package_adam_937 = Training('dev',  P(rows_of,whole_mnist), package_mlp, Adam),
    # more
    mlp_adam_3200    = Training('dev',  P(moving_digits,800), thin, Adam, 4),
    mlp_adamw_3200   = Training('held', P(moving_digits,800), thin, adamw, 4),
    mlp_sgd_3200     = Training('dev',  P(moving_digits,800), thin, sgdm, 4, 'sgd'),
    mlp_lamb_3200    = Training('held', P(moving_digits,800), thin, Lamb, 4, 'lamb'),
    cnn_adam_3200    = Training('held', P(moving_digits,800,is_flat=False), P(cnn,10), Adam, 4),
    cnn_adamw_3200   = Training('dev',  P(moving_digits,800,is_flat=False), P(cnn,10), adamw, 4),
    package_adam_3748= Training('held', P(rows_of,whole_mnist), package_mlp, Adam, 4),
    numpy_adamw_3200 = Training('dev',  P(letters,800,'numpy'), reader, adamw, 4, 'text', factor=1.8),
    scipy_adam_3200  = Training('held', P(letters,800,'scipy'), reader, Adam, 4, 'text', factor=1.8),
    mlp_adamw_12800  = Training('dev',  P(moving_digits,1600), thin, adamw, 8),
    mlp_adam_12800   = Training('held', P(moving_digits,1600), thin, Adam, 8),
    mlp_sgd_12800    = Training('held', P(moving_digits,1600), thin, sgdm, 8, 'sgd'),
    # tunings
    tune_text_all    = Tuning('dev',  P(letters,300,'python'), reader_before, Adam),
    tune_text_decay  = Tuning('held', P(letters,300,'python'), reader_before, adamw, ratios=decayed(.5, 4)),
    tune_text_slice  = Tuning('dev',  P(letters,300,'python'), reader_before, Adam, ratios=decayed(.01**(1/3), 4)),
    tune_text_head   = Tuning('held', P(letters,300,'python'), reader_before, adamw, is_new=True, is_frozen=True),
    tune_see_head    = Tuning('dev',  P(new_digits,200), seer_before, Adam, is_new=True, is_frozen=True),
    tune_see_all     = Tuning('held', P(new_digits,200), seer_before, sgdm, span='sgd', is_new=True),
    tune_see_recipe  = Tuning('dev',  P(new_digits,100), seer_before, Adam, 4, is_new=True, is_frozen=True,
                              is_recipe=True),
    tune_see_slice   = Tuning('held', P(new_digits,200), seer_before, adamw, is_new=True, ratios=[.01,.1,1.]),
    tune_rows_all    = Tuning('dev',  P(rows_of,P(moved_columns,'digits',350,True),bs=32), digits_before, adamw, 8),
    tune_rows_decay  = Tuning('held', P(rows_of,P(moved_columns,'digits',350,True),bs=32), digits_before, Adam, 4,
                              ratios=decayed(.6, 3)),
)
