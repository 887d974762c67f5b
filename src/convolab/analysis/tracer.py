"""One forward pass on the meta device: which layers are called, in which order, and what each call does.

On PyTorch's meta device tensors have shapes and no values: nothing is allocated and nothing computed. The network's
parameters are replaced by meta copies during the pass and restored afterwards.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.utils._python_dispatch import TorchDispatchMode  # PyTorch documents it under this name and no other

from convolab.analysis.formulas import expected_input
from convolab.analysis.meta import on_meta_device, shapes_of, storage_id, tensors_in, to_meta
from convolab.analysis.op_call import OpCall, input_tensors
from convolab.analysis.ops import Operator, OpInfo, op_info
from convolab.analysis.receptive_field.propagation import (
    RFState,
    get_rf_state,
    identity_rf,
    propagate,
    set_rf_state,
)
from convolab.core.errors import LabError, describe_exception, require
from convolab.core.torch_functions import Args, Function, FunctionCalls, Kwargs


@dataclass(slots=True)
class LayerCall:
    """One call of a layer: a module that calls no other module, or a function called between modules."""

    name: str  # the module's path; for a function, that of the module that calls it
    kind: str  # the module's class, or the function's name
    module: nn.Module | None
    input_shapes: tuple[tuple[int, ...], ...] = ()
    output_shape: tuple[int, ...] = ()
    num_trainable: int = 0  # parameters that no earlier call used
    num_frozen: int = 0
    macs: int = 0
    activation_bytes: int = 0
    saved_for_backward_bytes: int = 0
    computes: bool = False  # whether any of its operations does more than give a view
    ops: list[str] = field(default_factory=list)  # those that do more than move values
    rf_state: RFState = None
    new_storages: set[int] = field(default_factory=set)  # of its outputs: those that no earlier call's output has
    output_tensors: list[Tensor] = field(default_factory=list)  # kept, so that no storage takes the place of another

    def absorb(self, other: "LayerCall") -> None:
        """Add what a call inside this one has done."""
        self.num_trainable += other.num_trainable
        self.num_frozen += other.num_frozen
        self.macs += other.macs
        self.saved_for_backward_bytes += other.saved_for_backward_bytes
        self.computes |= other.computes
        self.ops += other.ops


@dataclass(frozen=True)
class UncalledModule:
    """A module whose parameters no call used."""

    name: str
    kind: str
    num_trainable: int
    num_frozen: int


@dataclass(frozen=True)
class Trace:
    """All calls of one pass, in order, and what is in none of them."""

    calls: tuple[LayerCall, ...]
    uncalled_modules: tuple[UncalledModule, ...]
    ignored_ops: Counter[str]  # operations that compute and have no multiply-accumulates, and how often
    unsupported_ops: Counter[str]  # operations of which it is not known whether they multiply

    @property
    def macs(self) -> int:
        return sum(call.macs for call in self.calls)


class DataDependentError(LabError):
    """The network's forward pass depends on tensor values, of which the meta device has none."""


def trace_network(network: nn.Module, shape: Sequence[int], *, batch_size: int = 1, with_values: bool = False) -> Trace:
    """Pass an image [batch_size, *shape] through the network, on the meta device unless `with_values`.

    Raises LabError if the network does not accept the image, and DataDependentError if it needs values.
    """
    require(
        not any(isinstance(parameter, UninitializedParameter) for parameter in network.parameters()),
        "the network has lazy layers without weights: run it on one batch first",
    )
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    require(
        not any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()),
        "the network is scripted (torch.jit), so its layers cannot be seen: give the one that it was made of",
    )
    size = torch.Size([batch_size, *shape])
    with torch.inference_mode(False), torch.enable_grad():
        if with_values:  # a ramp, so that no random generator is touched
            device = next((p.device for p in network.parameters()), torch.device("cpu"))
            image = torch.linspace(0.1, 1, size.numel(), dtype=dtype).reshape(size).to(device)
        else:
            image = torch.empty(size, dtype=dtype, device="meta")
        return Tracer(network, with_values).run(image)


class Frame:
    """A module being called."""

    __slots__ = ("calls_others", "first_call_index", "is_leaf", "module", "name")

    def __init__(self, name: str, module: nn.Module, first_call_index: int) -> None:
        self.name = name
        self.module = module
        self.first_call_index = first_call_index
        # A network that is written in functions only is still traced function by function.
        has_children = next(module.children(), None) is not None
        self.is_leaf = not has_children and (bool(name) or type(module).__module__.startswith("torch.nn"))
        self.calls_others = False


