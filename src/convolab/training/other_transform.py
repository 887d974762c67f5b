"""Transforms that are not convolab's: any class of torchvision.transforms.v2, and a person's own.

In a recipe's `data.augment` they are written as they are called in Python, without the import:
`RandomPerspective(distortion_scale=0.3)`, `jitter.py:Jitter(strength=0.2)`.
"""

import ast
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from jaxtyping import Shaped
from torch import Generator, Tensor

from convolab.core.errors import LabError, require, suggest
from convolab.core.rng import lent_generators
from convolab.core.types import Json
from convolab.models.own_code import OwnCode, is_own_code, own_code_errors
from convolab.training.parts import OWN_TRANSFORM, PartFactory, PartKind, own_transform_name
from convolab.training.transforms import TRANSFORMS, to_float01

MAX_ENTRY_LENGTH = 1_000  # characters
RANGE_TOLERANCE = 1e-4  # of pixels in [0, 1], for rounding
TAKES_TRANSFORMS = "it takes other transforms: list these in data.augment, or write yours as file.py:Name"
TAKES_LABELS = "it changes labels too: write {}, which does"
TORCHVISION = PartKind(
    section="transform",
    module="torchvision.transforms.v2",
    base="Transform",
    given=(),
    refused={
        **dict.fromkeys(("Compose", "RandomApply", "RandomChoice", "RandomOrder"), TAKES_TRANSFORMS),
        "Lambda": "it takes a function, which a recipe cannot hold: write yours as file.py:name",
        "Normalize": "networks normalize their pixels themselves, with the training images' mean and deviation",
        "MixUp": TAKES_LABELS.format("mixup:STRENGTH"),
        "CutMix": TAKES_LABELS.format("cutmix:STRENGTH"),
        **dict.fromkeys(("FiveCrop", "TenCrop"), "it makes several images of one"),
    },
)
LIBRARY_TRANSFORM = re.compile(
    r"(?:torchvision\.transforms\.v2\.)?(?P<name>[A-Z]\w*)(?:\((?P<arguments>.*)\))?", re.DOTALL
)


@dataclass(frozen=True)
class OtherTransform:
    """A transform that is torchvision's or a person's own, with the interface of ours.

    Attributes:
        entry: of the recipe; what it is called in messages.
        function: gets pixels and returns as many of the same shape.
        on: what it gets: "float", pixels in [0, 1], or "uint8".
        per_image: whether it gets one image [C, H, W] at a time, and not a batch [N, C, H, W].
        code: the copy of a person's own code that it is of; None: what the entry stands for.
    """

    entry: str
    function: Callable[[Tensor], Any]
    on: Literal["float", "uint8"] = "float"
    per_image: bool = False
    code: OwnCode | None = None

    @property
    def supports_uint8(self) -> bool:
        return self.on == "uint8"

    def __call__(self, pixels: Shaped[Tensor, "n c h w"], generator: Generator) -> Shaped[Tensor, "n c h w"]:
        """Apply it to a batch; whatever global generator it draws from is seeded by the given one.

        Raises LabError, in one line, for whatever it raises, and for what is not a batch of the same shape.
        """
        pixels = to_uint8(pixels) if self.on == "uint8" else to_float01(pixels)
        seed = int(torch.randint(2**62, (1,), generator=generator))
        with own_code_errors(f"the transform '{self.entry}' failed"), lent_generators(pixels.device, seed):
            if self.per_image:
                result = stack_images([self.function(image) for image in pixels])
            else:
                result = self.function(pixels)
        wanted = list(pixels.shape[1:] if self.per_image else pixels.shape)
        if not isinstance(result, Tensor) or not (result.is_floating_point() or result.dtype == torch.uint8):
            raise LabError(
                f"the transform '{self.entry}' gives {describe_kind(result)}: it must give pixels, uint8 or float {wanted}"
            )
        shape = list(result.shape[1:] if self.per_image else result.shape)
        require(
            result.shape == pixels.shape,
            f"the transform '{self.entry}' gives {shape} for {wanted}: it must keep the shape",
        )
        if result.dtype == torch.uint8:
            return result
        require(bool(result.isfinite().all()), f"the transform '{self.entry}' gives pixels that are NaN or infinite")
        low, high = float(result.min()), float(result.max())
        require(
            low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE,
            f"the transform '{self.entry}' gives pixels from {low:.3g} to {high:.3g} for ones from "
            f"{float(to_float01(pixels).min()):.3g} to {float(to_float01(pixels).max()):.3g}: they must be in [0, 1]",
        )
        return result.float()


def stack_images(images: list[Any]) -> Any:  # noqa: ANN401 (whatever a person's code returns)
    """The images as one batch, or the first that is no such image, which a check then names."""
    first = images[0]
    if not isinstance(first, Tensor):
        return first
    other = next((image for image in images if not isinstance(image, Tensor) or image.shape != first.shape), None)
    return torch.stack(images) if other is None else other[None] if isinstance(other, Tensor) else other


def describe_kind(value: object) -> str:
    return (
        f"a tensor of {str(value.dtype).removeprefix('torch.')}" if isinstance(value, Tensor) else type(value).__name__
    )


def to_uint8(pixels: Shaped[Tensor, "n c h w"]) -> Shaped[Tensor, "n c h w"]:
    """Pixels in [0, 1] as uint8, rounded; uint8 passes through."""
    return pixels.mul(255).round_().clamp_(0, 255).to(torch.uint8) if pixels.is_floating_point() else pixels


def is_other_entry(entry: str) -> bool:
    """Whether an entry of `data.augment` is written as a transform of torchvision or of a person's own.

    >>> [is_other_entry(entry) for entry in ("crop:4", "RandomPerspective(p=1.0)", "jitter.py:Jitter")]
    [False, True, True]
    """
    return bool(own_transform_name(entry)) or LIBRARY_TRANSFORM.fullmatch(entry) is not None


