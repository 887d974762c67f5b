"""A run: a folder whose files say what was trained, how it went and how good it is."""

import hashlib
import importlib.metadata
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock
from PIL import Image
from support.callbacks import FunctionCallbacks, stop_after

from convolab.core.environment import RECORDED_PACKAGES
from convolab.core.errors import LabError
from convolab.data.catalog import load
from convolab.data.dataset import ImageDataset
from convolab.data.splits import DatasetSplits
from convolab.training import run as run_module
from convolab.training.checkpoint import PREVIOUS_STATE_FILE, STATE_FILE, read_tensors, read_weights
from convolab.training.evaluation import evaluate
from convolab.training.overfit import check_overfit
from convolab.training.recipe import Recipe
from convolab.training.run import Run, find_runs, train
from convolab.training.setup import train_validation_split
from convolab.training.trainer import Diverged, Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

OWN_NETWORK = """
from torch import nn

class Forgetful(nn.Module):
    def __init__(self, shape, classes, rate: float = 0.5):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(rate), nn.Linear(16, classes))

    def forward(self, pixels):
        return self.layers(pixels)
"""

# Each keeps something else between two steps, or draws something else.
KINDS: dict[str, dict[str, Any]] = {
    "momentum": {},
    "batch norm": {"model.name": "simple_convnet", "model.channels": [4]},
    "adamw, averaged weights, a warm start": {
        "optimizer.name": "adamw",
        "training.ema": 0.9,
        "training.clip_norm": 1.0,
        "schedule.name": "cosine",
        "schedule.warmup": 0.7,
    },
    "augmented, mixed, judged exactly": {
        "data.augment": ["crop:1", "rotate", "mixup"],
        "metrics.train": "eval_pass",
        "training.label_smoothing": 0.1,
    },
    "dropout in a network of one's own": {"model.name": "own"},
    "bf16": {"training.precision": "bf16"},
    "no validation": {"data.validation": 0.0},
}


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def error_line(call: Callable[..., Any], *args: Any, **settings: Any) -> str:
    """The one line in which a call refuses."""
    with pytest.raises(LabError) as caught:
        call(*args, **settings)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.fixture(scope="module")
def wavering(
    tmp_path_factory: pytest.TempPathFactory, one_thread: None, digits: DatasetSplits, quick: Callable[..., Recipe]
) -> Run:
    """A finished run whose best epoch is not its last, and not its first."""
    for seed in range(30):
        recipe = quick({"training.seed": seed, "training.epochs": 4, "optimizer.lr": 0.5, "data.limit": 400})
        run = Run.start(recipe, digits, tmp_path_factory.mktemp("wavering") / "run")
        if 1 < run.best_epoch.epoch < 4:
            return run
    raise AssertionError("no seed wavers")


@pytest.fixture
def finished(wavering: Run, tmp_path: Path) -> Run:
    """A copy of the wavering run, to do anything to."""
    return Run(shutil.copytree(wavering.folder, tmp_path / "finished"))


@pytest.fixture
def validation(wavering: Run, digits: DatasetSplits) -> Any:
    return train_validation_split(wavering.recipe, digits)[1]


# ---------------------------------------------------------------- what a run leaves


@pytest.mark.slow
def test_a_finished_run_holds_the_files_it_says(wavering: Run):
    named = set(re.findall(r"[a-z]+(?:\.[a-z]+)*\.(?:toml|jsonl|safetensors|json)", Run.__doc__)) - {"test.json"}
    assert files(wavering.folder) - {".lock"} == named
    assert wavering.status == "finished"


def test_the_recipe_file_is_the_recipe_with_every_key(wavering: Run, quick: Callable[..., Recipe]):
    text = (wavering.folder / "recipe.toml").read_text()
    assert Recipe.read(wavering.folder / "recipe.toml") == wavering.recipe
    assert text == wavering.recipe.to_toml()
    assert wavering.recipe.model == quick().model


def test_the_summary_says_on_what_and_with_what_the_run_was_made(wavering: Run, digits: DatasetSplits):
    summary = json.loads((wavering.folder / "summary.json").read_text())
    assert summary["versions"] == {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES}
    assert {"convolab", "torch"} <= set(summary["versions"])
    assert summary["threads"] == 1
    assert summary["hardware"]["cores"] == os.cpu_count()
    assert summary["hardware"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert summary["hardware"]["processor"]
    assert summary["recipe_key"] == wavering.recipe.key
    assert summary["data"] == {
        "dir": None,
        "train_sha256": digits.train.fingerprint,
        "test_sha256": digits.test.fingerprint,
    }
    assert summary["num_parameters"] == (64 * 16 + 16) + (16 * 10 + 10)
    assert (summary["device"], summary["precision"], summary["status"], summary["reason"]) == (
        "cpu",
        "fp32",
        "finished",
        None,
    )
    assert summary["epochs_done"] == 4
    assert summary["best"]["epoch"] == wavering.best_epoch.epoch
    assert summary["train_seconds"] == pytest.approx(sum(epoch.train_seconds for epoch in wavering.history))
    assert time.time() - time.mktime(time.strptime(summary["started_at"][:19], "%Y-%m-%dT%H:%M:%S")) < 3600


def test_a_bf16_run_says_so(tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]):
    run = Run.start(quick({"training.precision": "bf16", "training.epochs": 1}), digits, tmp_path / "run")
    assert run.summary["precision"] == "bf16"


