"""Random damage and random input: every command ends with 0 or with one line and 2, and never with a traceback.

Nothing takes longer than ten seconds, and nothing is left in the working directory. The damage is drawn from fixed
seeds. `make fuzz` tries much more of it: CONVOLAB_FUZZ is the number that `TRIALS_PER_UNIT` multiplies.
"""

import gzip
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import tarfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support.small_sets import archive, cifar10_files, fashion_files, write_all

from convolab.cli.main import main
from convolab.core.errors import LabError
from convolab.data.annotations import read_annotations
from convolab.data.catalog import load
from convolab.data.download import extract_archive
from convolab.data.memmap import read_memmap
from convolab.data.url import fetch_url
from convolab.handin.notebook_file import read_notebook
from convolab.handin.pack import read_manifest
from convolab.handin.verify.archive import read_hand_in
from convolab.studies.executor import run_job
from convolab.studies.study import Study
from convolab.training.recipe import Recipe, parse_override

pytestmark = pytest.mark.slow
UNITS_OF_MAKE_TEST, UNITS_OF_MAKE_FUZZ = 12, 500
UNITS = int(os.environ.get("CONVOLAB_FUZZ", UNITS_OF_MAKE_TEST))
TRIALS_PER_UNIT = {  # docs/trust.md has the products
    "files of a run": 3,
    "recipes": 5,
    "values of `--set`": 20,
    "study files": 5,
    "files of a study's folder": 1,
    "headers of weights": 1,
    "images": 2,
    "archives and datasets": 5,
    "members of archives": 10,
    "boxes.json": 5,
    "notebooks": 5,
    "addresses": 20,
}
DEADLINE = 10  # seconds for one call
TOKENS = (
    "[", "]", "{", "}", "=", '"', "'", ",", ".", "-", "0", "1e999", "nan", "inf", "true", "null", "\0", "\x1b[31m", "é",
    "\u202e", "</script>", "9" * 400, "[" * 400, "../", "/dev/zero", "training", "model", "name", "lr", "\n", "\t", " ",
    "optimizer.lr", "sgd", "simple_convnet", "crop:4", "-1", "1e-400", "None", "%s", "{0}", "#",
)  # fmt: skip


@pytest.fixture(autouse=True)
def quick_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are made in full, and not drawn: drawing takes a second each."""
    monkeypatch.setattr("convolab.plots.style.render_svg", lambda chart: f"<svg>{len(json.dumps(chart))}</svg>")
    monkeypatch.setattr("convolab.plots.style.render_png", lambda svg, scale: b"\x89PNG\r\n\x1a\n" + bytes(12))


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tested run of two epochs."""
    folder = tmp_path_factory.mktemp("fuzz") / "run"
    call(["train", "shallow_net", "--epochs", "2", "--out", str(folder)])
    call(["test", str(folder)])
    return folder


