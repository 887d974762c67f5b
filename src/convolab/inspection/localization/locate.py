"""Where in a large image an object is, by a network that was trained on small ones.

The last feature map before average pooling has a score for a class in each of its cells (Zhou et al. 2016,
arXiv:1512.04150), on images of any size and at several scales; `alignment` maps its cells to pixels.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from convolab.core.errors import require
from convolab.core.types import MessageCallback
from convolab.data import image_io
from convolab.inspection.localization.alignment import AlignmentKind, parse_alignment
from convolab.inspection.localization.dense import (
    FullyConvolutional,
    make_fully_convolutional,
    parse_granularity,
    prove_on_image,
)
from convolab.inspection.localization.detection import detect_class, make_canvas
from convolab.inspection.localization.erf_offset import erf_offset
from convolab.inspection.localization.finding import build_locate_finding
from convolab.inspection.localization.input_scale import InputScale, parse_scales
from convolab.inspection.localization.response import run_at_scale
from convolab.inspection.localization.sliding_window import compare_with_sliding_window
from convolab.inspection.result import Finding
from convolab.inspection.types import UInt8Image
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import top_classes

DEFAULT_ALIGNMENT: AlignmentKind = "erf"
DEFAULT_BOX_THRESHOLD = 0.3  # of the map's largest value: docs/localization.md shows how it was chosen


def locate_objects(
    net: ImageClassifier,
    image: UInt8Image | Path | str,
    *,
    targets: Sequence[str | int] = (),
    top: int = 1,
    scales: str = "1",
    alignment: str = DEFAULT_ALIGNMENT,
    threshold: float = DEFAULT_BOX_THRESHOLD,
    granularity: str | None = None,
    sliding_window_check: bool = False,
    image_name: str | None = None,
    on_progress: MessageCallback = lambda message: None,
) -> Finding:
    """Find objects of some classes in an image of any size: a response and boxes for each class.

    The network is left as it was. Several threads may use it at a time, as long as nobody changes its weights (see
    `inference_view` for a network that cannot be copied).

    Args:
        net: a network whose last feature map is averaged or flattened and then classified by one linear layer.
        image: uint8 [C, H, W], or a sample's name, a path or an http(s) URL as `read_image` takes it.
        targets: classes, as `ImageClassifier.find_class` takes them; without any, the `top` most probable ones.
        top: the number of most probable classes, where there are no `targets`.
        scales: comma-separated sizes at which the network sees the image: factors (0.5) or shorter sides (448px).
            The responses at several scales are averaged.
        alignment: how cells map to pixels: `erf` (by the effective receptive field, measured once per network and
            kept in convolab's cache), `rf-center` or `resize`.
        threshold: a box is a connected region of the response above this fraction of its largest value, in (0, 1].
        granularity: whether the response is of each `cell` of the last map, or of each `window` of the network's own
            input size; by default cells, if the network averages its last map.
        sliding_window_check: compare the dense map with windows cropped and classified one by one. Slow.
        image_name: what the summary calls the image; by default its file's name.
        on_progress: called with a line of text before each step.

    Returns:
        A `Finding` whose metrics["classes"] holds for each class its probability in the whole image and its detections,
        in pixels of the original image (left, top, right, bottom), and whose arrays hold the raw responses [rows,
        columns].

    Raises LabError for an unknown class, scale, alignment or granularity, an image that is too small or too large, a
    network without such a feature map and head, and numbers that are not finite.

    >>> from convolab.models.pretrained import pretrained
    >>> net = pretrained("efficientnet_lite0")
    >>> finding = locate_objects(net, "motorcycle_left", targets=["moped"], alignment="resize")
    >>> finding.metrics["classes"]["moped"]["detections"][0]["box"]
    [127, 62, 695, 461]
    """
    require_threshold(threshold)
    require(top >= 1, f"the top {top} classes: give at least 1")
    kind = parse_alignment(alignment)
    target_indices = [net.find_class(target) for target in targets]
    parsed_scales = parse_scales(scales)
    parsed_granularity = None if granularity is None else parse_granularity(granularity)
    fcn = make_fully_convolutional(net)
    unit = fcn.choose_granularity(parsed_granularity)
    name = image_name or (Path(image).stem if not isinstance(image, Tensor) else "the image")
    photo = image if isinstance(image, Tensor) else image_io.read_image(image)

    for scale in parsed_scales:
        scale.require_size((photo.shape[1], photo.shape[2]))
    prove_on_image(fcn, photo, target_indices)
    scale_results = []
    for scale in parsed_scales:
        on_progress(f"running at scale {scale}")
        scale_results.append(run_at_scale(fcn, photo, scale, unit))
    if kind == "erf":
        on_progress("measuring the effective receptive field (once per network)")
        erf_offset(fcn)
    if not target_indices:
        mean_probabilities = torch.stack([result.logits.softmax(0) for result in scale_results]).mean(0)
        target_indices = [top_class.index for top_class in top_classes(net.classes, mean_probabilities, top)]
    canvas = make_canvas(photo)
    classes = [detect_class(scale_results, canvas, target, kind, threshold) for target in target_indices]
    finding = build_locate_finding(name, canvas, scale_results, classes, kind, threshold)
    return (
        with_sliding_window_check(finding, fcn, photo, parsed_scales, on_progress) if sliding_window_check else finding
    )


def require_threshold(threshold: float) -> None:
    """Raise LabError for a threshold that is not a fraction."""
    require(
        0 < threshold <= 1,
        f"the threshold is {threshold:g}: give a fraction of the largest value, above 0 and at most 1",
    )


def with_sliding_window_check(
    finding: Finding,
    fcn: FullyConvolutional,
    image: UInt8Image,
    scales: Sequence[InputScale],
    on_progress: MessageCallback,
) -> Finding:
    """The finding, and how the dense map compares with a sliding window at each scale."""
    checks = {}
    lines = []
    for scale in scales:
        comparison = compare_with_sliding_window(fcn, scale.prepare_input(fcn.net, image), on_progress)
        checks[str(scale)] = comparison.to_dict()
        lines.append(f"scale {scale}, {comparison}")
    metrics = finding.metrics | {"sliding_window_check": checks}
    return replace(finding, summary=(*finding.summary, *lines), metrics=metrics)
