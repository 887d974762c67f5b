"""A training's epochs in another log too: in TensorBoard, MLflow or Weights & Biases, or to be played back.

It is beside metrics.jsonl, and only on this machine.

A logger gets whole epochs, after they are on the disk; what it does changes no bit of the run. `log.json` in the run's
folder says how many it has, so that a resumed run goes on in the same log and writes no epoch twice.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from typing_extensions import TypedDict

from convolab.core.errors import LabError, describe_exception, require, suggest
from convolab.core.files import read_json, require_no_link, write_json
from convolab.core.records import validate_record
from convolab.training.callbacks import TrainingCallbacks
from convolab.training.history import EpochMetrics
from convolab.training.playback import PlaybackLogger
from convolab.training.recipe import Recipe
from convolab.training.recipe_changes import flat_recipe
from convolab.training.run_folder import LOG_FILE
from convolab.training.run_records import RunId
from convolab.training.trainer import Trainer

QUANTITIES = {  # of an epoch: its name in the log
    "train_loss": "loss/train",
    "validation_loss": "loss/validation",
    "train_accuracy": "accuracy/train",
    "validation_accuracy": "accuracy/validation",
    "learning_rate": "learning_rate",
    "images_per_second": "images_per_second",
}
TOOL_ERROR = "the log in {name} stopped ({reason}); the training goes on, and metrics.jsonl has every epoch"


class LogRecord(TypedDict):
    """What log.json holds."""

    logger: str
    epochs: int  # that are in the log
    id: str | None  # by which the tool finds the log again


@dataclass(frozen=True)
class LoggedRun:
    """What a logger may know of the run."""

    folder: Path
    run_id: RunId
    recipe: Recipe
    trainer: Trainer


@runtime_checkable
class EpochLogger(Protocol):
    """What writes epochs into the log of a tool."""

    @property
    def id(self) -> str | None: ...

    def write(self, epoch: EpochMetrics) -> None: ...

    def close(self) -> None: ...


class TensorBoardLogger:
    """Event files in RUN/tensorboard; what an earlier process wrote from the next epoch on counts as never written."""

    id: str | None = None

    def __init__(self, run: LoggedRun, record: LogRecord) -> None:
        writer = import_module("torch.utils.tensorboard" if find_spec("tensorboard") else "tensorboardX").SummaryWriter
        is_new = record["epochs"] == 0
        self.writer: Any = writer(str(run.folder / "tensorboard"), purge_step=None if is_new else record["epochs"] + 1)
        if is_new:
            self.writer.add_text("recipe", f"```\n{run.recipe.to_toml()}\n```")

    def write(self, epoch: EpochMetrics) -> None:
        for name, value in logged_values(epoch).items():
            self.writer.add_scalar(name, value, epoch.epoch)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class MlflowLogger:
    """A run of MLflow in the database RUN/mlflow/mlflow.db: its store of plain files is no longer kept up."""

    def __init__(self, run: LoggedRun, record: LogRecord) -> None:
        client = import_module("mlflow.tracking").MlflowClient
        store = (run.folder / "mlflow").resolve()
        store.mkdir(exist_ok=True)
        self.client: Any = client(tracking_uri=f"sqlite:///{store}/mlflow.db")
        self.id = record["id"]
        if self.id is None:
            experiment = self.client.get_experiment_by_name("convolab")
            artifacts = (store / "artifacts").as_uri()
            experiment_id = (
                experiment.experiment_id if experiment else self.client.create_experiment("convolab", artifacts)
            )
            self.id = str(self.client.create_run(experiment_id, run_name=run.folder.name).info.run_id)
            for key, value in flat_recipe(run.recipe).items():
                self.client.log_param(self.id, key, value)

    def write(self, epoch: EpochMetrics) -> None:
        for name, value in logged_values(epoch).items():
            self.client.log_metric(self.id, name, value, step=epoch.epoch)

    def close(self) -> None:
        self.client.set_terminated(self.id)


class WandbLogger:
    """An offline run of Weights & Biases in RUN/wandb: nothing is sent; `wandb sync --append` does that."""

    def __init__(self, run: LoggedRun, record: LogRecord) -> None:
        self.run: Any = import_module("wandb").init(
            project="convolab",
            name=run.folder.name,
            dir=str(run.folder),
            mode="offline",
            id=record["id"],
            resume="allow",
            config=flat_recipe(run.recipe),
        )
        self.id = str(self.run.id)

    def write(self, epoch: EpochMetrics) -> None:
        self.run.log(logged_values(epoch), step=epoch.epoch)

    def close(self) -> None:
        self.run.finish()


def playback_logger(run: LoggedRun, record: LogRecord) -> EpochLogger:
    return PlaybackLogger(run.folder, run.run_id, run.trainer)


LOGGERS: dict[str, Callable[[LoggedRun, LogRecord], EpochLogger]] = {
    "playback": playback_logger,
    "tensorboard": TensorBoardLogger,
    "mlflow": MlflowLogger,
    "wandb": WandbLogger,
}
PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "mlflow": ("mlflow",), "wandb": ("wandb",)}


def logged_values(epoch: EpochMetrics) -> dict[str, float]:
    """What a log has of an epoch: losses in nats, accuracies in [0, 1]."""
    values = {name: getattr(epoch, quantity) for quantity, name in QUANTITIES.items()}
    return {name: value for name, value in values.items() if value is not None and value == value}


def require_logger(name: str | None) -> None:
    """Raise LabError, before any work is done, for a logger that is not known or not installed."""
    if name is None:
        return
    require(name in LOGGERS, f"unknown log '{name}': {suggest(name, LOGGERS)}")
    packages = PACKAGES.get(name, ())
    require(
        not packages or any(map(find_spec, packages)),
        f"a log in {name} needs the package {next(iter(packages), None)}: pip install 'convolab[{name}]'",
    )


def read_log_record(folder: Path, run_id: RunId) -> LogRecord | None:
    """The log that a run has; None if it has none. Raises LabError if the file is damaged or another run's."""
    path = folder / LOG_FILE
    if not path.exists():
        return None
    values = read_json(path)
    record = validate_record(LogRecord, values, path)
    run_id.require_own(path, values)
    require(record["logger"] in LOGGERS, f"{path} is damaged: it names the log '{record['logger']}'")
    return record


