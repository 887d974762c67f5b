"""What `import convolab` gives, as an editor, a notebook and PyTorch see it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

import convolab
from convolab.training.augmentation import apply_transforms, parse_transform
from convolab.training.callbacks import Callbacks


def test_every_name_is_there_and_dir_shows_these_names_only() -> None:
    assert dir(convolab) == sorted(convolab.__all__)
    for name in convolab.__all__:
        assert getattr(convolab, name).__doc__, name


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in convolab.__all__ if name != "LabError"])
def test_every_name_says_what_it_takes_and_shows_an_example(name: str) -> None:
    text = getattr(convolab, name).__doc__
    assert ">>>" in text
    assert len(text.splitlines()) >= 3


@pytest.mark.slow
def test_an_editor_completes_and_explains() -> None:
    jedi = pytest.importorskip("jedi", reason="jedi comes with IPython: pip install 'convolab[notebook]'")
    code = "import convolab\nrun = convolab.train('shallow_net')\n"
    (signature,) = jedi.Script(f"{code}convolab.train(").get_signatures()
    assert {"epochs", "lr", "batch_size", "seed", "out"} <= {parameter.name for parameter in signature.params}
    assert "learning rate" in signature.docstring()
    completions = {completion.name for completion in jedi.Script(f"{code}run.").complete()}
    assert {"history", "net", "plot", "recipe", "resume", "save", "test"} <= completions
    assert {"load", "train", "explain"} <= {
        found.name for found in jedi.Script("import convolab\nconvolab.").complete()
    }


RESULT = "plot rows save to_frame"  # of every object that draws itself
FACES = {
    "Run": f"{RESULT} best_epoch delete extend folder has_test_images history is_training load_splits mistakes net playback predict "
    "recipe resume start status summary test test_result",
    "ImageDataset": f"{RESULT} classes fingerprint images labels name names shape subset",
    "Subset": f"{RESULT} classes copy dataset indices labels name names shape subset",
    "Recipe": f"{RESULT} data from_dict key loss metrics model optimizer own_parts read sampling schedule to_dict to_toml "
    "training validation_metric with_overrides with_seed write",
    "Training": "batch_size clip_norm ema epochs exact goal label_smoothing patience precision seed winograd",
    "Model": "batch_norm channels freeze name options pretrained_lr_factor residual weights weights_sha256",
    "Study": f"{RESULT} base_recipe format from_dict margins max_seeds name read recipe recipes sections seeds test_best "
    "title to_toml trials write",
    "Playback": f"{RESULT} classes epochs filters images labels probabilities",
    "Finding": f"{RESULT} arrays heading metrics net panels save_arrays summary threads to_dict tool warnings",
    "ImageClassifier": "caution channels classes crop_fraction find_class input_size interpolation mean network "
    "preprocess std synonyms training validate_inputs",
}


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """An object of each public class, and of what they hold, by the name of its class."""
    digits = convolab.load("digits").train
    run = convolab.train(
        "shallow_net", epochs=1, out=tmp_path_factory.mktemp("run"), callbacks=Callbacks(), log="playback"
    )
    found = [
        run, run.recipe, run.recipe.training, convolab.Recipe().model, run.net(), digits, digits.subset(torch.arange(4)),
        convolab.coursework(), convolab.Finding("locate", (), {}, {}), run.playback(),
    ]  # fmt: skip
    return {type(each).__name__: each for each in found}


@pytest.mark.slow
@pytest.mark.parametrize("name", FACES)
def test_dir_of_a_public_object_shows_what_a_person_needs_and_nothing_else(
    objects: dict[str, object], name: str
) -> None:
    inherited = set(dir(nn.Module)) if isinstance(objects[name], nn.Module) else set()
    assert set(dir(objects[name])) - inherited == set(FACES[name].split())
    assert not [each for each in dir(objects[name]) if each.startswith("_")]


def test_every_public_class_has_its_face_checked() -> None:
    classes = {name for name in convolab.__all__ if isinstance(getattr(convolab, name), type)}
    assert classes - {"LabError"} <= FACES.keys()


@pytest.mark.slow
def test_what_a_class_keeps_internal_is_there_and_is_suggested_to_nobody(objects: dict[str, object]) -> None:
    for each in objects.values():
        for name in getattr(type(each), "_internal_names", ()):
            assert hasattr(each, name), name
    with pytest.raises(AttributeError, match="known: ") as caught:
        _ = objects["Run"].require_same_datas
    assert "require_same_data," not in str(caught.value)


def train_plainly(loader: DataLoader, transform: object = None) -> float:
    """A training as PyTorch's tutorials have it; gives the accuracy of the last epoch."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    for _ in range(3):
        correct = count = 0
        for images, labels in loader:
            pixels = images.float() / 255
            logits = net(transform(pixels) if transform else pixels)
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            correct += int((logits.argmax(1) == labels).sum())
            count += len(labels)
    return correct / count


@pytest.mark.slow
def test_a_plain_pytorch_loop_trains_on_a_dataset_by_a_data_loader() -> None:
    digits = convolab.load("digits").train
    images, labels = next(iter(DataLoader(digits, batch_size=4)))
    assert (images.dtype, images.shape, labels.dtype) == (torch.uint8, (4, 1, 8, 8), torch.int64)
    shuffled = DataLoader(digits, batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(0))
    assert train_plainly(shuffled) > 0.9
    assert train_plainly(DataLoader(digits.subset(torch.arange(400)), batch_size=64)) > 0.8


@pytest.mark.slow
def test_the_plain_loop_takes_our_transforms_and_those_of_torchvision() -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2", reason="torchvision is not installed")
    loader = DataLoader(convolab.load("digits").train, batch_size=64)
    assert train_plainly(loader, transforms.RandomAffine(degrees=5)) > 0.8
    ours = [parse_transform("crop:1")]
    generator = torch.Generator().manual_seed(0)

    def augment(pixels: torch.Tensor) -> torch.Tensor:
        images, labels = (pixels * 255).round().to(torch.uint8), torch.zeros(len(pixels), dtype=torch.int64)
        return apply_transforms(images, labels, ours, 10, generator)[0]

    assert train_plainly(loader, augment) > 0.5
