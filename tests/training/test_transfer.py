"""Trainings that start from weights, with frozen layers and a lower learning rate for what was taken."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.callbacks import FunctionCallbacks, stop_after
from support.run_contents import run_contents
from torch import nn

from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.models.registry import build
from convolab.training.checkpoint import read_tensors
from convolab.training.optim import SGD, Adam, AdamW, Optimizer
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.setup import build_trainer
from convolab.training.torch_optim import OtherOptimizer
from convolab.training.transfer import freeze

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"model.name": "simple_convnet", "model.channels": [4, 6], "training.epochs": 2}
HEAD = ["head.linear.weight", "head.linear.bias"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, digits: DatasetSplits, make_recipe: Callable[..., Recipe]) -> Run:
    """A run to start from; its classes are the digits'."""
    return Run.start(make_recipe(SMALL), digits, tmp_path_factory.mktemp("source") / "run")


@pytest.fixture
def weights_file(source: Run, tmp_path: Path) -> Path:
    """The weights of that run as another program would write them, without names of classes."""
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": source.net().network.state_dict()}, path)
    return path


def error_line(call: Callable[..., Any], *args: Any, **settings: Any) -> str:
    with pytest.raises(LabError) as caught:
        call(*args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def state_of(run: Run, which: str = "last") -> dict[str, torch.Tensor]:
    return run.net(which).network.state_dict()


# Weights


@pytest.mark.slow
def test_a_run_starts_from_the_weights_of_another_of_the_same_classes(
    source: Run, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe({**SMALL, "model.weights": str(source.folder)})
    trainer = build_trainer(recipe, digits, "cpu")
    for name, tensor in source.net().network.state_dict().items():
        assert torch.equal(trainer.net.network.state_dict()[name], tensor), name
    assert trainer.net.mean == tuple(source.net().mean)
    assert trainer.pretrained["new"] == []


@pytest.mark.slow
def test_the_last_layer_of_a_plain_file_is_new_from_the_seed_and_a_message_lists_it(
    weights_file: Path, source: Run, tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe({**SMALL, "model.weights": str(weights_file), "training.seed": 5})
    network = build_trainer(recipe, digits, "cpu").net.network
    fresh = build("simple_convnet", (1, 8, 8), 10, seed=5, channels=[4, 6])
    assert torch.equal(network.head.linear.weight, fresh.head.linear.weight)
    assert torch.equal(network.features[0].conv.weight, source.net().network.features[0].conv.weight)
    messages: list[str] = []
    run = Run.start(recipe, digits, tmp_path / "run", callbacks=FunctionCallbacks(on_message=messages.append))
    digest = recipe.model.weights_sha256
    assert len(messages) == 1
    assert f"starts from {weights_file} (SHA-256 {digest[:12]}...): 12 tensors taken" in messages[0]
    assert "new: head.linear.weight, head.linear.bias" in messages[0]
    record = Run(run.folder).summary["pretrained"]
    assert (record["sha256"], record["new"]) == (digest, HEAD)


def test_a_recipe_holds_the_sha_256_of_its_weights_and_its_key_changes_with_them(
    weights_file: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = make_recipe({**SMALL, "model.weights": str(weights_file)})
    recipe.write(tmp_path / "recipe.toml")
    assert Recipe.read(tmp_path / "recipe.toml") == recipe
    assert recipe.with_overrides({"model.weights": None}) == make_recipe(SMALL)
    torch.save(build("simple_convnet", (1, 8, 8), 10, channels=[4, 6], seed=9).state_dict(), weights_file)
    assert "has changed since the recipe was made" in error_line(Recipe.read, tmp_path / "recipe.toml")
    assert "has changed: its SHA-256" in error_line(build_trainer, recipe, digits, "cpu")
    assert make_recipe({**SMALL, "model.weights": str(weights_file)}).key != recipe.key


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "RMSprop"])
@pytest.mark.parametrize("freeze", [None, "all but the last layer", ["features.0.*"]])
def test_a_run_from_weights_resumes_bit_for_bit_and_opens_when_the_file_is_gone(
    weights_file: Path, tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe], freeze: Any,
    optimizer: str,
) -> None:  # fmt: skip
    start = {"model.weights": str(weights_file), "model.freeze": freeze, "model.pretrained_lr_factor": 0.1}
    recipe = make_recipe({**SMALL, **start, "optimizer.name": optimizer})
    expected = Run.start(recipe, digits, tmp_path / "whole")
    Run.start(recipe, digits, tmp_path / "run", callbacks=stop_after(4))
    weights_file.unlink()
    run = Run(tmp_path / "run").resume(digits)
    assert run_contents(run.folder) == run_contents(expected.folder)
    assert Run(run.folder).test(splits=digits).count == len(digits.test)
    assert Run(run.folder).net().classes == digits.train.classes
    longer = run.extend(3, tmp_path / "longer", splits=digits)
    assert (longer.status, longer.summary["pretrained"]) == ("finished", expected.summary["pretrained"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.with_name("none.pth"), "there is no file"),
        (lambda path: path.parent, "holds no best.safetensors: give a trained run"),
        (lambda path: shutil.copy(path, path.with_suffix(".txt")), "give 'pretrained' for the network's own, a file"),
        (lambda path: "pretrained", "'simple_convnet' has no weights of its own"),
    ],
)
def test_weights_that_cannot_be_had_are_refused_when_the_recipe_is_made(
    weights_file: Path, make_recipe: Callable[..., Recipe], make: Callable[[Path], Any], message: str
) -> None:
    assert message in error_line(make_recipe, {**SMALL, "model.weights": str(make(weights_file))})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda state: b"nothing", "is damaged or holds more than tensors"),
        (lambda state: {"a": print}, "is damaged or holds more than tensors"),
        (lambda state: {}, "holds no tensors by name"),
        (lambda state: {"epoch": 3}, "is damaged or holds more than tensors"),
        (lambda state: state | {"features.0.conv.weight": torch.full((4, 1, 3, 3), torch.nan)}, "NaN or infinite"),
        (
            lambda state: state | {"extra": torch.zeros(2)},
            "of their 15 tensors 14 fit, 1 are not in the network (extra)",
        ),
        (lambda state: {k: v for k, v in state.items() if "conv" in k}, "of the network are missing (features.0.norm"),
        (lambda state: state | {"features.1.conv.weight": torch.zeros(6, 4, 5, 5)}, "1 have another shape"),
    ],
)
def test_a_file_whose_tensors_do_not_fit_is_refused_in_one_line_with_the_counts(
    content: Callable[[dict], Any], message: str, weights_file: Path, source: Run, tmp_path: Path,
    digits: DatasetSplits, make_recipe: Callable[..., Recipe],
) -> None:  # fmt: skip
    value = content(source.net().network.state_dict())
    if isinstance(value, bytes):
        weights_file.write_bytes(value)
    else:
        torch.save(value, weights_file)
    recipe = make_recipe({**SMALL, "model.weights": str(weights_file)})
    assert message in error_line(Run.start, recipe, digits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_pickle_of_weights_runs_no_code(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
) -> None:
    class Touch:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"a": Touch()}, tmp_path / "bad.pth")
    recipe = make_recipe({**SMALL, "model.weights": str(tmp_path / "bad.pth")})
    with warnings.catch_warnings(record=True) as seen:
        line = error_line(build_trainer, recipe, digits, "cpu")
    assert not (tmp_path / "ran").exists()
    assert "reading more would run its code" in line
    assert "weights_only" not in line, "torch advises to read it without, which would run it"
    assert not seen


