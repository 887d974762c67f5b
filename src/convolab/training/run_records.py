"""What the files of a run hold: its summary, its test, and the keys that they name it by."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, NotRequired, cast

import torch
from typing_extensions import TypedDict

from convolab.core.display import Displayable
from convolab.core.environment import HardwareInfo, hardware_info, package_version, package_versions
from convolab.core.errors import require
from convolab.core.stats import wilson_interval
from convolab.core.text import format_percent
from convolab.core.types import Json
from convolab.data.splits import DatasetSplits
from convolab.models.libraries import split_library
from convolab.models.own_code import CodeRecord, OwnCode
from convolab.training.calibration import Calibration
from convolab.training.class_scores import ClassScore, MacroScore, class_scores, macro_score
from convolab.training.evaluation import Evaluation
from convolab.training.predictions import TOP_K, DatasetPredictions
from convolab.training.recipe import FORMAT, Recipe, require_known_format
from convolab.training.trainer import Trainer
from convolab.training.transfer import PretrainedRecord

Status = Literal["new", "running", "stopped", "killed", "failed", "diverged", "finished"]
COMPLETED: tuple[Status, ...] = ("finished", "diverged")  # what more training would not change
SUMMARY_DEFAULTS: dict[str, Json] = {
    "format": None,
    "status": "new",
    "reason": None,
    "epochs_done": 0,
    "best": None,
    "num_parameters": None,
    "train_seconds": 0.0,
    "device": "cpu",
    "precision": "fp32",
    "threads": None,
    "hardware": {},
    "versions": {},
    "started_at": None,
    "code": None,
    "parts": None,
    "pretrained": None,
    "parent": None,
}


class DataRecord(TypedDict):
    """The data a run was trained on."""

    dir: str | None  # where it was found, if that was named
    train_sha256: str  # fingerprint of the training images
    test_sha256: str  # "none" if there were no test images
    validation_sha256: NotRequired[str]  # where the dataset has validation images of its own


class ParentRecord(TypedDict):
    """The run that another one went on from."""

    recipe_key: str
    data_key: str
    epochs: int  # that it had
    state_sha256: str  # of its last state's tensors
    is_exact: bool  # whether going on gives the bits of training from scratch


class RunSummary(TypedDict):
    """What summary.json holds. A field that a file lacks has the value of `SUMMARY_DEFAULTS`."""

    format: int | None  # None: written by the first edition
    recipe_key: str  # at the start
    data_key: str
    data: DataRecord
    status: Status  # as written last; `Run.status` knows whether a running one was killed
    reason: str | None  # why it diverged, stopped or failed
    epochs_done: int
    best: dict[str, Json] | None  # metrics of the best epoch
    num_parameters: int | None
    train_seconds: float
    device: str
    precision: Literal["fp32", "bf16"]
    threads: int | None
    hardware: HardwareInfo
    versions: Mapping[str, str]
    started_at: str | None
    code: CodeRecord | None  # of somebody's own network: its files in code/, with their SHA-256
    parts: dict[str, CodeRecord] | None  # the same of other parts of their own, by the part's name
    pretrained: PretrainedRecord | None  # the weights it started from; None: from scratch
    parent: NotRequired[ParentRecord | None]  # of a run that another one was extended to


def was_cut_short(summary: RunSummary) -> bool:
    """Whether the training still went on when this was written, or was killed: its numbers are those of the start."""
    return summary["status"] == "running"


@dataclass(frozen=True, repr=False)
class EvaluationRecord(Displayable):
    """A run's test, as test.json holds it."""

    accuracy: float  # in [0, 1]
    interval: list[float]  # Wilson's 95 % interval of the accuracy
    correct: int
    count: int
    loss: float  # nats
    per_class: dict[str, float | None]  # accuracy in [0, 1]; None without test images
    confusion: list[list[int]]  # rows: the true class
    epoch: int  # of the weights
    tested_at: str  # local time
    top5_accuracy: float | None = None  # None: five classes or fewer, or an older record
    calibration: Calibration | None = None  # None: an older record
    caution: str = ""  # why it may not hold for single images; empty if nothing is against it
    with_views: "ViewsRecord | None" = None  # None: the recipe does not ask for it, or an older record

    def __post_init__(self) -> None:
        """Raise ValueError for a file whose numbers contradict each other."""
        sizes = {len(self.per_class), len(self.confusion), *map(len, self.confusion)}
        if len(sizes) > 1 or len(self.interval) != 2:
            raise ValueError("the confusion matrix, the classes or the interval have the wrong size")
        if not 0 <= self.correct <= self.count or min(map(min, self.confusion), default=0) < 0:
            raise ValueError("a number of images is impossible")
        diagonal = sum(row[index] for index, row in enumerate(self.confusion))
        if (self.correct, self.count) != (diagonal, sum(map(sum, self.confusion))):
            raise ValueError("the confusion matrix has other numbers of images")
        tests = [self, *([self.with_views] if self.with_views else [])]
        for test in tests:
            expected = (test.correct / self.count, *wilson_interval(test.correct, self.count)) if self.count else ()
            if any(abs(x - y) > 1e-6 for x, y in zip((test.accuracy, *test.interval), expected, strict=False)):
                raise ValueError("the accuracy or its interval is not that of the numbers of images")

    def __repr__(self) -> str:
        correct = f"{self.correct:,} of {self.count:,} test images correct, {format_percent(self.accuracy)}"
        low, high = self.interval
        views = (
            f", with {self.with_views.views} views {format_percent(self.with_views.accuracy)}"
            if self.with_views
            else ""
        )
        return f"EvaluationRecord({correct}, 95 % interval {100 * low:.2f} to {format_percent(high)}{views}; epoch {self.epoch})"

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.per_class)

    @property
    def class_scores(self) -> dict[str, ClassScore]:
        """Precision, recall and F1 of each class."""
        return class_scores(self.confusion, self.classes)

    @property
    def macro(self) -> MacroScore | None:
        """Their mean over the classes that have test images."""
        return macro_score(self.class_scores)

    def to_dict(self) -> dict[str, Json]:
        """What test.json holds; the scores are there for other programs, and are counted again when it is read."""
        return {
            **asdict(self),
            "class_scores": {name: dict(score.to_dict()) for name, score in self.class_scores.items()},
            "macro": self.macro and dict(self.macro.to_dict()),
        }


