"""Everything that decides a result, as one frozen, validated value that reads and writes TOML."""

import hashlib
import json
import re
import reprlib
import tomllib
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import tomli_w
from pydantic import (
    ValidationError,
)

from convolab.core.display import Displayable
from convolab.core.errors import LabError, errors_name, require, suggest
from convolab.core.files import require_shallow, write_text
from convolab.core.plain_words import plain_problem
from convolab.core.types import (
    STORED,
    Frozen,
    Json,
    python_values,
)
from convolab.models import registry
from convolab.models.own_code import is_own_code
from convolab.models.registry import trust_named
from convolab.training.first_edition import refuse_renamed
from convolab.training.losses import LOSS_FUNCTIONS, Loss
from convolab.training.lr_schedule import Schedule, StepLR
from convolab.training.optim import SGD, Optimizer
from convolab.training.own_metric import ValidationMetric
from convolab.training.parts import NAMED_PARTS, own_transform_names, part_names
from convolab.training.sampling import SAMPLERS, Sampling
from convolab.training.sections import Data, Metrics, Model, Training
from convolab.training.torch_optim import OPTIMIZERS
from convolab.training.torch_schedule import SCHEDULES, WARMUP_FROM_ZERO

FORMAT = 1  # of every file that convolab writes and reads again; the first edition's files have no number
MAX_TOML_BYTES = 1_000_000
MAX_VALUE_LENGTH = 10_000
DEFAULT_NAMES = {"optimizer": "sgd", "schedule": "step", "loss": "cross_entropy", "sampling": "shuffled"}
FOREIGN_PARTS = {kind.section: kind for kind in (OPTIMIZERS, SCHEDULES, LOSS_FUNCTIONS, SAMPLERS)}
ALL_BUT_THE_LAST = "all but the last layer"  # of model.freeze


