"""A run's network for other programs."""

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import convolab
from convolab.core.errors import LabError
from convolab.core.outputs import is_own_output, write_output
from convolab.data.splits import DatasetSplits
from convolab.models.classifier import ImageClassifier
from convolab.reports import network_export
from convolab.reports.network_export import export_onnx, export_timm, export_torch
from convolab.training.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return convolab.train("simple_convnet", epochs=1, out=tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="module")
def splits() -> DatasetSplits:
    return convolab.load("digits")


@pytest.mark.long
def test_an_exported_program_gives_the_runs_logits_without_convolab_and_holds_no_pickle(run, splits, tmp_path) -> None:
    path = tmp_path / "net.pt2"
    for _ in range(2):  # the second one replaces its own
        assert "without convolab: the logits are the run's" in export_torch(run, path, splits)
    images = splits.test.images[:7] / 255
    torch.save(images, tmp_path / "images.pt")
    code = (
        "import sys; sys.modules['convolab'] = None; import torch; extra = {'about.json': ''}; "
        f"net = torch.export.load({str(path)!r}, extra_files=extra).module(); "
        f"torch.save(net(torch.load({str(tmp_path / 'images.pt')!r})), {str(tmp_path / 'logits.pt')!r}); "
        "print(extra['about.json'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["classes"] == list(splits.test.classes)
    with torch.no_grad():
        expected = run.net()(images)
    assert torch.allclose(torch.load(tmp_path / "logits.pt"), expected, atol=1e-5)
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if archive.read(name)[:1] == b"\x80"]


def test_what_checks_an_export_imports_nothing_of_the_current_folder(
    run, splits, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("torch", "numpy", "io"):
        Path(f"{name}.py").write_text("import pathlib\npathlib.Path('imported').touch()\n")
    export_torch(run, tmp_path / "net.pt2", splits)
    assert not Path("imported").exists()


def test_an_export_with_other_logits_is_not_written(run, splits, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_export, "load_elsewhere", lambda path, pixels: torch.zeros(len(pixels), 10))
    with pytest.raises(LabError, match=r"gives other logits than the run: .* nothing was written"):
        export_torch(run, tmp_path / "net.pt2", splits)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("export", "name"), [(export_torch, "net.pth"), (export_onnx, "net.pt2")])
def test_another_ending_is_refused(run, splits, tmp_path, export: Callable[..., str], name: str) -> None:
    with pytest.raises(LabError, match="give a name that ends in"):
        export(run, tmp_path / name, splits)


@pytest.mark.skipif(not (find_spec("onnx") and find_spec("onnxscript")), reason="onnx and onnxscript are not installed")
def test_an_onnx_file_has_the_classes_and_any_number_of_images(run, splits, tmp_path) -> None:
    import onnx

    assert "the logits are the run's" in export_onnx(run, tmp_path / "net.onnx", splits)
    model = onnx.load(str(tmp_path / "net.onnx"))
    onnx.checker.check_model(model)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["classes"]) == list(splits.test.classes)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_a_missing_package_of_onnx_is_named_with_its_extra(run, splits, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(network_export, "find_spec", lambda name: None if name.startswith("onnx") else find_spec(name))
    with pytest.raises(LabError, match=r"needs onnx and onnxscript: pip install 'convolab\[export\]'"):
        export_onnx(run, tmp_path / "net.onnx", splits)


def test_the_marker_of_an_onnx_file_is_a_field_of_its_own(tmp_path: Path) -> None:
    content = b"\x08\x0a"  # ir_version = 10
    path = tmp_path / "net.onnx"
    write_output(path, "network of x", content)
    tail = path.read_bytes()[len(content) :]
    assert tail[:2] == b"\xc2\x3e"  # field 1000 (8000 + wire type 2), as a varint
    assert (tail[0] & 127) | tail[1] << 7 == 1000 << 3 | 2
    assert tail[2] == len(tail[3:]) < 128
    assert is_own_output("network of x", path, path.stat().st_size, "")


def test_a_network_that_is_not_timms_is_not_exported_to_timm(run, splits, tmp_path) -> None:
    with pytest.raises(LabError, match=r"simple_convnet is not a network of timm, which has no such architecture"):
        export_timm(run, tmp_path / "timm", splits)


def test_a_network_of_timm_is_loaded_by_timm_from_the_folder(run, splits, tmp_path, monkeypatch) -> None:
    """The run is a stand-in: a small network of timm's in the place of the run's own."""
    import timm

    network = timm.create_model("test_resnet", num_classes=10, in_chans=1).eval()
    own = run.net()
    net = ImageClassifier(network, mean=own.mean, std=own.std, input_size=own.input_size, classes=own.classes)
    recipe = run.recipe.model_copy(update={"model": run.recipe.model.model_copy(update={"name": "timm/test_resnet"})})
    stand_in = Run(run.folder)
    monkeypatch.setattr(stand_in, "recipe", recipe)
    monkeypatch.setattr(stand_in, "net", lambda: net.eval())
    folder = tmp_path / "timm"
    for _ in range(2):
        assert "timm's network with these weights has the run's logits" in export_timm(stand_in, folder, splits)
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = timm.data.resolve_model_data_config(loaded)
    assert config["mean"] == pytest.approx(own.mean)
    images = splits.test.images[:5] / 255
    scaled = (images - torch.tensor(config["mean"]).view(1, -1, 1, 1)) / torch.tensor(config["std"]).view(1, -1, 1, 1)
    with torch.no_grad():
        assert torch.allclose(loaded(scaled), net(images), atol=1e-4)
    assert json.loads((folder / "config.json").read_text())["pretrained_cfg"]["label_names"] == list(own.classes)
