"""One pass of a network over a picture without pixels: what is called, in which order, and what each call does.

The pass runs on PyTorch's meta device, where tensors have shapes and no values: nothing is allocated and nothing computed. The
network's own parameters are lent twins there and put back afterwards.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from convolab.analysis.formulas import wanted_by
from convolab.analysis.ops import OPERATIONS, Operation
from convolab.analysis.receptive_field.propagation import Sight, at_the_input, follow, sight_of
from convolab.core.errors import LabError, need


@dataclass(slots=True)
class Call:
    """A layer at work: a module that calls no other module, or a function called between modules."""

    name: str  # the module's path; for a function, that of the module that calls it
    kind: str  # the module's class, or the function's name
    module: nn.Module | None
    inputs: tuple[tuple[int, ...], ...] = ()
    output: tuple[int, ...] = ()
    trainable: int = 0  # parameters first met here
    frozen: int = 0
    macs: int = 0
    forward_bytes: int = 0
    backward_bytes: int = 0
    computes: bool = False
    operations: list[str] = field(default_factory=list)  # those that do more than move values
    sight: Sight = None
    result: Any = None  # the output's tensors, kept so that their storages stay apart

    def add(self, other: "Call") -> None:
        """Take over what a call inside this one has done."""
        self.trainable += other.trainable
        self.frozen += other.frozen
        self.macs += other.macs
        self.backward_bytes += other.backward_bytes
        self.computes |= other.computes
        self.operations += other.operations


@dataclass(frozen=True)
class Trace:
    """All calls of one pass, in order, and what none of them accounts for."""

    calls: tuple[Call, ...]
    uncalled: tuple[
        tuple[str, str, int, int], ...
    ]  # modules whose parameters no call used: name, kind, trainable, frozen
    uncounted: Counter  # operations that compute and have no multiply-accumulates, and how often
    unknown: Counter  # operations of which it is not known whether they multiply
    real: bool  # whether it had to run with values


def trace(
    network: nn.Module, shape: Sequence[int], *, batch: int = 1, observer: Any = None, real: bool = False
) -> Trace:
    """Pass a picture [batch, *shape] through the network, on the meta device unless `real`.

    `observer` hears of every module and function called; see `conventions`. Raises LabError if the picture does not fit.
    """
    need(
        not any(map(is_lazy, network.parameters())),
        "the network's layers are not made yet (lazy ones): run it on a batch first",
    )
    device = next((p.device for p in network.parameters()), torch.device("cpu")) if real else torch.device("meta")
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    size = torch.Size([batch, *shape])
    with torch.inference_mode(False), torch.enable_grad():
        # Values, where they are needed, are a ramp: no random generator is touched.
        picture = (
            torch.linspace(0.1, 1, size.numel(), dtype=dtype).reshape(size).to(device)
            if real
            else torch.empty(size, dtype=dtype, device=device)
        )
        return Tracer(network, observer, real).run(picture)


class NeedsValues(LabError):
    """The network looks at values, of which the meta device has none."""


@contextmanager
def borrowed(network: nn.Module, real: bool) -> Iterator[dict[int, Tensor]]:
    """The network in evaluation mode, its tensors replaced by twins on the meta device; afterwards it is as it was.

    Yields the twins of its parameters (the tensors themselves where they are `real`, or on the meta device already).
    """
    twins: dict[int, Tensor] = {}

    def twin(tensor: Tensor) -> Tensor:
        if id(tensor) not in twins:
            if real or tensor.is_meta:
                twins[id(tensor)] = tensor
            else:
                copy = torch.empty_like(tensor, device="meta")
                twins[id(tensor)] = (
                    nn.Parameter(copy, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else copy
                )
        return twins[id(tensor)]

    kept = []
    try:
        for module in network.modules():
            stores = (module._parameters, module._buffers)
            kept.append((module, dict(module.__dict__), [dict(store) for store in stores] if not real else None))
            module.training = False
            for store in stores:
                for key, tensor in store.items():
                    if tensor is not None:
                        other = twin(tensor)
                        if other is not tensor:
                            store[key] = other
        yield twins
    finally:
        for module, state, stores in kept:
            for store, before in zip((module._parameters, module._buffers), stores or (), strict=False):
                store.clear()
                store.update(before)
            if isinstance(module, torch.jit.ScriptModule):
                module.training = state.get("training", True)
                continue
            module.__dict__.clear()
            module.__dict__.update(state)


class Frame:
    """A module being called."""

    __slots__ = ("called_others", "leaf", "macs", "module", "name", "start")

    def __init__(self, name: str, module: nn.Module, start: int, macs: int) -> None:
        self.name, self.module, self.start, self.macs = name, module, start, macs
        # A network that is written in functions only is still taken apart.
        self.leaf = not module._modules and (bool(name) or type(module).__module__.startswith("torch.nn"))
        self.called_others = False


class Tracer(TorchDispatchMode):
    """Hears of every operation below autograd, and knows in which module and function it happens."""

    def __init__(self, network: nn.Module, observer: Any, real: bool) -> None:
        super().__init__()
        self.network, self.observer, self.real = network, observer, real
        self.calls: list[Call] = []
        self.frames: list[Frame] = []
        self.current: Call | None = None  # of a function, or of a module without children
        self.uncounted, self.unknown = Counter(), Counter()
        self.unclaimed: dict[int, tuple[int, bool]] = {}
        self.macs = 0  # so far
        self.known_storages: set[int] = set()
        self.saved_storages: set[int] = set()
        self.held: list[Any] = []

    @contextmanager
    def watching(self, twins: dict[int, Tensor]) -> Iterator[None]:
        """Listen to modules, functions, operations and to what autograd keeps."""
        self.unclaimed = {id(t): (t.numel(), t.requires_grad) for t in twins.values() if isinstance(t, nn.Parameter)}
        storages = {t.untyped_storage()._cdata for t in twins.values()}
        self.known_storages |= storages
        self.saved_storages |= storages
        self.held.append(twins)
        handles = []
        try:
            for name, module in self.network.named_modules():
                handles.append(module.register_forward_pre_hook(self.entering(name)))
                handles.append(module.register_forward_hook(self.leaving))
            functions = Functions(self)
            with torch.autograd.graph.saved_tensors_hooks(self.keep, lambda tensor: tensor), functions, self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def run(self, picture: Tensor) -> Trace:
        """Pass the picture through the network. Raises LabError if it does not fit."""
        picture.sight = at_the_input(picture.shape)
        self.known_storages.add(picture.untyped_storage()._cdata)
        self.held.append(picture)
        with borrowed(self.network, self.real) as twins, self.watching(twins):
            try:
                self.network(picture)
            except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
                raise self.explained(error) from error
            return self.finish()

    def finish(self) -> Trace:
        uncalled = []
        for name, module in self.network.named_modules():
            own = [
                self.unclaimed.pop(id(p))
                for p in module._parameters.values()
                if p is not None and id(p) in self.unclaimed
            ]
            if own:
                trainable = sum(n for n, grad in own if grad)
                uncalled.append((name, type(module).__name__, trainable, sum(n for n, _ in own) - trainable))
        return Trace(tuple(self.calls), tuple(uncalled), self.uncounted, self.unknown, self.real)

    # Modules

    def entering(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, inputs: Any) -> None:
            if self.frames:
                self.frames[-1].called_others = True
            frame = Frame(name, module, len(self.calls), self.macs)
            self.frames.append(frame)
            if frame.leaf:
                self.current = Call(name, type(module).__name__, module, shapes_of(inputs))

        return enter

    def leaving(self, module: nn.Module, inputs: Any, output: Any) -> None:
        frame = self.frames.pop()
        if frame.leaf:
            call = self.current
        elif frame.called_others or not self.frames:
            call = None
        else:  # it called functions only: they are this layer
            call = Call(frame.name, type(module).__name__, module, shapes_of(inputs))
            for inner in self.calls[frame.start :]:
                call.add(inner)
            del self.calls[frame.start :]
        self.current = None
        if call and type(module) is not nn.Identity:
            self.close(call, output)
        if self.observer:
            within = [outer.module for outer in self.frames]
            self.observer.module(
                module, inputs, output, self.macs - frame.macs, within, calls_others=frame.called_others
            )

    def close(self, call: Call, output: Any) -> None:
        """Note what a call gives, and the storage that it is the first to use."""
        call.result = tensors_in(output)
        for tensor in call.result:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.known_storages:
                self.known_storages.add(storage._cdata)
                call.forward_bytes += storage.nbytes()
        if call.result:
            call.output, call.sight = tuple(call.result[0].shape), sight_of(call.result[0])
        self.calls.append(call)

    # Functions

    def function(self, func: Callable, args: Any, kwargs: dict[str, Any]) -> Any:
        """A function of PyTorch called outside a module without children: a layer of its own if it computes or allocates."""
        if self.current is not None or not self.frames:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", type(func).__name__)
        call = self.current = Call(self.frames[-1].name, name.strip("_"), None)
        try:
            output = func(*args, **kwargs)
        finally:
            self.current = None
        if call.computes or call.trainable or call.frozen:
            call.inputs = shapes_of(args)
            # A function that writes into its first argument, as x[0] = y does, returns nothing.
            self.close(call, output if tensors_in(output) else args[:1])
        return output

    # Operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        operation = OPERATIONS.get(func) or OPERATIONS.setdefault(func, Operation(func))
        kwargs = kwargs or {}
        if operation.composite:  # inside torch.inference_mode these are not taken apart before they come here
            with self:
                return func.decompose(*args, **kwargs)
        inputs = [a for a in args if isinstance(a, Tensor)]
        for a in args:
            if type(a) in (list, tuple):
                inputs += [t for t in a if isinstance(t, Tensor)]
        if kwargs:
            inputs += [t for t in kwargs.values() if isinstance(t, Tensor)]
        call = self.current
        if call is None:
            call = Call("", operation.name, None)
        if self.unclaimed:
            for tensor in inputs:
                if id(tensor) in self.unclaimed:
                    numel, trainable = self.unclaimed.pop(id(tensor))
                    call.trainable += numel * trainable
                    call.frozen += numel * (not trainable)
        if not self.real and any(t.is_meta for t in inputs) and not all(t.is_meta for t in inputs):
            args, kwargs = weightless((args, kwargs))
        shortcut = operation.shortcut
        out = shortcut(args) if shortcut and not self.real else None
        if out is None:
            out = func(*args, **kwargs)
        if operation.count:
            macs = operation.count(args, out)
            call.macs += macs
            self.macs += macs
        elif operation.listed is not None:
            (self.uncounted if operation.listed else self.unknown)[operation.plain] += 1
        if not operation.moves:
            call.operations.append(operation.name)
        if not operation.views:
            call.computes = True
        seen = follow(operation.rule, operation.name, args, kwargs, inputs, out)
        if isinstance(out, Tensor):
            out.sight = seen
            if operation.writes and out._base is not None:
                out._base.sight = follow(None, f"{operation.name} into a part of a tensor", args, kwargs, inputs, out)
        elif type(out) in (list, tuple):
            for index, tensor in enumerate(out):
                if isinstance(tensor, Tensor):
                    tensor.sight = seen[index] if isinstance(seen, list) else seen
        return out

    def keep(self, tensor: Tensor) -> Tensor:
        """Autograd keeps a tensor for the backward pass: its storage counts for the call that keeps it first."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.saved_storages:
            self.saved_storages.add(storage._cdata)
            self.held.append(tensor)
            if self.current is not None:
                self.current.backward_bytes += storage.nbytes()
        return tensor

    # Errors

    def explained(self, error: Exception) -> LabError:
        """One line about an input that does not fit: the layer, the shape it got, the shape it wants."""
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if not self.real and ("meta" in said or isinstance(error, NotImplementedError)):
            return NeedsValues(
                f"the network looks at values while it runs ({said}): give it with its weights, not on the meta device"
            )
        if not self.frames:
            return LabError(f"the network cannot take the input: {said}")
        frame = self.frames[-1]
        got = self.current.inputs[0] if self.current and self.current.inputs else None
        wanted = wanted_by(frame.module, got) if got else None
        layer = f"{frame.name or 'the network'} ({type(frame.module).__name__})"
        if wanted:
            return LabError(f"{layer} got {list(got)} and wants {wanted}: give an --input that fits")
        return LabError(f"{layer} cannot take its input{f' {list(got)}' if got else ''}: {said}")


class Functions(TorchFunctionMode):
    """Hears of every function of PyTorch that Python calls, and tells the tracer."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tracer, kwargs = self.tracer, kwargs or {}
        if not tracer.observer:
            return tracer.function(func, args, kwargs)
        before = tracer.macs
        out = tracer.function(func, args, kwargs)
        tracer.observer.function(func, args, kwargs, out, tracer.macs - before)
        return out


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in a nest of lists, tuples and dictionaries."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def shapes_of(value: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(tensor.shape) for tensor in tensors_in(value))


def weightless(value: Any) -> Any:
    """A nest of arguments with every tensor on the meta device: a constant that the network made for itself has lost its way there."""
    if isinstance(value, Tensor):
        return value if value.is_meta else torch.empty_like(value, device="meta")
    if isinstance(value, dict):
        return {key: weightless(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(weightless, value))
    return value
