"""How the page ends: Ctrl-C while it computes is one quiet line, and no traceback."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")
@pytest.mark.parametrize("signals", [1, 2])
def test_ctrl_c_while_the_page_computes_is_one_line_and_no_traceback(tmp_path: Path, signals: int) -> None:
    command = [sys.executable, "-m", "convolab", "app", "--no-open", "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        address = server.stdout.readline().split()[4].rstrip("/")
        answers: list[dict[str, object]] = []

        def ask() -> None:
            """Check a map, which takes many seconds."""
            connection = http.client.HTTPConnection(address.removeprefix("http://"))
            headers = {"Origin": address, "Content-Type": "application/json"}
            connection.request("POST", "/api/explain/check/smoothgrad", json.dumps({"image": "chelsea"}), headers)
            answers.append(json.loads(connection.getresponse().read()))
            connection.close()

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(3)  # by then it computes, or imports torch
        assert not answers, "the check was quicker than this test: wait less"
        for _ in range(signals):
            server.send_signal(signal.SIGINT)
        code = server.wait(timeout=30)
        errors = server.stderr.read()
        asking.join(timeout=10)
    assert errors == "convolab: the page has ended\n"
    assert code == 0
    assert answers == [{"cancelled": True}]
