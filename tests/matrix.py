"""Run the fast tests with each Python and torch that this machine can install, and print the table of docs/install.md.

Each combination gets a virtual environment of its own under .matrix/, which is deleted after the tests; their output is
kept. A combination that cannot be installed is named with its reason and left out of the table: the table holds only
what was run.
"""

import datetime
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
OLDEST_TORCH = ("2.9.1", "0.24.1")  # torch, and the torchvision made for it; the lower bound in pyproject.toml
NEWEST_TORCH = ("", "")  # whatever pip finds
FAST = "not slow and not timing and not long"


def find_python(version: str) -> str | None:
    """The path of a Python of this version, on PATH or among pyenv's; None if there is none."""
    candidates = [f"python{version}", *sorted(map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))]
    for candidate in candidates:
        path = shutil.which(candidate)
        code = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
        if path and subprocess.run([path, "-c", code], capture_output=True, text=True).stdout.strip() == version:
            return path
    return None


def run_combination(python: str, version: str, torch: str, torchvision: str) -> str:
    """Install and test one combination: a row of the table, or why there is none."""
    folder = ROOT / ".matrix" / f"python{version}-torch-{torch or 'newest'}"
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    requirements = [f"torch=={torch}", f"torchvision=={torchvision}"] if torch else ["torch", "torchvision"]
    for command in (
        [python, "-m", "venv", str(folder)],
        [*pip, *requirements],
        [*pip, f"{ROOT}[most,test]", *requirements],
    ):
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            return f"Python {version}, torch {torch or 'newest'}: not installed: {(result.stderr.strip().splitlines() or ['?'])[-1]}"
    code = "import torch, platform; print(platform.python_version(), torch.__version__)"
    full_python, full_torch = subprocess.run(
        [str(folder / "bin" / "python"), "-c", code], capture_output=True, text=True
    ).stdout.split()
    tests = subprocess.run(
        [str(folder / "bin" / "python"), "-m", "pytest", "-n", "2", "-m", FAST, "--ignore=tests/oracles", "-W", "default", "tests"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    closing_line = re.sub(r"[= ]*([^=]*?)[= ]*$", r"\1", (tests.stdout.strip().splitlines() or ["?"])[-1])
    shutil.rmtree(folder)  # it takes gigabytes
    folder.with_name(f"{folder.name}.log").write_text(tests.stdout + tests.stderr)
    return f"| {full_python} | {full_torch} | {sys.platform} | {closing_line} | {datetime.date.today()} |"


def main() -> None:
    print("| Python | torch | system | fast tests | day |\n|---|---|---|---|---|")
    for version in PYTHONS:
        python = find_python(version)
        if python is None:
            print(f"Python {version}: not on this machine", flush=True)
            continue
        for torch, torchvision in (OLDEST_TORCH, NEWEST_TORCH):
            print(run_combination(python, version, torch, torchvision), flush=True)


if __name__ == "__main__":
    main()
