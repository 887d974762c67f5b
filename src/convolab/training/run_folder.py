"""The files of a run's folder: their names, the run that each says it belongs to, and how older ones are read.

Every file has a format number and names its run by two keys: the recipe's, and one of the data's fingerprints.
Readers ignore fields that they do not know, and fill in those that a file lacks. Files of the first edition have no
format; their names are translated here, so that such a run is read like any other, but not resumed.
"""

import hashlib
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NotRequired, cast

import torch
from typing_extensions import TypedDict

from convolab.core.display import Displayable
from convolab.core.environment import HardwareInfo, hardware_info, package_version, package_versions
from convolab.core.errors import LabError, require
from convolab.core.files import (
    parse_json,
    read_json,
    read_text,
    require_writable,
    translate_path_errors,
    translate_write_errors,
)
from convolab.core.records import validate_record
from convolab.core.stats import wilson_interval
from convolab.core.text import format_percent
from convolab.core.types import Json
from convolab.data.catalog import short_name
from convolab.data.splits import DatasetSplits
from convolab.models.libraries import split_library
from convolab.models.own_code import OwnCode
from convolab.training.calibration import Calibration
from convolab.training.checkpoint import CODE_FOLDER, PREVIOUS_STATE_FILE, STATE_FILE
from convolab.training.class_scores import ClassScore, MacroScore, class_scores, macro_score
from convolab.training.first_edition import RENAMED_VALUES, translate_first_edition
from convolab.training.history import EpochMetrics
from convolab.training.lock import LOCK_FILE, run_lock
from convolab.training.predictions import TOP_K, DatasetPredictions
from convolab.training.recipe import (
    FORMAT,
    Recipe,
    read_toml,
    recipe_key,
    require_known_format,
)
from convolab.training.trainer import Trainer
from convolab.training.transfer import PretrainedRecord

Status = Literal["new", "running", "stopped", "killed", "diverged", "finished"]
COMPLETED: tuple[Status, ...] = ("finished", "diverged")  # what more training would not change
RECIPE_FILE = "recipe.toml"
METRICS_FILE = "metrics.jsonl"
SUMMARY_FILE = "summary.json"
TEST_FILE = "test.json"
LOG_FILE = "log.json"
RUN_MARKS = (RECIPE_FILE, METRICS_FILE, SUMMARY_FILE)  # a folder with two of them is a run, maybe a damaged one
WEIGHTS_FILES = ("best.safetensors", "last.safetensors")
CHARTS = tuple(
    f"{name}.{ending}" for name in ("curves", "confusion", "calibration") for ending in ("html", "svg", "png")
)
GALLERY = ("mistakes.html", "mistakes.csv")
LEFTOVERS = ".*.part.*"  # temporary files that a killed process left
# Deleted in this order: as long as the last two are there, the folder is a run that can be deleted again.
OWN_FILES = (
    *CHARTS, *GALLERY, TEST_FILE, LOG_FILE, STATE_FILE, PREVIOUS_STATE_FILE, *WEIGHTS_FILES, METRICS_FILE, SUMMARY_FILE, RECIPE_FILE,
)  # fmt: skip
FIRST_EDITION_NAMES = {
    "seconds": "train_seconds",
    "parameters": "num_parameters",
    "machine": "hardware",
    "started": "started_at",
    "tested": "tested_at",
}
FIRST_EDITION_DATA = {"train": "train_sha256", "test": "test_sha256"}


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
    reason: str | None  # why it diverged
    epochs_done: int
    best: dict[str, Json] | None  # metrics of the best epoch
    num_parameters: int | None
    train_seconds: float
    device: str
    precision: str
    threads: int | None
    hardware: HardwareInfo
    versions: Mapping[str, str]
    started_at: str | None
    code: dict[str, Json] | None  # of somebody's own network: its files in code/, with their SHA-256
    parts: dict[str, dict[str, Json]] | None  # the same of other parts of their own, by the part's name
    pretrained: PretrainedRecord | None  # the weights it started from; None: from scratch
    parent: NotRequired[ParentRecord | None]  # of a run that another one was extended to


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

    def __post_init__(self) -> None:
        """Raise ValueError for a file whose numbers contradict each other."""
        sizes = {len(self.per_class), len(self.confusion), *map(len, self.confusion)}
        if len(sizes) > 1 or len(self.interval) != 2:
            raise ValueError("the confusion matrix, the classes or the interval have the wrong size")
        if not 0 <= self.correct <= self.count or min(map(min, self.confusion), default=0) < 0:
            raise ValueError("a number of images is impossible")

    def __repr__(self) -> str:
        correct = f"{self.correct:,} of {self.count:,} test images correct, {format_percent(self.accuracy)}"
        low, high = self.interval
        return (
            f"EvaluationRecord({correct}, 95 % interval {100 * low:.2f} to {format_percent(high)}; epoch {self.epoch})"
        )

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