def test_the_metrics_have_a_line_an_epoch(wavering: Run):
    lines = [json.loads(line) for line in (wavering.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        assert 0 < line["train_accuracy"] <= 1
        assert 0 < line["validation_accuracy"] <= 1
        assert line["train_loss"] > 0
        assert line["train_seconds"] > 0
        assert line["images_per_second"] == pytest.approx(360 / line["train_seconds"])
        assert (
            line["learning_rate"] == wavering.recipe.optimizer.lr
        )  # a step schedule whose first step is after 5 epochs


def test_the_best_weights_are_those_of_the_best_validation_accuracy_exactly(wavering: Run, validation: Any):
    figures = [epoch.validation_accuracy for epoch in wavering.history]
    assert wavering.best_epoch.epoch == figures.index(max(figures)) + 1
    result = evaluate(wavering.net("best"), validation)
    assert (result.loss, result.accuracy) == (wavering.best_epoch.validation_loss, max(figures))
    assert read_weights(wavering.folder / "best.safetensors")[1]["epoch"] == wavering.best_epoch.epoch


def test_the_last_weights_are_those_of_the_last_epoch_exactly(wavering: Run, validation: Any):
    result = evaluate(wavering.net("last"), validation)
    last = wavering.history[-1]
    assert (result.loss, result.accuracy) == (last.validation_loss, last.validation_accuracy)
    assert last.validation_loss != wavering.best_epoch.validation_loss
    assert read_weights(wavering.folder / "last.safetensors")[1]["epoch"] == 4


def test_exact_training_metrics_are_those_of_the_epochs_last_weights(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]
):
    recipe = quick({"metrics.train": "eval_pass", "training.epochs": 1, "data.augment": ["crop:2"]})
    run = Run.start(recipe, digits, tmp_path / "run")
    result = evaluate(run.net("last"), train_validation_split(recipe, digits)[0])
    assert (run.history[0].train_loss, run.history[0].train_accuracy) == (result.loss, result.accuracy)
    running = Run.start(recipe.with_overrides({"metrics.train": "running"}), digits, tmp_path / "running")
    assert running.history[0].train_loss > result.loss  # of weights that had learnt less, on images that were moved


def test_without_validation_the_best_is_the_last_epoch(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]
):
    recipe = quick({"data.validation": 0.0})
    run = Run.start(recipe, digits, tmp_path / "run")
    assert [(epoch.validation_loss, epoch.validation_accuracy) for epoch in run.history] == [(None, None)] * 3
    assert run.best_epoch == run.history[-1]
    assert run.summary["best"]["epoch"] == 3
    assert (run.folder / "best.safetensors").read_bytes() == (run.folder / "last.safetensors").read_bytes()
    assert len(train_validation_split(recipe, digits)[0]) == 200
    assert run.test()["epoch"] == 3


@pytest.mark.slow
def test_a_reader_finds_complete_lines_at_any_time(tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]):
    path, texts, over = tmp_path / "run" / "metrics.jsonl", [], threading.Event()

    def read() -> None:
        while not over.is_set():
            if path.exists():
                texts.append(path.read_text())

    reader = threading.Thread(target=read)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    reader.start()
    held, kept = [], []

    def hold(
        _: object,
    ) -> None:  # a file that is opened now must still read as it is now when the next epoch is written
        held.append(path.open())
        kept.append(path.read_text())

    try:
        Run.start(
            quick({"training.epochs": 30, "data.limit": 100}),
            digits,
            tmp_path / "run",
            callbacks=FunctionCallbacks(on_epoch=hold),
        )
    finally:
        over.set()
        reader.join()
        sys.setswitchinterval(interval)
    for text in texts:
        assert text == "" or text.endswith("\n")
        assert [json.loads(line)["epoch"] for line in text.splitlines()] == list(range(1, text.count("\n") + 1))
    counts = [text.count("\n") for text in texts]
    assert counts == sorted(counts)
    assert len(set(counts)) > 10
    for file, text in zip(held, kept, strict=True):
        with file:
            assert file.read() == text


def test_patience_ends_a_run_that_does_not_improve_and_it_is_finished(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]
):
    recipe = quick({"optimizer.lr": 1e-12, "training.patience": 2, "training.epochs": 9})
    run = Run.start(recipe, digits, tmp_path / "run")
    assert (run.best_epoch.epoch, len(run.history), run.status) == (1, 3, "finished")
    assert run.test()["epoch"] == 1
    before = run.folder / "metrics.jsonl"
    lines = before.read_text()
    assert Run(run.folder).resume(digits).status == "finished"
    assert before.read_text() == lines


# ---------------------------------------------------------------- the images of a run


