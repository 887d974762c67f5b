"""The command `convolab locate-score`."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from convolab.cli.findings import net_file_name
from convolab.inspection.localization import dense


@pytest.fixture
def tiny_run(run_cli, tmp_path):
    overrides = ("training.epochs=2", "model.channels=[8, 16]")
    run_cli("train", "simple_convnet", *(word for o in overrides for word in ("--set", o)), "--out", tmp_path / "tiny")
    return "tiny"


@pytest.fixture
def annotated_folder(tmp_path):
    folder = tmp_path / "annotated"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    targets = {"targets": {"3": {"boxes": [[5, 5, 40, 50]]}, "7": {"boxes": [[50, 10, 80, 50]]}}}
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(folder / name)
    (folder / "boxes.json").write_text(json.dumps({"images": {"a.png": targets, "b.png": targets}}))
    return "annotated"


@pytest.mark.slow
def test_a_folder_with_boxes_is_scored_at_each_scale_and_at_all_scales(run_cli, tmp_path, tiny_run, annotated_folder):
    result = run_cli("locate-score", annotated_folder, "--net", tiny_run, "--scale", "1,40px")
    assert result.code == 0, result.err
    assert "scale 1, 4 objects, pointing game hits: erf" in result.out
    assert "scales 1 + 40px, 4 objects" in result.out
    metrics = json.loads((tmp_path / f"locate-score-{net_file_name(tiny_run)}.json").read_text())
    assert [score["setting"] for score in metrics["scores"]] == ["scale 1", "scale 40px", "scales 1 + 40px"]
    assert [score["background"] for score in metrics["scores"]] == ["photos", "photos", "all_scales"]
    page = (tmp_path / f"locate-score-{net_file_name(tiny_run)}.html").read_text()
    assert "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert page.count('<section class="card">') == 4
    with (tmp_path / f"locate-score-{net_file_name(tiny_run)}.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 6 * 3
    assert {row["metric"] for row in rows} == {"pointing_game", "energy_in_box", "iou"}
    assert {row["map"] for row in rows} == {"erf", "rf-center", "resize", "center", "random", "edges"}
    hits = [row for row in rows if row["metric"] == "pointing_game"]
    assert all(0 <= float(row["low"]) <= float(row["mean"]) + 1e-9 <= 200 for row in hits)
    suffixes = {path.suffix for path in tmp_path.glob(f"locate-score-{net_file_name(tiny_run)}.*")}
    assert suffixes == {".html", ".png", ".json", ".csv"}


@pytest.mark.long
def test_synthetic_objects_of_every_size_are_scored_on_both_backgrounds_by_one_dense_network(
    run_cli, tiny_run, monkeypatch
):
    constructions = []
    create = dense.create_feature_extractor
    monkeypatch.setattr(dense, "create_feature_extractor", lambda net: constructions.append(net) or create(net))
    result = run_cli("locate-score", "synthetic", "--net", tiny_run, "--num-objects", "4", "--json")
    assert result.code == 0, result.err
    scores = json.loads(result.out)["scores"]
    assert [(score["background"], score["object_size"]) for score in scores] == [
        (background, size) for background in ("plain", "textured") for size in (2, 4, 6, 8, 12, 16, 24)
    ]
    assert all(score["num_objects"] == 4 for score in scores)
    assert len(constructions) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["."], "has no boxes.json"),
        ([".", "--scale", "big"], "'big' is not a scale"),
        ([".", "--granularity", "cells"], "granularity 'cells' is now called 'cell'"),
        (["synthetic"], "efficientnet_lite0 is not a run: give --net with a run's folder"),
        ([".", "--out", "scores.svg"], "--out scores.svg: locate-score writes .html, .png, .csv, .json: give"),
        (["pasted"], "pasted is now called synthetic"),
        (["synthetic", "--count", "4"], "is now called 'convolab locate-score --num-objects'"),
    ],
)
def test_a_wrong_or_retired_name_gives_one_line_and_writes_nothing(run_cli, tmp_path, args, message):
    result = run_cli("locate-score", *args)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
