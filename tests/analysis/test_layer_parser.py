"""The text of a layer is parsed and never evaluated as Python."""

import pytest
import torch
from torch import nn

from convolab.analysis.layer_parser import parse_layer
from convolab.core.errors import LabError


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        ("Linear(100, 1000, bias=False)", nn.Linear(100, 1000, bias=False)),
        ("nn.Conv1d(1, 10, 3, padding=1, bias=False)", nn.Conv1d(1, 10, 3, padding=1, bias=False)),
        ("torch.nn.Conv2d(3, 8, (3, 5), stride=[1, 2], padding='same', dilation=1)", None),
        (" Conv2d(3, 8, kernel_size=3, padding=-1 + 0) ", None),
        ("Sequential(Conv2d(3, 8, 3), ReLU(inplace=True), Sequential(BatchNorm2d(8)))", None),
        ("ConvTranspose2d(4, 2, 2, stride=2)", nn.ConvTranspose2d(4, 2, 2, stride=2)),
        ("LayerNorm((4, 5), eps=1e-6)", nn.LayerNorm((4, 5), eps=1e-6)),
    ],
)
def test_an_expression_gives_the_same_layer_as_in_python(text: str, layer: nn.Module | None) -> None:
    if "stride=[1, 2]" in text:
        with pytest.raises(LabError, match="Conv2d cannot be built"):  # "same" padding does not allow strides
            parse_layer(text)
    elif "-1 + 0" in text:
        with pytest.raises(LabError, match="not a number, string or tuple"):
            parse_layer(text)
    else:
        parsed = parse_layer(text)
        expected = (
            layer
            if layer is not None
            else nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.Sequential(nn.BatchNorm2d(8)))
        )
        assert repr(parsed) == repr(expected)
        assert all(p.is_meta for p in parsed.parameters())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Linear",
        "Linear(",
        "Linear(100, 1000",
        "1 + 1",
        "import os",
        "__import__('os').system('touch hacked')",
        "open('hacked', 'w')",
        "Linear(open('hacked', 'w'), 3)",
        "Linear(100, (lambda: 1000)())",
        "Linear(*[1, 2])",
        "Linear(**{'in_features': 1, 'out_features': 2})",
        "Linear.__init__(1, 2)",
        "Linear(in_features=10)",
        "Linear(1, 2, 3, 4, 5, 6, 7, 8)",
        "Linear(1, 2, biass=False)",
        "Linear(b'x', 2)",
        "Linear({1: 2}, 2)",
        "Linear(-1, 2)",
        "Conv2d(3, 8, 3, groups=2)",
        "Module()",
        "Linar(1, 2)",
        "[Linear(1, 2)]",
        "Linear(1, 2); Linear(3, 4)",
        "Linear(1, Linear(2, 3))",
        "(" * 5000,
        f"0x{'f' * 5000}(1)",
        f"Linear(1 + 0x{'f' * 5000}, 2)",
        f"Linear(0x{'f' * 5000}, 2)",
        "Linear(1,\x00 2)",
    ],
)
def test_text_that_is_not_a_layer_is_refused_in_one_line_and_not_executed(text: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LabError) as caught:
        parse_layer(text)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "LSTM(1, 1, 100000000)",
        "GRU(1, 1, num_layers=100000000)",
        "RNN(1, 1, 100000000)",
        "RNNBase('LSTM', 1, 1, 100000000)",
        "Transformer(8, 2, 100000000)",
        "Transformer(8, 2, 1, 100000000)",
        "Transformer(8, 2, num_encoder_layers=1, num_decoder_layers=100000000)",
        f"Sequential(LSTM(1, 1, 0x{'f' * 5000}))",
    ],
)
def test_more_layers_than_can_be_built_in_a_moment_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(LabError, match="would have more than 500 layers: give fewer"):
        parse_layer(text)
    assert parse_layer("LSTM(3, 4, 2)").num_layers == 2


def test_a_misspelled_layer_or_argument_is_named_in_the_error() -> None:
    with pytest.raises(LabError, match="did you mean 'Linear'"):
        parse_layer("Linar(1, 2)")
    with pytest.raises(LabError, match="biass"):
        parse_layer("Linear(1, 2, biass=False)")


def test_no_weights_are_allocated_and_no_random_numbers_are_drawn() -> None:
    state = torch.get_rng_state()
    parse_layer("Linear(100000, 100000)")  # 40 GB if they were allocated
    assert torch.equal(torch.get_rng_state(), state)