def call(arguments: list[str]) -> int:
    """The exit code of a command; anything but an orderly end is raised."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["convolab", *arguments])
        try:
            main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


class TooSlow(BaseException):
    """A call took longer than it may. No error of the kinds that code expects: what it expects, it answers."""


@contextmanager
def deadline(seconds: float = DEADLINE) -> Iterator[None]:
    """Raise TooSlow in the block once it has taken too long, and after it if the block did not let it out."""
    is_over, message = False, f"this took more than {seconds} seconds"

    def fail(*_: object) -> None:
        nonlocal is_over
        is_over = True
        raise TooSlow(message)

    previous = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        if is_over:
            raise TooSlow(message)


def test_no_code_that_expects_errors_keeps_a_call_that_takes_too_long_from_failing() -> None:
    def wait(*expected: type[BaseException]) -> None:
        with suppress(*expected):
            time.sleep(5)

    started = time.monotonic()
    for expected in ((OSError, ValueError), (Exception,), (BaseException,)):
        with pytest.raises(TooSlow, match="more than"), deadline(0.02):
            wait(*expected)
    with deadline(0.5):
        pass
    assert time.monotonic() - started < 5


def trials(kind: str, part: int = 0, parts: int = 1) -> Iterator[random.Random]:
    """A generator of random numbers for each trial of a kind, or of a part of them."""
    for number in range(UNITS * TRIALS_PER_UNIT[kind])[part::parts]:
        yield random.Random(f"{kind} {number}")


def damage(content: bytes, rng: random.Random) -> bytes:
    """Content with one kind of damage: cut, emptied, bytes changed, a part doubled, left out, or replaced by a token."""
    position = rng.randrange(len(content) + 1)
    kind = rng.randrange(6)
    if kind == 0:
        return content[:position]
    if kind == 1:
        changed = bytearray(content)
        for _ in range(rng.choice((1, 3, 20))):
            if changed:
                changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    end = min(len(content), position + rng.choice((1, 10, 100)))
    if kind == 2:
        return content[:position] + content[end:]
    if kind == 3:
        return content[:end] + content[position:]
    if kind == 4:
        return content[:position] + rng.choice(TOKENS).encode() + content[end:]
    return rng.choice((b"", b"[]", b"{}", b"null", b"0", b"\xff\xfe", b'"a"', b"[" * 100_000))


def assert_orderly(arguments: list[str], captured: pytest.CaptureFixture[str], about: object) -> None:
    """A command ends with 0, or with lines of its own and 2."""
    with deadline():
        code = call(arguments)
    errors = captured.readouterr().err
    assert code in (0, 2), (arguments, about, errors)
    assert code == 0 or all(line.startswith("convolab: ") for line in errors.splitlines()), errors
    assert "Traceback" not in errors


def assert_one_line(function: Callable[[], object], about: object = None) -> None:
    """A function works, or raises a LabError of one short line."""
    message = ""
    try:
        with deadline():
            function()
    except LabError as error:
        message = str(error)
    assert "\n" not in message, about
    assert len(message) < 2000, about


RUN_FILES = ("recipe.toml", "summary.json", "metrics.jsonl", "test.json", "best.safetensors", "state.safetensors")


@pytest.mark.parametrize("file", RUN_FILES)
def test_a_damaged_run_is_refused_in_one_line_or_read(
    whole_run: Path, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = (whole_run / file).read_bytes()
    for rng in trials("files of a run", RUN_FILES.index(file), len(RUN_FILES)):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(whole_run, "run")
        damaged = damage(content, rng)
        (Path("run") / file).write_bytes(damaged)
        commands = (["runs", "."], ["test", "run"], ["resume", "run"], ["compare", "run", "run"])
        for arguments in (*commands, ["predict", "run", "nothing.png"]):
            assert_orderly(arguments, capsys, damaged)
        assert os.listdir() == ["run"]


def test_any_text_as_a_recipe_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    text = Recipe().to_toml().encode()
    for rng in trials("recipes"):
        path = tmp_path / "recipe.toml"
        path.write_bytes(damage(damage(text, rng), rng))
        assert_one_line(partial(Recipe.read, path), path.read_bytes())


def test_any_override_is_taken_or_refused_in_one_line() -> None:
    keys = [f"{section}.{key}" for section, keys in Recipe().to_dict().items() for key in keys]
    for rng in trials("values of `--set`"):
        value = "".join(rng.choice(TOKENS) for _ in range(rng.randrange(5)))
        text = f"{rng.choice(keys) if rng.random() < 0.8 else rng.choice(TOKENS)}={value}"
        assert_one_line(lambda text=text: Recipe().with_overrides(dict([parse_override(text)])), text)


# ---------------------------------------------------------------- studies

STUDY = {
    "name": "tiny",
    "seeds": [0],
    "recipe": {
        "data": {"limit": 60, "validation": 0.2},
        "model": {"name": "shallow_net", "hidden": 2},
        "training": {"epochs": 1, "batch_size": 16},
    },
    "sections": {
        "rates": {
            "arms": {"fast": {}, "slow": {"optimizer.lr": 0.001}},
            "contrasts": [{"arm": "fast", "baseline": "slow"}],
        },
        "grid": {"title": "Two", "grid": {"optimizer.lr": [0.1, 0.2]}, "curves": ["train_loss"], "seeds": [1]},
    },
}


class InProcess:
    """An executor that trains in this process: starting others takes longer than the trials."""

    def run(self, jobs: Sequence[Any], dataset_folder: Path, on_event: Any, should_stop: Any) -> None:
        for job in jobs:
            run_job(job, partial(read_memmap, dataset_folder), on_event, should_stop)


def test_any_text_as_a_study_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    text = Study.from_dict(STUDY).to_toml().encode()
    for rng in trials("study files"):
        path = tmp_path / "study.toml"
        path.write_bytes(damage(damage(text, rng) if rng.random() < 0.5 else text, rng))
        assert_one_line(partial(Study.read, path), path.read_bytes())


def test_a_damaged_folder_of_a_study_is_refused_in_one_line_or_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("convolab.cli.commands.study.choose_executor", lambda *_: InProcess())
    Study.from_dict(STUDY).write("study.toml")
    assert call(["study", "study.toml", "--out", "whole"]) == 0
    files = sorted(path.relative_to("whole") for path in Path("whole").rglob("*.*") if path.is_file())
    for rng in trials("files of a study's folder"):
        shutil.copytree("whole", "study")
        file = Path("study") / rng.choice(files)
        file.write_bytes(damage(file.read_bytes(), rng))
        for arguments in (
            ["runs", "study"],
            ["compare", "study:fast", "study:slow"],
            ["study", "study.toml", "--out", "study"],
        ):
            assert_orderly(arguments, capsys, file)
        assert {*os.listdir()} <= {"study", "study.toml", "whole", "comparison.html", "comparison.json"}
        shutil.rmtree("study")


# ---------------------------------------------------------------- weights


def any_json(rng: random.Random) -> Any:
    """A value of some type, small, large or deep."""
    return rng.choice(
        [None, True, -1, 0, 2**31, 2**63, 10**30, 1.5, 1e308, "", "F32", "x" * 300, [], {}, [[]], [-1, 2], [2**62, 2**62], {"a": []}]
    )  # fmt: skip


def replace_value(value: Any, rng: random.Random) -> Any:
    """Nested values with one of them, at any depth, replaced or left out."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.2:
        return any_json(rng)
    copy: Any = value.copy()
    key = rng.choice(list(copy)) if isinstance(copy, dict) else rng.randrange(len(copy))
    if rng.random() < 0.1:
        del copy[key]
    else:
        copy[key] = replace_value(copy[key], rng)
    return copy