@dataclass(frozen=True)
class ViewsRecord:
    """The same test with the logits averaged over several views of each image."""

    views: int
    accuracy: float  # in [0, 1]
    interval: list[float]  # Wilson's 95 % interval of the accuracy
    correct: int
    loss: float  # nats


@dataclass(frozen=True)
class RunId:
    """The run that a file belongs to. Nothing in it is random: equal runs have equal files."""

    recipe_key: str
    data_key: str

    def to_dict(self) -> dict[str, Json]:
        return {"format": FORMAT, "recipe_key": self.recipe_key, "data_key": self.data_key}

    def require_own(self, path: Path, metadata: Mapping[str, Json]) -> None:
        """Raise LabError if a file's metadata names another run, or a format of later; what it does not name is not compared."""
        require_known_format(metadata.get("format"), path)
        for name, own in (("recipe", self.recipe_key), ("data", self.data_key)):
            other = metadata.get(f"{name}_key")
            require(
                other in (None, own),
                f"{path} belongs to another run (its {name} key is {other}, not {own}): restore this run's own file",
            )


def data_key(fingerprints: Mapping[str, object]) -> str:
    """A short name of a run's data: 12 hexadecimal digits of the SHA-256 of the fingerprints of its splits."""
    names = ("train_sha256", "test_sha256", "validation_sha256")  # the last one where the dataset has such a split
    joined = " ".join(str(fingerprints[name]) for name in names if name in fingerprints)
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


def new_summary(
    recipe: Recipe,
    splits: DatasetSplits,
    trainer: Trainer,
    data_folder: str | None,
    device: str,
    codes: Mapping[str, OwnCode],
) -> RunSummary:
    """The summary of a run before its first step."""
    fingerprints = splits.fingerprints
    library, _ = split_library(recipe.model.name)
    return {
        "format": FORMAT,
        "recipe_key": recipe.key,
        "data_key": data_key(fingerprints),
        "data": cast("DataRecord", {"dir": data_folder, **fingerprints}),
        "status": "new",
        "reason": None,
        "epochs_done": 0,
        "best": None,
        "num_parameters": sum(p.numel() for p in trainer.net.parameters()),
        "train_seconds": 0.0,
        "device": device,
        "precision": "bf16" if trainer.bf16 else "fp32",
        "threads": torch.get_num_threads(),
        "hardware": hardware_info(device),
        "versions": package_versions() | ({library: package_version(library)} if library else {}),
        "started_at": current_time(),
        "code": codes["model"].to_record() if "model" in codes else None,
        "parts": {part: code.to_record() for part, code in codes.items() if part != "model"} or None,
        "pretrained": trainer.pretrained,
    }


def new_evaluation_record(
    predictions: DatasetPredictions, epoch: int, caution: str = "", with_views: ViewsRecord | None = None
) -> EvaluationRecord:
    """What is recorded of a test with the weights of an epoch."""
    result = predictions.evaluation
    scores = class_scores(result.confusion.tolist(), result.classes)
    return EvaluationRecord(
        accuracy=result.accuracy,
        interval=list(wilson_interval(result.correct, result.count)),
        correct=result.correct,
        count=result.count,
        loss=result.loss,
        per_class={name: score.recall for name, score in scores.items()},
        confusion=result.confusion.tolist(),
        epoch=epoch,
        tested_at=current_time(),
        top5_accuracy=predictions.top_k_accuracy(TOP_K) if len(result.classes) > TOP_K else None,
        calibration=predictions.calibration,
        caution=caution,
        with_views=with_views,
    )


def new_views_record(views: int, result: Evaluation) -> ViewsRecord:
    """What is recorded of the test with several views of each image."""
    return ViewsRecord(
        views=views,
        accuracy=result.accuracy,
        interval=list(wilson_interval(result.correct, result.count)),
        correct=result.correct,
        loss=result.loss,
    )


def current_time() -> str:
    """The local time with its offset, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
