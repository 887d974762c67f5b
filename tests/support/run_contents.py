"""What of a run can be compared with another run."""

import json
from pathlib import Path
from typing import Any

import torch

from convolab.training.checkpoint import read_tensors
from convolab.training.run import Run

TIME_KEYS = ("seconds", "train_seconds", "images_per_second")


def run_contents(folder: Path) -> dict[str, Any]:
    """All that a run left in its folder and that does not depend on the clock, bit for bit."""
    contents: dict[str, Any] = {
        "metrics": [without_times(json.loads(line)) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    }
    for name in ("best", "last", "state"):
        tensors, about = read_tensors(folder / f"{name}.safetensors")
        contents[name] = {
            k: (t.dtype, tuple(t.shape), t.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
            for k, t in tensors.items()
        }
        contents[f"about {name}"] = without_times(about) | {
            "history": [without_times(line) for line in about.get("history", [])]
        }
    if (folder / "test.json").exists():
        contents["test"] = {k: v for k, v in json.loads((folder / "test.json").read_text()).items() if k != "tested_at"}
    summary = Run(folder).summary
    contents["summary"] = {
        k: summary[k] for k in ("status", "recipe_key", "data", "num_parameters", "precision", "epochs_done")
    }
    return contents


def without_times(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if k not in TIME_KEYS}
