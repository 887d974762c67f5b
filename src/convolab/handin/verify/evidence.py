"""The evidence of the runs: what each file of it says, and where they contradict each other."""

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from convolab.core.errors import LabError
from convolab.core.files import read_json
from convolab.core.run_files import METRICS_FILE, RECIPE_FILE, SUMMARY_FILE, TEST_FILE
from convolab.core.stats import wilson_interval
from convolab.core.text import pluralize, truncate_list
from convolab.handin.check import find_run_folders
from convolab.handin.verify.signs import Sign, as_note
from convolab.training.history import EpochMetrics, best_epoch_of
from convolab.training.recipe import Recipe
from convolab.training.run_folder import read_history, read_stored_recipe, read_summary, rename_fields
from convolab.training.run_records import RunId, RunSummary, was_cut_short

EXACT = 1e-6  # of a number that two files hold in full
MAX_IMAGES = 200_000  # of a split, when its size is sought from accuracies


@dataclass
class RunEvidence:
    """What the evidence of one run says. A part that cannot be read is missing, and is a sign."""

    name: str
    folder: Path
    recipe: Recipe | None = None
    summary: RunSummary | None = None
    history: list[EpochMetrics] = field(default_factory=list)
    test: dict[str, Any] | None = None
    weights: dict[str, str] = field(default_factory=dict)  # file -> SHA-256
    signs: list[Sign] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str]:
        """The recipe and the data, by their keys."""
        return (self.summary["recipe_key"], self.summary["data_key"]) if self.summary else ("", "")

    @property
    def seed(self) -> int | None:
        return self.recipe.training.seed if self.recipe else None

    @property
    def platform(self) -> tuple[str, ...]:
        """All that the bits depend on besides the key: processor, threads, device and versions."""
        if self.summary is None:
            return ()
        versions = self.summary["versions"]
        processor = str(self.summary["hardware"].get("processor"))
        main = (str(versions.get("convolab")), str(versions.get("torch")), str(self.summary["threads"]))
        return processor, *main, self.summary["device"], self.summary["precision"]

    @property
    def times(self) -> tuple[float, ...]:
        """The seconds of each epoch: no two trainings have the same."""
        return tuple(epoch.train_seconds for epoch in self.history)

    @property
    def accuracies(self) -> list[float]:
        """All validation accuracies, and the test's."""
        found = [epoch.validation_accuracy for epoch in self.history if epoch.validation_accuracy is not None]
        test = self.test.get("accuracy") if self.test else None
        return [*found, *([test] if isinstance(test, float) else [])]


def read_evidence(folder: Path) -> list[RunEvidence]:
    """The runs in evidence/ of a hand-in that was written into a folder."""
    return [read_run_evidence(path) for path in find_run_folders(folder / "evidence")]


def read_run_evidence(folder: Path) -> RunEvidence:
    """What is written of a run, and what contradicts itself there."""
    run = RunEvidence(folder.name, folder)
    place = f"evidence/{folder.name}"

    def read(what: str, reader: Any) -> Any:  # noqa: ANN401 (each file holds something else)
        try:
            return reader()
        except LabError as error:
            run.signs.append(Sign(f"{place}/{what}", str(error).replace(f"{folder}/", "")))
            return None

    run.summary = read(SUMMARY_FILE, lambda: read_summary(folder))
    stored = read(RECIPE_FILE, lambda: read_stored_recipe(folder))
    if run.summary is None or stored is None:
        return run
    recipe, file_key = stored
    run.recipe = recipe
    run_id = RunId(*run.key)
    run.history = read(METRICS_FILE, lambda: read_history(folder, run_id)) or []
    if (folder / TEST_FILE).is_file():
        test = read(TEST_FILE, lambda: read_json(folder / TEST_FILE))
        run.test = rename_fields(test) if isinstance(test, dict) else {} if test is not None else None
        read(TEST_FILE, lambda: run_id.require_own(folder / TEST_FILE, run.test or {}))
    weights = read("weights.json", lambda: read_json(folder / "weights.json"))
    digests = weights.get("sha256") if isinstance(weights, dict) else None
    run.weights = {str(key): str(value) for key, value in digests.items()} if isinstance(digests, dict) else {}
    if run.key[0] not in (recipe.key, file_key):
        run.signs.append(
            Sign(f"{place}/{RECIPE_FILE}", "it is not the recipe that the run began with: its key is another")
        )
    run.signs += [Sign(f"{place}/{file}", what) for file, what in metrics_problems(run)]
    run.signs += [Sign(f"{place}/{TEST_FILE}", what) for what in evaluation_problems(run)]
    if not run.weights:
        run.signs.append(as_note(place, "it has no SHA-256 of its weights"))
    if was_cut_short(run.summary):
        run.signs.append(as_note(place, "its training was killed, or still went on when this was packed"))
    return run