def fill_entry(entry: str, code: OwnCode | None = None) -> str:
    """An entry with all options of its transform, so that a recipe does not depend on defaults that may change.

    Raises LabError for what is no such transform, or an option that it does not have.

    >>> fill_entry("RandomErasing(0.5, ratio=(1, 1))")
    'RandomErasing(p=0.5, scale=[0.02, 0.33], ratio=[1, 1], value=0.0, inplace=False)'
    """
    name, options = parse_entry(entry, code)
    return f"{name}({', '.join(f'{key}={plain_value(value)!r}' for key, value in options.items())})"


def parse_entry(entry: str, code: OwnCode | None = None) -> tuple[str, dict[str, Json]]:
    """The name of an entry's transform, and all its options."""
    require(
        len(entry) <= MAX_ENTRY_LENGTH, f"'{entry[:40]}...' is too long: give {MAX_ENTRY_LENGTH:,} characters at most"
    )
    match = (OWN_TRANSFORM if own_transform_name(entry) else LIBRARY_TRANSFORM).fullmatch(entry)
    if match is None:
        raise LabError(f"'{entry}' is not a transform: write it as it is called, such as Name(option=0.5)")
    name = match["name"]
    factory = find_transform(name, code)
    takes_options = inspect.isclass(factory) or inspect.isfunction(factory)
    positional, options = read_arguments(entry, match["arguments"] or "")
    given = ("pixels",) if inspect.isfunction(factory) else ()
    if not takes_options:
        require(not positional and not options, f"'{entry}': {name} is an object and takes no options")
        return name, {}
    signature = dict(list(inspect.signature(factory).parameters.items())[len(given) :])
    parameters = list(signature)
    require(
        len(positional) <= len(parameters),
        f"'{entry}': {name} takes {len(parameters)} options, and not {len(positional)}",
    )
    by_position = dict(zip(parameters, positional, strict=False))
    twice = next((key for key in by_position if key in options), None)
    require(twice is None, f"'{entry}': {twice} is given twice")
    options = by_position | options
    for key, parameter in signature.items():
        is_missing = parameter.default is parameter.empty and key not in options
        require(
            not is_missing or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD),
            f"'{entry}': {name} has no default for its option '{key}': write {name}({key}=...)",
        )
    return name, TORCHVISION.fill_options(name, options, given, code)


def read_arguments(entry: str, arguments: str) -> tuple[list[Json], dict[str, Json]]:
    """The arguments of a call by position and by name; they are read, and nothing is evaluated."""
    try:
        call = ast.parse(f"f({arguments})", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            raise ValueError
        positional = [plain_value(ast.literal_eval(value)) for value in call.args]
        by_name = {str(keyword.arg): plain_value(ast.literal_eval(keyword.value)) for keyword in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise LabError(f"'{entry}': write its options as in Name(option=0.5, other=[1, 2])") from error
    return positional, by_name


def plain_value(value: object) -> Json:
    """A tuple as a list, as recipes hold it."""
    return [plain_value(item) for item in value] if isinstance(value, list | tuple) else cast("Json", value)


def find_transform(name: str, code: OwnCode | None = None) -> PartFactory:
    """The class, function or other callable object that a name stands for. Raises LabError."""
    if not is_own_code(name):
        require(name in TORCHVISION.classes, f"unknown augmentation '{name}': {suggest_transform(name)}")
        return TORCHVISION.find(name)
    factory = TORCHVISION.load_own(name, code)
    require(
        callable(factory), f"'{name}' is not a transform: give a class, a function, or an object that can be called"
    )
    return cast("PartFactory", factory)


def build_other_transform(entry: str, code: OwnCode | None = None) -> OtherTransform:
    """The transform of an entry. Raises LabError if it cannot be made."""
    name, options = parse_entry(entry, code)
    factory = find_transform(name, code)
    if inspect.isfunction(factory):
        return as_transform(partial(factory, **options), entry, factory, code)
    function = TORCHVISION.build(name, code, [], options) if inspect.isclass(factory) else factory
    return as_transform(function, entry, function, code)


def as_transform(
    function: Callable[[Tensor], Any], entry: str, described: object, code: OwnCode | None = None
) -> OtherTransform:
    """A function as a transform; the attributes `on` and `per_image` say what it gets.

    torchvision's draw once for all that they get, so they get one image at a time.
    """
    require(callable(function), f"the transform '{entry}' gives {type(function).__name__}, which cannot be called")
    is_torchvision = type(function).__module__.startswith("torchvision.") or is_subclass_of_torchvision(function)
    on: Any = getattr(described, "on", "uint8" if is_torchvision else "float")
    per_image = getattr(described, "per_image", is_torchvision)
    require(on in ("float", "uint8"), f"the transform '{entry}' has on = {on!r}: say 'float' or 'uint8'")
    require(isinstance(per_image, bool), f"the transform '{entry}' has per_image = {per_image!r}: say True or False")
    return OtherTransform(entry, function, on, per_image, code)


def is_subclass_of_torchvision(function: object) -> bool:
    return any(base.__module__.startswith("torchvision.transforms") for base in type(function).__mro__)


def suggest_transform(name: str) -> str:
    """The nearest of our names and torchvision's, or what can be written."""
    usable = set(TORCHVISION.classes) - set(TORCHVISION.refused) if name[:1].isupper() else ()  # slow to import
    text = suggest(name, [*TRANSFORMS, *usable])
    if text.startswith("did you mean"):
        return text
    text = suggest(name, TRANSFORMS)
    return f"{text}, a class of {TORCHVISION.module} such as RandomPerspective(p=0.5), or your own as file.py:Name"
