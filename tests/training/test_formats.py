"""Files of other versions of convolab and of other runs: which are read and which are refused."""

import json
import re
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.callbacks import FunctionCallbacks, stop_after
from support.other_splits import with_splits
from support.run_contents import run_contents

from convolab.core.errors import LabError
from convolab.core.outputs import CONFUSION_MATRIX, TRAINING_CURVES, own_kind, write_output
from convolab.core.run_files import STATE_FILE
from convolab.data.splits import DatasetSplits
from convolab.reports.mistakes import mistakes_kind, write_mistakes
from convolab.training import run as run_module
from convolab.training.checkpoint import read_tensors, write_tensors
from convolab.training.epoch_log import read_log_record
from convolab.training.first_edition import RENAMED_KEYS
from convolab.training.history import EpochMetrics
from convolab.training.recipe import Recipe, recipe_key
from convolab.training.run import COMPLETED, Run
from convolab.training.run_folder import OWN_FILES, epoch_from_record

pytestmark = pytest.mark.usefixtures("one_thread")

STORED = Path(__file__).resolve().parents[1] / "data_files"
STORED_RUNS = ("run_format_1", "run_first_edition")


@pytest.fixture
def stored_run(tmp_path: Path) -> Callable[[str], Run]:
    """A copy of a run in the repository, which was stopped in its third epoch and tested."""
    return lambda name: Run(shutil.copytree(STORED / name, tmp_path / name))


@pytest.fixture
def stopped_run(tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]) -> Run:
    """A run that was stopped in its third epoch."""
    return Run.start(make_recipe(), digits, tmp_path / "stopped", callbacks=stop_after(14))


