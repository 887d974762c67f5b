"""The one list of saliency methods. It does not import torch, so the command line's help can show it at once."""

import warnings
from collections.abc import Callable, Sequence
from typing import Literal

from convolab.core.errors import LabError, require, suggest

METHOD_NAMES = ("gradient", "smoothgrad", "integrated_gradients", "cam", "gradcam", "occlusion", "guided")
DEFAULT_METHODS = ("gradient", "integrated_gradients", "gradcam")
AUTO: Literal["auto"] = "auto"
SampleCount = int | Literal["auto"]  # "auto": as many as it takes until the map no longer changes
MAX_PASSES = 100_000
MAX_STEPS = 2_000  # the nodes of more take minutes to compute
RENAMED_METHODS = {"integrated": "integrated_gradients"}


def warn_renamed(hint: str) -> None:
    warnings.warn(hint, FutureWarning, stacklevel=4)


def parse_methods(methods: str | Sequence[str], on_hint: Callable[[str], None] = warn_renamed) -> tuple[str, ...]:
    """The names of methods, each once, in the order they were asked for.

    Args:
        methods: names with commas between them, or a list of names.
        on_hint: called with one line that gives the new name of a renamed method.

    Raises LabError for an unknown name, with the nearest one, or for none at all.

    >>> parse_methods("gradcam, gradient")
    ('gradcam', 'gradient')
    """
    words = methods.split(",") if isinstance(methods, str) else methods
    for word in words:
        require(isinstance(word, str), f"{word!r} is not the name of a method: choose from {', '.join(METHOD_NAMES)}")
    names = [word.strip() for word in words if word.strip()]
    require(names, f"no method given: choose from {', '.join(METHOD_NAMES)}")
    for name in dict.fromkeys(name for name in names if name in RENAMED_METHODS):
        on_hint(f"the method {name} is now called {RENAMED_METHODS[name]}")
    names = [RENAMED_METHODS.get(name, name) for name in names]
    for name in names:
        if name not in METHOD_NAMES:
            raise LabError(f"unknown method '{name}': {suggest(name, METHOD_NAMES)}")
    return tuple(dict.fromkeys(names))


def parse_sample_count(samples: str | int | None, methods: Sequence[str]) -> SampleCount | None:
    """How many samples or steps the maps are means of: a whole number above 0, "auto", or None for the defaults.

    Raises LabError for anything else, for more than a method takes, and where no method counts any.

    >>> parse_sample_count("auto", ["smoothgrad"]), parse_sample_count("100", ["gradient", "integrated_gradients"])
    ('auto', 100)
    """
    if samples is None:
        return None
    limits = {"smoothgrad": MAX_PASSES, "integrated_gradients": MAX_STEPS}
    counted = [name for name in methods if name in limits]
    require(counted, f"{' and '.join(limits)} take samples: none of them is among the methods")
    if samples == AUTO:
        return AUTO
    limit = min(limits[name] for name in counted)
    text = str(samples).strip()
    require(
        text.isdecimal() and len(text) < 10 and 1 <= int(text) <= limit,  # Python reads 4,300 digits at most
        f"{text[:20]} samples of {' and '.join(counted)}: give a whole number from 1 to {limit:,}, or auto",
    )
    return int(text)
