"""The options that a recipe gives to a part of a training: checked against the signature of what is called with them."""

import inspect
import json
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import PydanticUserError, ValidationError, create_model

from convolab.core.errors import LabError, require, suggest
from convolab.core.plain_words import plain_problem
from convolab.core.types import python_values


def readable_signature(factory: Callable[..., object], what: str) -> inspect.Signature:
    """The signature of a class or function, its types evaluated. Raises LabError, which begins with `what`."""
    try:
        return inspect.signature(factory, eval_str=True)
    except (NameError, SyntaxError) as error:
        raise LabError(f"a type in the signature of {what} does not exist at run time: {error}") from error
    except ValueError as error:
        raise LabError(f"{what} has no readable signature: {error}") from error


def fill_options(
    signature: inspect.Signature, given: Sequence[str], overrides: Mapping[str, object], what: str, section: str
) -> dict[str, Any]:
    """All options that a signature has: `overrides`, checked against its types, and defaults for all others.

    Args:
        signature: of a class or function.
        given: its first arguments, which are no options.
        overrides: some options by name.
        what: whose they are, for messages: "the network 'simple_convnet'".
        section: of the recipe that holds them, for messages.

    Raises LabError for an option that there is not, and for a value of the wrong type.

    >>> def scaled(image: object, factor: float = 2.0, bias: bool = False) -> None: ...
    >>> fill_options(inspect.signature(scaled), ("image",), {"factor": 3}, "'scaled'", "model")
    {'factor': 3.0, 'bias': False}
    """
    overrides = python_values(overrides)
    positional = signature.bind_partial(*given).arguments
    declared: dict[str, Any] = {
        key: (Any if p.annotation is p.empty else p.annotation, ... if p.default is p.empty else p.default)
        for key, p in signature.parameters.items()
        if key not in positional and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and not key.startswith("_")
    }
    for key in overrides:
        known = suggest(key, declared) if declared else "it has none"
        require(key in declared, f"{what} has no option '{key}': {known}")
    defaults = {key: default for key, (_, default) in declared.items() if default is not ...}
    for key, value in (defaults | dict(overrides)).items():
        require(
            is_json_serializable(value),
            f"{section}.{key} = {repr(value).splitlines()[0]}: a recipe holds strings, finite numbers, booleans and "
            "lists",
        )
    try:
        # Through JSON, where pydantic is strict about types but accepts a list for a tuple.
        options = json.dumps(dict(overrides))
        return create_model("Options", **declared).model_validate_json(options, strict=True).model_dump(warnings=False)
    except ValidationError as error:
        first_error = error.errors()[0]
        key = ".".join(map(str, first_error["loc"]))
        require(first_error["type"] != "missing", f"{what} has no default for its option '{key}': set {section}.{key}")
        raise LabError(
            f"{section}.{key} = {reprlib.repr(first_error['input'])}: {plain_problem(first_error)}"
        ) from error
    except PydanticUserError as error:  # a type that no recipe value can have
        raise LabError(
            f"{what} takes {signature}, and a recipe cannot hold that: {str(error).splitlines()[0]}"
        ) from error


def is_json_serializable(value: object) -> bool:
    """Whether JSON, and so a recipe, can hold a value; NaN and infinity are not JSON."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
