"""What a training writes into its run's folder, epoch by epoch."""

import json
from contextlib import suppress
from pathlib import Path
from typing import cast

import torch

from convolab.core.errors import LabError
from convolab.core.files import link_or_copy, write_json, write_text
from convolab.core.run_files import BEST_FILE, LAST_FILE, METRICS_FILE, SUMMARY_FILE
from convolab.core.text import pluralize
from convolab.models.classifier import ImageClassifier
from convolab.training.callbacks import TrainingCallbacks
from convolab.training.checkpoint import write_state, write_weights
from convolab.training.exactness import require_exact, samples_of_own_parts
from convolab.training.recipe import Recipe
from convolab.training.run_records import RunId, RunSummary, Status
from convolab.training.trainer import Diverged, Trainer


class RunRecorder:
    """Trains to the end and records every epoch, in a folder whose lock the caller holds.

    Args:
        folder: of the run.
        recipe: what is trained.
        summary: what its summary.json holds; how the training goes is entered there.
        trainer: made by `build_trainer`, new or restored.
    """

    def __init__(self, folder: Path, recipe: Recipe, summary: RunSummary, trainer: Trainer) -> None:
        self.folder, self.summary, self.trainer = folder, summary, trainer
        self.model = recipe.to_dict()["model"]
        self.run_id = RunId(summary["recipe_key"], summary["data_key"]).to_dict()

    def train(self, callbacks: TrainingCallbacks) -> None:
        """Train to the end, or until the callbacks stop it.

        Raises Diverged if the loss becomes NaN or infinite, and LabError if a part of somebody else's fails or the disk
        is full; the files of the last good epoch then stay whole, and the summary says why.
        """
        self.write_status("running")
        try:
            for epoch in self.trainer.iter_epochs(callbacks):
                self.write_epoch()
                callbacks.on_epoch(epoch)
        except Diverged as error:
            self.write_status("diverged", str(error))
            raise
        except LabError as error:
            with suppress(LabError):  # of a full disk, which the first error tells
                self.write_status("failed", str(error))
            raise
        if not self.trainer.is_finished:
            self.write_state()
        self.write_status("finished" if self.trainer.is_finished else "stopped")

    def write_epoch(self) -> None:
        """Record an epoch. The state comes last: a kill before it repeats the epoch, and so writes the same again."""
        progress = self.trainer.progress
        net = cast("ImageClassifier", self.trainer.eval_net)  # `build_trainer` made it
        self.write_weights("last", net, progress.epoch)
        if self.trainer.best_epoch == progress.history[-1]:
            link_or_copy(self.folder / BEST_FILE, self.folder / LAST_FILE)
        self.write_metrics()
        self.write_state()

    def write_weights(self, which: str, net: ImageClassifier, epoch: int) -> None:
        """The `best` or `last` weights, which are those of an epoch."""
        metadata = {**self.run_id, "model": self.model, "epoch": epoch}
        if self.summary["code"]:
            metadata["code"] = self.summary["code"]
        write_weights(self.folder / f"{which}.safetensors", net, metadata)

    def write_metrics(self) -> None:
        """All epochs so far, one line each."""
        lines = [json.dumps({**epoch.to_record(), **self.run_id}) + "\n" for epoch in self.trainer.progress.history]
        write_text(self.folder / METRICS_FILE, "".join(lines))

    def write_state(self) -> None:
        """All that continues the training bit for bit."""
        if self.trainer.training.exact is not False:
            require_exact(self.trainer)
        tensors, progress = self.trainer.snapshot()
        write_state(self.folder, tensors, {**self.run_id, **progress, **samples_of_own_parts(self.trainer)})

    def write_status(self, status: Status, reason: str | None = None) -> None:
        """Enter into the summary how far the training is."""
        progress, best = self.trainer.progress, self.trainer.best_epoch
        self.summary["status"] = status
        self.summary["reason"] = reason
        self.summary["epochs_done"] = progress.epoch
        self.summary["best"] = dict(best.to_record()) if best else None
        self.summary["train_seconds"] = sum(epoch.train_seconds for epoch in progress.history) + progress.seconds
        write_json(self.folder / SUMMARY_FILE, self.summary)


def note_other_threads(summary: RunSummary, callbacks: TrainingCallbacks) -> None:
    """Say it if a run goes on with another number of threads than it began with."""
    threads = summary["threads"]
    if threads is not None and threads != torch.get_num_threads():
        callbacks.on_message(
            f"this run was started with {pluralize(threads, 'thread')} and continues with "
            f"{torch.get_num_threads()}: results will not be bit-identical"
        )
