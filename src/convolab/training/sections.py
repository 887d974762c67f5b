"""The sections of a recipe that every training has: its data, its network, how long and how it is trained."""

import json
import reprlib
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from convolab.core.errors import require
from convolab.core.types import (
    Fraction,
    Frozen,
    Json,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    UnitInterval,
    ValidationContext,
    list_to_tuple,
    own_names,
    stored_sections,
)
from convolab.data.catalog import DEFAULT_SIZE, default_augmentation
from convolab.data.image_source import recipe_side
from convolab.models import registry
from convolab.models.weights import START_KEYS, sha256_of_weights
from convolab.training.augmentation import parse_transform, require_once
from convolab.training.other_transform import fill_entry, is_other_entry

MAX_EPOCHS = 100_000  # of a training: metrics.jsonl, written whole at each, then has what a JSON file may have


def check_entries(value: object) -> object:
    """Raise LabError for what is not a list of entries; a list becomes a tuple."""
    require(not isinstance(value, str), f"data.augment = {value!r}: give a list, such as [{json.dumps(value)}]")
    entries = list_to_tuple(value)
    for index, entry in enumerate(entries if isinstance(entries, tuple) else ()):
        require(
            isinstance(entry, str),
            f"data.augment.{index} = {reprlib.repr(entry)}: give a name, such as 'flip' or 'file.py:Name' (convolab.fit takes "
            "functions too)",
        )
    return entries


class Data(Frozen):
    """The dataset, and what is done to its images before a network gets them."""

    name: str = "digits"  # a published set, or one's own images: folder:PATH, csv:PATH ...
    validation: Fraction = 0.1  # fraction of the training images held out for validation
    limit: PositiveInt | None = None  # of the training images, those held out among them; the classes in proportion
    image_size: Annotated[int, AfterValidator(recipe_side)] = DEFAULT_SIZE  # side that one's own images are resized to
    augment: Annotated[tuple[str, ...], BeforeValidator(check_entries)] = ()  # left out: the default of the dataset

    @model_validator(mode="before")
    @classmethod
    def fill_augment(cls, values: object) -> object:
        if not isinstance(values, Mapping):
            return values
        default = default_augmentation(str(values.get("name", "digits")))  # called in any case: it checks the name
        return {"augment": default, **values}

    @field_validator("augment")
    @classmethod
    def check_augment(cls, entries: tuple[str, ...], info: ValidationContext) -> tuple[str, ...]:
        """Check the entries, and fill in the options of those that are not ours; a stored recipe has them all."""
        if "data" in stored_sections(info):
            return entries
        filled = [fill_entry(entry) if is_other_entry(entry) else entry for entry in entries]
        require_once([parse_transform(entry) for entry in filled], "data.augment")
        return tuple(filled)


def checked_start(values: Mapping[str, Json], network: str) -> dict[str, Json]:
    """What a new recipe's network starts from, with the SHA-256 of its weights.

    Raises LabError if there are no such weights, or others than the recipe's SHA-256 says.
    """
    weights, sha256, factor = (values.get(key) for key in ("weights", "weights_sha256", "pretrained_lr_factor"))
    require(weights or not factor, "model.pretrained_lr_factor needs weights: set model.weights, or leave it out")
    frozen = values.get("freeze")
    require(frozen is None or frozen, "model.freeze is empty: give a pattern of parameters, or leave it out")
    if not isinstance(weights, str):
        return {key: value for key, value in values.items() if key != "weights_sha256"}
    digest = sha256_of_weights(weights, network)
    require(
        sha256 in (None, digest),
        f"model.weights = {weights!r} has changed since the recipe was made: its SHA-256 is {digest[:12]}..., not "
        f"{str(sha256)[:12]}...: restore the file, or leave model.weights_sha256 out",
    )
    return {**values, "weights_sha256": digest}


