"""Runs of a hand-in trained again from their recipes, and compared with what was handed in: bit by bit where bits can agree."""

import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convolab.core.environment import count_usable_cores, hardware_info, package_versions
from convolab.core.errors import LabError, require
from convolab.core.run_files import RECIPE_FILE
from convolab.core.text import pluralize, truncate_list
from convolab.data.catalog import DATASETS
from convolab.handin.verify.evidence import RunEvidence
from convolab.handin.verify.fence import Permission, run_fenced, work_folder
from convolab.handin.verify.signs import Sign, confirmed, skipped
from convolab.models.own_code import CodeRecord, code_of_record
from convolab.training.history import EpochMetrics
from convolab.training.run_code import code_folder, code_records

COMPARED = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "learning_rate")
# Where bits cannot agree. Roundings grow while a network trains: with another number of threads, 20 epochs on digits
# ended 0.00003 apart in loss; other processors and versions differ more, and seeds by several times this.
LOSS_TOLERANCE = 0.05  # nats, and as a fraction of the loss
ACCURACY_TOLERANCE = 0.05
MAX_IMAGES_SEEN = 2_000_000_000  # epochs times images of a recipe that is trained again


@dataclass(frozen=True)
class RunChoice:
    """Which runs of each hand-in are trained again: all, one by its name, or some at random."""

    words: str  # all, a run's name, or how many
    seed: int | None = None

    def __post_init__(self) -> None:
        """Raise LabError for a number without a seed."""
        if self.words.isdecimal():
            require(int(self.words) > 0, "--rerun 0 trains nothing again: give a number from 1, a run's name or all")
            require(self.seed is not None, "--rerun picks at random: give --seed, a number that only you know")

    def pick(self, hand_in: str, runs: Sequence[RunEvidence]) -> list[RunEvidence]:
        """The runs of a hand-in to train again; the seed and the hand-in's name decide."""
        if self.words == "all":
            return list(runs)
        if not self.words.isdecimal():
            return [run for run in runs if run.name == self.words]
        picked = random.Random(f"{self.seed} {hand_in}").sample(list(runs), min(int(self.words), len(runs)))
        return sorted(picked, key=lambda run: run.name)


def rerun_signs(run: RunEvidence, permission: Permission) -> Iterator[Sign]:
    """Train a run again and give what differs, or that nothing does, or why it could not be trained."""
    place = f"evidence/{run.name}"
    try:
        again = train_run_again(run, permission)
    except LabError as error:
        yield skipped(place, f"not trained again: {error}", "rerun")
        return
    reasons = other_platform(run, again)
    differences = list(rerun_differences(run, again, exact=not reasons))
    for what in differences:
        yield Sign(place, what, "rerun")
    if not differences and reasons:
        tolerance = (
            f"losses within {LOSS_TOLERANCE:g} and {100 * LOSS_TOLERANCE:g} %, accuracies within {ACCURACY_TOLERANCE:g}"
        )
        yield confirmed(place, f"trained again: {tolerance}; not bit by bit: {truncate_list(reasons, 6)}", "rerun")
    elif not differences:
        yield confirmed(
            place, f"trained again: {pluralize(len(run.history), 'epoch')} and the weights agree bit by bit", "rerun"
        )


def train_run_again(run: RunEvidence, permission: Permission) -> dict[str, Any]:
    """The result of training a run's recipe again. Raises LabError where it may or can not be trained."""
    recipe, summary = run.recipe, run.summary
    require(recipe is not None and summary is not None and run.history, "its evidence is not complete")
    assert recipe is not None
    assert summary is not None
    data = recipe.data.name
    require(data in DATASETS, f"its images '{data}' are its owner's: only published datasets are read")
    require(getattr(recipe.model, "weights", None) is None, "it began from weights that are not in the hand-in")
    require(summary.get("parent") is None, "it went on from a run that is not in the hand-in")
    require(summary["status"] == "finished", f"it was not finished: its status is {summary['status']}")
    require(
        summary["device"] == "cpu",
        f"it was trained on {summary['device']}, and runs are trained again on the processor",
    )
    require(
        recipe.training.epochs * (recipe.data.limit or 60_000) <= MAX_IMAGES_SEEN, "its recipe would train for days"
    )
    records = code_records(summary)
    require(set(records) == set(recipe.own_parts), "its recipe names code that the hand-in does not hold")
    files = own_code_files(run, records)
    if files:
        permission.require(files)
    job = {
        "kind": "rerun", "threads": summary["threads"], "tested": run.test is not None, "codes": records,
        "own_parts": recipe.own_parts, "trusted": [digest for _, digest in files],
    }  # fmt: skip
    with work_folder() as folder:
        shutil.copyfile(run.folder / RECIPE_FILE, folder / RECIPE_FILE)
        for part, record in records.items():
            for name in record["sha256"]:
                target = code_folder(folder, part) / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(code_folder(run.folder, part) / name, target)
        return run_fenced(folder, job, permission)


