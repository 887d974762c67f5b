"""Training on a graphics card: the same bits each time, exact resume, and the results of the processor.

These tests are skipped where torch finds neither CUDA nor MPS.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.callbacks import stop_after
from torch import nn

import convolab
from convolab.data.catalog import load
from convolab.studies.executor import LocalExecutor
from convolab.studies.runner import execute_study
from convolab.training.callbacks import NO_CALLBACKS
from convolab.training.fit import fit
from convolab.training.optim import SGD, Adam, AdamW, Optimizer
from convolab.training.recipe import Recipe, Training
from convolab.training.run import Run

DEVICE = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else None

pytestmark = pytest.mark.skipif(DEVICE is None, reason="torch finds no graphics card")

AUGMENT = ["crop:1", "flip", "rotate:10", "cutout:2", "color:0.2"]


def start(folder: Path, network: str = "simple_convnet", stop_at: int | None = None, **changes: object) -> Run:
    recipe = Recipe.from_dict({"model": {"name": network}, "training": {"epochs": 3}}).with_overrides(changes)
    callbacks = stop_after(stop_at) if stop_at else NO_CALLBACKS
    return Run.start(recipe, load("digits"), folder, device=DEVICE, callbacks=callbacks)


def tensors(run: Run) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": tensor
        for name in ("best", "last", "state")
        for key, tensor in load_file(run.folder / f"{name}.safetensors").items()
    }


def assert_same_bits(first: Run, second: Run) -> None:
    ours, theirs = tensors(first), tensors(second)
    assert ours.keys() == theirs.keys()
    assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


@pytest.mark.parametrize("network", ["shallow_net", "simple_convnet", "resnet_small"])
def test_two_trainings_have_the_same_bits(tmp_path: Path, network: str) -> None:
    first, second = (start(tmp_path / name, network) for name in ("first", "second"))
    assert_same_bits(first, second)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data.augment": AUGMENT},
        {"data.augment": ["mixup:0.4"]},
        {"data.augment": ["cutmix:1"]},
        {"optimizer.name": "adam", "optimizer.lr": 0.01, "training.ema": 0.9},
        {"optimizer.name": "adamw", "optimizer.lr": 0.01, "training.precision": "auto"},
        {
            "loss.name": "focal",
            "loss.class_weights": "balanced",
            "sampling.name": "balanced",
            "data.augment": ["mixup"],
        },
        {
            "data.augment": ["RandomErasing(p=1.0)", "resized_crop:0.5"],
            "optimizer.name": "RMSprop",
            "optimizer.lr": 0.001,
        },
        {"model.freeze": ["features.0.*"], "model.depth": 2, "model.dropout": 0.2},
    ],
    ids=["plain", "augment", "mixup", "cutmix", "adam-ema", "adamw-auto", "loss-sampling", "torchvision", "frozen"],
)
def test_a_stopped_run_continues_bit_for_bit(tmp_path: Path, changes: dict[str, object]) -> None:
    whole = start(tmp_path / "whole", **changes)
    stopped = start(tmp_path / "stopped", stop_at=17, **changes)
    assert stopped.status == "stopped"
    stopped.resume()
    assert_same_bits(whole, stopped)


def test_a_study_trains_on_the_card_and_decides_as_the_same_study_again(tmp_path: Path) -> None:
    study = convolab.coursework(sections=["batch-norm-adam"], seeds=[0, 1])
    first, second = (
        execute_study(study, tmp_path / name, executor=LocalExecutor(2, DEVICE)) for name in ("first", "second")
    )
    assert [run.summary["device"] for run in first.trial_results.values()] == [DEVICE] * 4
    for ours, theirs in zip(first.trial_results.values(), second.trial_results.values(), strict=True):
        assert_same_bits(Run(ours.folder), Run(theirs.folder))


def test_it_learns_what_the_processor_learns(tmp_path: Path) -> None:
    on_device = start(tmp_path / "device", **{"training.epochs": 2})
    recipe = on_device.recipe
    on_processor = Run.start(recipe, load("digits"), tmp_path / "processor")
    for ours, theirs in zip(on_device.history, on_processor.history, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)
        assert ours.validation_loss == pytest.approx(theirs.validation_loss, rel=5e-3)


@pytest.mark.parametrize("make", [SGD, Adam, AdamW])
def test_the_optimizers_step_as_those_of_torch(make: Callable[..., Optimizer]) -> None:
    torch.manual_seed(0)
    ours = nn.Linear(5, 3).to(DEVICE)
    theirs = nn.Linear(5, 3).to(DEVICE)
    theirs.load_state_dict(ours.state_dict())
    optimizer = make(lr=0.1)
    state, reference = optimizer.build(ours.parameters()), optimizer.torch_optimizer(list(theirs.parameters()))
    inputs = torch.randn(4, 5, device=DEVICE)
    for _ in range(3):
        for net, step in ((ours, state), (theirs, reference)):
            step.zero_grad()
            net(inputs).square().sum().backward()
            step.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_layers_that_draw_random_numbers_leave_the_generators_as_they_were() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10))
    before = torch.rand(3, device=DEVICE, generator=None)
    torch.manual_seed(1)
    expected = torch.rand(3, device=DEVICE)
    torch.manual_seed(1)
    fit(net, load("digits").train, training=Training(epochs=1), device=DEVICE)
    assert torch.equal(torch.rand(3, device=DEVICE), expected)
    assert not torch.equal(before, expected)


def test_settings_of_the_process_are_restored(tmp_path: Path) -> None:
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision
    start(tmp_path / "run", **{"training.epochs": 1})
    assert (cudnn.deterministic, cudnn.benchmark, cudnn.conv.fp32_precision) == before


def test_a_run_is_tested_predicted_and_explained_afterwards(tmp_path: Path) -> None:
    run = start(tmp_path / "run", **{"training.epochs": 10})
    assert run.test().accuracy > 0.8
    image = convolab.load("digits").test[0][0]
    assert convolab.explain(image, run, methods="gradient").arrays["gradient"].shape == (8, 8)


def test_a_network_on_the_card_is_explained_fooled_and_located(tmp_path: Path) -> None:
    net = convolab.pretrained("efficientnet_lite0").to(DEVICE)
    on_card = convolab.explain("chelsea", net, methods="gradient,gradcam,occlusion")
    on_processor = convolab.explain("chelsea", methods="gradient,gradcam,occlusion")
    assert on_card.metrics["target"]["class"] == on_processor.metrics["target"]["class"]
    assert convolab.fool("chelsea", "goldfish", net).metrics["fooled"]["fraction"] == 1.0
    located, expected = (
        convolab.locate("motorcycle_left", *args, targets="moped", alignment="resize") for args in ((net,), ())
    )
    assert located.metrics["classes"] == expected.metrics["classes"]
