"""The network that a command inspects: a pretrained one by name, or a trained run's. Only here do the two meet."""

from pathlib import Path
from typing import TYPE_CHECKING

from convolab.core.errors import LabError, suggest

if TYPE_CHECKING:
    from convolab.models.classifier import ImageClassifier


def load_network(name: str) -> "ImageClassifier":
    """A pretrained network by name (`efficientnet_lite0`, `timm/NAME`), or the best weights of a run by its folder.

    It is in evaluation mode and validates its inputs. While it is loaded, the client of timm's hub is silent and does
    not wait for a hub that cannot be reached.

    Raises LabError for a name that is neither, and for a run without weights.
    """
    from convolab.models.inference import freeze_for_inference
    from convolab.models.pretrained import BUNDLED_NETWORKS, offline_if_unreachable, pretrained
    from convolab.models.resolve import split_library

    if name in BUNDLED_NETWORKS:
        return pretrained(name)
    if split_library(name)[0] == "timm":
        with offline_if_unreachable():
            return pretrained(name)
    if Path(name).is_dir():
        from convolab.training.run import Run

        return freeze_for_inference(Run(name).net())
    raise LabError(
        f"'{name}' is neither a pretrained network nor the folder of a run: {suggest(name, BUNDLED_NETWORKS)} "
        "(or timm/NAME, or a folder that convolab train has made)"
    )
