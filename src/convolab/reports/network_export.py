"""A run's network for other programs: ONNX, torch.export's .pt2, or a folder that timm loads; each checked before use.

All three take what the run takes: pixels in [0, 1], float32 [N, C, H, W], any number of images; normalization is inside
(in timm's folder it is in the configuration, as timm wants it).
"""

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import save
from torch import Tensor, nn

from convolab.core.errors import LabError, describe_exception, require
from convolab.core.files import atomic_write
from convolab.core.outputs import NETWORK_EXPORT, output_file, own_kind, require_outputs, write_json_output
from convolab.data.splits import DatasetSplits
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import compute_logits, describe_unsteady_logits, require_finite_weights
from convolab.training.run import Run
from convolab.training.setup import train_validation_split

NUM_CHECKED = 10  # images on which an export's logits must be the run's
TOLERANCE = 1e-4  # of the largest logit: float32 in another order of summation
ONNX_PACKAGES = ("onnx", "onnxscript")
LOAD_WITHOUT_CONVOLAB = """\
import sys
sys.modules["convolab"] = None  # an import of it fails
import io, json, numpy, torch
extra = {"about.json": ""}
net = torch.export.load(sys.argv[1], extra_files=extra).module()
pixels = torch.from_numpy(numpy.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False))
assert json.loads(extra["about.json"])["classes"]
with torch.no_grad():
    numpy.save(sys.stdout.buffer, net(pixels).numpy(), allow_pickle=False)
"""


class PixelNetwork(nn.Module):
    """A network with its normalization and nothing else of convolab, so that it can be traced."""

    def __init__(self, net: ImageClassifier) -> None:
        super().__init__()
        self.network = net.network
        self.register_buffer("scale", net.scale.clone())
        self.register_buffer("shift", net.shift.clone())

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network(torch.addcmul(self.get_buffer("shift"), pixels, self.get_buffer("scale")))


def export_kind(run: Run) -> str:
    """What an export of a run's network is as an output."""
    return own_kind(NETWORK_EXPORT, run.summary["recipe_key"])


def check_images(run: Run, splits: DatasetSplits) -> Float[Tensor, "n c h w"]:
    """The first images that the run validated on, or trained on without validation, as pixels in [0, 1]."""
    run.require_same_data(splits)
    train, validation = train_validation_split(run.recipe, splits)
    images, _ = (validation or train).gather(torch.arange(min(NUM_CHECKED, len(validation or train))))
    return images / 255


def about_network(run: Run, net: ImageClassifier) -> dict[str, object]:
    """What a program that loads the export should know."""
    return {
        "classes": list(net.classes),
        "input": "pixels in [0, 1], float32 [N, C, H, W]",
        "channels": net.channels,
        "input_size": list(net.input_size),
        "recipe_key": run.summary["recipe_key"],
    }


def require_same_logits(found: Float[Tensor, "n k"], expected: Float[Tensor, "n k"], what: str) -> None:
    """Raise LabError unless an export's logits are the run's."""
    largest = float(expected.abs().max())
    error = float((found - expected).abs().max()) if found.shape == expected.shape else float("inf")
    require(
        error <= TOLERANCE * max(largest, 1e-6),
        f"{what} gives other logits than the run: they differ by {error:.3g} of {largest:.3g} at most; nothing was written",
    )


@contextmanager
def translate_export_errors(what: str) -> Iterator[None]:
    """What torch's exporter says of a network that it cannot export becomes one line."""
    try:
        yield
    except LabError:
        raise
    except Exception as error:
        raise LabError(f"this network cannot be exported to {what}: {describe_exception(error)}") from error


def prepared_network(run: Run, splits: DatasetSplits) -> tuple[ImageClassifier, Tensor, Tensor]:
    """The run's best network, the images to check it on, and its logits for them."""
    net = run.net()
    require_finite_weights(net)
    pixels = check_images(run, splits)
    unsteady = describe_unsteady_logits(net, pixels)
    require(not unsteady, f"{unsteady}; so no exported network could have its logits")
    return net.eval(), pixels, compute_logits(net, pixels)


def export_torch(run: Run, path: Path, splits: DatasetSplits) -> str:
    """Write PATH.pt2, which `torch.export.load` loads without convolab; what was checked, in one line.

    The graph and the names are JSON and the weights raw numbers: nothing in the file is unpickled. It is loaded in a
    new process in which convolab cannot be imported, and appears only if its logits there are the run's.
    """
    require(path.suffix.lower() == ".pt2", f"{path}: give a name that ends in .pt2")
    net, pixels, logits = prepared_network(run, splits)
    with translate_export_errors("torch"):
        batch = torch.export.Dim("batch", min=1)
        program = torch.export.export(PixelNetwork(net).eval(), (pixels[:2],), dynamic_shapes=({0: batch},))
        program.example_inputs = None  # else two images are in the file
    with output_file(path, export_kind(run)) as part:
        with translate_export_errors("torch"):
            torch.export.save(program, part, extra_files={"about.json": json.dumps(about_network(run, net))})
        require_same_logits(load_elsewhere(part, pixels), logits, "the exported network")
    return f"checked on {len(pixels)} images in a process without convolab: the logits are the run's"


