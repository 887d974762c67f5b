"""What a run kept of its epochs, as images and words for the page."""

from typing import Any

from convolab.app.folders import RunsFolder
from convolab.app.run_rows import FILES
from convolab.reports.playback import describe_playback
from convolab.training.playback import FOLDER


def show_playback(folder: RunsFolder, name: str) -> dict[str, Any]:
    """A run's epochs: an image of the filters of each, and the most probable classes of each image."""
    return folder.cached("playback", name, (*FILES, FOLDER), lambda: describe_playback(folder.run(name).playback()))
