"""Everything that decides a result, as one frozen, validated value that reads and writes TOML."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from convolab.core.errors import LabError, require, suggest
from convolab.core.files import write_text
from convolab.core.types import Fraction, Frozen, NonNegativeInt, PositiveFloat, PositiveInt, UnitInterval
from convolab.data.catalog import default_augmentation
from convolab.models import zoo
from convolab.training.lr_schedule import Schedule, StepLR
from convolab.training.optim import SGD, Optimizer
from convolab.training.transforms import parse_transform


class Data(Frozen):
    """The picture set, and what is done to it before a network sees it."""

    name: str = "digits"  # a source, or folder:PATH
    validation: Fraction = 0.1  # share of the training pictures held back
    limit: PositiveInt | None = None  # train on this many pictures only, the classes in proportion
    image_size: Annotated[int, Field(ge=8, le=64)] = (
        32  # side that a folder's pictures are resized to; the other sets have their own
    )
    augment: tuple[str, ...] = ()  # left out: what is usual for the set

    @model_validator(mode="before")
    @classmethod
    def fill_augment(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        augment = values.get(
            "augment", default_augmentation(str(values.get("name", "digits")))
        )  # looked up in any case: the name is checked so
        return {**values, "augment": tuple(augment) if isinstance(augment, list) else augment}

    @field_validator("augment")
    @classmethod
    def check_augment(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            parse_transform(entry)
        return entries


class Model(BaseModel):
    """The network's name and its options, whatever they are: the network's own signature checks them."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = "simple_convnet"

    @model_validator(mode="before")
    @classmethod
    def fill_options(cls, values: Any) -> Any:
        """Write every option out, so that a recipe does not depend on defaults that may change."""
        if not isinstance(values, Mapping):
            return values
        name = values.get("name", "simple_convnet")
        require(isinstance(name, str), f"model.name = {name!r}: give the network's name as a string")
        return {"name": name, **zoo.resolve_options(name, {k: v for k, v in values.items() if k != "name"})}

    @property
    def options(self) -> dict[str, Any]:
        """The network's options, without its name."""
        return dict(self.__pydantic_extra__ or {})


class Training(Frozen):
    """How the network is trained, whatever the network."""

    epochs: PositiveInt = 10
    batch_size: PositiveInt = 128
    seed: NonNegativeInt = 0
    precision: Literal["fp32", "bf16", "auto"] = "fp32"  # auto: bf16 where the processor computes it natively
    label_smoothing: Fraction = 0.0
    clip_norm: PositiveFloat | None = None  # largest norm of the gradient of all parameters together
    ema: Fraction = 0.0  # decay a step of the averaged weights that are judged and kept; 0: the weights themselves
    patience: PositiveInt | None = None  # stop after this many epochs without a better validation accuracy
    goal: UnitInterval | None = None  # stop once the training accuracy of an epoch reaches this


class Metrics(Frozen):
    """Of which weights the training loss and accuracy are.

    running: the mean over the epoch's batches, as augmented, while the weights change: free.
    exact: of the epoch's last weights, on the training pictures as they are, like validation's: a pass more.
    """

    train: Literal["running", "exact"] = "running"


