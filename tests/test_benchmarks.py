"""Every benchmark runs: a script that nobody runs for a while calls names that are gone. What it measures is not looked at here."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
CIFAR10 = "CIFAR10"  # stands for the folder of the dataset
COMMANDS = {
    "correlation": ["--rounds", "1", "--seconds", "0.02"],
    "decisions": ["--studies", "20", "--adastop-studies", "2"],
    "decoders": ["--rounds", "1"],
    "fast": ["--data-dir", CIFAR10, "--runs", "runs", "--out", "out", "--seeds", "0", "--other-seeds", "0"],
    "fast_elsewhere": ["--data", "digits", "--seeds", "2"],
    "fast_steps": ["--steps", "1"],
    "footprint": ["--data-dir", CIFAR10, "--rounds", "1"],
    "inspection": ["--one", "integrated_gradients", "convolab"],
    "large_images": ["memory", "--gigabytes", "0.06"],
    "limits": ["--data-dir", CIFAR10, "--network", "shallow_net", "--steps", "2"],
    "neighbors": ["--data-dir", CIFAR10, "--rounds", "1", "--steps", "2", "--busy", "0", "--peers", "tutorial"],
    "precision": ["--data-dir", CIFAR10, "--seeds", "2", "--epochs", "1", "--network", "shallow_net"],
    "study": ["--data-dir", CIFAR10, "--one", "report"],
    "summary": ["--one", "convolab"],
    "training": ["--data-dir", CIFAR10, "--network", "shallow_net", "--steps", "2", "--ours", "fp32"],
    "winograd": ["--rounds", "1", "--steps", "1"],
}
NEEDS = {"decisions": "adastop", "fast_steps": "altair"}


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_a_benchmark_runs_from_its_first_line_to_its_last(name: str, cifar10_dir: Path, tmp_path: Path) -> None:
    if not find_spec(NEEDS.get(name, "torch")):
        pytest.skip(f"{NEEDS[name]} is not installed")
    arguments = [str(cifar10_dir) if argument == CIFAR10 else argument for argument in COMMANDS[name]]
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()


def test_every_benchmark_is_named_in_their_page() -> None:
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    scripts = [path for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text(encoding="utf-8")]
    assert [path.name for path in scripts if path.name not in page] == []
    assert COMMANDS.keys() <= {path.stem for path in scripts}
