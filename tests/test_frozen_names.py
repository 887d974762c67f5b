"""Names in a seed or a file of weights: renaming one silently changes results, so all of them are listed here."""

import ast
from pathlib import Path

import pytest

from convolab.core.rng import derive_seed
from convolab.models.registry import build

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "convolab"
SEEDING_FUNCTIONS = {"make_generator", "derive_seed", "seed_all_generators", "seed_default_generator"}

# Module -> the strings in its calls of the functions above.
STREAMS = {
    "analysis/receptive_field/gradient.py": {"measure"},
    "core/stats.py": {"inflation"},
    "inspection/adversarial/ensemble.py": {"diversity"},
    "inspection/adversarial/fool.py": {"fool target", "fool noise"},
    "inspection/adversarial/transfer.py": {"fool control"},
    "inspection/explain/deletion_insertion.py": {"pixel order"},
    "inspection/explain/methods.py": {"smoothgrad"},
    "inspection/explain/null_maps.py": {"random map"},
    "inspection/explain/randomization.py": {"forget"},
    "inspection/passes.py": {"noisy copy"},
    "inspection/localization/evaluation.py": {"random response"},
    "inspection/localization/synthetic.py": {"pasted pictures", "pasted places", "texture"},
    "models/feature_head.py": {"split"},
    "models/registry.py": {"weights"},
    "studies/search.py": {"search"},
    "theory/answer_correlation.py": {"channels", "gradients", "lengths", "signal", "signals"},
    "theory/arrangements.py": {"blocks", "permutation", "place"},
    "theory/equivariance.py": {"equivariance"},
    "training/augmentation.py": {"check", "earlier batch", "this batch"},
    "training/calibration.py": {"calibration"},
    "training/exactness.py": {"this batch"},
    "training/overfit.py": {"layers", "order"},
    "training/setup.py": {"initialize", "limit"},
    "training/torch_optim.py": {"optimizer proof"},
    "training/trainer.py": {"augment", "layers", "order"},
    "training/transforms.py": {"alternating flip"},
}
# Layers of the built-in networks: the name of a parameter is part of the seed of its initial weights and of files.
PARAMETERS = {
    "shallow_net": "hidden.weight hidden.bias output.weight output.bias",
    "shallow_net_class": "hidden.weight hidden.bias output.weight output.bias",
    "simple_convnet": " ".join(
        [f"features.{i}.{name}" for i in range(3) for name in ("conv.weight", "norm.weight", "norm.bias")]
        + ["head.linear.weight", "head.linear.bias"]
    ),
    "resnet_small": " ".join(
        ["features.stem.conv.weight", "features.stem.norm.weight", "features.stem.norm.bias"]
        + [
            f"features.stage{stage}.0.{name}"
            for stage in (1, 2, 3)
            for name in ("conv1.weight", "norm1.weight", "norm1.bias", "conv2.weight", "norm2.weight", "norm2.bias")
        ]
        + ["head.linear.weight", "head.linear.bias"]
    ),
    "whitened_convnet": " ".join(
        ["features.whiten.weight", "features.whiten.bias"]
        + [
            f"features.block{block}.{name}"
            for block in (1, 2, 3)
            for name in ("conv1.weight", "norm1.weight", "norm1.bias", "conv2.weight", "norm2.weight", "norm2.bias")
        ]
        + ["head.linear.weight"]
    ),
}
# The sum of the absolute values of the initial weights for 3x32x32 images, ten classes and seed 0.
INITIAL_WEIGHTS = {
    "shallow_net": 3606.10973,
    "shallow_net_class": 3606.10973,
    "simple_convnet": 929.328518,
    "resnet_small": 6177.349058,
    "whitened_convnet": 5309.405539,
}


def call_strings(path: Path) -> set[str]:
    strings = set()
    for node in ast.walk(ast.parse(path.read_text())):
        name = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
        if name in SEEDING_FUNCTIONS:
            strings |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return strings - {"cpu"}


@pytest.mark.slow
def test_the_names_of_the_random_streams_have_not_changed() -> None:
    streams = {str(path.relative_to(PACKAGE)): call_strings(path) for path in sorted(PACKAGE.rglob("*.py"))}
    assert {name: strings for name, strings in streams.items() if strings} == STREAMS


def test_the_seed_of_a_key_has_not_changed() -> None:
    assert derive_seed(0, "order", 1) == 2002067703672271585


@pytest.mark.slow
def test_the_names_of_the_parameters_have_not_changed() -> None:
    for name, parameters in PARAMETERS.items():
        assert [key for key, _ in build(name, (3, 32, 32), 10).named_parameters()] == parameters.split()


@pytest.mark.slow
def test_the_initial_weights_have_not_changed() -> None:
    for name, total in INITIAL_WEIGHTS.items():
        parameters = build(name, (3, 32, 32), 10, seed=0).parameters()
        assert sum(p.detach().double().abs().sum().item() for p in parameters) == pytest.approx(total, abs=1e-5)
