"A PostgreSQL server of the machine's own packages, on the loopback, for the time of a test"
import os,pwd,shutil,socket,subprocess,tempfile,time
from pathlib import Path
import pytest

OPTIONS = '-c fsync=off -c listen_addresses=127.0.0.1 -c max_connections=50 -k {folder}'

def _programs():
    "The folder of `initdb` and `pg_ctl`, None if there is none"
    found = [Path(o) for o in [shutil.which('pg_ctl')] if o]+sorted(Path('/usr/lib/postgresql').glob('*/bin/pg_ctl'))
    return next((path.parent for path in reversed(found) if (path.parent/'initdb').exists()), None)

def _as_user():
    "How to run a program as one who may run a server: root may not"
    if os.geteuid()!=0: return [],None
    try: user = pwd.getpwnam('postgres')
    except KeyError: pytest.skip('root may not run PostgreSQL, and there is no user postgres')
    return ['setpriv', f'--reuid={user.pw_uid}', f'--regid={user.pw_gid}', '--clear-groups'],user

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

class Postgres:
    "A server in a folder of its own"
    running = None # the last that was started
    def __init__(self):
        self.programs = _programs()
        if self.programs is None: pytest.skip('no PostgreSQL here')
        pytest.importorskip('psycopg')
        self.prefix,user = _as_user()
        self.folder,self.port = Path(tempfile.mkdtemp(prefix='pg')),free_port()
        if user: shutil.chown(self.folder, user.pw_uid, user.pw_gid)
        self._run('initdb', '-D', self.folder/'data', '-U', 'me', '--auth=trust', '--no-sync')
        self.start()
        Postgres.running = self
        self.url = f'postgresql+psycopg://me@127.0.0.1:{self.port}/postgres'

    def _run(self, program, *args):
        command = [*self.prefix, self.programs/program, *args]
        done = subprocess.run([str(o) for o in command], capture_output=True, text=True, cwd=self.folder)
        assert not done.returncode, f'{program}: {done.stdout}{done.stderr}'

    def start(self):
        options = f'-p {self.port} '+OPTIONS.format(folder=self.folder)
        self._run('pg_ctl', '-D', self.folder/'data', '-l', self.folder/'log', '-w', '-o', options, 'start')

    def stop(self, mode='fast'): self._run('pg_ctl', '-D', self.folder/'data', '-m', mode, '-w', 'stop')
    def restart(self):
        "As an administrator does it, with a second without a server"
        self.stop()
        time.sleep(1)
        self.start()

    def close(self):
        self.stop('immediate')
        shutil.rmtree(self.folder, ignore_errors=True)
