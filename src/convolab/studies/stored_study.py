"""The study in a study's folder, as another version of convolab may have written it."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel

from convolab.core.errors import LabError, errors_name
from convolab.core.files import write_text
from convolab.core.types import Json
from convolab.studies.contrast import Contrast
from convolab.studies.metrics import RENAMED_KINDS
from convolab.studies.section import Section
from convolab.studies.study import RENAMED_STUDY_KEYS, Study
from convolab.training.first_edition import translate_first_edition
from convolab.training.parts import NAMED_PARTS
from convolab.training.recipe import Recipe, read_toml


def read_stored_study(path: Path | str) -> Study:
    """The study in a `study.toml` that convolab wrote; keys that this version does not know are left out.

    A file without a format number is the first edition's, whose words are translated. `Study.read` is for files that
    people write: it refuses both. Raises LabError if the file cannot be read, or has a later format.
    """
    return parse_stored_study(read_toml(path, "study"), path)


def parse_stored_study(values: Mapping[str, Json], source: Path | str) -> Study:
    """The study that the values of `stored_values` are. Raises LabError, naming their source, if they are none."""
    values = dict(values)
    is_first_edition = "format" not in values
    recipe = values.get("recipe", {})
    if is_first_edition and isinstance(recipe, Mapping):
        values["recipe"] = translate_first_edition(recipe)
    sections = values.get("sections")
    if isinstance(sections, Mapping):
        values["sections"] = {
            name: restore_section(section, is_first_edition) if isinstance(section, Mapping) else section
            for name, section in sections.items()
        }
    with errors_name(source):
        return Study.from_file_values(known_entries(values, Study), is_stored=True)


def write_stored_study(study: Study, path: Path) -> None:
    """Write the study that a folder's runs belong to, see `stored_values`."""
    write_text(path, stored_text(study))


def stored_text(study: Study) -> str:
    """What `write_stored_study` writes."""
    return tomli_w.dumps(stored_values(study))


def stored_values(study: Study) -> dict[str, Any]:
    """The study that a folder's runs belong to, so that reading it needs no code to find the runs.

    What a part of somebody's own or of a library takes by default is written out where the part is named.
    """
    values = {"format": study.format, **study.model_dump(mode="json", exclude_none=True, exclude_defaults=True)}
    with suppress(LabError):
        if Study.from_file_values(values, is_stored=True).recipes.keys() == study.recipes.keys():
            return values
    base = study.base_recipe
    for part in NAMED_PARTS:
        if "name" in study.recipe.get(part, {}):
            values["recipe"][part] = base.to_dict()[part]
    for name, section in study.sections.items():
        written = values["sections"][name]
        if section.overrides:
            written["overrides"] = with_defaults(section.overrides, base.parse_overrides(section.overrides))
        arms = {
            arm: with_defaults(overrides, base.parse_overrides(section.overrides, overrides))
            for arm, overrides in section.arm_overrides.items()
        }
        if arms != section.arm_overrides:
            written["arms"] = arms
            written.pop("grid", None)
    return values


def with_defaults(overrides: Mapping[str, Json], recipe: Recipe) -> dict[str, Json]:
    """Overrides with every key of the parts that they name, as the recipe has them."""
    full, sections = dict(overrides), recipe.to_dict()
    for part in NAMED_PARTS:
        if f"{part}.name" in overrides:
            full |= {f"{part}.{key}": value for key, value in sections[part].items()}
    return full


def restore_section(values: Mapping[str, Json], is_first_edition: bool) -> dict[str, Json]:
    """A section of a stored study in today's words."""
    section = translate_keys(values) if is_first_edition else dict(values)
    contrasts = section.get("contrasts")
    if isinstance(contrasts, list):
        section["contrasts"] = [restore_contrast(c, is_first_edition) for c in contrasts]
    if is_first_edition:
        arms, grid, metrics = section.get("arms"), section.get("grid"), section.get("metrics")
        if isinstance(overrides := section.get("overrides"), Mapping):
            section["overrides"] = translate_overrides(overrides)
        if isinstance(grid, Mapping) and grid and all(isinstance(values, list) for values in grid.values()):
            # As named arms, because the keys in the names of its arms stay those that the contrasts use.
            arms = Section.model_validate({"grid": grid}).arm_overrides
            del section["grid"]
        if isinstance(arms, Mapping):
            section["arms"] = {n: translate_overrides(a) if isinstance(a, Mapping) else a for n, a in arms.items()}
        if isinstance(metrics, list):
            section["metrics"] = [translate_metric(metric) for metric in metrics]
    return known_entries(section, Section)


def restore_contrast(values: Json, is_first_edition: bool) -> Json:
    """A contrast of a stored study in today's words."""
    if not isinstance(values, Mapping):
        return values
    contrast = translate_keys(values) if is_first_edition else dict(values)
    if is_first_edition and "metric" in contrast:
        contrast["metric"] = translate_metric(contrast["metric"])
    return known_entries(contrast, Contrast)


def translate_keys(values: Mapping[str, Json]) -> dict[str, Json]:
    return {RENAMED_STUDY_KEYS.get(key, key): value for key, value in values.items()}


def translate_overrides(overrides: Mapping[str, Json]) -> dict[str, Json]:
    """Overrides of a recipe of the first edition.

    >>> translate_overrides({"schedule.period": 3, "data.augment": ["flip", "colour"]})
    {'schedule.step_size': 3, 'data.augment': ['flip', 'color']}
    """
    translated: dict[str, Json] = {}
    for dotted_key, value in overrides.items():
        section, _, key = dotted_key.partition(".")
        for new_section, keys in translate_first_edition({section: {key: value}}).items():
            if isinstance(keys, Mapping):
                translated |= {f"{new_section}.{new_key}": new_value for new_key, new_value in keys.items()}
    return translated


def translate_metric(name: Json) -> Json:
    """A metric's name of today for one of the first edition.

    >>> translate_metric("epochs_until_train_accuracy:1")
    'epochs_to_train_accuracy:1'
    """
    for old, new in RENAMED_KINDS.items():
        if isinstance(name, str) and name.startswith(old):
            return name.replace(old, new, 1)
    return name


def known_entries(values: Mapping[str, Json], model: type[BaseModel]) -> dict[str, Json]:
    """The entries that a model has a field for."""
    return {key: value for key, value in values.items() if key in model.model_fields}
