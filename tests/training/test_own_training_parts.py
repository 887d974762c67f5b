"""Transforms, losses, samplings and metrics of a person's own: kept with the run, resumed bit for bit, or refused."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.callbacks import stop_after
from support.own_code import own_code_folder
from torchvision.transforms import v2

from convolab.core.errors import LabError
from convolab.core.rng import lent_generators, make_generator
from convolab.data.splits import DatasetSplits
from convolab.studies.compare import compare_runs
from convolab.training.augmentation import AnyTransform, parse_transform
from convolab.training.fit import check_arguments, fit
from convolab.training.other_transform import TORCHVISION, fill_entry, to_uint8
from convolab.training.recipe import Recipe
from convolab.training.run import Run
from convolab.training.transforms import TRANSFORMS, to_float01

PARTS = """
import random

import numpy as np
import torch
from torchvision.transforms import v2

flips = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomErasing(p=1.0)])


class Noise:
    def __init__(self, strength: float = 0.1):
        self.strength = strength

    def __call__(self, pixels):
        factor = random.random() * np.random.rand()
        return (pixels + factor * self.strength * torch.randn_like(pixels)).clamp(0, 1)


def threshold(pixels, at: int = 100):
    assert pixels.dtype == torch.uint8
    return pixels * (pixels > at)


threshold.on = "uint8"


class OneByOne:
    per_image = True

    def __call__(self, image):
        assert image.ndim == 3
        return image.flip(2) if random.random() < 0.5 else image


class Counter:
    count = 0

    def __call__(self, pixels):
        self.count += 1
        return pixels / self.count


def from_the_clock(pixels):
    return pixels * np.random.default_rng().random()


def brighter(pixels):
    return pixels * 3


def cropped(pixels):
    return pixels[:, :, 1:]


def labels_of(pixels):
    return pixels.argmax(1)


def failing(pixels):
    raise RuntimeError("no")


odd = "a string"


def misled(pixels):
    return pixels


misled.on = "int8"


def hinge(logits, targets, margin: float = 1.0):
    correct = logits.gather(1, targets[:, None])
    return (margin + logits - correct).clamp(min=0).mean()


class SoftHinge:
    def __init__(self, power: float = 2.0):
        self.power = power

    def __call__(self, logits, targets):
        return (hinge(logits, targets) ** self.power)


def soft_labels(logits, targets):
    return -(targets * logits.log_softmax(1)).sum(1).mean()


def without_gradient(logits, targets):
    return (logits.argmax(1) != targets).float().mean()


def of_each_image(logits, targets):
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


def endless(logits, targets):
    return logits.sum() / 0


class Remembering:
    total = 0

    def __call__(self, logits, targets):
        self.total += 1
        return logits.square().mean() * self.total


class Learned(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, logits, targets):
        return logits.mean() * self.scale


def rare(labels, power: float = 1.0):
    return 1 / labels.bincount()[labels].float() ** power


def too_few(labels):
    return [1.0, 2.0]


def negative(labels):
    return -torch.ones(len(labels))


def macro_recall(logits, labels):
    correct = logits.argmax(1) == labels
    return torch.stack([correct[labels == c].float().mean() for c in labels.unique()]).mean()


def no_number(logits, labels):
    return "good"


def writing(logits, targets):
    targets.zero_()
    logits.data.zero_()
    return torch.nn.functional.cross_entropy(logits, targets)


def leaving(logits, targets):
    raise SystemExit


def secret(labels):
    return [random.SystemRandom().random() for _ in labels]


counted = []


def counting(logits, labels):
    counted.append(1)
    return len(counted)


class Nothing:
    on_call = 0

    def __call__(self, pixels):
        self.on_call += 1
        return pixels * float("nan") if self.on_call > 6 else pixels


def word(epoch, total_epochs):
    return "x"


def listed(logits, targets, weights: "list[int]" = (1, 2)):
    return hinge(logits, targets)


class Plain(torch.optim.SGD):
    pass
