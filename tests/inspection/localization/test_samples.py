"""The samples for the evaluation of localization: photos with boxes, at several scales."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.small_nets import classifier_of, flatten_net

from convolab.core.errors import LabError
from convolab.inspection.localization.input_scale import InputScale, parse_scales
from convolab.inspection.localization.samples import EvaluationSetting, annotated_samples, photo_settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    targets = {"targets": {"c": {"boxes": [[5, 5, 40, 50]]}, "7": {"boxes": [[50, 10, 80, 50]]}}}
    (tmp_path / "boxes.json").write_text(json.dumps({"images": {"a.png": targets}}))
    return tmp_path


def test_categories_are_classes_of_the_network(folder: Path) -> None:
    (sample,) = annotated_samples(folder, classifier_of(flatten_net()))
    assert sample.open_image().shape == (3, 60, 90)
    assert [(a.label, a.classes, a.boxes) for a in sample.annotations] == [
        ("c", (2,), ((5, 5, 40, 50),)),
        ("7", (7,), ((50, 10, 80, 50),)),
    ]


def test_a_category_that_the_network_does_not_know_is_refused(folder: Path) -> None:
    content = (folder / "boxes.json").read_text()
    (folder / "boxes.json").write_text(content.replace('"c"', '"zebra"'))
    with pytest.raises(LabError, match="zebra"):
        annotated_samples(folder, classifier_of(flatten_net()))


def test_there_is_a_setting_for_each_scale_and_one_for_all_of_them(folder: Path) -> None:
    settings = photo_settings(folder, classifier_of(flatten_net()), parse_scales("1,40px"))
    assert [(s.name, s.background, s.shorter_side, len(s.scales)) for s in settings] == [
        ("scale 1", "photos", None, 1),
        ("scale 40px", "photos", 40, 1),
        ("scales 1 + 40px", "all_scales", None, 2),
    ]
    (setting,) = photo_settings(folder, classifier_of(flatten_net()), parse_scales("40px"))
    assert setting.scales == (InputScale(shorter_side=40),)


def test_a_setting_has_the_tolerance_of_its_samples(folder: Path) -> None:
    samples = annotated_samples(folder, classifier_of(flatten_net()))
    assert EvaluationSetting("x", samples).tolerance == 15
