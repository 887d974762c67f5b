"""A folder's own homework.toml may be a stranger's: reading it runs nothing that it names, and trusts nothing."""

from pathlib import Path

import pytest
from support import own_parts
from support.small_homework import TOML

from convolab.core.errors import LabError
from convolab.handin.homework import find_homework
from convolab.training.parts import NAMED_PARTS

SOURCE = f"""
from pathlib import Path

Path("RAN").touch()
{own_parts.SOURCE}

class Net(torch.nn.Flatten):
    pass
"""
NAMES = {
    "model": "Net",
    "optimizer": "Steps",
    "schedule": "halved",
    "loss": "hinge",
    "sampling": "evenly",
    "validation_metric": "hits",
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a stranger's code in it, which leaves a mark when it is imported; nothing is trusted."""
    (tmp_path / "evil.py").write_text(SOURCE)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("convolab.core.trust._TRUSTED_HERE", set())
    return tmp_path


def read_recipe(here: Path, *entries: str) -> list[str]:
    """Read a folder's homework with one more recipe, and give what is in the current folder then."""
    recipe = "\n".join(["[recipes.evil]", *entries])
    (here / "work" / "homework.toml").write_text(TOML.replace("[recipes.own]", f"{recipe}\n\n[recipes.own]"))
    assert "evil" in find_homework(Path("work")).recipes
    return sorted(path.relative_to(here).as_posix() for path in here.rglob("*"))


UNTOUCHED = ["evil.py", "work", "work/homework.toml"]


def test_every_part_that_a_recipe_can_name_is_tried_here() -> None:
    assert NAMES.keys() == set(NAMED_PARTS)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["evil.py", "./evil.py", "evil"])
@pytest.mark.parametrize("part", NAMES)
def test_no_part_that_a_strangers_homework_names_is_imported_or_trusted(here: Path, part: str, module: str) -> None:
    name = f"{module}:{NAMES[part]}"
    assert read_recipe(here, f'"{part}.name" = "{name}"', f'"{part}.strength" = 3') == UNTOUCHED
    assert read_recipe(here, f'"{part}.name" = ["{name}"]') == UNTOUCHED


@pytest.mark.slow
@pytest.mark.parametrize(
    "entries",
    [
        '["evil.py:darker"]',
        '["evil:darker"]',
        '["flip", "./evil.py:darker(0.5)", "RandomErasing(0.5)"]',
        '["evil.py:darker", "evil:darker"]',
    ],
)
def test_no_transform_that_a_strangers_homework_names_is_imported_or_trusted(here: Path, entries: str) -> None:
    assert read_recipe(here, f'"data.augment" = {entries}') == UNTOUCHED


@pytest.mark.slow
def test_no_weights_that_a_strangers_homework_names_are_read_or_downloaded(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object) -> None:
        raise AssertionError(f"weights were asked for: {args}")

    monkeypatch.setattr("convolab.training.sections.sha256_of_weights", never)
    weights = ('"model.weights" = "pretrained"', '"model.pretrained_lr_factor" = 0.1')
    assert read_recipe(here, '"model.name" = "resnet_small"', *weights) == UNTOUCHED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("entries", "words"),
    [
        (('"data.augment" = ["evil.py:darker", "flib"]',), "recipes.evil: unknown augmentation 'flib'"),
        (('"model.name" = "evil.py:Net"', '"optimizer.lr" = -1.0'), "recipes.evil: optimizer.lr = -1.0"),
        (('"loss.name" = "evil:hinge"', '"optimizer.nam" = "sgd"'), "optimizer.nam"),
    ],
)
def test_what_stands_beside_somebodys_code_is_still_checked(here: Path, entries: tuple[str, ...], words: str) -> None:
    with pytest.raises(LabError) as caught:
        read_recipe(here, *entries)
    assert words in str(caught.value)
    assert not (here / "RAN").exists()
