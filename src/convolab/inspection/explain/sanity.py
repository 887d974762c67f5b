"""Whether a map can be trusted: both checks of one map, and the checks of many images aggregated."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from convolab.core.errors import require
from convolab.core.types import Json, MessageCallback
from convolab.inspection.explain.deletion_insertion import (
    CONTROLS,
    CurvesByBaseline,
    PerturbationCurve,
    auc_gains,
    deletion_and_insertion,
    describe_curve,
)
from convolab.inspection.explain.methods import SaliencyMap, SaliencyMethod
from convolab.inspection.explain.randomization import (
    RandomizationTest,
    describe_randomization,
    remaining_similarity,
    run_randomization_test,
)
from convolab.inspection.types import SinglePixels
from convolab.models.classifier import ImageClassifier


@dataclass(frozen=True)
class SanityResult:
    """The checks of one map."""

    method: str
    randomization: RandomizationTest
    deletion: PerturbationCurve
    insertion: PerturbationCurve

    def to_dict(self) -> dict[str, Json]:
        return asdict(self)


def run_sanity_checks(
    net: ImageClassifier,
    pixels: SinglePixels,
    target: int,
    saliency_map: SaliencyMap,
    method: SaliencyMethod,
    *,
    seed: int = 0,
    random_order_curves: CurvesByBaseline | None = None,
    on_progress: MessageCallback = lambda message: None,
) -> SanityResult:
    """Check a map that a method made: on networks with randomized weights, and by deleting and inserting pixels.

    Args:
        net: the network, which stays as it is.
        pixels: one image, [1, C, H, W].
        target: the class's index.
        saliency_map: the map of this image and class.
        method: what made the map.
        seed: of random weights and controls.
        random_order_curves: what `curves_in_random_order` gives for this image, if it is known.
        on_progress: called with a line of text before each step.

    Returns:
        The maps' rank correlations with the map as weights are randomized, and the curves of deleting and inserting.

    Raises LabError for a map that is constant or not finite: there is nothing to check.
    """
    reason = saliency_map.invalid_reason
    require(not reason, f"the {saliency_map.method} map is {reason}: there is nothing to check")
    randomization = run_randomization_test(
        net, pixels, target, saliency_map.values, method, seed=seed, on_progress=on_progress
    )
    on_progress("deletion and insertion")
    deletion, insertion = deletion_and_insertion(
        net, pixels, target, saliency_map.values, seed=seed, random_order_curves=random_order_curves
    )
    return SanityResult(saliency_map.method, randomization, deletion, insertion)


def describe_sanity(result: SanityResult) -> list[str]:
    """The checks in words."""
    lines = (
        describe_randomization(result.randomization),
        describe_curve(result.deletion, "deletion"),
        describe_curve(result.insertion, "insertion"),
    )
    return [f"{result.method}: {line}" for line in lines]


def aggregate_sanity_checks(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each method's checks over several images, by method; empty for fewer than two images, or where nothing was checked.

    `results` are explain's metrics, one for each image. Of each method: the number of images, the gain in AUC over both
    controls, and what remains of the maps with randomized weights.
    """
    if len(results) < 2:
        return {}
    by_method = {}
    for method in dict.fromkeys(method for result in results for method in result["sanity"]):
        checks = [result["sanity"][method] for result in results if method in result["sanity"]]
        remaining = remaining_similarity([check["randomization"] for check in checks])
        by_method[method] = {
            "images": len(checks),
            "auc_gain_over": {
                control: {kind: asdict(gain) for kind, gain in auc_gains(checks, control).items()}
                for control in CONTROLS
            },
            "randomized_weights": {
                key: asdict(value) if is_dataclass(value) else value for key, value in remaining.items()
            },
        }
    return by_method