def metrics_problems(run: RunEvidence) -> Iterator[tuple[str, str]]:
    """Where the metrics contradict themselves, the summary or the recipe."""
    assert run.summary is not None
    assert run.recipe is not None
    history, summary, epochs = run.history, run.summary, run.recipe.training.epochs
    numbers = [epoch.epoch for epoch in history]
    if numbers != list(range(1, len(history) + 1)):
        yield METRICS_FILE, f"its epochs are {truncate_list(list(map(str, numbers)))}"
        return
    is_stale = was_cut_short(summary) and len(history) >= summary["epochs_done"]  # then only the metrics went on
    if len(history) != summary["epochs_done"] and not is_stale:
        yield (
            METRICS_FILE,
            f"it has {pluralize(len(history), 'epoch')}, and the summary says {summary['epochs_done']}",
        )
    may_stop = any(getattr(run.recipe.training, name, None) is not None for name in ("goal", "patience"))
    if summary["status"] == "finished" and not may_stop and len(history) != epochs:
        yield (
            METRICS_FILE,
            f"the run is finished with {pluralize(len(history), 'epoch')}, and its recipe has {epochs}",
        )
    best, stored = best_epochs(history), summary["best"]
    is_same_best = any(same_record(epoch.to_record(), stored) for epoch in best) if stored else not best
    if not is_same_best and not is_stale:
        yield METRICS_FILE, "its best epoch is not the one that the summary holds"
    for name in ("train_accuracy", "validation_accuracy"):
        values = [value for epoch in history if (value := getattr(epoch, name)) is not None]
        if values and not have_common_count(values, run.recipe.data.limit or MAX_IMAGES):
            yield METRICS_FILE, f"its values of {name} are no fractions of one number of images"
    seen = [epoch.images_per_second * epoch.train_seconds for epoch in history]
    if any(not math.isclose(a, b, rel_tol=EXACT) for a, b in pairwise(seen)):
        yield METRICS_FILE, "images per second times seconds is not the same number of images in each epoch"
    total = sum(run.times)
    if summary["status"] == "finished" and not math.isclose(
        total, summary["train_seconds"], rel_tol=EXACT, abs_tol=EXACT
    ):
        yield METRICS_FILE, "the seconds of its epochs do not add up to those of the summary"


def same_record(record: dict[str, Any], stored: Any) -> bool:  # noqa: ANN401 (a file's)
    """Whether the summary's record of an epoch is that epoch."""
    return isinstance(stored, dict) and all(stored.get(key) == value for key, value in record.items())


def have_common_count(values: Sequence[float], max_images: int) -> bool:
    """Whether one number of images, at most so many, explains all accuracies: each times it is a whole number.

    >>> have_common_count([0.85, 37 / 60], 600), have_common_count([0.8512, 37 / 60], 600)
    (True, False)
    """
    import numpy as np

    counts = np.arange(1, min(max_images, MAX_IMAGES) + 1)  # that explain all values so far
    for value in dict.fromkeys(values):
        if not 0 <= value <= 1:
            return False
        hits = value * counts
        counts = counts[np.abs(hits - np.round(hits)) <= 1e-9 * np.maximum(hits, 1)]
        if not len(counts):
            return False
    return True


def evaluation_problems(run: RunEvidence) -> Iterator[str]:
    """Where the record of the test contradicts itself or the metrics."""
    test = run.test
    if test is None:
        return
    with suppress(LookupError, TypeError, ValueError, ArithmeticError, AttributeError):
        correct, count, confusion = int(test["correct"]), int(test["count"]), test["confusion"]
        total, hits = sum(map(sum, confusion)), sum(row[index] for index, row in enumerate(confusion))
        if not math.isclose(test["accuracy"], correct / count, abs_tol=EXACT):
            yield f"its accuracy is {test['accuracy']}, and {correct} of {count} are correct"
        if (hits, total) != (correct, count):
            yield f"its confusion matrix has {hits} of {total} correct, and it says {correct} of {count}"
        if not all(
            math.isclose(a, b, abs_tol=EXACT)
            for a, b in zip(wilson_interval(correct, count), test["interval"], strict=True)
        ):
            yield "its interval is not that of its accuracy"
        rows = [row[index] / sum(row) if sum(row) else None for index, row in enumerate(confusion)]
        stored = list(test["per_class"].values())
        if not all(
            a == b or (a is not None and b is not None and math.isclose(a, b, abs_tol=EXACT))
            for a, b in zip(rows, stored, strict=True)
        ):
            yield "the accuracies of its classes are not those of its confusion matrix"
        best = best_epoch_of(run.history)
        if best and all(test["epoch"] != epoch.epoch for epoch in best_epochs(run.history)):
            yield f"it is of epoch {test['epoch']}, and the best is epoch {best.epoch}"
        return
    yield "it holds no record of a test"


def best_epochs(history: Sequence[EpochMetrics]) -> list[EpochMetrics]:
    """Those that a run may call its best: of equally accurate ones it was the first once, and is that of the lowest loss now."""
    best = best_epoch_of(history)
    if best is None or best.validation_accuracy is None:
        return [best] if best else []
    return [epoch for epoch in history if epoch.validation_accuracy == best.validation_accuracy]
