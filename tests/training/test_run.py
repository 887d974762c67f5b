"""A run: a folder whose files say what was trained, how it went and how good it is."""

import hashlib
import importlib.metadata
import io
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock
from PIL import Image
from support.callbacks import FunctionCallbacks, stop_after
from support.other_splits import with_splits
from support.run_contents import run_contents
from support.shape_checks import without_shape_checks

from convolab.api import train
from convolab.core.environment import RECORDED_PACKAGES, count_usable_cores
from convolab.core.errors import LabError
from convolab.core.run_files import PREVIOUS_STATE_FILE, STATE_FILE
from convolab.data.catalog import load
from convolab.data.dataset import ImageDataset
from convolab.data.splits import DatasetSplits
from convolab.models.registry import trust_named
from convolab.training import run as run_module
from convolab.training.checkpoint import read_tensors, read_weights
from convolab.training.evaluation import evaluate
from convolab.training.find_runs import find_runs, list_run_folders
from convolab.training.overfit import check_overfit
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.setup import train_validation_split
from convolab.training.trainer import Diverged, Trainer

pytestmark = pytest.mark.usefixtures("one_thread")

OWN_NETWORK = """
from torch import nn

class WithDropout(nn.Module):
    def __init__(self, shape, classes, rate: float = 0.5):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(rate), nn.Linear(16, classes))

    def forward(self, pixels):
        return self.layers(pixels)
"""

# Each has another state between two steps, or another use of random numbers.
RECIPE_KINDS: dict[str, dict[str, Any]] = {
    "momentum": {},
    "batch norm": {"model.name": "simple_convnet", "model.channels": [4]},
    "muon": {
        "model.name": "simple_convnet",
        "model.channels": [4],
        "optimizer.name": "muon",
        "optimizer.normalize_filters": True,
    },
    "adamw, averaged weights, warmup": {
        "optimizer.name": "adamw",
        "training.ema": 0.9,
        "training.clip_norm": 1.0,
        "schedule.name": "cosine",
        "schedule.warmup": 0.7,
    },
    "augmentation, mixup, exact training metrics": {
        "data.augment": ["crop:1", "rotate", "mixup"],
        "metrics.train": "eval_pass",
        "training.label_smoothing": 0.1,
    },
    "dropout in a user's network": {"model.name": "own"},
    "bf16": {"training.precision": "bf16_forced"},
    "no validation": {"data.validation": 0.0},
}


def file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def file_contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def error_line(call: Callable[..., Any], *args: Any, **settings: Any) -> str:
    """The message, of one line, of the error that a call raises."""
    with pytest.raises(LabError) as caught:
        call(*args, **settings)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.fixture(scope="module")
def peaked_run(
    tmp_path_factory: pytest.TempPathFactory,
    one_thread: None,
    digits: DatasetSplits,
    make_recipe: Callable[..., Recipe],
) -> Run:
    """A finished run whose validation accuracy is highest neither in the first epoch nor in the last."""
    for seed in range(30):
        recipe = make_recipe({"training.seed": seed, "training.epochs": 4, "optimizer.lr": 0.5, "data.limit": 400})
        run = Run.start(recipe, digits, tmp_path_factory.mktemp("peaked") / "run")
        if 1 < run.best_epoch.epoch < 4:
            return run
    raise AssertionError("no seed gives such a run")


@pytest.fixture
def finished_run(peaked_run: Run, tmp_path: Path) -> Run:
    """A copy of that run, which a test may change."""
    return Run(shutil.copytree(peaked_run.folder, tmp_path / "finished_run"))


@pytest.fixture
def validation(peaked_run: Run, digits: DatasetSplits) -> Any:
    return train_validation_split(peaked_run.recipe, digits)[1]


# ---------------------------------------------------------------- the files of a run


@pytest.mark.slow
def test_a_finished_run_has_the_files_that_its_docstring_names(peaked_run: Run):
    named = set(re.findall(r"[a-z]+(?:\.[a-z]+)*\.(?:toml|jsonl|safetensors|json)", Run.__doc__)) - {"test.json"}
    assert file_names(peaked_run.folder) - {".lock"} == named
    assert peaked_run.status == "finished"


@pytest.mark.slow
def test_the_recipe_file_is_the_recipe_with_every_key(peaked_run: Run, make_recipe: Callable[..., Recipe]):
    text = (peaked_run.folder / "recipe.toml").read_text()
    assert Recipe.read(peaked_run.folder / "recipe.toml") == peaked_run.recipe
    assert text == peaked_run.recipe.to_toml()
    assert peaked_run.recipe.model == make_recipe().model


@pytest.mark.slow
def test_the_summary_records_the_data_the_versions_and_the_hardware(peaked_run: Run, digits: DatasetSplits):
    summary = json.loads((peaked_run.folder / "summary.json").read_text())
    assert summary["versions"] == {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES}
    assert {"convolab", "torch"} <= set(summary["versions"])
    assert summary["threads"] == 1
    assert summary["hardware"]["cores"] == os.cpu_count()
    assert summary["hardware"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert summary["hardware"]["processor"]
    assert summary["recipe_key"] == peaked_run.recipe.key
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
    assert summary["best"]["epoch"] == peaked_run.best_epoch.epoch
    assert summary["train_seconds"] == pytest.approx(sum(epoch.train_seconds for epoch in peaked_run.history))
    assert time.time() - time.mktime(time.strptime(summary["started_at"][:19], "%Y-%m-%dT%H:%M:%S")) < 3600


def test_a_bf16_run_records_its_precision(tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]):
    run = Run.start(make_recipe({"training.precision": "bf16_forced", "training.epochs": 1}), digits, tmp_path / "run")
    assert run.summary["precision"] == "bf16"


