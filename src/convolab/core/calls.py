"""What a person gets wrong in Python, an argument or the name of an attribute: answered in one line, with the nearest."""

import functools
import inspect
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, Union, get_args, get_origin

from convolab.core.errors import LabError, suggest
from convolab.core.text import join_with_and, pluralize

MAX_LISTED = 30  # names of attributes
SCALARS = (str, int, float, bool, bytes, NoneType, PurePath)  # values whose type is checked
Class = TypeVar("Class", bound=type)


class UnknownAttribute(LabError, AttributeError):
    """An object has no attribute of that name. Notebooks show its one line; Python's own guess is lost there."""


def unknown_attribute(owner: object, name: str) -> UnknownAttribute:
    """The error about an attribute that an object lacks, with the nearest that it has."""
    known = public_names(owner, dir(owner))
    return UnknownAttribute(f"{type(owner).__name__} has no attribute '{name}': {suggest(name, known, MAX_LISTED)}")


def public_names(owner: object, names: Iterable[str]) -> list[str]:
    """Those of the names that a person needs: neither private nor internal to any class of the owner."""
    internal = {name for kind in type(owner).__mro__ for name in vars(kind).get("_internal_names", ())}
    return sorted({name for name in names if not name.startswith("_")} - internal)


class NearestNames:
    """An object that shows what a person needs, and whose attributes, where misspelled, are answered with the nearest.

    `_internal_names` of a class are what the package's other modules call; `dir` and completion leave them out.
    """

    _internal_names: ClassVar[frozenset[str]] = frozenset()

    def __dir__(self) -> list[str]:
        return public_names(self, super().__dir__())

    if not TYPE_CHECKING:  # else every name would pass

        def __getattr__(self, name: str) -> object:
            if name.startswith("_") or hasattr(type(self), name):  # the latter is a property that failed by itself
                return object.__getattribute__(self, name)
            raise unknown_attribute(self, name)


def one_line_call(function: Callable[..., Any], name: str = "") -> Callable[..., Any]:
    """A function that answers arguments which do not fit with a LabError. It is called `name`, or as it is.

    >>> def area(width, height, *, unit="cm"): return width * height
    >>> one_line_call(area)(2, 3)
    6
    >>> for arguments, keywords in [((2, 3, "m"), {}), ((2, 3), {"units": "m"}), ((2,), {})]:
    ...     try: one_line_call(area)(*arguments, **keywords)
    ...     except LabError as error: print(error)
    area takes 2 arguments without a keyword (width, height), and got 3: name the others, such as unit=...
    area has no keyword 'units': did you mean 'unit'?
    area needs height: area(width, height, *, unit='cm')
    """
    signature = inspect.signature(function)
    called = name or function.__name__
    kinds = accepted_kinds(signature)

    @functools.wraps(function)
    def call(*arguments: object, **keywords: object) -> object:
        try:
            bound = signature.bind(*arguments, **keywords)
        except TypeError as error:
            raise LabError(describe_misfit(called, signature, arguments, keywords) or f"{called}: {error}") from None
        for key, given in bound.arguments.items():
            accepted = kinds.get(key, (object,))
            value = bound.arguments[key] = plain_number(given, accepted)
            # Where more than scalars is taken, the function itself says what a list lacks.
            takes_scalars = all(issubclass(kind, SCALARS) for kind in accepted)
            is_checked = isinstance(value, (*SCALARS, list, tuple) if takes_scalars else SCALARS)
            if is_checked and not isinstance(value, accepted):
                wanted = " or ".join(dict.fromkeys(kind.__name__ for kind in kinds[key] if kind is not NoneType))
                shown = repr(value) if isinstance(value, str) else reprlib.repr(value)  # a whole file may be given
                raise LabError(f"{called}: {key} = {shown} is of the wrong type: give {wanted}")
            if isinstance(value, int) and value.bit_length() > 1023:
                raise LabError(
                    f"{called}: {key} is a whole number of more digits than a float holds: give a smaller one"
                )
        return function(*bound.args, **bound.kwargs)

    return call


def plain_number(value: object, kinds: tuple[type, ...]) -> object:
    """A single number of NumPy's or torch's as Python's, where it is not of the kinds that are taken; all else as it is."""
    is_number = getattr(value, "ndim", None) == 0 and not isinstance(value, kinds)
    to_number = getattr(value, "item", None)
    return to_number() if is_number and callable(to_number) else value


def accepted_kinds(signature: inspect.Signature) -> dict[str, tuple[type, ...]]:
    """The classes that each argument may be of, where its annotation names nothing but classes."""
    kinds: dict[str, tuple[type, ...]] = {}
    for name, parameter in signature.parameters.items():
        hint = parameter.annotation
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        classes = tuple(get_origin(option) or option for option in options)
        is_known = all(isinstance(kind, type) and kind not in (Any, inspect.Parameter.empty) for kind in classes)
        if is_known and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            kinds[name] = (*classes, int) if float in classes else classes
    return kinds


def one_line_construction(kind: Class) -> Class:
    """A class that answers arguments of its constructor which do not fit with a LabError."""
    kind.__init__ = one_line_call(kind.__init__, kind.__name__)
    return kind


def one_line_methods(kind: Class) -> Class:
    """A class that answers arguments which do not fit, of its constructor and its public methods, with a LabError."""
    for name, method in list(vars(kind).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(kind, name, one_line_call(method))
    return one_line_construction(kind)


def describe_misfit(
    called: str, signature: inspect.Signature, arguments: Sequence[object], keywords: Mapping[str, object]
) -> str:
    """What of the arguments does not fit, and what to do."""
    parameters = [p for p in signature.parameters.values() if p.name != "self"]
    count = len(arguments) - (len(signature.parameters) - len(parameters))
    by_name = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.POSITIONAL_ONLY)]
    for name in keywords:
        if name not in by_name:
            return f"{called} has no keyword '{name}': {suggest(name, by_name)}"
    if count > len(by_position):
        others = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        remedy = f"name the others, such as {others[0]}=..." if others else "leave the others out"
        options = get_args(by_position[0].annotation) if len(by_position) == 1 else ()
        if any(get_origin(option) is Sequence for option in options):
            remedy = "give them as one list"
        names = ", ".join(p.name for p in by_position)
        takes = pluralize(len(by_position), "argument")
        return f"{called} takes {takes} without a keyword ({names}), and got {count}: {remedy}"
    given = {p.name for p in by_position[:count]} | set(keywords)
    missing = [p.name for p in parameters if p.name in by_name and p.default is p.empty and p.name not in given]
    if missing:
        shown = signature.replace(
            parameters=[p.replace(annotation=p.empty) for p in parameters], return_annotation=signature.empty
        )
        return f"{called} needs {join_with_and(missing)}: {called}{shown}"
    return ""
