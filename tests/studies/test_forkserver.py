"""The server that workers are forked from."""

import subprocess
import sys
from pathlib import Path

import pytest

INTERRUPTED_SERVER = """
import os, signal, threading, time
from convolab.studies.forkserver import worker_context

def work():
    print("worked", flush=True)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts behind it ignore this
    context = worker_context()
    from multiprocessing import forkserver
    server = forkserver._forkserver._forkserver_pid
    threading.Timer(0.3, os.kill, (server, signal.SIGINT)).start()  # as a terminal does, while it imports torch
    worker = context.Process(target=work)
    worker.start()
    worker.join()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)  # it may take a moment
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


SERVER_OF_A_SCRIPT = """
from convolab.studies.forkserver import worker_context

def work():
    print("worked", flush=True)

if __name__ == "__main__":
    worker = worker_context().Process(target=work)
    worker.start()
    worker.join()
"""


@pytest.mark.slow
@pytest.mark.parametrize("module", ["signal", "torch", "numpy"])
def test_workers_import_nothing_of_the_folder_that_they_start_in(module: str, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / f"{module}.py").write_text("import pathlib\npathlib.Path('imported').touch()\n")
    script = tmp_path / "script.py"
    script.write_text(SERVER_OF_A_SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, cwd=stranger)
    assert (done.stdout, done.stderr, done.returncode) == ("worked\n", "", 0)
    assert not (stranger / "imported").exists()
