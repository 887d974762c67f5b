"""The page's application in this process for single requests, and its real server for a browser."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starlette.testclient import TestClient

from convolab.app.safety import AllowedHosts, Tokens
from convolab.app.server import AppState, build_app

HOST = "127.0.0.1:8360"
ORIGIN = {"Origin": f"http://{HOST}"}


def client_of(state: AppState, host: str = "127.0.0.1", tokens: Tokens | None = None) -> TestClient:
    """Requests to an application that nobody serves; the queue stands still."""
    app = build_app(state, AllowedHosts(host, 8360), tokens)
    return TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False)


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[str]:
    """`convolab app` of the runs in a folder, as a process of its own: its address."""
    command = [sys.executable, "-m", "convolab", "app", "--runs", "runs", "--no-open", "--port", "0", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        try:
            assert line.startswith("the page is at http://"), line + process.stderr.read()
            yield line.split()[4]
        finally:
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=20)
        assert not errors, errors
