"""`convolab summary`, as a person types it."""

import csv
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from convolab.cli.commands import summary as summary_command


@pytest.mark.slow
def test_a_network_is_summarized_in_a_table_json_csv_and_a_chart(lab) -> None:
    done = lab("summary", "simple_convnet", "--input", "3x32x32", "--csv", "layers.csv", "--out", "cost.png")
    assert done.code == 0
    head, *rows = [line.split("\t") for line in done.out.splitlines() if "\t" in line]
    assert head == [
        "layer",
        "kind",
        "output",
        "parameters",
        "MACs",
        "FLOPs",
        "% of MACs",
        "activations",
        "saved for backward",
        "receptive field",
        "stride",
        "center",
        "closed form",
    ]
    assert rows[0] == [
        "features.0.conv",
        "Conv2d",
        "16x32x32",
        "432",
        "442,368",
        "884,736",
        "15.8 %",
        "65.5 kB",
        "12.3 kB",
        "3",
        "1",
        "0",
        "16×3×3×3×32×32",
    ]
    assert rows[-1][3:6] == ["24,346", "2,802,304", "5,604,608"]
    assert "agree in 4 of 4" in done.out
    assert "no MACs by definition: max_pool2d_with_indices (3x)" in done.out

    result = json.loads(lab("summary", "simple_convnet", "--input", "3x32x32", "--json").out)
    assert (result["totals"]["macs"], result["totals"]["num_parameters"]) == (2_802_304, 24_346)
    assert result["layers"][0]["receptive_field"] == {
        "size": [3, 3],
        "stride": [1, 1],
        "start": [-1, -1],
        "center": [0.0, 0.0],
        "is_global": [False, False],
        "measured": False,
    }
    assert len(result["layers"]) == len(rows) - 1

    with Path("layers.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(result["layers"])
    assert sum(int(line["macs"]) for line in lines) == 2_802_304
    assert lines[0]["rf_size"] == "3x3"
    assert all(line["closed_form_macs"] in ("", line["macs"]) for line in lines)
    with Image.open("cost.png") as chart:
        assert chart.width > 800


@pytest.mark.slow
def test_the_courses_two_layers_stand_side_by_side(lab) -> None:
    f, g = "Linear(100, 1000, bias=False)", "Conv1d(1, 10, 3, padding=1, bias=False)"
    done = lab("summary", "--layer", f, "--layer", g, "--input", "100", "--out", "fg.svg")
    assert done.code == 0
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in done.out.splitlines() if "\t" in line}
    assert rows[""] == [f, g]
    assert rows["output"] == ["1000", "10x100 = 1,000 values"]
    assert rows["parameters"] == ["100,000", "30"]
    assert rows["MACs"] == ["100,000", "3,000"]
    assert rows["FLOPs (2 x MACs)"] == ["200,000", "6,000"]
    assert rows["closed form"] == ["100×1000", "10×1×3×100"]
    assert "100,000" in Path("fg.svg").read_text()
    both = json.loads(lab("summary", "--layer", f, "--layer", g, "--input", "100", "--json").out)
    assert [one["totals"]["macs"] for one in both] == [100_000, 3_000]


def test_the_documentation_shows_what_the_command_prints(lab) -> None:
    page = (Path(__file__).parents[2] / "docs" / "summary.md").read_text(encoding="utf-8")
    f, g = "Linear(100, 1000, bias=False)", "Conv1d(1, 10, 3, padding=1, bias=False)"
    for words in (("simple_convnet", "--input", "3x32x32"), ("--layer", f, "--layer", g, "--input", "100")):
        for line in lab("summary", *words).out.splitlines():
            assert ("| " + " | ".join(line.split("\t")) + " |" if "\t" in line else line).removeprefix("|  |") in page


@pytest.mark.slow
def test_a_layer_without_parameters_is_drawn_beside_one_that_has_some(lab) -> None:
    assert lab("summary", "--layer", "ReLU()", "--layer", "Linear(4, 4)", "--input", "4", "--out", "two.png").code == 0


@pytest.mark.slow
def test_a_runs_folder_is_summarized_for_the_shape_it_was_trained_on(lab) -> None:
    assert lab("train", "shallow_net", "--set", "training.epochs=1", "--out", "runs/a").code == 0
    result = json.loads(lab("summary", "runs/a", "--json").out)
    assert result["input_shape"] == [1, 8, 8]
    assert result["totals"]["macs"] == 64 * 128 + 128 * 10
    assert [layer["name"] for layer in result["layers"] if layer["macs"]] == ["network.hidden", "network.output"]


