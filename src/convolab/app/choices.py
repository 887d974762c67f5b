"""What the page's controls offer: datasets, networks with their options, optimizers, schedules."""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from convolab.app.forms import toml_text
from convolab.core.environment import data_root
from convolab.core.files import user_path
from convolab.core.types import Json
from convolab.inspection.explain.method_names import METHOD_NAMES

EXPLAIN_METHODS = METHOD_NAMES
RECIPE_CHOICES = {
    "optimizer": ("sgd", "adam", "adamw", "muon"),
    "schedule": ("constant", "step", "cosine", "linear", "one_cycle"),
}


def dataset_choices(own: Sequence[str], data_dir: Path | None) -> list[dict[str, Json]]:
    """The published datasets and those that `convolab app --data` named, and whether they are on this disk."""
    from convolab.data.catalog import DATASETS, default_augmentation

    root = user_path(data_dir or data_root())
    published = [
        {
            "name": info.name,
            "about": f"{info.description}; {info.num_train:,} images to train, {info.num_test:,} to test",
            "augment": list(info.default_augment),
            "is_here": any(not info.missing_files(folder) for folder in (root, root / info.folder)),
            "download_mb": info.download_size_mb,
        }
        for info in DATASETS.values()
    ]
    named = [
        {"name": name, "about": "your own images", "augment": list(default_augmentation(name)), "is_here": True}
        for name in own
    ]
    return [*named, *published]


def network_choices(own: Sequence[str]) -> list[dict[str, Json]]:
    """The registered networks and those that `convolab app --net` named, each with its options."""
    from convolab.models.registry import NETWORKS, factory_signature

    return [
        {
            "name": name,
            "about": first_line(NETWORKS.get(name)),
            "options": [
                option_control(parameter)
                for parameter in list(factory_signature(name).parameters.values())[2:]
                if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
            ],
        }
        for name in (*own, *NETWORKS)
    ]


def first_line(thing: object) -> str:
    return next(iter((inspect.getdoc(thing) or "").splitlines()), "") if thing else "your own network"


def option_control(parameter: inspect.Parameter) -> dict[str, Json]:
    """An option's name, its default as a recipe writes it, and the values to choose from if there are few.

    >>> option_control(inspect.Parameter("bias", inspect.Parameter.KEYWORD_ONLY, default=True, annotation=bool))
    {'name': 'bias', 'default': 'true', 'values': ['true', 'false']}
    """
    return {
        "name": parameter.name,
        "default": "" if parameter.default in (parameter.empty, None) else option_text(parameter.default),
        "values": [option_text(value) for value in few_values(parameter.annotation)],
    }


def few_values(kind: Any) -> tuple[Any, ...]:  # noqa: ANN401 (a type, whatever it is)
    """The values of a type that has a few: a truth value, or a choice of words."""
    if get_origin(kind) is Annotated:
        return few_values(get_args(kind)[0])
    if kind is bool:
        return (True, False)
    return get_args(kind) if get_origin(kind) is Literal else ()


def option_text(value: object) -> str:
    """A value as `--set` takes it; of one that a recipe cannot hold, as Python shows it.

    >>> option_text(True), option_text((16, 32)), option_text("relu"), option_text(0.5), option_text(["conv"])
    ('true', '[16, 32]', 'relu', '0.5', '["conv"]')
    """
    try:
        return str(value) if isinstance(value, str | dict) else toml_text(value)
    except TypeError:
        return str(value)
