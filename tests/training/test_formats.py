"""Files of other versions of convolab, and files of other runs: what is read, and what is refused."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.callbacks import FunctionCallbacks, stop_after

from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.training import run as run_module
from convolab.training.checkpoint import STATE_FILE, read_tensors, write_tensors
from convolab.training.recipe import RENAMED_KEYS, Recipe, recipe_key
from convolab.training.run import COMPLETED, Run
from convolab.training.run_folder import OWN_FILES, epoch_from_record
from convolab.training.trainer import EpochMetrics

pytestmark = pytest.mark.usefixtures("one_thread")

STORED = Path(__file__).resolve().parents[1] / "data_files"
EDITIONS = ("run_format_1", "run_first_edition")


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[str], Run]:
    """A copy of a run that the repository keeps: stopped in its third epoch, and tested."""
    return lambda name: Run(shutil.copytree(STORED / name, tmp_path / name))


@pytest.fixture
def stopped(tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]) -> Run:
    """A run that was stopped in its third epoch."""
    return Run.start(quick(), digits, tmp_path / "stopped", callbacks=stop_after(14))


def error_line(call: Callable[..., Any], *args: Any, **settings: Any) -> str:
    with pytest.raises(LabError) as caught:
        call(*args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_json(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change each line of a file of JSON lines, or the whole of a JSON file."""
    texts = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    values = [json.loads(text) for text in texts]
    for value in values:
        edit(value)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def edit_metadata(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    tensors, metadata = read_tensors(path)
    edit(metadata)
    write_tensors(path, tensors, metadata)


# ---------------------------------------------------------------- the runs that the repository keeps


@pytest.mark.parametrize("edition", EDITIONS)
def test_a_stored_run_is_read(stored: Callable[[str], Run], edition: str):
    run = stored(edition)
    assert repr(run) == f"Run('{run.folder}': shallow_net on digits, stopped, 2 of 3 epochs)"
    assert run.recipe.data.augment == ("color:0.1",)
    assert run.recipe.schedule.step_size == 2
    assert run.recipe.metrics.train == "eval_pass"
    first, second = run.history
    assert (first.epoch, first.train_accuracy, first.validation_accuracy) == (1, 41 / 180, 0.25)
    assert (second.epoch, second.learning_rate, second.train_metrics) == (2, 0.1, "eval_pass")
    assert first.train_seconds > 0
    assert run.best_epoch == second
    summary = run.summary
    assert (summary["num_parameters"], summary["threads"], summary["status"]) == (310, 1, "stopped")
    assert summary["hardware"]["cores"] == 2
    assert summary["best"] == second.to_record()
    assert summary["train_seconds"] > 0
    assert summary["started_at"].startswith("2026-")
    assert run.test_result["tested_at"].startswith("2026-")
    run.require_same_recipe()


@pytest.mark.parametrize("edition", EDITIONS)
def test_a_stored_run_is_tested_and_its_network_predicts(
    stored: Callable[[str], Run], edition: str, digits: DatasetSplits, tmp_path: Path
):
    run = stored(edition)
    recorded = run.test(splits=digits)  # the record
    (run.folder / "test.json").unlink()
    again = run.test(splits=digits, allow_unfinished=True)
    assert again["correct"] == recorded["correct"] == 108
    assert again["confusion"] == recorded["confusion"]
    assert again["loss"] == pytest.approx(recorded["loss"], rel=1e-5)
    Image.fromarray(digits.test.images[0, 0].numpy()).save(tmp_path / "digit.png")
    probabilities = dict(run.predict(tmp_path / "digit.png", top=10))
    with torch.no_grad():
        expected = run.net()(digits.test.images[:1] / 255).softmax(1)[0]
    assert [probabilities[name] for name in digits.test.classes] == pytest.approx(expected.tolist(), rel=1e-5)


def test_a_stored_run_of_this_format_is_resumed(stored: Callable[[str], Run], digits: DatasetSplits):
    run = stored("run_format_1")
    before = run.history
    (run.folder / "test.json").unlink()
    run.resume(digits)
    assert run.status == "finished"
    assert run.history[:2] == before
    assert len(run.history) == 3


def test_a_run_of_the_first_edition_is_not_resumed_and_stays_as_it_is(
    stored: Callable[[str], Run], digits: DatasetSplits
):
    run = stored("run_first_edition")
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    assert error_line(run.resume, digits) == (
        f"{run.folder} was written by convolab's first edition: it can be read and tested, but not resumed; "
        "start a new run"
    )
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before


# ---------------------------------------------------------------- formats and keys


@pytest.mark.slow
def test_every_file_of_a_run_has_a_format_and_names_its_run(stopped: Run):
    stopped.test(allow_unfinished=True)
    own = stopped.run_id.to_dict()
    assert own == {"format": 1, "recipe_key": stopped.recipe.key, "data_key": stopped.summary["data_key"]}
    records = [json.loads(line) for line in (stopped.folder / "metrics.jsonl").read_text().splitlines()]
    records += [json.loads((stopped.folder / name).read_text()) for name in ("summary.json", "test.json")]
    for name in ("best", "last", "state", "state.previous"):
        records.append(read_tensors(stopped.folder / f"{name}.safetensors")[1])
    for record in records:
        assert {key: record[key] for key in own} == own
    assert (stopped.folder / "recipe.toml").read_text().startswith("format = 1\n")


def test_the_format_is_no_part_of_the_recipe_and_its_key():
    assert Recipe.from_dict({"format": 1}) == Recipe()
    assert "format" not in Recipe().to_dict()
    assert Recipe().key == recipe_key(Recipe().to_dict())


@pytest.mark.parametrize("number", [2, 0, "1", True, 1.0])
def test_a_recipe_of_a_format_that_is_not_known_is_refused(number: Any):
    assert error_line(Recipe.from_dict, {"format": number}) == (
        f"this recipe has format {number!r}, and this convolab knows formats up to 1: update convolab"
    )


def test_a_file_of_a_later_format_is_refused_by_its_name(stopped: Run, digits: DatasetSplits):
    def later(values: dict[str, Any]) -> None:
        values["format"] = 2

    folder = stopped.folder
    edit_metadata(folder / STATE_FILE, later)
    assert f"{STATE_FILE} has format 2" in error_line(read_tensors, folder / STATE_FILE)
    edit_metadata(folder / "best.safetensors", later)
    assert "best.safetensors has format 2" in error_line(stopped.net)
    edit_json(folder / "metrics.jsonl", later)
    assert "metrics.jsonl has format 2" in error_line(lambda: stopped.history)
    edit_json(folder / "summary.json", later)
    assert "summary.json has format 2" in error_line(Run, folder)
    text = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(text.replace("format = 1", "format = 2"))
    assert "recipe.toml has format 2" in error_line(Run, folder)


# ---------------------------------------------------------------- files of another run


@pytest.fixture
def other(tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]) -> Run:
    """Another run with the same network, stopped and tested too."""
    run = Run.start(quick({"training.seed": 77}), digits, tmp_path / "other", callbacks=stop_after(14))
    run.test(allow_unfinished=True)
    return run


