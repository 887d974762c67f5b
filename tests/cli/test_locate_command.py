"""convolab locate, as a person types it."""

import csv
import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def tiny_run(lab, tmp_path):
    changes = ("training.epochs=2", "model.channels=[8, 16]")
    lab(
        "train",
        "simple_convnet",
        *(word for change in changes for word in ("--set", change)),
        "--out",
        tmp_path / "tiny",
    )
    return "tiny"


@pytest.fixture
def big(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "big.png")
    return "big.png"


def test_a_sample_is_searched_with_picture_arrays_and_numbers(lab, tmp_path):
    result = lab(
        "locate",
        "motorcycle_left",
        "--target",
        "moped,disk brake",
        "--scale",
        "0.5,1",
        "--placement",
        "stretched",
        "--threads",
        1,
    )
    assert result.code == 0, result.err
    assert "moped, " in result.out
    assert "disk brake, " in result.out
    assert "picture: locate-motorcycle_left.png" in result.out
    with Image.open(tmp_path / "locate-motorcycle_left.png") as picture:
        assert picture.width > 900
        assert picture.height > 700  # a row a class
    with np.load(tmp_path / "locate-motorcycle_left.npz") as arrays:
        assert arrays["heat moped"].shape == (500, 741)
        assert arrays["response moped at 1"].shape == (16, 24)
    numbers = json.loads((tmp_path / "locate-motorcycle_left.json").read_text())
    assert numbers["classes"]["moped"]["index"] == 665
    assert numbers["net"] == "efficientnet_lite0"


def test_a_run_finds_things_in_a_picture_of_any_size(lab, tmp_path, tiny_run, big):
    result = lab("locate", big, "--net", tiny_run, "--top", "2", "--check", "--out", "here/found.png", "--json")
    assert result.code == 0, result.err
    found = json.loads(result.out)
    assert len(found["classes"]) == 2
    assert found["size"] == [60, 90]
    assert found["sliding"]["1"]["windows"] > 100
    assert found["scales"]["1"]["displacement"]["from"] == "geometric"
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"found.png", "found.npz", "found.json"}
    assert result.err == ""


def test_several_pictures_go_to_a_folder(lab, tmp_path, tiny_run, big):
    Image.open(tmp_path / big).save(tmp_path / "other.png")
    result = lab("locate", big, "other.png", "--net", tiny_run, "--target", "3", "--out", "both")
    assert result.code == 0, result.err
    assert {path.name for path in (tmp_path / "both").glob("*.png")} == {"locate-big.png", "locate-other.png"}


def test_a_folder_with_boxes_is_scored_at_each_scale_and_together(lab, tmp_path, tiny_run, big):
    folder = tmp_path / "boxed"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.open(tmp_path / big).save(folder / name)
    targets = {"targets": {"3": {"boxes": [[5, 5, 40, 50]]}, "7": {"boxes": [[50, 10, 80, 50]]}}}
    (folder / "boxes.json").write_text(json.dumps({"images": {"a.png": targets, "b.png": targets}}))
    result = lab("locate", "--score", "boxed", "--net", tiny_run, "--scale", "1,40px")
    assert result.code == 0, result.err
    assert "scale 1, 4 things, points at: effective" in result.out
    assert "scales 1 + 40px, 4 things" in result.out
    numbers = json.loads((tmp_path / "score-tiny.json").read_text())
    assert [score["setting"] for score in numbers["scores"]] == ["scale 1", "scale 40px", "scales 1 + 40px"]
    page = (tmp_path / "score-tiny.html").read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert page.count('<section class="card">') == 4
    with (tmp_path / "score-tiny.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 6 * 3
    assert all(
        0 <= float(row["low"]) <= float(row["mean"]) + 1e-9 <= 200 for row in rows if row["measure"] == "pointing"
    )
    assert {path.suffix for path in tmp_path.glob("score-tiny.*")} == {".html", ".png", ".json", ".csv"}


def test_pasted_things_of_every_size_are_scored_on_both_grounds(lab, tmp_path, tiny_run):
    result = lab("locate", "--score", "pasted", "--net", tiny_run, "--count", "4", "--json")
    assert result.code == 0, result.err
    scores = json.loads(result.out)["scores"]
    assert [(s["ground"], s["side"]) for s in scores] == [
        (g, side) for g in ("plain", "textured") for side in (2, 4, 6, 8, 12, 16, 24)
    ]
    assert all(s["things"] == 4 for s in scores)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give pictures to find things in, or --score"),
        (["chelsea", "--score", "."], "give pictures to find things in, or --score"),
        (["chelse"], "did you mean 'chelsea'"),
        (["chelsea", "--net", "efficientnet_lite9"], "is neither a pretrained network nor the folder of a run"),
        (["chelsea", "--target", "goldfsh"], "did you mean 'goldfish'"),
        (["chelsea", "--scale", "big"], "'big' is no scale"),
        (["chelsea", "--scale", "1,0px"], "'0px' is no scale"),
        (["chelsea", "--scale", "40"], "more than 6,000,000: give a smaller --scale"),
        (["chelsea", "--placement", "effektive"], "did you mean 'effective'"),
        (["chelsea", "--over", "pixels"], "give --over cells or windows"),
        (["chelsea", "--threshold", "1.5"], "the threshold is 1.5"),
        (["chelsea", "--max-pixels", "1000"], "451 x 300 is more than 1,000 pixels"),
        (["--score", "."], "holds no boxes.json"),
        (["--score", "pasted"], "efficientnet_lite0 is no run"),
        (["http://127.0.0.1:9/cat.png"], "this machine or a network of its own"),
        (["chelsea", "chelsea"], "locate them one by one"),
    ],
)
def test_a_wrong_input_is_one_line_and_nothing_is_written(lab, tmp_path, words, said):
    result = lab("locate", *words)
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_a_feature_map_is_told_what_it_would_need(lab, tmp_path):
    lab("train", "shallow_net", "--set", "training.epochs=1", "--set", "data.limit=200", "--out", tmp_path / "flat")
    result = lab("locate", "chelsea", "--net", "flat")
    assert result.code == 2
    assert "no feature map, because it has no convolution" in result.err


def test_a_picture_of_one_pixel_is_one_line(lab, tmp_path, tiny_run):
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    result = lab("locate", "dot.png", "--net", tiny_run, "--over", "windows")
    assert result.code == 2
    assert "give" in result.err
    assert result.err.count("\n") == 1