@dataclass(frozen=True)
class RunId:
    """The run that a file belongs to. Nothing in it is random: equal runs have equal files."""

    recipe_key: str
    data_key: str

    def to_dict(self) -> dict[str, Json]:
        return {"format": FORMAT, "recipe_key": self.recipe_key, "data_key": self.data_key}

    def require_own(self, path: Path, metadata: Mapping[str, Json]) -> None:
        """Raise LabError if a file's metadata names another run; what it does not name is not compared."""
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
        "hardware": hardware_info(),
        "versions": package_versions() | ({library: package_version(library)} if library else {}),
        "started_at": current_time(),
        "code": codes["model"].to_record() if "model" in codes else None,
        "parts": {part: code.to_record() for part, code in codes.items() if part != "model"} or None,
        "pretrained": trainer.pretrained,
    }


def new_evaluation_record(predictions: DatasetPredictions, epoch: int) -> EvaluationRecord:
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
    )


def current_time() -> str:
    """The local time with its offset, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def read_summary(folder: Path) -> RunSummary:
    """The summary of a run, of this format or an older one. Raises LabError if it is damaged or of a later format."""
    path = folder / SUMMARY_FILE
    values = read_json(path)
    require(isinstance(values, dict), f"{path} is damaged: it holds no summary")
    require_known_format(values.get("format"), path)
    summary: dict[str, Any] = rename_fields(values)
    summary |= {name: default for name, default in SUMMARY_DEFAULTS.items() if name not in summary}
    require(isinstance(summary.get("data"), dict), f"{path} is damaged: it has no data")
    data: dict[str, Any] = summary["data"]
    if summary["format"] is None:
        data = {FIRST_EDITION_DATA.get(name, name): value for name, value in data.items()}
        best = summary["best"]
        summary["best"] = epoch_from_record(best).to_record() if isinstance(best, Mapping) else None
    for name, holder in (("recipe_key", summary), ("train_sha256", data), ("test_sha256", data)):
        require(isinstance(holder.get(name), str), f"{path} is damaged: it has no {name}")
    summary["data"] = {"dir": None, **data}
    summary.setdefault("data_key", data_key(data))
    return validate_record(RunSummary, summary, path)


def read_stored_recipe(folder: Path) -> tuple[Recipe, str]:
    """The recipe in a run's folder, and the key of just the values in its file.

    That key is still the one of the run's start when a later convolab knows keys that the file does not have.
    """
    path = folder / RECIPE_FILE
    values = read_toml(path)
    number = values.pop("format", None)
    require_known_format(number, path)
    today = translate_first_edition(values) if number is None else values
    recipe = Recipe.from_file_values(today, stored=Recipe.model_fields)
    return recipe, recipe_key(values)


def read_history(folder: Path, run_id: RunId) -> list[EpochMetrics]:
    """The epochs in a run's metrics. Raises LabError if the file is damaged or of another run."""
    path = folder / METRICS_FILE
    records = [parse_json(line, f"{path} is damaged: a line") for line in read_text(path).splitlines()]
    for record in records:
        require(isinstance(record, dict), f"{path} is damaged: a line holds no fields")
        require_known_format(record.get("format"), path)
        run_id.require_own(path, record)
    return [epoch_from_record(record, path) for record in records]


