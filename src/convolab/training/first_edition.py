"""What the first edition called the keys and values of a recipe: refused in a new recipe, translated in a stored one."""

from collections.abc import Mapping

from convolab.core.errors import require
from convolab.core.types import Json
from convolab.training.transforms import RENAMED_TRANSFORMS

RENAMED_KEYS = {  # the first edition's key -> today's
    "data.size": "data.image_size",
    "schedule.period": "schedule.step_size",
    "schedule.rise": "schedule.pct_start",
    "schedule.start": "schedule.div_factor",
    "schedule.end": "schedule.final_div_factor",
}
RENAMED_VALUES = {("metrics.train", "exact"): "eval_pass"}  # (key, the first edition's value) -> today's


def refuse_renamed(values: Mapping[str, Json]) -> None:
    """Raise LabError, with today's word, for a key or a value of the first edition."""
    for section, keys in values.items():
        for key, value in keys.items() if isinstance(keys, Mapping) else ():
            dotted_key = f"{section}.{key}"
            require(dotted_key not in RENAMED_KEYS, f"{dotted_key} is now called {RENAMED_KEYS.get(dotted_key)}")
            new = RENAMED_VALUES.get((dotted_key, value)) if isinstance(value, str) else None
            require(new is None, f"{dotted_key} = {value!r} is now called {new!r}")


def translate_first_edition(values: Mapping[str, Json]) -> dict[str, Json]:
    """The values of a recipe that the first edition stored, in today's words."""
    translated: dict[str, Json] = {}
    for section, keys in values.items():
        if not isinstance(keys, Mapping):
            translated[section] = keys
            continue
        new_keys = {}
        for key, value in keys.items():
            dotted_key = f"{section}.{key}"
            if isinstance(value, str):
                value = RENAMED_VALUES.get((dotted_key, value), value)
            if dotted_key == "data.augment" and isinstance(value, list):
                value = [rename_transform(entry) if isinstance(entry, str) else entry for entry in value]
            new_keys[RENAMED_KEYS.get(dotted_key, dotted_key).partition(".")[2]] = value
        translated[section] = new_keys
    return translated


def rename_transform(entry: str) -> str:
    """An entry of `data.augment` of the first edition in today's words."""
    name, colon, strength = entry.partition(":")
    return RENAMED_TRANSFORMS.get(name, name) + colon + strength
