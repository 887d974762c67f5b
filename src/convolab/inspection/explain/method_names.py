"""The one list of saliency methods. It does not import torch, so the command line's help can show it at once."""

import warnings
from collections.abc import Callable, Sequence

from convolab.core.errors import LabError, require, suggest

METHOD_NAMES = ("gradient", "smoothgrad", "integrated_gradients", "cam", "gradcam", "occlusion", "guided")
DEFAULT_METHODS = ("gradient", "integrated_gradients", "gradcam")
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
    names = [word.strip() for word in words if word.strip()]
    require(names, f"no method given: choose from {', '.join(METHOD_NAMES)}")
    for name in dict.fromkeys(name for name in names if name in RENAMED_METHODS):
        on_hint(f"the method {name} is now called {RENAMED_METHODS[name]}")
    names = [RENAMED_METHODS.get(name, name) for name in names]
    for name in names:
        if name not in METHOD_NAMES:
            raise LabError(f"unknown method '{name}': {suggest(name, METHOD_NAMES)}")
    return tuple(dict.fromkeys(names))
