"""A laboratory for convolutional networks: train, compare, explain, fool and find, with evidence, on a laptop.

>>> import convolab
>>> recipe = convolab.Recipe.parse({"training": {"epochs": 2}})   # the rest as the default recipe has it
>>> pictures = convolab.load("digits")
>>> net = convolab.build("shallow_net", pictures.train.shape, 10)
>>> [epoch.epoch for epoch in convolab.fit(net, pictures.train, training=recipe.training)]
[1, 2]
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convolab.core.errors import LabError
    from convolab.data.catalog import load
    from convolab.data.dataset import ImageSet
    from convolab.data.image_io import open_photo
    from convolab.inspection.adversarial.fool import fool
    from convolab.inspection.explain.explain import explain
    from convolab.inspection.localization.locate import locate
    from convolab.inspection.result import Finding
    from convolab.models.classifier import PixelNet
    from convolab.models.pretrained import pretrained
    from convolab.models.zoo import build, register
    from convolab.studies.coursework import coursework
    from convolab.studies.runner import conduct
    from convolab.studies.study import Study
    from convolab.training.recipe import Recipe, Training
    from convolab.training.run import Run, train
    from convolab.training.trainer import evaluate, fit

# Loaded when first asked for, because torch takes over a second to import.
_HOMES = {
    "LabError": "core.errors",
    "ImageSet": "data.dataset",
    "load": "data.catalog",
    "open_photo": "data.image_io",
    "Finding": "inspection.result",
    "explain": "inspection.explain.explain",
    "fool": "inspection.adversarial.fool",
    "locate": "inspection.localization.locate",
    "PixelNet": "models.classifier",
    "pretrained": "models.pretrained",
    "build": "models.zoo",
    "register": "models.zoo",
    "evaluate": "training.trainer",
    "fit": "training.trainer",
    "Study": "studies.study",
    "conduct": "studies.runner",
    "coursework": "studies.coursework",
    "Recipe": "training.recipe",
    "Training": "training.recipe",
    "Run": "training.run",
    "train": "training.run",
}
__all__ = [
    "Finding",
    "ImageSet",
    "LabError",
    "PixelNet",
    "Recipe",
    "Run",
    "Study",
    "Training",
    "build",
    "conduct",
    "coursework",
    "evaluate",
    "explain",
    "fit",
    "fool",
    "load",
    "locate",
    "open_photo",
    "pretrained",
    "register",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"convolab has no {name}: it has {', '.join(__all__)}")
    return getattr(importlib.import_module(f"convolab.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
