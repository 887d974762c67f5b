"""Whether parts of somebody else's continue a training bit for bit: tried before it, at each saved state, at a resume.

A part that was used is compared with one that is new, as a resumed run makes it. What starts later than the trial
looks ahead, and a number that a module keeps for both, is seen by the samples: each saved state has some numbers that
the parts gave, and another process must get them again.
"""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from jaxtyping import Shaped
from torch import Tensor

from convolab.core.errors import LabError, require
from convolab.core.rng import make_generator
from convolab.core.text import join_with_and
from convolab.core.types import Json
from convolab.training.augmentation import depends_on_the_past, mixes_labels
from convolab.training.losses import OtherLoss, loss_depends_on_the_past, try_loss
from convolab.training.other_transform import OtherTransform
from convolab.training.torch_optim import TorchOptimizerState
from convolab.training.torch_schedule import OtherSchedule
from convolab.training.transforms import to_float01

if TYPE_CHECKING:
    from convolab.training.trainer import Trainer

PART_SAMPLES = "samples"  # the key of a saved state's metadata
NUM_TRIED_IMAGES = 8  # that the network is tried with
TOLERANCE = 1e-3  # relative; another processor or number of threads rounds otherwise


def require_exact(trainer: "Trainer") -> None:
    """Raise LabError, naming it, for a part of somebody else's that could not be resumed bit for bit: it is tried."""
    images, labels = trainer.first_batch()
    for transform in other_transforms(trainer):
        require(
            not depends_on_the_past(transform, images),
            f"the transform '{transform.entry}' gives other pixels for the same images and seed, so a stopped run could not "
            "be resumed bit for bit: let it draw from torch's, NumPy's or Python's global generator, which are seeded for "
            "it, and keep nothing from batch to batch; or set training.exact = false",
        )
    loss, num_classes, mixes = trainer.loss, len(trainer.train_set.classes), mixes_labels(trainer.transforms)
    if isinstance(loss, OtherLoss):
        require(
            not loss_depends_on_the_past(loss, trainer.loss_function, labels, num_classes, mixes=mixes),
            f"the loss '{loss.name}' gives other values for the same logits and seed, so a stopped run could not be resumed "
            "bit for bit: let it keep nothing from batch to batch, or set training.exact = false",
        )
    state, has_begun = trainer.optimizer_state, trainer.progress.epoch + trainer.progress.step > 0
    if first := trainer.first_network:
        pixels = to_float01(images[:NUM_TRIED_IMAGES].to(trainer.device))
        unsaved = first.find_unsaved(trainer.net, pixels, labels[:NUM_TRIED_IMAGES], is_tried=not has_begun)
        if unsaved:
            raise LabError(
                f"the network computes with {join_with_and(unsaved)}, which it changes while it is trained and keeps outside of its "
                "parameters and buffers, so a stopped run could not be resumed bit for bit: keep it with register_buffer, or set "
                "training.exact = false"
            )
    if isinstance(state, TorchOptimizerState) and (state.is_own or not has_begun):
        unsaved = state.describe_unsaved()
        require(
            unsaved is None,
            f"{state.what} keeps {unsaved} in its state, which a file cannot hold, so a stopped run could not be resumed bit "
            "for bit: keep tensors and numbers by parameter there, or set training.exact = false",
        )
        require(
            state.continues_exactly() if has_begun else state.resumes_exactly(),
            f"{state.what} keeps something outside its state (optimizer.state, as tensors and numbers), so a stopped run "
            "could not be resumed bit for bit: keep it there, or set training.exact = false",
        )


def other_transforms(trainer: "Trainer") -> list[OtherTransform]:
    return [transform for transform in trainer.transforms if isinstance(transform, OtherTransform)]


def samples_of_own_parts(trainer: "Trainer") -> dict[str, Json]:
    """Some numbers that the parts of somebody else's give, for the metadata of a saved state; nothing without any."""
    if not trainer.runs_own_code or trainer.training.exact is False:
        return {}
    return {PART_SAMPLES: dict(iterate_samples(trainer))}


def iterate_samples(trainer: "Trainer") -> Iterator[tuple[str, list[float]]]:
    """What each part is called, and numbers that it gives."""
    images, labels = trainer.first_batch()
    num_classes = len(trainer.train_set.classes)
    for transform in other_transforms(trainer):
        yield f"the transform '{transform.entry}'", summarize(transform(images, make_generator(0, "this batch")))
    if isinstance(trainer.loss, OtherLoss):
        mixes = mixes_labels(trainer.transforms)
        yield f"the loss '{trainer.loss.name}'", [try_loss(trainer.loss_function, labels, num_classes, mixes=mixes)]
    if trainer.image_weights is not None:
        yield "the sampling", summarize(trainer.image_weights)
    if trainer.validation_metric is not None:
        yield "the metric", [trainer.validation_metric(torch.eye(num_classes), torch.arange(num_classes))]
    if isinstance(trainer.schedule, OtherSchedule):
        # The rate of the last step that was done; more epochs in all may be another schedule.
        progress, epochs = trainer.progress, trainer.training.epochs
        steps_done = progress.epoch * trainer.steps_per_epoch + progress.step
        epoch, step = divmod(max(steps_done - 1, 0), trainer.steps_per_epoch)
        rate = trainer.rates(epoch, step, progress.history[:epoch])
        yield f"the schedule '{trainer.schedule.name}' of {epochs} epochs", [rate]
    state = trainer.optimizer_state
    if isinstance(state, TorchOptimizerState) and state.is_own:
        yield state.what, [number for tensor in state.look_ahead() for number in summarize(tensor)]


def summarize(values: Shaped[Tensor, "..."]) -> list[float]:
    """Two numbers that change with the values and with their order: their mean, and one weighted by place."""
    values = values.detach().double().nan_to_num().flatten()
    return [
        values.mean().item(),
        (values @ torch.linspace(0, 1, len(values), dtype=torch.double, device=values.device)).item() / len(values),
    ]


def require_same_parts(trainer: "Trainer", metadata: Mapping[str, Json]) -> None:
    """Raise LabError, naming it, for a part that does not give a restored training what it gave when that was saved."""
    if not trainer.runs_own_code or trainer.training.exact is False:
        return
    stored = metadata.get(PART_SAMPLES)
    stored = stored if isinstance(stored, Mapping) else {}
    advice = "so the run cannot go on bit for bit: start one whose parts depend on their input and the seed alone"
    for what, numbers in iterate_samples(trainer):
        before = stored.get(what)
        is_same = not isinstance(before, list) or (len(before) == len(numbers) and all(map(is_close, before, numbers)))
        require(is_same, f"{what} does not give what it gave when the state was saved, {advice}")


def is_close(first: object, second: float) -> bool:
    return isinstance(first, int | float) and math.isclose(first, second, rel_tol=TOLERANCE, abs_tol=1e-6)
