"What the tests of two processes share"
import os
from contextlib import contextmanager
import torch,torch.distributed as dist

@contextmanager
def member(rank, port):
    "The block is one of two processes that talk by gloo; the process ends with it"
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE='2')
    torch.set_num_threads(1)
    dist.init_process_group('gloo', rank=rank, world_size=2)
    yield
    dist.barrier() # nobody leaves while the other one still talks to it
    dist.destroy_process_group()
    os._exit(0) # all is saved: no teardown of gloo's threads, which now and then aborts
