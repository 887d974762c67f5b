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
    from convolab.ground.errors import LabError
    from convolab.images.imageset import ImageSet
    from convolab.images.photo import open_photo
    from convolab.images.sources import load
    from convolab.lenses.explain import explain
    from convolab.lenses.finding import Finding
    from convolab.lenses.fool import fool
    from convolab.lenses.localise import locate
    from convolab.nets.pixelnet import PixelNet
    from convolab.nets.pretrained import pretrained
    from convolab.nets.zoo import build, register
    from convolab.studies.conduct import conduct
    from convolab.studies.coursework import coursework
    from convolab.studies.study import Study
    from convolab.training.loop import evaluate, fit
    from convolab.training.recipe import Recipe, Training
    from convolab.training.run import Run, train

# Loaded when first asked for, because torch takes over a second to import.
_HOMES = {
    "LabError": "ground.errors",
    "ImageSet": "images.imageset",
    "load": "images.sources",
    "open_photo": "images.photo",
    "Finding": "lenses.finding",
    "explain": "lenses.explain",
    "fool": "lenses.fool",
    "locate": "lenses.localise",
    "PixelNet": "nets.pixelnet",
    "pretrained": "nets.pretrained",
    "build": "nets.zoo",
    "register": "nets.zoo",
    "evaluate": "training.loop",
    "fit": "training.loop",
    "Study": "studies.study",
    "conduct": "studies.conduct",
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