class Tracer(TorchDispatchMode):
    """Intercepts every operation below autograd, and knows in which module and function it happens."""

    def __init__(self, network: nn.Module, with_values: bool) -> None:
        super().__init__()
        self.network = network
        self.with_values = with_values
        self.calls: list[LayerCall] = []
        self.frames: list[Frame] = []
        self.current_call: LayerCall | None = None  # of a function, or of a module without children
        self.ignored_ops: Counter[str] = Counter()
        self.unsupported_ops: Counter[str] = Counter()
        self.uncounted_parameters: dict[int, tuple[int, bool]] = {}  # by id: elements, and whether they are trained
        self.known_storages: set[int] = set()
        self.saved_storages: set[int] = set()
        self.keepalive: list[Tensor] = []

    @contextmanager
    def hooked(self, copies: list[Tensor]) -> Iterator[None]:
        """Hook modules, functions, operations and autograd in the block; `copies` are all parameters and buffers."""
        self.uncounted_parameters = {
            id(copy): (copy.numel(), copy.requires_grad) for copy in copies if isinstance(copy, nn.Parameter)
        }
        storages = {storage_id(copy) for copy in copies}
        self.known_storages |= storages
        self.saved_storages |= storages
        self.keepalive += copies
        handles = []
        try:
            for name, module in self.network.named_modules():
                handles.append(module.register_forward_pre_hook(self.pre_hook(name)))
                handles.append(module.register_forward_hook(self.post_hook))
            with (
                torch.autograd.graph.saved_tensors_hooks(self.on_save_for_backward, lambda tensor: tensor),
                FunctionInterceptor(self),
                self,
            ):
                yield
        finally:
            for handle in handles:
                handle.remove()
            for copy in copies:  # they are the network's own tensors if it runs with values
                vars(copy).pop("rf_state", None)

    def run(self, image: Tensor) -> Trace:
        """Pass the image through the network. Raises LabError if it does not fit."""
        set_rf_state(image, identity_rf(image.shape))
        self.known_storages.add(storage_id(image))
        self.keepalive.append(image)
        with on_meta_device(self.network, self.with_values) as copies, self.hooked(list(copies.values())):
            try:
                self.network(image)
            except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, ArithmeticError) as error:
                raise self.to_user_error(error) from error
            except SystemExit as error:
                raise LabError(f"the network does not accept this input: {describe_exception(error)}") from error
            return self.build_trace()

    def build_trace(self) -> Trace:
        uncalled = []
        for name, module in self.network.named_modules():
            counts = [
                self.uncounted_parameters.pop(id(parameter))
                for parameter in module.parameters(recurse=False)
                if id(parameter) in self.uncounted_parameters
            ]
            if counts:
                num_trainable = sum(n for n, is_trainable in counts if is_trainable)
                num_frozen = sum(n for n, is_trainable in counts if not is_trainable)
                uncalled.append(UncalledModule(name, type(module).__name__, num_trainable, num_frozen))
        return Trace(tuple(self.calls), tuple(uncalled), self.ignored_ops, self.unsupported_ops)

    # Modules

    def pre_hook(self, name: str) -> Callable[[nn.Module, tuple[object, ...]], None]:
        def enter(module: nn.Module, inputs: tuple[object, ...]) -> None:
            if self.frames:
                self.frames[-1].calls_others = True
            frame = Frame(name, module, len(self.calls))
            self.frames.append(frame)
            if frame.is_leaf:
                self.current_call = LayerCall(name, type(module).__name__, module, shapes_of(inputs))

        return enter

    def post_hook(self, module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        frame = self.frames.pop()
        call = None
        if frame.is_leaf:
            call = self.current_call
        elif self.frames and not frame.calls_others:  # it called functions only: they are this layer
            call = LayerCall(frame.name, type(module).__name__, module, shapes_of(inputs))
            for inner in self.calls[frame.first_call_index :]:
                call.absorb(inner)
                self.known_storages -= inner.new_storages  # this layer is the first to give them, if it does
            del self.calls[frame.first_call_index :]
        self.current_call = None
        if call and type(module) is not nn.Identity:
            self.record_call(call, output)

    def record_call(self, call: LayerCall, output: object) -> None:
        """Record a call with its output, and the storage that it is the first to use."""
        call.output_tensors = tensors_in(output)
        for tensor in call.output_tensors:
            storage = storage_id(tensor)
            if storage not in self.known_storages:
                self.known_storages.add(storage)
                call.new_storages.add(storage)
                call.activation_bytes += tensor.untyped_storage().nbytes()
        if call.output_tensors:
            call.output_shape = tuple(call.output_tensors[0].shape)
            call.rf_state = get_rf_state(call.output_tensors[0])
        self.calls.append(call)

    # Functions

    def on_function(self, func: Function, args: Args, kwargs: Kwargs) -> object:
        """A function called outside a module without children is a layer of its own if it computes or allocates."""
        if self.current_call is not None:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", type(func).__name__)
        caller = self.frames[-1].name if self.frames else ""  # a hook of the network's own may come before the first
        call = self.current_call = LayerCall(caller, name.strip("_"), None)
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

    def __torch_dispatch__(
        self,
        func: Operator,
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        op = op_info(func)
        kwargs = kwargs or {}
        if op.may_decompose and torch.is_inference_mode_enabled():  # in this mode composite operations come here whole
            with self:
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
            op.may_decompose = False
        inputs = input_tensors(args, kwargs)
        call = self.current_call or LayerCall("", op.name, None)
        self.count_parameters(call, inputs)
        if not self.with_values and any(t.is_meta for t in inputs) and not all(t.is_meta for t in inputs):
            args, kwargs = to_meta((args, kwargs))
        if op.base_name == "convolution":
            require_valid_convolution(args)
        op_call = OpCall(args, kwargs, None)
        output = op.meta_shortcut(op_call) if op.meta_shortcut and not self.with_values else None
        if output is None:
            output = func(*args, **kwargs)
        op_call.output = output
        if op.count_macs:
            call.macs += op.count_macs(op_call)
        elif op.is_ignored is not None:
            (self.ignored_ops if op.is_ignored else self.unsupported_ops)[op.base_name] += 1
        if not op.is_data_movement:
            call.ops.append(op.name)
        if op.computes:
            call.computes = True
        pass_on_rf_state(op, op_call, inputs)
        return output

    def count_parameters(self, call: LayerCall, inputs: list[Tensor]) -> None:
        """Count the parameters that are used for the first time with the call that uses them."""
        if not self.uncounted_parameters:
            return
        for tensor in inputs:
            if id(tensor) in self.uncounted_parameters:
                numel, is_trainable = self.uncounted_parameters.pop(id(tensor))
                if is_trainable:
                    call.num_trainable += numel
                else:
                    call.num_frozen += numel

    def on_save_for_backward(self, tensor: Tensor) -> Tensor:
        """Autograd saves a tensor for the backward pass: its storage counts for the call that saves it first."""
        storage = storage_id(tensor)
        if storage not in self.saved_storages:
            self.saved_storages.add(storage)
            self.keepalive.append(tensor)
            if self.current_call is not None:
                self.current_call.saved_for_backward_bytes += tensor.untyped_storage().nbytes()
        return tensor

    # Errors

    def to_user_error(self, error: Exception) -> LabError:
        """One line about an input that does not fit: the layer, the shape it got, the shape it expects."""
        message = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if not self.with_values and ("meta" in message or isinstance(error, NotImplementedError)):
            return DataDependentError(
                f"the network's forward pass depends on tensor values ({message}): "
                "give a network with weights, not one on the meta device"
            )
        if not self.frames:
            return LabError(f"the network does not accept this input: {message}")
        frame = self.frames[-1]
        layer = f"{frame.name or 'the network'} ({type(frame.module).__name__})"
        input_shapes = self.current_call.input_shapes if self.current_call else ()
        if not input_shapes:
            return LabError(f"{layer} does not accept its input: {message}")
        shape = list(input_shapes[0])
        if expected := expected_input(frame.module, input_shapes[0]):
            return LabError(
                f"{layer} got an input of shape {shape}, expected {expected}: give an input shape that fits"
            )
        return LabError(f"{layer} does not accept its input of shape {shape}: {message}")


class FunctionInterceptor(FunctionCalls):
    """Intercepts every function of PyTorch that Python calls, and passes it to the tracer."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def on_function(self, function: Function, args: Args, kwargs: Kwargs) -> object:
        return self.tracer.on_function(function, args, kwargs)


def require_valid_convolution(args: Sequence[Any]) -> None:
    """Raise ValueError for what torch refuses on a processor, and lets pass on the meta device."""
    _, weight, _, stride, padding, dilation, transposed, extra, _ = args
    for name, values, smallest in (
        ("kernel size", weight.shape[2:], 1),
        ("stride", stride, 1),
        ("dilation", dilation, 1),
        ("padding", padding, 0),
        ("output padding", extra, 0),
    ):
        if any(value < smallest for value in values):
            raise ValueError(f"a convolution's {name} is at least {smallest}, and here it is {list(values)}")
    if transposed and any(more >= max(s, d) for more, s, d in zip(extra, stride, dilation, strict=True)):
        raise ValueError(
            f"a convolution's output padding is smaller than its stride or dilation, and here it is {extra}"
        )


def pass_on_rf_state(op: OpInfo, call: OpCall, inputs: list[Tensor]) -> None:
    """Store the receptive field of an operation's output on its tensors, and of a tensor written through a view."""
    state = propagate(op.rf_rule, op.name, call, inputs)
    outputs = call.outputs()
    for index, tensor in enumerate(outputs):
        set_rf_state(tensor, state[index] if isinstance(state, list) else state)
        if op.is_view and inputs and tensor is not inputs[0]:
            vars(tensor)["viewed_tensor"] = vars(inputs[0]).get("viewed_tensor", inputs[0])
    if op.is_mutating and outputs and (viewed := vars(outputs[0]).get("viewed_tensor")) is not None:
        set_rf_state(viewed, propagate_write(op, call, inputs))


def propagate_write(op: OpInfo, call: OpCall, inputs: list[Tensor]) -> RFState:
    """The receptive field of a tensor after a part of it, which is a view of it, was written."""
    state = propagate(None, f"{op.name} in place, into a view of a tensor", call, inputs)
    return None if isinstance(state, list) else state
