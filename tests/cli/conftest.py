"""The command line, called in this process: its output and its exit code."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from convolab.cli.main import main


@dataclass(frozen=True)
class CliResult:
    """The exit code, standard output and standard error of a command."""

    code: int
    out: str
    err: str


RunCli = Callable[..., CliResult]


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> RunCli:
    """`run_cli("train", "shallow_net")` runs `convolab train shallow_net` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*args: object) -> CliResult:
        monkeypatch.setattr("sys.argv", ["convolab", *map(str, args)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return CliResult(code, *capsys.readouterr())

    return call
