"""Logs of TensorBoard, MLflow and Weights & Biases, with stand-ins for the packages that record what they are called with.

The stand-ins draw from every global generator, as a tool may.
"""

import json
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.callbacks import stop_after

from convolab.core.errors import LabError
from convolab.data.memmap import read_memmap
from convolab.data.splits import DatasetSplits
from convolab.studies.executor import EventCallback, Job, run_job
from convolab.studies.runner import execute_study
from convolab.studies.study import Study
from convolab.training.callbacks import Callbacks
from convolab.training.epoch_log import LOGGERS, PACKAGES, require_logger
from convolab.training.recipe import Recipe
from convolab.training.run import Run

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


class Messages(Callbacks):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_message(self, message: str) -> None:
        self.lines.append(message)


@pytest.fixture(params=sorted(STAND_INS))
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


@pytest.mark.slow
def test_tensorboard_itself_reads_the_logged_epochs(
    tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits
) -> None:
    reason = "pip install 'convolab[tensorboard]'"
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason=reason)
    run = Run.start(make_recipe(), digits, tmp_path / "run", log="tensorboard", callbacks=stop_after(8))
    run = Run(run.folder).resume(digits)
    read = events.EventAccumulator(str(run.folder / "tensorboard"))
    read.Reload()
    scalars = [(event.step, event.value) for event in read.Scalars("loss/train")]
    assert scalars == [(epoch.epoch, pytest.approx(epoch.train_loss)) for epoch in run.history]


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
    run = Run.start(make_recipe(), digits, tmp_path / "run", log=logger, callbacks=stop_after(8))
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
    run = Run.start(make_recipe(), digits, tmp_path / "run", log=logger, callbacks=stop_after(14))
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


@pytest.mark.parametrize("name", sorted(PACKAGES))
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


def test_a_run_with_more_epochs_has_all_of_them_in_a_log_of_its_own(
    logger: str, tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits
) -> None:
    run = Run.start(make_recipe({"training.epochs": 1}), digits, tmp_path / "run", log=logger)
    before = calls(run, logger)
    more = run.extend(2, tmp_path / "more", splits=digits, log=logger)
    assert calls(run, logger) == before
    steps = [call["step"] for call in calls(more, logger) if call.get("name") == "loss/train"]
    assert steps == [1, 2]
    silent = run.extend(2, tmp_path / "silent", splits=digits)
    assert not (silent.folder / logger).exists()


def test_a_stopped_run_may_get_a_log_when_it_is_resumed(
    logger: str, tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits
) -> None:
    run = Run.start(make_recipe(), digits, tmp_path / "run", callbacks=stop_after(8)).resume(digits, log=logger)
    steps = [call["step"] for call in calls(run, logger) if call.get("name") == "loss/train"]
    assert steps == [epoch.epoch for epoch in run.history]


def test_each_run_of_a_study_has_its_log(logger: str, tmp_path: Path) -> None:
    recipe = {"data": {"limit": 60}, "model": {"name": "shallow_net"}, "training": {"epochs": 1, "batch_size": 16}}
    section = {"grid": {"optimizer.lr": [0.1, 0.01]}}
    study = Study.from_dict({"name": "rates", "seeds": [0], "recipe": recipe, "sections": {"lr": section}})
    with pytest.raises(LabError, match="unknown log 'tensorbord': did you mean 'tensorboard'"):
        execute_study(study, tmp_path / "study", log="tensorbord")
    assert not (tmp_path / "study").exists()
    result = execute_study(study, tmp_path / "study", executor=InProcess(), log=logger)
    for trial in result.trial_results.values():
        assert trial.folder is not None
        assert [c["step"] for c in calls(Run(trial.folder), logger) if c.get("name") == "loss/train"] == [1]


class InProcess:
    """An executor in this process, which has the stand-ins."""

    def run(self, jobs: Sequence[Job], dataset_folder: Path, on_event: EventCallback, should_stop: object) -> None:
        for job in jobs:
            run_job(job, lambda: read_memmap(dataset_folder), on_event, lambda: False)


def test_a_log_whose_folder_is_a_link_is_refused_before_an_epoch_is_trained(
    logger: str, tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits
) -> None:
    run = Run.start(make_recipe(), digits, tmp_path / "run", callbacks=stop_after(8))
    (tmp_path / "elsewhere").mkdir()
    (run.folder / logger).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(LabError, match="is a symbolic link to a path outside its folder"):
        run.resume(digits, log=logger)
    assert (len(run.history), list((tmp_path / "elsewhere").iterdir())) == (1, [])


WRITTEN = {  # by a tool, as it is on the disk
    "tensorboard": ["events.out.tfevents.1.a", "events.out.tfevents.2.b"],
    "mlflow": ["mlflow.db", "artifacts/1/a"],
    "wandb": ["offline-run-2026-w1/files/config.yaml", "debug.log"],
}


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_a_deleted_run_takes_its_log_with_it_and_leaves_what_is_somebody_elses(
    name: str, tmp_path: Path, make_recipe: MakeRecipe, digits: DatasetSplits
) -> None:
    for label, is_logged in (("logged", True), ("silent", False), ("shared", True), ("linked", True)):
        run = Run.start(make_recipe({"training.epochs": 1}), digits, tmp_path / label)
        if is_logged:
            record = {**run.run_id.to_dict(), "logger": name, "epochs": 1, "id": None}
            (run.folder / "log.json").write_text(json.dumps(record))
        for file in WRITTEN[name]:
            path = (tmp_path / "elsewhere" if label == "linked" else run.folder / name) / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("")
    (tmp_path / "shared" / name / "notes.txt").write_text("mine")
    (tmp_path / "linked" / name).symlink_to(tmp_path / "elsewhere")
    assert Run(tmp_path / "logged").delete() == []
    assert not (tmp_path / "logged").exists()
    assert Run(tmp_path / "silent").delete() == [tmp_path / "silent" / name]
    assert all((tmp_path / "silent" / name / file).exists() for file in WRITTEN[name])
    assert Run(tmp_path / "shared").delete() == [tmp_path / "shared" / name]
    assert [path.name for path in (tmp_path / "shared" / name).iterdir()] == ["notes.txt"]
    assert Run(tmp_path / "linked").delete() == [tmp_path / "linked" / name]
    assert all((tmp_path / "elsewhere" / file).exists() for file in WRITTEN[name])
