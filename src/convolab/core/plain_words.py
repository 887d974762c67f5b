"""What pydantic says of a wrong value, in our words: what to give instead."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

NUMBER, WHOLE, YES_NO, LIST, TABLE = (
    "a number", "a whole number", "true or false", "a list, [...]", "a table of keys and values",
)  # fmt: skip
WORDS_OF_TYPES = {
    "int_type": WHOLE, "int_parsing": WHOLE, "int_from_float": WHOLE, "int_parsing_size": WHOLE,
    "float_type": NUMBER, "float_parsing": NUMBER, "finite_number": "a finite number", "bool_type": YES_NO,
    "bool_parsing": YES_NO, "string_type": "a text in quotes", "list_type": LIST, "tuple_type": LIST,
    "dict_type": TABLE, "mapping_type": TABLE, "model_type": TABLE, "model_attributes_type": TABLE,
    "dataclass_type": TABLE,
}  # fmt: skip
BOUNDS = {
    "greater_than": ("gt", "a number above {}"), "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "a number below {}"), "less_than_equal": ("le", "at most {}"),
    "literal_error": ("expected", "{}"), "too_short": ("min_length", "at least {} of them"),
    "too_long": ("max_length", "at most {} of them"), "string_too_short": ("min_length", "at least {} characters"),
    "string_too_long": ("max_length", "at most {} characters"),
}  # fmt: skip
# Pydantic writes the kinds that a value may have into its place; a file has no such level.
KIND_IN_PLACE = re.compile(r"(?:str|int|float|bool|(?:list|tuple|dict|literal|union|constrained|function)[\[-].*)")


def plain_problem(details: Mapping[str, Any]) -> str:
    """One of pydantic's errors as what to give.

    >>> plain_problem({"type": "int_parsing", "msg": "Input should be a valid integer"})
    'give a whole number'
    >>> plain_problem({"type": "value_error", "msg": "Value error, two arms are equal"})
    'two arms are equal'
    """
    kind = details["type"]
    if kind in WORDS_OF_TYPES:
        return f"give {WORDS_OF_TYPES[kind]}"
    if kind in BOUNDS:
        name, words = BOUNDS[kind]
        bound = details["ctx"][name]
        if kind == "string_too_short" and bound == 1:
            return "give a text that is not empty"
        bound = bound.removeprefix("'', ") if isinstance(bound, str) else bound  # an empty text is to leave it out
        return "give " + words.format(f"{bound:g}" if isinstance(bound, float) else bound)
    if kind == "string_pattern_mismatch":  # of names, which become those of files
        return "leave out slashes, tabs and line breaks"
    message = str(details["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return " ".join(f"{message[:1].lower()}{message[1:]}".split())


def place_of(details: Mapping[str, Any]) -> list[str | int]:
    """Where an error is in a file: keys, and numbers from 0 of entries in a list."""
    place = [part for part in details["loc"] if not KIND_IN_PLACE.fullmatch(str(part))]
    return place or list(details["loc"])


def first_problem(error: ValidationError) -> tuple[list[str | int], Mapping[str, Any], str]:
    """The first error: where it is, pydantic's details, and what to give; of a value of several kinds, all of these."""
    errors = error.errors()
    place = place_of(errors[0])
    found = [plain_problem(details) for details in errors if place_of(details) == place]
    first, *others = dict.fromkeys(found)
    return place, errors[0], " or ".join([first, *(other.removeprefix("give ") for other in others)])


def keys_at(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """The keys that a file may have at a place; empty where it may have any.

    >>> class Point(BaseModel): x: int
    >>> class Points(BaseModel): points: list[Point]
    >>> keys_at(Points, ["points", 3])
    ['x']
    """
    for part in place:
        field = model.model_fields.get(str(part))
        if field is not None:
            inner = model_in(field.annotation)
            if inner is None:
                return []
            model = inner
    return list(model.model_fields)


def model_in(kind: object) -> type[BaseModel] | None:
    """The model in a type, such as that of a list's entries."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    return next((found for part in get_args(kind) if (found := model_in(part))), None)
