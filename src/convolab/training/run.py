"""A run: the folder in which one recipe becomes one trained network."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from convolab.core.errors import LabError, require
from convolab.core.files import link_or_copy, read_json, translate_write_errors, write_json, write_text
from convolab.core.stats import wilson_interval
from convolab.data.catalog import load
from convolab.data.image_io import read_image_file
from convolab.data.image_io import resize_and_center_crop as fit_photo
from convolab.data.splits import DatasetSplits
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import top_classes
from convolab.training.checkpoint import (
    PREVIOUS_STATE_FILE,
    STATE_FILE,
    read_state,
    read_weights,
    write_state,
    write_weights,
)
from convolab.training.recipe import Recipe
from convolab.training.setup import build_trainer, hardware_info, make_run_folder, require_new_folder
from convolab.training.trainer import Diverged, EpochMetrics, Trainer, evaluate

RECORDED_PACKAGES = ("convolab", "torch", "numpy", "scikit-learn", "safetensors", "pydantic")


@cache
def package_versions() -> dict[str, str]:
    """The installed version of everything a run's figures depend on."""
    return {name: version(name) for name in RECORDED_PACKAGES}


class Run:
    """A folder of a run, which can be read while it is written.

    recipe.toml            what was asked for, every key
    metrics.jsonl          a line an epoch
    best.safetensors       the weights of the best validation accuracy
    last.safetensors       the weights of the last epoch
    state.safetensors      all that continues the run bit for bit; state.previous.safetensors the one before
    summary.json           data, versions, machine, threads, and how it ended
    test.json              the test, once it was made

    Raises LabError if the folder holds no run.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        require(
            (self.folder / "summary.json").is_file(),
            f"{self.folder} holds no run: give a folder that convolab train has made",
        )
        self.recipe = Recipe.read(self.folder / "recipe.toml")
        self.summary: dict[str, Any] = read_json(self.folder / "summary.json")

    def __repr__(self) -> str:
        return f"Run('{self.folder}': {self.recipe.model.name} on {self.recipe.data.name}, {self.status}, {len(self.history)} of {self.recipe.training.epochs} epochs)"

    @classmethod
    def start(
        cls,
        recipe: Recipe,
        splits: DatasetSplits,
        out: Path | str | None = None,
        *,
        device: str = "cpu",
        data_dir: Path | None = None,
        **callbacks: Any,
    ) -> "Run":
        """Lay out a new folder for a recipe and train it there; `callbacks` are those of `resume`.

        Raises LabError, with nothing written, if the recipe cannot be trained on these pictures or the place is taken.
        """
        require_new_folder(out)
        trainer = build_trainer(recipe, splits, device)
        has_data_dir = data_dir is not None or recipe.data.name.startswith("folder:")
        summary = {
            "status": "new",
            "recipe_key": recipe.key,
            "data": {
                "dir": str((data_dir or Path()).expanduser().resolve()) if has_data_dir else None,
                "train": splits.train.fingerprint,
                "test": splits.test.fingerprint,
            },
            "parameters": sum(p.numel() for p in trainer.net.parameters()),
            "device": device,
            "precision": "bf16" if trainer.bf16 else "fp32",
            "threads": torch.get_num_threads(),
            "machine": hardware_info(),
            "versions": package_versions(),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        folder = make_run_folder(recipe, out)
        recipe.write(folder / "recipe.toml")
        write_text(folder / "metrics.jsonl", "")
        write_json(folder / "summary.json", summary)
        run = cls(folder)
        with run.lock():
            run._train(trainer, **callbacks)
        return run

    def resume(
        self, splits: DatasetSplits, *, on_message: Callable[[str], None] = lambda note: None, **callbacks: Any
    ) -> "Run":
        """Go on where the last state is, bit for bit as if never stopped; a finished run stays as it is.

        `callbacks` are those of `go_on`; `on_note` hears of a damaged state or another number of threads. Raises LabError if
        the recipe was changed, or another process is training the run.
        """
        self.require_same_recipe()
        self.require_same_data(splits)
        with self.lock():
            for leftover in self.folder.glob(".*.part.safetensors"):  # what a kill left: nobody else writes these now
                leftover.unlink()
            trainer = build_trainer(self.recipe, splits, self.summary["device"], self.summary["precision"])
            # A kill before the first state may leave one line of metrics: the run then begins again.
            if len(self.history) > 1 or any(
                (self.folder / name).exists() for name in (STATE_FILE, PREVIOUS_STATE_FILE)
            ):
                tensors, progress, warning = read_state(self.folder)
                trainer.restore(tensors, progress)
                self._write_metrics(trainer)
                if warning:
                    on_message(warning)
                    (self.folder / STATE_FILE).unlink()  # else the next one written would push it over the good one
            if self.summary["threads"] != torch.get_num_threads():
                on_message(
                    f"this run began with {self.summary['threads']} threads and goes on with {torch.get_num_threads()}: its bits will differ"
                )
            self._train(trainer, **callbacks)
        return self

    @property
    def history(self) -> list[EpochMetrics]:
        """The epochs done so far."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text().splitlines()
            return [EpochMetrics(**json.loads(line)) for line in lines]
        except (OSError, ValueError, TypeError) as error:
            raise LabError(f"{self.folder / 'metrics.jsonl'} is damaged: {error}") from error

    @property
    def best_epoch(self) -> EpochMetrics | None:
        """The epoch whose weights `best.safetensors` holds."""
        history = self.history
        if not history or history[0].validation_accuracy is None:
            return history[-1] if history else None
        return max(history, key=lambda epoch: epoch.validation_accuracy)

    @property
    def status(self) -> str:
        """new, running, stopped (by the person), killed, diverged or finished."""
        status = self.summary["status"]
        return status if status != "running" or self.is_training else "killed"

    @property
    def is_training(self) -> bool:
        """Whether a process is training this run now."""
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a folder that can only be read
            return False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Only one process trains a run; the lock falls with its process."""
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            with translate_write_errors(self.folder):
                lock.acquire()
        except Timeout as error:
            raise LabError(f"{self.folder} is being trained by another process: wait for it, or stop it") from error
        try:
            yield
        finally:
            lock.release()

    def load_splits(
        self, data_dir: Path | None = None, on_progress: Callable[[int, int | None], None] | None = None
    ) -> DatasetSplits:
        """The run's pictures, read anew. Raises LabError if they are not the ones it was trained on."""
        root = data_dir or (Path(self.summary["data"]["dir"]) if self.summary["data"]["dir"] else None)
        splits = load(self.recipe.data.name, root, image_size=self.recipe.data.image_size, on_progress=on_progress)
        self.require_same_data(splits)
        return splits

    def require_same_data(self, splits: DatasetSplits) -> None:
        """Raise LabError unless these are the pictures the run was trained on."""
        for part in ("train", "test"):
            require(
                getattr(splits, part).fingerprint == self.summary["data"][part],
                f"the {part} pictures of {self.recipe.data.name} are not those of {self.folder}: they changed since; give the old ones with --data-dir, or train anew",
            )

    def _train(
        self,
        trainer: Trainer,
        *,
        on_step: Callable[[Trainer], None] | None = None,
        on_epoch: Callable[[EpochMetrics], None] = lambda epoch: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train to the end, or until `stop()`, writing every epoch down.

        Raises Diverged if the loss becomes NaN or infinite, and LabError if the disk is full; the files of the last good
        epoch then stay whole.
        """
        self._write_status("running", trainer)
        try:
            for epoch in trainer.iter_epochs(on_step=on_step, stop=stop):
                self._write_epoch(trainer)
                on_epoch(epoch)
        except Diverged as error:
            self._write_status("diverged", trainer, str(error))
            raise
        if not trainer.is_finished:
            write_state(self.folder, *trainer.snapshot())
        self._write_status("finished" if trainer.is_finished else "stopped", trainer)

    def _write_epoch(self, trainer: Trainer) -> None:
        """Write an epoch down. The state comes last: a kill before it repeats the epoch, and so writes the same again."""
        metadata = {
            "model": self.recipe.to_dict()["model"],
            "recipe_key": self.recipe.key,
            "epoch": trainer.progress.epoch,
        }
        write_weights(self.folder / "last.safetensors", trainer.eval_net, metadata)
        if trainer.best_epoch.epoch == trainer.progress.epoch:
            link_or_copy(self.folder / "best.safetensors", self.folder / "last.safetensors")
        self._write_metrics(trainer)
        write_state(self.folder, *trainer.snapshot())

    def _write_metrics(self, trainer: Trainer) -> None:
        write_text(
            self.folder / "metrics.jsonl",
            "".join(json.dumps(asdict(epoch)) + "\n" for epoch in trainer.progress.history),
        )

    def _write_status(self, status: str, trainer: Trainer, reason: str | None = None) -> None:
        """Write how the run stands into its summary."""
        self.summary |= {
            "status": status,
            "reason": reason,
            "epochs_done": trainer.progress.epoch,
            "best": asdict(trainer.best_epoch) if trainer.best_epoch else None,
        }
        self.summary["seconds"] = (
            sum(epoch.train_seconds for epoch in trainer.progress.history) + trainer.progress.seconds
        )
        write_json(self.folder / "summary.json", self.summary)

    def net(self, which: str = "best") -> ImageClassifier:
        """The trained network with its `best` or `last` weights, in evaluation mode.

        Raises LabError if the run has none yet, or the file is not this run's.
        """
        return self.load_weights(which)[0]

    def load_weights(self, which: str) -> tuple[ImageClassifier, int]:
        """The network as `net` gives it, and the epoch its weights are of, as their own file says."""
        path = self.folder / f"{which}.safetensors"
        require(path.exists(), f"{self.folder} has no weights yet: train it for an epoch first")
        net, metadata = read_weights(path)
        require(
            metadata.get("recipe_key") == self.recipe.key,
            f"{path} holds weights of another run (recipe {metadata.get('recipe_key')}, not {self.recipe.key}): put this run's file back",
        )
        return net, metadata["epoch"]

    @property
    def test_result(self) -> dict[str, Any] | None:
        """The record of the test, if it was made."""
        path = self.folder / "test.json"
        return read_json(path) if path.exists() else None

    def test(
        self, *, data_dir: Path | None = None, splits: DatasetSplits | None = None, allow_unfinished: bool = False
    ) -> dict[str, Any]:
        """The best weights on the test set, recorded in test.json; a second call returns the record.

        `pictures` saves reading them, for a caller that has them.

        Gives accuracy (a fraction) with its Wilson 95 % interval, correct, count, loss (nats), per_class and confusion
        (rows: the true class). Raises LabError if the recipe or the data changed, if the run is not finished (unless
        `unfinished`), or if other weights of this run were tested before.
        """
        self.require_same_recipe()
        net, epoch = self.load_weights("best")
        if record := self.test_result:
            require(
                record["epoch"] == epoch,
                f"{self.folder} was tested with the weights of epoch {record['epoch']}, and its best are now of epoch {epoch}: a second look would make the test a validation; remove test.json if you mean it",
            )
            return record
        require(
            allow_unfinished or self.status == "finished",
            f"{self.folder} is {self.status} after {len(self.history)} of {self.recipe.training.epochs} epochs: resume it first, or test it --unfinished",
        )
        if splits is None:
            splits = self.load_splits(data_dir)
        else:
            self.require_same_data(splits)
        test = splits.test
        result = evaluate(net, test)
        per_class = result.confusion.diagonal() / result.confusion.sum(1)
        record = {
            "accuracy": result.accuracy,
            "interval": list(wilson_interval(result.correct, result.count)),
            "correct": result.correct,
            "count": result.count,
            "loss": result.loss,
            "per_class": {
                name: value if value == value else None
                for name, value in zip(test.classes, per_class.tolist(), strict=True)
            },
            "confusion": result.confusion.tolist(),
            "epoch": epoch,
            "tested": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        write_json(self.folder / "test.json", record)
        return record

    def predict(self, image: Path | str, top: int = 5) -> list[tuple[str, float]]:
        """The `top` most probable classes of a picture file, resized as the set's pictures were."""
        net = self.net()
        pixels = fit_photo(read_image_file(Path(image)), net.input_size, net.channels)
        with torch.inference_mode():
            probabilities = net(pixels.unsqueeze(0) / 255).softmax(1).squeeze(0)
        return [(top_class.name, top_class.probability) for top_class in top_classes(net.classes, probabilities, top)]

    def require_same_recipe(self) -> None:
        key = self.summary["recipe_key"]
        require(
            self.recipe.key == key,
            f"{self.folder / 'recipe.toml'} was changed since the run began (key {self.recipe.key}, was {key}): put it back, or train anew",
        )


def train(
    recipe: Recipe | str,
    out: Path | str | None = None,
    *,
    data_dir: Path | str | None = None,
    device: str = "cpu",
    **callbacks: Any,
) -> Run:
    """Train a recipe, or a network by name with the default recipe, and return its run; `callbacks` are `Run.go_on`'s."""
    recipe = Recipe.from_dict({"model": {"name": recipe}}) if isinstance(recipe, str) else recipe
    require_new_folder(out)
    root = Path(data_dir) if data_dir else None
    return Run.start(
        recipe,
        load(recipe.data.name, root, image_size=recipe.data.image_size),
        out,
        device=device,
        data_dir=root,
        **callbacks,
    )


def find_runs(folder: Path | str) -> list[Run]:
    """All runs in a folder and the folders below it, by name."""
    return [
        Run(path.parent)
        for path in sorted(Path(folder).rglob("summary.json"))
        if (path.parent / "recipe.toml").exists()
    ]
