"""The files of a run's folder: their names, the run that each says it belongs to, and how older ones are read.

Every file has a format number and names its run by two keys: the recipe's, and one of the data's fingerprints.
Readers ignore fields that they do not know, but for a recipe's, and fill in those that a file lacks. Files of the first edition have no
format; their names are translated here, so that such a run is read like any other, but not resumed.
"""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from convolab.core.errors import LabError, errors_name, require
from convolab.core.files import (
    find_leftovers,
    parse_json,
    read_json,
    read_text,
    require_writable,
    translate_path_errors,
    translate_write_errors,
)
from convolab.core.outputs import (
    CALIBRATION,
    CONFUSION_MATRIX,
    MISTAKES,
    TRAINING_CURVES,
    own_kind,
    require_replaceable,
)
from convolab.core.records import validate_record
from convolab.core.run_files import (
    CODE_FOLDER,
    LOG_FILE,
    METRICS_FILE,
    PREVIOUS_STATE_FILE,
    RECIPE_FILE,
    STATE_FILE,
    SUMMARY_FILE,
    TEST_FILE,
    WEIGHTS_FILES,
)
from convolab.core.text import pluralize
from convolab.core.types import Json
from convolab.data.catalog import short_name
from convolab.training.checkpoint import read_header_metadata
from convolab.training.first_edition import RENAMED_VALUES, translate_first_edition
from convolab.training.history import EpochMetrics
from convolab.training.lock import LOCK_FILE, run_lock
from convolab.training.predictions import MISTAKE_COLUMNS
from convolab.training.recipe import (
    Recipe,
    read_toml,
    recipe_key,
    require_known_format,
)
from convolab.training.run_records import COMPLETED, SUMMARY_DEFAULTS, RunId, RunSummary, data_key

RUN_MARKS = (RECIPE_FILE, METRICS_FILE, SUMMARY_FILE)  # a folder with two of them is a run, maybe a damaged one
OUTPUTS = {  # what `convolab train` and `convolab test` put beside: the kind of each, in files of these endings
    "curves": TRAINING_CURVES,
    "confusion": CONFUSION_MATRIX,
    "calibration": CALIBRATION,
    "mistakes": MISTAKES,
}
OUTPUT_ENDINGS = ("html", "svg", "png", "csv")
# Deleted in this order: as long as the last two are there, the folder is a run that can be deleted again.
OWN_FILES = (
    TEST_FILE, LOG_FILE, STATE_FILE, PREVIOUS_STATE_FILE, *WEIGHTS_FILES, METRICS_FILE, SUMMARY_FILE, RECIPE_FILE,
)  # fmt: skip
LOG_CONTENTS = {  # of a tool's folder in the run's folder: what the tool writes, as patterns, of folders with a slash
    "playback": ("epoch-*.safetensors", "images.safetensors"),
    "tensorboard": ("events.out.tfevents.*",),
    "mlflow": ("mlflow.db*", "artifacts/"),
    "wandb": ("offline-run-*/", "run-*/", "latest-run", "debug*.log"),
}
FIRST_EDITION_NAMES = {
    "seconds": "train_seconds",
    "parameters": "num_parameters",
    "machine": "hardware",
    "started": "started_at",
    "tested": "tested_at",
}
FIRST_EDITION_DATA = {"train": "train_sha256", "test": "test_sha256"}


def require_run_folder(folder: Path) -> None:
    """Raise LabError, with what is there and what to give, unless a folder holds a run."""
    with translate_path_errors():
        if not (folder / SUMMARY_FILE).is_file():
            raise LabError(f"{folder} is not a run folder: {explain_no_run(folder)}")


def explain_no_run(folder: Path) -> str:
    """What is in a folder that holds no run itself, and what to give in its place."""
    if (folder / "study.toml").is_file():  # `studies.study_folder.STUDY_FILE`
        return f"it is a study's, which convolab compare shows; give one of the runs in {folder / 'runs'}"
    if inside := runs_directly_in(folder):
        return f"it holds {pluralize(len(inside), 'run')}: give one of them, such as {inside[0]}"
    if folder.exists():
        return "give one made by convolab train"
    near = {path.name: path for parent in (Path("runs"), folder.parent) for path in runs_directly_in(parent)}
    close = get_close_matches(folder.name, list(near), n=1)
    meant = f"did you mean '{near[close[0]]}'?" if close else "give one made by convolab train"
    return f"there is no such folder: {meant}"


def runs_directly_in(folder: Path) -> list[Path]:
    """The folders of runs in a folder, by name, and not those further below."""
    return sorted(path.parent for path in folder.glob(f"*/{SUMMARY_FILE}") if (path.parent / RECIPE_FILE).is_file())


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
        summary["best"] = (
            epoch_from_record(best, f"{path}: the best epoch").to_record() if isinstance(best, Mapping) else None
        )
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
    try:
        key = recipe_key(values)
    except TypeError as error:
        raise LabError(f"{path} is damaged: it holds a date or a time, which no recipe does") from error
    today = translate_first_edition(values) if number is None else values
    with errors_name(path):
        recipe = Recipe.from_file_values(today, stored=Recipe.model_fields)
    return recipe, key


