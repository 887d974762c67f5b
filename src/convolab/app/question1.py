"""What the tabs Slide and Count make of question 1: two signals that slide, and the layers f and g of 1(c)."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from convolab.app.same_as import SameAs, command_line, option_words, python_call
from convolab.core.errors import require
from convolab.core.escape import escape_line

if TYPE_CHECKING:
    from convolab.theory.layers import LayerCost
    from convolab.theory.sliding import SlidingCorrelation

SHOWN_SAMPLES = (4, 12)  # of a signal whose samples a person drags
MAX_SIZE = 1_000_000  # of a layer of 1(c), whose weights are never made


def whole_number(text: str, name: str, low: int, high: int) -> int:
    """A number as a person typed it. Raises LabError, naming it, for what is none or not between two others.

    >>> whole_number(" 12", "n", 4, 20)
    12
    """
    text = text.strip()
    is_number = text.isascii() and text.isdecimal() and len(text) < 10 and low <= int(text) <= high
    require(is_number, f"{name} = {escape_line(text, 40)}: give a whole number from {low:,} to {high:,}")
    return int(text)


@dataclass(frozen=True)
class SlideForm:
    """The controls of two signals that slide: text as a person typed it. Raises LabError for what cannot be read."""

    x: str
    y: str
    padding: str
    stride: str
    shift: str

    @property
    def signals(self) -> tuple[list[float], list[float]]:
        from convolab.theory.sliding import parse_samples

        low, high = SHOWN_SAMPLES
        x, y = (parse_samples(text, name) for text, name in ((self.x, "x"), (self.y, "y")))
        for name, signal in (("x", x), ("y", y)):
            require(low <= len(signal) <= high, f"{name} has {len(signal)} samples: give {low} to {high}")
        return x, y

    @property
    def shift_samples(self) -> int:
        return whole_number(self.shift, "the shift", 0, SHOWN_SAMPLES[1])

    def sliding(self) -> "SlidingCorrelation":
        """The library's own."""
        from convolab.theory.sliding import slide_correlation

        x, y = self.signals
        stride = whole_number(self.stride, "the stride", 1, SHOWN_SAMPLES[1])
        return slide_correlation(x, y, padding=self.padding, stride=stride)

    def same_as(self) -> SameAs:
        """The same as a command and as Python."""
        sliding, shift = self.sliding(), self.shift_samples
        texts = [",".join(map(python_sample, text.split(","))) for text in (self.x, self.y)]
        padding = None if sliding.padding == "circular" else sliding.padding
        stride = None if sliding.stride == 1 else sliding.stride
        options = {"padding": padding, "stride": stride, "shift": None if shift == 1 else shift}
        signals = [f"--{name}={text}" for name, text in zip("xy", texts, strict=True)]
        keywords = {"padding": padding, "stride": stride}
        call = python_call("slide_correlation", keywords=keywords).removeprefix("slide_correlation(")
        lists = ", ".join(f"[{text.replace(',', ', ')}]" for text in texts)
        python = (
            "from convolab.theory.sliding import slide_correlation\n\n"
            f"sliding = slide_correlation({lists}{', ' if len(call) > 1 else ''}{call}\n"
            f"print(sliding.z, sliding.jacobian_x, sliding.jacobian_y, sliding.measure_shift({shift}))"
        )
        return SameAs(command_line(option_words("correlate", *signals, options=options)), python)


def python_sample(text: str) -> str:
    """A sample that `parse_samples` reads, as Python writes it: fractions stay.

    >>> python_sample("-02/3"), python_sample("+.50"), python_sample("2."), python_sample("0.00001")
    ('-2/3', '0.5', '2', '0.00001')
    """
    numerator, slash, denominator = text.strip().partition("/")
    if slash:
        return f"{int(numerator)}/{int(denominator)}"
    number = float(numerator)
    return str(int(number)) if number.is_integer() else f"{Decimal(repr(number)):f}"


def course_layer_costs(values: Callable[[str, str], str]) -> dict[str, object]:
    """The costs of 1(c)'s f and g, counted by the library on the layers themselves, and the same as command and Python.

    `values` gives a control's text by its name and default.
    """
    from convolab.theory.layers import course_layers, layer_cost

    names = {"samples": "100", "kernel_size": "3", "maps": "10"}
    samples, kernel_size, maps = (
        whole_number(values(n, d), n.replace("_", " "), 1, MAX_SIZE) for n, d in names.items()
    )
    require(kernel_size <= samples, f"kernel size {kernel_size} is longer than the signal: give at most {samples}")
    f, g = course_layers(samples, maps, kernel_size)
    expressions = [
        f"Linear({f.in_features}, {f.out_features}, bias=False)",
        f"Conv1d(1, {maps}, {kernel_size}, padding={kernel_size // 2}, bias=False)",
    ]
    costs = {name: describe_cost(layer_cost(layer, samples)) for name, layer in (("f", f), ("g", g))}
    command = command_line(option_words("summary", options={"layer": expressions, "input": samples}))
    python = (
        "import convolab\nfrom torch import nn\n\n"
        f"f = convolab.summary(lambda: nn.{expressions[0]}, ({samples},))\n"
        f"g = convolab.summary(lambda: nn.{expressions[1]}, (1, {samples}))\n"
        "print(f.num_parameters, f.macs, g.num_parameters, g.macs)"
    )
    return {"layers": costs, "expressions": expressions, **SameAs(command, python).to_dict()}


def describe_cost(cost: "LayerCost") -> dict[str, int]:
    return {"outputs": cost.num_outputs, "parameters": cost.num_parameters, "macs": cost.macs, "flops": cost.flops}
