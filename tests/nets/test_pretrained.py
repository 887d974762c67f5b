"""The networks that others trained: right weights, right preprocessing, right names."""

import json

import pytest
import torch
from conftest import SHARED

from convolab.ground.errors import LabError
from convolab.images.photo import open_photo, read_photo
from convolab.nets.pretrained import EMBEDDED, load_by_position, pretrained, wheel_weights
from convolab.nets.efficientnet_lite import EfficientNetLite

PHOTOS = SHARED / "photos" / "imagenet"


@pytest.mark.parametrize(("name", "least"), [("efficientnet_lite0", 178), ("efficientnet_lite1", 182), ("efficientnet_lite2", 184)])
def test_top_1_on_photos_of_200_classes(name, least):
    if not PHOTOS.is_dir():
        pytest.skip("the photos of ImageNet's classes are not at hand")
    net, truth = pretrained(name), json.loads((PHOTOS / "labels.json").read_text())
    pixels = torch.cat([net.fit(read_photo(PHOTOS / file)) for file in truth])
    with torch.inference_mode():
        found = torch.cat([net(batch).argmax(1) for batch in pixels.split(10)])
    assert int((found == torch.tensor(list(truth.values()))).sum()) >= least
