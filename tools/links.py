"""Check a built site: `python tools/links.py FOLDER`

Every link to a page, an anchor or a file of the site must be there, and no page may load anything from elsewhere.
"""
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote,urlsplit

# What a browser fetches by itself
LOADED = {'script': 'src', 'img': 'src', 'iframe': 'src', 'source': 'src', 'link': 'href'}

class Page(HTMLParser):
    "Anchors, links and loaded files of a page"
    def __init__(self, path):
        super().__init__()
        self.anchors,self.links,self.loads = set(),[],[]
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[key] for key in ('id','name') if attrs.get(key)}
        if tag=='a' and attrs.get('href'): self.links.append(attrs['href'])
        loaded = attrs.get(LOADED.get(tag))
        if loaded: self.loads.append(loaded)

@cache
def page_at(path): return Page(path)

def fault(page, link):
    "What is wrong with `link`, or None"
    parts = urlsplit(link)
    if parts.scheme or parts.netloc: return None
    target = (page.parent/unquote(parts.path)).resolve() if parts.path else page
    if target.is_dir(): target = target/'index.html'
    if not target.exists(): return 'no such file'
    anchor = unquote(parts.fragment)
    if anchor and target.suffix=='.html' and anchor not in page_at(target).anchors: return 'no such anchor'

def is_elsewhere(link): return bool(urlsplit(link).netloc) and not link.startswith('data:')

def faults(folder):
    "Pairs of page and fault"
    for path in sorted(folder.rglob('*.html')):
        page = page_at(path)
        for link in page.links+page.loads:
            wrong = fault(path, link)
            if wrong: yield path.relative_to(folder),f'{link}: {wrong}'
        for link in filter(is_elsewhere, page.loads): yield path.relative_to(folder),f'loads {link}'

if __name__=='__main__':
    folder = Path(sys.argv[1]).resolve()
    found = list(faults(folder))
    for page,message in found: print(f'{page}: {message}')
    n_pages = sum(1 for _ in folder.rglob('*.html'))
    print(f'{n_pages} pages, {len(found)} faults')
    sys.exit(bool(found) or not n_pages)
