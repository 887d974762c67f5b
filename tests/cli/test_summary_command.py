"""The command `convolab summary`."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import convolab


@pytest.mark.slow
def test_a_network_is_summarized_in_a_table_json_csv_and_a_chart(run_cli) -> None:
    result = run_cli("summary", "simple_convnet", "--input", "3x32x32", "--csv", "layers.csv", "--out", "cost.png")
    assert result.code == 0
    head, *rows = [line.split("\t") for line in result.out.splitlines() if "\t" in line]
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
    assert "agree in 4 of 4" in result.out
    assert "no MACs by definition: max_pool2d_with_indices (3x)" in result.out

    summary = json.loads(run_cli("summary", "simple_convnet", "--input", "3x32x32", "--json").out)
    assert (summary["totals"]["macs"], summary["totals"]["num_parameters"]) == (2_802_304, 24_346)
    assert summary["layers"][0]["receptive_field"] == {
        "size": [3, 3],
        "stride": [1, 1],
        "start": [-1, -1],
        "center": [0.0, 0.0],
        "is_global": [False, False],
        "measured": False,
    }
    assert len(summary["layers"]) == len(rows) - 1

    with Path("layers.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(summary["layers"])
    assert sum(int(line["macs"]) for line in lines) == 2_802_304
    assert lines[0]["rf_size"] == "3x3"
    assert all(line["closed_form_macs"] in ("", line["macs"]) for line in lines)
    with Image.open("cost.png") as chart:
        assert chart.width > 800


@pytest.mark.slow
def test_two_layers_are_shown_side_by_side(run_cli) -> None:
    f, g = "Linear(100, 1000, bias=False)", "Conv1d(1, 10, 3, padding=1, bias=False)"
    result = run_cli("summary", "--layer", f, "--layer", g, "--input", "100", "--out", "fg.svg")
    assert result.code == 0
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in result.out.splitlines() if "\t" in line}
    assert rows[""] == [f, g]
    assert rows["output"] == ["1000", "10x100 = 1,000 values"]
    assert rows["parameters"] == ["100,000", "30"]
    assert rows["MACs"] == ["100,000", "3,000"]
    assert rows["FLOPs (2 x MACs)"] == ["200,000", "6,000"]
    assert rows["closed form"] == ["100×1000", "10×1×3×100"]
    assert "*: global, every cell depends on the whole image along this axis" in result.out.splitlines()
    assert "100,000" in Path("fg.svg").read_text()
    both = json.loads(run_cli("summary", "--layer", f, "--layer", g, "--input", "100", "--json").out)
    assert [one["totals"]["macs"] for one in both] == [100_000, 3_000]


def test_the_documentation_shows_what_the_command_prints(run_cli) -> None:
    page = (Path(__file__).parents[2] / "docs" / "summary.md").read_text(encoding="utf-8")
    f, g = "Linear(100, 1000, bias=False)", "Conv1d(1, 10, 3, padding=1, bias=False)"
    for args in (("simple_convnet", "--input", "3x32x32"), ("--layer", f, "--layer", g, "--input", "100")):
        for line in run_cli("summary", *args).out.splitlines():
            assert ("| " + " | ".join(line.split("\t")) + " |" if "\t" in line else line).removeprefix("|  |") in page


@pytest.mark.slow
def test_a_layer_without_parameters_is_drawn_beside_one_that_has_some(run_cli) -> None:
    assert (
        run_cli("summary", "--layer", "ReLU()", "--layer", "Linear(4, 4)", "--input", "4", "--out", "two.png").code == 0
    )


def test_a_network_by_name_is_summarized_for_3x32x32_where_no_input_is_given(run_cli) -> None:
    (given, left_out) = (run_cli("summary", "simple_convnet", *words) for words in (("--input", "3x32x32"), ()))
    assert left_out.code == 0
    assert left_out.out == given.out
    assert convolab.summary("simple_convnet").input_shape == (3, 32, 32)


@pytest.mark.slow
def test_a_run_is_summarized_for_the_image_shape_of_its_training(run_cli) -> None:
    assert run_cli("train", "shallow_net", "--set", "training.epochs=1", "--out", "runs/a").code == 0
    result = json.loads(run_cli("summary", "runs/a", "--json").out)
    assert result["input_shape"] == [1, 8, 8]
    assert result["totals"]["macs"] == 64 * 128 + 128 * 10
    assert [layer["name"] for layer in result["layers"] if layer["macs"]] == ["network.hidden", "network.output"]


@pytest.mark.slow
def test_the_counts_of_other_tools_are_shown_with_the_differences(run_cli) -> None:
    result = run_cli("summary", "simple_convnet", "--input", "3x32x32", "--beside", "fvcore,thop")
    assert re.search(r"fvcore [0-9.a-z]+: 2,816,640 MACs \(operations of the traced graph", result.out)
    assert "\n  +14,336  batch_norm\n" in result.out
    assert "\n  +28,672  BatchNorm2d\n" in result.out
    summary = json.loads(run_cli("summary", "simple_convnet", "--input", "3x32x32", "--beside", "fvcore", "--json").out)
    (count,) = summary["other_counts"]
    assert (count["tool"], count["macs"], count["differences"]) == ("fvcore", 2_816_640, {"batch_norm": 14_336})


def test_a_layer_is_counted_by_other_tools_too(run_cli) -> None:
    result = run_cli(
        "summary", "--layer", "Linear(3, 4)", "--layer", "Conv1d(1, 2, 3)", "--input", "3", "--beside", "thop"
    )
    assert "MACs by thop\t12\t6" in result.out


def test_the_error_about_a_retired_command_names_the_new_one(run_cli) -> None:
    result = run_cli("account", "simple_convnet")
    assert (result.code, result.out) == (2, "")
    assert result.err == "convolab: 'convolab account' is now called 'convolab summary'\n"


@pytest.mark.slow
def test_a_network_of_a_library_needs_no_input_shape(run_cli) -> None:
    result = json.loads(run_cli("summary", "torchvision/resnet18", "--json").out)
    assert result["input_shape"] == [3, 224, 224]
    assert result["totals"]["macs"] == 1_814_073_344


def test_a_closed_form_that_disagrees_exits_with_1(run_cli) -> None:
    Path("mine.py").write_text(
        "from torch import nn\n"
        "class Twice(nn.Linear):\n    def forward(self, x): return super().forward(x) + super().forward(x)\n"
        "def Net(shape, classes): return nn.Sequential(nn.Flatten(), Twice(12, classes))\n"
    )
    result = run_cli("summary", "mine.py:Net", "--input", "3x2x2")
    assert result.code == 1
    assert "agree in 0 of 1" in result.out
    assert "240 MACs counted, 12×10 = 120 by its closed form" in result.out


def test_a_narrow_terminal_shows_fewer_columns_and_names_the_others(run_cli, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    result = run_cli("summary", "simple_convnet", "--input", "3x32x32")
    assert re.search("not shown, as the terminal is narrow: .*closed form", result.out)
    assert "2,802,304" in result.out
    assert "…" not in result.out


@pytest.mark.slow
def test_a_deep_network_is_drawn_by_blocks(run_cli) -> None:
    assert run_cli("summary", "torchvision/resnet18", "--out", "deep.html").code == 0
    assert "a bar is a block of layers" in Path("deep.html").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "name one network, or give one --layer"),
        (("simple_convnet", "--layer", "ReLU()"), "name one network, or give one --layer"),
        (("simple_convet", "--input", "3x32x32"), "did you mean 'simple_convnet'?"),
        (("simple_convnet", "--input", "3x32"), "needs the shape of an image, such as 3x32x32"),
        (("simple_convnet", "--input", "3x-2x2"), "is not a shape"),
        (("simple_convnet", "--input", "3x0x2"), "is not a shape"),
        (("simple_convnet", "--input", ""), "is not a shape"),
        (("simple_convnet", "--input", "3x600x600"), "sides of 8 to 512"),
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
def test_a_wrong_input_gives_one_line_and_exit_code_2_and_writes_nothing(
    run_cli, tmp_path: Path, args: tuple, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    result = run_cli("summary", *args)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("convolab: ")
    assert result.err.count("\n") == 1
    assert message in result.err
    assert sorted(tmp_path.rglob("*")) == before


def test_options_of_a_network_by_name_are_set_as_in_a_training(run_cli) -> None:
    words = ["--input", "3x32x32", "--set", "model.channels=[8, 16]", "--json"]
    printed = json.loads(run_cli("summary", "simple_convnet", *words).out)
    built = convolab.summary(convolab.build("simple_convnet", (3, 32, 32), 10, channels=[8, 16]), (3, 32, 32))
    by_keyword = convolab.summary("simple_convnet", (3, 32, 32), model={"channels": [8, 16]})
    assert printed["totals"]["macs"] == built.macs == by_keyword.macs


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["simple_convnet", "--set", "optimizer.lr=1"], "--set optimizer.lr: a summary takes options of the network"),
        (
            ["simple_convnet", "--set", "model.depth=2", "--set", "model.depth=3"],
            "model.depth is given twice, by --set",
        ),
        (["simple_convnet", "--set", "model.chanels=[3]"], "the network 'simple_convnet' has no option 'chanels'"),
        (["timm/resnet18", "--set", "model.depth=3"], "the options depth of 'timm/resnet18'"),
        (["--layer", "Linear(3, 4)", "--set", "model.depth=3"], "--set is for a network by name"),
    ],
)
def test_an_option_that_does_not_fit_is_one_line(run_cli, words: list[str], message: str) -> None:
    found = run_cli("summary", *words, "--input", "3x32x32")
    assert found.code == 2
    assert message in found.err
    assert found.err.count("\n") == 1


def test_the_options_of_a_network_by_name_are_listed_below_its_table(run_cli) -> None:
    Path("mine.py").write_text(
        "from torch import nn\n"
        "def Net(shape, classes, width: int = 4, bias: bool = True):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(12, width), nn.Linear(width, classes, bias=bias))\n"
    )
    assert "with their defaults: width=4, bias=true\n" in run_cli("summary", "mine.py:Net", "--input", "3x2x2").out
    assert "with their defaults: hidden=128\n" in run_cli("summary", "shallow_net").out
    assert "options of the network" not in run_cli("summary", "--layer", "Linear(3, 4)", "--input", "3").out


def test_a_run_or_a_network_takes_no_options_because_it_has_them() -> None:
    with pytest.raises(convolab.LabError, match="options are for a network by name"):
        convolab.summary(torch.nn.Linear(3, 4), (3,), model={"depth": 3})


@pytest.mark.slow
def test_the_number_of_classes_is_that_of_the_last_layer(run_cli) -> None:
    def last_layer(*words: str) -> dict:
        result = run_cli("summary", "simple_convnet", "--input", "3x32x32", *words, "--json")
        return json.loads(result.out)["layers"][-1]

    usual, seven = last_layer(), last_layer("--classes", "7")
    assert (usual["output_shape"][-1], seven["output_shape"][-1]) == (10, 7)
    assert seven["num_parameters"] * 10 == usual["num_parameters"] * 7
    assert run_cli("summary", "simple_convnet", "--input", "3x32x32", "--classes", "0").code == 2
