"""Weights and states on disk: bit for bit or not at all."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from convolab.core.errors import LabError
from convolab.core.run_files import PREVIOUS_STATE_FILE, STATE_FILE
from convolab.models import registry, zoo
from convolab.models.classifier import ImageClassifier
from convolab.training.checkpoint import (
    read_header_metadata,
    read_metadata,
    read_state,
    read_tensors,
    read_weights,
    write_state,
    write_tensors,
    write_weights,
)

# Options that are not the defaults, for every network of convolab.
NETWORKS = {
    "simple_convnet": {"channels": [3, 5], "batch_norm": True, "residual": True},
    "resnet_small": {"channels": [4, 6], "blocks": 2},
    "shallow_net": {"hidden": 7},
    "shallow_net_class": {"hidden": 7},
}
FRACTIONS = [step / 20 for step in range(20)]


def trained_network(name: str, seed: int = 0) -> ImageClassifier:
    """A network after one training step, so that no weight and no running statistic is that of a new one."""
    network = registry.build(name, (3, 8, 10), 4, seed=seed, **NETWORKS[name])
    net = ImageClassifier(
        network, mean=(0.1, 1 / 3, 0.7), std=(0.25, 0.0, 1 / 7), input_size=(8, 10), classes=("a", "b", "ç", "d d")
    )
    net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.rand(6, 3, 8, 10, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
    optimizer.step()
    return net


def metadata_of(name: str) -> dict[str, object]:
    return {"model": {"name": name, **NETWORKS[name]}, "epoch": 3}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "best.safetensors"
    write_weights(path, trained_network("simple_convnet"), metadata_of("simple_convnet"))
    return path


def test_every_network_is_tested_here():
    assert set(NETWORKS) == {name for name, factory in registry.NETWORKS.items() if factory.__module__ == zoo.__name__}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_weights_file_is_enough_to_build_its_network_bit_for_bit(tmp_path: Path, name: str):
    net = trained_network(name)
    write_weights(tmp_path / "w.safetensors", net, metadata_of(name))
    loaded, metadata = read_weights(tmp_path / "w.safetensors")

    loaded_state = loaded.network.state_dict()
    assert list(loaded_state) == list(net.network.state_dict())
    for key, tensor in net.network.state_dict().items():
        assert loaded_state[key].dtype == tensor.dtype
        assert torch.equal(loaded_state[key], tensor)
    assert (loaded.mean, loaded.std, loaded.input_size, loaded.classes) == (
        net.mean,
        net.std,
        net.input_size,
        net.classes,
    )
    assert not any(module.training for module in loaded.modules())
    assert metadata["epoch"] == 3
    pixels = torch.rand(5, 3, 8, 10)
    with torch.no_grad():
        assert torch.equal(loaded.to(memory_format=torch.channels_last)(pixels), net.eval()(pixels))


def test_tensors_of_any_kind_are_read_back_bit_for_bit(tmp_path: Path):
    tensors = {
        "nan": torch.tensor(float("nan")),
        "smallest": torch.tensor([-0.0, 1e-45, float("-inf")]),
        "brain": torch.arange(6).to(torch.bfloat16).view(2, 3),
        "count": torch.tensor(2**53 + 1),
        "empty": torch.empty(0, 4),
        "transposed": torch.arange(12.0).view(3, 4).t(),
        "bytes": torch.arange(256).to(torch.uint8),
    }
    write_tensors(tmp_path / "t.safetensors", tensors, {"text": "ä\n", "none": None, "fractions": [0.1, 1 / 3]})
    loaded, metadata = read_tensors(tmp_path / "t.safetensors")
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
        bits = [t.contiguous().view(-1).view(torch.uint8) for t in (loaded[name], tensor)]
        assert torch.equal(*bits), name
    assert metadata == {"text": "ä\n", "none": None, "fractions": [0.1, 1 / 3]}


def test_writing_does_not_change_the_network(tmp_path: Path):
    net = trained_network("simple_convnet").train()
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in net.state_dict().items()}
    write_weights(tmp_path / "w.safetensors", net, metadata_of("simple_convnet"))
    assert net.training
    assert all(p.requires_grad for p in net.parameters())
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name][0])
        assert tensor.stride() == before[name][1]


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_a_weights_file_truncated_anywhere_is_refused_by_its_name(weights: Path, fraction: float):
    content = weights.read_bytes()
    weights.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(LabError, match="is damaged or was not written by convolab: ") as caught:
        read_weights(weights)
    assert str(caught.value).startswith(str(weights))
    assert "\n" not in str(caught.value)


def test_a_weights_file_that_is_one_byte_too_short_or_too_long_is_refused(weights: Path):
    content = weights.read_bytes()
    for content_of_wrong_length in (content[:-1], content + b"\0"):
        weights.write_bytes(content_of_wrong_length)
        with pytest.raises(LabError, match="is damaged"):
            read_weights(weights)


def test_the_weights_of_another_network_are_refused(tmp_path: Path):
    path = tmp_path / "w.safetensors"
    write_weights(path, trained_network("shallow_net"), metadata_of("simple_convnet"))
    with pytest.raises(LabError, match="holds weights of another network than simple_convnet") as caught:
        read_weights(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_weights_of_other_sizes_are_refused(tmp_path: Path):
    wrong = {"model": {"name": "shallow_net", "hidden": 8}}
    write_weights(tmp_path / "w.safetensors", trained_network("shallow_net"), wrong)
    with pytest.raises(LabError, match="holds weights of another network than shallow_net"):
        read_weights(tmp_path / "w.safetensors")


def test_a_state_a_text_and_a_missing_file_are_refused_as_weights(tmp_path: Path):
    write_state(tmp_path, {"net.x": torch.zeros(3)}, {"epoch": 1})
    with pytest.raises(LabError, match="is damaged: it has no model"):
        read_weights(tmp_path / STATE_FILE)
    (tmp_path / "text").write_text("these are my weights: 80 kg")
    with pytest.raises(LabError, match="text is damaged or was not written by convolab"):
        read_weights(tmp_path / "text")
    with pytest.raises(LabError, match=r"^there is no "):
        read_weights(tmp_path / "nowhere.safetensors")


def test_safetensors_of_other_programs_are_refused(tmp_path: Path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(3)}, tmp_path / "theirs.safetensors")
    with pytest.raises(
        LabError, match=r"theirs\.safetensors was not written by convolab: it does not say what it holds"
    ):
        read_weights(tmp_path / "theirs.safetensors")


def test_a_weights_file_is_a_length_a_json_header_and_numbers(weights: Path):
    content = weights.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    metadata = json.loads(header.pop("__metadata__")["about"])
    assert metadata["model"]["name"] == "simple_convnet"
    assert 8 + size + max(entry["data_offsets"][1] for entry in header.values()) == len(content)


class TouchesFileWhenUnpickled:
    """If it is unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_the_header_alone_gives_the_metadata_and_refuses_what_is_none(weights: Path):
    assert read_header_metadata(weights) == read_metadata(weights)
    whole = weights.read_bytes()
    for content in (
        b"",
        whole[:7],
        whole[:100],
        b"\xff" * 100,
        (2).to_bytes(8, "little") + b"{}",
        b"\2" + bytes(7) + b"[]",
    ):
        weights.write_bytes(content)
        with pytest.raises(LabError, match="is damaged") as caught:
            read_header_metadata(weights)
        assert "\n" not in str(caught.value)