class Recipe(Frozen, Displayable):
    """One recipe decides one result.

    Attributes:
        data: the dataset, and what is done to its images.
        model: the network's name and its options.
        optimizer: `SGD`, `Adam`, `AdamW` or `Muon`, with its learning rate.
        schedule: a factor on the learning rate over the epochs.
        training: epochs, batch size, seed and so on.
        metrics: how loss and accuracy are measured.
        loss: what is minimized, if it is not plain cross-entropy.
        sampling: which images an epoch has, if not each once.
        validation_metric: a metric of your own, measured on the validation images after each epoch.

    >>> recipe = Recipe.from_dict({"training": {"epochs": 3}}).with_overrides({"optimizer.lr": 0.1})
    >>> recipe.training.epochs, recipe.optimizer.lr, recipe.model.name
    (3, 0.1, 'simple_convnet')
    """

    _internal_names: ClassVar[frozenset[str]] = frozenset({"from_file_values", "parse_overrides"})

    data: Data = Data()
    model: Model = Model()
    optimizer: Optimizer = SGD()
    schedule: Schedule = StepLR()
    training: Training = Training()
    metrics: Metrics = Metrics()
    loss: Loss | None = None
    sampling: Sampling | None = None
    validation_metric: ValidationMetric | None = None

    def __repr__(self) -> str:
        training, optimizer = self.training, self.optimizer
        return (
            f"Recipe({self.model.name} on {self.data.name}, {optimizer.name} at {optimizer.lr:g}, "
            f"{training.epochs} epochs of batches of {training.batch_size}, seed {training.seed}; key {self.key})"
        )

    @classmethod
    def from_dict(cls, values: Mapping[str, Json]) -> "Recipe":
        """A recipe from nested values; what is left out has its default. Raises LabError, naming the key.

        Code of your own that the values name may run from now on.
        """
        require(isinstance(values, Mapping), f"a recipe is a table of sections, and not a {type(values).__name__}")
        values = python_values(values)
        for name in part_names(values):
            trust_named(name)
        return cls.from_file_values(values)

    @classmethod
    def from_file_values(cls, values: Mapping[str, Json], *, stored: Collection[str] = ()) -> "Recipe":
        """As `from_dict`, for values that a file holds: code of somebody's own that they name runs only if it is trusted.

        `stored` are the sections with every key, as in the file of a run: no code is run to find a part's options.
        """
        require_known_format(values.get("format"), "this recipe")
        context: dict[str, object] = {STORED: stored}
        written = {section for section, field in cls.model_fields.items() if field.default is not None}
        if values.keys() >= {"format", *written}:  # as convolab writes a recipe, and nobody else does
            context[WARMUP_FROM_ZERO] = True
        values = {section: keys for section, keys in values.items() if section != "format"}
        for section, name in DEFAULT_NAMES.items():
            keys = values.get(section)
            if isinstance(keys, Mapping):
                values[section] = {"name": name, **keys}
        refuse_renamed(values)
        try:
            return cls.model_validate(values, strict=True, context=context)
        except ValidationError as error:
            raise LabError(format_validation_error(error, values).replace("\n", "\\n")) from error

    @classmethod
    def read(cls, path: Path | str) -> "Recipe":
        """The recipe in a TOML file. Raises LabError if it cannot be read, naming the line or the key."""
        values = read_toml(path)
        with errors_name(path):
            return cls.from_file_values(values)

    def with_overrides(self, *overrides: Mapping[str, Json]) -> "Recipe":
        """A recipe with some keys changed, addressed as `section.key`; several sets of overrides apply in order.

        A new `name` in a section resets that section to its defaults, because its other keys belonged to the old one.
        Code of your own that the overrides name may run from now on. Raises LabError, naming the key.

        >>> Recipe().with_overrides({"optimizer.lr": 0.1}, {"optimizer.name": "adam"}).optimizer.lr
        0.001
        """
        overrides = python_values(overrides)
        for name in part_names(overrides):
            trust_named(name)
        return self.parse_overrides(*overrides)

    def parse_overrides(self, *overrides: Mapping[str, Json], stored: Collection[str] = ()) -> "Recipe":
        """As `with_overrides`, for overrides that a file holds; `stored` as in `from_file_values`."""
        own = self.to_dict()
        values = own
        for entries in overrides:
            values = apply_overrides(values, entries)
        unchanged = {section for section in own if values.get(section) == own[section]}
        return Recipe.from_file_values(values, stored={*stored, *unchanged})

    def with_seed(self, seed: int) -> "Recipe":
        """The same with another `training.seed`, which nothing else of a recipe depends on; much faster than overrides.

        >>> Recipe().with_seed(3) == Recipe().with_overrides({"training.seed": 3})
        True
        """
        fields: dict[str, Any] = {name: getattr(self, name) for name in type(self).model_fields}
        fields["training"] = self.training.model_copy(update={"seed": python_values(seed)})
        return Recipe.model_construct(**fields)

    def to_dict(self) -> dict[str, dict[str, Json]]:
        """All keys of all sections, defaults too, as JSON and TOML can hold them."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_toml(self) -> str:
        """The text of a recipe's file: its format, then every key of every section."""
        return tomli_w.dumps({"format": FORMAT, **self.to_dict()})

    def write(self, path: Path | str) -> None:
        write_text(path, self.to_toml())

    @cached_property
    def key(self) -> str:
        """A hash of every key: equal for equal recipes, however they were written."""
        return recipe_key(self.to_dict())

    @property
    def own_parts(self) -> dict[str, str]:
        """The parts that are code of a person's own: their names, by the part's."""
        names = {part: getattr(self, part).name for part in NAMED_PARTS if getattr(self, part) is not None}
        own = {part: name for part, name in names.items() if is_own_code(name) and name not in registry.NETWORKS}
        transforms = dict.fromkeys(own_transform_names(self.data.augment))
        return own | {f"transform{number}": name for number, name in enumerate(transforms, 1)}


def flat_recipe(recipe: Recipe) -> dict[str, Json]:
    """The keys of a recipe as `section.key`."""
    return flatten_keys(recipe.to_dict())


def flatten_keys(sections: Mapping[str, Mapping[str, Json]]) -> dict[str, Json]:
    return {f"{section}.{key}": value for section, keys in sections.items() for key, value in keys.items()}


