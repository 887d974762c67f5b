"""convolab fool, as a person types it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from convolab.data.image_io import read_image
from convolab.models.pretrained import pretrained
from convolab.training.run import Run


@pytest.fixture
def tiny_run(lab, tmp_path):
    settings = ("training.epochs=3", "data.limit=400", "model.channels=[8, 16]")
    lab(
        "train",
        "simple_convnet",
        *(word for setting in settings for word in ("--set", setting)),
        "--out",
        tmp_path / "tiny",
    )
    return "tiny"


def read_back(path):
    """A saved picture as the bytes that were saved."""
    return read_image(path)


def test_a_cat_becomes_a_goldfish_on_one_network_and_its_file_says_so(lab, tmp_path):
    result = lab("fool", "chelsea", "--target", "goldfish,tank", "--transfer", "efficientnet_lite1", "--threads", 1)
    assert result.code == 0, result.err
    assert "chelsea (tiger cat): taken for goldfish, tank" in result.out
    assert "efficientnet_lite1: takes" in result.out
    assert "on noise of the same L2" in result.out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"fool-chelsea{end}" for end in (".png", ".npz", ".json", "-goldfish.png", "-tank.png")}
    numbers = json.loads((tmp_path / "fool-chelsea.json").read_text())
    net = pretrained()
    for number, (name, label) in enumerate((("goldfish", 1), ("tank", 847))):
        picture = read_back(tmp_path / f"fool-chelsea-{name}.png")
        with torch.no_grad():
            shares = net(picture[None] / 255).double().softmax(1)[0]
        assert int(shares.argmax()) == label
        assert numbers["pictures"][number]["after"]["probability"] == pytest.approx(float(shares[label]), abs=1e-5)
        with np.load(tmp_path / "fool-chelsea.npz") as arrays:
            assert np.array_equal(arrays["fooling"][number], picture.numpy())
            change = arrays["fooling"][number].astype(float) - arrays["clean"][number]
        assert numbers["pictures"][number]["l2"] == pytest.approx(np.linalg.norm(change) / 255)
    with Image.open(tmp_path / "fool-chelsea.png") as picture:
        assert picture.width > 1200


def test_noise_within_a_bound_holds_it_in_the_file(lab, tmp_path):
    result = lab("fool", "noise", "--target", 1, "--budget", "linf=8/255", "--json")
    values = json.loads(result.out)
    assert result.err == ""
    assert values["pictures"][0]["fooled"]
    assert values["budget"] == "linf=8/255"
    with np.load(tmp_path / "fool-noise.npz") as arrays:
        clean = arrays["clean"][0].astype(int)
    assert 0 < np.abs(read_back(tmp_path / "fool-noise-goldfish.png").numpy().astype(int) - clean).max() <= 8


def test_a_run_is_fooled_like_a_pretrained_network(lab, tmp_path, tiny_run):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "three.png")
    result = lab(
        "fool",
        "three.png",
        "noise",
        "--net",
        tiny_run,
        "--target",
        "random",
        "--out",
        "here/both.png",
        "--json",
        "--seed",
        2,
    )
    assert result.code == 0, result.err
    values = json.loads(result.out)
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"both.png", "both.npz", "both.json", "both"}
    assert len(list((tmp_path / "here" / "both").glob("*.png"))) == 2
    net = Run(tiny_run).net().eval()
    for one in values["pictures"]:
        picture = read_back(tmp_path / "here" / "both" / f"{one['picture']}-{one['target']['class']}.png")
        with torch.no_grad():  # a run's own fit gives a picture of its size back as it is
            assert (int(net(net.preprocess(picture)).argmax()) == one["target"]["index"]) == one["fooled"]
        assert one["seen_anew"]["class"] == one["after"]["class"]
    assert any(one["fooled"] for one in values["pictures"])


def test_what_is_not_fooled_is_said_and_is_no_error(lab):
    result = lab("fool", "chelsea", "--target", "goldfish", "--steps", 1, "--budget", "linf=1/255")
    assert result.code == 0
    assert "chelsea (tiger cat): not taken for goldfish" in result.out
    assert "beware: not fooled in 1 steps within linf=1/255: chelsea (goldfish)" in result.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["chelsea", "--target", "tiger cat"], "chelsea is taken for tiger cat already: choose another target"),
        (["chelsea", "--target", "goldfsh"], "did you mean 'goldfish'"),
        (["chelsea", "--target", "1000"], "there is no class 1000"),
        (["chelsea", "--target", ","], "no target is named"),
        (["chelsea", "--target", "random:0"], "0 random targets"),
        (["chelsea", "--target", "1", "--budget", "l3=2"], "there is no budget 'l3=2'"),
        (["chelsea", "--target", "1", "--budget", "linf=many"], "the budget 'linf=many' has no number"),
        (["chelsea", "--target", "1", "--budget", "l2=-1"], "less than one of the 255 levels"),
        (["chelsea", "--target", "1", "--objective", "loss"], "there is no objective 'loss'"),
        (["chelsea", "--target", "1", "--confidence", "90"], "the confidence is 90.0"),
        (["chelsea", "--target", "1", "--steps", "0"], "0 steps"),
        (["chelsea", "--target", "1", "--step", "nan"], "the step is nan"),
        (["chelsea", "--target", "1", "--step", "0"], "the step is 0.0"),
        (
            ["chelsea", "--target", "1", "--net", "efficientnet_lite9"],
            "'efficientnet_lite9' is neither a pretrained network nor the folder of a run",
        ),
        (
            ["chelsea", "--target", "1", "--transfer", "efficientnet_lite9"],
            "'efficientnet_lite9' is neither a pretrained network nor the folder of a run",
        ),
        (
            ["chelsea", "--target", "1", "--transfer", "efficientnet_lite0"],
            "efficientnet_lite0 is the network to be fooled",
        ),
        (["chelsea", "--target", "1", "--sources", "efficientnet_lite1"], "add --for-transfer"),
        (
            [
                "chelsea",
                "--target",
                "1",
                "--for-transfer",
                "--sources",
                "efficientnet_lite1",
                "--transfer",
                "efficientnet_lite1",
            ],
            "efficientnet_lite1 would be a source",
        ),
        (["gone.png", "--target", "1"], "gone.png: there is no such file"),
        (["chelse", "--target", "1"], "did you mean 'chelsea'"),
        (["chelsea", "--target", "1", "--max-pixels", "1000"], "451 x 300 is more than 1,000 pixels"),
        (["http://127.0.0.1:9/cat.png", "--target", "1"], "this machine or a network of its own"),
        (["chelsea", "chelsea", "--target", "1"], "several pictures are called chelsea"),
    ],
)
def test_a_wrong_input_is_one_line_and_nothing_is_written(lab, tmp_path, words, said):
    result = lab("fool", *words)
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []


def test_networks_of_other_classes_cannot_be_compared(lab, tmp_path, tiny_run):
    result = lab("fool", "chelsea", "--target", "goldfish", "--transfer", tiny_run)
    assert result.code == 2
    assert "tiny has other classes" in result.err
    assert result.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
