"""Networks of libraries, trained from scratch: runs like all others."""

import builtins
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.callbacks import stop_after
from support.run_contents import run_contents

from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.models.libraries import constructor_signature
from convolab.models.registry import build
from convolab.training.recipe import Recipe
from convolab.training.run import Run

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.slow]


@pytest.mark.parametrize("name", ["timm/test_resnet", "efficientnet_lite0"])
def test_a_run_of_a_librarys_network_resumes_bit_for_bit_and_is_tested(
    name: str, tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe({"model.name": name, "data.limit": 80, "training.batch_size": 20, "training.epochs": 2})
    expected = Run.start(recipe, digits, tmp_path / "whole")
    run = Run.start(recipe, digits, tmp_path / "stopped", callbacks=stop_after(3))
    Run(run.folder).resume()
    assert run_contents(run.folder) == run_contents(expected.folder)
    assert Run(run.folder).test(splits=digits).count == len(digits.test)
    assert Run(run.folder).recipe.to_dict()["model"] == {"name": name}


def test_images_that_a_librarys_network_does_not_take_are_refused_in_one_line(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe]
) -> None:
    recipe = make_recipe({"model.name": "torchvision/squeezenet1_1"})
    with pytest.raises(LabError, match="does not accept images of shape 1x8x8") as caught:
        Run.start(recipe, digits, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_of_a_librarys_network_without_the_library_is_listed_and_opens_with_one_line(
    tmp_path: Path, digits: DatasetSplits, make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(
        {"model.name": "timm/test_resnet", "data.limit": 40, "training.epochs": 1, "training.batch_size": 16}
    )
    run = Run.start(recipe, digits, tmp_path / "run")
    original_import = builtins.__import__

    def import_without_timm(name: str, *arguments: object, **options: object) -> object:
        if name.partition(".")[0] == "timm":
            raise ImportError("no timm")
        return original_import(name, *arguments, **options)

    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", import_without_timm)
    monkeypatch.setitem(sys.modules, "timm", None)
    again = Run(run.folder)
    assert again.status == "finished"
    assert again.recipe.model.name == "timm/test_resnet"
    with pytest.raises(LabError, match="needs timm, which is not installed: pip install timm"):
        again.net()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("timm/vit_tiny_patch16_224", {"depth": 100_000}, "100,000 layers by 'depth', and may have 500"),
        ("timm/convnext_atto", {"depths": [3, 3, 10**9, 3]}, "layers by 'depths', and may have 500"),
        ("timm/vit_tiny_patch16_224", {"embed_dim": 3_000_000, "num_heads": 1}, "parameters, and may have 500,000,000"),
        ("timm/vit_tiny_patch16_224", {"embed_dim": 10**12, "num_heads": 7}, "cannot be built: "),
        ("torchvision/vgg11", {"dropout": "x"}, "model.dropout = 'x'"),
    ],
)
def test_a_librarys_network_that_is_too_large_is_refused_before_it_is_built(
    name: str, options: dict[str, object], message: str
) -> None:
    constructor_signature(name)  # imports the library, which takes seconds
    started = time.monotonic()
    with pytest.raises(LabError, match=re.escape(message)):
        build(name, (3, 32, 32), 10, **options)
    assert time.monotonic() - started < 10
