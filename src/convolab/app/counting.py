"""What the tab Count shows of a network: its layers as plain values, stages of long networks, and a sample image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from convolab.app.choices import network_choices
from convolab.app.folders import MAX_LISTED, RunsFolder
from convolab.app.question1 import whole_number
from convolab.app.same_as import SameAs, command_line, option_words, python_call
from convolab.core.errors import require
from convolab.core.escape import escape_line
from convolab.core.types import Json
from convolab.data.png import png_bytes

if TYPE_CHECKING:
    from convolab.analysis.summary import LayerSummary, ModelSummary

BUNDLED = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
LIBRARIES = ("timm/", "torchvision/")
RUN = "run/"  # how the name of a network begins that is a run's
REGISTERED_INPUT = "3x32x32"  # of a network that is built for any image size
MAX_LAYERS = 4000  # that are drawn
MAX_STAGES = 24  # boxes of a drawing, when layers are put together
LONG = 40  # layers from which on they are
MAX_FOUND = 30  # names that are offered for a part of one
MAX_IMAGE_SIDE = 512  # pixels, of a sample that is drawn
FAMILIES = {  # the color of a layer: the first word that its kind holds
    "convolution": ("conv",),
    "linear": ("linear",),
    "norm": ("norm", "frn"),
    "pooling": ("pool",),
    "activation": ("elu", "silu", "swish", "sigmoid", "tanh", "softmax", "mish"),
    "product": ("attention", "matmul", "bmm", "einsum", "baddbmm", "addmm"),
}


@dataclass(frozen=True)
class CountForm:
    """The controls of a summary: text as a person typed it; what is empty is left to the network."""

    net: str
    input: str = ""
    classes: str = ""
    options: Mapping[str, str] = field(default_factory=dict)  # of the network

    @classmethod
    def parse(cls, values: Mapping[str, Any], own: Sequence[str]) -> "CountForm":
        """The form with the controls' values. Raises LabError for a network that the page does not offer."""
        from convolab.models.registry import NETWORKS
        from convolab.models.resolve import NAME_ALIASES

        texts = {name: value.strip() for name, value in values.items() if isinstance(value, str) and len(value) <= 2000}
        require(len(texts) == len(values) <= 60, "a summary has 60 controls at most, each a text")
        prefix = "option."
        options = {name.removeprefix(prefix): text for name, text in texts.items() if name.startswith(prefix) and text}
        net = texts.get("net") or "simple_convnet"
        library, _, word = net.partition("/")
        is_library = f"{library}/" in LIBRARIES and word.replace("_", "").replace(".", "").isalnum()  # and no path
        is_offered = is_library or net.startswith(RUN) or net in (*NETWORKS, *NAME_ALIASES, *own)
        shown = escape_line(net, 80)
        require(
            is_offered,
            f"'{shown}' is none of the list: choose one, or write timm/NAME or torchvision/NAME; a network of your own is "
            f"offered after convolab app --net file.py:Name",
        )
        return cls(net, texts.get("input", ""), texts.get("classes", ""), options)

    @property
    def is_built(self) -> bool:
        """Whether the network is built for any shape and number of classes: a registered one, or a person's own."""
        return not self.net.startswith((*LIBRARIES, RUN, "efficientnet_lite"))

    @property
    def shown_input(self) -> str | None:
        return self.input or (REGISTERED_INPUT if self.is_built else None)

    @property
    def num_classes(self) -> int | None:
        return whole_number(self.classes, "classes", 1, 1_000_000) if self.classes and not self.is_run else None

    @property
    def is_run(self) -> bool:
        return self.net.startswith(RUN)

    @property
    def model(self) -> dict[str, Json]:
        from convolab.training.recipe import parse_value

        return {name: parse_value(text) for name, text in self.options.items()} if self.is_built else {}

    def summary(self, runs: RunsFolder) -> "ModelSummary":
        """The library's own. Raises LabError for a shape or an option that does not fit, or a run that is not there."""
        import convolab

        network = runs.run(self.net.removeprefix(RUN)) if self.is_run else self.net
        return convolab.summary(network, self.shown_input, classes=self.num_classes, model=self.model)

    def same_as(self, runs: RunsFolder) -> SameAs:
        """The same as a command and as Python."""
        from convolab.app.forms import toml_text

        name = str(runs.path(self.net.removeprefix(RUN))) if self.is_run else self.net
        settings = [f"model.{option}={toml_text(value)}" for option, value in self.model.items()]
        words = option_words(
            "summary", name, options={"input": self.shown_input, "classes": self.num_classes, "set": settings}
        )
        arguments = [name, *([self.shown_input] if self.shown_input else [])]
        keywords = {"classes": self.num_classes, "model": self.model or None}
        call = python_call("convolab.summary", *arguments, keywords=keywords)
        return SameAs(
            command_line(words), f"import convolab\n\nsummary = {call}\nprint(summary.num_parameters, summary.macs)"
        )