def read_history(folder: Path, run_id: RunId) -> list[EpochMetrics]:
    """The epochs in a run's metrics. Raises LabError, naming the line, if the file is damaged or of another run."""
    path = folder / METRICS_FILE
    history: list[EpochMetrics] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        record = parse_json(line, f"{path} is damaged: line {number}")
        require(isinstance(record, dict), f"{path} is damaged: line {number} holds no fields")
        require_known_format(record.get("format"), path)
        run_id.require_own(path, record)
        epoch = epoch_from_record(record, f"line {number} of {path}")
        require(epoch.epoch == number, f"line {number} of {path} is damaged: it is epoch {epoch.epoch}, not {number}")
        history.append(epoch)
    return history


def require_own_tensors(folder: Path, run_id: RunId) -> None:
    """Raise LabError if a file of weights or a state is another run's; only their headers are read."""
    for name in (*WEIGHTS_FILES, STATE_FILE, PREVIOUS_STATE_FILE):
        path = folder / name
        try:
            metadata = read_header_metadata(path)
        except LabError:
            if not path.exists():  # not yet, or a training that goes on has just given it its other name
                continue
            raise
        run_id.require_own(path, metadata)


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
    require_outside_runs(Path("runs") if out is None else Path(out))
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


def require_outside_runs(folder: Path) -> None:
    """Raise LabError if a folder for a new run or study lies in the folder of a run, however deep."""
    for parent in folder.resolve().parents:
        require(
            sum((parent / name).exists() for name in RUN_MARKS) < 2,
            f"{folder} lies in {parent}, which is the folder of a run and has its files alone: choose another folder",
        )


def require_no_run(folder: Path) -> None:
    if (folder / SUMMARY_FILE).exists():
        is_complete = False
        with suppress(LabError):  # of a damaged summary, which resuming tells
            is_complete = read_summary(folder)["status"] in COMPLETED
        advice = "choose another folder" if is_complete else "resume it, or choose another folder"
        raise LabError(f"{folder} holds a run already: {advice}")


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


def delete_own_files(folder: Path, code_files: Sequence[Path] | None = None) -> None:
    """Delete what a run wrote, except its lock.

    Args:
        folder: of the run.
        code_files: the copies of code that the run's summary lists; all else in code/ is somebody's and stays. None for
            a folder that was empty before: whatever is in code/.

    Of the folders of a log, what is not of the tool's kind stays; so does a chart that has not the run's marker.
    """
    with translate_write_errors(folder):
        delete_code(folder / CODE_FOLDER, code_files)
        for leftover in find_leftovers(folder):
            leftover.unlink()
        run_id = read_run_id(folder)
        if run_id:
            delete_outputs(folder, run_id)
        if (folder / LOG_FILE).is_file():  # else whatever is called like a log is somebody else's
            for tool, patterns in LOG_CONTENTS.items():
                delete_log(folder / tool, patterns, run_id if tool == "playback" else None)
        for name in OWN_FILES:
            if not (folder / name).is_dir():  # which is somebody else's
                (folder / name).unlink(missing_ok=True)


def delete_outputs(folder: Path, run_id: RunId) -> None:
    """Delete the charts and galleries that are still as they were written for this run."""
    for name, kind in OUTPUTS.items():
        for ending in OUTPUT_ENDINGS:
            path = folder / f"{name}.{ending}"
            with suppress(LabError):
                require_replaceable(own_kind(kind, run_id.recipe_key), path, ",".join(MISTAKE_COLUMNS))
                path.unlink(missing_ok=True)


def delete_code(folder: Path, files: Sequence[Path] | None) -> None:
    """Delete the copies of code, and the folders that this leaves empty."""
    if not folder.is_dir() or folder.is_symlink():
        return
    if files is None:
        shutil.rmtree(folder)
        return
    inside = folder.resolve()
    for file in files:
        if file.is_file() and not file.is_symlink() and file.resolve().is_relative_to(inside):
            file.unlink()
    for place in sorted([folder, *(path for path in folder.rglob("*") if path.is_dir())], reverse=True):
        if not place.is_symlink() and not any(place.iterdir()):
            place.rmdir()


def read_run_id(folder: Path) -> RunId | None:
    """What a run's files name it by; None if its summary is damaged."""
    with suppress(LabError):
        summary = read_summary(folder)
        return RunId(summary["recipe_key"], summary["data_key"])
    return None


def delete_log(folder: Path, patterns: Sequence[str], run_id: RunId | None = None) -> None:
    """Delete what a tool wrote into its folder, and the folder if that leaves it empty; a link to a folder stays.

    With `run_id` only files of tensors that name this run.
    """
    if not folder.is_dir() or folder.is_symlink():
        return
    for pattern in patterns:
        for path in list(folder.glob(pattern.rstrip("/"))):
            is_folder = path.is_dir() and not path.is_symlink()
            if is_folder != pattern.endswith("/") or (run_id and not is_file_of(path, run_id)):
                continue
            if is_folder:
                shutil.rmtree(path)
            else:
                path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def is_file_of(path: Path, run_id: RunId) -> bool:
    """Whether a file of tensors names this run."""
    with suppress(LabError):
        return read_header_metadata(path).get("recipe_key") == run_id.recipe_key
    return False
