"""What a network keeps that no file holds, such as a counter, and whether a resumed one would compute something else.

A network that was used is compared with itself before its first step, as a resumed run makes it, with the same weights.
What both keep alike costs nothing more. Where they differ, only logits or gradients that differ too count: a network may
note down or cache what it likes.
"""

import copy
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from convolab.core.rng import lent_generators, reproducible_kernels

HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")  # of a module
TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
USUAL_ATTRIBUTES = {*vars(nn.Module()), "training"}
LIBRARIES = ("builtins", "convolab", "timm", "torch", "torchvision")  # their classes keep nothing by the way
ClassValues = Mapping[type, Mapping[str, object]]


class FirstNetwork:
    """A network before its first step, with all that it keeps beside its weights; these are shared with the network.

    Of a network that Python cannot copy only the numbers, texts and lists of such are known.
    """

    def __init__(self, net: nn.Module) -> None:
        self.copy = copy_network(net, shares_weights=True)
        self.class_values = class_values(net)
        self.plain_attributes = plain_attributes(net)

    def changed(self, net: nn.Module) -> list[str]:
        """What the network's modules keep outside of a file of weights and have changed since, by name.

        >>> layer = nn.Dropout(0.5)
        >>> first = FirstNetwork(layer)
        >>> layer.p, layer.seen = 0.25, torch.zeros(2)
        >>> first.changed(layer)
        ['self.p', 'self.seen']
        """
        if self.copy is None:
            return self.changed_plain(net)
        modules = dict(self.copy.named_modules())
        compared = {(id(modules.get(path)), id(module)) for path, module in net.named_modules()}  # one by one
        names: set[str] = set()
        for path, module in net.named_modules():
            before, now = all_kept_values(modules.get(path)), all_kept_values(module)
            names |= {
                f"self.{name}"
                for name in {**before, **now}
                if not is_same(before.get(name), now.get(name), {*compared})
            }
        return sorted(names)

    def changed_plain(self, net: nn.Module) -> list[str]:
        """As `changed`, of the numbers, texts and lists of such alone."""
        before, now = self.plain_attributes, plain_attributes(net)
        return sorted({f"self.{key[1]}" for key in {**before, **now} if before.get(key, ...) != now.get(key, ...)})

    def changed_anywhere(self, net: nn.Module) -> list[str]:
        """As `changed`; also attributes of classes, and which parameters require gradients."""
        now = class_values(net)
        of_classes = [
            f"{kind.__name__}.{name}"
            for kind in now
            for name in {**self.class_values.get(kind, {}), **now[kind]}
            if not is_same(self.class_values.get(kind, {}).get(name), now[kind].get(name))
        ]
        before = {} if self.copy is None else {name: p.requires_grad for name, p in self.copy.named_parameters()}
        flags = [
            f"{name.removeprefix('network.')}.requires_grad"
            for name, parameter in net.named_parameters()
            if before.get(name, parameter.requires_grad) != parameter.requires_grad
        ]
        return [*self.changed(net), *sorted(of_classes), *flags]

    def find_unsaved(
        self, net: nn.Module, pixels: Float[Tensor, "n c h w"], labels: Int64[Tensor, "n"], *, is_tried: bool
    ) -> list[str]:
        """What the network has changed since, is in no file, and changes its logits or gradients: names.

        With `is_tried` a copy of it takes two steps first. One that Python cannot copy, or whose copy fails, counts as
        one that computes with the plain attributes that it changes.
        """
        used, now = copy_network(net) if is_tried else net, class_values(net)
        new = None if self.copy is None else copy_network(self.copy)
        if used is None or new is None:
            return self.changed_plain(net)
        try:
            with lent_generators(pixels.device, 0), class_values_lent(now):
                new.train()
                changed = try_steps(used, pixels, labels) if is_tried else []
                changed, now = [*self.changed_anywhere(used), *changed], class_values(used)
            if not changed:
                return []
            if (used := copy_network(used)) is None:
                return self.changed_plain(net)
            if not is_tried:  # it may be in evaluation mode, or layers of it
                used.train()
            new.load_state_dict(used.state_dict())
            twin = None if pixels.device.type == "cpu" else copy_network(used)
            expected = compute_outputs(used, pixels, labels, now)
            # Some kernels of a graphics card add in another order each time: such a difference says nothing.
            again = expected if twin is None else compute_outputs(twin, pixels, labels, now)
            found = compute_outputs(new, pixels, labels, self.class_values)
        except (Exception, SystemExit):  # whatever a person's own network does
            return self.changed_plain(net)
        differs = [
            has_same_bits(before, same) and not has_same_bits(before, other)
            for before, same, other in zip(expected, again, found, strict=True)
        ]
        return changed if any(differs) else []


