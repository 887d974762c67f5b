"""Random damage and random input: every command ends with 0 or with one line and 2, and never with a traceback.

The damage is drawn from a fixed seed. `make fuzz` tries much more of it: CONVOLAB_FUZZ is the number of trials of each.
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from convolab.cli.main import main
from convolab.core.errors import LabError
from convolab.training.recipe import Recipe, parse_override

pytestmark = pytest.mark.slow
TRIALS = int(os.environ.get("CONVOLAB_FUZZ", "12"))
TOKENS = (
    "[", "]", "{", "}", "=", '"', "'", ",", ".", "-", "0", "1e999", "nan", "inf", "true", "null", "\0", "\x1b[31m", "é",
    "\u202e", "</script>", "9" * 400, "[" * 400, "../", "/dev/zero", "training", "model", "name", "lr", "\n", "\t", " ",
    "optimizer.lr", "sgd", "simple_convnet", "crop:4", "-1", "1e-400", "None", "%s", "{0}", "#",
)  # fmt: skip


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


@pytest.mark.parametrize(
    "file",
    ["recipe.toml", "summary.json", "metrics.jsonl", "test.json", "best.safetensors", "state.safetensors"],
)
def test_a_damaged_run_is_refused_in_one_line_or_read(
    whole_run: Path, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = random.Random(file)
    content = (whole_run / file).read_bytes()
    for _ in range(TRIALS):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(whole_run, "run")
        damaged = damage(content, rng)
        (Path("run") / file).write_bytes(damaged)
        commands = (["runs", "."], ["test", "run"], ["resume", "run"], ["compare", "run", "run"])
        for arguments in (*commands, ["predict", "run", "nothing.png"]):
            code = call(arguments)
            captured = capsys.readouterr()
            assert code in (0, 2), (arguments, damaged)
            assert code == 0 or all(line.startswith("convolab: ") for line in captured.err.splitlines()), captured.err
            assert "Traceback" not in captured.err


def test_any_text_as_a_recipe_is_read_or_refused_in_one_line(tmp_path: Path) -> None:
    rng = random.Random("recipes")
    text = Recipe().to_toml().encode()
    for _ in range(5 * TRIALS):
        path = tmp_path / "recipe.toml"
        path.write_bytes(damage(damage(text, rng), rng))
        assert_one_line(lambda path=path: Recipe.read(path))


def test_any_override_is_taken_or_refused_in_one_line() -> None:
    rng = random.Random("overrides")
    keys = [f"{section}.{key}" for section, keys in Recipe().to_dict().items() for key in keys]
    for _ in range(20 * TRIALS):
        value = "".join(rng.choice(TOKENS) for _ in range(rng.randrange(5)))
        text = f"{rng.choice(keys) if rng.random() < 0.8 else rng.choice(TOKENS)}={value}"
        assert_one_line(lambda text=text: Recipe().with_overrides(dict([parse_override(text)])))


def assert_one_line(function: Callable[[], object]) -> None:
    message = ""
    try:
        function()
    except LabError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 2000