class Recipe(Frozen):
    """One recipe decides one result.

    >>> recipe = Recipe.parse({"training": {"epochs": 3}}).changed({"optimizer.lr": 0.1})
    >>> recipe.training.epochs, recipe.optimizer.lr, recipe.model.name
    (3, 0.1, 'simple_convnet')
    """

    data: Data = Data()
    model: Model = Model()
    optimizer: Optimizer = SGD()
    schedule: Schedule = StepLR()
    training: Training = Training()
    metrics: Metrics = Metrics()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """A recipe from nested values; what is left out has its default. Raises LabError, naming the key."""
        values = {**values}
        for section, default in (("optimizer", "sgd"), ("schedule", "step")):
            if isinstance(values.get(section), Mapping):
                values[section] = {"name": default, **values[section]}
        try:
            # By way of JSON, where pydantic is strict about types but takes a list for a tuple.
            return cls.model_validate_json(json.dumps(values), strict=True)
        except ValidationError as error:
            raise LabError(format_validation_error(error, values).replace("\n", "\\n")) from error
        except TypeError as error:
            raise LabError(f"a recipe holds strings, numbers, booleans and lists: {error}") from error

    @classmethod
    def read(cls, path: Path | str) -> "Recipe":
        """The recipe in a TOML file. Raises LabError if it cannot be read, naming the line or the key."""
        return cls.from_dict(read_toml(path))

    def with_overrides(self, overrides: Mapping[str, Any]) -> "Recipe":
        """A recipe with some keys changed, addressed as `section.key`.

        A new `name` in a section starts that section afresh, because its other keys belonged to the old one.
        """
        return Recipe.from_dict(apply_overrides(self.to_dict(), overrides))

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """All keys of all sections, defaults too."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_toml(self) -> str:
        return tomli_w.dumps(self.to_dict())

    def write(self, path: Path | str) -> None:
        write_text(path, self.to_toml())

    @cached_property
    def key(self) -> str:
        """A hash of every key: equal for equal recipes, however they were written."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def apply_overrides(values: Mapping[str, Mapping[str, Any]], overrides: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """`values` with `section.key` entries changed; a new `name` drops the section's other keys, whatever the order."""
    result = {section: dict(keys) for section, keys in values.items()}
    for dotted_key in sorted(overrides, key=lambda a: not a.endswith(".name")):
        section, dot, key = dotted_key.partition(".")
        require(dot and key, f"'{dotted_key}' is no address of a recipe key: give section.key, such as optimizer.lr")
        require(
            section in Recipe.model_fields,
            f"a recipe has no section '{section}': {suggest(section, Recipe.model_fields)}",
        )
        keys = result.setdefault(section, {})
        if key == "name" and keys.get("name") != overrides[dotted_key]:
            keys.clear()
        keys[key] = overrides[dotted_key]
    return result


def parse_override(text: str) -> tuple[str, Any]:
    """`section.key=value` of a command line; the value is read as TOML, and as a plain string where it is none.

    >>> parse_change("optimizer.lr=0.1"), parse_change("model.channels=[8, 16]"), parse_change("schedule.name=cosine")
    (('optimizer.lr', 0.1), ('model.channels', [8, 16]), ('schedule.name', 'cosine'))
    """
    dotted_key, equals, value = text.partition("=")
    require(equals and dotted_key.strip(), f"'{text}' changes nothing: write section.key=value")
    try:
        return dotted_key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return dotted_key.strip(), value.strip()


def read_toml(path: Path | str) -> dict[str, Any]:
    """The values of a TOML file. Raises LabError if it cannot be read or is not TOML."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LabError(f"cannot read the recipe {path} ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise LabError(f"{path} is not TOML: {error}") from error


def format_validation_error(error: ValidationError, values: Mapping[str, Any]) -> str:
    """The first thing wrong with a recipe, in one line."""
    details = error.errors()[0]
    path = [str(part) for part in details["loc"]]
    if path[0] in ("optimizer", "schedule") and len(path) > 1:
        del path[1]  # pydantic names the union's member; the person wrote no such level
    dotted_key = ".".join(path)
    match details["type"]:
        case "extra_forbidden":
            return f"a recipe has no key '{dotted_key}': {suggest(path[-1], known_keys(path[:-1], values))}"
        case "union_tag_invalid":
            names = [name.strip(" '") for name in details["ctx"]["expected_tags"].split(",")]
            return f"unknown {path[0]} '{details['ctx']['tag']}': {suggest(details['ctx']['tag'], names)}"
        case _:
            return f"{dotted_key} = {details['input']!r}: {details['msg'][0].lower()}{details['msg'][1:]}"


def known_keys(section: list[str], values: Mapping[str, Any]) -> list[str]:
    """The keys that a section of a recipe may have."""
    if not section:
        return list(Recipe.model_fields)
    section_value = getattr(
        Recipe.from_dict(
            {section[0]: {"name": values[section[0]]["name"]}} if section[0] in ("optimizer", "schedule") else {}
        ),
        section[0],
    )
    return list(type(section_value).model_fields)
