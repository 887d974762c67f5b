"""The command `convolab fool`."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from convolab.data.image_io import read_image
from convolab.models.pretrained import pretrained
from convolab.training.run import Run


@pytest.fixture
def tiny_run(run_cli, tmp_path):
    settings = ("training.epochs=3", "data.limit=400", "model.channels=[8, 16]")
    run_cli(
        "train",
        "simple_convnet",
        *(word for setting in settings for word in ("--set", setting)),
        "--out",
        tmp_path / "tiny",
    )
    return "tiny"


def read_saved_image(path):
    """A saved image as the bytes in its file."""
    return read_image(path)


@pytest.mark.slow
def test_a_cat_is_classified_as_a_goldfish_and_so_is_its_saved_file(run_cli, tmp_path):
    result = run_cli("fool", "chelsea", "--target", "goldfish,tank", "--victims", "efficientnet_lite1", "--threads", 1)
    assert result.code == 0, result.err
    assert "chelsea (tiger cat): classified as goldfish, tank" in result.out
    assert "efficientnet_lite1: classifies" in result.out
    assert "with noise of the same L2" in result.out
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"fool-chelsea{end}" for end in (".png", ".npz", ".json", "-goldfish.png", "-tank.png")}
    metrics = json.loads((tmp_path / "fool-chelsea.json").read_text())
    net = pretrained()
    for number, (name, label) in enumerate((("goldfish", 1), ("tank", 847))):
        image = read_saved_image(tmp_path / f"fool-chelsea-{name}.png")
        with torch.no_grad():
            probabilities = net(image[None] / 255).double().softmax(1)[0]
        assert int(probabilities.argmax()) == label
        assert metrics["images"][number]["after"]["probability"] == pytest.approx(float(probabilities[label]), abs=1e-5)
        with np.load(tmp_path / "fool-chelsea.npz") as arrays:
            assert np.array_equal(arrays["fooling"][number], image.numpy())
            change = arrays["fooling"][number].astype(float) - arrays["clean"][number]
        assert metrics["images"][number]["l2"] == pytest.approx(np.linalg.norm(change) / 255)
    with Image.open(tmp_path / "fool-chelsea.png") as image:
        assert image.width > 1200


@pytest.mark.slow
def test_a_perturbation_within_a_budget_is_within_it_in_the_saved_file_too(run_cli, tmp_path):
    result = run_cli("fool", "noise", "--target", 1, "--budget", "linf=8/255", "--json")
    values = json.loads(result.out)
    assert result.err == ""
    assert values["images"][0]["fooled"]
    assert values["budget"] == "linf=8/255"
    with np.load(tmp_path / "fool-noise.npz") as arrays:
        clean = arrays["clean"][0].astype(int)
    assert 0 < np.abs(read_saved_image(tmp_path / "fool-noise-goldfish.png").numpy().astype(int) - clean).max() <= 8


@pytest.mark.slow
def test_a_run_is_fooled_like_a_pretrained_network(run_cli, tmp_path, tiny_run):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / "three.png")
    result = run_cli(
        "fool",
        "three.png",
        "noise",
        "--net",
        tiny_run,
        "--target",
        "random",
        "--out",
        "out/both.png",
        "--json",
        "--seed",
        2,
    )
    assert result.code == 0, result.err
    values = json.loads(result.out)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"both.png", "both.npz", "both.json", "both"}
    assert len(list((tmp_path / "out" / "both").glob("*.png"))) == 2
    net = Run(tiny_run).net().eval()
    for image_result in values["images"]:
        image = read_saved_image(
            tmp_path / "out" / "both" / f"{image_result['image']}-{image_result['target']['class']}.png"
        )
        with torch.no_grad():  # the preprocessing of a run does not change an image of its own size
            assert (int(net(net.preprocess(image)).argmax()) == image_result["target"]["index"]) == image_result[
                "fooled"
            ]
        assert image_result["after_preprocessing"]["class"] == image_result["after"]["class"]
    assert any(image_result["fooled"] for image_result in values["images"])


@pytest.mark.slow
def test_an_image_that_does_not_fool_is_reported_without_an_error(run_cli):
    result = run_cli("fool", "chelsea", "--target", "goldfish", "--max-steps", 1, "--budget", "linf=1/255")
    assert result.code == 0
    assert "chelsea (tiger cat): not classified as goldfish" in result.out
    assert "warning: not fooled in 1 steps within linf=1/255: chelsea (goldfish)" in result.out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["chelsea", "--target", "tiger cat"], "chelsea is already classified as tiger cat: choose another target"),
        (["chelsea", "--target", "goldfsh"], "did you mean 'goldfish'"),
        (["chelsea", "--target", "1000"], "there is no class 1000"),
        (["chelsea", "--target", ","], "no target is named"),
        (["chelsea", "--target", "random:0"], "0 random targets"),
        (["chelsea", "--target", "1", "--budget", "l3=2"], "unknown budget 'l3=2'"),
        (["chelsea", "--target", "1", "--budget", "linf=many"], "the budget 'linf=many' has no number"),
        (["chelsea", "--target", "1", "--budget", "l2=-1"], "is out of range: give a number from 1/255 to 1000"),
        (["chelsea", "--target", "1", "--objective", "loss"], "unknown objective 'loss'"),
        (["chelsea", "--target", "1", "--confidence", "90"], "the confidence is 90.0"),
        (["chelsea", "--target", "1", "--max-steps", "0"], "0 steps"),
        (["chelsea", "--target", "1", "--step-size", "nan"], "the step size is nan"),
        (["chelsea", "--target", "1", "--step-size", "0"], "the step size is 0.0"),
        (
            ["chelsea", "--target", "1", "--net", "efficientnet_lite9"],
            "'efficientnet_lite9' is neither a pretrained network nor the folder of a run",
        ),
        (
            ["chelsea", "--target", "1", "--victims", "efficientnet_lite9"],
            "'efficientnet_lite9' is neither a pretrained network nor the folder of a run",
        ),
        (
            ["chelsea", "--target", "1", "--victims", "efficientnet_lite0"],
            "efficientnet_lite0 is the network to be fooled",
        ),
        (["chelsea", "--target", "1", "--surrogates", "efficientnet_lite1"], "only used with --for-transfer"),
        (
            [
                "chelsea",
                "--target",
                "1",
                "--for-transfer",
                "--surrogates",
                "efficientnet_lite1",
                "--victims",
                "efficientnet_lite1",
            ],
            "efficientnet_lite1 is both a surrogate and a victim",
        ),
        (["gone.png", "--target", "1"], "gone.png: there is no such file"),
        (["chelse", "--target", "1"], "did you mean 'chelsea'"),
        (["chelsea", "--target", "1", "--max-pixels", "1000"], "451 x 300 is more than the limit of 1,000 pixels"),
        (["http://127.0.0.1:9/cat.png", "--target", "1"], "on this machine or a private network"),
        (["chelsea", "chelsea", "--target", "1"], "several images are called chelsea"),
        (
            ["chelsea", "--target", "1", "--transfer", "x"],
            "'convolab fool --transfer' is now called 'convolab fool --victims'",
        ),
        (
            ["chelsea", "--target", "1", "--sources", "x"],
            "'convolab fool --sources' is now called 'convolab fool --surrogates'",
        ),
        (
            ["chelsea", "--target", "1", "--steps", "9"],
            "'convolab fool --steps' is now called 'convolab fool --max-steps'",
        ),
        (
            ["chelsea", "--target", "1", "--step", "0.5"],
            "'convolab fool --step' is now called 'convolab fool --step-size'",
        ),
    ],
)
def test_a_wrong_input_gives_one_line_and_writes_nothing(run_cli, tmp_path, args, message):
    result = run_cli("fool", *args)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_networks_of_other_classes_cannot_be_compared(run_cli, tmp_path, tiny_run):
    result = run_cli("fool", "chelsea", "--target", "goldfish", "--victims", tiny_run)
    assert result.code == 2
    assert "tiny has different classes" in result.err
    assert result.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