def recipe_key(values: Mapping[str, Json]) -> str:
    """The key of a recipe with these values: 12 hexadecimal digits of their SHA-256."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


class LaterFormat(LabError):
    """A file of a format that only a later convolab knows: it is not damaged."""


def require_known_format(number: Json, source: Path | str) -> None:
    """Raise LabError for a number that is not a format; None, the first edition's, is one.

    Raises LaterFormat for one that only a later convolab knows.
    """
    if number is None:
        return
    is_format = isinstance(number, int) and not isinstance(number, bool) and number >= 1
    require(is_format, f"{source} is damaged: format = {reprlib.repr(number)} is not a whole number from 1 on")
    if cast("int", number) > FORMAT:
        raise LaterFormat(
            f"{source} has format {number}, and this convolab knows formats up to {FORMAT}: update convolab"
        )


def apply_overrides(
    values: Mapping[str, Mapping[str, Json]], overrides: Mapping[str, Json]
) -> dict[str, dict[str, Json]]:
    """`values` with `section.key` entries changed; a new `name` drops the section's other keys, whatever the order."""
    result = {section: dict(keys) for section, keys in values.items()}
    for dotted_key in sorted(overrides, key=lambda key: not key.endswith(".name")):
        section, dot, key = dotted_key.partition(".")
        require(dot and key, f"'{dotted_key}' is not a recipe key: write section.key, such as optimizer.lr")
        require(
            section in Recipe.model_fields,
            f"a recipe has no section '{section}': {suggest(section, Recipe.model_fields)}",
        )
        keys = result.setdefault(section, {})
        if key == "name" and keys.get("name") != overrides[dotted_key]:
            keys.clear()
        if dotted_key == "model.weights" and keys.get(key) != overrides[dotted_key]:
            keys.pop("weights_sha256", None)
        keys[key] = overrides[dotted_key]
    return result


def parse_override(text: str) -> tuple[str, Json]:
    """`section.key=value` of a command line; the value is read as TOML, or as a plain string if it is not TOML.

    >>> parse_override("optimizer.lr=0.1"), parse_override("model.channels=[8, 16]")
    (('optimizer.lr', 0.1), ('model.channels', [8, 16]))
    >>> parse_override("schedule.name=cosine")
    ('schedule.name', 'cosine')
    """
    dotted_key, equals, value = text.partition("=")
    require(equals and dotted_key.strip(), f"'{text}' is not an override: write section.key=value")
    try:
        return dotted_key.strip(), parse_value(value)
    except LabError as error:
        raise LabError(f"{dotted_key.strip()}: {error}") from error


def transform_list(text: str) -> list[str]:
    """Transforms as a person lists them, with commas or as TOML.

    >>> transform_list("crop:4, flip"), transform_list('["flip"]'), transform_list("none")
    (['crop:4', 'flip'], ['flip'], [])
    >>> transform_list("flip, RandomErasing(p=0.5, value=1)")
    ['flip', 'RandomErasing(p=0.5, value=1)']
    """
    if text.strip().startswith("["):
        value = parse_value(text)
        if not isinstance(value, list):
            raise LabError(f"augment = {text[:80]}: give transforms with commas between, such as crop:4, flip")
        return [str(entry) for entry in value]
    entries, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and not depth:
            entries.append("")
        else:
            entries[-1] += character
    return [] if text.strip() == "none" else [entry.strip() for entry in entries if entry.strip()]


def parse_value(text: str) -> Json:
    """A value of a command line: read as TOML, or else as a plain string.

    >>> parse_value("0.1"), parse_value(".001"), parse_value("[8, 16]"), parse_value("cosine")
    (0.1, 0.001, [8, 16], 'cosine')

    Raises LabError for what is too long or too deep.
    """
    require(
        len(text) <= MAX_VALUE_LENGTH,
        f"a value of {len(text):,} characters is too long: give {MAX_VALUE_LENGTH:,} at most",
    )
    # TOML has no numbers without a digit before the point, which people write.
    text = re.sub(r"^([+-]?)\.(?=\d)", r"\g<1>0.", text.strip())
    try:
        value = tomllib.loads(f"value = {text}")["value"]
        require_shallow(value, f"{text[:40]}...")
        return value
    except tomllib.TOMLDecodeError:
        return text
    except (ValueError, RecursionError) as error:
        raise LabError(f"{text[:40]}... is not a value: it is nested too deep, or has too many digits") from error


