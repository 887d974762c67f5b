"""Files of weights that a training starts from: nothing in them is executed, and their headers are checked."""

import json
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import safetensors.torch
import torch

from convolab.core.errors import LabError
from convolab.models.weights import read_torchvision_weights, read_weights_source


def test_a_pickle_in_torchs_cache_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import SqueezeNet1_1_Weights

    class Touch:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / Path(urlsplit(SqueezeNet1_1_Weights.DEFAULT.url).path).name
    cached.parent.mkdir(parents=True)
    torch.save({"a": Touch()}, cached)
    with pytest.raises(LabError, match="reading more would run its code: delete it") as caught:
        read_torchvision_weights("torchvision/squeezenet1_1")
    assert str(cached) in str(caught.value)
    assert "weights_only" not in str(caught.value), "torch advises to read it without, which would run it"
    assert not (tmp_path / "ran").exists()


def weights_file(folder: Path, **about: object) -> str:
    """A file of weights with a header as convolab writes it, but for what is given."""
    record = {"mean": [0.5], "std": [0.25], "classes": ["a", "b"], **about}
    path = folder / "weights.safetensors"
    safetensors.torch.save_file({"weight": torch.ones(2)}, path, {"about": json.dumps(record)})
    return str(path)


def test_the_header_of_a_file_says_its_normalization_and_its_classes(tmp_path: Path) -> None:
    weights = read_weights_source(weights_file(tmp_path, std=[1]), "simple_convnet")
    assert weights.normalization == ((0.5,), (1.0,))
    assert weights.classes == ("a", "b")


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"mean": 0.5}, "is damaged: mean"),
        ({"mean": ["much"]}, "is damaged: mean.0"),
        ({"std": "1"}, "is damaged: std"),
        ({"classes": 2}, "is damaged: classes"),
        ({"classes": [1, 2]}, "is damaged: classes.0"),
        ({"mean": [float("nan")]}, "holds a number that is not finite"),
        ({"std": [float("inf")]}, "holds a number that is not finite"),
        ({"mean": [], "std": []}, "it needs a mean and a standard deviation >= 0 for each channel"),
        ({"mean": [0.5, 0.5]}, "it needs a mean and a standard deviation >= 0 for each channel"),
        ({"std": [-1.0]}, "it needs a mean and a standard deviation >= 0 for each channel"),
    ],
)
def test_a_header_that_is_wrong_is_refused_in_one_line_that_names_the_file(
    tmp_path: Path, about: dict, message: str
) -> None:
    path = weights_file(tmp_path, **about)
    with pytest.raises(LabError) as caught:
        read_weights_source(path, "simple_convnet")
    assert str(caught.value).startswith(f"model.weights: {path} is damaged: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
