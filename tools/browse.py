"""Open a built site in a real browser: `python tools/browse.py FOLDER`

Chromium opens some pages from the folder, without a server and without a network. None may write an error to its
console, and the search must find `CosineAnneal` in the reference.
"""
import re,shutil,subprocess,sys
from pathlib import Path

PAGES = ['index.html', 'guides/start.html', 'reference/lr.html', 'inside/schedule/family.html']
SEARCH = ('search.html?q=CosineAnneal', 'reference/schedule.html#api-cosineanneal')
FLAGS = '--headless --no-sandbox --disable-gpu --enable-logging=stderr --virtual-time-budget=10000 --dump-dom'.split()
TIMEOUT = 120 # seconds for a page, on a busy machine

def opened(browser, url):
    "The page after its scripts have run, and the errors of its console"
    run = subprocess.run([browser, *FLAGS, url], capture_output=True, text=True, timeout=TIMEOUT)
    console = re.findall(r':(?:ERROR|WARNING|INFO):CONSOLE.*?\] (.*)', run.stderr)
    return run.stdout,[line for line in console if re.search('error|refused|failed|not allowed', line, re.I)]

def faults(browser, folder):
    for page in PAGES:
        text,errors = opened(browser, f'file://{folder/page}')
        if '</html>' not in text: yield f'{page} does not open'
        for error in errors: yield f'{page}: {error}'
    page,found = SEARCH
    text,errors = opened(browser, f'file://{folder}/{page}')
    results = re.search(r'<ul[^>]*class="search">.*?</ul>', text, re.S)
    if results is None or found not in results[0]: yield f'{page} does not find {found}'
    for error in errors: yield f'{page}: {error}'

if __name__=='__main__':
    browser = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if browser is None:
        print('skipped: no chromium here to open the site with')
        sys.exit(0)
    wrong = list(faults(browser, Path(sys.argv[1]).resolve()))
    print('\n'.join(wrong) or f'{len(PAGES)+1} pages open in {Path(browser).name}, and its search works')
    sys.exit(1 if wrong else 0)
