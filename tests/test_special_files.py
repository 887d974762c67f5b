"""A pipe, a socket, a device, a huge file with holes, a folder or a broken link in the place of a file that is read.

Every command ends with 0 or with one line and 2, within ten seconds, and takes no memory for it.
"""

import os
import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.small_sets import cifar10_files, write_all
from test_fuzz import STUDY, InProcess, assert_orderly, call, quick_drawing

from convolab.studies.study import Study

__all__ = ["quick_drawing"]  # for every test here too
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such files"),
]
MAX_KILOBYTES = 400_000  # that a command may take for what it refuses
NET = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self, input_shape, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(input_shape[0] * input_shape[1] * input_shape[2], num_classes))
"""
TRAIN = "shallow_net --epochs 1 --set data.limit=100 --batch-size 32 --out new"
PETS = "shallow_net --epochs 1 --batch-size 4 --set data.image_size=8 --out new"
RUN = ("runs .", "test run", "resume run", "compare run other")
STUDY_COMMANDS = ("runs study", "compare study:fast study:slow", "study study.toml --out study")
READ_BY = {  # a file: the commands that read it
    **{f"run/{name}": RUN for name in ("recipe.toml", "metrics.jsonl", "summary.json")},
    "run/best.safetensors": (
        "test run", "resume run", "predict run image.png", f"train {TRAIN} --set model.weights=run",
        "explain image.png --net run --method gradient --out new",
    ),
    "run/state.safetensors": ("resume run", "resume run --epochs 3 --out new"),
    "run/test.json": ("test run", "runs ."),
    "run/.lock": ("runs .", "resume run", "test run"),
    "run/log.json": ("resume run", "runs ."),
    "own/code/net.py": ("test own", "predict own image.png", "resume own --epochs 2 --out new", "runs ."),
    "study/study.toml": STUDY_COMMANDS,
    "study.toml": ("study study.toml --out study",),
    "recipe.toml": ("train --recipe recipe.toml --out new",),
    "net.py": ("train net.py:Net --epochs 1 --out new", "summary net.py:Net --input 1,8,8"),
    "weights.safetensors": (f"train {TRAIN} --set model.weights=weights.safetensors",),
    "weights.pth": (f"train {TRAIN} --set model.weights=weights.pth",),
    "image.png": (
        "predict run image.png", "explain image.png --net run --method gradient --out new", "fool image.png --net run --out new",
        "locate image.png --net run --out new",
    ),
    "pets/a/0.png": (f"train {PETS} --data folder:pets", f"train {PETS} --data csv:labels.csv"),
    "labels.csv": (f"train {PETS} --data csv:labels.csv",),
    "pets.npz": (f"train {PETS} --data npz:pets.npz",),
    "data/cifar-10-batches-py/data_batch_1": ("data show cifar10 --data-dir data --out new.png",),
    "data2/cifar-10-python.tar.gz": ("data download cifar10 --data-dir data2",),
    "boxes/boxes.json": ("locate-score boxes --net run --out new",),
    "answers.md": ("theory --answers answers.md --out new",),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each kind."""
    folder = tmp_path_factory.mktemp("special") / "whole"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("convolab.plots.style.render_svg", lambda chart: "<svg></svg>")
        patch.setattr("convolab.plots.style.render_png", lambda svg, scale: b"\x89PNG\r\n\x1a\n" + bytes(12))
        patch.setattr("convolab.cli.commands.study.choose_executor", lambda *_: InProcess())
        rng = np.random.default_rng(0)
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save("image.png")
        for label in "ab":
            Path("pets", label).mkdir(parents=True)
            for number in range(8):
                Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(f"pets/{label}/{number}.png")
        rows = [f"pets/{label}/{number}.png,{label}" for label in "ab" for number in range(8)]
        Path("labels.csv").write_text("\n".join(["path,label", *rows]))
        np.savez("pets.npz", images=rng.integers(0, 256, (16, 8, 8), dtype=np.uint8), labels=np.arange(16) % 2)
        write_all(Path("data/cifar-10-batches-py"), cifar10_files(2))
        Path("net.py").write_text(NET)
        for directory in ("boxes", "data2"):
            Path(directory).mkdir()
        shutil.copy("image.png", "boxes/image.png")
        Study.from_dict(STUDY).write("study.toml")
        for command in (
            f"train {TRAIN.replace('--out new', '--out run')}",
            "test run",
            f"train {TRAIN.replace('--out new', '--out other')} --set training.seed=1",
            "train net.py:Net --epochs 1 --set data.limit=100 --batch-size 32 --out own",
            "study study.toml --out study",
        ):
            assert call(command.split()) == 0
    return folder


def make_socket(path: Path) -> None:
    with in_folder(path.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # a whole path may be too long for one


@contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def make_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)  # it has holes, and takes no space


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "socket": make_socket,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "empty device": lambda path: path.symlink_to("/dev/null"),
    "huge": make_huge,
    "folder": Path.mkdir,
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
}


@pytest.mark.parametrize("file", READ_BY)
@pytest.mark.parametrize(
    "kind", ["pipe", *(pytest.param(kind, marks=pytest.mark.long) for kind in KINDS if kind != "pipe")]
)
def test_what_is_no_usual_file_is_refused_in_one_line_and_holds_nobody(
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    file: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convolab.cli.commands.study.choose_executor", lambda *_: InProcess())
    monkeypatch.setattr("convolab.data.download_stream.DownloadStream.__enter__", refuse_network)
    for command in READ_BY[file]:
        shutil.rmtree(tmp_path / "work", ignore_errors=True)
        shutil.copytree(whole, tmp_path / "work", symlinks=True)
        os.chdir(tmp_path / "work")
        Path(file).unlink(missing_ok=True)
        KINDS[kind](Path(file))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert_orderly(command.split(), capsys, (file, kind))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MAX_KILOBYTES


def refuse_network(*_: object) -> None:
    raise AssertionError("a test has no network")
