"""Parts of a training that are not convolab's: a library's classes by their name, and code of a person's own."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, PrivateAttr, PydanticUserError, TypeAdapter

from convolab.core.errors import LabError, require, suggest
from convolab.core.types import Json
from convolab.models.options import fill_options, is_json_serializable, readable_signature
from convolab.models.own_code import OwnCode, find_own_code, is_own_code, own_code_errors
from convolab.training.transforms import TRANSFORMS

# These may be code of a person's own.
NAMED_PARTS = ("model", "optimizer", "schedule", "loss", "sampling", "validation_metric")
AUGMENT_KEYS = ("augment", "data.augment")  # hold lists of transforms, some of which may be a person's own
OWN_TRANSFORM = re.compile(r"(?P<name>(?:.+?\.py|[A-Za-z_][\w.]*):[A-Za-z_]\w*)(?:\((?P<arguments>.*)\))?", re.DOTALL)
PartFactory = Callable[..., Any]
AnyPart = TypeVar("AnyPart", bound=BaseModel | None)
MACHINE_OPTIONS = ("last_epoch", "foreach", "fused", "capturable", "differentiable")  # how it is computed, not what


@dataclass(frozen=True)
class PartKind:
    """A part that a library has classes for.

    Attributes:
        section: of the recipe; also what the part is called in messages.
        module: the library's module; empty where there is none, and only a person's own are taken.
        base: the name there of what every such class is a subclass of.
        given: the first arguments of such a class, which are no options.
        refused: why some of its classes cannot be used, by name.
    """

    section: str
    module: str
    base: str
    given: Sequence[str]
    refused: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def classes(self) -> dict[str, PartFactory]:
        """The library's public classes of this kind, by name. Raises LabError if it is not installed."""
        if not self.module:
            return {}
        try:
            module = importlib.import_module(self.module)
        except ImportError as error:
            library = self.module.partition(".")[0]
            raise LabError(f"a {self.section} of {library} needs {library}: pip install {library}") from error
        base = getattr(module, self.base)
        return {
            name: value
            for name, value in vars(module).items()
            if inspect.isclass(value) and issubclass(value, base) and not name.startswith("_") and value is not base
        }

    def is_foreign(self, name: object) -> bool:
        """Whether a name is that of one of the library's classes, or of a person's own code."""
        return isinstance(name, str) and (is_own_code(name) or self.short_name(name) in self.classes)

    def tag(self, value: object) -> str | None:
        """Which class of a recipe a value is for, by its name: ours have their own, all others share "other"."""
        if not isinstance(value, Mapping | BaseModel):
            return None
        name = value.get("name") if isinstance(value, Mapping) else vars(value).get("name")
        return "other" if self.is_foreign(name) else str(name)

    def short_name(self, name: str) -> str:
        """`RMSprop` for `torch.optim.RMSprop`; other names as they are."""
        return name.removeprefix(f"{self.module}.") if self.module else name

    def find(self, name: str, code: OwnCode | None = None) -> PartFactory:
        """The class or function that a name stands for.

        Args:
            name: the name of one of the library's classes, `file.py:Name` or `package.module:Name`.
            code: the copy of a person's own code to use; by default what the name stands for in the current folder.

        Raises LabError for what cannot be used here, and for code that is not trusted.
        """
        if is_own_code(name):
            factory = self.load_own(name, code)
            require(
                inspect.isclass(factory) or inspect.isfunction(factory),
                f"'{name}' is no {self.section}: give a class, or a function",
            )
            return factory
        require(name in self.classes, f"unknown {self.section} '{name}': {suggest(name, self.classes)}")
        require(name not in self.refused, f"the {self.section} '{name}' cannot be used: {self.refused.get(name)}")
        return self.classes[name]

    def load_own(self, name: str, code: OwnCode | None = None) -> Any:  # noqa: ANN401 (whatever a file holds)
        """What a person's own code has under a name. Raises LabError if it is not trusted."""
        return (code or find_own_code(name)).load(name.rpartition(":")[2])

    def fill_options(
        self, name: str, options: Mapping[str, Any], given: Sequence[str] = (), code: OwnCode | None = None
    ) -> dict[str, Any]:
        """All options of a part, so that a recipe does not depend on defaults that may change.

        Args:
            name: as in `find`.
            options: some of its options.
            given: its first arguments, if they are others than the library's classes have.
            code: as in `find`.

        Types are checked for code of a person's own; a library checks its own when the part is built. Raises LabError.
        """
        factory, what = self.find(name, code), f"the {self.section} '{name}'"
        # A library's types are often names of its own modules, which nobody can look up from outside.
        signature = readable_signature(factory, what) if is_own_code(name) else inspect.signature(factory)
        given = given or self.given
        try:
            signature.bind_partial(*given)
        except TypeError as error:
            raise LabError(f"{what} must take ({', '.join(given)}, ...options), and takes {signature}") from error
        if not is_own_code(name):
            plain = [
                p.replace(annotation=p.empty)
                for p in signature.parameters.values()
                if p.name in options or (p.name not in MACHINE_OPTIONS and is_json_default(p))
            ]
            signature = signature.replace(parameters=plain, return_annotation=inspect.Signature.empty)
        elif inspect.isclass(factory) and not vars(factory).get("__init__"):
            # It takes what its base class does, whose types may be of tensors too.
            plain = [
                p if is_recipe_type(p.annotation) else p.replace(annotation=p.empty)
                for p in signature.parameters.values()
                if p.name in options or (p.name not in MACHINE_OPTIONS and is_json_default(p))
            ]
            signature = signature.replace(parameters=plain)
        filled = fill_options(signature, given, options, what, self.section)
        # TOML has no None: what holds one keeps the library's default.
        return {key: value for key, value in filled.items() if not holds_none(value)}

    def build(self, name: str, code: OwnCode | None, given: Iterable[Any], options: Mapping[str, Any]) -> Any:  # noqa: ANN401 (whatever a class makes)
        """Call the class or function that a name stands for. Raises LabError, in one line, for whatever it raises."""
        factory = self.find(name, code)
        with own_code_errors(f"the {self.section} '{name}' cannot be made with {dict(options)}"):
            return factory(*given, **as_arguments(options))


