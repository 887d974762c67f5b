"""How much does the live display slow a training down?

    python benchmarks/display.py [--rounds 20] [--epochs 30]

trains simple_convnet on the bundled digits in one process, in turn with the display that a notebook has and with none,
in pairs whose order alternates. The front end is a stand-in that only keeps the HTML it is given: what is drawn and
how often is convolab's. Prints the median ratio of the pairs, in processor time of this process, because other work on
the machine changes that least.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import torch
from measure import processor, verdict

GOAL = 0.01  # of the training's time


class FrontEnd:
    """A notebook's output that is replaced in place."""

    def __init__(self) -> None:
        self.drawn = 0

    def update(self, page: object) -> None:
        self.drawn += 1


def training_seconds(is_shown: bool, epochs: int, front_end: FrontEnd) -> float:
    """Processor time of one training, the making of its folder included."""
    import IPython.display

    import convolab
    from convolab.reports import live
    from convolab.training.callbacks import Callbacks

    live.is_notebook = lambda: True
    IPython.display.display = lambda page, display_id: front_end
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        callbacks = None if is_shown else Callbacks()
        convolab.train("simple_convnet", epochs=epochs, out=Path(folder) / "run", callbacks=callbacks)
        return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # threads that wait for a busy core count as processor time
    front_end = FrontEnd()
    for is_shown in (False, True):  # imports, and the first drawing, which starts the renderer
        training_seconds(is_shown, 2, front_end)
    front_end.drawn = 0
    pairs = []
    for number in range(arguments.rounds):
        order = (True, False) if number % 2 else (False, True)
        seconds = {is_shown: training_seconds(is_shown, arguments.epochs, front_end) for is_shown in order}
        pairs.append((seconds[True], seconds[False]))
        print(f"shown {seconds[True]:.2f} s, plain {seconds[False]:.2f} s", file=sys.stderr, flush=True)
    ratios = [shown / plain for shown, plain in pairs]
    low, _, high = quantiles(ratios, n=4)
    plain = median(plain for _, plain in pairs)
    print(f"{processor()}; {arguments.rounds} pairs of {arguments.epochs} epochs, processor time\n")
    print(
        f"- without display: {plain:.2f} s; drawings in each shown training: {front_end.drawn / arguments.rounds:.1f}"
    )
    met = verdict(median(ratios) <= 1 + GOAL)
    print(f"- with display: {median(ratios):.3f} x (middle half {low:.3f} to {high:.3f}); goal {1 + GOAL:.2f} x: {met}")


if __name__ == "__main__":
    main()
