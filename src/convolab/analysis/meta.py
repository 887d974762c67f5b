"""A network on the meta device during one pass, where tensors have shapes and no values, and nested tensors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

T = TypeVar("T")


@contextmanager
def on_meta_device(network: nn.Module, with_values: bool) -> Iterator[dict[int, Tensor]]:
    """The network in evaluation mode, its tensors replaced by meta copies; afterwards it is as it was.

    Yields the copies by the id of the original: the tensors themselves where they keep their values (`with_values`), or
    are on the meta device already. Not for a network that another thread uses at the same time.
    """
    copies: dict[int, Tensor] = {}
    saved: list[tuple[nn.Module, bool, dict[str, object], list[dict[str, Tensor | None]]]] = []
    try:
        for module in network.modules():
            stores = tensor_stores(module)
            contents = [] if with_values else [dict(store) for store in stores]
            saved.append((module, module.training, dict(module.__dict__), contents))
            module.training = False
            for store in stores:
                for name, tensor in store.items():
                    if tensor is None:
                        continue
                    if id(tensor) not in copies:
                        copies[id(tensor)] = tensor if with_values else meta_copy(tensor)
                    if copies[id(tensor)] is not tensor:
                        store[name] = copies[id(tensor)]
        yield copies
    finally:
        for module, training, attributes, contents in saved:
            for store, before in zip(tensor_stores(module), contents, strict=False):
                store.clear()
                store.update(before)
            if isinstance(module, torch.jit.ScriptModule):  # its attributes are not in __dict__
                module.training = training
                continue
            module.__dict__.clear()
            module.__dict__.update(attributes)


def tensor_stores(module: nn.Module) -> list[dict[str, Tensor | None]]:
    """The dictionaries in which a module keeps its own parameters and buffers.

    Only through them can tensors be replaced without the checks of `setattr`, and restored in the same order.
    """
    return [cast("dict[str, Tensor | None]", module._parameters), module._buffers]


def meta_copy(tensor: Tensor) -> Tensor:
    """A tensor of the same shape and type on the meta device; the tensor itself if it is there already."""
    if tensor.is_meta:
        return tensor
    copy = torch.empty_like(tensor, device="meta")
    return nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy


def to_meta(value: T) -> T:
    """Nested arguments with every tensor on the meta device: a constant created in forward may be on the CPU."""
    if isinstance(value, Tensor):
        return value if value.is_meta else torch.empty_like(value, device="meta")
    if isinstance(value, dict):
        return cast("T", {key: to_meta(item) for key, item in value.items()})
    if type(value) in (list, tuple):
        copies = [to_meta(item) for item in cast("list[object]", value)]
        return cast("T", copies if type(value) is list else tuple(copies))
    return value


def tensors_in(value: object) -> list[Tensor]:
    """The tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def shapes_of(value: object) -> tuple[tuple[int, ...], ...]:
    """The shapes of the tensors in nested lists, tuples and dictionaries."""
    return tuple(tuple(tensor.shape) for tensor in tensors_in(value))


def storage_id(tensor: Tensor) -> int:
    """One number for all tensors that share memory, for as long as one of them is alive."""
    return id(tensor.untyped_storage())