def find_rebuilt_otherwise(
    net: nn.Module, twin: nn.Module, pixels: Float[Tensor, "n c h w"], labels: Int64[Tensor, "n"]
) -> list[str]:
    """What is in no file, is another in a `twin` that was built with another seed, and changes what is evaluated: names.

    The twin has the network's weights. That counts which changes logits in evaluation mode or, as a last layer may begin
    with zeros, their gradients. A network that gives others each time is not judged, nor one that Python cannot copy.
    """
    names, used, values = FirstNetwork(twin).changed(net), copy_network(net), class_values(net)
    if not names or used is None:
        return []
    outputs: list[list[Tensor | None]] = []
    try:
        for network in (used, used, twin):
            with lent_generators(pixels.device, 0), class_values_lent(values):
                logits = compute_gradients(network.eval(), pixels, labels)
            outputs.append([logits, *(parameter.grad for parameter in network.parameters())])
    except (Exception, SystemExit):  # whatever a person's own network does
        return []
    expected, again, found = outputs
    is_steady = all(map(has_same_bits, expected, again))
    return names if is_steady and not all(map(has_same_bits, expected, found)) else []


def try_steps(net: nn.Module, pixels: Float[Tensor, "n c h w"], labels: Int64[Tensor, "n"]) -> list[str]:
    """Let a network take two steps that change no weights; gives the names of modules that it puts into another mode.

    What the first step keeps may matter in the second alone. The second has no gradients: Python can copy what it keeps.
    """
    before = {path: module.training for path, module in net.train().named_modules()}
    compute_gradients(net, pixels, labels)
    with torch.no_grad():
        net(pixels.clone())
    return [
        f"{path.removeprefix('network.')}.training"
        for path, module in net.named_modules()
        if module.training != before.get(path, module.training)
    ]


def compute_gradients(net: nn.Module, pixels: Float[Tensor, "n c h w"], labels: Int64[Tensor, "n"]) -> Tensor:
    """A network's logits, and in its parameters their gradients."""
    with torch.enable_grad():
        logits = net(pixels.clone())
        net.zero_grad()
        if logits.requires_grad:
            F.cross_entropy(logits.float(), labels).backward()
    return logits


def compute_outputs(
    net: nn.Module, pixels: Float[Tensor, "n c h w"], labels: Int64[Tensor, "n"], values: ClassValues
) -> list[Tensor | None]:
    """A network's logits in evaluation and in training, and there the gradients of its parameters.

    In training each module has the mode that it has now.
    """
    device, modes = pixels.device, [(module, module.training) for module in net.modules()]
    with reproducible_kernels(device), lent_generators(device, 0), class_values_lent(values):
        with torch.no_grad():
            evaluated = net.eval()(pixels.clone())
        net.train()
        for module, is_training in modes:
            module.training = is_training
        logits = compute_gradients(net, pixels, labels)
    return [evaluated, logits, *(parameter.grad for parameter in net.parameters())]


