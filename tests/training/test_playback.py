"""What a run keeps of its epochs to be played back: right, exact on resuming, refused where it is damaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.callbacks import stop_after

import convolab
from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.training import playback
from convolab.training.checkpoint import read_tensors, write_tensors
from convolab.training.recipe import Recipe
from convolab.training.run import Run

pytestmark = pytest.mark.slow
MakeRecipe = Callable[..., Recipe]
OWN_NETWORK = """
from torch import nn
class Net(nn.Module):
    def __init__(self, shape, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, classes))
    def forward(self, pixels):
        return self.layers(pixels)
"""


@pytest.fixture
def kept(tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits) -> Run:
    return Run.start(make_recipe(), digits, tmp_path / "kept", log="playback")


def frames(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run.folder / "playback").iterdir())}


def test_the_last_epoch_kept_is_what_the_saved_network_says_and_no_bit_of_the_run_differs(
    kept: Run, tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits
) -> None:
    played = kept.playback()
    net = kept.net("last")
    assert played.epochs == [epoch.epoch for epoch in kept.history]
    assert len(played.images) == len(played.labels) == 7
    with torch.no_grad():
        expected = net(played.images.float() / 255).softmax(1)
    assert torch.allclose(played.probabilities[-1], expected, atol=1e-6)
    first = next(p for p in net.network.parameters() if p.dim() > 1)
    assert played.filters is not None
    assert torch.allclose(played.filters[-1].flatten(), first[: played.filters.shape[1]].flatten(), atol=1e-3)
    assert not torch.equal(played.filters[0], played.filters[-1])
    plain = Run.start(make_recipe(), digits, tmp_path / "plain")
    for name in ("last.safetensors", "best.safetensors"):
        assert (kept.folder / name).read_bytes() == (plain.folder / name).read_bytes()


def test_a_resumed_run_has_the_same_epochs_byte_for_byte(
    kept: Run, tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits
) -> None:
    stopped = Run.start(make_recipe(), digits, tmp_path / "stopped", log="playback", callbacks=stop_after(8))
    assert len(frames(stopped)) < len(frames(kept))
    assert frames(Run(stopped.folder).resume(digits)) == frames(kept)


@pytest.mark.parametrize(("steps", "kept"), [(12, [2, 3]), (14, [3])])
def test_epochs_before_the_log_began_are_left_out_and_no_weights_are_kept_as_those_of_an_epoch_before(
    steps: int, kept: list[int], tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits
) -> None:
    run = Run.start(make_recipe(), digits, tmp_path / "run", callbacks=stop_after(steps))
    assert len(run.history) == 2
    assert run.resume(digits, log="playback").playback().epochs == kept


@pytest.mark.parametrize(("limit", "read"), [(1, [3]), (2, [1, 3]), (3, [1, 2, 3])])
def test_of_too_many_epochs_some_are_read_and_the_last_one_always(
    limit: int, read: list[int], kept: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(playback, "MAX_FRAMES", limit)
    assert kept.playback().epochs == read


def test_a_network_whose_first_layer_does_not_take_the_image_keeps_predictions_alone(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(OWN_NETWORK)
    run = convolab.train(f"{tmp_path}/net.py:Net", epochs=1, out=tmp_path / "run", log="playback")
    played = run.playback()
    assert played.filters is None
    assert played.probabilities.shape == (1, 7, 10)


def test_a_run_that_kept_nothing_says_how_to(tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits) -> None:
    run = Run.start(make_recipe({"training.epochs": 1}), digits, tmp_path / "run")
    with pytest.raises(LabError, match="has no playback: train with --log playback"):
        run.playback()


def edit(path: Path, **changes: torch.Tensor) -> None:
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors | changes, metadata)


def edit_all(folder: Path, **changes: torch.Tensor) -> None:
    for path in folder.glob("epoch-*"):
        edit(path, **changes)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut off": lambda folder: (folder / "epoch-000002.safetensors").write_bytes(b"x" * 100),
    "other shape": lambda folder: edit(folder / "epoch-000002.safetensors", probabilities=torch.ones(3, 2)),
    "no image": lambda folder: edit(folder / "images.safetensors", images=torch.ones(7, 3, 4, 4)),
    "no class": lambda folder: edit(folder / "images.safetensors", labels=torch.full((7,), 99)),
    "empty image": lambda folder: edit(folder / "images.safetensors", images=torch.zeros(7, 1, 0, 8, dtype=torch.uint8)),
    "no number": lambda folder: edit(folder / "epoch-000002.safetensors", probabilities=torch.full((7, 10), torch.nan)),
    "no probability": lambda folder: edit(folder / "epoch-000002.safetensors", probabilities=torch.full((7, 10), -5.0)),
    "whole numbers": lambda folder: edit_all(folder, probabilities=torch.ones(7, 10, dtype=torch.int64)),
    "no filter": lambda folder: edit_all(folder, filters=torch.zeros(0, 1, 3, 3).half()),
    "many filters": lambda folder: edit_all(folder, filters=torch.zeros(9_000_000, 1, 1, 1).half()),
    "large filters": lambda folder: edit_all(folder, filters=torch.zeros(64, 1, 380, 390).half()),
    "filters of NaN": lambda folder: edit_all(folder, filters=torch.full((4, 1, 3, 3), torch.nan).half()),
    "another epoch": lambda folder: shutil.copy(folder / "epoch-000001.safetensors", folder / "epoch-000002.safetensors"),
    "a link": lambda folder: (folder / "epoch-000004.safetensors").symlink_to(folder / "epoch-000001.safetensors"),
    "too large": lambda folder: edit(folder / "epoch-000002.safetensors", more=torch.zeros(5_100_000)),
    "a folder": lambda folder: (
        (folder / "epoch-000002.safetensors").unlink(), (folder / "epoch-000002.safetensors").mkdir()
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_one_line(damage: str, kept: Run) -> None:
    DAMAGES[damage](kept.folder / "playback")
    with pytest.raises(LabError, match=r"damaged|too large|is not a file|is a link"):
        kept.playback()


def test_another_runs_epoch_is_refused(
    kept: Run, tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits
) -> None:
    other = Run.start(make_recipe({"training.seed": 5}), digits, tmp_path / "other", log="playback")
    shutil.copy(other.folder / "playback" / "epoch-000001.safetensors", kept.folder / "playback")
    with pytest.raises(LabError, match="belongs to another run"):
        kept.playback()


def test_a_deleted_run_takes_what_it_kept_with_it(kept: Run) -> None:
    assert json.loads((kept.folder / "log.json").read_text())["logger"] == "playback"
    assert kept.delete() == []
    assert not kept.folder.exists()


def test_all_epochs_together_are_bounded(kept: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(playback, "MAX_PLAYBACK_BYTES", 1000)
    with pytest.raises(LabError, match="may have 1,000: it is too large to be read"):
        kept.playback()


def test_a_folder_that_is_called_like_an_epoch_and_another_runs_epoch_stay(
    kept: Run, tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits
) -> None:
    other = Run.start(make_recipe({"training.seed": 5}), digits, tmp_path / "other", log="playback")
    place = kept.folder / "playback"
    shutil.copy(other.folder / "playback" / "epoch-000001.safetensors", place / "epoch-000008.safetensors")
    (place / "epoch-000009.safetensors").mkdir()
    (place / "epoch-000009.safetensors" / "thesis.tex").write_text("mine")
    (place / "epoch-000007.safetensors").write_text("mine")
    assert kept.delete() == [place]
    assert sorted(path.name for path in place.iterdir()) == [f"epoch-00000{n}.safetensors" for n in (7, 8, 9)]
    assert (place / "epoch-000009.safetensors" / "thesis.tex").read_text() == "mine"