def epoch_from_record(record: Mapping[str, Json], source: Path | str = "an epoch") -> EpochMetrics:
    """The epoch in a record, which may be the first edition's. Raises LabError if it lacks the essential."""
    fields = rename_fields(record)
    kind = fields.get("train_metrics")
    if isinstance(kind, str):
        fields["train_metrics"] = RENAMED_VALUES.get(("metrics.train", kind), kind)
    return EpochMetrics.from_record(fields, source)


def rename_fields(values: Mapping[str, Json]) -> dict[str, Json]:
    """The fields of a file in today's words, if the first edition wrote it; other files are left as they are."""
    if "format" in values:
        return dict(values)
    return {FIRST_EDITION_NAMES.get(name, name): value for name, value in values.items()}


@translate_path_errors()
def require_new_folder(out: Path | str | None) -> None:
    """Raise LabError if the folder for a new run is already in use or cannot be written, before any work is done."""
    if out is None:
        return
    folder = Path(out)
    require_no_run(folder)
    require(not folder.exists() or folder.is_dir(), f"{folder} is a file: choose a folder")
    require(
        not folder.exists() or not any(path.name != LOCK_FILE for path in folder.iterdir()),
        f"{folder} is not empty: choose a new or empty folder",
    )
    require_writable(folder)


@contextmanager
def new_run_folder(recipe: Recipe, out: Path | str | None) -> Iterator[Path]:
    """Make the folder of a new run and hold its lock inside the block.

    If the block fails before the run can be resumed, nothing of it is left. Raises LabError if another process has
    written there in the meantime.
    """
    was_there = out is not None and Path(out).exists()
    folder = make_run_folder(recipe, out)
    with run_lock(folder):
        require_new_folder(folder)  # another process may have made a run or a study here meanwhile
        try:
            yield folder
        except BaseException:
            if not has_started(folder):
                with suppress(LabError, OSError):
                    delete_own_files(folder)
                    (folder / LOCK_FILE).unlink(missing_ok=True)
                    if not was_there:
                        folder.rmdir()
            raise


def has_started(folder: Path) -> bool:
    """Whether a run's files were all made, so that it can be listed and resumed."""
    try:
        return read_summary(folder)["status"] != "new"
    except LabError:
        return False


def require_no_run(folder: Path) -> None:
    require(not (folder / SUMMARY_FILE).exists(), f"{folder} holds a run already: resume it, or choose another folder")


def make_run_folder(recipe: Recipe, out: Path | str | None) -> Path:
    """Make the run's folder; without `out` under runs/, named by network, data and time."""
    if out is not None:
        with translate_write_errors(Path(out)):
            Path(out).mkdir(parents=True, exist_ok=True)
        return Path(out)
    network = recipe.model.name.rpartition(":")[2].rpartition("/")[2]
    name = f"{network}-{short_name(recipe.data.name)}-{time.strftime('%Y%m%d-%H%M%S')}"
    for number in range(1000):
        folder = Path("runs") / (f"{name}-{number}" if number else name)
        try:
            with translate_write_errors(folder):
                folder.mkdir(parents=True)
            return folder
        except LabError:
            if not folder.exists():
                raise
    raise LabError(f"runs/ already has a thousand runs named {name}: choose a folder yourself")


def delete_own_files(folder: Path) -> None:
    """Delete what a run wrote, except its lock."""
    code = folder / CODE_FOLDER
    with translate_write_errors(folder):
        if code.is_dir() and not code.is_symlink():
            shutil.rmtree(code)
        for leftover in folder.glob(LEFTOVERS):
            leftover.unlink()
        for name in OWN_FILES:
            (folder / name).unlink(missing_ok=True)
