"""Weights and states on disk: bit for bit or not at all."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from convolab.core.errors import LabError
from convolab.models import registry, zoo
from convolab.models.classifier import ImageClassifier
from convolab.training.checkpoint import (
    PREVIOUS_STATE_FILE,
    STATE_FILE,
    read_state,
    read_tensors,
    read_weights,
    write_state,
    write_tensors,
    write_weights,
)

# For every network of the laboratory options that are not its defaults.
NETWORKS = {
    "simple_convnet": {"channels": [3, 5], "batch_norm": True, "residual": True},
    "resnet_small": {"channels": [4, 6], "blocks": 2},
    "shallow_net": {"hidden": 7},
    "shallow_net_class": {"hidden": 7},
}
CUTS = [step / 20 for step in range(20)]


def trained(name: str, seed: int = 0) -> ImageClassifier:
    """A network that has seen a batch, so that no weight or running figure is what a new one has."""
    network = registry.build(name, (3, 8, 10), 4, seed=seed, **NETWORKS[name])
    net = ImageClassifier(
        network, mean=(0.1, 1 / 3, 0.7), std=(0.25, 0.0, 1 / 7), input_size=(8, 10), classes=("a", "b", "ç", "d d")
    )
    net.to(memory_format=torch.channels_last)
    stepper = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.rand(6, 3, 8, 10, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
    stepper.step()
    return net


def about(name: str) -> dict[str, object]:
    return {"model": {"name": name, **NETWORKS[name]}, "epoch": 3}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "best.safetensors"
    write_weights(path, trained("simple_convnet"), about("simple_convnet"))
    return path


def test_every_network_is_tried_here():
    assert set(NETWORKS) == {name for name, factory in registry.NETWORKS.items() if factory.__module__ == zoo.__name__}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_weights_file_alone_tells_how_to_build_its_network_bit_for_bit(tmp_path: Path, name: str):
    net = trained(name)
    write_weights(tmp_path / "w.safetensors", net, about(name))
    again, said = read_weights(tmp_path / "w.safetensors")

    theirs = again.network.state_dict()
    assert list(theirs) == list(net.network.state_dict())
    for key, tensor in net.network.state_dict().items():
        assert theirs[key].dtype == tensor.dtype
        assert torch.equal(theirs[key], tensor)
    assert (again.mean, again.std, again.input_size, again.classes) == (net.mean, net.std, net.input_size, net.classes)
    assert not any(module.training for module in again.modules())
    assert said["epoch"] == 3
    pixels = torch.rand(5, 3, 8, 10)
    with torch.no_grad():
        assert torch.equal(again.to(memory_format=torch.channels_last)(pixels), net.eval()(pixels))


def test_tensors_of_any_kind_come_back_bit_for_bit(tmp_path: Path):
    tensors = {
        "nothing": torch.tensor(float("nan")),
        "smallest": torch.tensor([-0.0, 1e-45, float("-inf")]),
        "brain": torch.arange(6).to(torch.bfloat16).view(2, 3),
        "count": torch.tensor(2**53 + 1),
        "none": torch.empty(0, 4),
        "turned": torch.arange(12.0).view(3, 4).t(),
        "bytes": torch.arange(256).to(torch.uint8),
    }
    write_tensors(tmp_path / "t.safetensors", tensors, {"words": "ä\n", "none": None, "shares": [0.1, 1 / 3]})
    again, said = read_tensors(tmp_path / "t.safetensors")
    assert set(again) == set(tensors)
    for name, tensor in tensors.items():
        assert (again[name].dtype, again[name].shape) == (tensor.dtype, tensor.shape)
        bits = [t.contiguous().view(-1).view(torch.uint8) for t in (again[name], tensor)]
        assert torch.equal(*bits), name
    assert said == {"words": "ä\n", "none": None, "shares": [0.1, 1 / 3]}


def test_writing_takes_nothing_from_the_network(tmp_path: Path):
    net = trained("simple_convnet").train()
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in net.state_dict().items()}
    write_weights(tmp_path / "w.safetensors", net, about("simple_convnet"))
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name][0])
        assert tensor.stride() == before[name][1]


@pytest.mark.parametrize("share", CUTS)
def test_a_weights_file_truncated_anywhere_is_refused_by_its_name(weights: Path, share: float):
    content = weights.read_bytes()
    weights.write_bytes(content[: int(share * len(content))])
    with pytest.raises(LabError, match="is damaged or was not written by convolab: ") as caught:
        read_weights(weights)
    assert str(caught.value).startswith(str(weights))
    assert "\n" not in str(caught.value)


def test_a_weights_file_that_lacks_its_last_byte_or_has_one_too_many_is_refused(weights: Path):
    content = weights.read_bytes()
    for other in (content[:-1], content + b"\0"):
        weights.write_bytes(other)
        with pytest.raises(LabError, match="is damaged"):
            read_weights(weights)


def test_the_weights_of_another_network_are_refused(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    write_weights(path, trained("shallow_net"), about("simple_convnet"))
    with pytest.raises(LabError, match="holds weights of another network than simple_convnet") as caught:
        read_weights(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_weights_of_other_sizes_are_refused(tmp_path: Path):
    wrong = {"model": {"name": "shallow_net", "hidden": 8}}
    write_weights(tmp_path / "w.safetensors", trained("shallow_net"), wrong)
    with pytest.raises(LabError, match="holds weights of another network than shallow_net"):
        read_weights(tmp_path / "w.safetensors")


def test_a_state_is_no_weights_file_and_neither_is_text_or_nothing(tmp_path: Path):
    write_state(tmp_path, {"net.x": torch.zeros(3)}, {"epoch": 1})
    with pytest.raises(LabError, match="has no 'model': it is not a convolab weights file"):
        read_weights(tmp_path / STATE_FILE)
    (tmp_path / "text").write_text("these are my weights: 80 kg")
    with pytest.raises(LabError, match="text is damaged or was not written by convolab"):
        read_weights(tmp_path / "text")
    with pytest.raises(LabError, match=r"^there is no "):
        read_weights(tmp_path / "nowhere.safetensors")


def test_safetensors_of_somebody_else_are_refused(tmp_path: Path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(3)}, tmp_path / "theirs.safetensors")
    with pytest.raises(LabError, match="damaged or was not written by convolab"):
        read_weights(tmp_path / "theirs.safetensors")


def test_a_weights_file_is_a_length_a_json_head_and_numbers(weights: Path):
    content = weights.read_bytes()
    size = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + size])
    said = json.loads(head.pop("__metadata__")["about"])
    assert said["model"]["name"] == "simple_convnet"
    assert 8 + size + max(entry["data_offsets"][1] for entry in head.values()) == len(content)


class Bomb:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_a_pickle_in_the_place_of_weights_is_not_opened(tmp_path: Path):
    for write in (
        lambda path: path.write_bytes(pickle.dumps(Bomb(tmp_path / "boom"))),
        lambda path: torch.save(Bomb(tmp_path / "boom"), path),
    ):
        write(tmp_path / "best.safetensors")
        with pytest.raises(LabError, match="is damaged"):
            read_weights(tmp_path / "best.safetensors")
        assert not (tmp_path / "boom").exists()


def test_a_write_that_fails_leaves_the_old_file_and_no_part(weights: Path, monkeypatch: pytest.MonkeyPatch):
    before = weights.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_weights(weights, trained("simple_convnet", seed=1), about("simple_convnet"))
    assert weights.read_bytes() == before
    assert [path.name for path in weights.parent.iterdir()] == [weights.name]


def state(epoch: int) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    return {"net.x": torch.full((50,), float(epoch))}, {"epoch": epoch}


@pytest.fixture
def two_states(tmp_path: Path) -> Path:
    for epoch in (1, 2, 3):
        write_state(tmp_path, *state(epoch))
    return tmp_path


def test_the_newest_state_is_read_and_the_one_before_is_kept(two_states: Path):
    tensors, progress, damage = read_state(two_states)
    assert torch.equal(tensors["net.x"], state(3)[0]["net.x"])
    assert (progress, damage) == ({"epoch": 3}, None)
    assert read_tensors(two_states / PREVIOUS_STATE_FILE)[1] == {"epoch": 2}
    assert sorted(path.name for path in two_states.iterdir()) == [PREVIOUS_STATE_FILE, STATE_FILE]


@pytest.mark.parametrize("share", CUTS)
def test_a_truncated_state_falls_back_to_the_one_before_with_a_warning(two_states: Path, share: float):
    content = (two_states / STATE_FILE).read_bytes()
    (two_states / STATE_FILE).write_bytes(content[: int(share * len(content))])
    tensors, progress, damage = read_state(two_states)
    assert torch.equal(tensors["net.x"], state(2)[0]["net.x"])
    assert progress == {"epoch": 2}
    assert str(two_states / STATE_FILE) in damage
    assert damage.endswith("continuing from the state before it")
    assert "\n" not in damage


def test_the_previous_state_alone_is_used_without_a_word(two_states: Path):
    (two_states / STATE_FILE).unlink()
    tensors, progress, damage = read_state(two_states)
    assert torch.equal(tensors["net.x"], state(2)[0]["net.x"])
    assert (progress, damage) == ({"epoch": 2}, None)


def test_two_damaged_states_are_refused_by_name(two_states: Path):
    for name in (STATE_FILE, PREVIOUS_STATE_FILE):
        (two_states / name).write_bytes(b"damaged")
    with pytest.raises(LabError, match="is damaged") as caught:
        read_state(two_states)
    assert str(two_states) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_state_without_one_before_is_refused_and_no_state_too(tmp_path: Path):
    with pytest.raises(LabError, match="there is no older state to fall back on: train again from the start"):
        read_state(tmp_path)
    write_state(tmp_path, *state(1))
    (tmp_path / STATE_FILE).write_bytes(b"damaged")
    with pytest.raises(
        LabError, match=f"{STATE_FILE} is damaged .*there is no older state to fall back on: train again from the start"
    ):
        read_state(tmp_path)
