"""Frozen, validated values that a recipe is made of, and the types of what a JSON file holds and of a callback."""

import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from convolab.core.calls import public_names, unknown_attribute
from convolab.core.errors import LabError, require, suggest
from convolab.core.plain_words import plain_problem

UnitInterval = Annotated[float, Field(ge=0, le=1)]  # from 0 to 1
Fraction = Annotated[float, Field(ge=0, lt=1)]  # from 0 to less than 1

Given = TypeVar("Given")
MessageCallback = Callable[[str], None]  # called with a line of text

if TYPE_CHECKING:
    Json: TypeAlias = Mapping[str, "Json"] | Sequence["Json"] | str | int | float | bool | None
else:
    Json = object  # the runtime type checker of the tests cannot follow an alias that names itself

__all__ = [
    "STORED",
    "Fraction",
    "Frozen",
    "Json",
    "MessageCallback",
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveInt",
    "UnitInterval",
    "list_to_tuple",
    "python_values",
    "stored_sections",
]


class OneLineErrors(type(BaseModel)):
    """What constructs a value in Python, where a wrong one is a LabError in one line; files have their own message."""

    if not TYPE_CHECKING:  # which would take every value for Any

        def __call__(cls, *arguments: object, **keywords: object) -> object:
            try:
                return super().__call__(*arguments, **python_values(keywords))
            except ValidationError as error:
                details = error.errors()[0]
                name, what = ".".join(map(str, details["loc"])), plain_problem(details)
                wrong = "" if details["type"] == "missing" else f" = {reprlib.repr(details['input'])}"
                raise LabError(
                    f"{cls.__name__}: {name}{wrong}: {'give it' if details['type'] == 'missing' else what}"
                ) from error


def own_names(value: BaseModel) -> list[str]:
    """The keys and methods of a value that a person needs, without its validators and what is pydantic's."""
    kinds = [kind for kind in type(value).__mro__ if kind.__module__.partition(".")[0] not in ("builtins", "pydantic")]
    names = {name for kind in kinds for name in vars(kind) if not name.startswith("model_")}
    checks = type(value).__pydantic_decorators__
    names -= {*checks.field_validators, *checks.model_validators, *checks.field_serializers, *checks.model_serializers}
    return public_names(value, {*type(value).model_fields, *(value.__pydantic_extra__ or ()), *names})


class Frozen(BaseModel, metaclass=OneLineErrors):
    """A value: it never changes, an unknown key in it is an error, and NaN or infinity are not numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __str__(self) -> str:
        return repr(self)  # which may be shorter than pydantic's

    def __dir__(self) -> list[str]:
        return own_names(self)

    if not TYPE_CHECKING:  # else every keyword and every attribute would pass

        def __new__(cls, *arguments: object, **keywords: object) -> object:
            """A wrong keyword is answered with the nearest. What is read from a file does not come here."""
            fields = cls.model_fields
            require(not arguments, f"{cls.__name__} takes keywords alone: {', '.join(fields)}")
            for name in keywords:
                known = name in fields or cls.model_config.get("extra") != "forbid"
                require(known, f"{cls.__name__} has no keyword '{name}': {suggest(name, fields)}")
            return super().__new__(cls)

        def __getattr__(self, name: str) -> object:
            try:
                return super().__getattr__(name)
            except AttributeError:
                if name.startswith("_") or hasattr(type(self), name):
                    raise
                raise unknown_attribute(self, name) from None


def list_to_tuple(value: object) -> object:
    """TOML and JSON have lists where a recipe's values, which never change, have tuples."""
    return tuple(value) if isinstance(value, list) else value


def python_values(values: Given) -> Given:
    """What a person gives, with Python's numbers and lists in place of NumPy's and torch's, at any depth.

    >>> import numpy as np
    >>> python_values({"channels": np.array([8, 16]), "sizes": [np.int64(3)], "lr": np.float64(0.1), "name": "x"})
    {'channels': [8, 16], 'sizes': [3], 'lr': 0.1, 'name': 'x'}
    """
    try:
        return cast("Given", to_plain(values))
    except RecursionError as error:
        raise LabError("the values given are nested too deeply, or hold themselves: give flat ones") from error


def to_plain(value: object) -> object:
    """One value of `python_values`, and what it holds."""
    if isinstance(value, Mapping):
        return {key: to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [to_plain(entry) for entry in value]
    if type(value) is tuple:  # one with named fields stays
        return tuple(to_plain(entry) for entry in value)
    to_list = getattr(value, "tolist", None)  # of an array, and of a single number: this module imports neither library
    return to_list() if callable(to_list) and not isinstance(value, type) else value


STORED = "stored"  # of a validation's context: the sections of a recipe that a file holds with every key


def stored_sections(info: "ValidationContext") -> Collection[str]:
    """The sections whose options are all there already, so that nothing needs to be filled in."""
    return (info.context or {}).get(STORED, ())


@runtime_checkable
class ValidationContext(Protocol):
    """What we use of the information that pydantic gives a validator; its own type cannot be checked at run time."""

    @property
    def context(self) -> Any: ...  # noqa: ANN401 (what the caller of the validation gave)
