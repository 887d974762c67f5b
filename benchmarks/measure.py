"""What the benchmarks share: what the machine is and can do, contenders run in turn, medians and ratios in a table."""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

BUSY_ELSEWHERE = 0.1  # past this share of the machine, a figure taken beside other work is worth little
Results = dict[str, list[dict[str, Any]]]  # contender -> its JSON line of every round


def processor() -> str:
    """The model's name, its vector instructions and the cores this process may use, as `AMD EPYC (AVX-512, bf16), 2 cores`."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
        values = {key.strip(): value.strip() for key, _, value in reversed(fields)}
        name = values.get("model name", name)
        flags = values.get("flags", "").split()
        vectors = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else ""
        bf16 = "AMX bf16" if "amx_bf16" in flags else "bf16" if "avx512_bf16" in flags else ""
        if vectors:
            name = f"{name} ({', '.join(filter(None, (vectors, bf16)))})"
    return f"{name}, {cores()} cores"


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_mb() -> float:
    """The largest memory this process has had, in MB (10^6 bytes)."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes; elsewhere the system tells KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def matrix_peak(dtype, threads: int, side: int = 2048, trials: int = 8) -> float:
    """GFLOP/s of the best of a few square matrix products in a torch dtype; a product is 2 side^3 FLOPs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a, b = torch.randn(2, side, side).to(dtype)
        best = float("inf")
        for _ in range(trials):
            start = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return 2 * side**3 / best / 1e9


def in_rounds(contenders: Mapping[str, Sequence[str]], rounds: int) -> Results:
    """Run every contender's command once a round, each in a fresh process, and keep the last line it prints, as JSON.

    Every second round runs backwards, so a slow drift of the machine favours no one. Each line gains `elsewhere`, the
    share of the machine that other work took meanwhile (None where the system does not tell).
    Raises RuntimeError, with the end of its error output, for a contender that fails.
    """
    results: Results = {name: [] for name in contenders}
    for number in range(rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            results[name].append(run(name, contenders[name]))
    return results


def run(name: str, command: Sequence[str]) -> dict[str, Any]:
    """One command in a fresh process; the last line of its output, as JSON, with `elsewhere` (see `in_rounds`)."""
    start, machine, children = time.perf_counter(), busy_seconds(), children_seconds()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0 or not done.stdout.strip():
        raise RuntimeError(
            f"{name} failed with exit code {done.returncode}: {' '.join(command)}\n{done.stderr[-2000:]}"
        )
    wall = time.perf_counter() - start
    line = json.loads(done.stdout.strip().splitlines()[-1])
    if machine is None:
        return line | {"elsewhere": None}
    others = busy_seconds() - machine - (children_seconds() - children)
    return line | {"elsewhere": round(max(others, 0.0) / (wall * (os.cpu_count() or 1)), 3)}


def busy_seconds() -> float | None:
    """Processor time that everyone used since the start of the machine, what its host took away included; Linux only."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, stat.read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def medians(results: Results, key: str) -> dict[str, float]:
    return {name: median(line[key] for line in lines) for name, lines in results.items()}


def ratios(results: Results, ours: str, key: str) -> dict[str, float]:
    """How many times our figure is each contender's: the median over rounds of the ratio within a round."""
    return {
        name: median(us[key] / them[key] for us, them in zip(results[ours], lines, strict=True))
        for name, lines in results.items()
    }


def compare(results: Results, ours: str, key: str = "images_per_second") -> list[dict[str, Any]]:
    """A row a contender for `table`, the fastest first: median, range, our ratio to it, the busiest that others kept the machine."""
    middle, ratio, rows = medians(results, key), ratios(results, ours, key), []
    for name in sorted(results, key=middle.__getitem__, reverse=True):
        values = [line[key] for line in results[name]]
        elsewhere = [line["elsewhere"] for line in results[name] if line["elsewhere"] is not None]
        row = {
            "contender": name,
            key.replace("_", " "): f"{middle[name]:,.0f}",
            "range": f"{min(values):,.0f} to {max(values):,.0f}",
        }
        row[f"{ours} is"] = f"{ratio[name]:.2f} x"
        row["machine busy elsewhere"] = (
            f"{max(elsewhere):.0%}" + " (!)" * (max(elsewhere) > BUSY_ELSEWHERE) if elsewhere else "unknown"
        )
        rows.append(row)
    return rows


def verdict(is_met: bool) -> str:
    """Of a goal, in a word."""
    return "met" if is_met else "missed"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of the same keys as a Markdown table.

    >>> print(table([{"contender": "ours", "images/s": 9}]))
    | contender | images/s |
    |---|---|
    | ours | 9 |
    """
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])