def own_code_files(run: RunEvidence, records: Mapping[str, CodeRecord]) -> list[tuple[Path, str]]:
    """The files of a run's own code and their SHA-256. Raises LabError unless all are in the hand-in, unchanged."""
    files = []
    for part, record in records.items():
        require(not record["is_installed"], f"its {part} is of a package that its owner installed")
        code = code_of_record(code_folder(run.folder, part), record)
        folder = Path("evidence") / run.name / code_folder(Path(), part)
        files += [(folder / name, digest) for name, digest in code.sha256.items()]
    return files


def other_platform(run: RunEvidence, again: Mapping[str, Any]) -> list[str]:
    """Why the bits of a run and of its repetition need not agree; empty where they must."""
    assert run.summary is not None
    summary, versions = run.summary, again.get("versions") or package_versions()
    pairs = [
        (
            "processor",
            summary["hardware"].get("processor"),
            (again.get("hardware") or hardware_info()).get("processor"),
        ),
        ("threads", summary["threads"], again.get("threads")),
        ("precision", summary["precision"], again.get("precision", "fp32")),
        *((name, summary["versions"].get(name), versions.get(name)) for name in ("torch", "numpy", "convolab")),
    ]
    reasons = [f"{name} {theirs}, here {ours}" for name, theirs, ours in pairs if theirs != ours]
    if summary["precision"] != "fp32":
        reasons.append(f"its precision is {summary['precision']}")
    if (summary["threads"] or 1) > count_usable_cores():
        reasons.append(f"this machine has {pluralize(count_usable_cores(), 'core')}")
    return reasons


def rerun_differences(run: RunEvidence, again: Mapping[str, Any], *, exact: bool) -> Iterator[str]:
    """Where the repetition has other bits or, unless `exact`, differs by more than roundings do."""

    def agree(name: str, one: Any, other: Any) -> bool:  # noqa: ANN401 (whatever a file of metrics holds)
        return one == other if exact else is_near(name, one, other)

    history = again_history(again)
    if len(history) != len(run.history):
        yield f"trained again it has {pluralize(len(history), 'epoch')}, and {len(run.history)} were handed in"
        return
    for own, new in zip(run.history, history, strict=True):
        other = [name for name in COMPARED if not agree(name, getattr(own, name), getattr(new, name))]
        if other:
            name = other[0]
            yield f"trained again, {name} of epoch {own.epoch} is {getattr(new, name)}, and {getattr(own, name)} was handed in"
            break
    weights = again.get("weights") or {}
    for name, digest in sorted(run.weights.items()) if exact else ():
        if weights.get(name) != digest:
            yield f"trained again, {name} has another SHA-256 than was handed in"
            break
    test, handed_in = again.get("test"), run.test
    keys = ("accuracy", "loss", "confusion") if exact else ("accuracy",)
    if test and handed_in and not all(agree(key, handed_in.get(key), test.get(key)) for key in keys):
        yield f"tested again, its accuracy is {test.get('accuracy')}, and {handed_in.get('accuracy')} was handed in"


def again_history(again: Mapping[str, Any]) -> list[EpochMetrics]:
    """The epochs of a repetition. Raises LabError if its result is not one."""
    records = again.get("history")
    require(isinstance(records, list), "the repetition has no metrics")
    return [EpochMetrics.from_record(record, "the repetition") for record in records or []]


def is_near(name: str, one: float | None, other: float | None) -> bool:
    """Whether two numbers differ by no more than roundings make them."""
    if one is None or other is None:
        return one is other
    slack = ACCURACY_TOLERANCE if "accuracy" in name else LOSS_TOLERANCE * (1 + abs(one))
    return abs(one - other) <= (1e-9 if name == "learning_rate" else slack)