def test_another_counters_figure_stands_beside_ours_with_what_differs(lab) -> None:
    done = lab("summary", "simple_convnet", "--input", "3x32x32", "--beside", "fvcore,thop")
    assert re.search(r"fvcore [0-9.a-z]+: 2,816,640 MACs \(operations of the traced graph", done.out)
    assert "\n  +14,336  batch_norm\n" in done.out
    assert "\n  +28,672  BatchNorm2d\n" in done.out
    result = json.loads(lab("summary", "simple_convnet", "--input", "3x32x32", "--beside", "fvcore", "--json").out)
    (count,) = result["other_counts"]
    assert (count["tool"], count["macs"], count["differences"]) == ("fvcore", 2_816_640, {"batch_norm": 14_336})


def test_a_layer_is_counted_by_other_tools_too(lab) -> None:
    done = lab("summary", "--layer", "Linear(3, 4)", "--layer", "Conv1d(1, 2, 3)", "--input", "3", "--beside", "thop")
    assert "MACs by thop\t12\t6" in done.out


def test_the_command_of_the_first_edition_names_the_new_one(lab) -> None:
    done = lab("account", "simple_convnet")
    assert (done.code, done.out) == (2, "")
    assert done.err == "convolab: 'convolab account' is now called 'convolab summary'\n"


def test_a_network_by_a_librarys_name_knows_its_input(lab) -> None:
    result = json.loads(lab("summary", "torchvision/resnet18", "--json").out)
    assert result["input_shape"] == [3, 224, 224]
    assert result["totals"]["macs"] == 1_814_073_344


def test_a_closed_form_that_disagrees_ends_with_1(lab) -> None:
    Path("mine.py").write_text(
        "from torch import nn\n"
        "class Twice(nn.Linear):\n    def forward(self, x): return super().forward(x) + super().forward(x)\n"
        "def Net(shape, classes): return nn.Sequential(nn.Flatten(), Twice(12, classes))\n"
    )
    done = lab("summary", "mine.py:Net", "--input", "3x2x2")
    assert done.code == 1
    assert "agree in 0 of 1" in done.out
    assert "240 MACs counted, 12×10 = 120 by its closed form" in done.out


def test_a_narrow_terminal_shows_fewer_columns_and_names_the_others(lab, monkeypatch) -> None:
    monkeypatch.setattr(summary_command.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    done = lab("summary", "simple_convnet", "--input", "3x32x32")
    assert re.search("not shown, as the terminal is narrow: .*closed form", done.out)
    assert "2,802,304" in done.out
    assert "…" not in done.out


@pytest.mark.slow
def test_a_deep_network_is_drawn_by_blocks(lab) -> None:
    assert lab("summary", "torchvision/resnet18", "--out", "deep.html").code == 0
    assert "a bar is a block of layers" in Path("deep.html").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name one network, or give one --layer"),
        (("simple_convnet", "--layer", "ReLU()"), "name one network, or give one --layer"),
        (("simple_convet", "--input", "3x32x32"), "did you mean 'simple_convnet'?"),
        (("simple_convnet",), "give --input"),
        (("simple_convnet", "--input", "3x32"), "give --input"),
        (("simple_convnet", "--input", "3x-2x2"), "is not a shape"),
        (("simple_convnet", "--input", "3x0x2"), "is not a shape"),
        (("simple_convnet", "--input", ""), "is not a shape"),
        (("simple_convnet", "--input", "3x100x100"), "sides of 8 to 64"),
        (
            ("torchvision/vgg16", "--input", "1x224x224"),
            "features.0 (Conv2d) got an input of shape [1, 1, 224, 224], expected [N, 3, >= 1, >= 1]",
        ),
        (("torchvision/alexnet", "--input", "3x20x20"), "MaxPool2d"),
        (("timm/resnet5O",), "did you mean 'resnet50'"),
        (("--layer", "Linear(100, 1000"), "is not a layer"),
        (("--layer", "Linear(100, 1000)"), "give --input"),
        (("--layer", "Linear(100, 1000)", "--input", "99"), "got an input of shape [1, 99], expected [..., 100]"),
        (("--layer", "__import__('os').abort()", "--input", "9"), "torch.nn has no layer"),
        (("simple_convnet", "--input", "3x32x32", "--beside", "fvcor"), "did you mean 'fvcore'?"),
        (
            ("simple_convnet", "--input", "3x32x32", "--convention", "fvcore"),
            "is now called 'convolab summary --beside'",
        ),
        (("simple_convnet", "--input", "3x32x32", "--batch", "2"), "is now called 'convolab summary --batch-size'"),
        (("simple_convnet", "--input", "3x32x32", "--out", "cost.pdf"), ".png, .svg or .html"),
        (("empty",), "is not a run folder"),
    ],
)
def test_a_wrong_input_is_one_line_and_exit_2_and_nothing_is_written(
    lab, tmp_path: Path, words: tuple, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    result = lab("summary", *words)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("convolab: ")
    assert result.err.count("\n") == 1
    assert message in result.err
    assert sorted(tmp_path.rglob("*")) == before
