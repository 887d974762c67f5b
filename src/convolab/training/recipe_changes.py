"""The keys in which a recipe is not the default one."""

import json
from contextlib import suppress

from pydantic import BaseModel

from convolab.core.errors import LabError
from convolab.core.types import Json
from convolab.data.catalog import default_augmentation
from convolab.models.registry import NETWORKS, resolve_options
from convolab.training.parts import OtherPart
from convolab.training.recipe import DEFAULT_NAMES, Recipe, flat_recipe, flatten_keys

# Of a run's recipe: what a table of runs has columns for, and what follows from another key.
NO_CHANGES = ("model.name", "model.weights_sha256", "data.name", "training.epochs")


def changed_keys(recipe: Recipe) -> dict[str, Json]:
    """The keys in which a recipe differs from the default one, but for its network, its dataset and its epochs.

    The options of a network, an optimizer and so on are compared with its own defaults. No code of a person's own is run to
    find them: all options of such a part count as changed.

    >>> changed_keys(Recipe().with_overrides({"optimizer.name": "adam", "training.seed": 3, "training.epochs": 2}))
    {'optimizer.name': 'adam', 'training.seed': 3}
    """
    sections = Recipe().to_dict()
    for section in DEFAULT_NAMES:
        usual = sections.get(section, {}).get("name")
        sections[section] = {**default_options(getattr(recipe, section)), "name": usual}
    sections["model"] = network_options_by_default(recipe.model.name)
    with suppress(LabError):  # of a dataset that is not known here
        sections["data"]["augment"] = list(default_augmentation(recipe.data.name))
    defaults = flatten_keys(sections)
    # A part's name stands before its options: a table may have no place for all of them.
    flat = sorted(flat_recipe(recipe).items(), key=lambda entry: not entry[0].endswith(".name"))
    flat.sort(key=lambda entry: list(Recipe.model_fields).index(entry[0].partition(".")[0]))
    return {key: value for key, value in flat if key not in NO_CHANGES and value != defaults.get(key)}


def default_options(part: BaseModel | None) -> dict[str, Json]:
    """The options of one of convolab's parts of a recipe with their defaults; none of another's."""
    if part is None or isinstance(part, OtherPart):
        return {}
    with suppress(LabError):  # one that has no default for an option
        return type(part)().model_dump(mode="json", exclude_none=True)
    return {}


def network_options_by_default(name: str) -> dict[str, Json]:
    """The options of a registered network with their defaults, as a recipe has them; none of another."""
    with suppress(LabError):  # one that has no default for an option
        return json.loads(json.dumps(resolve_options(name, {}))) if name in NETWORKS else {}
    return {}