def test_a_pickle_instead_of_weights_is_not_unpickled(tmp_path: Path):
    for write in (
        lambda path: path.write_bytes(pickle.dumps(TouchesFileWhenUnpickled(tmp_path / "touched"))),
        lambda path: torch.save(TouchesFileWhenUnpickled(tmp_path / "touched"), path),
    ):
        write(tmp_path / "best.safetensors")
        with pytest.raises(LabError, match="is damaged"):
            read_weights(tmp_path / "best.safetensors")
        assert not (tmp_path / "touched").exists()


def test_a_write_that_fails_leaves_the_old_file_and_no_part_file(weights: Path, monkeypatch: pytest.MonkeyPatch):
    before = weights.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_weights(weights, trained_network("simple_convnet", seed=1), metadata_of("simple_convnet"))
    assert weights.read_bytes() == before
    assert [path.name for path in weights.parent.iterdir()] == [weights.name]


def state(epoch: int) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    return {"net.x": torch.full((50,), float(epoch))}, {"epoch": epoch}


@pytest.fixture
def folder_with_two_states(tmp_path: Path) -> Path:
    for epoch in (1, 2, 3):
        write_state(tmp_path, *state(epoch))
    return tmp_path


def test_the_newest_state_is_read_and_the_previous_one_is_kept(folder_with_two_states: Path):
    tensors, progress, damage = read_state(folder_with_two_states)
    assert torch.equal(tensors["net.x"], state(3)[0]["net.x"])
    assert (progress, damage) == ({"epoch": 3}, None)
    assert read_tensors(folder_with_two_states / PREVIOUS_STATE_FILE)[1] == {"epoch": 2}
    assert sorted(path.name for path in folder_with_two_states.iterdir()) == [PREVIOUS_STATE_FILE, STATE_FILE]


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_a_truncated_state_falls_back_to_the_previous_one_with_a_warning(folder_with_two_states: Path, fraction: float):
    content = (folder_with_two_states / STATE_FILE).read_bytes()
    (folder_with_two_states / STATE_FILE).write_bytes(content[: int(fraction * len(content))])
    tensors, progress, damage = read_state(folder_with_two_states)
    assert torch.equal(tensors["net.x"], state(2)[0]["net.x"])
    assert progress == {"epoch": 2}
    assert str(folder_with_two_states / STATE_FILE) in damage
    assert "is damaged" in damage
    assert "\n" not in damage