def as_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a recipe as Python's functions expect them: a list is a tuple."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}


class OtherPart(BaseModel):
    """A part that is a library's or a person's own: its name and its options, whatever they are."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str
    _code: OwnCode | None = PrivateAttr(default=None)  # a run's copy; None: what the name stands for

    @property
    def options(self) -> dict[str, Any]:
        """The options of the class or function."""
        return dict(self.__pydantic_extra__ or {})


def with_code(part: AnyPart, code: OwnCode | None) -> AnyPart:
    """A part of a recipe from a run's copy of its code; one of convolab's is itself."""
    if not isinstance(part, OtherPart):
        return part
    copy = part.model_copy()
    copy._code = code
    return copy


def is_recipe_type(annotation: Any) -> bool:  # noqa: ANN401 (whatever stands in a signature)
    """Whether values of a recipe can be checked against a type."""
    try:
        TypeAdapter(annotation)
    except PydanticUserError:
        return False
    return True


def is_json_default(parameter: inspect.Parameter) -> bool:
    """Whether a recipe can hold the default of a parameter; True where there is none."""
    return parameter.default is parameter.empty or is_json_serializable(parameter.default)


def holds_none(value: object) -> bool:
    """Whether a value is None, or a list or tuple with one in it."""
    return value is None or (isinstance(value, list | tuple) and any(map(holds_none, value)))


def part_names(values: Json) -> Iterator[Json]:
    """The names of networks and other parts anywhere in the values of a recipe or a study.

    >>> values = {"recipe": {"model": {"name": "a"}}, "sections": {"s": {"grid": {"model.name": ["b", "c"]}}}}
    >>> list(part_names(values))
    ['a', 'b', 'c']
    """
    if isinstance(values, list | tuple):
        for value in values:
            yield from part_names(value)
    if not isinstance(values, Mapping):
        return
    for key, value in values.items():
        if key in AUGMENT_KEYS:
            yield from own_transform_names(value)
        elif key in {f"{part}.name" for part in NAMED_PARTS}:
            yield from value if isinstance(value, list | tuple) else [value]
        elif key in NAMED_PARTS and isinstance(value, Mapping):
            yield value.get("name")
        else:
            yield from part_names(value)


def own_transform_names(entries: Json) -> Iterator[str]:
    """The names of a person's own transforms in entries of `data.augment`, in lists or not."""
    if isinstance(entries, list | tuple):
        for entry in entries:
            yield from own_transform_names(entry)
    elif isinstance(entries, str) and (name := own_transform_name(entries)):
        yield name


def own_transform_name(entry: str) -> str:
    """The name of a person's own transform in an entry of `data.augment`; empty for other entries.

    >>> own_transform_name("jitter.py:Jitter(strength=0.2)"), own_transform_name("crop:4")
    ('jitter.py:Jitter', '')
    """
    match = None if entry.partition(":")[0] in TRANSFORMS else OWN_TRANSFORM.fullmatch(entry)
    return match["name"] if match else ""