# Freezing


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer", [{"optimizer.name": "sgd", "optimizer.weight_decay": 0.1}, {"optimizer.name": "adamw"}]
)
def test_frozen_layers_keep_their_weights_and_their_running_statistics(
    optimizer: dict, source: Run, tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
) -> None:
    start = {"model.weights": str(source.folder), "model.freeze": "all but the last layer", "training.ema": 0.9}
    before = state_of(source, "best")
    run = Run.start(make_recipe({**SMALL, **start, **optimizer}), digits, tmp_path / "run")
    tensors, _ = read_tensors(run.folder / "state.safetensors")
    for name, tensor in before.items():
        assert torch.equal(tensors[f"net.network.{name}"], tensor) == (name not in HEAD), name
        assert torch.equal(tensors[f"averaged.network.{name}"], tensor) == (name not in HEAD), name
    names = {name.split(".")[1] for name in tensors if name.startswith("optimizer.")}
    assert names == {"0", "1"}  # the last layer's weight and bias, and nothing else


@pytest.mark.slow
def test_a_pattern_freezes_the_layers_whose_parameters_all_fit_it(
    source: Run, tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
) -> None:
    start = {"model.weights": str(source.folder), "model.freeze": ["features.0.*", "features.1.norm.bias"]}
    before = state_of(source, "best")
    after = state_of(Run.start(make_recipe({**SMALL, **start}), digits, tmp_path / "run"))
    same = {name for name in before if torch.equal(before[name], after[name])}
    # The norm of features.1 is trained in part, so its statistics follow.
    assert same == {name for name in before if name.startswith("features.0.")} | {"features.1.norm.bias"}


