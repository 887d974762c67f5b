"""What a network costs and what it sees: layer by layer, without allocating its weights or computing anything."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import nn

from convolab.analysis.conventions import Reckoning
from convolab.analysis.conventions_by_class import observer
from convolab.analysis.formulas import ClosedForm, closed_form
from convolab.analysis.receptive_field.gradient import measure
from convolab.analysis.receptive_field.propagation import Field, field_of
from convolab.analysis.tracer import Call, NeedsValues, Trace, trace
from convolab.core.errors import need
from convolab.core.rng import own_global_generators

Network = nn.Module | Callable[[], nn.Module]  # the latter builds it
MEASURABLE = 5e11  # multiply-accumulates that measuring fields may take: about a minute


@dataclass(frozen=True)
class Layer:
    """One call of a layer: a module that calls no other, or a function between modules."""

    name: str  # the module's path; for a function, that of the module that calls it
    kind: str  # the module's class, or the function's name
    call: int  # 1 for the first call of this module; its parameters are counted with that
    output: tuple[int, ...]  # with the batch
    trainable: int
    frozen: int  # parameters that are not trained
    macs: int
    share: float  # of the network's multiply-accumulates
    forward_bytes: int  # of the output, 0 if it takes its input's place
    backward_bytes: int  # of what autograd keeps for the backward pass from here on
    field: Field | None  # None: this layer does not depend on the picture, or `unfollowed` says why it is not known
    unfollowed: str | None
    closed_form: ClosedForm | None  # for linear and convolutional layers
    operations: tuple[str, ...]  # of PyTorch, those that do more than move values

    @property
    def parameters(self) -> int:
        return self.trainable + self.frozen

    @property
    def flops(self) -> int:
        """Floating-point operations: a multiplication and an addition for each multiply-accumulate."""
        return 2 * self.macs


@dataclass(frozen=True)
class Account:
    """What a network costs and sees for inputs of one shape."""

    network: str
    input: tuple[int, ...]
    batch: int
    layers: tuple[Layer, ...]
    uncounted: dict[str, int]  # operations that compute without counting as multiply-accumulates, and how often
    unknown: dict[str, int]  # operations of which it is not known whether they multiply
    notes: tuple[str, ...]  # what a reader should know of this account
    disagreements: tuple[str, ...]  # of the count and the closed forms
    reckoning: Reckoning | None  # the total by another tool's convention

    @cached_property
    def macs(self) -> int:
        return sum(layer.macs for layer in self.layers)

    @property
    def flops(self) -> int:
        return 2 * self.macs

    @property
    def trainable(self) -> int:
        return sum(layer.trainable for layer in self.layers)

    @property
    def frozen(self) -> int:
        return sum(layer.frozen for layer in self.layers)

    @property
    def parameters(self) -> int:
        return self.trainable + self.frozen

    @property
    def forward_bytes(self) -> int:
        return sum(layer.forward_bytes for layer in self.layers)

    @property
    def backward_bytes(self) -> int:
        return sum(layer.backward_bytes for layer in self.layers)

    @property
    def checked(self) -> int:
        """The layers whose count was checked against the closed form."""
        return sum(layer.closed_form is not None for layer in self.layers)

    def values(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {
            "network": self.network,
            "input": list(self.input),
            "batch": self.batch,
            "totals": {
                "macs": self.macs,
                "flops": self.flops,
                "parameters": self.parameters,
                "trainable": self.trainable,
                "frozen": self.frozen,
                "forward_bytes": self.forward_bytes,
                "backward_bytes": self.backward_bytes,
            },
            "self_check": {"layers": self.checked, "disagreements": list(self.disagreements)},
            "uncounted": self.uncounted,
            "unknown": self.unknown,
            "notes": list(self.notes),
            "convention": self.reckoning.values() if self.reckoning else None,
            "layers": [layer_values(layer) for layer in self.layers],
        }


def account(
    network: Network,
    input_shape: Sequence[int],
    *,
    batch: int = 1,
    convention: str | None = None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Account:
    """What every layer of a network costs and sees for inputs of `input_shape`, [channels, height, width] or [n], no batch.

    The network may be given as a function that builds it: it is then built without weights. In evaluation mode; nothing is
    allocated, nothing computed, and the network stays as it was. Multiply-accumulates are those of convolutions, linear
    layers, matrix products and attention, no bias, norm or activation (docs/account.md explains each figure). `convention`
    adds the total by the rules of fvcore, torchinfo, thop, ptflops or timm. `on_note` hears when something takes long.

    Raises LabError if the input does not fit the network, naming the layer, what it got and what it wants.

    >>> course = account(nn.Conv1d(1, 10, 3, padding=1, bias=False), (1, 100))
    >>> course.macs, course.parameters, course.layers[0].field.size, course.layers[0].field.centre
    (3000, 30, (3,), (0.0,))
    """
    shape = tuple(input_shape)
    need(
        shape and all(isinstance(n, int) and n > 0 for n in shape) and batch > 0,
        f"the input shape {list(input_shape)} with a batch of {batch} is none: give positive whole numbers, such as 3x224x224",
    )
    network, notes = built(network)
    traced, watch = traced_with(network, shape, batch, convention, notes)
    fields = [field_of(call.sight) for call in traced.calls]
    if any(isinstance(field, str) for field in fields):
        fields, said = measured(network, traced, fields, shape, on_note)
        notes.append(said)
    layers = layers_of(traced, fields)
    if traced.unknown:
        notes.append(f"not known whether these multiply, so not counted: {', '.join(traced.unknown)}")
    return Account(
        network=type(network.module).__name__,
        input=shape,
        batch=batch,
        layers=layers,
        uncounted=dict(traced.uncounted),
        unknown=dict(traced.unknown),
        notes=tuple(notes),
        disagreements=tuple(said for call in traced.calls for said in disagreements(call)),
        reckoning=watch.reckoning(sum(layer.macs for layer in layers)) if watch else None,
    )


@dataclass(frozen=True)
class Built:
    """A network to trace, and how to get it with weights where they are needed."""

    module: nn.Module
    build: Callable[[], nn.Module] | None  # None: it came as it is

    def with_weights(self) -> nn.Module | None:
        """The network with values in its weights, if it can be had."""
        if not any(tensor.is_meta for tensor in (*self.module.parameters(), *self.module.buffers())):
            return self.module
        if self.build is None:
            return None
        with own_global_generators():
            return self.build()


def built(network: Network) -> tuple[Built, list[str]]:
    """The network, built without weights if it is given as a function; and what is to be said of that."""
    if isinstance(network, nn.Module):
        return Built(
            getattr(network, "_orig_mod", network), None
        ), []  # torch.compile wraps the network that was written
    try:
        with torch.device("meta"):
            return Built(network(), network), []
    except (RuntimeError, NotImplementedError) as error:
        if "meta" not in str(error):
            raise
    with own_global_generators():
        return Built(network(), network), ["the network was built with its weights, because its making looks at values"]


def traced_with(
    network: Built, shape: tuple[int, ...], batch: int, convention: str | None, notes: list[str]
) -> tuple[Trace, Any]:
    """The network's trace, and the convention's observer, which watched."""
    watch = observer(convention) if convention else None
    try:
        return trace(network.module, shape, batch=batch, observer=watch), watch
    except NeedsValues:
        if (weighty := network.with_weights()) is None:
            raise
        watch = observer(convention) if convention else None
        traced = trace(weighty, shape, batch=batch, observer=watch, real=True)
        notes.append("the network was run with values, because it looks at them while it runs")
        return traced, watch


def layers_of(traced: Trace, fields: Sequence[Field | str | None]) -> tuple[Layer, ...]:
    """The calls of a trace as layers, and behind them the modules that no call used."""
    total = sum(call.macs for call in traced.calls)
    times: Counter[int] = Counter()
    layers = []
    for call, field in zip(traced.calls, fields, strict=True):
        times[id(call.module)] += 1
        layers.append(
            Layer(
                name=call.name,
                kind=call.kind,
                call=times[id(call.module)] if call.module is not None else 1,
                output=call.output,
                trainable=call.trainable,
                frozen=call.frozen,
                macs=call.macs,
                share=call.macs / total if total else 0.0,
                forward_bytes=call.forward_bytes,
                backward_bytes=call.backward_bytes,
                field=field if isinstance(field, Field) else None,
                unfollowed=field if isinstance(field, str) else None,
                closed_form=form_of(call),
                operations=tuple(call.operations),
            )
        )
    for name, kind, trainable, frozen in traced.uncalled:
        layers.append(Layer(name, f"{kind} (not called)", 0, (), trainable, frozen, 0, 0.0, 0, 0, None, None, None, ()))
    return tuple(layers)


def form_of(call: Call) -> ClosedForm | None:
    return closed_form(call.module, call.inputs[0], call.output) if call.module is not None and call.inputs else None


def disagreements(call: Call) -> Iterator[str]:
    """Where the count and the closed form differ: a bug here, or a layer that does other than its attributes say."""
    if form := form_of(call):
        parameters = sum(p.numel() for p in call.module.parameters(recurse=False))
        if form.macs != call.macs:
            yield f"{call.name} ({call.kind}): {call.macs:,} MACs counted, {form.formula} = {form.macs:,} by its closed form"
        if form.parameters != parameters:
            yield f"{call.name} ({call.kind}): {parameters:,} parameters counted, {form.parameters:,} by its closed form"


def measured(
    network: Built,
    traced: Trace,
    fields: Sequence[Field | str | None],
    shape: tuple[int, ...],
    on_note: Callable[[str], None],
) -> tuple[list[Field | str | None], str]:
    """The fields that could not be followed, measured where that can be done; and what is to be said of it."""
    lost = [number for number, field in enumerate(fields) if isinstance(field, str)]
    reasons = ", ".join(dict.fromkeys(fields[number] for number in lost))
    said = f"the graph could not be followed past {reasons}: "
    fields, work = list(fields), sum(call.macs for call in traced.calls)
    weighty = network.with_weights() if work * distinct(traced, lost) <= MEASURABLE else None
    if weighty is None:
        return (
            fields,
            said
            + "the fields behind it are not known, as the network has no weights at hand or is too large to measure them",
        )
    on_note(f"measuring the receptive fields of {len(lost)} layers that could not be followed")
    found = measure(weighty, shape, traced, lost)
    for number, field in found.items():
        fields[number] = field
    return fields, said + "the fields behind it (~) are measured, by where the gradient of the middle cell is not zero"


def distinct(traced: Trace, numbers: Sequence[int]) -> int:
    """How many different sights are among those calls': an elementwise layer has that of the layer before."""
    return len({id(traced.calls[number].sight) for number in numbers})


def layer_values(layer: Layer) -> dict[str, Any]:
    """A layer as plain values."""
    field, form = layer.field, layer.closed_form
    return {
        "name": layer.name,
        "kind": layer.kind,
        "call": layer.call,
        "output": list(layer.output),
        "parameters": layer.parameters,
        "trainable": layer.trainable,
        "frozen": layer.frozen,
        "macs": layer.macs,
        "flops": layer.flops,
        "share": layer.share,
        "forward_bytes": layer.forward_bytes,
        "backward_bytes": layer.backward_bytes,
        "field": field
        and {
            "size": list(field.size),
            "stride": list(field.stride),
            "start": list(field.start),
            "centre": list(field.centre),
            "whole": list(field.whole),
            "measured": field.measured,
        },
        "unfollowed": layer.unfollowed,
        "closed_form": form and {"formula": form.formula, "macs": form.macs, "parameters": form.parameters},
        "operations": list(layer.operations),
    }