def damage_header(content: bytes, rng: random.Random) -> bytes:
    """A file of tensors with a wrong length of its header, or one value of the header or of its metadata replaced."""
    length = int.from_bytes(content[:8], "little")
    header, tensors = json.loads(content[8 : 8 + length]), content[8 + length :]
    kind = rng.randrange(3)
    if kind == 0:
        return rng.choice((0, 1, length - 1, length + 1, 10**8, 2**63, 2**64 - 1)).to_bytes(8, "little") + content[8:]
    if kind == 1:
        header = replace_value(header, rng)
    else:
        header["__metadata__"]["about"] = json.dumps(replace_value(json.loads(header["__metadata__"]["about"]), rng))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def test_weights_whose_header_is_damaged_are_refused_in_one_line_or_read(
    whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save("image.png")
    for rng in trials("headers of weights"):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(whole_run, "run")
        file = Path("run") / rng.choice(["best.safetensors", "last.safetensors", "state.safetensors"])
        damaged = damage_header(file.read_bytes(), rng)
        file.write_bytes(damaged)
        if rng.random() < 0.5:
            (Path("run") / "test.json").unlink()
        summary = json.loads((Path("run") / "summary.json").read_text())
        (Path("run") / "summary.json").write_text(json.dumps(summary | {"status": rng.choice(["finished", "stopped"])}))
        for arguments in (["resume", "run"], ["test", "run"], ["predict", "run", "image.png"], ["runs", "."]):
            assert_orderly(arguments, capsys, damaged[:2000])
        assert {*os.listdir()} == {"run", "image.png"}


# ---------------------------------------------------------------- images, archives, boxes, notebooks, addresses


def test_a_damaged_image_is_refused_in_one_line_or_read(
    whole_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whole_run, "run")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    contents = {}
    for kind in ("png", "jpeg", "gif", "bmp", "webp"):
        Image.fromarray(pixels).save(buffer := io.BytesIO(), kind)
        contents[kind] = buffer.getvalue()
    call(["explain", "chelsea", "--net", "run", "--method", "gradient", "--out", "maps"])  # imports all that it needs
    for rng in trials("images"):
        kind = rng.choice(list(contents))
        image = Path(f"image.{kind}")
        image.write_bytes(damage(contents[kind], rng))
        for arguments in (
            ["predict", "run", str(image)],
            ["explain", str(image), "--net", "run", "--method", "gradient", "--out", "maps"],
            ["locate", str(image), "--net", "run", "--out", "map"],
        ):
            assert_orderly(arguments, capsys, image.read_bytes())
        image.unlink()
        assert all(name.startswith(("run", "map")) for name in os.listdir())


def test_a_damaged_archive_or_dataset_is_refused_in_one_line_or_read(tmp_path: Path) -> None:
    cifar, fashion = cifar10_files(2), fashion_files(2, 2)
    packed = archive({f"cifar-10-batches-py/{name}": content for name, content in cifar.items()})
    for rng in trials("archives and datasets"):
        folder = tmp_path / "data"
        kind = rng.randrange(3)
        if kind == 0:
            (tmp_path / "a.tar.gz").write_bytes(damage(packed, rng))
            assert_one_line(
                lambda folder=folder: extract_archive(tmp_path / "a.tar.gz", folder / "cifar-10-batches-py")
            )
        else:
            name, place, files = (
                ("cifar10", "cifar-10-batches-py", cifar) if kind == 1 else ("fashion_mnist", "fashion-mnist", fashion)
            )
            file = rng.choice(sorted(files))
            write_all(folder / place, files | {file: damage(files[file], rng)})
            assert_one_line(partial(load, name, folder / place, download=False), (file, kind))
        shutil.rmtree(folder, ignore_errors=True)
        (tmp_path / "a.tar.gz").unlink(missing_ok=True)
        assert not list(tmp_path.iterdir())


MEMBER_NAMES = (
    "data", "data/a", "data/a", "data/a/b", "data/b", "a", "../a", "data/../../a", "/tmp/a", "//a", ".", "..", "", "data//a/",
    "data/" + "x" * 300, "x/" * 100, "data/\x1b[31m", "data/a\nb", "data/\udcff", "C:\\a", "data/..\\a", "images.npy",
    "labels.npy", "images.npy", "classes.npy", "x_train.npy", "y_train.npy", "manifest.json", "manifest.json",
)  # fmt: skip
TAR_TYPES = (
    *(tarfile.REGTYPE,) * 20, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
    tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, b"Z",
)  # fmt: skip
NUMBERS = (
    b"",
    b"7",
    b"0" * 11,
    b"7" * 11,
    b"-1",
    b"8",
    b"\x80" + b"\xff" * 11,
    b"\x80" + bytes(6) + b"\x7f" * 5,
    b"\xff" * 12,
)


def any_content(rng: random.Random) -> bytes:
    """What a member may hold: nothing, text, an array as NumPy saves it, a lot of zeros, or another archive."""
    kind = rng.randrange(6)
    if kind == 5:
        return any_tar(rng) if rng.random() < 0.5 else any_zip(rng)
    if kind < 2:
        return (b"", b'{"format": 1}')[kind]
    if kind == 2:
        return bytes(3_000_000)
    shape = rng.choice([(8, 8, 8), (8, 8, 8, 3), (8,), (), (0, 8, 8), (2, 2)])
    return saved(shape, rng.choice(["uint8", "int64", "float32", "U3"]))


def any_tar(rng: random.Random) -> bytes:
    """A tar.gz of members with any names, kinds, times and sizes, whose headers have right checksums all the same."""
    blocks = bytearray()
    for _ in range(rng.randrange(1, 5)):
        content = any_content(rng) if rng.random() < 0.5 and len(blocks) < 5_000 else b"text"
        member = tarfile.TarInfo(rng.choice(MEMBER_NAMES[:5] if rng.random() < 0.7 else MEMBER_NAMES))
        member.type, member.size = rng.choice(TAR_TYPES), len(content)
        member.linkname = rng.choice(("", *MEMBER_NAMES, "/etc/passwd"))
        member.mode = rng.choice((0o644, 0, 0o777, 0o6755))
        member.mtime = rng.choice((0, 2**32, -1))
        header = bytearray(member.tobuf(rng.choice((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)), errors="surrogateescape"))
        if rng.random() < 0.4:
            start, length = rng.choice(((100, 8), (108, 8), (124, 12), (136, 12), (257, 8), (329, 8), (345, 155)))
            value = rng.choice(NUMBERS)[:length]
            header[len(header) - 512 + start : len(header) - 512 + start + length] = value.ljust(length, b"\0")
        block = header[-512:]
        block[148:156] = b" " * 8
        header[-512 + 148 : -512 + 156] = b"%06o\0 " % sum(block)
        blocks += header + content + bytes(-len(content) % 512)
    if rng.random() < 0.8:
        blocks += bytes(1024)
    packed = gzip.compress(bytes(blocks), 1, mtime=0)
    return packed + (packed if rng.random() < 0.1 else b"")


def any_zip(rng: random.Random) -> bytes:
    """A zip of members with any names, packed in any way; some claim to be encrypted or to have other sizes."""
    buffer = io.BytesIO()
    ways = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    members = [(rng.choice(MEMBER_NAMES), any_content(rng)) for _ in range(rng.randrange(3))]
    if not members or rng.random() < 0.6:  # what a reader looks for
        members = [("images.npy", saved((10, 8, 8), "uint8")), ("labels.npy", saved((10,), "int64")), *members]
        members.append(("manifest.json", b'{"name": "Ada"}'))
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(buffer, "w") as packed:  # of two with one name
        for name, content in rng.sample(members, rng.randrange(1, 1 + len(members))):
            member = zipfile.ZipInfo(name.replace("\udcff", "é") or "a")
            member.compress_type = rng.choice(ways)
            packed.writestr(member, content)
    content = bytearray(buffer.getvalue())
    if rng.random() < 0.5:
        # A field of the first member in the list at the end: version, flags, way, time, checksum, sizes, lengths, place.
        start = content.find(b"PK\1\2") + rng.choice((6, 8, 10, 12, 16, 20, 24, 28, 30, 32, 42))
        content[start : start + 2] = rng.choice((b"\1\0", b"\0\0", b"\xff\xff", b"\x63\0", b"\0\x80", b"\x0e\0"))
    elif rng.random() < 0.5:
        content[rng.randrange(30, 100)] ^= 1 + rng.randrange(255)  # in the first member's header or content
    return bytes(content)


def saved(shape: tuple[int, ...], dtype: str) -> bytes:
    """An array as NumPy saves it."""
    np.save(buffer := io.BytesIO(), np.zeros(shape, dtype))
    return buffer.getvalue()


def test_any_members_of_an_archive_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    root = tmp_path / "outer" / "inner"
    root.parent.mkdir()
    for rng in trials("members of archives"):
        root.mkdir()
        is_tar = rng.random() < 0.5
        content = any_tar(rng) if is_tar else any_zip(rng)
        content = damage(content, rng) if rng.random() < 0.2 else content
        if is_tar:
            path = root / "a.tar.gz"
            path.write_bytes(content)
            assert_one_line(partial(extract_archive, path, root / "data"), content[:2000])
            assert {*os.listdir(root)} <= {"a.tar.gz", "data"}
            assert all(
                not path.is_symlink() and (path.is_file() or path.is_dir()) for path in (root / "data").rglob("*")
            )
        else:
            path = root / "a.zip"
            path.write_bytes(content)
            assert_one_line(partial(load, f"npz:{path}", download=False), content[:2000])
            assert_one_line(partial(read_hand_in, path), content[:2000])
            assert_one_line(partial(read_manifest, path), content[:2000])
            assert os.listdir(root) == ["a.zip"]
        assert [*os.listdir(tmp_path), *os.listdir(tmp_path / "outer")] == ["outer", "inner"]
        shutil.rmtree(root)


def test_any_boxes_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    boxes = {
        "images": {"a.png": {"targets": {"cat": {"boxes": [[0, 0, 4, 4.5]]}}}},
        "imagenet_ids": {"cat": [281, 282]},
    }
    for rng in trials("boxes.json"):
        content = json.dumps(replace_value(boxes, rng)).encode()
        (tmp_path / "boxes.json").write_bytes(content if rng.random() < 0.7 else damage(content, rng))
        assert_one_line(partial(read_annotations, tmp_path), content)


def test_any_notebook_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    output = {
        "output_type": "display_data",
        "data": {"image/png": "aGVsbG8=", "text/plain": ["a", "b"]},
        "metadata": {},
    }
    cell = {
        "cell_type": "code",
        "source": ["a = 1\n", "a"],
        "outputs": [output],
        "metadata": {"tags": ["x"]},
        "execution_count": 1,
    }
    notebook = {"cells": [cell, {"cell_type": "markdown", "source": "# A", "metadata": {}}], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}  # fmt: skip
    for rng in trials("notebooks"):
        content = json.dumps(replace_value(notebook, rng)).encode()
        (tmp_path / "a.ipynb").write_bytes(content if rng.random() < 0.7 else damage(content, rng))
        assert_one_line(partial(read_notebook, tmp_path / "a.ipynb", tmp_path), content)


PARTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["http://", "https://", "//", "@", "[", "]", "::1", "%", ":", "99999", "/", "\\", "?", "#", "127.1"]
    ),
    st.from_regex(r"https?://[a-z0-9.\[\]:@%-]{0,30}(/.*)?", fullmatch=True),
)


@settings(
    max_examples=UNITS * TRIALS_PER_UNIT["addresses"], derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(parts=st.lists(PARTS, max_size=4))
def test_any_address_without_a_public_host_is_refused_in_one_line(parts: list[str]) -> None:
    def no_network(host: object, *_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", no_network)
        with pytest.raises(LabError) as caught, deadline():
            fetch_url("".join(parts), timeout=5.0)
    assert len(str(caught.value).splitlines()) == 1


def test_the_numbers_of_trials_in_docs_are_those_of_the_code() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "trust.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| ([\d,]+) \| ([\d,]+) \|$", page.split("## Random damage")[1], re.MULTILINE)
    numbers = {kind: (int(few.replace(",", "")), int(many.replace(",", ""))) for kind, few, many in rows}
    assert numbers == {
        kind: (UNITS_OF_MAKE_TEST * number, UNITS_OF_MAKE_FUZZ * number) for kind, number in TRIALS_PER_UNIT.items()
    }
