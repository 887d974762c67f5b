"""The network that starts from the images: its layers are what their definitions say, and it is trained as any other."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from support.callbacks import stop_after
from torch import nn

import convolab
from convolab.core.errors import LabError
from convolab.core.rng import make_generator
from convolab.models import whitened_convnet
from convolab.models.registry import build
from convolab.models.whitened_convnet import BatchNormWithoutScale, IdentityConv, WhiteningConv

RECIPE = {
    "data": {"limit": 300, "augment": ["reflect_crop:1", "alternating_flip"]},
    "model": {"name": "whitened_convnet", "channels": [4, 8, 8]},
    "optimizer": {"name": "muon"},
    "training": {"epochs": 2, "batch_size": 100},
}


def natural_pixels(n: int, channels: int, side: int) -> torch.Tensor:
    """Noise whose neighboring pixels are correlated, in space and over the channels."""
    noise = torch.randn(n, 1, side + 2, side + 2, generator=make_generator(0))
    own = torch.randn(n, channels, side, side, generator=make_generator(1))
    return F.avg_pool2d(noise, 3, stride=1) + 0.3 * own


@pytest.mark.parametrize("channels", [1, 3])
def test_whitened_patches_are_uncorrelated_and_of_variance_one(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whitened_convnet, "FIT_BATCH", 64)  # the last of four batches is smaller
    pixels = natural_pixels(200, channels, 9)
    layer = WhiteningConv(channels)
    layer.fit(pixels)
    values = (layer(pixels) - layer.bias.view(1, -1, 1, 1)).detach()
    half = 4 * channels
    torch.testing.assert_close(values[:, half:], -values[:, :half])
    # As windows of NumPy, so that no unfolding of torch is taken at its word; uncentered, as published.
    windows = np.lib.stride_tricks.sliding_window_view(pixels.numpy(), (2, 2), axis=(2, 3))
    patches = windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, half).astype(np.float64)
    own = patches @ layer.weight[:half].detach().flatten(1).double().numpy().T
    torch.testing.assert_close(values[:, :half].permute(0, 2, 3, 1).reshape(-1, half), torch.from_numpy(own).float())
    np.testing.assert_allclose(own.T @ own / len(own), np.eye(half), atol=0.02)


def test_an_identity_convolution_passes_its_inputs_on_and_draws_the_other_filters() -> None:
    layer = IdentityConv(3, 5)
    x = torch.randn(2, 3, 6, 6, generator=make_generator(0))
    torch.testing.assert_close(layer(x)[:, :3], x)
    assert layer.weight[3:].std() > 0.05


def test_the_norm_is_batch_norm_without_a_learned_scale() -> None:
    layer, reference = BatchNormWithoutScale(4), nn.BatchNorm2d(4, momentum=0.4, affine=False)
    x = torch.randn(8, 4, 5, 5, generator=make_generator(0))
    for _ in range(2):
        torch.testing.assert_close(layer(x), reference(x))
    torch.testing.assert_close(layer.eval()(x), reference.eval()(x))
    assert [name for name, parameter in layer.named_parameters() if parameter.requires_grad] == ["bias"]


@pytest.mark.slow
def test_it_is_the_published_network() -> None:
    net = build("whitened_convnet", (3, 32, 32), 10).eval()
    maps = {}
    for name in ("whiten", "block1", "block2", "block3"):
        net.features.get_submodule(name).register_forward_hook(
            lambda _layer, _x, y, name=name: maps.update({name: y.shape})
        )
    net(torch.rand(2, 3, 32, 32))
    assert maps == {
        "whiten": (2, 24, 31, 31), "block1": (2, 64, 15, 15), "block2": (2, 256, 7, 7), "block3": (2, 256, 3, 3),
    }  # fmt: skip
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    filters = 9 * (24 * 64 + 64 * 64 + 64 * 256 + 3 * 256 * 256)
    assert trained == 24 + filters + 2 * (64 + 256 + 256) + 10 * 256


def test_the_head_learns_in_another_unit_but_gives_the_published_logits() -> None:
    head = build("whitened_convnet", (3, 32, 32), 10).head.linear
    weight = head.weight.detach() * 3.556  # the published one, of standard deviation 1
    assert weight.std() == pytest.approx(1)
    x = torch.rand(5, 256, generator=make_generator(0))
    torch.testing.assert_close(head(x).detach(), x @ weight.T / 256)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.integers(8, 40), st.integers(8, 40), st.sampled_from([1, 3]), st.integers(1, 6))
def test_it_takes_images_of_any_size(height: int, width: int, channels: int, blocks: int) -> None:
    net = build("whitened_convnet", (channels, height, width), 3, channels=[2] * blocks)
    assert net(torch.rand(2, channels, height, width)).isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"), [({"channels": []}, "empty"), ({"channels": [10**6] * 3}, "parameters")]
)
def test_what_it_cannot_be_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(LabError, match=message):
        build("whitened_convnet", (3, 32, 32), 10, **options)


@pytest.mark.slow
def test_its_first_layer_is_computed_from_training_images_and_stays(tmp_path: Path) -> None:
    run = convolab.train(convolab.Recipe.from_dict(RECIPE), out=tmp_path / "run")
    layer = run.net().network.features.whiten
    pixels = run.net().normalize(convolab.load("digits").train.images / 255)
    values = (layer(pixels) - layer.bias.view(1, -1, 1, 1))[:, :4]
    covariance = torch.einsum("nahw,nbhw->ab", values, values) / values[:, 0].numel()
    torch.testing.assert_close(covariance, torch.eye(4), atol=0.15, rtol=0)


@pytest.mark.slow
def test_a_stopped_training_resumes_bit_for_bit(tmp_path: Path) -> None:
    recipe = convolab.Recipe.from_dict(RECIPE)
    whole = convolab.train(recipe, out=tmp_path / "whole")
    stopped = convolab.train(recipe, out=tmp_path / "stopped", callbacks=stop_after(4))
    assert stopped.status == "stopped"
    stopped.resume()
    for file in ("best.safetensors", "last.safetensors"):
        assert (stopped.folder / file).read_bytes() == (whole.folder / file).read_bytes()


@pytest.mark.slow
def test_a_network_of_ones_own_may_look_at_the_images_too(tmp_path: Path) -> None:
    seen = []

    class Looks(nn.Module):
        def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
            super().__init__()
            self.linear = nn.Linear(shape[1] * shape[2], classes)

        def initialize_from_images(self, pixels: torch.Tensor) -> None:
            seen.append(pixels)
            self.linear.bias.data += torch.rand(10)

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.linear(pixels.flatten(1))

    convolab.register(Looks, "looks")
    recipe = convolab.Recipe.from_dict({"model": {"name": "looks"}, "training": {"epochs": 1}, "data": {"limit": 300}})
    state = torch.get_rng_state()
    runs = [convolab.train(recipe, out=tmp_path / name) for name in "ab"]
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(*(run.net().network.linear.bias for run in runs))
    assert seen[0].shape == (270, 1, 8, 8)
    assert abs(float(seen[0].mean())) < 1e-5  # normalized
    assert float(seen[0].std()) == pytest.approx(1, abs=1e-3)
    del convolab.models.registry.NETWORKS["looks"]


class Misbehaves(nn.Module):
    """A network whose `initialize_from_images` does what `mood` says."""

    def __init__(self, shape: tuple[int, int, int], classes: int, mood: str = "") -> None:
        super().__init__()
        self.linear = nn.Linear(shape[1] * shape[2], classes)
        self.mood, self.scale = mood, 1.0

    def initialize_from_images(self, pixels: torch.Tensor) -> None:
        match self.mood:
            case "attribute":
                self.scale = float(pixels.std())
            case "layer":
                self.linear = nn.Linear(self.linear.in_features, 10, bias=False)
            case "type":
                self.double()
            case "nan":
                self.linear.weight.data.fill_(float("nan"))
            case "raises":
                raise ValueError("no such images")

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.linear(pixels.flatten(1)) * self.scale


@pytest.mark.parametrize(
    ("mood", "message"),
    [
        ("attribute", "changes self.scale, which no file of weights holds: keep it in a buffer"),
        ("layer", "changes the layers or the type of their weights"),
        ("type", "changes the layers or the type of their weights"),
        ("nan", "leaves NaN or infinite numbers in linear.weight"),
        ("raises", "failed: ValueError: no such images"),
    ],
)
def test_initial_weights_that_no_file_could_give_back_are_refused(tmp_path: Path, mood: str, message: str) -> None:
    convolab.register(Misbehaves, "misbehaves")
    recipe = convolab.Recipe.from_dict({"model": {"name": "misbehaves", "mood": mood}})
    with pytest.raises(LabError, match=message):
        convolab.train(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    del convolab.models.registry.NETWORKS["misbehaves"]


@pytest.mark.slow
def test_a_network_that_cannot_be_copied_computes_its_initial_weights_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, shape, classes):\n"
        "        super().__init__()\n"
        "        self.linear = torch.nn.Linear(shape[1] * shape[2], classes)\n"
        "    def __deepcopy__(self, memo):\n"
        "        raise TypeError('no copies')\n"
        "    def initialize_from_images(self, pixels):\n"
        "        self.linear.weight.data.mul_(0.5)\n"
        "    def forward(self, pixels):\n"
        "        return self.linear(pixels.flatten(1))\n"
    )
    recipe = convolab.Recipe.from_dict({"model": {"name": "net.py:Net"}, "training": {"epochs": 1}})
    assert convolab.train(recipe, out="run").status == "finished"


@pytest.mark.slow
def test_initial_weights_that_differ_from_call_to_call_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "import random, torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, shape, classes):\n"
        "        super().__init__()\n"
        "        self.linear = torch.nn.Linear(shape[1] * shape[2], classes)\n"
        "    def initialize_from_images(self, pixels):\n"
        "        self.linear.weight.data.fill_(random.SystemRandom().random())\n"
        "    def forward(self, pixels):\n"
        "        return self.linear(pixels.flatten(1))\n"
    )
    recipe = convolab.Recipe.from_dict({"model": {"name": "net.py:Net"}, "training": {"epochs": 1}})
    with pytest.raises(LabError, match="gives other weights for the same images each time"):
        convolab.train(recipe, out="run")
    inexact = recipe.with_overrides({"training.exact": False})
    assert convolab.train(inexact, out="run").status == "finished"


@pytest.mark.slow
def test_images_with_a_constant_channel_are_learned(tmp_path: Path) -> None:
    images = torch.randint(256, (64, 3, 16, 16), dtype=torch.uint8, generator=make_generator(0))
    images[:, 2] = 0
    images[32:, :2] //= 4
    np.savez(tmp_path / "flat.npz", x_train=images.numpy(), y_train=np.arange(64) // 32)
    recipe = {**RECIPE, "data": {"name": f"npz:{tmp_path / 'flat.npz'}", "augment": []}}
    recipe["training"] = {"epochs": 5, "batch_size": 16}
    best = convolab.train(convolab.Recipe.from_dict(recipe), out=tmp_path / "run").best_epoch
    assert best is not None
    assert best.train_loss < 2
