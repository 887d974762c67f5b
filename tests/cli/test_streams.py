"""Standard streams that break: a command ends well, or with one line and exit code 2."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
CONVOLAB = f"{sys.executable} -m convolab"
TRAIN = "train shallow_net --epochs 2 --set data.limit=400 --out run"


def run_shell(folder: Path, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    shell = ["bash", "-c", re.sub(r"\bconvolab(?= [a-z-])", CONVOLAB, command, count=1)]
    environment = {**os.environ, **variables}
    return subprocess.run(shell, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300)


def assert_refused(result: subprocess.CompletedProcess[str], words: str) -> None:
    assert result.returncode == 2
    assert words in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["--version", "--help", "train --help", "data list", "data list --json"])
def test_a_result_that_is_not_printed_is_no_success(tmp_path: Path, command: str) -> None:
    assert_refused(run_shell(tmp_path, f"convolab {command} > /dev/full"), "No space left on device")
    assert_refused(run_shell(tmp_path, f"convolab {command} >&-"), "standard output is closed")


def test_a_pipe_without_a_reader_gets_one_line_and_no_traceback(tmp_path: Path) -> None:
    assert_refused(run_shell(tmp_path, 'convolab data list | true; exit "${PIPESTATUS[0]}"'), "Broken pipe")


@pytest.mark.parametrize("redirect", ["2> /dev/full", "2>&-", "2> >(true)"])
def test_progress_that_cannot_be_written_never_stops_the_work(tmp_path: Path, redirect: str) -> None:
    result = run_shell(tmp_path, f"convolab {TRAIN} {redirect}")
    assert result.returncode == 0
    assert "finished after 2 of 2 epochs" in result.stdout
    assert "convolab: " not in result.stdout


def test_without_both_streams_nothing_is_started(tmp_path: Path) -> None:
    assert run_shell(tmp_path, f"convolab {TRAIN} >&- 2>&-").returncode == 2
    assert not (tmp_path / "run").exists()


def test_a_terminal_of_ascii_gets_ascii(tmp_path: Path) -> None:
    command = "convolab summary simple_convnet --input 3x32x32"  # elsewhere it has a multiplication sign
    variables = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = run_shell(tmp_path, command, **variables)
    assert result.returncode == 0
    assert result.stdout.isascii()


@pytest.mark.parametrize("command", ["--help", "train --help", "data list", TRAIN])
def test_a_terminal_of_one_column_gets_the_result(tmp_path: Path, command: str) -> None:
    assert run_shell(tmp_path, f"convolab {command}", COLUMNS="1").returncode == 0


def test_a_study_runs_with_a_long_path_for_temporary_files_and_few_open_files(tmp_path: Path) -> None:
    long = tmp_path / ("t" * 100)
    long.mkdir()
    sweep = "sweep shallow_net optimizer.lr=0.1,0.2 --seeds 2 --data digits --out study"
    result = run_shell(tmp_path, f"ulimit -n 64; convolab {sweep}", TMPDIR=str(long))
    assert result.returncode == 0
    assert "4 of 4 runs" in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        "runs NAME", "test NAME", "train --recipe NAME", "train shallow_net --out NAME", "data show folder:NAME",
        "data show digits --out NAME.png", "study NAME", "compare NAME NAME", "handin check NAME", "theory --out NAME",
        "train shallow_net --data folder:~nouser/x", "runs /dev/null", "test /etc/passwd", "train --recipe /",
    ],
)  # fmt: skip
def test_a_path_that_cannot_be_is_one_line(run_cli, command: str) -> None:
    result = run_cli(*command.replace("NAME", "n" * 300).split())
    assert (result.code, result.err.count("\n"), result.out) == (2, 1, "")


NET = """from torch import nn


class Net(nn.Sequential):
    def __init__(self, shape, classes):
        super().__init__(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], classes))
"""


@pytest.mark.long
@pytest.mark.parametrize("data_root", ["file/below", ""])
def test_without_a_home_and_with_a_cache_that_cannot_be_written_own_networks_train_in_workers_too(
    tmp_path: Path, data_root: str
) -> None:
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "file").write_text("")
    variables = {
        "CONVOLAB_DATA": str(tmp_path / data_root) if data_root else "",
        "HOME": str(tmp_path / "file" / "none"),
    }
    train = run_shell(tmp_path, "convolab train net.py:Net --epochs 1 --set data.limit=400 --out run", **variables)
    assert train.returncode == 0, train.stderr
    sweep = "sweep net.py:Net optimizer.lr=0.1,0.2 --seeds 1 --data digits --out study"
    study = run_shell(tmp_path, f"convolab {sweep}", **variables)
    assert study.returncode == 0, study.stderr
    assert "2 of 2 runs" in study.stdout


@pytest.mark.long
def test_a_clock_that_goes_backwards_changes_no_result(tmp_path: Path) -> None:
    backwards = (
        "import time; now = [2e9]\n"
        "def earlier(): now[0] -= 100; return now[0]\n"
        "time.time = earlier\n"
        "from convolab.cli.main import main; main()"
    )
    for out, start in (("plain", "convolab"), ("backwards", f"{sys.executable} -c '{backwards}'")):
        result = run_shell(tmp_path, f"{start} train shallow_net --epochs 2 --set data.limit=400 --out {out}")
        assert result.returncode == 0, result.stderr
    for name in ("best", "last"):
        plain, other = ((tmp_path / out / f"{name}.safetensors").read_bytes() for out in ("plain", "backwards"))
        assert plain == other