@pytest.mark.slow
def test_the_state_of_another_run_is_refused(stopped: Run, other: Run, digits: DatasetSplits):
    shutil.copy(other.folder / STATE_FILE, stopped.folder / STATE_FILE)
    assert error_line(stopped.resume, digits) == (
        f"{stopped.folder / STATE_FILE} belongs to another run (its recipe key is {other.recipe.key}, not "
        f"{stopped.recipe.key}): restore this run's own file"
    )


@pytest.mark.slow
def test_the_metrics_and_the_test_of_another_run_are_refused(stopped: Run, other: Run):
    for name, look in (("metrics.jsonl", lambda: stopped.history), ("test.json", lambda: stopped.test_result)):
        shutil.copy(other.folder / name, stopped.folder / name)
        assert f"{name} belongs to another run" in error_line(look)


def test_a_state_of_the_same_recipe_on_other_data_is_refused(stopped: Run, tmp_path: Path, digits: DatasetSplits):
    darker = digits._replace(
        train=type(digits.train)(digits.train.images // 2, digits.train.labels, digits.train.classes, "digits")
    )
    dark = Run.start(stopped.recipe, darker, tmp_path / "dark", callbacks=stop_after(14))
    assert dark.recipe.key == stopped.recipe.key
    for name in (STATE_FILE, "best.safetensors"):
        shutil.copy(dark.folder / name, stopped.folder / name)
    assert "belongs to another run (its data key is" in error_line(stopped.resume, digits)
    assert "belongs to another run (its data key is" in error_line(stopped.net)


def test_a_state_that_names_no_run_is_refused(stopped: Run, digits: DatasetSplits):
    edit_metadata(stopped.folder / STATE_FILE, lambda metadata: metadata.pop("recipe_key"))
    assert "does not name its run, as no file of convolab's first edition did" in error_line(stopped.resume, digits)


# ---------------------------------------------------------------- older and later versions of this format


@pytest.mark.slow
def test_a_key_that_a_later_convolab_adds_to_the_recipe_does_not_change_the_runs_made_before(
    tmp_path: Path,
    digits: DatasetSplits,
    quick: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    timeless: Callable[[Path], Any],
):
    present = Recipe.to_dict

    def without_label_smoothing(recipe: Recipe) -> dict[str, Any]:
        values = present(recipe)
        del values["training"]["label_smoothing"]
        return values

    monkeypatch.setattr(Recipe, "to_dict", without_label_smoothing)
    older = Run.start(quick(), digits, tmp_path / "older", callbacks=stop_after(14))
    undisturbed = Run.start(quick(), digits, tmp_path / "undisturbed")
    monkeypatch.undo()
    assert "label_smoothing" not in (older.folder / "recipe.toml").read_text()

    run = Run(older.folder)
    assert run.recipe.key != run.summary["recipe_key"]
    assert run.recipe.training.label_smoothing == 0
    run.test(allow_unfinished=True)
    (run.folder / "test.json").unlink()
    run.resume(digits)
    assert run.status == "finished"
    left, expected = timeless(run.folder), timeless(undisturbed.folder)
    for name in ("metrics", "best", "last", "state"):
        assert left[name] == expected[name]


def test_fields_that_a_later_convolab_adds_are_ignored(
    stopped: Run, digits: DatasetSplits, tmp_path: Path, timeless: Callable[[Path], Any]
):
    undisturbed = timeless(Run(shutil.copytree(stopped.folder, tmp_path / "copy")).resume(digits).folder)

    def add(values: dict[str, Any]) -> None:
        values["mood"] = {"good": True}
        for record in values.get("history", []):
            record["mood"] = "good"

    before = stopped.history
    for name in ("metrics.jsonl", "summary.json"):
        edit_json(stopped.folder / name, add)
    for name in (STATE_FILE, "best.safetensors", "last.safetensors"):
        edit_metadata(stopped.folder / name, add)
    run = Run(stopped.folder)
    assert run.history == before
    run.net("best")
    run.resume(digits)
    left = timeless(run.folder)
    for name in ("metrics", "best", "last", "state"):
        assert left[name] == undisturbed[name]


def test_fields_that_an_older_convolab_did_not_write_are_filled_in(stopped: Run, digits: DatasetSplits):
    def strip(values: dict[str, Any]) -> None:
        for name in ("learning_rate", "images_per_second", "train_metrics", "threads", "hardware", "best", "reason"):
            values.pop(name, None)
        for record in values.get("history", []):
            del record["images_per_second"]

    for name in ("metrics.jsonl", "summary.json"):
        edit_json(stopped.folder / name, strip)
    edit_metadata(stopped.folder / STATE_FILE, strip)
    run = Run(stopped.folder)
    epoch = run.history[0]
    assert epoch.learning_rate != epoch.learning_rate  # not a number: nobody knows it
    assert epoch.train_metrics == "running"
    assert (run.summary["threads"], run.summary["reason"], run.summary["hardware"]) == (None, None, {})
    run.resume(digits)
    assert run.status == "finished"
    first, _, third = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert "images_per_second" not in first  # what was not known is not made up
    assert third["images_per_second"] > 0


def test_a_line_without_the_essential_is_damage(stopped: Run):
    edit_json(stopped.folder / "metrics.jsonl", lambda record: record.pop("train_loss"))
    assert error_line(lambda: stopped.history).endswith("metrics.jsonl is damaged: an epoch has no train_loss")


@pytest.mark.parametrize("text", ["[]", "{}", '{"data": 5}', '{"data": {}}', '{"recipe_key": "x", "data": {}}'])
def test_a_summary_without_the_essential_is_damage(stopped: Run, text: str):
    (stopped.folder / "summary.json").write_text(text)
    assert "summary.json is damaged: it" in error_line(Run, stopped.folder)


def test_an_epoch_of_the_first_edition_is_read_in_todays_words():
    record = {"epoch": 1, "train_loss": 2.0, "train_accuracy": 0.5, "seconds": 3.0, "train_metrics": "exact"}
    epoch = epoch_from_record(record)
    assert (epoch.train_seconds, epoch.train_metrics) == (3.0, "eval_pass")


# ---------------------------------------------------------------- words of the first edition, typed


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_a_key_of_the_first_edition_gets_one_line_with_todays(old: str, new: str):
    section, _, key = old.partition(".")
    assert error_line(Recipe.from_dict, {section: {key: 9}}) == f"{old} is now called {new}"
    assert error_line(Recipe().with_overrides, {old: 9}) == f"{old} is now called {new}"


def test_a_value_of_the_first_edition_gets_one_line_with_todays():
    assert error_line(Recipe().with_overrides, {"metrics.train": "exact"}) == (
        "metrics.train = 'exact' is now called 'eval_pass'"
    )
    assert error_line(Recipe().with_overrides, {"data.augment": ["flip", "colour:0.2"]}) == (
        "augmentation 'colour' is now called 'color'"
    )


# ---------------------------------------------------------------- reading and deleting


@pytest.mark.slow
def test_the_history_is_read_again_only_when_the_file_has_changed(
    stopped: Run, digits: DatasetSplits, monkeypatch: pytest.MonkeyPatch
):
    reads, real = [], run_module.read_history
    monkeypatch.setattr(run_module, "read_history", lambda *args: reads.append(args) or real(*args))
    run = Run(stopped.folder)
    assert run.history == run.history == stopped.history
    _ = run.best_epoch, repr(run)
    assert len(reads) == 2  # run's and stopped's
    run.history.clear()  # a copy
    assert len(run.history) == 2
    run.resume(digits)
    assert len(run.history) == 3
    assert [epoch.epoch for epoch in stopped.history] == [1, 2, 3]  # written by another object


def test_a_deleted_run_is_gone_and_files_of_others_stay(stopped: Run):
    stopped.test(allow_unfinished=True)
    for name in ("curves.html", "confusion.png", ".state.0badcafe.part.safetensors"):
        (stopped.folder / name).write_text("ours")
    (stopped.folder / "code").mkdir()
    (stopped.folder / "code" / "net.py").write_text("ours")
    (stopped.folder / "letter.txt").write_text("theirs")
    assert stopped.delete() == [stopped.folder / "letter.txt"]
    assert [path.name for path in stopped.folder.iterdir()] == ["letter.txt"]


def test_a_run_alone_in_its_folder_takes_it_along_when_deleted(stopped: Run):
    assert stopped.delete() == []
    assert not stopped.folder.exists()


def test_a_run_in_training_is_not_deleted(tmp_path: Path, digits: DatasetSplits, quick: Callable[..., Recipe]):
    lines = []

    def delete(_: EpochMetrics) -> None:
        lines.append(error_line(Run(tmp_path / "run").delete))

    run = Run.start(quick(), digits, tmp_path / "run", callbacks=FunctionCallbacks(on_epoch=delete))
    assert lines == [f"{run.folder} is being trained by another process: wait for it, or stop it"] * 3
    assert run.test()["epoch"] > 0


def test_what_is_deleted_is_what_a_run_says_it_has():
    named = set(re.findall(r"[a-z]+(?:\.[a-z]+)*\.(?:toml|jsonl|safetensors|json)", Run.__doc__))
    assert named < set(OWN_FILES)
    assert set(COMPLETED) == {"finished", "diverged"}