def error_line(call: Callable[..., Any], *args: Any, **settings: Any) -> str:
    with pytest.raises(LabError) as caught:
        call(*args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit_json(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change each line of a JSON Lines file, or a JSON file."""
    texts = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    values = [json.loads(text) for text in texts]
    for value in values:
        edit(value)
    path.write_text("".join(json.dumps(value) + "\n" for value in values))


def edit_metadata(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    tensors, metadata = read_tensors(path)
    edit(metadata)
    write_tensors(path, tensors, metadata)


# ---------------------------------------------------------------- the runs in the repository


@pytest.mark.parametrize("name", STORED_RUNS)
def test_a_stored_run_is_read(stored_run: Callable[[str], Run], name: str):
    run = stored_run(name)
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
    assert run.test_result.tested_at.startswith("2026-")
    run.require_same_recipe()


@pytest.mark.slow
@pytest.mark.parametrize("name", STORED_RUNS)
def test_a_stored_run_is_tested_and_its_network_predicts(
    stored_run: Callable[[str], Run], name: str, digits: DatasetSplits, tmp_path: Path
):
    run = stored_run(name)
    record = run.test(splits=digits)  # the record
    (run.folder / "test.json").unlink()
    new_record = run.test(splits=digits, allow_unfinished=True)
    assert new_record.correct == record.correct == 108
    assert new_record.confusion == record.confusion
    assert new_record.loss == pytest.approx(record.loss, rel=1e-5)
    Image.fromarray(digits.test.images[0, 0].numpy()).save(tmp_path / "digit.png")
    probabilities = dict(run.predict(tmp_path / "digit.png", top=10))
    with torch.no_grad():
        expected = run.net()(digits.test.images[:1] / 255).softmax(1)[0]
    assert [probabilities[name] for name in digits.test.classes] == pytest.approx(expected.tolist(), rel=1e-5)


@pytest.mark.slow
def test_a_stored_run_of_this_format_is_resumed(stored_run: Callable[[str], Run], digits: DatasetSplits):
    run = stored_run("run_format_1")
    before = run.history
    (run.folder / "test.json").unlink()
    run.resume(digits)
    assert run.status == "finished"
    assert run.history[:2] == before
    assert len(run.history) == 3


def test_a_run_of_the_first_edition_is_not_resumed_and_not_changed(
    stored_run: Callable[[str], Run], digits: DatasetSplits
):
    run = stored_run("run_first_edition")
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    assert error_line(run.resume, digits) == (
        f"{run.folder} was written by convolab's first edition: it can be read and tested, but not resumed; "
        "start a new run"
    )
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before


# ---------------------------------------------------------------- formats and keys


@pytest.mark.slow
def test_every_file_of_a_run_has_a_format_and_names_its_run(stopped_run: Run):
    stopped_run.test(allow_unfinished=True)
    run_id = stopped_run.run_id.to_dict()
    assert run_id == {"format": 1, "recipe_key": stopped_run.recipe.key, "data_key": stopped_run.summary["data_key"]}
    records = [json.loads(line) for line in (stopped_run.folder / "metrics.jsonl").read_text().splitlines()]
    records += [json.loads((stopped_run.folder / name).read_text()) for name in ("summary.json", "test.json")]
    for name in ("best", "last", "state", "state.previous"):
        records.append(read_tensors(stopped_run.folder / f"{name}.safetensors")[1])
    for record in records:
        assert {key: record[key] for key in run_id} == run_id
    assert (stopped_run.folder / "recipe.toml").read_text().startswith("format = 1\n")


def test_the_format_is_not_part_of_the_recipe_or_its_key():
    assert Recipe.from_dict({"format": 1}) == Recipe()
    assert "format" not in Recipe().to_dict()
    assert Recipe().key == recipe_key(Recipe().to_dict())


def test_a_recipe_of_a_later_format_is_refused():
    line = "this recipe has format 2, and this convolab knows formats up to 1: update convolab"
    assert error_line(Recipe.from_dict, {"format": 2}) == line


@pytest.mark.parametrize("number", [0, "1", True, 1.0, date(2026, 1, 1)])
def test_what_is_no_format_needs_no_update(number: Any):
    line = f"this recipe is damaged: format = {number!r} is not a whole number from 1 on"
    assert error_line(Recipe.from_dict, {"format": number}) == line


def test_a_file_of_a_later_format_is_refused_by_its_name(stopped_run: Run, digits: DatasetSplits):
    def set_format_2(values: dict[str, Any]) -> None:
        values["format"] = 2

    folder = stopped_run.folder
    edit_metadata(folder / STATE_FILE, set_format_2)
    assert f"{STATE_FILE} has format 2" in error_line(read_tensors, folder / STATE_FILE)
    edit_metadata(folder / "best.safetensors", set_format_2)
    assert "best.safetensors has format 2" in error_line(stopped_run.net)
    edit_json(folder / "metrics.jsonl", set_format_2)
    assert "metrics.jsonl has format 2" in error_line(lambda: stopped_run.history)
    edit_json(folder / "summary.json", set_format_2)
    assert "summary.json has format 2" in error_line(Run, folder)
    text = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(text.replace("format = 1", "format = 2"))
    assert "recipe.toml has format 2" in error_line(Run, folder)


@pytest.mark.slow
def test_a_state_that_a_later_convolab_wrote_is_neither_passed_over_nor_deleted(
    stopped_run: Run, digits: DatasetSplits
):
    edit_metadata(stopped_run.folder / STATE_FILE, lambda values: values.update(format=2))
    before = {path.name: path.read_bytes() for path in stopped_run.folder.iterdir() if path.is_file()}
    assert f"{STATE_FILE} has format 2" in error_line(stopped_run.resume, digits)
    assert {path.name: path.read_bytes() for path in stopped_run.folder.iterdir() if path.is_file()} == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"accuracy": 0.999}, "not that of the numbers of images"),
        ({"interval": [0.99, 1.0]}, "not that of the numbers of images"),
        ({"correct": 1}, "has other numbers of images"),
    ],
)
def test_a_test_whose_numbers_contradict_each_other_is_not_believed(stopped_run: Run, change, reason):
    stopped_run.test(allow_unfinished=True)
    edit_json(stopped_run.folder / "test.json", lambda values: values.update(change))
    assert reason in error_line(lambda: stopped_run.test_result)


@pytest.mark.slow
def test_the_format_of_a_test_and_of_a_log_is_looked_at(stopped_run: Run):
    stopped_run.test(allow_unfinished=True)
    edit_json(stopped_run.folder / "test.json", lambda values: values.update(format=2))
    assert "test.json has format 2" in error_line(lambda: stopped_run.test_result)
    log = {"logger": "tensorboard", "epochs": 0, "id": None, "format": 2}
    (stopped_run.folder / "log.json").write_text(json.dumps(log))
    assert "log.json has format 2" in error_line(read_log_record, stopped_run.folder, stopped_run.run_id)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"epoch": 77}, "77 epochs of 3"),
        ({"epoch": 1}, "2 epochs' metrics after 1 epochs"),
        ({"history": []}, "0 epochs' metrics after 2 epochs"),
        ({"step": 1_000_000}, "1000000 steps of 6 of an epoch"),
        ({"step": -3}, "-3 steps of 6 of an epoch"),
        ({"num_images": 1}, "1 images after 2 steps"),
        ({"correct": -1}, "-1 right images of"),
        ({"seconds": -1.0}, "-1.0 seconds"),
    ],
)
def test_a_state_that_contradicts_itself_is_refused_before_anything_is_written(
    stopped_run: Run, digits: DatasetSplits, edit: dict[str, Any], words: str
):
    edit_metadata(stopped_run.folder / STATE_FILE, lambda values: values.update(edit))
    before = {path.name: path.read_bytes() for path in stopped_run.folder.iterdir() if path.is_file()}
    line = error_line(stopped_run.resume, digits)
    assert "this state is damaged: it has " in line
    assert words in line
    assert {path.name: path.read_bytes() for path in stopped_run.folder.iterdir() if path.is_file()} == before


# ---------------------------------------------------------------- files of another run


@pytest.fixture
def other_run(tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]) -> Run:
    """Another run with the same network, also stopped and tested."""
    run = Run.start(make_recipe({"training.seed": 77}), digits, tmp_path / "other", callbacks=stop_after(14))
    run.test(allow_unfinished=True)
    return run


@pytest.mark.slow
def test_the_state_of_another_run_is_refused(stopped_run: Run, other_run: Run, digits: DatasetSplits):
    shutil.copy(other_run.folder / STATE_FILE, stopped_run.folder / STATE_FILE)
    assert error_line(stopped_run.resume, digits) == (
        f"{stopped_run.folder / STATE_FILE} belongs to another run (its recipe key is {other_run.recipe.key}, not "
        f"{stopped_run.recipe.key}): restore this run's own file"
    )


@pytest.mark.slow
def test_the_metrics_and_the_test_of_another_run_are_refused(stopped_run: Run, other_run: Run):
    for name, read in (("metrics.jsonl", lambda: stopped_run.history), ("test.json", lambda: stopped_run.test_result)):
        shutil.copy(other_run.folder / name, stopped_run.folder / name)
        assert f"{name} belongs to another run" in error_line(read)


@pytest.mark.slow
def test_a_state_of_the_same_recipe_on_other_data_is_refused(stopped_run: Run, tmp_path: Path, digits: DatasetSplits):
    darker_splits = with_splits(
        digits, train=type(digits.train)(digits.train.images // 2, digits.train.labels, digits.train.classes, "digits")
    )
    darker_run = Run.start(stopped_run.recipe, darker_splits, tmp_path / "dark", callbacks=stop_after(14))
    assert darker_run.recipe.key == stopped_run.recipe.key
    for name in (STATE_FILE, "best.safetensors"):
        shutil.copy(darker_run.folder / name, stopped_run.folder / name)
    assert "belongs to another run (its data key is" in error_line(stopped_run.resume, digits)
    assert "belongs to another run (its data key is" in error_line(stopped_run.net)


@pytest.mark.slow
def test_a_state_that_names_no_run_is_refused(stopped_run: Run, digits: DatasetSplits):
    edit_metadata(stopped_run.folder / STATE_FILE, lambda metadata: metadata.pop("recipe_key"))
    assert "does not name its run, as no file of convolab's first edition did" in error_line(stopped_run.resume, digits)


# ---------------------------------------------------------------- older and later versions of this format


@pytest.mark.slow
def test_a_key_that_a_later_convolab_adds_to_the_recipe_does_not_change_the_runs_made_before(
    tmp_path: Path,
    digits: DatasetSplits,
    make_recipe: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
):
    original_to_dict = Recipe.to_dict

    def without_label_smoothing(recipe: Recipe) -> dict[str, Any]:
        values = original_to_dict(recipe)
        del values["training"]["label_smoothing"]
        return values

    monkeypatch.setattr(Recipe, "to_dict", without_label_smoothing)
    older = Run.start(make_recipe(), digits, tmp_path / "older", callbacks=stop_after(14))
    uninterrupted = Run.start(make_recipe(), digits, tmp_path / "uninterrupted")
    monkeypatch.undo()
    assert "label_smoothing" not in (older.folder / "recipe.toml").read_text()

    run = Run(older.folder)
    assert run.recipe.key != run.summary["recipe_key"]
    assert run.recipe.training.label_smoothing == 0
    run.test(allow_unfinished=True)
    (run.folder / "test.json").unlink()
    run.resume(digits)
    assert run.status == "finished"
    contents, expected = run_contents(run.folder), run_contents(uninterrupted.folder)
    for name in ("metrics", "best", "last", "state"):
        assert contents[name] == expected[name]


@pytest.mark.slow
def test_fields_that_a_later_convolab_adds_are_ignored(stopped_run: Run, digits: DatasetSplits, tmp_path: Path):
    uninterrupted = run_contents(Run(shutil.copytree(stopped_run.folder, tmp_path / "copy")).resume(digits).folder)

    def add_unknown_field(values: dict[str, Any]) -> None:
        values["unknown_field"] = {"good": True}
        for record in values.get("history", []):
            record["unknown_field"] = "good"

    before = stopped_run.history
    for name in ("metrics.jsonl", "summary.json"):
        edit_json(stopped_run.folder / name, add_unknown_field)
    for name in (STATE_FILE, "best.safetensors", "last.safetensors"):
        edit_metadata(stopped_run.folder / name, add_unknown_field)
    run = Run(stopped_run.folder)
    assert run.history == before
    run.net("best")
    run.resume(digits)
    contents = run_contents(run.folder)
    for name in ("metrics", "best", "last", "state"):
        assert contents[name] == uninterrupted[name]


@pytest.mark.slow
def test_fields_that_an_older_convolab_did_not_write_are_filled_in(stopped_run: Run, digits: DatasetSplits):
    def remove_fields(values: dict[str, Any]) -> None:
        for name in ("learning_rate", "images_per_second", "train_metrics", "threads", "hardware", "best", "reason"):
            values.pop(name, None)
        for record in values.get("history", []):
            del record["images_per_second"]

    for name in ("metrics.jsonl", "summary.json"):
        edit_json(stopped_run.folder / name, remove_fields)
    edit_metadata(stopped_run.folder / STATE_FILE, remove_fields)
    run = Run(stopped_run.folder)
    epoch = run.history[0]
    assert epoch.learning_rate != epoch.learning_rate  # NaN: it was not recorded
    assert epoch.train_metrics == "running"
    assert (run.summary["threads"], run.summary["reason"], run.summary["hardware"]) == (None, None, {})
    run.resume(digits)
    assert run.status == "finished"
    first, _, third = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert "images_per_second" not in first  # missing values are not invented
    assert third["images_per_second"] > 0


def test_a_line_of_metrics_without_a_required_value_is_damaged(stopped_run: Run):
    edit_json(stopped_run.folder / "metrics.jsonl", lambda record: record.pop("train_loss"))
    assert error_line(lambda: stopped_run.history).endswith("metrics.jsonl is damaged: it has no train_loss")


@pytest.mark.parametrize("text", ["[]", "{}", '{"data": 5}', '{"data": {}}', '{"recipe_key": "x", "data": {}}'])
def test_a_summary_without_a_required_value_is_damaged(stopped_run: Run, text: str):
    (stopped_run.folder / "summary.json").write_text(text)
    assert "summary.json is damaged: " in error_line(Run, stopped_run.folder)


@pytest.mark.parametrize("model", ['"timm/resnet18"', '"net.py:Net"'])
def test_a_date_in_a_recipe_whose_network_is_not_built_in_is_damage(stopped_run: Run, model: str):
    path = stopped_run.folder / "recipe.toml"
    path.write_text(re.sub(r"\[model\](\n.+)+", f"[model]\nname = {model}\nborn = 2026-11-24", path.read_text()))
    assert error_line(Run, stopped_run.folder).endswith(
        "recipe.toml is damaged: it holds a date or a time, which no recipe does"
    )


def test_a_huge_number_in_the_record_of_a_test_is_damage(stopped_run: Run):
    stopped_run.test(allow_unfinished=True)
    number = 10**400
    huge = {"correct": number, "count": number, "confusion": [[number]], "per_class": {"a": 1.0}}
    edit_json(stopped_run.folder / "test.json", lambda values: values.update(huge))
    assert "test.json is damaged: it holds a number that is too large" in error_line(lambda: stopped_run.test_result)


@pytest.mark.parametrize("name", ["code", "parts"])
@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"sha256": 5}, "it has no .*entry"),
        ({"entry": "net.py"}, "it has no .*module"),
        ({"entry": "net.py", "module": "", "is_installed": False, "sha256": ["net.py"]}, ".*sha256: give"),
        ([1], "code|parts"),
    ],
)
def test_a_record_of_somebodys_code_that_is_none_is_damage(stopped_run: Run, name: str, record: object, problem: str):
    value = {"optimizer": record} if name == "parts" else record
    edit_json(stopped_run.folder / "summary.json", lambda summary: summary.update({name: value}))
    assert re.search(f"summary.json is damaged: {problem}", error_line(Run, stopped_run.folder))


def test_a_word_that_convolab_never_writes_is_damage(stopped_run: Run):
    edit_json(stopped_run.folder / "metrics.jsonl", lambda line: line.update(train_metrics="runing"))
    assert "metrics.jsonl is damaged: train_metrics: give" in error_line(lambda: stopped_run.history)
    edit_json(stopped_run.folder / "summary.json", lambda values: values.update(precision="fp3x"))
    assert "summary.json is damaged: precision: give" in error_line(Run, stopped_run.folder)


@pytest.mark.parametrize("name", ["train_loss", "validation_loss", "validation_metric", "train_seconds"])
def test_a_number_whose_square_is_none_is_damage(name: str):
    record = {"epoch": 1, "train_loss": 2.0, "train_accuracy": 0.5, name: 1e200}
    assert error_line(epoch_from_record, record).endswith(f"is damaged: {name} cannot be '1e+200'")


def test_an_epoch_of_the_first_edition_is_read_with_the_present_names():
    record = {"epoch": 1, "train_loss": 2.0, "train_accuracy": 0.5, "seconds": 3.0, "train_metrics": "exact"}
    epoch = epoch_from_record(record)
    assert (epoch.train_seconds, epoch.train_metrics) == (3.0, "eval_pass")


# ---------------------------------------------------------------- names of the first edition in new recipes


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_the_error_about_a_key_of_the_first_edition_gives_the_present_key(old: str, new: str):
    section, _, key = old.partition(".")
    assert error_line(Recipe.from_dict, {section: {key: 9}}) == f"{old} is now called {new}"
    assert error_line(Recipe().with_overrides, {old: 9}) == f"{old} is now called {new}"


def test_the_error_about_a_value_of_the_first_edition_gives_the_present_value():
    assert error_line(Recipe().with_overrides, {"metrics.train": "exact"}) == (
        "metrics.train = 'exact' is now called 'eval_pass'"
    )
    assert error_line(Recipe().with_overrides, {"data.augment": ["flip", "colour:0.2"]}) == (
        "augmentation 'colour' is now called 'color'"
    )


# ---------------------------------------------------------------- reading and deleting


@pytest.mark.slow
def test_the_history_is_read_again_only_when_the_file_has_changed(
    stopped_run: Run, digits: DatasetSplits, monkeypatch: pytest.MonkeyPatch
):
    calls, original = [], run_module.read_history
    monkeypatch.setattr(run_module, "read_history", lambda *args: calls.append(args) or original(*args))
    run = Run(stopped_run.folder)
    assert run.history == run.history == stopped_run.history
    _ = run.best_epoch, repr(run)
    assert len(calls) == 2  # run's and stopped's
    run.history.clear()  # a copy
    assert len(run.history) == 2
    run.resume(digits)
    assert len(run.history) == 3
    assert [epoch.epoch for epoch in stopped_run.history] == [1, 2, 3]  # written by another object


@pytest.mark.slow
def test_deleting_a_run_keeps_files_that_are_not_its_own(stopped_run: Run):
    stopped_run.test(allow_unfinished=True)
    curves = own_kind(TRAINING_CURVES, stopped_run.summary["recipe_key"])
    write_output(stopped_run.folder / "curves.html", curves, "ours")
    write_mistakes(stopped_run.mistakes(2), stopped_run.folder / "mistakes", "ours", mistakes_kind(stopped_run))
    (stopped_run.folder / ".state.0badcafe.part.safetensors").write_text("ours")
    (stopped_run.folder / "letter.txt").write_text("theirs")
    assert stopped_run.delete() == [stopped_run.folder / "letter.txt"]
    assert [path.name for path in stopped_run.folder.iterdir()] == ["letter.txt"]


@pytest.mark.slow
def test_deleting_a_run_keeps_files_that_are_only_called_like_its_own(stopped_run: Run):
    other = own_kind(CONFUSION_MATRIX, "0123456789ab")
    write_output(stopped_run.folder / "confusion.html", other, "another run's")
    names = {".thesis.part.2.md", "mistakes.csv", "mistakes.html", "confusion.png", "curves.svg"}
    for name in names:
        (stopped_run.folder / name).write_text("mine")
    for name in (".a.part.b", ".notes.0badcafe.part.txt", "calibration.png", "test.json"):
        (stopped_run.folder / name).mkdir()
        names.add(name)
    assert {path.name for path in stopped_run.delete()} == names | {"confusion.html"}


def test_deleting_a_run_deletes_its_folder_if_nothing_else_is_in_it(stopped_run: Run):
    assert stopped_run.delete() == []
    assert not stopped_run.folder.exists()


@pytest.mark.slow
def test_a_run_in_training_is_not_deleted(tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]):
    lines = []

    def delete(_: EpochMetrics) -> None:
        lines.append(error_line(Run(tmp_path / "run").delete))

    run = Run.start(make_recipe(), digits, tmp_path / "run", callbacks=FunctionCallbacks(on_epoch=delete))
    assert lines == [f"{run.folder} is being trained by another process: wait for it, or stop it"] * 3
    assert run.test().epoch > 0


def test_the_files_that_are_deleted_are_those_that_the_docstring_of_run_names():
    named = set(re.findall(r"[a-z]+(?:\.[a-z]+)*\.(?:toml|jsonl|safetensors|json)", Run.__doc__))
    assert named < set(OWN_FILES)
    assert set(COMPLETED) == {"finished", "diverged"}


@pytest.mark.slow
def test_a_stored_run_whose_warmup_began_at_zero_resumes_as_it_was(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
):
    new = make_recipe({"schedule.warmup": 0.5})
    values = new.to_dict()
    del values["schedule"]["warmup_start"]
    old = Recipe.from_file_values(values, stored=Recipe.model_fields)
    assert old.key != new.key
    expected = Run.start(old, digits, tmp_path / "whole")
    Run.start(old, digits, tmp_path / "run", callbacks=stop_after(2))
    assert "warmup_start" not in (tmp_path / "run" / "recipe.toml").read_text()
    run = Run(tmp_path / "run")
    assert run.recipe.schedule.rates(0.1, 10, 5)(0, 0, []) == 0
    run.resume(digits)
    assert run_contents(run.folder) == run_contents(expected.folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("validation_accuracy", -3),
        ("train_accuracy", 1.5),
        ("train_loss", "NaN"),
        ("train_loss", True),
        ("train_seconds", -1.0),
        ("images_per_second", -1.0),
        ("epoch", 1),
        ("epoch", 7),
    ],
)
def test_a_number_that_cannot_be_is_refused_with_its_line(
    stored_run: Callable[[str], Run], field: str, value: object
) -> None:
    run = stored_run("run_format_1")
    path = run.folder / "metrics.jsonl"
    first, second, *rest = path.read_text().splitlines()
    path.write_text("\n".join([first, json.dumps(json.loads(second) | {field: value}), *rest]) + "\n")
    line = error_line(lambda: Run(run.folder).history)
    assert line.startswith(f"line 2 of {path} is damaged: ")