class Model(BaseModel):
    """The network's name and its options, whatever they are: the network's own signature checks them."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    name: str = "simple_convnet"
    weights: str | None = None  # to start from: pretrained, a file or the folder of a run; omitted: from scratch
    weights_sha256: str | None = None  # of the weights; entered when a recipe is made
    freeze: Annotated[str | tuple[str, ...] | None, BeforeValidator(list_to_tuple)] = None  # patterns of parameters
    pretrained_lr_factor: PositiveFloat | None = None  # on the learning rate, for tensors that were taken

    @model_validator(mode="before")
    @classmethod
    def fill_options(cls, values: object, info: ValidationContext) -> object:
        """Fill in every option, so that a recipe does not depend on defaults that may change.

        A stored recipe has them all: of a network that is not convolab's they are taken as they are, and no code is run.
        """
        if not isinstance(values, Mapping):
            return values
        name = values.get("name", "simple_convnet")
        require(isinstance(name, str), f"model.name = {name!r}: give the network's name as a string")
        if "model" in stored_sections(info) and name not in registry.NETWORKS:
            return values
        start = {key: values[key] for key in START_KEYS if values.get(key) is not None}
        given = {key: value for key, value in values.items() if key != "name" and key not in START_KEYS}
        options = registry.resolve_options(name, given)
        for key in START_KEYS:
            require(
                key not in options,
                f"the network '{name}' has an option '{key}', which is a key of every recipe: rename the option",
            )
        if "model" not in stored_sections(info):
            start = checked_start(start, name)
        return {"name": name, **start, **options}

    def __dir__(self) -> list[str]:
        return own_names(self)

    @property
    def options(self) -> dict[str, Json]:
        """The network's options, without its name and what it starts from."""
        return dict(self.__pydantic_extra__ or {})


class Training(Frozen):
    """How the network is trained, whatever the network.

    Attributes:
        epochs: passes over the training images, 100,000 at most.
        batch_size: images in each step.
        seed: of the initial weights, the order of the images, their transforms and the layers that draw.
        precision: of the network's arithmetic; auto is bf16 where a trial of half a second is 1.2 times as fast in it, or on a
            graphics card that has it. On a processor without bf16 of its own bf16 is refused, and bf16_forced takes it nevertheless.
        winograd: compute 3x3 convolutions of 64 channels or more with a quarter of the multiplications, in fp32 on a processor;
            they round ten times as much. Not for second derivatives, nor with torch.utils.checkpoint.
        label_smoothing: probability that is spread evenly over all classes.
        clip_norm: largest L2 norm of the gradient of all parameters together.
        ema: decay per step of averaged weights, which are evaluated and kept; 0: the weights themselves.
        patience: stop after this many epochs without a better validation accuracy.
        goal: stop once the training accuracy of an epoch reaches this.
        exact: False takes parts of your own that cannot be resumed bit for bit; by default they are refused.

    >>> Training(epochs=30, patience=5).batch_size
    128
    """

    epochs: Annotated[PositiveInt, Field(le=MAX_EPOCHS)] = 10
    batch_size: PositiveInt = 128
    seed: NonNegativeInt = 0
    precision: Literal["fp32", "bf16", "auto", "bf16_forced"] = "fp32"
    # Off is None, which is not written, so that recipes from before there was this key keep their keys.
    winograd: Annotated[bool | None, AfterValidator(lambda given: given or None)] = None
    label_smoothing: Fraction = 0.0
    clip_norm: PositiveFloat | None = None
    ema: Fraction = 0.0
    patience: PositiveInt | None = None
    goal: UnitInterval | None = None
    exact: bool | None = None


class Metrics(Frozen):
    """How loss and accuracy are measured.

    Attributes:
        train: on the training images. running: the mean over the epoch's batches, as augmented, while the weights change;
            free. eval_pass: of the epoch's final weights, on the images as they are, like validation's; costs one more
            pass over the training set.
        test_views: the test is made a second time with the logits averaged over so many views of each image, see
            `AveragedViews`; takes as many times as long.
    """

    train: Literal["running", "eval_pass"] = "running"
    test_views: Literal[2, 6] | None = None