def test_no_gradient_goes_below_the_last_layer_that_is_trained(
    digits: DatasetSplits, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe({**SMALL, "model.freeze": "all but the last layer"})
    trainer = build_trainer(recipe, digits, "cpu")
    trainer.net.train()
    seen = []
    trainer.net.network.features.register_forward_hook(lambda layer, inputs, output: seen.append(output.requires_grad))
    list(trainer.iter_epochs())
    assert set(seen) == {False}
    assert all((p.grad is None) == (name not in HEAD) for name, p in trainer.net.network.named_parameters())


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["feature.0.*"], "no parameter of the network fits 'feature.0.*'"),
        (["features.0.*", "heads.*"], "no parameter of the network fits 'heads.*'"),
        ("all but the last", "no parameter of the network fits 'all but the last'"),
        ("*", "freezes every parameter"),
    ],
)
def test_a_pattern_that_fits_nothing_or_everything_is_refused(
    patterns: Any, message: str, tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe({**SMALL, "model.freeze": patterns})
    assert message in error_line(Run.start, recipe, digits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_empty_freeze_and_a_factor_without_weights_are_refused(make_recipe: Callable[..., Recipe]) -> None:
    assert "model.freeze is empty" in error_line(make_recipe, {**SMALL, "model.freeze": []})
    assert "needs weights" in error_line(make_recipe, {**SMALL, "model.pretrained_lr_factor": 0.1})


def test_layers_without_parameters_inside_a_frozen_one_are_frozen_with_it() -> None:
    block = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, affine=False), nn.Dropout())
    network = nn.Sequential(block, nn.Flatten(), nn.Linear(2, 5))
    assert freeze(network, "all but the last layer", 5) == (block,)


