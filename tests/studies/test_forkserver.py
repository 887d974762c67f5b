"""The server that workers are forked from."""

import subprocess
import sys

import pytest

INTERRUPTED_SERVER = """
import os, signal, threading
from convolab.studies.forkserver import worker_context

def work():
    print("worked", flush=True)

if __name__ == "__main__":
    context = worker_context()
    from multiprocessing import forkserver
    server = forkserver._forkserver._forkserver_pid
    threading.Timer(0.3, os.kill, (server, signal.SIGINT)).start()  # as a terminal does, while it imports torch
    worker = context.Process(target=work)
    worker.start()
    worker.join()
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        print("the parent gets its own")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no fork server")
@pytest.mark.slow
def test_a_ctrl_c_while_the_server_starts_does_not_end_it(tmp_path) -> None:
    script = tmp_path / "interrupted.py"
    script.write_text(INTERRUPTED_SERVER)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr, done.returncode) == ("worked\nthe parent gets its own\n", "", 0)
