"""The network that a lens looks through, by one word: here runs and lenses meet, which do not know each other."""

from pathlib import Path
from typing import TYPE_CHECKING

from convolab.core.errors import LabError, suggest

if TYPE_CHECKING:
    from convolab.models.classifier import ImageClassifier


def load_network(name: str) -> "ImageClassifier":
    """A pretrained network by name (`efficientnet_lite0`, `timm/NAME`) or the best weights of a run by its folder; strict, in evaluation.

    Raises LabError for a word that is neither, and for a run without weights.
    """
    from convolab.models.pretrained import BUNDLED_NETWORKS, freeze_for_inference, pretrained

    if name in BUNDLED_NETWORKS or name.startswith("timm/"):
        return pretrained(name)
    if Path(name).is_dir():
        from convolab.training.run import Run

        return freeze_for_inference(Run(name).net())
    raise LabError(
        f"there is no network and no run's folder '{name}': {suggest(name, BUNDLED_NETWORKS)} (or timm/NAME, or a folder that convolab train has made)"
    )