def load_elsewhere(path: Path, pixels: Tensor) -> Tensor:
    """The logits of an exported program in a process that cannot import convolab."""
    file = io.BytesIO()
    np.save(file, pixels.numpy(), allow_pickle=False)
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOAD_WITHOUT_CONVOLAB, str(path.resolve())],  # -P: nothing of the current folder
        input=file.getvalue(),
        capture_output=True,
    )
    reason = next(iter(done.stderr.decode(errors="replace").strip().splitlines()[-1:]), "")
    require(done.returncode == 0, f"the exported network does not load without convolab: {reason}")
    return torch.from_numpy(np.load(io.BytesIO(done.stdout), allow_pickle=False))


def export_onnx(run: Run, path: Path, splits: DatasetSplits) -> str:
    """Write PATH.onnx, with the class names in its metadata; what was checked, in one line.

    It is run by onnxruntime, or else by ONNX's own reference evaluator, and appears only if the logits are the run's.
    Raises LabError if torch's exporter needs a package that is missing.
    """
    require(path.suffix.lower() == ".onnx", f"{path}: give a name that ends in .onnx")
    missing = [name for name in ONNX_PACKAGES if not find_spec(name)]
    require(not missing, f"an export to ONNX needs {' and '.join(missing)}: pip install 'convolab[export]'")
    net, pixels, logits = prepared_network(run, splits)
    with translate_export_errors("ONNX"):
        batch = torch.export.Dim("batch", min=1)
        program: Any = torch.onnx.export(
            PixelNetwork(net).eval(), (pixels[:2],), input_names=["pixels"], output_names=["logits"],
            dynamic_shapes=({0: batch},), dynamo=True, verbose=False,
        )  # fmt: skip
        model = program.model_proto
        for key, value in about_network(run, net).items():
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    content: bytes = model.SerializeToString()
    with output_file(path, export_kind(run)) as part:
        part.write_bytes(content)
        name, evaluate_onnx = onnx_evaluator()
        with translate_export_errors("ONNX"):
            found = torch.from_numpy(np.asarray(evaluate_onnx(part, pixels.numpy())))
        require_same_logits(found, logits, "the exported network")
    return f"checked on {len(pixels)} images with {name}: the logits are the run's"


def onnx_evaluator() -> tuple[str, Callable[[Path, Any], Any]]:
    """What runs an ONNX file here, and its name: onnxruntime, or ONNX's reference evaluator, which is slow."""
    if find_spec("onnxruntime"):
        session = import_module("onnxruntime").InferenceSession

        def run_session(path: Path, pixels: object) -> object:
            return session(str(path), providers=["CPUExecutionProvider"]).run(None, {"pixels": pixels})[0]

        return "onnxruntime", run_session
    evaluator = import_module("onnx.reference").ReferenceEvaluator
    return "ONNX's reference evaluator", lambda path, pixels: evaluator(str(path)).run(None, {"pixels": pixels})[0]


def timm_paths(folder: Path) -> list[Path]:
    """The files of an export to timm."""
    return [folder / "model.safetensors", folder / "config.json"]


def export_timm(run: Run, folder: Path, splits: DatasetSplits) -> str:
    """Write a folder that `timm.create_model("local-dir:FOLDER")` loads; what was checked, in one line.

    Only for networks of timm: timm builds a network by the name of its architecture, and has none of convolab's.
    """
    name = run.recipe.model.name
    require(
        name.startswith("timm/"),
        f"{name} is not a network of timm, which has no such architecture: export it --to torch or --to onnx",
    )
    timm = import_module("timm")
    architecture = name.removeprefix("timm/").partition(".")[0]
    net, pixels, logits = prepared_network(run, splits)
    std = [value if value > 0 else 1.0 for value in net.std]
    default = timm.get_pretrained_cfg(architecture)
    is_fixed = bool(default and default.fixed_input_size)  # such an architecture is built for a size, as a transformer
    size = {"img_size": net.input_size} if is_fixed else {}
    config = {
        "architecture": architecture,
        "num_classes": len(net.classes),
        "model_args": {"in_chans": net.channels},
        "pretrained_cfg": {
            "input_size": [net.channels, *net.input_size],
            "fixed_input_size": is_fixed,
            "interpolation": net.interpolation,
            "crop_pct": net.crop_fraction or 1.0,
            "mean": list(net.mean),
            "std": std,
            "num_classes": len(net.classes),
            "label_names": list(net.classes),
        },
    }
    weights = {key: tensor.contiguous().clone() for key, tensor in net.network.state_dict().items()}
    with translate_export_errors("timm"):
        rebuilt = timm.create_model(architecture, num_classes=len(net.classes), in_chans=net.channels, **size)
        rebuilt.load_state_dict(weights)
        scaled = (pixels - torch.tensor(net.mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)
        with torch.no_grad():
            require_same_logits(rebuilt.eval()(scaled), logits, "timm's network with these weights")
    weights_path, config_path = timm_paths(folder)
    require_outputs(export_kind(run), [config_path])
    is_ours = config_path.exists()
    require(is_ours or not weights_path.exists(), f"{weights_path} exists, and is no export's: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(weights_path) as part:
        part.write_bytes(save(weights, {"format": "pt"}))
        write_json_output(config_path, export_kind(run), config)  # first in its place: it says whose the weights are
    return f"checked on {len(pixels)} images: timm's network with these weights has the run's logits"