@pytest.mark.parametrize("limit", [1, 5, 57, 101, 500, 1437, 1438])
def test_a_limit_takes_exactly_so_many_images_the_classes_in_proportion(digits: DatasetSplits, limit: int):
    chosen, _ = train_validation_split(Recipe.from_dict({"data": {"limit": limit, "validation": 0}}), digits)
    assert len(chosen) == limit
    whole = torch.bincount(digits.train.labels)
    for share, count in zip(
        whole * limit / len(digits.train), torch.bincount(chosen.labels, minlength=10), strict=True
    ):
        assert abs(share - count) < 1


def test_a_limit_is_drawn_by_the_seed_and_validation_is_held_out_of_it(digits: DatasetSplits):
    def rows(seed: int, limit: int) -> tuple[set[int], set[int]]:
        parts = train_validation_split(
            Recipe.from_dict({"data": {"limit": limit, "validation": 0.2}, "training": {"seed": seed}}), digits
        )
        return tuple(set(part.indices.tolist()) for part in parts)

    (kept, held), (other, _) = rows(0, 300), rows(1, 300)
    assert rows(0, 300) == (kept, held)
    assert kept != other
    assert not kept & held
    assert (len(kept), len(held)) == (240, 60)


def test_the_test_images_are_never_trained_on(digits: DatasetSplits):
    train_set, held = train_validation_split(Recipe(), digits)
    assert train_set.dataset is digits.train
    assert held.dataset is digits.train
    assert len(train_set) + len(held) == len(digits.train)


# ---------------------------------------------------------------- stopping and going on


@pytest.fixture(scope="module")
def kinds(
    tmp_path_factory: pytest.TempPathFactory, one_thread: None, quick: Callable[..., Recipe], digits: DatasetSplits
) -> Callable[[str], Run]:
    """Undisturbed, tested runs of each kind, made when first asked for."""
    folder, made = tmp_path_factory.mktemp("kinds"), {}
    (folder / "own.py").write_text(OWN_NETWORK)

    def undisturbed(kind: str) -> Run:
        if kind not in made:
            changes = KINDS[kind] | (
                {"model.name": f"{folder / 'own.py'}:Forgetful"} if KINDS[kind].get("model.name") == "own" else {}
            )
            made[kind] = Run.start(quick(changes), digits, folder / f"run {len(made)}")
            made[kind].test()
        return made[kind]

    return undisturbed


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_stopped_after_any_step_continues_bit_for_bit(
    tmp_path: Path, digits: DatasetSplits, kinds: Callable[[str], Run], timeless: Callable[[Path], Any], kind: str
):
    wanted = kinds(kind)
    for steps in (0, 1, 6, 8, 17):  # of 3 epochs of 6 (without validation 7)
        folder = tmp_path / str(steps)
        stopped = Run.start(wanted.recipe, digits, folder, callbacks=stop_after(steps))
        assert stopped.status == "stopped"
        again = Run(folder)
        assert again.status == "stopped"
        again.resume(again.load_splits())
        again.test()
        assert timeless(folder) == timeless(wanted.folder), f"stopped after {steps} steps"


@pytest.mark.slow
def test_a_run_stopped_again_and_again_continues_bit_for_bit(
    tmp_path: Path, digits: DatasetSplits, kinds: Callable[[str], Run], timeless: Callable[[Path], Any]
):
    wanted = kinds("adamw, averaged weights, a warm start")
    Run.start(wanted.recipe, digits, tmp_path / "run", callbacks=stop_after(1))
    for _ in range(100):
        run = Run(tmp_path / "run").resume(digits, callbacks=stop_after(1))
        if run.status == "finished":
            break
    run.test()
    assert timeless(tmp_path / "run") == timeless(wanted.folder)


def test_the_seconds_of_a_stopped_epoch_are_not_lost(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]
):
    run = Run.start(quick({"training.epochs": 1}), digits, tmp_path / "run", callbacks=stop_after(4))
    before = run.summary["train_seconds"]
    assert before > 0
    run.resume(digits)
    assert run.history[0].train_seconds > before
    assert run.history[0].images_per_second == pytest.approx(180 / run.history[0].train_seconds)


def test_a_finished_run_stays_as_it_is_when_resumed(finished: Run, digits: DatasetSplits):
    before = everything(finished.folder)
    steps = []
    finished.resume(digits, callbacks=FunctionCallbacks(on_step=steps.append))
    assert not steps
    assert everything(finished.folder) == before


@pytest.mark.slow
def test_a_damaged_state_is_reported_and_the_one_before_continues_bit_for_bit(
    tmp_path: Path, digits: DatasetSplits, kinds: Callable[[str], Run], timeless: Callable[[Path], Any]
):
    wanted, notes = kinds("momentum"), []
    run = Run.start(wanted.recipe, digits, tmp_path / "run", callbacks=stop_after(14))
    (run.folder / STATE_FILE).write_bytes((run.folder / STATE_FILE).read_bytes()[:999])
    run = Run(run.folder).resume(digits, callbacks=FunctionCallbacks(on_message=notes.append))
    assert len(notes) == 1
    assert notes[0].startswith(f"{run.folder / STATE_FILE} is damaged")
    assert notes[0].endswith("continuing from the state before it")
    run.test()
    assert timeless(run.folder) == timeless(wanted.folder)


