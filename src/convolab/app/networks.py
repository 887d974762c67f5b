"""The networks that the page looks into: bundled ones, runs below the folder, timm's; a few of them stay loaded."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from convolab.app.answers import PageCall, json_route
from convolab.app.folders import MAX_LISTED, file_signature
from convolab.core.errors import require
from convolab.core.escape import escape_line
from convolab.core.run_files import BEST_FILE, RECIPE_FILE, TEST_FILE

if TYPE_CHECKING:
    from convolab.models.classifier import ImageClassifier

RUN, TIMM = "run:", "timm/"  # how the names of runs and of timm's networks begin
# A network is loaded again when one of them changes; the test decides what it is cautious about.
RUN_FILES = (BEST_FILE, RECIPE_FILE, TEST_FILE)
MAX_LOADED = 6  # networks; the one that was used least recently goes
MAX_LOADED_BYTES = 1_000_000_000  # of their weights


class LoadedNetworks:
    """Networks in memory, bounded in number and bytes. Safe to use from several threads."""

    def __init__(self) -> None:
        self.nets: OrderedDict[object, ImageClassifier] = OrderedDict()
        self.loading: dict[object, threading.Lock] = {}
        self.lock = threading.Lock()

    def get(self, key: object, load: "Callable[[], ImageClassifier]") -> "ImageClassifier":
        """The network of a key; loaded if it is not here, once, however many ask for it."""
        with self.lock:
            if key in self.nets:
                self.nets.move_to_end(key)
                return self.nets[key]
            turn = self.loading.setdefault(key, threading.Lock())
        with turn:
            net = self.nets.get(key) or load()
            with self.lock:
                self.loading.pop(key, None)
                self.nets[key] = net
                self.nets.move_to_end(key)
                while len(self.nets) > 1 and (len(self.nets) > MAX_LOADED or self.num_bytes > MAX_LOADED_BYTES):
                    self.nets.popitem(last=False)
            return net

    @property
    def num_bytes(self) -> int:
        """Of all weights."""
        return sum(tensor.nbytes for net in self.nets.values() for tensor in net.state_dict().values())


@dataclass(frozen=True)
class ChosenNetwork:
    """A network that a person chose."""

    source: str  # as a command or Python takes it
    net: "ImageClassifier"


def chosen_network(call: PageCall, value: str) -> ChosenNetwork:
    """The network of a name; empty: the usual one. Raises LabError for one that is not here or cannot be loaded."""
    from convolab.arguments import resolve_classifier
    from convolab.models.pretrained import DEFAULT_NETWORK

    if value.startswith(RUN):
        run = call.app.runs.run(value.removeprefix(RUN))
        signature = tuple(file_signature(run.folder / name) for name in RUN_FILES)
        net = call.app.networks.get((value, signature), lambda: resolve_classifier(run))
        return ChosenNetwork(str(run.folder), net)
    name = require_network_name(value or DEFAULT_NETWORK)
    return ChosenNetwork(name, call.app.networks.get(name, lambda: resolve_classifier(name)))


def require_network_name(name: str) -> str:
    """The name of a bundled network or one of timm's. Raises LabError for anything else, such as a path."""
    from convolab.models.pretrained import BUNDLED_NETWORKS

    word = name.removeprefix(TIMM)
    is_timm = name.startswith(TIMM) and len(word) <= 200 and word.replace("_", "").replace(".", "").isalnum()
    require(
        name in BUNDLED_NETWORKS or is_timm,
        f"'{escape_line(name, 80)}' is not a network of this page: choose one of {', '.join(BUNDLED_NETWORKS)}, a run, "
        "or timm/ and the name of one of timm's",
    )
    return name


def offer_networks(call: PageCall) -> dict[str, Any]:
    """What a person may choose from."""
    from convolab.models.pretrained import BUNDLED_NETWORKS

    folder = call.app.runs
    runs = [name for name in folder.latest() if (folder.root / name / BEST_FILE).is_file()]
    return {
        "bundled": list(BUNDLED_NETWORKS),
        "runs": [{"value": RUN + name, "name": name} for name in runs[:MAX_LISTED]],
        "left_out": len(runs[MAX_LISTED:]),
        "timm": find_spec("timm") is not None,
    }


def open_network(call: PageCall) -> dict[str, Any]:
    """Load a network, so that the next click need not wait for it, and say what it knows."""
    chosen = chosen_network(call, call.text("net"))
    height, width = chosen.net.input_size
    about = f"{len(chosen.net.classes):,} classes, {width} x {height} pixels, {chosen.net.channels} channels"
    return {
        "source": chosen.source,
        "classes": list(chosen.net.classes),
        "size": [height, width],
        "about": about,
        "caution": chosen.net.caution,
    }


NETWORK_ROUTES = (json_route("/api/networks/list", offer_networks), json_route("/api/networks/open", open_network))
