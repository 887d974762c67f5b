"""The network that a lens looks through, by one word: here runs and lenses meet, which do not know each other."""

from pathlib import Path
from typing import TYPE_CHECKING

from convolab.core.errors import LabError, nearest

if TYPE_CHECKING:
    from convolab.models.classifier import PixelNet


def find_net(word: str) -> "PixelNet":
    """A pretrained network by name (`efficientnet_lite0`, `timm/NAME`) or the best weights of a run by its folder; strict, in evaluation.

    Raises LabError for a word that is neither, and for a run without weights.
    """
    from convolab.models.pretrained import EMBEDDED, pretrained, ready

    if word in EMBEDDED or word.startswith("timm/"):
        return pretrained(word)
    if Path(word).is_dir():
        from convolab.training.run import Run

        return ready(Run(word).net())
    raise LabError(
        f"there is no network and no run's folder '{word}': {nearest(word, EMBEDDED)} (or timm/NAME, or a folder that convolab train has made)"
    )
