"""Whether a network's probabilities are what they say: of all images at 80 %, are 80 % classified correctly?"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from convolab.core.rng import make_generator
from convolab.core.stats import wilson_interval

NUM_BINS = 15  # of equal width, as in Guo et al. 2017, arXiv:1706.04599
NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class ReliabilityBin:
    """The images whose most probable class has a probability in a range, its upper end included."""

    low: float
    high: float
    count: int
    confidence: float  # mean probability of the predicted class
    accuracy: float
    interval: tuple[float, float]  # Wilson's 95 % interval of the accuracy


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error (ECE), and the bins it is computed from; bins without an image are left out.

    The ECE of a calibrated network is above 0 too, because every bin holds a limited number of images: `chance_level`
    says how far. Only an ECE above it is evidence against the probabilities.
    """

    ece: float  # mean distance of accuracy and confidence over the bins, weighted by their images, in [0, 1]
    interval: tuple[float, float]  # of at least 95 %, of resampling the images
    chance_level: float  # what the ECE of a calibrated network with these probabilities exceeds once in 20 times
    mean_confidence: float
    bins: tuple[ReliabilityBin, ...]


def measure_calibration(confidences: Float[Tensor, "n"], correct: Bool[Tensor, "n"]) -> Calibration:
    """How far the probabilities of the predicted classes are from the fraction that is right.

    An ECE is biased upwards, so the quantiles of a bootstrap do not cover the true one. Here the interval is the ECE plus
    or minus what all bins together err by in 95 % of 1,000 resamplings of the images: it covers at least 95 %, because
    the ECE errs by no more than its bins do. The chance level draws whether each image is right with its own
    probability. Both are drawn alike each time.

    Args:
        confidences: probability of each image's predicted class.
        correct: whether that class is the true one.

    >>> sure = torch.full((100,), 0.9, dtype=torch.float64)
    >>> calibration = measure_calibration(sure, torch.arange(100) < 60)
    >>> round(calibration.ece, 4), calibration.ece > calibration.chance_level
    (0.3, True)
    """
    confidences = confidences.double()
    count = len(confidences)
    bin_of_image = ((confidences * NUM_BINS).ceil().long() - 1).clamp(0, NUM_BINS - 1)
    gaps = correct.double() - confidences
    sums = sum_by_bin(bin_of_image, gaps)
    ece = float(sums.abs().sum()) / count
    generator = make_generator(0, "calibration")
    errors, calibrated = [], []
    for _ in range(NUM_RESAMPLES):
        indices = torch.randint(count, (count,), generator=generator)
        errors.append(float((sum_by_bin(bin_of_image[indices], gaps[indices]) - sums).abs().sum()) / count)
        is_right = torch.rand(count, dtype=torch.float64, generator=generator) < confidences
        calibrated.append(float(sum_by_bin(bin_of_image, is_right.double() - confidences).abs().sum()) / count)
    error, chance_level = torch.tensor([errors, calibrated], dtype=torch.float64).quantile(0.95, dim=1).tolist()
    bins = []
    for index in range(NUM_BINS):
        members = bin_of_image == index
        if num_members := int(members.sum()):
            num_correct = int(correct[members].sum())
            bins.append(
                ReliabilityBin(
                    low=index / NUM_BINS,
                    high=(index + 1) / NUM_BINS,
                    count=num_members,
                    confidence=float(confidences[members].mean()),
                    accuracy=num_correct / num_members,
                    interval=wilson_interval(num_correct, num_members),
                )
            )
    return Calibration(
        ece=ece,
        interval=(max(ece - error, 0.0), min(ece + error, 1.0)),
        chance_level=chance_level,
        mean_confidence=float(confidences.mean()),
        bins=tuple(bins),
    )


def sum_by_bin(bin_of_image: Int64[Tensor, "n"], gaps: Float[Tensor, "n"]) -> Float[Tensor, "bins"]:
    """The sums over each bin's images of being right (0 or 1) minus confidence."""
    return torch.bincount(bin_of_image, weights=gaps, minlength=NUM_BINS)
