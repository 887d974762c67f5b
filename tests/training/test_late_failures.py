"""Parts of a person's own that work at first: what they do wrong later is one line, and the run says that it failed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.callbacks import stop_after
from support.own_code import own_code_folder

from convolab.cli.run_status import folder_overview
from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.models import own_code
from convolab.studies.compare import compare_runs
from convolab.training.checkpoint import read_state
from convolab.training.exactness import PART_SAMPLES
from convolab.training.recipe import Recipe
from convolab.training.run import Run

pytestmark = pytest.mark.slow
LATE = '''
import random

import numpy as np
import torch
import torch.nn.functional as F

generator = random.SystemRandom()


def clock():
    return generator.uniform(0.1, 0.9)  # never so small that it is written as 8e-06

calls = [0]


class Late(torch.optim.SGD):
    """Works for 13 steps."""

    def __init__(self, params, lr: float = 0.01, what: str = ""):
        super().__init__(params, lr)
        self.what, self.count = what, 0

    def step(self):
        super().step()
        first = self.param_groups[0]["params"][0]
        state = self.state[first]
        state["steps"] = state.get("steps", 0) + 1
        if state["steps"] > 13:
            getattr(self, self.what)(first, state)

    def nan(self, first, state):
        first.data[0] = float("nan")

    def shape(self, first, state):
        first.data = first.data[:1]

    def dtype(self, first, state):
        first.data = first.data.double()

    def freezing(self, first, state):
        first.requires_grad_(False)

    def new_group(self, first, state):
        self.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]})

    def no_group(self, first, state):
        self.param_groups.clear()

    def raising(self, first, state):
        raise RuntimeError("two\\nlines")

    def leaving(self, first, state):
        raise SystemExit(0)

    def closing(self, first, state):
        raise GeneratorExit

    def no_gradients(self, first, state):
        torch.set_grad_enabled(False)

    def other_dtype(self, first, state):
        torch.set_default_dtype(torch.float64)

    def attribute(self, first, state):
        self.count += 1
        first.data += 0.001 * self.count

    def group_key(self, first, state):
        group = self.param_groups[0]
        group["count"] = group.get("count", 0) + 1
        first.data += 0.001 * group["count"]

    def time(self, first, state):
        first.data += clock()

    def list_(self, first, state):
        state.setdefault("seen", []).append(1)

    def word(self, first, state):
        self.state["word"] = {"a": 1}

    def sparse(self, first, state):
        state["eye"] = torch.eye(2).to_sparse()

    def large(self, first, state):
        state["large"] = 10**5000

    def views(self, first, state):
        state["a"] = torch.ones(4)
        state["b"] = state["a"][:2]
        state["c"] = first.data

    def drawing(self, first, state):
        first.data += 0.01 * (random.random() + np.random.rand() + torch.rand(1))


def schedule(epoch, total_epochs, what: str = ""):
    if not 1 <= epoch < 2:
        return 1.0
    if what == "raising":
        raise RuntimeError("no")
    return {"nan": float("nan"), "below": -1.0, "none": None, "random": random.uniform(0.2, 0.9)}[what]


class Falling(torch.optim.lr_scheduler.LRScheduler):
    def get_lr(self):
        drawn = random.uniform(0.2, 0.9) if self.last_epoch >= 1 else 1  # so that no rate is written as 8e-06
        return [rate * drawn for rate in self.base_lrs]


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise RuntimeError("no way back")


def loss(logits, targets, what: str = ""):
    calls[0] += 1
    value = F.cross_entropy(logits, targets)
    if calls[0] < 21:
        return value
    if what == "raising":
        raise RuntimeError("no")
    if what == "root":
        return value + (logits - logits.detach()).abs().sqrt().sum()
    if what == "broken":
        return Broken.apply(value)
    if what == "elsewhere":
        return value.detach() + 0 * torch.zeros((), requires_grad=True)
    return value * {"nan": float("nan"), "counted": calls[0]}[what]


def drawing(logits, targets):
    return F.cross_entropy(logits, targets) * (0.5 + random.random() + np.random.rand() + torch.rand(1)[0])


def constant(logits, targets):
    return torch.zeros((), requires_grad=True) * 1


def metric(logits, labels, what: str = ""):
    calls[0] += 1
    return 0.5 if calls[0] < 4 else clock() if what == "clock" else float(what)


def transform(pixels, what: str = ""):
    calls[0] += 1
    return pixels if calls[0] < 15 else pixels * {"range": 300, "nan": float("nan"), "clock": clock()}[what]


def by_hour(pixels):
    """Depends on what the module had when it was loaded."""
    return pixels * calls[0] if calls[0] else pixels
'''


@pytest.fixture
def late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    return own_code_folder(tmp_path, monkeypatch, "late.py", LATE)


def optimizer(what: str) -> dict[str, Any]:
    return {"optimizer.name": "late.py:Late", "optimizer.what": what}


def schedule(what: str) -> dict[str, Any]:
    return {"schedule.name": "late.py:schedule", "schedule.what": what}


def loss(what: str) -> dict[str, Any]:
    return {"loss.name": "late.py:loss", "loss.what": what}


def metric(what: str) -> dict[str, Any]:
    return {"validation_metric.name": "late.py:metric", "validation_metric.what": what}


def transform(what: str) -> dict[str, Any]:
    return {"data.augment": [f"late.py:transform(what='{what}')"]}


FORM = "the optimizer 'late.py:Late' changed its groups of parameters in its step, or a parameter's shape, dtype, device or "
OUTSIDE = (
    "the optimizer 'late.py:Late' keeps something outside its state (optimizer.state, as tensors and numbers), so a "
)
SETTING = (
    "the optimizer 'late.py:Late' failed in its step: it changes a setting of the whole process (torch.set_grad_enabled"
)
KEEPS = "the optimizer 'late.py:Late' keeps {} in its state, which a file cannot hold, so a stopped run could not be resumed"
CASES = [
    (optimizer("nan"), "the optimizer 'late.py:Late' left weights that are NaN or infinite in epoch 3, step 2, at learning rate 0.01: look into its step, lower"),
    (optimizer("shape"), FORM),
    (optimizer("dtype"), FORM),
    (optimizer("freezing"), FORM),
    (optimizer("new_group"), FORM),
    (optimizer("no_group"), FORM),
    (optimizer("raising"), "the optimizer 'late.py:Late' failed in its step: two (late.py, line "),
    (optimizer("leaving"), "the optimizer 'late.py:Late' failed in its step: SystemExit: 0 (late.py, line "),
    (optimizer("closing"), "the optimizer 'late.py:Late' failed in its step: GeneratorExit (late.py, line "),
    (optimizer("no_gradients"), SETTING),
    (optimizer("other_dtype"), SETTING),
    (optimizer("attribute"), OUTSIDE),
    (optimizer("group_key"), OUTSIDE),
    (optimizer("time"), OUTSIDE),
    (optimizer("list_"), KEEPS.format("'seen' of type list")),
    (optimizer("word"), KEEPS.format("a key of type str")),
    (optimizer("sparse"), KEEPS.format("'eye' of type Tensor")),
    (optimizer("large"), KEEPS.format("'large' of type int")),
    (schedule("nan"), "the schedule 'late.py:schedule' gives a learning rate of nan in epoch 2: it must be 0 or more"),
    (schedule("below"), "the schedule 'late.py:schedule' gives a learning rate of -0.01 in epoch 2: it must be 0 or more"),
    (schedule("none"), "the schedule 'late.py:schedule' gives no number in epoch 2: TypeError"),
    (schedule("raising"), "the schedule 'late.py:schedule' failed in epoch 2: no (late.py, line "),
    (schedule("random"), "the schedule 'late.py:schedule' gives 0.00"),
    ({"schedule.name": "late.py:Falling"}, "the schedule 'late.py:Falling' gives 0.00"),
    (loss("nan"), "the loss 'late.py:loss' is nan for finite logits"),
    (loss("raising"), "the loss 'late.py:loss' failed: no (late.py, line "),
    (loss("root"), "the loss 'late.py:loss' has a gradient by the logits that is NaN or infinite"),
    (loss("broken"), "the gradient failed in epoch 2, step 5: no way back (late.py, line "),
    (loss("elsewhere"), "no parameter has a gradient in epoch 2, step 5: compute the logits from the parameters, and the loss from"),
    (loss("counted"), "the loss 'late.py:loss' gives other values for the same logits and seed, so a stopped run could not be resumed"),
    (metric("clock"), "the metric 'late.py:metric' gives 0.5 and then 0."),
    (metric("nan"), "the metric 'late.py:metric' gives nan: it must give a finite number"),
    (metric("1e200"), "the metric 'late.py:metric' gives 1e+200: it must give a finite number up to 1e+60"),
    (transform("range"), "the transform 'late.py:transform(what='range')' gives pixels from 0 to 300 for ones from 0 to 1: they must be in"),
    (transform("nan"), "the transform 'late.py:transform(what='nan')' gives pixels that are NaN or infinite"),
    (transform("clock"), "the transform 'late.py:transform(what='clock')' gives other pixels for the same images and seed, so a stopped"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "message"), CASES, ids=[" ".join(map(str, case[0].values())) for case in CASES])
def test_a_part_that_misbehaves_later_is_one_line_that_names_it_and_the_run_says_so(
    overrides: dict[str, Any], message: str, late: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    settings = torch.is_grad_enabled(), torch.get_default_dtype()
    with pytest.raises(LabError) as caught:
        Run.start(late(overrides), digits, "run")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert (torch.is_grad_enabled(), torch.get_default_dtype()) == settings
    run = Run("run")
    assert run.status == ("diverged" if overrides.get("optimizer.what") == "nan" else "failed")
    assert run.summary["reason"] == str(caught.value)
    assert len(run.history) <= 3
    assert run.history or "validation_metric.name" in overrides  # what was done before stays


@pytest.mark.parametrize("overrides", [optimizer("drawing"), {"loss.name": "late.py:drawing"}])
def test_what_draws_from_pythons_and_numpys_generators_resumes_bit_for_bit(
    overrides: dict[str, Any], late: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    whole = Run.start(late(overrides), digits, "whole")
    Run.start(late(overrides), digits, "stopped", callbacks=stop_after(15))
    assert (Run("stopped").resume(digits).folder / "last.safetensors").read_bytes() == (
        whole.folder / "last.safetensors"
    ).read_bytes()


def test_a_state_whose_tensors_share_memory_is_saved_and_resumed_bit_for_bit(
    late: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    whole = Run.start(late(optimizer("views")), digits, "whole")
    Run.start(late(optimizer("views")), digits, "stopped", callbacks=stop_after(15))
    assert (Run("stopped").resume(digits).folder / "last.safetensors").read_bytes() == (
        whole.folder / "last.safetensors"
    ).read_bytes()


def test_a_loss_that_does_not_use_the_logits_is_refused_before_the_training(
    late: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    with pytest.raises(LabError, match=r"^the loss has no gradient by the logits"):
        Run.start(late({"loss.name": "late.py:constant"}), digits, "run")
    assert not Path("run").exists()


def test_a_part_that_gives_something_else_in_another_process_is_named_at_the_resume(
    late: Callable[..., Recipe], digits: DatasetSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = late({"data.augment": ["late.py:by_hour"]})
    Run.start(recipe, digits, "stopped", callbacks=stop_after(8))
    assert Run("stopped").resume(digits).status == "finished"
    Run.start(recipe, digits, "again", callbacks=stop_after(8))
    _, metadata, _ = read_state(Path("again"))
    samples = metadata[PART_SAMPLES]
    assert isinstance(samples, dict)
    assert list(samples) == ["the transform 'late.py:by_hour()'"]
    monkeypatch.setattr(own_code, "_LOADED", {})  # as in a new process, which loads the module again
    loaded = own_code.OwnCode.load

    def load_later(self: own_code.OwnCode, name: str) -> Any:
        module = loaded(self, name)
        module.__globals__["calls"][0] = 0.5
        return module

    monkeypatch.setattr(own_code.OwnCode, "load", load_later)
    with pytest.raises(
        LabError, match=r"^the transform 'late\.py:by_hour.*' does not give what it gave when the state was"
    ):
        Run("again").resume(digits)
    assert Run("again").status == "stopped"


def test_a_failed_run_is_named_as_failed_and_resumed_once_its_cause_is_gone(
    late: Callable[..., Recipe], digits: DatasetSplits, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, other = (Run.start(late({"training.seed": seed}), digits, f"whole-{seed}") for seed in (0, 1))
    with monkeypatch.context() as patch:
        patch.setattr("convolab.training.recorder.write_state", raise_disk_full)
        with pytest.raises(LabError, match="the disk is full"):
            Run.start(late({}), digits, "run")
    run = Run("run")
    assert (run.status, run.summary["reason"]) == ("failed", "the disk is full")
    assert folder_overview(run.folder)["status"] == "failed"
    assert compare_runs([other, run]).notes == ("run has failed after 1 of 3 epochs and is left out of the comparison",)
    with pytest.raises(
        LabError, match="run is failed: only a finished run is given more epochs; first convolab resume"
    ):
        run.extend(5, splits=digits)
    assert run.resume(digits).status == "finished"
    assert (run.folder / "last.safetensors").read_bytes() == (whole.folder / "last.safetensors").read_bytes()


def raise_disk_full(*_: object) -> None:
    raise LabError("the disk is full")
