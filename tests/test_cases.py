"""Small inputs that went wrong once, each as a person typed it: one line, exit code 2, and nothing new on the disk.

What went wrong otherwise is tested beside the module that mends it.
"""

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convolab.cli.main import main

LONG, MANY_NINES = "x" * 300, "9" * 400
TRAIN = "train simple_convnet --epochs 1 --out run"
REFUSED = [  # a command, and words of the line
    # harm to the machine
    ("train shallow_net --threads 1000000", "this machine has"),
    (f"sweep shallow_net optimizer.lr={','.join(map(str, range(1, 991)))} training.epochs={','.join(map(str, range(1, 991)))}", "980,100 arms"),
    ("sweep shallow_net optimizer.lr=0.1,0.2 --seeds 300000", "600,000 runs"),
    ("train --recipe /dev/zero", "is not a file"),
    ("train --recipe pipe", "is not a file"),
    ("train --recipe linked.toml", "is not a file"),
    ("study /dev/zero", "no study file"),
    ("study pipe", "no study file"),
    ("explain pipe --out o", "a pipe or a device"),
    ("explain /dev/zero --out o", "a pipe or a device"),
    ("train pipe.py:Net", "no file pipe.py"),
    ("explain drawing.eps --out o", "not an image"),
    ("explain huge.png --out o", "more than the limit"),
    # no network
    ("train subprocess:Popen", "no Python file of a network"),
    ("train os:kill", "no Python file of a network"),
    ("train --recipe kill.toml", "no Python file of a network"),
    # tracebacks once
    (f"{TRAIN} --batch-size 1", "cannot be trained on batches of 1 image"),
    ("train simple_convnet --batch-size 1 --overfit-one-batch", "cannot be trained on batches of 1 image"),
    (f"{TRAIN} --set model.channels=[1000000000]", "at most 1000000"),
    (f"{TRAIN} --set model.channels={'[' * 400}{']' * 400}", "model"),
    (f"{TRAIN} --set training.epochs={'9' * 5000}", "too many digits"),
    (f"{TRAIN} --set optimizer.lr=1e999", "finite"),
    ("train --recipe deep.toml", "nested too deep"),
    ("train --recipe digits.toml", "5000 digits"),
    ("train shallow_net --data folder:~nouser/x", "home folder is not known"),
    (f"train {LONG}.py:Net", "File name too long"),
    (f"explain {LONG}.png --out o", "file systems allow 255"),
    (f"explain chelsea --net {LONG} --out o", "File name too long"),
    (f"explain chelsea --out {LONG}", "over 255 bytes"),
    (f"resume {LONG}", "File name too long"),
    (f"predict {LONG} row.png", "File name too long"),
    (f"data show cifar10 --data-dir {LONG}", "file systems allow 255"),
    # sizes that are no sizes
    ("locate row.png --out o", "at least 8 pixels a side"),
    ("locate column.png --out o", "at least 8 pixels a side"),
    ("locate dot.png --out o", "at least 8 pixels a side"),
    ("locate chelsea --scale 1e308 --out o", "is not a scale"),
    (f"locate chelsea --scale {MANY_NINES} --out o", "is not a scale"),
    (f"locate chelsea --scale {MANY_NINES}px --out o", "is not a scale"),
    ("locate chelsea --scale px --out o", "is not a scale"),
    ("fool chelsea --target 1 --step-size 1e308 --out o", "the step size is 1e+308"),
    ("fool chelsea --target 1 --objective '' --out o", "unknown objective ''"),
    (f"summary simple_convnet --input 3x32x32 --batch-size {MANY_NINES}", ""),
    ("summary --layer 'Conv2d(3, 8, 3, stride=0)' --input 3x8x8", "stride is at least 1"),
    ("summary --layer 'Conv2d(3, 8, 3, padding=-1)' --input 3x8x8", "padding is at least 0"),
    # what a terminal would obey
    ("train 'a\x1b[31m\nb'", "unknown network 'a\\x1b[31m\\nb'"),
    ("summary --layer 'Conv2d(3,\x1b[31m\n8' --input 3x8x8", "\\x1b[31m"),
    ("explain 'a\x1b[31m\nb.png' --out o", "a\\x1b[31m\\nb.png"),
    # addresses
    ("explain http://[fec0::1]/x.png --out o", "a private network"),
    ("explain http://[::127.0.0.1]:9/x.png --out o", "a private network"),
]  # fmt: skip


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the commands run, with the files that they name."""
    monkeypatch.chdir(tmp_path)
    for name in ("pipe", "pipe.py"):
        os.mkfifo(name)
    Path("linked.toml").symlink_to("/dev/zero")
    Path("kill.toml").write_text('[model]\nname = "os:kill"\n')
    Path("deep.toml").write_text(f"a = {'[' * 10_000}{']' * 10_000}")
    Path("digits.toml").write_text(f"[training]\nepochs = {'9' * 5_000}\n")
    Path("drawing.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n%%EOF\n")
    Path("huge.png").touch()
    os.truncate("huge.png", 5 << 30)  # sparse: it takes no space
    for name, size in (("row", (500, 1)), ("column", (1, 500)), ("dot", (1, 1))):
        Image.fromarray(np.zeros((size[1], size[0], 3), dtype=np.uint8)).save(f"{name}.png")
    return tmp_path


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    def run(command: str) -> int:
        monkeypatch.setattr("sys.argv", ["convolab", *shlex.split(command)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code if isinstance(end.value.code, int) else 0

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "words"), REFUSED, ids=[command[:60].replace("\x1b", "^") for command, _ in REFUSED]
)
def test_it_is_refused_in_one_line_before_anything_is_written(
    inputs: Path, call: Callable[[str], int], capsys: pytest.CaptureFixture[str], command: str, words: str
) -> None:
    before = sorted(inputs.rglob("*"))
    code = call(command)
    captured = capsys.readouterr()
    assert (code, captured.out, captured.err.count("\n")) == (2, "", 1)
    assert words in captured.err
    assert captured.err.rstrip("\n").isprintable()
    assert sorted(inputs.rglob("*")) == before
