"""Run the tests marked `timing` many times, idle and beside two busy loops, and count the failures.

Those that are long too, which take minutes, are in every fifth round.

A test that waits for another process can pass by luck. `make flaky` shows whether it did.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack

BUSY_LOOP = [sys.executable, "-c", "while True: pass"]
LONG_EVERY = 5  # rounds
PYTEST = [
    sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider",
    "--tb=line", "-rfE",
]  # fmt: skip


def run_tests(paths: list[str], with_long: bool) -> tuple[dict[str, str], str]:
    """Run the timing tests once: those that failed, with the reason of each, and pytest's closing line."""
    marks = "timing" if with_long else "timing and not long"
    wide = os.environ | {"COLUMNS": "400"}  # else the reason of a failure is cut off
    result = subprocess.run([*PYTEST, "-m", marks, *paths], capture_output=True, text=True, env=wide)
    failed = dict(re.findall(r"^(?:FAILED|ERROR) (\S+)(.*)$", result.stdout, re.MULTILINE))
    closing_line = (result.stdout.strip().splitlines() or [result.stderr.strip()])[-1]
    if result.returncode and not failed:
        failed = {f"pytest ended with exit code {result.returncode}": ""}
    return failed, closing_line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="runs idle, and as many beside two busy loops")
    parser.add_argument("paths", nargs="*", default=["tests"], help="files or folders of tests; default: all")
    options = parser.parse_args()
    failures: Counter[str] = Counter()
    for condition, busy_loops in (("idle", 0), ("beside two busy loops", 2)):
        for number in range(1, options.times + 1):
            with ExitStack() as stack:
                for _ in range(busy_loops):
                    loop = stack.enter_context(subprocess.Popen(BUSY_LOOP))
                    stack.callback(loop.kill)
                start = time.monotonic()
                failed, closing_line = run_tests(options.paths, with_long=number % LONG_EVERY == 0)
            failures.update(f"{name} ({condition})" for name in failed)
            print(
                f"{condition}, {number} of {options.times}: {closing_line} ({time.monotonic() - start:.0f} s)",
                *map("".join, failed.items()),
                sep="\n  ",
                flush=True,
            )
    for name, count in failures.most_common():
        print(f"failed {count} of {options.times} times: {name}")
    print(f"{sum(failures.values())} failures in {2 * options.times} runs")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