"""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """Recipes with parts of parts.py, which is in the current folder."""
    return own_code_folder(tmp_path, monkeypatch, "parts.py", PARTS)


def noise(count: int, channels: int = 3) -> torch.Tensor:
    return torch.randint(256, (count, channels, 12, 12), generator=make_generator(0)).to(torch.uint8)


# ---- transforms of torchvision


@pytest.mark.parametrize(
    ("entry", "filled"),
    [
        ("RandomErasing", "RandomErasing(p=0.5, scale=[0.02, 0.33], ratio=[0.3, 3.3], value=0.0, inplace=False)"),
        ("torchvision.transforms.v2.RandomGrayscale(0.3)", "RandomGrayscale(p=0.3)"),
        ("RandomCrop((8, 8), padding=2)", "RandomCrop(size=[8, 8], padding=2, pad_if_needed=False, fill=0, padding_mode='constant')"),
    ],
)  # fmt: skip
def test_an_entry_is_stored_with_all_its_options(entry: str, filled: str) -> None:
    recipe = Recipe.from_dict({"data": {"augment": [entry, "flip"]}})
    assert recipe.data.augment == (filled, "flip")
    assert fill_entry(filled) == filled
    assert Recipe.from_dict(recipe.to_dict()).key == recipe.key


@pytest.mark.parametrize(
    "entry",
    [
        "RandomRotation(30)",
        "RandomPerspective(p=1.0)",
        "RandAugment()",
        "RandomErasing(p=0.7)",
        "RandomCrop(12, padding=3)",
    ],
)
def test_torchvisions_transforms_draw_for_each_image_and_give_what_torchvision_gives(entry: str) -> None:
    images, key = noise(9), "draws"
    result = parse_transform(entry)(images, make_generator(key))
    seed = int(torch.randint(2**62, (1,), generator=make_generator(key)))
    theirs = eval(f"v2.{entry}", {"v2": v2})
    with lent_generators("cpu", seed):
        expected = torch.stack([theirs(image) for image in images])
    assert result.dtype == torch.uint8
    assert torch.equal(result, expected)
    same = noise(1).expand(30, -1, -1, -1)
    assert len(parse_transform(entry)(same, make_generator(0)).flatten(1).unique(dim=0)) > 5


def test_pixels_that_are_floats_already_are_rounded_for_a_transform_of_uint8() -> None:
    images = noise(4)
    assert torch.equal(to_uint8(to_float01(images)), images)
    invert = parse_transform("RandomInvert(p=1.0)")
    assert torch.equal(invert(to_float01(images), make_generator(0)), 255 - images)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("RandomPerspectiv", "unknown augmentation 'RandomPerspectiv': did you mean 'RandomPerspective'?"),
        ("RandomErasing(probability=1)", "the transform 'RandomErasing' has no option 'probability': known: "),
        ("RandomErasing(1, p=1)", "'RandomErasing(1, p=1)': p is given twice"),
        ("RandomErasing(p=open('x'))", "'RandomErasing(p=open('x'))': write its options as in Name(option=0.5, other=[1, 2])"),
        ("RandomErasing(*[1])", "'RandomErasing(*[1])': write its options"),
        ("RandomErasing(**{'p': 1})", "the transform 'RandomErasing' has no option 'None'"),
        ("RandomErasing(p=1", "unknown augmentation 'RandomErasing(p=1'"),
        ("RandomErasing(" + "(" * 500 + ")" * 500 + ")", "'RandomErasing("),
        ("RandomErasing(" + "1" * 2000 + ")", "'RandomErasing(11"),
        ("RandomGrayscale(1, 2)", "'RandomGrayscale(1, 2)': RandomGrayscale takes 1 options, and not 2"),
        ("RandomRotation", "'RandomRotation': RandomRotation has no default for its option 'degrees': write RandomRotation("),
        ("RandomErasing(p='x')", "the transform 'RandomErasing' cannot be made with {'p': 'x', "),
        ("Compose", "the transform 'Compose' cannot be used: it takes other transforms: "),
        ("Normalize([0.5], [0.5])", "the transform 'Normalize' cannot be used: networks normalize their pixels themselves"),
        ("MixUp", "the transform 'MixUp' cannot be used: it changes labels too: write mixup:STRENGTH, which does"),
        ("crop(4)", "augmentation 'crop(4)': write crop:STRENGTH, or crop"),
        ("crp:4", "unknown augmentation 'crp': did you mean 'crop'?"),
        ("zzz", f"unknown augmentation 'zzz': known: {', '.join(sorted(TRANSFORMS))}"),
        ("nowhere.py:Name", "no file nowhere.py to find Name in"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_one_line(entry: str, message: str) -> None:
    with pytest.raises(LabError) as caught:
        Recipe.from_dict({"data": {"augment": [entry]}})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(TORCHVISION.classes) - set(TORCHVISION.refused)))
def test_every_transform_of_torchvision_works_or_is_refused_in_one_line(name: str, digits: DatasetSplits) -> None:
    for entry in (name, f"{name}(8)", f"{name}(p=1.0)"):
        message = ""
        try:
            recipe = Recipe.from_dict({"data": {"augment": [entry]}})
            transform = parse_transform(recipe.data.augment[0])
            assert transform(digits.train.images[:8], make_generator(0)).shape == (8, 1, 8, 8)
        except LabError as error:
            message = str(error)
        assert "\n" not in message


# ---- a person's own


WORKING = {
    "transforms": {"data.augment": ["parts.py:Noise(0.2)", "flip", "parts.py:threshold(at=50)", "parts.py:OneByOne"]},
    "torchvision's in a file": {"data.augment": ["parts.py:flips", "RandomRotation(20)"]},
    "loss": {"loss.name": "parts.py:hinge", "loss.margin": 2.0},
    "loss class": {"loss.name": "parts.py:SoftHinge"},
    "focal": {"loss.name": "focal", "loss.class_weights": "balanced"},
    "sampling": {"sampling.name": "parts.py:rare", "sampling.power": 0.5},
    "balanced": {"sampling.name": "balanced"},
    "metric": {"validation_metric.name": "parts.py:macro_recall", "data.validation": 0.3},
    "loss of mixed labels": {"loss.name": "parts.py:soft_labels", "data.augment": ["mixup"]},
}


@pytest.mark.slow
@pytest.mark.parametrize("overrides", WORKING.values(), ids=WORKING.keys())
def test_own_parts_are_kept_with_the_run_and_resumed_bit_for_bit_from_the_copy(
    overrides: dict[str, object], parts: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    recipe = parts(overrides)
    whole = Run.start(recipe, digits, "whole")
    Run.start(recipe, digits, "stopped", callbacks=stop_after(8))
    torch.manual_seed(7)
    np.random.seed(7)  # a resumed run draws its own
    Path("parts.py").write_text("raise SystemError('the original is not used')")
    resumed = Run("stopped").resume(digits)
    assert (resumed.folder / "last.safetensors").read_bytes() == (whole.folder / "last.safetensors").read_bytes()
    plain = {key: value for key, value in recipe.to_dict().items() if "parts.py" in json.dumps(value)}
    assert bool(list(whole.folder.glob("code/@*/parts.py"))) == bool(plain)
    assert Run("whole").recipe.key == recipe.key


@pytest.mark.slow
def test_own_parts_change_what_is_trained(parts: Callable[..., Recipe], digits: DatasetSplits) -> None:
    weights = {
        name: Run.start(parts(overrides), digits, name.replace(" ", "-"))
        .folder.joinpath("last.safetensors")
        .read_bytes()
        for name, overrides in {"plain": {}, **{name: WORKING[name] for name in ("loss", "focal", "sampling")}}.items()
    }
    assert len(set(weights.values())) == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"data.augment": ["parts.py:brighter"]}, "the transform 'parts.py:brighter()' gives pixels from 0 to 3 for ones from 0 to 1: they must be in [0, 1]"),
        ({"data.augment": ["parts.py:cropped"]}, "the transform 'parts.py:cropped()' gives [32, 1, 7, 8] for [32, 1, 8, 8]: it must keep the shape"),
        ({"data.augment": ["parts.py:labels_of"]}, "the transform 'parts.py:labels_of()' gives a tensor of int64: it must give pixels, uint8 or float [32, 1, 8, 8]"),
        ({"data.augment": ["parts.py:failing"]}, "the transform 'parts.py:failing()' failed: no (parts.py, line 61)"),
        ({"data.augment": ["parts.py:misled"]}, "the transform 'parts.py:misled()' has on = 'int8': say 'float' or 'uint8'"),
        ({"data.augment": ["Pad(2)"]}, "the transform 'Pad(padding=2, fill=0, padding_mode='constant')' gives [1, 12, 12] for [1, 8, 8]: it must keep the shape"),
        ({"loss.name": "parts.py:without_gradient"}, "the loss 'parts.py:without_gradient' has no gradient by the logits: compute it from them, with torch"),
        ({"loss.name": "parts.py:of_each_image"}, "the loss 'parts.py:of_each_image' gives a tensor [32]: it must give one number, the mean over the batch"),
        ({"loss.name": "parts.py:endless"}, "the loss 'parts.py:endless' is -inf for finite logits"),
        ({"loss.name": "parts.py:Learned"}, "the loss 'parts.py:Learned' has parameters of its own, which would not be trained: leave them out"),
        ({"loss.name": "parts.py:hinge", "training.label_smoothing": 0.1}, "the loss 'parts.py:hinge' is your own: leave training.label_smoothing out"),
        ({"loss.name": "focal", "training.label_smoothing": 0.1}, "the focal loss takes no label smoothing: leave training.label_smoothing out"),
        ({"loss.class_weights": [1.0, 2.0]}, "loss.class_weights has 2 weights for 10 classes: give one for each"),
        ({"sampling.name": "weighted", "sampling.class_weights": [1.0]}, "sampling.class_weights has 1 weights for 10 classes: give one for each"),
        ({"sampling.name": "weighted", "sampling.class_weights": [0.0] * 10}, "the sampling weights run from 0 to 0: give finite ones of 0 or more, some of them above 0"),
        ({"sampling.name": "parts.py:too_few"}, "the sampling 'parts.py:too_few' gives [2] weights for 180 images: give one for each"),
        ({"sampling.name": "parts.py:negative"}, "the sampling weights run from -1 to -1: give finite ones of 0 or more, some of them above 0"),
        ({"validation_metric.name": "parts.py:no_number"}, "the metric 'parts.py:no_number' failed: ValueError: could not convert string to float: 'good'"),
        ({"loss.name": "parts.py:leaving"}, "the loss 'parts.py:leaving' failed: SystemExit (parts.py, line 148)"),
        ({"sampling.name": "parts.py:secret"}, "the sampling 'parts.py:secret' gives other weights for the same labels, so a stopped run could not be resumed bit for bit: let it draw from torch's, NumPy's or Python's global generator, which are seeded for it"),
        ({"validation_metric.name": "parts.py:counting"}, "the metric 'parts.py:counting' gives 1 and then 2 for the same logits: let it keep nothing from call to call"),
        ({"schedule.name": "parts.py:word"}, "the schedule 'parts.py:word' gives no number in epoch 1: ValueError: could not convert string to float: 'x'"),
        ({"validation_metric.name": "parts.py:macro_recall", "data.validation": 0.0}, "validation_metric needs validation images: set data.validation above 0"),
    ],
)  # fmt: skip
def test_what_an_own_part_does_wrong_is_one_line_before_anything_is_written(
    overrides: dict[str, object], message: str, parts: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    with pytest.raises(LabError) as caught:
        Run.start(parts(overrides), digits, "run")
    assert str(caught.value) == message
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"loss.name": "cross_entropi"}, "unknown loss 'cross_entropi': did you mean 'cross_entropy'?"),
        ({"loss.name": "parts.py:hinge", "loss.margn": 1}, "the loss 'parts.py:hinge' has no option 'margn': did you mean 'margin'?"),
        ({"sampling.name": "weighted"}, "sampling.class_weights is missing: set it"),
        ({"loss.class_weights": "balancd"}, "loss.class_weights = 'balancd': give 'balanced', or a number above 0 for each class"),
        ({"loss.class_weights": [1, 0]}, "loss.class_weights = (1, 0): give 'balanced', or a number above 0 for each class"),
        ({"data.augment": "RandomRotation(10)"}, """data.augment = 'RandomRotation(10)': give a list, such as ["RandomRotation(10)"]"""),
        ({"sampling.name": "even"}, "unknown sampling 'even': known: balanced, shuffled, weighted, or your own as file.py:Name"),
        ({"validation_metric.name": "accuracy"}, "validation_metric.name is your own metric: give file.py:Name"),
        ({"data.augment": ["parts.py:odd"]}, "'parts.py:odd' is not a transform: give a class, a function, or an object that can be called"),
        ({"data.augment": ["parts.py:flips(1)"]}, "'parts.py:flips(1)': parts.py:flips is an object and takes no options"),
    ],
)  # fmt: skip
def test_a_part_that_there_is_not_is_one_line(
    overrides: dict[str, object], message: str, parts: Callable[..., Recipe]
) -> None:
    with pytest.raises(LabError) as caught:
        parts(overrides)
    assert str(caught.value) == message


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        {"data.augment": ["parts.py:Counter"]},
        {"data.augment": ["parts.py:from_the_clock"]},
        {"loss.name": "parts.py:Remembering"},
    ],
)
def test_a_part_that_could_not_be_resumed_exactly_is_refused_unless_bits_do_not_matter(
    overrides: dict[str, object], parts: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    recipe = parts(overrides)
    with pytest.raises(LabError, match=r"a stopped run could not be resumed bit for bit: .*training\.exact = false$"):
        Run.start(recipe, digits, "run")
    assert not Path("run").exists()
    assert Run.start(recipe.with_overrides({"training.exact": False}), digits, "run").status == "finished"


@pytest.mark.parametrize(
    "overrides",
    [{"data.augment": ["parts.py:Noise"]}, {"loss.name": "parts.py:hinge"}, {"sampling.name": "parts.py:rare"}],
)
def test_a_strangers_recipe_with_an_own_part_is_refused_until_it_is_trusted(
    overrides: dict[str, object],
    parts: Callable[..., Recipe],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    parts(overrides).write("recipe.toml")
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "another"))
    monkeypatch.setattr("convolab.core.trust._TRUSTED_HERE", set())
    with pytest.raises(LabError, match=r"parts\.py is code that you have not trusted yet"):
        Recipe.read("recipe.toml")


@pytest.mark.slow
def test_a_loss_that_writes_to_its_arguments_changes_no_number(
    parts: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    run = Run.start(parts({"loss.name": "parts.py:writing", "training.epochs": 1}), digits, "run")
    assert run.history[0].train_accuracy < 0.5
    assert run.history[0].train_loss > 1.5


@pytest.mark.slow
def test_a_transform_that_gives_nan_in_a_later_batch_is_named(
    parts: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    recipe = parts({"data.augment": ["parts.py:Nothing"], "training.exact": False})
    with pytest.raises(
        LabError, match=r"^the transform 'parts\.py:Nothing\(\)' gives pixels that are NaN or infinite$"
    ):
        Run.start(recipe, digits, "run")


@pytest.mark.slow
def test_an_optimizer_that_inherits_its_options_has_those_of_its_base_class(
    parts: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    recipe = parts({"optimizer.name": "parts.py:Plain", "optimizer.lr": 0.1, "optimizer.momentum": 0.5})
    theirs = parts({"optimizer.name": "SGD", "optimizer.lr": 0.1, "optimizer.momentum": 0.5})
    weights = [Run.start(r, digits, f"run{i}").folder / "last.safetensors" for i, r in enumerate((recipe, theirs))]
    assert weights[0].read_bytes() != b""
    first, second = (load_file(path) for path in weights)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_option_of_an_unusual_default_gives_no_warning(parts: Callable[..., Recipe]) -> None:
    assert parts({"loss.name": "parts.py:listed"}).to_dict()["loss"]["weights"] == [1, 2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("training", [1]),
        ("optimizer", torch.optim.Adam),
        ("schedule", len),
        ("sampling", len),
        ("validation_metric", len),
        ("transforms", "flip"),
    ],
)
def test_a_wrong_argument_of_fit_is_one_line(name: str, value: object) -> None:
    with pytest.raises(LabError, match=f"^{name} = .*: give "):
        check_arguments(**{name: value})


# ---- what they are


@pytest.mark.slow
def test_a_metric_of_ones_own_is_measured_after_each_epoch_and_can_be_compared(
    parts: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    recipe = parts({**WORKING["metric"], "training.epochs": 2})
    runs = [
        Run.start(recipe.with_overrides({"optimizer.lr": rate, "training.seed": seed}), digits, f"{rate}-{seed}")
        for rate in (0.01, 0.1)
        for seed in (0, 1)
    ]
    values = [epoch.validation_metric for run in runs for epoch in run.history]
    assert all(value is not None and 0 <= value <= 1 for value in values)
    assert len(set(values)) > 2
    result = compare_runs(runs)
    contrast = next(c for c in result.sections[0].contrast_results if c.contrast.metric == "final_validation_metric")
    finals = [run.history[-1].validation_metric for run in runs]
    assert [*contrast.baseline_values, *contrast.arm_values] == finals
    assert "score" in contrast.comment


def test_a_run_without_a_metric_of_ones_own_has_no_field_for_it(
    parts: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    run = Run.start(parts({"training.epochs": 1}), digits, "run")
    assert "validation_metric" not in (run.folder / "metrics.jsonl").read_text()
    assert not {"loss", "sampling", "validation_metric"} & set(run.recipe.to_dict())


@pytest.mark.slow
def test_losses_are_reported_in_nats_of_cross_entropy_whatever_is_minimized(
    parts: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    tiny = parts({"loss.name": "parts.py:hinge", "loss.margin": 0.0, "optimizer.lr": 1e-9, "training.epochs": 1})
    run = Run.start(tiny, digits, "run")
    assert run.history[0].train_loss == pytest.approx(2.3, abs=0.1)
    assert run.history[0].train_loss == pytest.approx(run.history[0].validation_loss or 0, abs=0.1)


@pytest.mark.slow
def test_with_label_smoothing_too_the_training_loss_is_in_nats_of_cross_entropy(
    parts: Callable[..., Recipe], digits: DatasetSplits
) -> None:
    smooth = {"training.label_smoothing": 0.3}
    by_default, by_name = (
        Run.start(parts(overrides), digits, name).history
        for name, overrides in (("default", smooth), ("named", smooth | {"loss.name": "cross_entropy"}))
    )
    assert [epoch.train_loss for epoch in by_default] == [epoch.train_loss for epoch in by_name]


@pytest.mark.slow
def test_fit_takes_functions(digits: DatasetSplits) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    seen: list[torch.Size] = []

    def darker(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels.shape)
        return pixels * 0.5

    def squares(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (logits - torch.nn.functional.one_hot(labels, 10)).square().mean()

    transforms: list[AnyTransform | Callable[[torch.Tensor], torch.Tensor] | str] = [
        darker,
        v2.RandomHorizontalFlip(),
        "flip",
    ]
    history = fit(net, digits.train, transforms=transforms, loss=squares)
    assert history[-1].train_accuracy > history[0].train_accuracy
    assert seen[0] == (128, 1, 8, 8)
