"""A laboratory for convolutional networks: train, compare, explain, fool and find, with evidence, on a laptop.

>>> import convolab
>>> recipe = convolab.Recipe.from_dict({"training": {"epochs": 2}})   # all else from the default recipe
>>> digits = convolab.load("digits")
>>> net = convolab.build("shallow_net", digits.train.shape, 10)
>>> [epoch.epoch for epoch in convolab.fit(net, digits.train, training=recipe.training)]
[1, 2]
"""

import functools
import importlib
import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str
    from convolab.api import explain, fool, locate, receptive_field, summary, train
    from convolab.api_studies import compare, power, run_study
    from convolab.core.errors import LabError
    from convolab.data.catalog import load
    from convolab.data.dataset import ImageDataset
    from convolab.data.image_io import read_image
    from convolab.inspection.result import Finding
    from convolab.models.classifier import ImageClassifier
    from convolab.models.pretrained import pretrained
    from convolab.models.registry import build, register
    from convolab.studies.coursework import coursework
    from convolab.studies.study import Study
    from convolab.training.evaluation import evaluate
    from convolab.training.fit import fit
    from convolab.training.recipe import Recipe, Training
    from convolab.training.run import Run

# Loaded when first used, because torch takes over a second to import.
_LAZY_IMPORTS = {
    "summary": "api",
    "LabError": "core.errors",
    "ImageDataset": "data.dataset",
    "load": "data.catalog",
    "read_image": "data.image_io",
    "Finding": "inspection.result",
    "explain": "api",
    "fool": "api",
    "locate": "api",
    "receptive_field": "api",
    "compare": "api_studies",
    "power": "api_studies",
    "ImageClassifier": "models.classifier",
    "pretrained": "models.pretrained",
    "build": "models.registry",
    "register": "models.registry",
    "evaluate": "training.evaluation",
    "fit": "training.fit",
    "Study": "studies.study",
    "run_study": "api_studies",
    "coursework": "studies.coursework",
    "Recipe": "training.recipe",
    "Training": "training.recipe",
    "Run": "training.run",
    "train": "api",
}
__all__ = [
    "Finding",
    "ImageClassifier",
    "ImageDataset",
    "LabError",
    "Recipe",
    "Run",
    "Study",
    "Training",
    "build",
    "compare",
    "coursework",
    "evaluate",
    "explain",
    "fit",
    "fool",
    "load",
    "locate",
    "power",
    "pretrained",
    "read_image",
    "receptive_field",
    "register",
    "run_study",
    "summary",
    "train",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("convolab")
    if name not in _LAZY_IMPORTS:
        raise unknown_name(name)
    return public_object(name)


def unknown_name(name: str) -> AttributeError:
    """The error about a name that this package does not have, with the nearest that it has."""
    if name.startswith("_"):  # what tools look for
        return AttributeError(f"module 'convolab' has no attribute '{name}'")
    from convolab.core.calls import UnknownAttribute
    from convolab.core.errors import suggest

    return UnknownAttribute(f"convolab has no attribute '{name}': {suggest(name, __all__)}")


@functools.cache
def public_object(name: str) -> object:
    """The object of a public name; a function answers wrong arguments in one line."""
    found = getattr(importlib.import_module(f"convolab.{_LAZY_IMPORTS[name]}"), name)
    if not inspect.isfunction(found):
        return found
    from convolab.core.calls import one_line_call

    function = one_line_call(found)
    function.__module__ = __name__  # where other processes, which get it by its name, find the same
    return function


def __dir__() -> list[str]:
    return __all__