# A lower learning rate


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(lr=0.1),
        Adam(lr=0.1),
        AdamW(lr=0.1),
        OtherOptimizer(name="RMSprop", lr=0.1),
        OtherOptimizer(name="NAdam", lr=0.1),
    ],
    ids=lambda o: o.name,
)
@pytest.mark.parametrize("factor", [0.1, 1.0])
def test_a_factor_on_the_rate_of_some_parameters_is_a_group_of_torchs(optimizer: Optimizer, factor: float) -> None:
    torch.manual_seed(0)
    start = [torch.randn(3), torch.randn(3)]
    ours, theirs = ([nn.Parameter(t.clone()) for t in start] for _ in range(2))
    state = optimizer.build(ours, {ours[0]: factor})
    options = {k: v for k, v in optimizer.model_dump().items() if k not in ("name", "lr")}
    kind = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}.get(optimizer.name, optimizer.name)
    groups = [{"params": [theirs[0]], "lr": 0.05 * factor}, {"params": [theirs[1]], "lr": 0.05}]
    oracle = getattr(torch.optim, kind)(groups, lr=0.05, **options)
    for _ in range(4):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(3)
            other.grad = one.grad.clone()
        state.step(0.05)  # as a schedule gives it
        oracle.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_a_factor_on_all_parameters_is_a_lower_rate() -> None:
    for optimizer in (SGD(lr=0.1, momentum=0, weight_decay=0), OtherOptimizer(name="SGD", lr=0.1)):
        weight = nn.Parameter(torch.ones(2))
        state = optimizer.build([weight], {weight: 0.5})
        weight.grad = torch.ones(2)
        state.step()
        assert weight.tolist() == pytest.approx([0.95, 0.95])


def test_a_recipes_factor_is_that_of_the_tensors_that_were_taken(
    weights_file: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
) -> None:
    start = {"model.weights": str(weights_file), "model.pretrained_lr_factor": 0.25, "model.freeze": "features.0.*"}
    trainer = build_trainer(make_recipe({**SMALL, **start}), digits, "cpu")
    parameters = trainer.optimizer_state.parameters
    names = {id(p): name for name, p in trainer.net.network.named_parameters()}
    by_factor = trainer.optimizer_state.indices_by_factor
    assert {names[id(parameters[i])] for i in by_factor[1.0]} == set(HEAD)
    assert {names[id(parameters[i])] for i in by_factor[0.25]} == {
        "features.1.conv.weight", "features.1.norm.weight", "features.1.norm.bias",
    }  # fmt: skip


# Networks of libraries


@pytest.mark.slow
def test_a_pretrained_network_learns_a_last_layer_and_is_normalized_as_it_expects(
    tmp_path: Path, write_pet_images: Callable[[Path], Path]
) -> None:
    from convolab.data.catalog import load

    folder = write_pet_images(tmp_path / "pets")
    splits = load(f"folder:{folder}", image_size=32)
    recipe = Recipe.from_dict(
        {
            "data": {"name": f"folder:{folder}", "validation": 0.0, "augment": []},
            "model": {"name": "efficientnet_lite0", "weights": "pretrained", "freeze": "all but the last layer"},
            "training": {"epochs": 8, "batch_size": 10},
            "optimizer": {"name": "adam", "lr": 0.01},
        }
    )
    run = Run.start(recipe, splits, tmp_path / "run")
    assert run.summary["pretrained"]["new"] == ["classifier.weight", "classifier.bias"]
    assert run.net("last").mean == (0.5, 0.5, 0.5)
    assert run.history[-1].train_accuracy > 0.9


@pytest.mark.slow
def test_weights_of_a_library_that_cannot_be_fetched_are_refused_with_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from convolab.models import weights as weights_module

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    line = error_line(weights_module.read_own_weights, "torchvision/resnet18")
    assert "download https://download.pytorch.org/models/resnet18-" in line
    assert "or give a file as model.weights" in line


@pytest.mark.slow
def test_weights_for_three_channels_see_a_grey_image_as_if_it_were_grey_in_all_three(tmp_path: Path) -> None:
    from convolab.models.pretrained import pretrained
    from convolab.models.weights import normalization_for, read_own_weights, take_weights

    weights = read_own_weights("efficientnet_lite0")
    network = build("efficientnet_lite0", (1, 64, 64), 1000).eval()
    _, new = take_weights(network, weights, pretrained("efficientnet_lite0").classes)
    assert not new
    assert normalization_for(weights, 1) == ((0.5,), (0.5,))
    grey = torch.rand(2, 1, 64, 64)
    expected = pretrained("efficientnet_lite0")(grey.expand(2, 3, 64, 64))
    torch.testing.assert_close(network((grey - 0.5) / 0.5), expected, rtol=1e-3, atol=1e-3)
