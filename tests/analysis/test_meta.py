"""A network on the meta device for one pass, and ids of storages without private functions of PyTorch."""

import gc

import torch
from torch import nn

from convolab.analysis.meta import on_meta_device, shapes_of, storage_id, tensors_in, to_meta


def test_the_network_has_meta_copies_inside_the_context_and_its_own_tensors_after_it() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).train()
    before = dict(net.state_dict(keep_vars=True))
    with on_meta_device(net, with_values=False) as copies:
        assert all(tensor.is_meta for tensor in net.state_dict(keep_vars=True).values())
        assert not net[0].training
        assert len(copies) == len(before)
    assert all(tensor is before[name] for name, tensor in net.state_dict(keep_vars=True).items())
    assert net[0].training


def test_shared_parameters_share_one_meta_copy() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    with on_meta_device(net, with_values=False):
        assert net[1].weight is net[0].weight


def test_views_have_the_storage_id_of_their_base_and_other_tensors_do_not() -> None:
    for device in ("cpu", "meta"):
        base = torch.empty(4, 4, device=device)
        number = storage_id(base)
        gc.collect()  # nothing in Python refers to the storage in between
        other_tensors = [torch.empty(4, 4, device=device) for _ in range(100)]
        assert storage_id(base[1:]) == storage_id(base.view(16)) == number
        assert len({storage_id(other) for other in other_tensors} | {number}) == 101


def test_tensors_are_found_in_nested_containers() -> None:
    tensor = torch.zeros(2, 3)
    nested = {"a": [tensor, (1, tensor)], "b": "text"}
    assert tensors_in(nested) == [tensor, tensor]
    assert shapes_of(nested) == ((2, 3), (2, 3))
    copy = to_meta(nested)
    assert copy["b"] == "text"
    assert copy["a"][0].is_meta
    assert type(copy["a"][1]) is tuple
