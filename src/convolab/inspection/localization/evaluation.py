"""Evaluate localization: responses compared with annotated boxes, and with maps that do not depend on the network."""

from collections.abc import Mapping, Sequence

import torch

from convolab.core.errors import require
from convolab.core.rng import make_generator
from convolab.core.types import MessageCallback
from convolab.inspection.explain.null_maps import sobel_edges
from convolab.inspection.localization.alignment import ALIGNMENT_KINDS, AlignmentKind, resize_alignment
from convolab.inspection.localization.dense import FullyConvolutional, Granularity, prove_on_image
from convolab.inspection.localization.metrics import energy_pointing_game, ious_by_threshold, pointing_game_hit
from convolab.inspection.localization.response import ScaleResult, run_at_scale
from convolab.inspection.localization.samples import EvaluationSample, EvaluationSetting, ObjectAnnotation
from convolab.inspection.localization.score import BASELINES, LocalizationScore, ScoreRecord
from convolab.inspection.types import Heatmap, UInt8Image


def evaluate_localization(
    fcn: FullyConvolutional,
    setting: EvaluationSetting,
    *,
    alignments: Sequence[AlignmentKind] = ALIGNMENT_KINDS,
    granularity: Granularity | None = None,
    seed: int = 0,
    on_progress: MessageCallback = lambda message: None,
) -> LocalizationScore:
    """Compare a network's responses with annotated boxes, for each way of aligning them and for the baselines.

    Args:
        fcn: the network, made fully convolutional: once for all settings.
        setting: the images, the objects in them, and the scales; responses at several scales are averaged.
        alignments: how cells map to pixels; each gives a map.
        granularity: whether responses are of cells or windows; by default cells, if the network averages its last map.
        seed: of the random baseline.
        on_progress: called with a line of text before each step.

    Returns:
        What each alignment's map and each baseline reached on every object.

    Raises LabError for a setting without images, and where `locate` would.
    """
    require(setting.samples, "there is no image to evaluate on")
    granularity = fcn.choose_granularity(granularity)
    records = []
    for number, sample in enumerate(setting.samples, start=1):
        on_progress(f"{setting.name}: image {number} of {len(setting.samples)}")
        image = sample.open_image()
        size = image.shape[1], image.shape[2]
        prove_on_image(fcn, image)
        results = [run_at_scale(fcn, image, scale, granularity) for scale in setting.scales]
        for annotation in sample.annotations:
            # Of several classes, such as breeds of dogs, the one that the network finds the most probable.
            target = max(annotation.classes, key=lambda index: float(results[0].logits[index]))
            heatmaps = {
                kind: torch.stack([result.upsampled_response(target, kind, size) for result in results]).mean(0)
                for kind in alignments
            }
            heatmaps |= baseline_maps(results[0], image, seed, sample.name, annotation.label)
            records.append(score_maps(sample, annotation, heatmaps))
    return LocalizationScore(setting, (*alignments, *BASELINES), tuple(records))


def baseline_maps(result: ScaleResult, image: UInt8Image, seed: int, *key: str) -> dict[str, Heatmap]:
    """Maps that do not depend on the network: the image's center, random cells, and the image's edges."""
    size = image.shape[1], image.shape[2]
    down, across = (1 - torch.linspace(-1, 1, side).abs() for side in size)
    cells = torch.rand(result.grid_shape, generator=make_generator(seed, "random response", *key))
    alignment = resize_alignment(result.fcn, size, result.grid_shape, "cell")
    edges = sobel_edges(image.unsqueeze(0).float() / 255, cells)
    return {
        "center": torch.minimum(down[:, None], across[None]),
        "random": alignment.upsample_to_image(cells, size),
        "edges": alignment.upsample_to_image(edges, size),
    }


def score_maps(sample: EvaluationSample, annotation: ObjectAnnotation, heatmaps: Mapping[str, Heatmap]) -> ScoreRecord:
    """Score several maps on the objects of one category."""
    boxes = annotation.boxes
    return ScoreRecord(
        sample.name,
        annotation.label,
        {name: pointing_game_hit(heatmap, boxes, sample.tolerance) for name, heatmap in heatmaps.items()},
        {name: energy_pointing_game(heatmap, boxes) for name, heatmap in heatmaps.items()},
        {name: ious_by_threshold(heatmap, boxes) for name, heatmap in heatmaps.items()},
    )