def test_the_previous_state_alone_is_used_without_a_warning(folder_with_two_states: Path):
    (folder_with_two_states / STATE_FILE).unlink()
    tensors, progress, damage = read_state(folder_with_two_states)
    assert torch.equal(tensors["net.x"], state(2)[0]["net.x"])
    assert (progress, damage) == ({"epoch": 2}, None)


def test_two_damaged_states_are_refused_by_name(folder_with_two_states: Path):
    for name in (STATE_FILE, PREVIOUS_STATE_FILE):
        (folder_with_two_states / name).write_bytes(b"damaged")
    with pytest.raises(LabError, match="is damaged") as caught:
        read_state(folder_with_two_states)
    assert str(folder_with_two_states) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_state_without_a_previous_one_is_refused_and_so_is_no_state(tmp_path: Path):
    with pytest.raises(LabError, match="there is no older state to fall back on: train again from the start"):
        read_state(tmp_path)
    write_state(tmp_path, *state(1))
    (tmp_path / STATE_FILE).write_bytes(b"damaged")
    with pytest.raises(
        LabError, match=f"{STATE_FILE} is damaged .*there is no older state to fall back on: train again from the start"
    ):
        read_state(tmp_path)


def test_a_file_of_tensors_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**31], "data_offsets": [0, 2**33]}}).encode()
    with (tmp_path / "a.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2**33)
    with pytest.raises(LabError, match="has more than 4,000,000,000 bytes"):
        read_tensors(tmp_path / "a.safetensors")


@pytest.mark.parametrize("field", ["model", "mean", "std", "size", "classes"])
@pytest.mark.parametrize("value", [None, "x", 7, [], {}, [[1]], True, ["a"] * 3, [-1, -1], "9" * 400])
def test_weights_whose_metadata_have_a_wrong_type_are_refused_in_one_line(tmp_path: Path, field: str, value: object):
    path = tmp_path / "w.safetensors"
    right = {"model": {"name": "shallow_net"}, "mean": [0.5], "std": [0.2], "size": [8, 8], "classes": ["a", "b"]}
    write_tensors(path, trained_network("shallow_net").network.state_dict(), right | {field: value})
    with pytest.raises(LabError) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "7", "null", "[" * 100_000, '{"format": ' + "9" * 5_000 + "}", ""])
def test_metadata_that_are_no_table_are_refused_in_one_line(tmp_path: Path, text: str):
    path = tmp_path / "w.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={"about": text})
    with pytest.raises(LabError, match=r"w\.safetensors is damaged"):
        read_weights(path)