@contextmanager
def epoch_log(run: LoggedRun, callbacks: TrainingCallbacks, name: str | None = None) -> Iterator[TrainingCallbacks]:
    """The callbacks, which log every epoch too if `name` or the run's own log.json says where.

    Epochs so far that the log lacks are written first. A tool that fails ends the log and not the training.
    Raises LabError if the tool's folder is a link.
    """
    record: LogRecord | None = read_log_record(run.folder, run.run_id)
    if name is not None and (record is None or record["logger"] != name):
        record = {"logger": name, "epochs": 0, "id": None}
    if record is None:
        yield callbacks
        return
    require_no_link(run.folder / record["logger"])
    logged = LoggingCallbacks(run, callbacks, record)
    try:
        for epoch in run.trainer.progress.history:
            logged.write(epoch)
        yield logged
    finally:
        logged.close()


class LoggingCallbacks:
    """A training's callbacks that write each epoch into a log too."""

    def __init__(self, run: LoggedRun, callbacks: TrainingCallbacks, record: LogRecord) -> None:
        self.run, self.callbacks, self.record = run, callbacks, record
        self.logger: EpochLogger | None = None
        with self._guarded():
            require_logger(record["logger"])
            self.logger = LOGGERS[record["logger"]](run, record)
            self._write_record(record["epochs"])

    def on_step(self, trainer: Trainer) -> None:
        self.callbacks.on_step(trainer)

    def on_message(self, message: str) -> None:
        self.callbacks.on_message(message)

    def should_stop(self) -> bool:
        return self.callbacks.should_stop()

    def on_epoch(self, metrics: EpochMetrics) -> None:
        self.write(metrics)
        self.callbacks.on_epoch(metrics)

    def write(self, epoch: EpochMetrics) -> None:
        """Log an epoch, unless the log has it."""
        if self.logger is not None and epoch.epoch > self.record["epochs"]:
            with self._guarded():
                self.logger.write(epoch)
                self._write_record(epoch.epoch)

    def close(self) -> None:
        if self.logger is not None:
            with self._guarded():
                self.logger.close()

    def _write_record(self, epochs: int) -> None:
        assert self.logger is not None
        self.record = {"logger": self.record["logger"], "epochs": epochs, "id": self.logger.id}
        write_json(self.run.folder / LOG_FILE, {**self.run.run_id.to_dict(), **self.record})

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever fails in another program's library becomes a message, and ends the log."""
        try:
            yield
        except Exception as error:
            self.logger = None
            reason = str(error) if isinstance(error, LabError) else describe_exception(error)
            self.callbacks.on_message(TOOL_ERROR.format(name=self.record["logger"], reason=reason))
