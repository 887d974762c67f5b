"""How runs stand, as the tabs list them: read from their folders, again only where a file has changed."""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from convolab.app.folders import MAX_LISTED, RunsFolder
from convolab.app.jobs import PageJob
from convolab.core.errors import LabError
from convolab.core.run_files import METRICS_FILE, RECIPE_FILE, SUMMARY_FILE, TEST_FILE
from convolab.core.types import Json
from convolab.training.lock import is_locked
from convolab.training.playback import FOLDER as PLAYBACK

if TYPE_CHECKING:
    from convolab.training.run import Run

FILES = (RECIPE_FILE, SUMMARY_FILE, METRICS_FILE, TEST_FILE)
MAX_POINTS = 1000  # epochs of a curve; of more every second, third ... is drawn
RECENT = 3  # epochs whose speed says how long the others take
CurvePoint = TypeVar("CurvePoint")
QUANTITIES = ("train_loss", "validation_loss", "train_accuracy", "validation_accuracy", "learning_rate")


def run_rows(folder: RunsFolder, jobs: list[PageJob]) -> list[dict[str, Json]]:
    """A row for each run, the latest first, and for each job that has no folder yet. A damaged run has a row too."""
    active = {job.run: job for job in jobs if job.state != "ended"}
    names = folder.find().runs
    rows = [run_row(folder, name, active.pop(name, None)) for name in names]
    rows.sort(key=lambda row: str(row["started_at"]), reverse=True)
    waiting: list[dict[str, Json]] = [
        {"name": name, "status": "waits" if job.state == "waiting" else "starts", "job": job.id, "kind": job.kind}
        for name, job in active.items()
        if job.kind != "study"
    ]
    return [*waiting, *rows[:MAX_LISTED]]


def run_row(folder: RunsFolder, name: str, job: PageJob | None) -> dict[str, Json]:
    """How a run stands."""
    try:
        values = folder.cached("row", name, FILES, lambda: describe_run(folder.run(name)))
    except LabError as error:
        return {"name": name, "status": "damaged", "reason": str(error), "started_at": "", "job": None}
    has_playback = (folder.root / name / PLAYBACK).is_dir()
    row = {**values, "name": name, "job": job.id if job else None, "has_playback": has_playback}
    if row["status"] == "running" and not is_locked(folder.root / name):
        row["status"] = "killed"
    if job and job.state == "stopping":
        row["status"] = "stopping"
    elif job and job.state == "waiting":
        row["status"] = "waits"
    row["seconds_left"] = seconds_left(folder, name, row) if row["status"] == "running" else None
    return row


def describe_run(run: "Run") -> dict[str, Json]:
    """What a run's files say, without whether it is being trained now."""
    best, test, history = run.best_epoch, run.test_result, run.history
    recent = [epoch.train_seconds for epoch in history[-RECENT:] if math.isfinite(epoch.train_seconds)]
    return {
        "network": run.recipe.model.name,
        "data": run.recipe.data.name,
        "seed": run.recipe.training.seed,
        "epochs": run.recipe.training.epochs,
        "epochs_done": len(history),
        "status": run.summary["status"],
        "reason": run.summary["reason"],
        "best": best.validation_accuracy if best else None,
        "test": test.accuracy if test else None,
        "is_to_test": run.summary["status"] == "finished" and test is None and run.has_test_images,
        "images_per_second": history[-1].images_per_second if history else None,
        "epoch_seconds": sum(recent) / len(recent) if recent else None,
        "started_at": run.summary["started_at"] or "",
        "num_parameters": run.summary["num_parameters"],
    }


def seconds_left(folder: RunsFolder, name: str, row: dict[str, Json]) -> float | None:
    """About how long a run still trains: as long an epoch as the last ones; None before the first has ended."""
    epoch_seconds, epochs, done = row["epoch_seconds"], row["epochs"], row["epochs_done"]
    if not isinstance(epoch_seconds, float) or not isinstance(epochs, int) or not isinstance(done, int):
        return None
    try:
        since = time.time() - (folder.root / name / METRICS_FILE).stat().st_mtime
    except OSError:
        return None
    return max(0.0, epoch_seconds * (epochs - done) - min(since, epoch_seconds))


def run_curves(folder: RunsFolder, name: str) -> dict[str, Json]:
    """A run's quantities, a list of each with a value for each epoch, and what its recipe says."""
    return folder.cached("curves", name, FILES, lambda: describe_curves(folder.run(name)))


def describe_curves(run: "Run") -> dict[str, Json]:
    shown = thin_curve(run.history)
    curves: dict[str, Json] = {quantity: [getattr(epoch, quantity) for epoch in shown] for quantity in QUANTITIES}
    return {
        "epoch": [epoch.epoch for epoch in shown],
        "epochs": run.recipe.training.epochs,
        "curves": curves,
        "recipe": run.recipe.to_toml(),
        "reason": run.summary["reason"],
    }


def thin_curve(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """The points of a curve that are drawn: all, or of too many every second, third ... and the last.

    >>> thin_curve(range(1, 2502))[:3], thin_curve(range(1, 2502))[-2:]
    ([3, 6, 9], [2499, 2501])
    """
    step = max(1, math.ceil(len(points) / MAX_POINTS))
    return [point for number, point in enumerate(points, 1) if number % step == 0 or number == len(points)]
