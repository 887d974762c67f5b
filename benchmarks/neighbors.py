"""How fast does a training stay while other programs use the processor?

    python benchmarks/neighbors.py --data-dir DIR [--rounds 3] [--steps 60] [--busy 0 1 2 4] [--peers tutorial skorch]

trains simple_convnet on CIFAR-10 beside 0, 1, 2 and 4 programs that each keep a core busy: as the command line does, which
takes as many threads as cores are free when it begins; with torch's own number of threads; with one thread; and as the
peers do. Every contender is a fresh process, in rounds whose order alternates. Prints a table for each number of busy
programs, and whether the goals are met.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from measure import compare, cores, in_rounds, medians, processor, ratios, table, verdict

OURS, ALL_THREADS, ONE_THREAD = "convolab", "convolab, all threads", "convolab, one thread"
BUSY_LOOP = [sys.executable, "-c", "while True: pass"]
IDLE_LOSS = 0.03  # at most, of the speed with all threads
SHARE_OF_A_CORE, SHARE_OF_IDLE = 0.75, 0.6  # of one thread's speed on the idle machine, or of ours, whichever is more


@contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """Programs that each take a core for as long as the block lasts."""
    with ExitStack() as stack:
        for _ in range(count):
            loop = stack.enter_context(subprocess.Popen(BUSY_LOOP))
            stack.callback(loop.kill)
        time.sleep(1.0)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder that holds cifar-10-batches-py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="batches timed in each process")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2, 4], help="numbers of busy programs")
    parser.add_argument("--peers", nargs="+", default=["tutorial", "skorch"])
    given = parser.parse_args()
    here, common = Path(__file__).parent, ["--data-dir", str(given.data_dir), "--steps", str(given.steps)]
    ours = [sys.executable, str(here / "training.py"), *common, "--network", "simple_convnet", "--ours", "fp32"]
    contenders = {
        OURS: ours,
        ALL_THREADS: ["env", f"OMP_NUM_THREADS={cores()}", *ours],
        ONE_THREAD: ["env", "OMP_NUM_THREADS=1", *ours],
        **{name: [sys.executable, str(here / "peers.py"), name, *common] for name in given.peers},
    }
    print(f"{processor()}; {given.rounds} rounds of {given.steps} batches of 128\n")
    idle: dict[str, float] = {}
    for busy in given.busy:
        with busy_programs(busy):
            results = in_rounds(contenders, given.rounds)
        print(f"### beside {busy} busy programs\n\n{table(compare(results, OURS))}\n")
        rates = medians(results, "images_per_second")
        if busy == 0:
            idle = rates
            loss = 1 - ratios(results, OURS, "images_per_second")[ALL_THREADS]
            print(f"- idle loss: {loss:.1%} ({verdict(loss <= IDLE_LOSS)}: at most {IDLE_LOSS:.0%})\n")
        elif busy == 1 and idle:
            goal = max(SHARE_OF_A_CORE * idle[ONE_THREAD], SHARE_OF_IDLE * idle[OURS])
            print(f"- {rates[OURS]:,.0f} images/s, {rates[OURS] / idle[OURS]:.0%} of idle ({verdict(rates[OURS] >= goal)}: {goal:,.0f})\n")  # fmt: skip
        best = max(rates[name] for name in given.peers)
        print(
            f"- {rates[OURS] / best:.2f} x the best peer ({verdict(rates[OURS] >= best)}: at least 1 x)\n", flush=True
        )


if __name__ == "__main__":
    main()
