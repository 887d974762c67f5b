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

from convolab.analysis.formulas import expected_input
from convolab.analysis.ops import OP_INFO_CACHE, OpInfo
from convolab.analysis.receptive_field.propagation import RFState, get_rf_state, identity_rf, propagate
from convolab.core.errors import LabError, require


@dataclass(slots=True)
class LayerCall:
    """A layer at work: a module that calls no other module, or a function called between modules."""

    name: str  # the module's path; for a function, that of the module that calls it
    kind: str  # the module's class, or the function's name
    module: nn.Module | None
    input_shapes: tuple[tuple[int, ...], ...] = ()
    output_shape: tuple[int, ...] = ()
    num_trainable: int = 0  # parameters first met here
    num_frozen: int = 0
    macs: int = 0
    activation_bytes: int = 0
    saved_for_backward_bytes: int = 0
    computes: bool = False
    ops: list[str] = field(default_factory=list)  # those that do more than move values
    rf_state: RFState = None
    output_tensors: Any = None  # the output's tensors, kept so that their storages stay apart

    def absorb(self, other: "LayerCall") -> None:
        """Take over what a call inside this one has done."""
        self.num_trainable += other.num_trainable
        self.num_frozen += other.num_frozen
        self.macs += other.macs
        self.saved_for_backward_bytes += other.saved_for_backward_bytes
        self.computes |= other.computes
        self.ops += other.ops


@dataclass(frozen=True)
class Trace:
    """All calls of one pass, in order, and what none of them accounts for."""

    calls: tuple[LayerCall, ...]
    uncalled_modules: tuple[
        tuple[str, str, int, int], ...
    ]  # modules whose parameters no call used: name, kind, trainable, frozen
    ignored_ops: Counter  # operations that compute and have no multiply-accumulates, and how often
    unsupported_ops: Counter  # operations of which it is not known whether they multiply
    with_values: bool  # whether it had to run with values


def trace_network(
    network: nn.Module, shape: Sequence[int], *, batch_size: int = 1, observer: Any = None, with_values: bool = False
) -> Trace:
    """Pass a picture [batch, *shape] through the network, on the meta device unless `real`.

    `observer` hears of every module and function called; see `conventions`. Raises LabError if the picture does not fit.
    """
    require(
        not any(map(is_lazy, network.parameters())),
        "the network's layers are not made yet (lazy ones): run it on a batch first",
    )
    device = (
        next((p.device for p in network.parameters()), torch.device("cpu")) if with_values else torch.device("meta")
    )
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    size = torch.Size([batch_size, *shape])
    with torch.inference_mode(False), torch.enable_grad():
        # Values, where they are needed, are a ramp: no random generator is touched.
        image = (
            torch.linspace(0.1, 1, size.numel(), dtype=dtype).reshape(size).to(device)
            if with_values
            else torch.empty(size, dtype=dtype, device=device)
        )
        return Tracer(network, observer, with_values).run(image)


class DataDependentError(LabError):
    """The network looks at values, of which the meta device has none."""