def offered_networks(own: Sequence[str], runs: RunsFolder) -> dict[str, Json]:
    """What the control offers."""
    from convolab.data.image_io import SAMPLE_IMAGES

    latest = runs.latest()
    return {
        "built": network_choices(own),
        "bundled": list(BUNDLED),
        "runs": [f"{RUN}{name}" for name in latest[:MAX_LISTED]],
        "left_out": len(latest[MAX_LISTED:]),
        "images": list(SAMPLE_IMAGES),
    }


@cache
def library_names() -> tuple[str, ...]:
    """All networks of timm and torchvision, as far as these are installed."""
    import importlib.util

    names = []
    if importlib.util.find_spec("timm"):
        import timm

        names += [f"timm/{name}" for name in timm.list_models()]
    if importlib.util.find_spec("torchvision"):
        from torchvision.models import list_models

        names += [f"torchvision/{name}" for name in list_models() if "/" not in name]
    return tuple(names)


def find_names(part: str) -> list[str]:
    """Names of the libraries that hold a text, those that begin with it first."""
    wanted = part.strip().lower()
    found = [name for name in library_names() if wanted in name]
    return sorted(
        found, key=lambda name: (not name.partition("/")[2].startswith(wanted.partition("/")[2] or wanted), len(name))
    )[:MAX_FOUND]


def describe_network(summary: "ModelSummary") -> dict[str, Json]:
    """A summary for the page."""
    layers = summary.layers[:MAX_LAYERS]
    return {
        "network": summary.network,
        "input": list(summary.input_shape),
        "parameters": summary.num_parameters,
        "trainable": summary.num_trainable,
        "macs": summary.macs,
        "checked": summary.num_checked,
        "mismatches": list(summary.mismatches),
        "notes": [
            *summary.notes,
            *([f"the first {MAX_LAYERS:,} layers are shown"] if len(layers) < len(summary.layers) else []),
        ],
        "layers": [describe_layer(layer) for layer in layers],
        "stages": [describe_stage(stage, layers) for stage in layer_stages([layer.name for layer in layers])],
    }


def describe_layer(layer: "LayerSummary") -> dict[str, Json]:
    form = layer.closed_form
    return {
        "name": layer.name + (f" (call {layer.call_index})" if layer.call_index > 1 else ""),
        "kind": layer.kind,
        "family": layer_family(layer.kind, layer.macs),
        "output": list(layer.output_shape[1:]),
        "parameters": layer.num_parameters,
        "macs": layer.macs,
        "share": layer.macs_fraction,
        "parameter_formula": form.parameter_formula if form else "",
        "mac_formula": form.formula if form else "",
        "field": layer.to_dict()["receptive_field"],
        "field_unknown": layer.rf_unknown_reason,
    }


def layer_family(kind: str, macs: int) -> str:
    """What decides a layer's color.

    >>> layer_family("Conv2d", 9), layer_family("relu", 0), layer_family("BatchNormAct2d", 0), layer_family("add", 0)
    ('convolution', 'activation', 'norm', 'other')
    """
    kind = kind.lower()
    for family, words in FAMILIES.items():
        if any(word in kind for word in words):
            return family
    return "product" if macs else "other"


def describe_stage(stage: "LayerStage", layers: Sequence["LayerSummary"]) -> dict[str, Json]:
    """A stage with what its layers cost together; its color is that of the one that costs most."""
    members = layers[stage.begin : stage.end]
    main = max(members, key=lambda layer: (layer.macs, layer.num_parameters))
    return {
        "name": stage.name,
        "from": stage.begin,
        "to": stage.end,
        "family": layer_family(main.kind, main.macs),
        "parameters": sum(layer.num_parameters for layer in members),
        "macs": sum(layer.macs for layer in members),
        "share": sum(layer.macs_fraction for layer in members),
    }


@dataclass
class LayerStage:
    """Layers that follow each other and have a beginning of their names in common."""

    name: str
    begin: int
    end: int  # the first one behind it


def layer_stages(names: Sequence[str]) -> list[LayerStage]:
    """The stages of a long network, at most as many as are easy to see; none of a short one.

    >>> layer_stages(["a.0", "a.1"])
    []
    >>> layer_stages(["stem"] + ["a.0.conv"] * 30 + ["b.0.conv"] * 30)[1]
    LayerStage(name='a.0.conv', begin=1, end=31)
    """
    if len(names) <= LONG:
        return []
    stages: list[LayerStage] = []
    for depth in range(6, 0, -1):
        stages = []
        for index, name in enumerate(names):
            stage = ".".join(name.split(".")[:depth])
            if not stages or stages[-1].name != stage:
                stages.append(LayerStage(stage, index, index))
            stages[-1].end = index + 1
        if len(stages) <= MAX_STAGES:
            break
    return stages


def sample_png(name: str, height: int, width: int) -> bytes:
    """A sample image as a network of that input size sees it, as PNG; larger ones than a screen needs are made smaller."""
    from convolab.data.image_io import SAMPLE_IMAGES, read_image, resize_and_center_crop

    require(
        name in SAMPLE_IMAGES,
        f"there is no sample image '{escape_line(name, 40)}': choose one of {', '.join(SAMPLE_IMAGES)}",
    )
    scale = min(1.0, MAX_IMAGE_SIDE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return png_bytes(resize_and_center_crop(read_image(name), size, channels=3))