def copy_network(net: nn.Module, *, shares_weights: bool = False) -> nn.Module | None:
    """A copy of a network; None if Python cannot copy it. What it keeps and cannot be copied is shared."""
    known: dict[int, object] = {}
    try:
        for module in net.modules():  # torch copies no tensor that was computed from parameters
            kept = nested_tensors([vars(module), module._buffers])
            known |= {id(tensor): tensor.detach().clone() for tensor in kept if not tensor.is_leaf}
        if shares_weights:
            known |= {id(p): nn.Parameter(p.detach(), p.requires_grad) for p in net.parameters()}
        try:
            return copy_with_hooks(net, dict(known))
        except Exception:
            values = [value for module in net.modules() for value in kept_values(module).values()]
            known |= {id(value): value for value in values if not can_be_copied(value, known)}
            return copy_with_hooks(net, known)
    except Exception:  # a network may hold anything
        return None


def copy_with_hooks(net: nn.Module, known: dict[int, object]) -> nn.Module:
    """A deep copy, with the parameters' attributes and hooks, which torch leaves out."""
    copied = copy.deepcopy(net, known)
    for parameter, other in zip(net.parameters(), copied.parameters(), strict=True):
        vars(other).update({name: copy_value(value, known) for name, value in vars(parameter).items()})
        for name, hooks in hooks_of_tensor(parameter).items():
            setattr(other, name, OrderedDict((key, copy_value(hook, known)) for key, hook in hooks.items()))
    return copied


def hooks_of_tensor(tensor: Tensor) -> dict[str, dict[int, object]]:
    """The hooks of a tensor by their kind; no functions, whose copy would reach into what they enclose."""
    kinds = {name: getattr(tensor, name, None) or {} for name in TENSOR_HOOKS}
    kept = {name: {k: h for k, h in hooks.items() if not isinstance(h, FunctionType)} for name, hooks in kinds.items()}
    return {name: hooks for name, hooks in kept.items() if hooks}


def can_be_copied(value: object, known: Mapping[int, object]) -> bool:
    try:
        copy.deepcopy(value, dict(known))
    except Exception:  # an object may hold anything
        return False
    return True