@contextmanager
def on_meta_device(network: nn.Module, with_values: bool) -> Iterator[dict[int, Tensor]]:
    """The network in evaluation mode, its tensors replaced by twins on the meta device; afterwards it is as it was.

    Yields the twins of its parameters (the tensors themselves where they are `real`, or on the meta device already).
    """
    meta_copies: dict[int, Tensor] = {}

    def meta_copy(tensor: Tensor) -> Tensor:
        if id(tensor) not in meta_copies:
            if with_values or tensor.is_meta:
                meta_copies[id(tensor)] = tensor
            else:
                meta_tensor = torch.empty_like(tensor, device="meta")
                meta_copies[id(tensor)] = (
                    nn.Parameter(meta_tensor, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else meta_tensor
                )
        return meta_copies[id(tensor)]

    saved = []
    try:
        for module in network.modules():
            tensor_dicts = (module._parameters, module._buffers)
            saved.append(
                (module, dict(module.__dict__), [dict(store) for store in tensor_dicts] if not with_values else None)
            )
            module.training = False
            for tensor_dict in tensor_dicts:
                for key, tensor in tensor_dict.items():
                    if tensor is not None:
                        copy = meta_copy(tensor)
                        if copy is not tensor:
                            tensor_dict[key] = copy
        yield meta_copies
    finally:
        for module, state, tensor_dicts in saved:
            for tensor_dict, before in zip((module._parameters, module._buffers), tensor_dicts or (), strict=False):
                tensor_dict.clear()
                tensor_dict.update(before)
            if isinstance(module, torch.jit.ScriptModule):
                module.training = state.get("training", True)
                continue
            module.__dict__.clear()
            module.__dict__.update(state)


class Frame:
    """A module being called."""

    __slots__ = ("calls_others", "first_call_index", "is_leaf", "macs_before", "module", "name")

    def __init__(self, name: str, module: nn.Module, first_call_index: int, macs_before: int) -> None:
        self.name, self.module, self.first_call_index, self.macs_before = name, module, first_call_index, macs_before
        # A network that is written in functions only is still taken apart.
        self.is_leaf = not module._modules and (bool(name) or type(module).__module__.startswith("torch.nn"))
        self.calls_others = False


class Tracer(TorchDispatchMode):
    """Hears of every operation below autograd, and knows in which module and function it happens."""

    def __init__(self, network: nn.Module, observer: Any, with_values: bool) -> None:
        super().__init__()
        self.network, self.observer, self.with_values = network, observer, with_values
        self.calls: list[LayerCall] = []
        self.frames: list[Frame] = []
        self.current_call: LayerCall | None = None  # of a function, or of a module without children
        self.ignored_ops, self.unsupported_ops = Counter(), Counter()
        self.uncounted_parameters: dict[int, tuple[int, bool]] = {}
        self.total_macs = 0  # so far
        self.known_storages: set[int] = set()
        self.saved_storages: set[int] = set()
        self.keepalive: list[Any] = []

    @contextmanager
    def hooked(self, meta_copies: dict[int, Tensor]) -> Iterator[None]:
        """Listen to modules, functions, operations and to what autograd keeps."""
        self.uncounted_parameters = {
            id(t): (t.numel(), t.requires_grad) for t in meta_copies.values() if isinstance(t, nn.Parameter)
        }
        storages = {t.untyped_storage()._cdata for t in meta_copies.values()}
        self.known_storages |= storages
        self.saved_storages |= storages
        self.keepalive.append(meta_copies)
        handles = []
        try:
            for name, module in self.network.named_modules():
                handles.append(module.register_forward_pre_hook(self.pre_hook(name)))
                handles.append(module.register_forward_hook(self.post_hook))
            functions = FunctionInterceptor(self)
            with (
                torch.autograd.graph.saved_tensors_hooks(self.on_save_for_backward, lambda tensor: tensor),
                functions,
                self,
            ):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def run(self, image: Tensor) -> Trace:
        """Pass the picture through the network. Raises LabError if it does not fit."""
        image.sight = identity_rf(image.shape)
        self.known_storages.add(image.untyped_storage()._cdata)
        self.keepalive.append(image)
        with on_meta_device(self.network, self.with_values) as meta_copies, self.hooked(meta_copies):
            try:
                self.network(image)
            except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
                raise self.to_user_error(error) from error
            return self.build_trace()

    def build_trace(self) -> Trace:
        uncalled = []
        for name, module in self.network.named_modules():
            counts = [
                self.uncounted_parameters.pop(id(p))
                for p in module._parameters.values()
                if p is not None and id(p) in self.uncounted_parameters
            ]
            if counts:
                trainable = sum(n for n, grad in counts if grad)
                uncalled.append((name, type(module).__name__, trainable, sum(n for n, _ in counts) - trainable))
        return Trace(tuple(self.calls), tuple(uncalled), self.ignored_ops, self.unsupported_ops, self.with_values)

    # Modules

    def pre_hook(self, name: str) -> Callable[..., None]:
        def enter(module: nn.Module, inputs: Any) -> None:
            if self.frames:
                self.frames[-1].calls_others = True
            frame = Frame(name, module, len(self.calls), self.total_macs)
            self.frames.append(frame)
            if frame.is_leaf:
                self.current_call = LayerCall(name, type(module).__name__, module, shapes_of(inputs))

        return enter

    def post_hook(self, module: nn.Module, inputs: Any, output: Any) -> None:
        frame = self.frames.pop()
        if frame.is_leaf:
            call = self.current_call
        elif frame.calls_others or not self.frames:
            call = None
        else:  # it called functions only: they are this layer
            call = LayerCall(frame.name, type(module).__name__, module, shapes_of(inputs))
            for inner in self.calls[frame.first_call_index :]:
                call.absorb(inner)
            del self.calls[frame.first_call_index :]
        self.current_call = None
        if call and type(module) is not nn.Identity:
            self.record_call(call, output)
        if self.observer:
            enclosing_modules = [outer.module for outer in self.frames]
            self.observer.module(
                module,
                inputs,
                output,
                self.total_macs - frame.macs_before,
                enclosing_modules,
                calls_others=frame.calls_others,
            )

    def record_call(self, call: LayerCall, output: Any) -> None:
        """Note what a call gives, and the storage that it is the first to use."""
        call.output_tensors = tensors_in(output)
        for tensor in call.output_tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.known_storages:
                self.known_storages.add(storage._cdata)
                call.activation_bytes += storage.nbytes()
        if call.output_tensors:
            call.output_shape, call.rf_state = tuple(call.output_tensors[0].shape), get_rf_state(call.output_tensors[0])
        self.calls.append(call)

    # Functions

    def on_function(self, func: Callable, args: Any, kwargs: dict[str, Any]) -> Any:
        """A function of PyTorch called outside a module without children: a layer of its own if it computes or allocates."""
        if self.current_call is not None or not self.frames:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", type(func).__name__)
        call = self.current_call = LayerCall(self.frames[-1].name, name.strip("_"), None)
        try:
            output = func(*args, **kwargs)
        finally:
            self.current_call = None
        if call.computes or call.num_trainable or call.num_frozen:
            call.input_shapes = shapes_of(args)
            # A function that writes into its first argument, as x[0] = y does, returns nothing.
            self.record_call(call, output if tensors_in(output) else args[:1])
        return output

    # Operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        op = OP_INFO_CACHE.get(func) or OP_INFO_CACHE.setdefault(func, OpInfo(func))
        kwargs = kwargs or {}
        if op.is_composite:  # inside torch.inference_mode these are not taken apart before they come here
            with self:
                return func.decompose(*args, **kwargs)
        inputs = [a for a in args if isinstance(a, Tensor)]
        for a in args:
            if type(a) in (list, tuple):
                inputs += [t for t in a if isinstance(t, Tensor)]
        if kwargs:
            inputs += [t for t in kwargs.values() if isinstance(t, Tensor)]
        call = self.current_call
        if call is None:
            call = LayerCall("", op.name, None)
        if self.uncounted_parameters:
            for tensor in inputs:
                if id(tensor) in self.uncounted_parameters:
                    numel, trainable = self.uncounted_parameters.pop(id(tensor))
                    call.num_trainable += numel * trainable
                    call.num_frozen += numel * (not trainable)
        if not self.with_values and any(t.is_meta for t in inputs) and not all(t.is_meta for t in inputs):
            args, kwargs = to_meta((args, kwargs))
        shortcut = op.meta_shortcut
        out = shortcut(args) if shortcut and not self.with_values else None
        if out is None:
            out = func(*args, **kwargs)
        if op.count_macs:
            macs = op.count_macs(args, out)
            call.macs += macs
            self.total_macs += macs
        elif op.is_ignored is not None:
            (self.ignored_ops if op.is_ignored else self.unsupported_ops)[op.base_name] += 1
        if not op.is_data_movement:
            call.ops.append(op.name)
        if not op.is_view:
            call.computes = True
        rf_states = propagate(op.rf_rule, op.name, args, kwargs, inputs, out)
        if isinstance(out, Tensor):
            out.sight = rf_states
            if op.is_mutating and out._base is not None:
                out._base.sight = propagate(None, f"{op.name} into a part of a tensor", args, kwargs, inputs, out)
        elif type(out) in (list, tuple):
            for index, tensor in enumerate(out):
                if isinstance(tensor, Tensor):
                    tensor.sight = rf_states[index] if isinstance(rf_states, list) else rf_states
        return out

    def on_save_for_backward(self, tensor: Tensor) -> Tensor:
        """Autograd keeps a tensor for the backward pass: its storage counts for the call that keeps it first."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.saved_storages:
            self.saved_storages.add(storage._cdata)
            self.keepalive.append(tensor)
            if self.current_call is not None:
                self.current_call.saved_for_backward_bytes += storage.nbytes()
        return tensor

    # Errors

    def to_user_error(self, error: Exception) -> LabError:
        """One line about an input that does not fit: the layer, the shape it got, the shape it wants."""
        message = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if not self.with_values and ("meta" in message or isinstance(error, NotImplementedError)):
            return DataDependentError(
                f"the network looks at values while it runs ({message}): give it with its weights, not on the meta device"
            )
        if not self.frames:
            return LabError(f"the network cannot take the input: {message}")
        frame = self.frames[-1]
        input_shape = (
            self.current_call.input_shapes[0] if self.current_call and self.current_call.input_shapes else None
        )
        expected = expected_input(frame.module, input_shape) if input_shape else None
        layer = f"{frame.name or 'the network'} ({type(frame.module).__name__})"
        if expected:
            return LabError(f"{layer} got {list(input_shape)} and wants {expected}: give an --input that fits")
        return LabError(f"{layer} cannot take its input{f' {list(input_shape)}' if input_shape else ''}: {message}")


class FunctionInterceptor(TorchFunctionMode):
    """Hears of every function of PyTorch that Python calls, and tells the tracer."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tracer, kwargs = self.tracer, kwargs or {}
        if not tracer.observer:
            return tracer.on_function(func, args, kwargs)
        before = tracer.total_macs
        out = tracer.on_function(func, args, kwargs)
        tracer.observer.function(func, args, kwargs, out, tracer.total_macs - before)
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


def to_meta(value: Any) -> Any:
    """A nest of arguments with every tensor on the meta device: a constant that the network made for itself has lost its way there."""
    if isinstance(value, Tensor):
        return value if value.is_meta else torch.empty_like(value, device="meta")
    if isinstance(value, dict):
        return {key: to_meta(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(to_meta, value))
    return value
