"""The command line, called in this process: what it printed and how it ended."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from convolab.cli.main import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Lab = Callable[..., Result]


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Lab:
    """`lab("train", "shallow_net")` as typed after `convolab`, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> Result:
        monkeypatch.setattr("sys.argv", ["convolab", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        return Result(code, *capsys.readouterr())

    return call