def nested_tensors(value: object) -> Iterator[Tensor]:
    """The tensors in a value: itself, or those in lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | list | tuple | deque | set):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from nested_tensors(part)


def plain_attributes(net: nn.Module) -> dict[tuple[str, str], object]:
    """Copies of the numbers, texts and lists of these that a network's modules keep, by module and name.

    >>> plain_attributes(nn.Dropout(0.25))[("", "p")]
    0.25
    """
    return {
        (path, name): copy.deepcopy(value)
        for path, module in net.named_modules()
        for name, value in vars(module).items()
        if name not in USUAL_ATTRIBUTES and is_plain_attribute(value)
    }


def is_plain_attribute(value: object) -> bool:
    """Whether a value is a number, a text, nothing, or a list, tuple or dictionary of such."""
    if isinstance(value, list | tuple):
        return all(map(is_plain_attribute, value))
    if isinstance(value, dict):
        return all(map(is_plain_attribute, value.values()))
    return value is None or isinstance(value, bool | int | float | str)


def kept_values(module: nn.Module | None) -> dict[str, object]:
    """What a module keeps that is in no file of weights: its attributes, and buffers that are not persistent."""
    if module is None:
        return {}
    values: dict[str, object] = {name: value for name, value in vars(module).items() if name not in USUAL_ATTRIBUTES}
    return values | {name: module._buffers.get(name) for name in module._non_persistent_buffers_set}


def all_kept_values(module: nn.Module | None) -> dict[str, object]:
    """What `kept_values` gives, the module's hooks, and its tensors' attributes and hooks."""
    if module is None:
        return {}
    values = kept_values(module) | {name: vars(module)[name] for name in HOOKS if name in vars(module)}
    for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        values |= {f"{name}.{key}": value for key, value in vars(tensor).items()}
        values |= {f"{name}.{kind}": hooks for kind, hooks in hooks_of_tensor(tensor).items()}
    return values


def class_values(net: nn.Module) -> dict[type, dict[str, object]]:
    """Copies of what the classes of a network's modules keep, where these are a person's own."""
    kinds = {kind for module in net.modules() for kind in type(module).__mro__}
    own = sorted(
        (kind for kind in kinds if kind.__module__.partition(".")[0] not in LIBRARIES), key=lambda k: k.__name__
    )
    return {kind: {name: copy_value(value) for name, value in data_attributes(kind).items()} for kind in own}


def data_attributes(kind: type) -> dict[str, object]:
    """The attributes of a class that are neither functions nor properties."""
    return {
        name: value for name, value in vars(kind).items() if not name.startswith("__") and not hasattr(value, "__get__")
    }


def copy_value(value: object, known: dict[int, object] | None = None) -> object:
    """A copy of a value, which refers to copies that are known; itself if Python cannot copy it."""
    try:
        return copy.deepcopy(value, known)
    except Exception:  # a class may hold anything
        return value


@contextmanager
def class_values_lent(values: ClassValues) -> Iterator[None]:
    """Inside the block classes keep copies of these values; at its end they have their own again."""
    own = {kind: data_attributes(kind) for kind in values}
    try:
        for kind, wanted in values.items():
            set_class_values(kind, {name: copy_value(value) for name, value in wanted.items()})
        yield
    finally:
        for kind, wanted in own.items():
            set_class_values(kind, wanted)


def set_class_values(kind: type, values: Mapping[str, object]) -> None:
    for name in data_attributes(kind).keys() - values.keys():
        delattr(kind, name)
    for name, value in values.items():
        if vars(kind).get(name) is not value:
            setattr(kind, name, value)


def is_same(value: object, other: object, compared: set[tuple[int, int]] | None = None) -> bool:
    """Whether two values hold the same; False where that is unknown.

    >>> is_same({"a": [torch.ones(2), deque([1.0])]}, {"a": [torch.ones(2), deque([1.0])]})
    True
    >>> is_same(torch.Generator().manual_seed(0), torch.Generator().manual_seed(1))
    False
    """
    compared = set() if compared is None else compared
    if isinstance(value, Iterator):
        return False
    if value is other or (id(value), id(other)) in compared:
        return True
    if type(value) is not type(other):
        return False
    compared.add((id(value), id(other)))  # a value may hold itself
    try:
        if isinstance(value, Tensor) and isinstance(other, Tensor):
            return has_same_bits(value, other)
        if isinstance(value, bool | int | float | complex | str | bytes):
            return repr(value) == repr(other)  # NaN is the same as NaN
        if isinstance(value, set | frozenset):
            return value == other
        parts, others = parts_of(value), parts_of(other)
    except Exception:  # whatever a person's own object does
        return False
    return len(parts) == len(others) and all(
        is_same(part, one, compared) for part, one in zip(parts, others, strict=True)
    )


def parts_of(value: object) -> list[object]:
    """What a value is made of: the parts of a container, and of another object what a copy of it is made from."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | deque):
        return list(value)
    if isinstance(value, nn.Module):
        return list(vars(value).values())
    if isinstance(value, torch.Generator):
        return [value.get_state()]
    made_from = value.__reduce_ex__(4)
    return (
        [made_from]
        if isinstance(made_from, str)
        else [tuple(part) if isinstance(part, Iterator) else part for part in made_from]
    )


def has_same_bits(values: Tensor | None, others: Tensor | None) -> bool:
    """Whether two tensors, or two gradients of which each may be missing, have the same numbers; NaN is one."""
    if values is None or others is None:
        return values is others
    is_alike = (values.shape, values.dtype, values.device) == (others.shape, others.dtype, others.device)
    return is_alike and torch.allclose(values, others, rtol=0, atol=0, equal_nan=True)