def test_a_damaged_state_does_not_push_out_the_good_one_before_it(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]
):
    run = Run.start(quick(), digits, tmp_path / "run", callbacks=stop_after(14))
    (run.folder / STATE_FILE).write_bytes(b"damaged")
    good = (run.folder / PREVIOUS_STATE_FILE).read_bytes()
    Run(run.folder).resume(digits, callbacks=stop_after(0))  # which writes a state
    assert (run.folder / PREVIOUS_STATE_FILE).read_bytes() == good
    read_tensors(run.folder / STATE_FILE)


def test_two_damaged_states_are_refused_and_nothing_is_changed(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]
):
    run = Run.start(quick(), digits, tmp_path / "run", callbacks=stop_after(14))
    for name in (STATE_FILE, PREVIOUS_STATE_FILE):
        (run.folder / name).write_bytes(b"damaged")
    before = everything(run.folder)
    assert "is damaged" in error_line(Run(run.folder).resume, digits)
    assert everything(run.folder) == before


def test_the_parts_that_a_kill_left_are_cleared_away(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]
):
    run = Run.start(quick(), digits, tmp_path / "run", callbacks=stop_after(3))
    (run.folder / ".state.0badcafe.part.safetensors").write_bytes(b"half a st")
    run.resume(digits)
    assert not [name for name in files(run.folder) if ".part" in name]
    assert run.status == "finished"


def test_another_number_of_threads_is_reported(tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]):
    run, notes = Run.start(quick(), digits, tmp_path / "run", callbacks=stop_after(3)), []
    torch.set_num_threads(2)
    try:
        run.resume(digits, callbacks=FunctionCallbacks(on_message=notes.append))
    finally:
        torch.set_num_threads(1)
    assert notes == ["this run was started with 1 thread and continues with 2: results will not be bit-identical"]


def test_a_run_is_not_resumed_with_another_recipe_or_other_images(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]
):
    run = Run.start(quick(), digits, tmp_path / "run", callbacks=stop_after(3))
    before = everything(run.folder)
    darker = ImageDataset(digits.train.images // 2, digits.train.labels, digits.train.classes, "digits")
    assert "the train images of digits are not those of" in error_line(run.resume, digits._replace(train=darker))
    assert everything(run.folder) == before
    run.recipe.with_overrides({"optimizer.lr": 0.2}).write(run.folder / "recipe.toml")
    assert "recipe.toml was changed since the run began" in error_line(Run(run.folder).resume, digits)


@pytest.mark.timing
def test_two_processes_do_not_train_one_run(tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]):
    run = Run.start(quick(), digits, tmp_path / "run", callbacks=stop_after(8))
    before = everything(run.folder)
    with FileLock(run.folder / ".lock"):
        assert "is being trained by another process: wait for it, or stop it" in error_line(run.resume, digits)
    assert everything(run.folder) == before
    assert run.resume(digits).status == "finished"


@pytest.mark.timing
def test_a_run_is_running_while_it_is_locked_and_killed_when_it_is_not(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]
):
    seen = []
    Run.start(
        quick(),
        digits,
        tmp_path / "run",
        callbacks=FunctionCallbacks(on_epoch=lambda _: seen.append(Run(tmp_path / "run").status)),
    )
    assert seen == ["running"] * 3
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary | {"status": "running"}))
    assert Run(tmp_path / "run").status == "killed"
    assert Run(tmp_path / "run").resume(digits).status == "finished"


def test_a_callbacks_own_error_is_not_taken_for_one_of_the_disk(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]
):
    def look(_: object) -> None:
        (tmp_path / "nowhere").read_text()

    with pytest.raises(FileNotFoundError):
        Run.start(quick(), digits, tmp_path / "run", callbacks=FunctionCallbacks(on_epoch=look))
    assert not Run(tmp_path / "run").is_training


# ---------------------------------------------------------------- diverging


