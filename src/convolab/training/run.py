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

from convolab.core.errors import LabError, need
from convolab.core.files import read_json, write_json, write_same, write_text, writing_to
from convolab.core.stats import wilson_interval
from convolab.data.catalog import Pictures, load
from convolab.data.image_io import fit as fit_photo
from convolab.data.image_io import read_photo
from convolab.models.classifier import PixelNet
from convolab.training.checkpoint import PREVIOUS, STATE, read_state, read_weights, write_state, write_weights
from convolab.training.recipe import Recipe
from convolab.training.setup import machine, new_folder, prepare, refuse_used
from convolab.training.trainer import Diverged, Epoch, Fit, evaluate

VERSIONS = ("convolab", "torch", "numpy", "scikit-learn", "safetensors", "pydantic")


@cache
def versions() -> dict[str, str]:
    """The installed version of everything a run's figures depend on."""
    return {name: version(name) for name in VERSIONS}


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
        need(
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
        pictures: Pictures,
        out: Path | str | None = None,
        *,
        device: str = "cpu",
        data_dir: Path | None = None,
        **callbacks: Any,
    ) -> "Run":
        """Lay out a new folder for a recipe and train it there; `callbacks` are those of `resume`.

        Raises LabError, with nothing written, if the recipe cannot be trained on these pictures or the place is taken.
        """
        refuse_used(out)
        fit = prepare(recipe, pictures, device)
        dated = data_dir is not None or recipe.data.name.startswith("folder:")
        summary = {
            "status": "new",
            "recipe_key": recipe.key,
            "data": {
                "dir": str((data_dir or Path()).expanduser().resolve()) if dated else None,
                "train": pictures.train.fingerprint,
                "test": pictures.test.fingerprint,
            },
            "parameters": sum(p.numel() for p in fit.net.parameters()),
            "device": device,
            "precision": "bf16" if fit.bf16 else "fp32",
            "threads": torch.get_num_threads(),
            "machine": machine(),
            "versions": versions(),
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        folder = new_folder(recipe, out)
        recipe.write(folder / "recipe.toml")
        write_text(folder / "metrics.jsonl", "")
        write_json(folder / "summary.json", summary)
        run = cls(folder)
        with run.lock():
            run.go_on(fit, **callbacks)
        return run

    def resume(
        self, pictures: Pictures, *, on_note: Callable[[str], None] = lambda note: None, **callbacks: Any
    ) -> "Run":
        """Go on where the last state is, bit for bit as if never stopped; a finished run stays as it is.

        `callbacks` are those of `go_on`; `on_note` hears of a damaged state or another number of threads. Raises LabError if
        the recipe was changed, or another process is training the run.
        """
        self.need_unchanged_recipe()
        self.need_same(pictures)
        with self.lock():
            for part in self.folder.glob(".*.part.safetensors"):  # what a kill left: nobody else writes these now
                part.unlink()
            fit = prepare(self.recipe, pictures, self.summary["device"], self.summary["precision"])
            # A kill before the first state may leave one line of metrics: the run then begins again.
            if len(self.history) > 1 or any((self.folder / name).exists() for name in (STATE, PREVIOUS)):
                tensors, progress, damage = read_state(self.folder)
                fit.restore(tensors, progress)
                self.write_metrics(fit)
                if damage:
                    on_note(damage)
                    (self.folder / STATE).unlink()  # else the next one written would push it over the good one
            if self.summary["threads"] != torch.get_num_threads():
                on_note(
                    f"this run began with {self.summary['threads']} threads and goes on with {torch.get_num_threads()}: its bits will differ"
                )
            self.go_on(fit, **callbacks)
        return self

    @property
    def history(self) -> list[Epoch]:
        """The epochs done so far."""
        try:
            lines = (self.folder / "metrics.jsonl").read_text().splitlines()
            return [Epoch(**json.loads(line)) for line in lines]
        except (OSError, ValueError, TypeError) as error:
            raise LabError(f"{self.folder / 'metrics.jsonl'} is damaged: {error}") from error

    @property
    def best(self) -> Epoch | None:
        """The epoch whose weights `best.safetensors` holds."""
        history = self.history
        if not history or history[0].validation_accuracy is None:
            return history[-1] if history else None
        return max(history, key=lambda epoch: epoch.validation_accuracy)

    @property
    def status(self) -> str:
        """new, running, stopped (by the person), killed, diverged or finished."""
        status = self.summary["status"]
        return status if status != "running" or self.locked else "killed"

    @property
    def locked(self) -> bool:
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
            with writing_to(self.folder):
                lock.acquire()
        except Timeout as error:
            raise LabError(f"{self.folder} is being trained by another process: wait for it, or stop it") from error
        try:
            yield
        finally:
            lock.release()

    def pictures(
        self, data_dir: Path | None = None, on_progress: Callable[[int, int | None], None] | None = None
    ) -> Pictures:
        """The run's pictures, read anew. Raises LabError if they are not the ones it was trained on."""
        root = data_dir or (Path(self.summary["data"]["dir"]) if self.summary["data"]["dir"] else None)
        pictures = load(self.recipe.data.name, root, size=self.recipe.data.size, on_progress=on_progress)
        self.need_same(pictures)
        return pictures

    def need_same(self, pictures: Pictures) -> None:
        """Raise LabError unless these are the pictures the run was trained on."""
        for part in ("train", "test"):
            need(
                getattr(pictures, part).fingerprint == self.summary["data"][part],
                f"the {part} pictures of {self.recipe.data.name} are not those of {self.folder}: they changed since; give the old ones with --data-dir, or train anew",
            )

    def go_on(
        self,
        fit: Fit,
        *,
        on_step: Callable[[Fit], None] | None = None,
        on_epoch: Callable[[Epoch], None] = lambda epoch: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train to the end, or until `stop()`, writing every epoch down.

        Raises Diverged if the loss becomes NaN or infinite, and LabError if the disk is full; the files of the last good
        epoch then stay whole.
        """
        self.conclude("running", fit)
        try:
            for epoch in fit.epochs(on_step=on_step, stop=stop):
                self.write_epoch(fit)
                on_epoch(epoch)
        except Diverged as error:
            self.conclude("diverged", fit, str(error))
            raise
        if not fit.finished:
            write_state(self.folder, *fit.state())
        self.conclude("finished" if fit.finished else "stopped", fit)

    def write_epoch(self, fit: Fit) -> None:
        """Write an epoch down. The state comes last: a kill before it repeats the epoch, and so writes the same again."""
        about = {"model": self.recipe.values()["model"], "recipe_key": self.recipe.key, "epoch": fit.progress.epoch}
        write_weights(self.folder / "last.safetensors", fit.judged, about)
        if fit.best.epoch == fit.progress.epoch:
            write_same(self.folder / "best.safetensors", self.folder / "last.safetensors")
        self.write_metrics(fit)
        write_state(self.folder, *fit.state())

    def write_metrics(self, fit: Fit) -> None:
        write_text(
            self.folder / "metrics.jsonl", "".join(json.dumps(asdict(epoch)) + "\n" for epoch in fit.progress.history)
        )

    def conclude(self, status: str, fit: Fit, reason: str | None = None) -> None:
        """Write how the run stands into its summary."""
        self.summary |= {
            "status": status,
            "reason": reason,
            "epochs_done": fit.progress.epoch,
            "best": asdict(fit.best) if fit.best else None,
        }
        self.summary["seconds"] = sum(epoch.seconds for epoch in fit.progress.history) + fit.progress.seconds
        write_json(self.folder / "summary.json", self.summary)

    def net(self, which: str = "best") -> PixelNet:
        """The trained network with its `best` or `last` weights, in evaluation mode.

        Raises LabError if the run has none yet, or the file is not this run's.
        """
        return self.weights(which)[0]

    def weights(self, which: str) -> tuple[PixelNet, int]:
        """The network as `net` gives it, and the epoch its weights are of, as their own file says."""
        path = self.folder / f"{which}.safetensors"
        need(path.exists(), f"{self.folder} has no weights yet: train it for an epoch first")
        net, about = read_weights(path)
        need(
            about.get("recipe_key") == self.recipe.key,
            f"{path} holds weights of another run (recipe {about.get('recipe_key')}, not {self.recipe.key}): put this run's file back",
        )
        return net, about["epoch"]

    @property
    def tested(self) -> dict[str, Any] | None:
        """The record of the test, if it was made."""
        path = self.folder / "test.json"
        return read_json(path) if path.exists() else None

    def test(
        self, *, data_dir: Path | None = None, pictures: Pictures | None = None, unfinished: bool = False
    ) -> dict[str, Any]:
        """The best weights on the test set, recorded in test.json; a second call returns the record.

        `pictures` saves reading them, for a caller that has them.

        Gives accuracy (a fraction) with its Wilson 95 % interval, correct, count, loss (nats), per_class and confusion
        (rows: the true class). Raises LabError if the recipe or the data changed, if the run is not finished (unless
        `unfinished`), or if other weights of this run were tested before.
        """
        self.need_unchanged_recipe()
        net, epoch = self.weights("best")
        if record := self.tested:
            need(
                record["epoch"] == epoch,
                f"{self.folder} was tested with the weights of epoch {record['epoch']}, and its best are now of epoch {epoch}: a second look would make the test a validation; remove test.json if you mean it",
            )
            return record
        need(
            unfinished or self.status == "finished",
            f"{self.folder} is {self.status} after {len(self.history)} of {self.recipe.training.epochs} epochs: resume it first, or test it --unfinished",
        )
        if pictures is None:
            pictures = self.pictures(data_dir)
        else:
            self.need_same(pictures)
        test = pictures.test
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

    def predict(self, picture: Path | str, top: int = 5) -> list[tuple[str, float]]:
        """The `top` most probable classes of a picture file, resized as the set's pictures were."""
        net = self.net()
        pixels = fit_photo(read_photo(Path(picture)), net.size, net.channels)
        with torch.inference_mode():
            probabilities = net(pixels.unsqueeze(0) / 255).softmax(1).squeeze(0)
        values, labels = probabilities.topk(min(top, len(net.classes)))
        return [(net.classes[label], value) for label, value in zip(labels.tolist(), values.tolist(), strict=True)]

    def need_unchanged_recipe(self) -> None:
        key = self.summary["recipe_key"]
        need(
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
    recipe = Recipe.parse({"model": {"name": recipe}}) if isinstance(recipe, str) else recipe
    refuse_used(out)
    root = Path(data_dir) if data_dir else None
    return Run.start(
        recipe, load(recipe.data.name, root, size=recipe.data.size), out, device=device, data_dir=root, **callbacks
    )


def find_runs(folder: Path | str) -> list[Run]:
    """All runs in a folder and the folders below it, by name."""
    return [
        Run(path.parent)
        for path in sorted(Path(folder).rglob("summary.json"))
        if (path.parent / "recipe.toml").exists()
    ]
