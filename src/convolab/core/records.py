"""What a file of ours must hold: its fields have the types that the code expects, whoever edited it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from convolab.core.errors import LabError, require
from convolab.core.plain_words import plain_problem

RecordType = TypeVar("RecordType")


@cache
def adapter_of(kind: type[object]) -> Any:  # noqa: ANN401 (the tests' type checker does not know a TypeAdapter's type)
    return TypeAdapter(kind)


def validate_record(kind: type[RecordType], values: object, source: Path | str) -> RecordType:
    """The values of a file as a dataclass or a TypedDict; fields that it does not have are ignored.

    Raises LabError, naming the file and the first field that is wrong: one that is missing, has the wrong type, or
    holds NaN or infinity.

    >>> from typing_extensions import TypedDict
    >>> Epoch = TypedDict("Epoch", {"epoch": int, "loss": float})
    >>> validate_record(Epoch, {"epoch": 1, "loss": 2.5, "mood": "good"}, "metrics.jsonl")
    {'epoch': 1, 'loss': 2.5}
    """
    require(isinstance(values, Mapping), f"{source} is damaged: it holds {type(values).__name__}, no fields")
    require(all(map(math.isfinite, floats_in(values))), f"{source} is damaged: it holds a number that is not finite")
    try:
        return adapter_of(kind).validate_python(values)
    except ValidationError as error:
        details = error.errors()[0]
        field = ".".join(str(part) for part in details["loc"])[:80]
        missing = details["type"] == "missing"
        what = f"it has no {field}" if missing else ": ".join(filter(None, (field, plain_problem(details))))
        raise LabError(f"{source} is damaged: {what}".replace("\n", " ")) from error
    except OverflowError as error:  # of a record that computes with its numbers
        raise LabError(f"{source} is damaged: it holds a number that is too large") from error


def floats_in(value: object) -> Iterator[float]:
    """All floating-point numbers in nested values."""
    if isinstance(value, float):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from floats_in(entry)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for entry in value:
            yield from floats_in(entry)