def test_a_diverging_recipe_is_reported_with_epoch_step_and_rate(tmp_path: Path, digits: DatasetSplits):
    recipe = Recipe.from_dict({"model": {"batch_norm": False}, "optimizer": {"lr": 1e30}})
    with pytest.raises(Diverged, match=r"in epoch 1, step 2, at learning rate 1e\+30: lower optimizer\.lr") as caught:
        Run.start(recipe, digits, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert (run.status, run.summary["reason"], run.history) == ("diverged", str(caught.value), [])
    for look in (run.net, run.test):
        assert "has no weights yet" in error_line(look)


@pytest.mark.slow
def test_a_run_that_diverges_later_keeps_its_last_good_epoch(
    tmp_path: Path,
    digits: DatasetSplits,
    quick: Callable[..., Recipe],
    kinds: Callable[[str], Run],
    timeless: Callable[[Path], Any],
):
    def poison(fit: Trainer) -> None:
        if (fit.progress.epoch, fit.progress.step) == (1, 4):
            next(fit.net.parameters()).data.fill_(float("nan"))

    with pytest.raises(Diverged, match=r"in epoch 2, step 5, at learning rate 0\.1"):
        Run.start(quick(), digits, tmp_path / "run", callbacks=FunctionCallbacks(on_step=poison))
    run = Run(tmp_path / "run")
    assert (run.status, run.summary["epochs_done"], len(run.history)) == ("diverged", 1, 1)
    good = Run.start(quick(), digits, tmp_path / "good", callbacks=stop_after(6))
    for name in ("best.safetensors", "last.safetensors"):
        assert (run.folder / name).read_bytes() == (good.folder / name).read_bytes()
    assert "is diverged after 1 of 3 epochs" in error_line(run.test)
    run.resume(digits)  # without the poison
    run.test()
    assert timeless(run.folder) == timeless(kinds("momentum").folder)


@pytest.mark.parametrize("validation", [0.1, 0.0])
@pytest.mark.parametrize("epochs", [1, 2])
def test_weights_that_diverge_in_an_epochs_last_step_are_detected(
    tmp_path: Path, digits: DatasetSplits, epochs: int, validation: float
):
    data = {"validation": validation}
    one_step = {
        "epochs": epochs,
        "batch_size": len(train_validation_split(Recipe.from_dict({"data": data}), digits)[0]),
    }
    recipe = Recipe.from_dict(
        {"data": data, "model": {"batch_norm": False}, "optimizer": {"lr": 1e38}, "training": one_step}
    )
    with pytest.raises(Diverged):
        Run.start(recipe, digits, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert (run.status, run.history) == ("diverged", [])


# ---------------------------------------------------------------- the test


@pytest.mark.slow
def test_the_test_is_what_counting_image_by_image_gives(finished: Run, digits: DatasetSplits):
    trained_on, _ = train_validation_split(finished.recipe, digits)
    pixels = trained_on.gather(torch.arange(len(trained_on)))[0].double() / 255
    net, test = finished.net(), digits.test
    losses, confusion = [], Counter()
    for image, label in zip(test.images, test.labels, strict=True):
        with torch.no_grad():
            logits = net.network(((image.double() / 255 - pixels.mean()) / pixels.std(correction=0)).float()[None])
        confusion[int(label), int(logits.argmax())] += 1
        losses.append(float(F.cross_entropy(logits.double(), label[None])))

    record = finished.test()
    correct, count = sum(confusion[i, i] for i in range(10)), len(test)
    assert (record["correct"], record["count"]) == (correct, count)
    assert record["accuracy"] == correct / count
    assert record["confusion"] == [[confusion[i, j] for j in range(10)] for i in range(10)]
    assert record["loss"] == pytest.approx(sum(losses) / count, rel=1e-5)
    assert list(record["per_class"]) == list(test.classes)
    for i, name in enumerate(test.classes):
        assert record["per_class"][name] == pytest.approx(confusion[i, i] / int((test.labels == i).sum()))
    p, z = correct / count, 1.959963984540054
    center, half = p + z * z / (2 * count), z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    assert record["interval"] == pytest.approx(
        [(center - half) / (1 + z * z / count), (center + half) / (1 + z * z / count)]
    )
    assert record["epoch"] == finished.best_epoch.epoch


def test_the_test_uses_the_best_weights_and_not_the_last(finished: Run, digits: DatasetSplits):
    record = finished.test()
    assert record["loss"] == evaluate(finished.net("best"), digits.test).loss
    assert record["loss"] != evaluate(finished.net("last"), digits.test).loss


def test_a_class_without_test_images_has_no_accuracy(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    rows = (digits.test.labels != 7).nonzero().squeeze(1)
    without = ImageDataset(*digits.test.gather(rows), digits.test.classes, "digits")
    run = Run.start(quick(), digits._replace(test=without), tmp_path / "run")
    monkeypatch.setattr(run_module, "load", lambda *_, **__: digits._replace(test=without))
    record = run.test()
    assert [name for name, accuracy in record["per_class"].items() if accuracy is None] == ["7"]
    json.loads((run.folder / "test.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_second_test_gives_the_record_even_when_the_images_are_gone(finished: Run, monkeypatch: pytest.MonkeyPatch):
    first = finished.test()
    before = everything(finished.folder)
    monkeypatch.setattr(run_module, "load", lambda *_, **__: pytest.fail("the images were read again"))
    assert Run(finished.folder).test() == first == Run(finished.folder).test_result
    assert everything(finished.folder) == before


def test_a_test_is_refused_after_the_recipe_was_edited(finished: Run):
    text = (finished.folder / "recipe.toml").read_text()
    (finished.folder / "recipe.toml").write_text("# looked at, not touched\n" + text)
    Run(finished.folder).test()
    (finished.folder / "recipe.toml").write_text(text.replace("lr = 0.5", "lr = 0.25"))
    assert "recipe.toml was changed since the run began" in error_line(Run(finished.folder).test)


def test_a_run_is_not_tested_with_the_weights_of_another(
    finished: Run, tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]
):
    other = Run.start(quick({"training.seed": 77, "training.epochs": 1}), digits, tmp_path / "other")
    shutil.copy(other.folder / "best.safetensors", finished.folder / "best.safetensors")
    for look in (finished.test, finished.net):
        assert "best.safetensors belongs to another run (its recipe key is" in error_line(look)
    assert finished.test_result is None


def test_a_run_without_its_best_weights_is_not_tested(finished: Run):
    (finished.folder / "best.safetensors").unlink()
    assert "has no weights yet" in error_line(finished.test)


@pytest.mark.slow
def test_an_unfinished_run_is_tested_only_on_request_and_once(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]
):
    run = Run.start(
        quick({"training.epochs": 9, "data.limit": None}), digits, tmp_path / "run", callbacks=stop_after(41)
    )
    assert (
        error_line(run.test)
        == f"{run.folder} is stopped after 1 of 9 epochs: resume it first, or test it --allow-unfinished"
    )
    assert run.test_result is None
    record = run.test(allow_unfinished=True)
    assert record["epoch"] == 1
    assert run.test() == record
    run.resume(digits)
    assert run.best_epoch.epoch > 1
    assert "testing twice would turn the test set into a validation set" in error_line(run.test)
    assert run.test_result == record


def test_the_record_names_the_epoch_that_the_weights_are_of_even_after_a_kill(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        Run, "_write_metrics", die
    )  # the best weights of epoch 1 are written, and no line of metrics yet
    with pytest.raises(KeyboardInterrupt):
        Run.start(quick(), digits, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert run.history == []
    assert run.test(allow_unfinished=True)["epoch"] == 1


# ---------------------------------------------------------------- a folder of one's own


@pytest.fixture
def pets(tmp_path: Path, paint_pets: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run on a folder that was named relative to where the person stood, stopped in its second epoch."""
    paint_pets(tmp_path / "home" / "pets")
    monkeypatch.chdir(tmp_path / "home")
    recipe = Recipe.from_dict(
        {
            "data": {"name": "folder:pets", "image_size": 16},
            "model": {"channels": [4]},
            "training": {"epochs": 3, "batch_size": 8},
            "optimizer": {"lr": 0.1},
        }
    )
    train(recipe, "runs/one", callbacks=stop_after(5))
    return Run(tmp_path / "home" / "runs" / "one")


@pytest.mark.slow
def test_a_folder_named_from_here_is_found_again_from_elsewhere(
    tmp_path: Path, pets: Run, monkeypatch: pytest.MonkeyPatch, timeless: Callable[[Path], Any]
):
    train(pets.recipe, tmp_path / "undisturbed").test()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pets.recipe.data.name == "folder:pets"
    pets.resume(pets.load_splits()).test()
    assert pets.status == "finished"
    assert timeless(pets.folder) == timeless(tmp_path / "undisturbed")
    assert pets.test_result["count"] == 6  # a fifth of each 12
    assert set(pets.test_result["per_class"]) == {"canary", "frog", "jay"}


def test_a_set_that_was_moved_is_found_by_its_new_place_and_only_with_the_same_images(
    tmp_path: Path, pets: Run, paint_pets: Callable[[Path], Path]
):
    shutil.move(tmp_path / "home" / "pets", tmp_path / "moved" / "pets")
    assert "pets" in error_line(pets.load_splits)
    assert len(pets.load_splits(tmp_path / "moved").train) == 30


@pytest.mark.slow
@pytest.mark.parametrize("number", range(0, 12, 3))
def test_a_test_is_refused_after_any_image_was_replaced(tmp_path: Path, pets: Run, number: int):
    pets.resume(pets.load_splits())
    path = tmp_path / "home" / "pets" / "frog" / f"{number:02}.png"
    image = Image.open(path)
    image.putpixel((3, 3), (255, 255, 255))
    image.save(path)
    assert re.search(
        "the (train|test) images of folder:pets are not those of .*: they have changed", error_line(pets.test)
    )
    assert pets.test_result is None


@pytest.mark.slow
def test_a_test_is_refused_after_a_image_moved_to_another_class(tmp_path: Path, pets: Run):
    pets.resume(pets.load_splits())
    home = tmp_path / "home" / "pets"
    (home / "frog" / "00.png").rename(home / "jay" / "99.png")
    assert "are not those of" in error_line(pets.test)


@pytest.mark.slow
def test_a_network_in_color_names_the_class_of_a_photo_of_another_size(tmp_path: Path, pets: Run):
    pets.resume(pets.load_splits())
    Image.new("RGB", (40, 30), (60, 160, 60)).save(tmp_path / "photo.jpg")
    found = pets.predict(tmp_path / "photo.jpg")
    assert {name for name, _ in found} == {"canary", "frog", "jay"}
    assert sum(probability for _, probability in found) == pytest.approx(1)


# ---------------------------------------------------------------- places for runs


@pytest.mark.slow
def test_a_run_is_made_from_a_networks_name_alone(tmp_path: Path, digits: DatasetSplits):
    run = train("shallow_net", tmp_path / "run")
    assert run.recipe == Recipe.from_dict({"model": {"name": "shallow_net"}})
    assert (run.status, len(run.history)) == ("finished", run.recipe.training.epochs)
    assert run.test()["accuracy"] > 0.5
    assert repr(run) == f"Run('{run.folder}': shallow_net on digits, finished, 10 of 10 epochs)"


@pytest.mark.slow
def test_runs_without_a_place_get_readable_names_of_their_own(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda *_: "20261124-101500")  # all three begin in one second
    made = [train(quick({"training.epochs": 1})) for _ in range(3)]
    name = "runs/shallow_net-digits-20261124-101500"
    assert [str(run.folder) for run in made] == [name, f"{name}-1", f"{name}-2"]
    assert [run.folder for run in find_runs(".")] == [run.folder for run in made]


def test_the_name_of_a_run_tells_the_day_and_time(
    tmp_path: Path, quick: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    run = train(quick({"training.epochs": 1}))
    stamp = run.folder.name.removeprefix("shallow_net-digits-")
    assert abs(time.mktime(time.strptime(stamp, "%Y%m%d-%H%M%S")) - time.time()) < 60


def snapshot(folder: Path) -> dict[str, str]:
    """Every file and folder below, with its content's hash."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize(
    ("place", "wanted"),
    [
        ("run", "holds a run already: resume it, or choose another --out"),
        ("file", "is a file: choose a folder for --out"),
        ("full", "is not empty: choose a new or empty folder for --out"),
        ("file/below", "is not a folder you may write to; choose another --out"),
        ("file/far/below", "is not a folder you may write to; choose another --out"),
    ],
)
def test_a_place_that_is_taken_is_refused_before_any_work(
    tmp_path: Path,
    finished: Run,
    quick: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    digits: DatasetSplits,
    place: str,
    wanted: str,
):
    finished.folder.rename(tmp_path / "run")
    (tmp_path / "file").write_text("a letter")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("another")
    before = snapshot(tmp_path)
    assert wanted in error_line(Run.start, quick(), digits, tmp_path / place)
    monkeypatch.setattr(run_module, "load", lambda *_, **__: pytest.fail("the images were read first"))
    assert wanted in error_line(train, quick(), tmp_path / place)
    assert snapshot(tmp_path) == before


def test_an_empty_folder_is_a_place_for_a_run(tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]):
    (tmp_path / "empty").mkdir()
    assert Run.start(quick({"training.epochs": 1}), digits, tmp_path / "empty").status == "finished"


def test_a_folder_that_a_kill_left_before_the_run_began_is_not_reported_as_a_run(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]
):
    (tmp_path / "run").mkdir()
    quick().write(tmp_path / "run" / "recipe.toml")
    assert "is not a run folder" in error_line(Run, tmp_path / "run")
    assert "is not empty" in error_line(Run.start, quick(), digits, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        (
            {"training.batch_size": 181},
            "a batch of 181 is larger than the 180 training images: set training.batch_size to 180 or less",
        ),
        ({"data.limit": 1439}, "data.limit is 1439, but digits has 1438 training images"),
        ({"data.limit": 10}, "no class has two images, so none can be held out"),
        ({"optimizer.momentum": 0.0, "optimizer.nesterov": True}, "optimizer.nesterov needs a momentum above 0"),
        ({"model.name": "resnet_small", "model.channels": [4, 4, 4, 4, 4]}, "images of 8x8 cannot be halved 4 times"),
        ({"model.name": "simple_convnet", "model.channels": []}, "model.channels is empty"),
        ({"model.name": "nowhere.py:Net"}, "nowhere.py to find the network Net in"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused_and_no_folder_is_left(
    tmp_path: Path,
    digits: DatasetSplits,
    quick: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    wanted: str,
):
    monkeypatch.chdir(tmp_path)
    for out in (None, tmp_path / "run"):
        assert wanted in error_line(lambda out=out: Run.start(quick(changes), digits, out))
    assert snapshot(tmp_path) == {}


OWN_FAULTS = {
    "too few arguments": (
        "def net(shape): return nn.Flatten()",
        "must take (shape, classes, ...options), and takes (shape)",
    ),
    "options alone": (
        "def net(**options): return nn.Flatten()",
        "must take (shape, classes, ...options), and takes (**options)",
    ),
    "too few logits": (
        "def net(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))",
        "gives [2, 3] for 2 images of 10 classes",
    ),
    "another shape": (
        "def net(shape, classes): return nn.Sequential(nn.Flatten(), nn.Linear(65, 10))",
        "the network does not accept images of shape 1x8x8: ",
    ),
}


@pytest.mark.parametrize("fault", OWN_FAULTS)
def test_a_network_of_the_users_that_does_not_fit_is_refused_and_no_folder_is_left(
    tmp_path: Path, digits: DatasetSplits, fault: str
):
    code, wanted = OWN_FAULTS[fault]
    (tmp_path / "own.py").write_text(f"from torch import nn\n{code}\n")
    assert wanted in error_line(
        lambda: Run.start(Recipe.from_dict({"model": {"name": f"{tmp_path / 'own.py'}:net"}}), digits, tmp_path / "run")
    )
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    assert error_line(Run, tmp_path) == f"{tmp_path} is not a run folder: give one made by convolab train"
    assert error_line(Run, tmp_path / "nowhere").endswith("give one made by convolab train")


def test_all_runs_below_a_folder_are_found(tmp_path: Path, finished: Run):
    shutil.copytree(finished.folder, tmp_path / "a" / "b" / "c")
    (tmp_path / "no run").mkdir()
    assert [run.folder for run in find_runs(tmp_path)] == [tmp_path / "a" / "b" / "c", finished.folder]


def test_metrics_that_were_edited_badly_are_reported_as_damaged(finished: Run):
    (finished.folder / "metrics.jsonl").write_text('{"epoch": 1}\n')
    assert "metrics.jsonl is damaged" in error_line(lambda: finished.history)


# ---------------------------------------------------------------- predicting


@pytest.fixture(scope="module")
def able(tmp_path_factory: pytest.TempPathFactory, one_thread: None, digits: DatasetSplits) -> Run:
    return Run.start(Recipe.from_dict({"training": {"epochs": 4}}), digits, tmp_path_factory.mktemp("able") / "run")


@pytest.mark.slow
def test_a_saved_digit_is_predicted_as_the_network_sees_it(tmp_path: Path, able: Run, digits: DatasetSplits):
    net, hits = able.net(), 0
    for label in range(10):
        image = digits.test.images[(digits.test.labels == label).nonzero()[0, 0]]
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{label}.png")
        found = able.predict(tmp_path / f"{label}.png", top=3)
        with torch.no_grad():
            wanted = net(image[None] / 255).softmax(1)[0]
        order = wanted.sort(descending=True)
        assert [name for name, _ in found] == [digits.test.classes[i] for i in order.indices[:3]]
        assert [probability for _, probability in found] == pytest.approx(order.values[:3].tolist(), rel=1e-5)
        hits += str(label) in [name for name, _ in found]
    assert hits >= 9  # of images it never saw


def test_more_classes_than_there_are_are_all_of_them(tmp_path: Path, able: Run, digits: DatasetSplits):
    Image.fromarray(digits.test.images[0, 0].numpy()).save(tmp_path / "digit.png")
    found = able.predict(tmp_path / "digit.png", top=99)
    assert {name for name, _ in found} == set(digits.test.classes)
    assert sum(probability for _, probability in found) == pytest.approx(1)


def test_what_is_no_image_is_not_predicted(tmp_path: Path, able: Run):
    (tmp_path / "letter.png").write_text("Dear cat")
    assert str(tmp_path / "letter.png") in error_line(able.predict, tmp_path / "letter.png")
    assert "nowhere.png" in error_line(able.predict, tmp_path / "nowhere.png")


def test_a_recipe_is_checked_by_overfitting_one_batch(digits: DatasetSplits, quick: Callable[..., Recipe]):
    steps, accuracies = check_overfit(quick(), digits)
    assert accuracies[-1] == 1
    assert steps == len(accuracies) - 1
    assert accuracies[0] < 0.5


def test_training_leaves_torchs_own_generator_alone(
    tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]
):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    Run.start(quick({"training.epochs": 1}), digits, tmp_path / "run")
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_run_whatever_was_drawn_before(
    tmp_path: Path, kinds: Callable[[str], Run], timeless: Callable[[Path], Any]
):
    wanted = kinds("augmented, mixed, judged exactly")
    torch.rand(17)
    run = Run.start(wanted.recipe, load("digits"), tmp_path / "run")
    run.test()
    assert timeless(run.folder) == timeless(wanted.folder)


def test_another_seed_gives_another_run(
    tmp_path: Path, digits: DatasetSplits, kinds: Callable[[str], Run], timeless: Callable[[Path], Any]
):
    wanted = kinds("momentum")
    run = Run.start(wanted.recipe.with_overrides({"training.seed": 1}), digits, tmp_path / "run")
    assert timeless(run.folder)["last"] != timeless(wanted.folder)["last"]


LIBRARY_CALL = """
import os, torch
torch.set_num_threads(2)
import convolab
from convolab.core import environment

environment.ctypes.CDLL = None  # which mallopt is called through
before = dict(os.environ)
recipe = convolab.Recipe.from_dict({"model": {"name": "shallow_net"}, "training": {"epochs": 1}})
run = convolab.train(recipe, "run")
run.test()
assert dict(os.environ) == before
assert torch.get_num_threads() == 2
"""


@pytest.mark.slow
def test_training_from_python_changes_nothing_of_the_process(tmp_path: Path):
    subprocess.run([sys.executable, "-c", LIBRARY_CALL], check=True, cwd=tmp_path)
