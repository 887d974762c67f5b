"""Logs of TensorBoard, MLflow and Weights & Biases, with stand-ins for the packages that record what they are called with.

The stand-ins draw from every global generator, as a tool may.
"""

import json
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.training.epoch_log import LOGGERS, PACKAGES, require_logger
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.trainer import Callbacks, Trainer

pytestmark = pytest.mark.slow
MakeRecipe = Callable[..., Recipe]
RECORDER = """
import json, random, numpy, torch
from pathlib import Path
def record(folder, **values):
    random.random(), numpy.random.rand(), torch.rand(3)
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open(Path(folder) / "calls.jsonl", "a") as file:
        file.write(json.dumps(values) + chr(10))
"""
STAND_INS = {
    "tensorboard": {
        "tensorboardX/__init__.py": RECORDER
        + """
class SummaryWriter:
    def __init__(self, folder, purge_step=None):
        self.folder = folder
        record(folder, purge_step=purge_step)
    def add_text(self, name, text): record(self.folder, text=name)
    def add_scalar(self, name, value, step): record(self.folder, name=name, value=value, step=step)
    def flush(self): pass
    def close(self): record(self.folder, closed=True)
"""
    },
    "mlflow": {
        "mlflow/__init__.py": "",
        "mlflow/tracking.py": RECORDER
        + """
from types import SimpleNamespace
class MlflowClient:
    def __init__(self, tracking_uri): self.folder = tracking_uri.removeprefix("sqlite:///").rpartition("/")[0]
    def get_experiment_by_name(self, name): return None
    def create_experiment(self, name, artifacts): return "7"
    def create_run(self, experiment, run_name):
        record(self.folder, created=experiment)
        return SimpleNamespace(info=SimpleNamespace(run_id="abc"))
    def log_param(self, run, key, value): record(self.folder, run=run, key=key)
    def log_metric(self, run, name, value, step): record(self.folder, run=run, name=name, value=value, step=step)
    def set_terminated(self, run): record(self.folder, closed=True)
""",
    },
    "wandb": {
        "wandb/__init__.py": RECORDER
        + """
class Run:
    def __init__(self, folder, id): self.folder, self.id = folder, id or "w1"
    def log(self, values, step):
        for name, value in values.items(): record(self.folder, name=name, value=value, step=step)
    def finish(self): record(self.folder, closed=True)
def init(*, project, name, dir, mode, id, resume, config):
    assert mode == "offline"
    record(dir + "/wandb", created=id, key=config["model.name"])
    return Run(dir + "/wandb", id)
"""
    },
}


class StopAfter(Callbacks):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step(self, trainer: Trainer) -> None:
        self.steps -= 1

    def should_stop(self) -> bool:
        return self.steps <= 0


class Messages(Callbacks):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_message(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture(params=sorted(LOGGERS))
def logger(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a logger whose package is a stand-in."""
    name = request.param
    for file, source in STAND_INS[name].items():
        path = tmp_path / "packages" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    if name == "tensorboard":
        monkeypatch.setattr(
            "convolab.training.epoch_log.find_spec", lambda name: None if name == "tensorboard" else find_spec(name)
        )
    return name


def calls(run: Run, name: str) -> list[dict]:
    return [json.loads(line) for line in (run.folder / name / "calls.jsonl").read_text().splitlines()]


def test_every_epoch_is_logged_with_its_values_and_no_bit_of_the_run_differs(
    logger: str, tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits
) -> None:
    run = Run.start(make_recipe(), digits, tmp_path / "logged", log=logger)
    plain = Run.start(make_recipe(), digits, tmp_path / "plain")
    for name in ("last.safetensors", "best.safetensors"):
        assert (run.folder / name).read_bytes() == (plain.folder / name).read_bytes()
    assert run.recipe.key == plain.recipe.key
    logged = [(call["name"], call["step"], call["value"]) for call in calls(run, logger) if "step" in call]
    for epoch in run.history:
        assert ("loss/train", epoch.epoch, epoch.train_loss) in logged
        assert ("accuracy/validation", epoch.epoch, epoch.validation_accuracy) in logged
        assert ("learning_rate", epoch.epoch, epoch.learning_rate) in logged
    assert calls(run, logger)[-1] == {"closed": True}


def test_a_resumed_run_goes_on_in_the_same_log_and_writes_no_epoch_twice(
    logger: str, tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits
) -> None:
    run = Run.start(make_recipe(), digits, tmp_path / "run", log=logger, callbacks=StopAfter(8))
    assert len(run.history) == 1
    Run(run.folder).resume(digits)
    steps = [call["step"] for call in calls(run, logger) if call.get("name") == "loss/train"]
    assert steps == [1, 2, 3]
    if logger == "tensorboard":
        assert [call["purge_step"] for call in calls(run, logger) if "purge_step" in call] == [None, 2]
    else:
        created = [call["created"] for call in calls(run, logger) if "created" in call]
        assert created == (["7"] if logger == "mlflow" else [None, "w1"])


def test_an_epoch_that_a_kill_left_out_of_the_log_is_written_on_resuming(
    logger: str, tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits
) -> None:
    run = Run.start(make_recipe(), digits, tmp_path / "run", log=logger, callbacks=StopAfter(14))
    record = json.loads((run.folder / "log.json").read_text())
    assert record["epochs"] == 2
    (run.folder / "log.json").write_text(json.dumps({**record, "epochs": 1}))
    Run(run.folder).resume(digits)
    steps = [call["step"] for call in calls(run, logger) if call.get("name") == "loss/train"]
    assert steps == [1, 2, 2, 3]  # of both the tools keep the later one, for TensorBoard by its purge step


def test_a_tool_that_fails_ends_the_log_and_not_the_training(
    logger: str, tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(LOGGERS[logger], "write", fail)
    messages = Messages()
    run = Run.start(make_recipe(), digits, tmp_path / "run", log=logger, callbacks=messages)
    assert run.status == "finished"
    assert [line for line in messages.lines if "no space left" in line and "the training goes on" in line]
    assert len(messages.lines) == 1


@pytest.mark.parametrize("name", sorted(LOGGERS))
def test_a_package_that_is_missing_is_named_with_its_extra_before_any_work(
    name: str, tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convolab.training.epoch_log.find_spec", lambda name: None)
    with pytest.raises(LabError, match=rf"needs the package {PACKAGES[name][0]}: pip install 'convolab\[{name}\]'"):
        Run.start(make_recipe(), digits, tmp_path / "run", log=name)
    assert not (tmp_path / "run").exists()


def test_an_unknown_log_is_answered_with_the_nearest() -> None:
    with pytest.raises(LabError, match="unknown log 'tensorbord': did you mean 'tensorboard'"):
        require_logger("tensorbord")
