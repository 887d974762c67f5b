"""Studies of mapped images, and from weights, on a Ray that is started for them: the bits of the local executor."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.run_contents import run_contents

from convolab.data.catalog import load
from convolab.studies.executor import Executor
from convolab.studies.ray_executor import RayExecutor
from convolab.studies.runner import execute_study
from convolab.studies.study import Study
from convolab.training.recipe import Recipe
from convolab.training.run import Run

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'convolab[ray]'")
pytestmark = [pytest.mark.timing, pytest.mark.long]
SMALL = {"name": "simple_convnet", "channels": [4, 6]}
TRAINING = {"epochs": 1, "batch_size": 8}


def test_a_study_of_a_mapped_folder_of_images_that_starts_from_weights_has_the_same_bits_on_ray_and_no_copy_of_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_process: Executor
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("convolab.data.image_source.MAX_MEMORY_BYTES", 1)  # every set is decoded to the disk and mapped
    rng = np.random.default_rng(0)
    for number in range(40):
        path = Path("pets", "ab"[number % 2], f"{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    data = {"name": "folder:pets", "image_size": 8, "augment": ["flip"]}
    splits = load("folder:pets", image_size=8)
    assert splits.train.file_rows is not None
    source = Run.start(Recipe.from_dict({"data": data, "model": SMALL, "training": TRAINING}), splits, "source")
    arms = {"scratch": {}, "tuned": {"model.weights": str(source.folder)}}
    values = {
        "name": "start",
        "seeds": [0],
        "recipe": {"data": data, "model": SMALL, "training": TRAINING},
        "sections": {"start": {"arms": arms}},
    }
    handed_over: list[Any] = []
    put = ray.put
    monkeypatch.setattr(ray, "put", lambda value, *rest: handed_over.append(value) or put(value, *rest))
    here = execute_study(Study.from_dict(values), "here", executor=in_process)
    on_ray = execute_study(Study.from_dict(values), "on_ray", executor=RayExecutor(workers=1))
    assert [result.status for result in on_ray.trial_results.values()] == ["finished", "finished"]
    for name, result in here.trial_results.items():
        assert result.folder is not None
        other = on_ray.trial_results[name].folder
        assert other is not None
        assert run_contents(other) == run_contents(result.folder)
    assert handed_over == [(tmp_path / "on_ray" / ".images").resolve()]