def read_toml(path: Path | str, what: str = "recipe") -> dict[str, Json]:
    """The values of a TOML file. Raises LabError if it cannot be read, is not TOML, or is too large or too deep."""
    try:
        require(Path(path).is_file() or not Path(path).exists(), f"{path} is not a file: give a {what}'s file (TOML)")
        with open(path, "rb") as file:
            content = file.read(MAX_TOML_BYTES + 1)
        require(len(content) <= MAX_TOML_BYTES, f"{path} has more than {MAX_TOML_BYTES:,} bytes: this is no {what}")
        values = tomllib.loads(content.decode("utf-8-sig"))
        require_shallow(values, path)
        return values
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) or "null byte" in str(error):
            raise LabError(f"cannot read the {what} {path} ({getattr(error, 'strerror', error)})") from error
        raise LabError(f"{path} is not TOML: {error}") from error
    except RecursionError as error:
        raise LabError(f"{path} is not a {what}: it is nested too deep") from error


def format_validation_error(error: ValidationError, values: Mapping[str, Json]) -> str:
    """The first error in a recipe, in one line."""
    details = error.errors()[0]
    path = [str(part) for part in details["loc"]]
    if path[0] in DEFAULT_NAMES and len(path) > 1:
        del path[1]  # pydantic names the union's member; the user wrote no such level
    dotted_key = ".".join(path)
    match details["type"]:
        case "extra_forbidden":
            return f"a recipe has no key '{dotted_key}': {suggest_key(path, values)}"
        case "union_tag_invalid":
            context = details.get("ctx", {})
            names = [name.strip(" '") for name in context["expected_tags"].split(",")]
            return f"unknown {path[0]} '{context['tag']}': {suggest_part(path[0], context['tag'], names)}"
        case "missing":
            return f"{dotted_key} is missing: set it"
        case _:
            return f"{dotted_key} = {reprlib.repr(details['input'])}: {plain_problem(details)}"


def suggest_part(section: str, name: str, own: Sequence[str]) -> str:
    """The nearest of our names and a library's, or what is known."""
    own = [other for other in own if other != "other"]
    kind = FOREIGN_PARTS[section]
    text = suggest(name, [*own, *(other for other in kind.classes if other not in kind.refused)])
    if text.startswith("did you mean"):
        return text
    library = f"a class of {kind.module}, " if kind.module else ""
    return f"{suggest(name, own)}, {library}or your own as file.py:Name"


def suggest_key(path: Sequence[str], values: Mapping[str, Json]) -> str:
    """The nearest key of a section; else the section that has this key, or what is known."""
    if path[-1] == "learning_rate":  # the field's word, where torch has lr
        return "did you mean 'optimizer.lr'?"
    text = suggest(path[-1], known_keys(path, values))
    others = {section: type(keys) for section, keys in Recipe() if keys and section != path[0]}
    elsewhere = [section for section, kind in others.items() if path[-1] in kind.model_fields]
    if text.startswith("did you mean") or len(path) != 2 or len(elsewhere) != 1:
        return text
    return f"did you mean '{elsewhere[0]}.{path[-1]}'?"


def known_keys(path: Sequence[str], values: Mapping[str, Json]) -> list[str]:
    """The keys that a recipe may have in place of the unknown one at `path`; without a section, the sections."""
    *place, unknown = path
    if not place:
        return list(Recipe.model_fields)
    section = place[0]
    known = {key: value for key, value in cast("Mapping[str, Json]", values[section]).items() if key != unknown}
    recipe = Recipe.from_file_values({section: known} if section in DEFAULT_NAMES else {})
    return list(type(getattr(recipe, section)).model_fields)
