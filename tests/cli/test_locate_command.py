"""The command `convolab locate`."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def tiny_run(run_cli, tmp_path):
    overrides = ("training.epochs=2", "model.channels=[8, 16]")
    run_cli("train", "simple_convnet", *(word for o in overrides for word in ("--set", o)), "--out", tmp_path / "tiny")
    return "tiny"


@pytest.fixture
def large_image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "big.png")
    return "big.png"


@pytest.mark.slow
def test_a_sample_is_located_with_an_image_arrays_and_metrics(run_cli, tmp_path):
    args = ("--target", "moped,disk brake", "--scale", "0.5,1", "--alignment", "resize", "--threads", 1)
    result = run_cli("locate", "motorcycle_left", *args)
    assert result.code == 0, result.err
    assert "moped, " in result.out
    assert "disk brake, " in result.out
    assert "locate-motorcycle_left.png" in result.out
    with Image.open(tmp_path / "locate-motorcycle_left.png") as image:
        assert image.width > 900
        assert image.height > 700  # a row for each class
    with np.load(tmp_path / "locate-motorcycle_left.npz") as arrays:
        assert arrays["heatmap moped"].shape == (500, 741)
        assert arrays["response moped at 1"].shape == (16, 24)
    metrics = json.loads((tmp_path / "locate-motorcycle_left.json").read_text())
    assert metrics["classes"]["moped"]["index"] == 665
    assert metrics["net"] == "efficientnet_lite0"


@pytest.mark.slow
def test_a_run_finds_objects_in_an_image_of_any_size(run_cli, tmp_path, tiny_run, large_image):
    args = ("--net", tiny_run, "--top", "2", "--sliding-window-check", "--out", "maps/found.png", "--json")
    result = run_cli("locate", large_image, *args)
    assert result.code == 0, result.err
    metrics = json.loads(result.out)
    assert len(metrics["classes"]) == 2
    assert metrics["size"] == [60, 90]
    assert metrics["sliding_window_check"]["1"]["num_windows"] > 100
    assert metrics["scales"]["1"]["erf_offset"]["reference"] == "rf-center"
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {"found.png", "found.npz", "found.json"}
    assert result.err == ""


@pytest.mark.slow
def test_several_images_go_to_a_folder(run_cli, tmp_path, tiny_run, large_image):
    Image.open(tmp_path / large_image).save(tmp_path / "other.png")
    result = run_cli("locate", large_image, "other.png", "--net", tiny_run, "--target", "3", "--out", "both", "--json")
    assert result.code == 0, result.err
    assert [finding["image"] for finding in json.loads(result.out)["images"]] == ["big", "other"]
    assert {path.name for path in (tmp_path / "both").glob("*.png")} == {"locate-big.png", "locate-other.png"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["chelse"], "did you mean 'chelsea'"),
        (["chelsea", "--net", "efficientnet_lite9"], "is neither a pretrained network nor the folder of a run"),
        (["chelsea", "--target", "goldfsh"], "did you mean 'goldfish'"),
        (["chelsea", "--scale", "big"], "'big' is not a scale"),
        (["chelsea", "--scale", "1,0px"], "'0px' is not a scale"),
        (["chelsea", "--scale", "40"], "more than 6,000,000: give a smaller scale"),
        (["chelsea", "--alignment", "rf-centre"], "did you mean 'rf-center'"),
        (["chelsea", "--alignment", "effective"], "alignment 'effective' is now called 'erf'"),
        (["chelsea", "--granularity", "pixel"], "unknown granularity 'pixel'"),
        (["chelsea", "--granularity", "windows"], "granularity 'windows' is now called 'window'"),
        (["chelsea", "--threshold", "1.5"], "the threshold is 1.5"),
        (["chelsea", "--max-pixels", "1000"], "451 x 300 is more than the limit of 1,000 pixels"),
        (["http://127.0.0.1:9/cat.png"], "on this machine or a private network"),
        (["chelsea", "chelsea"], "locate them one by one"),
        (["--score", "."], "is now called 'convolab locate-score'"),
        (["chelsea", "--placement", "erf"], "is now called 'convolab locate --alignment'"),
        (["chelsea", "--over", "cell"], "is now called 'convolab locate --granularity'"),
        (["chelsea", "--check"], "is now called 'convolab locate --sliding-window-check'"),
    ],
)
def test_a_wrong_or_retired_name_gives_one_line_and_writes_nothing(run_cli, tmp_path, args, message):
    result = run_cli("locate", *args)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["explain", "fool", "locate"])
def test_a_command_without_its_image_says_what_is_missing(run_cli, command):
    result = run_cli(command)
    assert result.code == 2
    assert "missing argument 'IMAGE...'" in result.err


@pytest.mark.slow
def test_a_network_without_a_feature_map_is_refused_with_the_reason(run_cli, tmp_path):
    run_cli("train", "shallow_net", "--set", "training.epochs=1", "--set", "data.limit=200", "--out", tmp_path / "flat")
    result = run_cli("locate", "chelsea", "--net", "flat")
    assert result.code == 2
    assert "no feature map, because it has no convolution" in result.err


@pytest.mark.slow
def test_an_image_of_one_pixel_gives_a_one_line_error(run_cli, tmp_path, tiny_run):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    result = run_cli("locate", "dot.png", "--net", tiny_run, "--granularity", "window")
    assert result.code == 2
    assert "give" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.slow
def test_a_network_whose_last_map_has_one_cell_is_refused_with_a_remedy_that_works(run_cli) -> None:
    quick = ("--epochs", "1", "--set", "data.limit=400")
    run_cli("train", "simple_convnet", *quick, "--out", "one")
    refused = run_cli("locate", "chelsea", "--net", "one")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "an entry less in model.channels" in refused.err
    run_cli("train", "simple_convnet", *quick, "--set", "model.channels=[16, 32]", "--out", "two")
    assert run_cli("locate", "chelsea", "--net", "two").code == 0
