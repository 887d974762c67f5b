"""How much faster is a circular correlation by FFT than by its definition?

    python benchmarks/correlation.py [--rounds 3] [--seconds 10]

times the FFT at every length from 2^4 to 2^20, and each direct form as far as it goes within `--seconds` and memory, in one
process and in turn; a direct form's time beyond its largest feasible n is scaled by n^2. All run on one thread, and what is
counted is the processor's time, so that other work on the machine does not count. The direct forms are our definition
(a product and a sum for each output), our circulant matrix, torch's own conv1d on the signal repeated, and NumPy's correlate.
"""

import argparse
import gc
import os
import time
from collections.abc import Callable
from statistics import median

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when NumPy is imported

import numpy as np
import torch
from measure import processor, table, verdict
from torch import Tensor
from torch.nn.functional import conv1d

from convolab.theory.correlation import correlate, correlate_circulant, correlate_direct

GOAL = 100.0  # times the fastest direct form's scaled time, at the largest length
LENGTHS = [2**power for power in range(4, 21)]
MEMORY = 2**30  # bytes that a circulant matrix, or its index, may take


def by_torch(x: Tensor, y: Tensor) -> Tensor:
    return conv1d(torch.cat([y, y[:-1]])[None, None], x[None, None])[0, 0]


def by_numpy(x: Tensor, y: Tensor) -> Tensor:
    twice = y.numpy()
    return torch.from_numpy(np.correlate(np.concatenate([twice, twice[:-1]]), x.numpy(), "valid"))


DIRECT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "definition, a loop of products": correlate_direct,
    "circulant matrix": correlate_circulant,
    "torch's conv1d": by_torch,
    "NumPy's correlate": by_numpy,
}


def signals(n: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(n)
    return torch.randn(n, generator=draw), torch.randn(n, generator=draw)


def seconds(form: Callable[[Tensor, Tensor], Tensor], n: int, rounds: int) -> float:
    """The median over rounds of one call's time; a call too short for the clock is repeated."""
    x, y = signals(n)
    start = time.process_time()
    z = form(x, y)
    first = time.process_time() - start
    assert (z - correlate(x, y)).norm() <= 1e-4 * z.norm(), "the forms disagree"
    if first > 1:
        return first
    repeats, times = max(1, round(0.01 / max(first, 1e-6))), []
    for _ in range(rounds):
        start = time.process_time()
        for _ in range(repeats):
            form(x, y)
        times.append((time.process_time() - start) / repeats)
    return median(times)


def feasible(name: str, n: int) -> bool:
    return name != "circulant matrix" or 8 * n * n <= MEMORY


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="the longest that one direct call may take")
    given = parser.parse_args()
    torch.set_num_threads(1)
    taken: dict[str, dict[int, float]] = {name: {} for name in ("FFT", *DIRECT)}
    for n in LENGTHS:
        taken["FFT"][n] = seconds(correlate, n, given.rounds)
        for name, form in DIRECT.items():
            # Twice the length takes four times as long, so the next one is known before it is tried.
            last = taken[name].get(n // 2, 0.0 if n == LENGTHS[0] else float("inf"))
            if 4 * last <= given.seconds and feasible(name, n):
                taken[name][n] = seconds(form, n, given.rounds)
                gc.collect()
    longest, rows = LENGTHS[-1], []
    print(
        f"{processor()}; one thread, processor time, float32; {given.rounds} rounds, direct calls of up to {given.seconds:g} s\n"
    )
    for name in DIRECT:
        largest = max(taken[name])
        scaled = taken[name][largest] * (longest / largest) ** 2
        crossover = next((n for n in LENGTHS if n in taken[name] and taken["FFT"][n] < taken[name][n]), None)
        rows.append(
            {
                "direct form": name,
                "largest n tried": f"{largest:,}",
                "there, s": f"{taken[name][largest]:.3g}",
                "FFT there, s": f"{taken['FFT'][largest]:.2g}",
                f"scaled to {longest:,}, s": f"{scaled:,.0f}",
                "FFT is": f"{scaled / taken['FFT'][longest]:,.0f} x",
                "FFT faster from n =": f"{crossover:,}" if crossover else "nowhere tried",
            }
        )
    print(table(rows))
    worst = min(float(row["FFT is"].rstrip(" x").replace(",", "")) for row in rows)
    print(f"\n- FFT at n = {longest:,}: {taken['FFT'][longest] * 1000:.1f} ms")
    print(f"- {worst:,.0f} x the fastest direct form (goal {GOAL:g} x: {verdict(worst >= GOAL)})")


if __name__ == "__main__":
    main()
