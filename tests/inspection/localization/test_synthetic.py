"""Synthetic images: where the objects are, and that they are the same on every background."""

import pytest
import torch
from support.small_nets import classifier_of, randomize_parameters
from torch import nn

from convolab.core.errors import LabError
from convolab.data.dataset import ImageDataset
from convolab.inspection.localization import synthetic
from convolab.inspection.localization.samples import Background, EvaluationSample
from convolab.inspection.localization.synthetic import (
    BACKGROUNDS,
    CANVAS_SCALE,
    OBJECT_SIDES,
    choose_pairs,
    correctly_classified,
    object_boxes,
    render_samples,
    synthetic_settings,
)
from convolab.models.classifier import ImageClassifier


def color_net() -> ImageClassifier:
    """A network that distinguishes colors."""
    layers = (
        nn.Conv2d(3, 24, 1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10, bias=False),
    )
    return classifier_of(randomize_parameters(nn.Sequential(*layers)))


def color_images(count: int = 60) -> ImageDataset:
    """Images of one color each, of which `color_net` classifies two of three correctly."""
    generator = torch.Generator().manual_seed(2)
    base = torch.randint(0, 200, (count, 3, 1, 1), generator=generator)
    images = (base + torch.randint(0, 56, (count, 3, 32, 32), generator=generator)).to(torch.uint8)
    with torch.no_grad():
        labels = color_net()(images / 255).argmax(1)
    labels[::3] = (labels[::3] + 1) % 10
    return ImageDataset(images, labels, tuple("abcdefghij"), "colors")


def synthetic_samples(
    net: ImageClassifier,
    dataset: ImageDataset,
    background: Background,
    object_size: int,
    num_objects: int,
    seed: int = 0,
) -> tuple[EvaluationSample, ...]:
    """The images of a single setting."""
    return render_samples(net, dataset, choose_pairs(net, dataset, num_objects, seed), background, object_size, seed)


def test_objects_are_correctly_classified_images_at_the_positions_of_their_boxes() -> None:
    net = color_net()
    dataset = color_images()
    assert len(correctly_classified(net, dataset, 0)) == 40
    background = (255 * torch.tensor(net.mean)).round().to(torch.uint8).view(3, 1, 1)
    for sample in synthetic_samples(net, dataset, "plain", 16, 10):
        image = sample.open_image()
        assert image.shape == (3, CANVAS_SCALE * 32, CANVAS_SCALE * 32)
        outside = torch.ones(image.shape[1:], dtype=torch.bool)
        for annotation in sample.annotations:
            left, top, right, bottom = annotation.boxes[0]
            assert (right - left, bottom - top) == (16, 16)
            outside[top:bottom, left:right] = False
        assert int((~outside).sum()) == 2 * 16 * 16
        assert bool(((image == background).all(0) == outside)[outside].all())
        assert sample.annotations[0].label != sample.annotations[1].label
        assert sample.tolerance == pytest.approx(0.03 * CANVAS_SCALE * 32)


def test_the_same_objects_are_at_the_same_positions_on_every_background() -> None:
    net = color_net()
    dataset = color_images()
    plain, textured = (
        [sample.annotations for sample in synthetic_samples(net, dataset, background, 16, 8)]
        for background in BACKGROUNDS
    )
    assert plain == textured
    other = synthetic_samples(net, dataset, "plain", 16, 8, seed=1)
    assert [sample.annotations for sample in other] != plain
    large = synthetic_samples(net, dataset, "textured", 96, 8)[0]
    assert torch.equal(large.open_image(), large.open_image())
    assert all(0 <= x <= CANVAS_SCALE * 32 for annotation in large.annotations for x in annotation.boxes[0])


def test_a_texture_has_the_mean_color_of_the_network_and_varies() -> None:
    net = color_net()
    image = synthetic_samples(net, color_images(), "textured", 8, 2)[0].open_image().float() / 255
    assert torch.allclose(image.mean((1, 2)), torch.tensor(net.mean), atol=0.15)
    assert float(image.std()) > 0.05


@pytest.mark.parametrize(
    ("object_size", "num_objects", "message"),
    [
        (200, 10, "do not fit into half"),
        (0, 10, "do not fit"),
        (16, 1000, "classifies too few of the 60 images of colors correctly: use fewer objects"),
        (97, 4, "do not fit into half"),
    ],
)
def test_objects_that_cannot_be_made_are_refused(object_size: int, num_objects: int, message: str) -> None:
    with pytest.raises(LabError, match=message):
        synthetic_samples(color_net(), color_images(), "plain", object_size, num_objects)


def test_objects_of_another_dataset_are_refused() -> None:
    dataset = color_images()
    relabeled = ImageDataset(dataset.images, dataset.labels, tuple("ABCDEFGHIJ"), "others")
    with pytest.raises(LabError, match="score it on its own dataset"):
        synthetic_samples(color_net(), relabeled, "plain", 16, 4)


def test_the_dataset_is_classified_once_for_all_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    classify = synthetic.correctly_classified
    monkeypatch.setattr(synthetic, "correctly_classified", lambda *a: calls.append(a) or classify(*a))
    settings = synthetic_settings(color_net(), color_images(), 4)
    assert [(s.background, s.object_size) for s in settings] == [
        (background, side) for background in BACKGROUNDS for side in OBJECT_SIDES
    ]
    assert len(calls) == 1
    names = [sample.name for setting in settings for sample in setting.samples]
    assert names[:3] == ["plain 8 px, 0", "plain 8 px, 1", "plain 16 px, 0"]  # names are part of the seed of a baseline
    one_setting = synthetic_samples(color_net(), color_images(), "plain", 16, 4)
    assert [s.annotations for s in settings[1].samples] == [s.annotations for s in one_setting]
    assert torch.equal(settings[1].samples[0].open_image(), one_setting[0].open_image())


def test_the_positions_of_a_seed_never_change() -> None:
    assert object_boxes((192, 192), 16, 0, 0) == ((128, 54, 144, 70), (7, 108, 23, 124))
    assert object_boxes((192, 192), 16, 1, 0) == ((39, 65, 55, 81), (151, 19, 167, 35))