def test_the_metrics_have_one_line_per_epoch(peaked_run: Run):
    lines = [json.loads(line) for line in (peaked_run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    for line in lines:
        assert 0 < line["train_accuracy"] <= 1
        assert 0 < line["validation_accuracy"] <= 1
        assert line["train_loss"] > 0
        assert line["train_seconds"] > 0
        assert line["images_per_second"] == pytest.approx(360 / line["train_seconds"])
        assert (
            line["learning_rate"] == peaked_run.recipe.optimizer.lr
        )  # a step schedule whose first step is after 5 epochs


def test_the_best_weights_are_those_of_the_best_validation_accuracy_exactly(peaked_run: Run, validation: Any):
    figures = [epoch.validation_accuracy for epoch in peaked_run.history]
    assert peaked_run.best_epoch.epoch == figures.index(max(figures)) + 1
    result = evaluate(peaked_run.net("best"), validation)
    assert (result.loss, result.accuracy) == (peaked_run.best_epoch.validation_loss, max(figures))
    assert read_weights(peaked_run.folder / "best.safetensors")[1]["epoch"] == peaked_run.best_epoch.epoch


def test_the_last_weights_are_those_of_the_last_epoch_exactly(peaked_run: Run, validation: Any):
    result = evaluate(peaked_run.net("last"), validation)
    last = peaked_run.history[-1]
    assert (result.loss, result.accuracy) == (last.validation_loss, last.validation_accuracy)
    assert last.validation_loss != peaked_run.best_epoch.validation_loss
    assert read_weights(peaked_run.folder / "last.safetensors")[1]["epoch"] == 4


@pytest.mark.slow
def test_exact_training_metrics_are_those_of_the_weights_at_the_end_of_the_epoch(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    recipe = make_recipe({"metrics.train": "eval_pass", "training.epochs": 1, "data.augment": ["crop:2"]})
    run = Run.start(recipe, digits, tmp_path / "run")
    result = evaluate(run.net("last"), train_validation_split(recipe, digits)[0])
    assert (run.history[0].train_loss, run.history[0].train_accuracy) == (result.loss, result.accuracy)
    running = Run.start(recipe.with_overrides({"metrics.train": "running"}), digits, tmp_path / "running")
    assert running.history[0].train_loss > result.loss  # of earlier weights, on augmented images


@pytest.mark.slow
def test_without_validation_the_best_is_the_last_epoch(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    recipe = make_recipe({"data.validation": 0.0})
    run = Run.start(recipe, digits, tmp_path / "run")
    assert [(epoch.validation_loss, epoch.validation_accuracy) for epoch in run.history] == [(None, None)] * 3
    assert run.best_epoch == run.history[-1]
    assert run.summary["best"]["epoch"] == 3
    assert (run.folder / "best.safetensors").read_bytes() == (run.folder / "last.safetensors").read_bytes()
    assert len(train_validation_split(recipe, digits)[0]) == 200
    assert run.test().epoch == 3


@pytest.mark.slow
def test_a_reader_finds_complete_lines_at_any_time(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    path, texts, finished_training = tmp_path / "run" / "metrics.jsonl", [], threading.Event()

    def read_again_and_again() -> None:
        while not finished_training.is_set():
            if path.exists():
                texts.append(path.read_text())

    reader = threading.Thread(target=read_again_and_again)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    reader.start()
    open_files, texts_when_opened = [], []

    def keep_open(
        _: object,
    ) -> None:  # a file that is opened now must still read as it is now when the next epoch is written
        open_files.append(path.open())
        texts_when_opened.append(path.read_text())

    try:
        Run.start(
            make_recipe({"training.epochs": 30, "data.limit": 100}),
            digits,
            tmp_path / "run",
            callbacks=FunctionCallbacks(on_epoch=keep_open),
        )
    finally:
        finished_training.set()
        reader.join()
        sys.setswitchinterval(interval)
    for text in texts:
        assert text == "" or text.endswith("\n")
        assert [json.loads(line)["epoch"] for line in text.splitlines()] == list(range(1, text.count("\n") + 1))
    counts = [text.count("\n") for text in texts]
    assert counts == sorted(counts)
    assert len(set(counts)) > 10
    for file, text in zip(open_files, texts_when_opened, strict=True):
        with file:
            assert file.read() == text


@pytest.mark.slow
def test_early_stopping_ends_a_run_that_does_not_improve_as_finished(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    recipe = make_recipe({"optimizer.lr": 1e-12, "training.patience": 2, "training.epochs": 9})
    run = Run.start(recipe, digits, tmp_path / "run")
    assert (run.best_epoch.epoch, len(run.history), run.status) == (1, 3, "finished")
    assert run.test().epoch == 1
    before = run.folder / "metrics.jsonl"
    lines = before.read_text()
    assert Run(run.folder).resume(digits).status == "finished"
    assert before.read_text() == lines


# ---------------------------------------------------------------- the images of a run


@pytest.mark.parametrize("limit", [1, 5, 57, 101, 500, 1437, 1438])
def test_a_limit_takes_exactly_that_many_images_with_the_classes_in_proportion(digits: DatasetSplits, limit: int):
    chosen, _ = train_validation_split(Recipe.from_dict({"data": {"limit": limit, "validation": 0}}), digits)
    assert len(chosen) == limit
    class_counts = torch.bincount(digits.train.labels)
    for expected_count, count in zip(
        class_counts * limit / len(digits.train), torch.bincount(chosen.labels, minlength=10), strict=True
    ):
        assert abs(expected_count - count) < 1


def test_the_seed_decides_which_images_a_limit_takes_and_validation_is_held_out_of_them(digits: DatasetSplits):
    def split_indices(seed: int, limit: int) -> tuple[set[int], set[int]]:
        splits = train_validation_split(
            Recipe.from_dict({"data": {"limit": limit, "validation": 0.2}, "training": {"seed": seed}}), digits
        )
        return tuple(set(split.indices.tolist()) for split in splits)

    (kept, held_out), (other, _) = split_indices(0, 300), split_indices(1, 300)
    assert split_indices(0, 300) == (kept, held_out)
    assert kept != other
    assert not kept & held_out
    assert (len(kept), len(held_out)) == (240, 60)


def test_the_test_images_are_never_trained_on(digits: DatasetSplits):
    train_set, validation_set = train_validation_split(Recipe(), digits)
    assert train_set.dataset is digits.train
    assert validation_set.dataset is digits.train
    assert len(train_set) + len(validation_set) == len(digits.train)


# ---------------------------------------------------------------- stopping and resuming


@pytest.fixture(scope="module")
def run_of_kind(
    tmp_path_factory: pytest.TempPathFactory,
    one_thread: None,
    make_recipe: Callable[..., Recipe],
    digits: DatasetSplits,
) -> Callable[[str], Run]:
    """Uninterrupted, tested runs of each kind, each trained at its first use."""
    folder, runs = tmp_path_factory.mktemp("kinds"), {}
    (folder / "own.py").write_text(OWN_NETWORK)
    trust_named(f"{folder / 'own.py'}:net")

    def uninterrupted(kind: str) -> Run:
        if kind not in runs:
            overrides = RECIPE_KINDS[kind] | (
                {"model.name": f"{folder / 'own.py'}:WithDropout"}
                if RECIPE_KINDS[kind].get("model.name") == "own"
                else {}
            )
            runs[kind] = Run.start(make_recipe(overrides), digits, folder / f"run {len(runs)}")
            runs[kind].test()
        return runs[kind]

    return uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize("kind", RECIPE_KINDS)
def test_a_run_stopped_after_any_step_resumes_bit_for_bit(
    tmp_path: Path, digits: DatasetSplits, run_of_kind: Callable[[str], Run], kind: str
):
    expected = run_of_kind(kind)
    for steps in (0, 1, 6, 8, 17):  # of 3 epochs of 6 (without validation 7)
        folder = tmp_path / str(steps)
        stopped = Run.start(expected.recipe, digits, folder, callbacks=stop_after(steps))
        assert stopped.status == "stopped"
        resumed = Run(folder)
        assert resumed.status == "stopped"
        resumed.resume(resumed.load_splits())
        resumed.test()
        assert run_contents(folder) == run_contents(expected.folder), f"stopped after {steps} steps"


@pytest.mark.slow
def test_a_run_stopped_many_times_resumes_bit_for_bit(
    tmp_path: Path, digits: DatasetSplits, run_of_kind: Callable[[str], Run]
):
    expected = run_of_kind("adamw, averaged weights, warmup")
    Run.start(expected.recipe, digits, tmp_path / "run", callbacks=stop_after(1))
    for _ in range(100):
        run = Run(tmp_path / "run").resume(digits, callbacks=stop_after(1))
        if run.status == "finished":
            break
    run.test()
    assert run_contents(tmp_path / "run") == run_contents(expected.folder)


def test_the_seconds_of_a_stopped_epoch_are_not_lost(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    run = Run.start(make_recipe({"training.epochs": 1}), digits, tmp_path / "run", callbacks=stop_after(4))
    before = run.summary["train_seconds"]
    assert before > 0
    run.resume(digits)
    assert run.history[0].train_seconds > before
    assert run.history[0].images_per_second == pytest.approx(180 / run.history[0].train_seconds)


def test_a_finished_run_stays_as_it_is_when_resumed(finished_run: Run, digits: DatasetSplits):
    before = file_contents(finished_run.folder)
    steps = []
    finished_run.resume(digits, callbacks=FunctionCallbacks(on_step=steps.append))
    assert not steps
    assert file_contents(finished_run.folder) == before


@pytest.mark.slow
def test_a_damaged_state_is_reported_and_the_run_resumes_bit_for_bit_from_the_previous_one(
    tmp_path: Path, digits: DatasetSplits, run_of_kind: Callable[[str], Run]
):
    expected, messages = run_of_kind("momentum"), []
    run = Run.start(expected.recipe, digits, tmp_path / "run", callbacks=stop_after(14))
    (run.folder / STATE_FILE).write_bytes((run.folder / STATE_FILE).read_bytes()[:999])
    run = Run(run.folder).resume(digits, callbacks=FunctionCallbacks(on_message=messages.append))
    assert len(messages) == 1
    assert messages[0].startswith(f"{run.folder / STATE_FILE} is damaged")
    assert messages[0].endswith("continuing from the state before it")
    run.test()
    assert run_contents(run.folder) == run_contents(expected.folder)


@pytest.mark.slow
def test_a_damaged_state_does_not_replace_the_good_previous_one(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    run = Run.start(make_recipe(), digits, tmp_path / "run", callbacks=stop_after(14))
    (run.folder / STATE_FILE).write_bytes(b"damaged")
    good = (run.folder / PREVIOUS_STATE_FILE).read_bytes()
    Run(run.folder).resume(digits, callbacks=stop_after(0))  # which writes a state
    assert (run.folder / PREVIOUS_STATE_FILE).read_bytes() == good
    read_tensors(run.folder / STATE_FILE)


@pytest.mark.slow
def test_two_damaged_states_are_refused_and_nothing_is_changed(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    run = Run.start(make_recipe(), digits, tmp_path / "run", callbacks=stop_after(14))
    for name in (STATE_FILE, PREVIOUS_STATE_FILE):
        (run.folder / name).write_bytes(b"damaged")
    before = file_contents(run.folder)
    assert "is damaged" in error_line(Run(run.folder).resume, digits)
    assert file_contents(run.folder) == before


@pytest.mark.slow
def test_part_files_that_a_kill_left_are_deleted(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    run = Run.start(make_recipe(), digits, tmp_path / "run", callbacks=stop_after(3))
    (run.folder / ".state.0badcafe.part.safetensors").write_bytes(b"half a st")
    run.resume(digits)
    assert not [name for name in file_names(run.folder) if ".part" in name]
    assert run.status == "finished"


@pytest.mark.slow
def test_another_number_of_threads_is_reported(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    run, messages = Run.start(make_recipe(), digits, tmp_path / "run", callbacks=stop_after(3)), []
    torch.set_num_threads(2)
    try:
        run.resume(digits, callbacks=FunctionCallbacks(on_message=messages.append))
    finally:
        torch.set_num_threads(1)
    assert messages == ["this run was started with 1 thread and continues with 2: results will not be bit-identical"]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.skipif(count_usable_cores() < 2, reason="one core")
@pytest.mark.parametrize("kind", ["batch norm", "muon", "bf16"])
def test_on_two_threads_a_run_that_is_repeated_and_one_that_is_resumed_agree_bit_for_bit(
    two_threads: None, tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe], kind: str
):
    # Large enough for both threads to have a part of most steps: of 2 epochs of 3.
    larger = {"model.name": "simple_convnet", "model.channels": [16, 32], "data.limit": 300}
    recipe = make_recipe(RECIPE_KINDS[kind] | larger | {"training.batch_size": 128, "training.epochs": 2})
    once, again, stopped = (tmp_path / name for name in ("once", "again", "stopped"))
    for folder in (once, again):
        Run.start(recipe, digits, folder)
    assert Run.start(recipe, digits, stopped, callbacks=stop_after(4)).status == "stopped"
    resumed = Run(stopped).resume(digits)
    assert (resumed.status, resumed.summary["threads"], torch.get_num_threads()) == ("finished", 2, 2)
    assert run_contents(again) == run_contents(once)
    assert run_contents(stopped) == run_contents(once)


@pytest.mark.slow
@pytest.mark.skipif(count_usable_cores() < 2, reason="one core")
def test_a_run_takes_the_threads_it_began_with_from_python_too(
    undecided: None, tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    torch.set_num_threads(1)
    run = Run.start(make_recipe(), digits, tmp_path / "run", callbacks=stop_after(3))
    torch.set_num_threads(count_usable_cores())
    messages, threads = [], set()
    callbacks = FunctionCallbacks(lambda _: threads.add(torch.get_num_threads()), on_message=messages.append)
    run.resume(digits, callbacks=callbacks)
    longer = run.extend(len(run.history) + 1, tmp_path / "longer", splits=digits, callbacks=callbacks)
    assert (run.summary["threads"], longer.summary["threads"], threads) == (1, 1, {1})
    assert torch.get_num_threads() == count_usable_cores()
    assert not [line for line in messages if "will not be bit-identical" in line]


def test_a_run_is_not_resumed_with_another_recipe_or_other_images(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    run = Run.start(make_recipe(), digits, tmp_path / "run", callbacks=stop_after(3))
    before = file_contents(run.folder)
    darker_images = ImageDataset(digits.train.images // 2, digits.train.labels, digits.train.classes, "digits")
    darker = with_splits(digits, train=darker_images)
    assert "the train images of digits are not those of" in error_line(run.resume, darker)
    assert file_contents(run.folder) == before
    run.recipe.with_overrides({"optimizer.lr": 0.2}).write(run.folder / "recipe.toml")
    assert "recipe.toml was changed since the run began" in error_line(Run(run.folder).resume, digits)


@pytest.mark.timing
def test_two_processes_cannot_train_the_same_run(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    run = Run.start(make_recipe(), digits, tmp_path / "run", callbacks=stop_after(8))
    before = file_contents(run.folder)
    with FileLock(run.folder / ".lock"):
        assert "is being trained by another process: wait for it, or stop it" in error_line(run.resume, digits)
    assert file_contents(run.folder) == before
    assert run.resume(digits).status == "finished"


@pytest.mark.slow
def test_a_stopped_run_that_was_resumed_elsewhere_is_tested_without_being_opened_again(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    held = Run.start(make_recipe(), digits, tmp_path / "run", callbacks=stop_after(8))
    assert held.status == "stopped"
    Run(held.folder).resume(digits)
    assert held.status == "finished"
    assert held.test(splits=digits).count == len(digits.test)


def test_a_run_that_ended_since_it_was_read_was_not_killed(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    opened: list[Run] = []
    Run.start(
        make_recipe({"training.epochs": 1}), digits, tmp_path / "run",
        callbacks=FunctionCallbacks(on_epoch=lambda _: opened.append(Run(tmp_path / "run"))),
    )  # fmt: skip
    assert opened[0].summary["status"] == "running"
    assert opened[0].status == "finished"


@pytest.mark.slow
def test_a_run_that_another_process_finished_meanwhile_is_left_as_it_is(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    late = Run.start(make_recipe(), digits, tmp_path / "run", callbacks=stop_after(8))
    assert Run(tmp_path / "run").resume(digits).status == "finished"
    before = snapshot(tmp_path)
    assert late.resume(digits).status == "finished"
    assert snapshot(tmp_path) == before


def test_a_folder_that_another_process_used_meanwhile_gets_no_run(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    build = run_module.build_trainer

    def use_folder_first(*arguments: Any, **options: Any):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "study.toml").write_text("")
        return build(*arguments, **options)

    monkeypatch.setattr(run_module, "build_trainer", use_folder_first)
    assert "is not empty: choose a new or empty folder" in error_line(
        Run.start, make_recipe(), digits, tmp_path / "run"
    )
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"study.toml", ".lock"}


@pytest.mark.slow
def test_a_new_run_is_refused_anywhere_below_the_folder_of_another_run(
    finished_run: Run,
    tmp_path: Path,
    digits: DatasetSplits,
    make_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
):
    folder = tmp_path / "study" / "runs" / "0123456789ab"
    shutil.copytree(finished_run.folder, folder)
    before = snapshot(tmp_path)
    (tmp_path / "link").symlink_to(folder)
    for out in (folder / "sub", folder / "sub" / "deeper", tmp_path / "link" / "sub"):
        line = error_line(Run.start, make_recipe(), digits, out)
        assert line.startswith(f"{out} lies in {folder}, which is the folder of a run")
    assert "lies in" in error_line(finished_run.extend, 9, folder / "sub")
    (tmp_path / "link").unlink()
    monkeypatch.chdir(folder)
    assert "lies in" in error_line(Run.start, make_recipe(), digits)
    assert snapshot(tmp_path) == before
    assert Run.start(make_recipe(), digits, folder.parent / "beside").status == "finished"


def test_a_run_that_is_starting_is_not_listed_and_one_that_was_killed_then_is(
    tmp_path: Path, make_recipe: Callable[..., Recipe]
):
    make_recipe().write(tmp_path / "recipe.toml")
    (tmp_path / "metrics.jsonl").write_text("")
    with FileLock(tmp_path / ".lock"):
        assert list_run_folders(tmp_path) == []
    assert list_run_folders(tmp_path) == [tmp_path]


@pytest.mark.timing
def test_a_run_is_running_while_it_is_locked_and_killed_when_it_is_not(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    statuses = []
    Run.start(
        make_recipe(),
        digits,
        tmp_path / "run",
        callbacks=FunctionCallbacks(on_epoch=lambda _: statuses.append(Run(tmp_path / "run").status)),
    )
    assert statuses == ["running"] * 3
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary | {"status": "running"}))
    assert Run(tmp_path / "run").status == "killed"
    assert Run(tmp_path / "run").resume(digits).status == "finished"


def test_an_error_in_a_callback_is_not_reported_as_an_error_of_the_disk(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    def read_missing_file(_: object) -> None:
        (tmp_path / "nowhere").read_text()

    with pytest.raises(FileNotFoundError):
        Run.start(make_recipe(), digits, tmp_path / "run", callbacks=FunctionCallbacks(on_epoch=read_missing_file))
    assert not Run(tmp_path / "run").is_training


# ---------------------------------------------------------------- diverging


@pytest.mark.slow
def test_a_diverging_recipe_is_reported_with_epoch_step_and_learning_rate(tmp_path: Path, digits: DatasetSplits):
    recipe = Recipe.from_dict({"model": {"batch_norm": False}, "optimizer": {"lr": 1e30}})
    with pytest.raises(Diverged, match=r"in epoch 1, step 2, at learning rate 1e\+30: lower optimizer\.lr") as caught:
        Run.start(recipe, digits, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert (run.status, run.summary["reason"], run.history) == ("diverged", str(caught.value), [])
    for call in (run.net, run.test):
        assert "has no weights: none of its epochs was finished" in error_line(call)


@pytest.mark.slow
def test_a_run_that_diverges_later_keeps_its_last_good_epoch(
    tmp_path: Path,
    digits: DatasetSplits,
    make_recipe: Callable[..., Recipe],
    run_of_kind: Callable[[str], Run],
):
    def set_weights_to_nan(trainer: Trainer) -> None:
        if (trainer.progress.epoch, trainer.progress.step) == (1, 4):
            next(trainer.net.parameters()).data.fill_(float("nan"))

    with pytest.raises(Diverged, match=r"in epoch 2, step 5, at learning rate 0\.1"):
        Run.start(make_recipe(), digits, tmp_path / "run", callbacks=FunctionCallbacks(on_step=set_weights_to_nan))
    run = Run(tmp_path / "run")
    assert (run.status, run.summary["epochs_done"], len(run.history)) == ("diverged", 1, 1)
    good = Run.start(make_recipe(), digits, tmp_path / "good", callbacks=stop_after(6))
    for name in ("best.safetensors", "last.safetensors"):
        assert (run.folder / name).read_bytes() == (good.folder / name).read_bytes()
    assert "is diverged after 1 of 3 epochs" in error_line(run.test)
    run.resume(digits)  # with finite weights
    run.test()
    assert run_contents(run.folder) == run_contents(run_of_kind("momentum").folder)


@pytest.mark.slow
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
def test_the_test_result_is_that_of_counting_image_by_image(finished_run: Run, digits: DatasetSplits):
    trained_on, _ = train_validation_split(finished_run.recipe, digits)
    pixels = trained_on.gather(torch.arange(len(trained_on)))[0].double() / 255
    net, test = finished_run.net(), digits.test
    losses, confusion = [], Counter()
    for image, label in zip(test.images, test.labels, strict=True):
        with torch.no_grad():
            logits = net.network(((image.double() / 255 - pixels.mean()) / pixels.std(correction=0)).float()[None])
        confusion[int(label), int(logits.argmax())] += 1
        losses.append(float(F.cross_entropy(logits.double(), label[None])))

    record = finished_run.test()
    correct, count = sum(confusion[i, i] for i in range(10)), len(test)
    assert (record.correct, record.count) == (correct, count)
    assert record.accuracy == correct / count
    assert record.confusion == [[confusion[i, j] for j in range(10)] for i in range(10)]
    assert record.loss == pytest.approx(sum(losses) / count, rel=1e-5)
    assert list(record.per_class) == list(test.classes)
    for i, name in enumerate(test.classes):
        assert record.per_class[name] == pytest.approx(confusion[i, i] / int((test.labels == i).sum()))
    p, z = correct / count, 1.959963984540054
    center, half = p + z * z / (2 * count), z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    assert record.interval == pytest.approx(
        [(center - half) / (1 + z * z / count), (center + half) / (1 + z * z / count)]
    )
    assert record.epoch == finished_run.best_epoch.epoch


@pytest.mark.slow
def test_the_test_uses_the_best_weights_and_not_the_last(finished_run: Run, digits: DatasetSplits):
    record = finished_run.test()
    assert record.loss == evaluate(finished_run.net("best"), digits.test).loss
    assert record.loss != evaluate(finished_run.net("last"), digits.test).loss


@pytest.mark.slow
def test_a_class_without_test_images_has_no_accuracy(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    rows = (digits.test.labels != 7).nonzero().squeeze(1)
    test_set = ImageDataset(*digits.test.gather(rows), digits.test.classes, "digits")
    run = Run.start(make_recipe(), with_splits(digits, test=test_set), tmp_path / "run")
    monkeypatch.setattr(run_module, "load", lambda *_, **__: with_splits(digits, test=test_set))
    record = run.test()
    assert [name for name, accuracy in record.per_class.items() if accuracy is None] == ["7"]
    json.loads((run.folder / "test.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.slow
def test_a_second_test_returns_the_recorded_result_even_without_the_images(
    finished_run: Run, monkeypatch: pytest.MonkeyPatch
):
    first = finished_run.test()
    before = file_contents(finished_run.folder)
    monkeypatch.setattr(run_module, "load", lambda *_, **__: pytest.fail("the images were read again"))
    assert Run(finished_run.folder).test() == first == Run(finished_run.folder).test_result
    assert file_contents(finished_run.folder) == before


@pytest.mark.slow
def test_a_test_is_refused_after_the_recipe_was_edited(finished_run: Run):
    text = (finished_run.folder / "recipe.toml").read_text()
    (finished_run.folder / "recipe.toml").write_text("# only a comment\n" + text)
    Run(finished_run.folder).test()
    (finished_run.folder / "recipe.toml").write_text(text.replace("lr = 0.5", "lr = 0.25"))
    assert "recipe.toml was changed since the run began" in error_line(Run(finished_run.folder).test)


def test_a_run_is_not_tested_with_the_weights_of_another(
    finished_run: Run, tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    other = Run.start(make_recipe({"training.seed": 77, "training.epochs": 1}), digits, tmp_path / "other")
    shutil.copy(other.folder / "best.safetensors", finished_run.folder / "best.safetensors")
    for call in (finished_run.test, finished_run.net):
        assert "best.safetensors belongs to another run (its recipe key is" in error_line(call)
    assert finished_run.test_result is None


def test_weights_of_an_unknown_name_are_refused(finished_run: Run):
    assert error_line(finished_run.net, "bset") == "unknown weights 'bset': did you mean 'best'?"


def test_a_run_without_its_best_weights_is_not_tested(finished_run: Run):
    (finished_run.folder / "best.safetensors").unlink()
    assert "has no weights: none of its epochs was finished" in error_line(finished_run.test)


@pytest.mark.slow
def test_an_unfinished_run_is_tested_only_on_request_and_once(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    run = Run.start(
        make_recipe({"training.epochs": 9, "data.limit": None}), digits, tmp_path / "run", callbacks=stop_after(41)
    )
    assert (
        error_line(run.test)
        == f"{run.folder} is stopped after 1 of 9 epochs: resume it first, or test it as it is (--allow-unfinished; in Python allow_unfinished=True)"
    )
    assert run.test_result is None
    record = run.test(allow_unfinished=True)
    assert record.epoch == 1
    assert run.test() == record
    run.resume(digits)
    assert run.best_epoch.epoch > 1
    assert "testing twice would turn the test set into a validation set" in error_line(run.test)
    assert run.test_result == record


@pytest.mark.slow
def test_the_test_result_names_the_epoch_of_the_weights_even_after_a_kill(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    # The best weights of epoch 1 are written, and no line of metrics yet.
    monkeypatch.setattr("convolab.training.recorder.RunRecorder.write_metrics", die)
    with pytest.raises(KeyboardInterrupt):
        Run.start(make_recipe(), digits, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert run.history == []
    assert run.test(allow_unfinished=True).epoch == 1


# ---------------------------------------------------------------- a folder of the user's images


@pytest.fixture
def pets_run(tmp_path: Path, write_pet_images: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run on a folder that was given relative to the working directory, stopped in its second epoch."""
    write_pet_images(tmp_path / "home" / "pets")
    monkeypatch.chdir(tmp_path / "home")
    recipe = Recipe.from_dict(
        {
            "data": {"name": "folder:pets", "image_size": 16},
            "model": {"channels": [4]},
            "training": {"epochs": 3, "batch_size": 8},
            "optimizer": {"lr": 0.1},
        }
    )
    train(recipe, out="runs/one", callbacks=stop_after(5))
    return Run(tmp_path / "home" / "runs" / "one")


@pytest.mark.slow
def test_a_folder_given_as_a_relative_path_is_found_from_another_working_directory(
    tmp_path: Path, pets_run: Run, monkeypatch: pytest.MonkeyPatch
):
    train(pets_run.recipe, out=tmp_path / "uninterrupted").test()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert pets_run.recipe.data.name == "folder:pets"
    pets_run.resume(pets_run.load_splits()).test()
    assert pets_run.status == "finished"
    assert run_contents(pets_run.folder) == run_contents(tmp_path / "uninterrupted")
    assert pets_run.test_result.count == 6  # a fifth of each 12
    assert set(pets_run.test_result.per_class) == {"canary", "frog", "jay"}


@pytest.mark.slow
def test_a_dataset_that_was_moved_is_loaded_from_its_new_path(
    tmp_path: Path, pets_run: Run, write_pet_images: Callable[[Path], Path]
):
    shutil.move(tmp_path / "home" / "pets", tmp_path / "moved" / "pets")
    assert "pets" in error_line(pets_run.load_splits)
    assert len(pets_run.load_splits(tmp_path / "moved").train) == 30


@pytest.mark.slow
@pytest.mark.parametrize("number", range(0, 12, 3))
def test_a_test_is_refused_after_any_image_was_replaced(tmp_path: Path, pets_run: Run, number: int):
    pets_run.resume(pets_run.load_splits())
    path = tmp_path / "home" / "pets" / "frog" / f"{number:02}.png"
    image = Image.open(path)
    image.putpixel((3, 3), (255, 255, 255))
    image.save(path)
    assert re.search(
        "the (train|test) images of folder:pets are not those of .*: they have changed", error_line(pets_run.test)
    )
    assert pets_run.test_result is None


@pytest.mark.slow
def test_a_test_is_refused_after_an_image_moved_to_another_class(tmp_path: Path, pets_run: Run):
    pets_run.resume(pets_run.load_splits())
    home = tmp_path / "home" / "pets"
    (home / "frog" / "00.png").rename(home / "jay" / "99.png")
    assert "are not those of" in error_line(pets_run.test)


@pytest.mark.slow
def test_a_color_network_predicts_the_class_of_a_photo_of_another_size(tmp_path: Path, pets_run: Run):
    pets_run.resume(pets_run.load_splits())
    Image.new("RGB", (40, 30), (60, 160, 60)).save(tmp_path / "photo.jpg")
    predicted = pets_run.predict(tmp_path / "photo.jpg")
    assert {name for name, _ in predicted} == {"canary", "frog", "jay"}
    assert sum(probability for _, probability in predicted) == pytest.approx(1)


# ---------------------------------------------------------------- the folder of a run


@pytest.mark.slow
def test_the_name_of_a_network_is_enough_to_train_a_run(tmp_path: Path, digits: DatasetSplits):
    run = train("shallow_net", out=tmp_path / "run")
    assert run.recipe == Recipe.from_dict({"model": {"name": "shallow_net"}})
    assert (run.status, len(run.history)) == ("finished", run.recipe.training.epochs)
    assert run.test().accuracy > 0.5
    assert repr(run) == f"Run('{run.folder}': shallow_net on digits, finished, 10 of 10 epochs)"


@pytest.mark.slow
def test_runs_without_a_given_folder_get_readable_distinct_names(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda *_: "20261124-101500")  # all three begin in one second
    runs = [train(make_recipe({"training.epochs": 1})) for _ in range(3)]
    name = "runs/shallow_net-digits-20261124-101500"
    assert [str(run.folder) for run in runs] == [name, f"{name}-1", f"{name}-2"]
    assert [run.folder for run in find_runs(".")] == [run.folder for run in runs]


@pytest.mark.slow
def test_the_name_of_a_run_has_its_date_and_time(
    tmp_path: Path, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    run = train(make_recipe({"training.epochs": 1}))
    stamp = run.folder.name.removeprefix("shallow_net-digits-")
    assert abs(time.mktime(time.strptime(stamp, "%Y%m%d-%H%M%S")) - time.time()) < 60


def snapshot(folder: Path) -> dict[str, str]:
    """Every file and folder below, with its content's hash."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("run", "holds a run already: choose another folder"),
        ("file", "is a file: choose a folder"),
        ("full", "is not empty: choose a new or empty folder"),
        ("file/below", "is not a folder you may write to; choose another folder"),
        ("file/far/below", "is not a folder you may write to; choose another folder"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_before_any_work(
    tmp_path: Path,
    finished_run: Run,
    make_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    digits: DatasetSplits,
    out: str,
    message: str,
):
    finished_run.folder.rename(tmp_path / "run")
    (tmp_path / "file").write_text("a letter")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("another")
    before = snapshot(tmp_path)
    assert message in error_line(Run.start, make_recipe(), digits, tmp_path / out)
    monkeypatch.setattr(run_module, "load", lambda *_, **__: pytest.fail("the images were read first"))
    assert message in error_line(train, make_recipe(), out=tmp_path / out)
    assert snapshot(tmp_path) == before


def test_a_run_may_be_written_to_an_empty_folder(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    (tmp_path / "empty").mkdir()
    assert Run.start(make_recipe({"training.epochs": 1}), digits, tmp_path / "empty").status == "finished"


def test_a_folder_that_a_kill_left_before_the_run_began_is_not_reported_as_a_run(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    (tmp_path / "run").mkdir()
    make_recipe().write(tmp_path / "run" / "recipe.toml")
    assert "is not a run folder" in error_line(Run, tmp_path / "run")
    assert "is not empty" in error_line(Run.start, make_recipe(), digits, tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"training.batch_size": 181},
            "a batch of 181 is larger than the 180 training images: set training.batch_size (--batch-size) to 180 or less",
        ),
        ({"data.limit": 1439}, "data.limit is 1439, but digits has 1438 training images"),
        (
            {"data.limit": 10},
            "no class has two images, so none can be held out: raise data.limit or set data.validation=0",
        ),
        ({"optimizer.momentum": 0.0, "optimizer.nesterov": True}, "optimizer.nesterov needs a momentum above 0"),
        ({"model.name": "resnet_small", "model.channels": [4, 4, 4, 4, 4]}, "images of 8x8 cannot be halved 4 times"),
        ({"model.name": "simple_convnet", "model.channels": []}, "model.channels is empty"),
        ({"model.name": "nowhere.py:Net"}, "nowhere.py to find Net in"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_refused_and_no_folder_is_left(
    tmp_path: Path,
    digits: DatasetSplits,
    make_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    overrides: dict[str, Any],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    for out in (None, tmp_path / "run"):
        assert message in error_line(lambda out=out: Run.start(make_recipe(overrides), digits, out))
    assert snapshot(tmp_path) == {}


UNSUITABLE_NETWORKS = {
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


@pytest.mark.parametrize("problem", UNSUITABLE_NETWORKS)
def test_a_users_network_that_does_not_fit_is_refused_and_no_folder_is_left(
    tmp_path: Path, digits: DatasetSplits, problem: str
):
    code, message = UNSUITABLE_NETWORKS[problem]
    (tmp_path / "own.py").write_text(f"from torch import nn\n{code}\n")
    trust_named(f"{tmp_path / 'own.py'}:net")
    assert message in error_line(
        lambda: Run.start(Recipe.from_dict({"model": {"name": f"{tmp_path / 'own.py'}:net"}}), digits, tmp_path / "run")
    )
    assert not (tmp_path / "run").exists()


def test_a_folder_without_a_run_is_refused(tmp_path: Path):
    assert error_line(Run, tmp_path) == f"{tmp_path} is not a run folder: give one made by convolab train"
    assert error_line(Run, tmp_path / "nowhere").endswith("give one made by convolab train")


def test_what_is_no_run_folder_is_answered_with_what_it_is_or_with_the_nearest_run(tmp_path: Path, finished_run: Run):
    (tmp_path / "runs").mkdir()
    shutil.copytree(finished_run.folder, tmp_path / "runs" / "digits")
    of_runs = error_line(Run, tmp_path / "runs")
    assert of_runs.endswith(
        f"is not a run folder: it holds 1 run: give one of them, such as {tmp_path / 'runs' / 'digits'}"
    )
    misspelled = error_line(Run, tmp_path / "runs" / "digit")
    assert misspelled.endswith(f"there is no such folder: did you mean '{tmp_path / 'runs' / 'digits'}'?")
    (tmp_path / "study.toml").write_text("")
    assert "it is a study's, which convolab compare shows" in error_line(Run, tmp_path)


def test_all_runs_below_a_folder_are_found(tmp_path: Path, finished_run: Run):
    shutil.copytree(finished_run.folder, tmp_path / "a" / "b" / "c")
    (tmp_path / "no run").mkdir()
    assert [run.folder for run in find_runs(tmp_path)] == [tmp_path / "a" / "b" / "c", finished_run.folder]


def test_metrics_that_were_edited_badly_are_reported_as_damaged(finished_run: Run):
    (finished_run.folder / "metrics.jsonl").write_text('{"epoch": 1}\n')
    assert "metrics.jsonl is damaged" in error_line(lambda: finished_run.history)


# ---------------------------------------------------------------- predicting


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory, one_thread: None, digits: DatasetSplits) -> Run:
    return Run.start(Recipe.from_dict({"training": {"epochs": 4}}), digits, tmp_path_factory.mktemp("trained") / "run")


@pytest.mark.slow
def test_a_digit_from_an_image_file_is_predicted_like_its_tensor(
    tmp_path: Path, trained_run: Run, digits: DatasetSplits
):
    net, hits = trained_run.net(), 0
    for label in range(10):
        image = digits.test.images[(digits.test.labels == label).nonzero()[0, 0]]
        Image.fromarray(image[0].numpy()).save(tmp_path / f"{label}.png")
        predicted = trained_run.predict(tmp_path / f"{label}.png", top=3)
        with torch.no_grad():
            expected = net(image[None] / 255).softmax(1)[0]
        order = expected.sort(descending=True)
        assert [name for name, _ in predicted] == [digits.test.classes[i] for i in order.indices[:3]]
        assert [probability for _, probability in predicted] == pytest.approx(order.values[:3].tolist(), rel=1e-5)
        hits += str(label) in [name for name, _ in predicted]
    assert hits >= 9  # of images that it was not trained on


@pytest.mark.slow
def test_asking_for_more_classes_than_there_are_gives_all_of_them(
    tmp_path: Path, trained_run: Run, digits: DatasetSplits
):
    Image.fromarray(digits.test.images[0, 0].numpy()).save(tmp_path / "digit.png")
    predicted = trained_run.predict(tmp_path / "digit.png", top=99)
    assert {name for name, _ in predicted} == set(digits.test.classes)
    assert sum(probability for _, probability in predicted) == pytest.approx(1)


@pytest.mark.slow
def test_an_image_is_predicted_alike_however_it_is_given(tmp_path: Path, trained_run: Run, digits: DatasetSplits):
    pixels = digits.test.images[0]
    Image.fromarray(pixels[0].numpy()).save(tmp_path / "digit.png")
    expected = trained_run.predict(tmp_path / "digit.png")
    for given in (
        pixels,
        pixels / 255,
        pixels[0].numpy(),
        Image.fromarray(pixels[0].numpy()),
        str(tmp_path / "digit.png"),
    ):
        assert trained_run.predict(given) == expected
    assert trained_run.predict("chelsea") != expected


@pytest.mark.slow
def test_an_array_in_the_other_byte_order_and_a_file_in_memory_are_predicted_like_the_image(
    trained_run: Run, digits: DatasetSplits
):
    pixels = digits.test.images[0][0].numpy()
    expected = trained_run.predict(pixels)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")  # which leaves it at its end
    for given in (pixels.astype(">u2"), pixels.astype("<u2"), (pixels / 255).astype(">f4"), file):
        assert trained_run.predict(given) == expected


@pytest.mark.slow
@without_shape_checks
def test_an_image_in_memory_that_holds_no_plain_numbers_is_refused_with_what_is_accepted(trained_run: Run):
    closed = io.BytesIO()
    closed.close()
    zeros = torch.zeros(8, 8)
    for given, named in (
        (zeros.numpy().astype(object), "an array of object"),
        (np.array([["a"]]), "an array of <U1"),
        (zeros.to_sparse(), "a sparse tensor"),
        (zeros.to("meta"), "a tensor without values"),
        (zeros.to(torch.float8_e4m3fn), "a tensor of torch.float8_e4m3fn"),
        (object(), "the image is object"),
        ([[1], [1, 2]], "differ in length"),
        (io.BytesIO(b"Dear cat"), "not an image"),
        (closed, "was closed"),
        (b"\x89PNG" * 5000, "BytesIO"),
    ):
        line = error_line(trained_run.predict, given)
        assert named in line
        assert "BytesIO" in line or "PNG" in line
        assert len(line) < 250


@without_shape_checks
@pytest.mark.parametrize("top", [True, False, 0, -1, np.float32(2)])
def test_the_number_of_classes_to_predict_is_a_positive_whole_number(trained_run: Run, top: Any):
    expected = "top = 2.0 is of the wrong type: give int" if top == 2 else "a whole number of at least 1"
    assert expected in error_line(trained_run.predict, torch.zeros(8, 8), top=top)
    assert len(trained_run.predict(torch.zeros(8, 8), top=cast("int", np.int64(2)))) == 2


def test_a_file_that_is_not_an_image_is_refused(tmp_path: Path, trained_run: Run):
    (tmp_path / "letter.png").write_text("Dear cat")
    assert str(tmp_path / "letter.png") in error_line(trained_run.predict, tmp_path / "letter.png")
    assert "nowhere.png" in error_line(trained_run.predict, tmp_path / "nowhere.png")


def test_a_recipe_is_checked_by_overfitting_one_batch(digits: DatasetSplits, make_recipe: Callable[..., Recipe]):
    steps, accuracies = check_overfit(make_recipe(), digits)
    assert accuracies[-1] == 1
    assert steps == len(accuracies) - 1
    assert accuracies[0] < 0.5


def test_training_does_not_change_torchs_global_generator(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Run.start(make_recipe({"training.epochs": 1}), digits, tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_run_whatever_random_numbers_were_drawn_before(
    tmp_path: Path, run_of_kind: Callable[[str], Run]
):
    expected = run_of_kind("augmentation, mixup, exact training metrics")
    torch.rand(17)
    run = Run.start(expected.recipe, load("digits"), tmp_path / "run")
    run.test()
    assert run_contents(run.folder) == run_contents(expected.folder)


@pytest.mark.slow
def test_another_seed_gives_another_run(tmp_path: Path, digits: DatasetSplits, run_of_kind: Callable[[str], Run]):
    expected = run_of_kind("momentum")
    run = Run.start(expected.recipe.with_overrides({"training.seed": 1}), digits, tmp_path / "run")
    assert run_contents(run.folder)["last"] != run_contents(expected.folder)["last"]


LIBRARY_CALL = """
import os, torch
torch.set_num_threads(2)
import convolab
from convolab.core import environment

environment.ctypes.CDLL = None  # through which mallopt is called
before = dict(os.environ)
recipe = convolab.Recipe.from_dict({"model": {"name": "shallow_net"}, "training": {"epochs": 1}})
run = convolab.train(recipe, out="run")
run.test()
assert dict(os.environ) == before
assert torch.get_num_threads() == 2
"""


@pytest.mark.slow
def test_training_from_python_changes_no_setting_of_the_process(tmp_path: Path):
    subprocess.run([sys.executable, "-c", LIBRARY_CALL], check=True, cwd=tmp_path)


def test_a_path_that_cannot_be_is_refused_in_one_line():
    for use in (lambda: Run("x" * 300), lambda: Run.start(Recipe(), load("digits"), "x" * 300 + "/run")):
        with pytest.raises(LabError, match="File name too long"):
            use()


@pytest.mark.slow
def test_the_network_of_a_run_refuses_pixels_that_are_not_in_0_to_1_instead_of_classifying_them_wrongly(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
) -> None:
    net = Run.start(make_recipe(), digits, tmp_path / "run").net()
    images, _ = digits.test.gather(torch.arange(4))
    assert net(images / 255).shape == (4, 10)
    for wrong in (images, images.float()):
        with pytest.raises(LabError, match=r"in \[0, 1\]"):
            net(wrong)


@pytest.mark.slow
def test_of_equally_accurate_epochs_the_surest_is_the_best(
    tmp_path: Path, write_pet_images: Callable[[Path], Path]
) -> None:
    """On nine validation images a network that has hardly begun may be as accurate as the trained one."""
    data = f"folder:{write_pet_images(tmp_path / 'pets')}"
    run = train("shallow_net", data=data, epochs=8, batch_size=9, lr=0.05, out=tmp_path / "run")
    accuracies = [epoch.validation_accuracy for epoch in run.history]
    equals = [epoch for epoch in run.history if epoch.validation_accuracy == max(accuracies)]
    assert len(equals) > 1
    assert run.best_epoch == min(equals, key=lambda epoch: epoch.validation_loss)
    assert run.best_epoch != equals[0]
    assert run.load_weights("best")[1] == run.best_epoch.epoch
