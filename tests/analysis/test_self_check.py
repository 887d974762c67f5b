"""The self-check of a summary: where counts and closed forms agree, and how that is reported."""

from collections.abc import Callable

import pytest
from torch import nn
from torch.nn.utils import prune

from convolab.analysis.summary import summarize_network
from convolab.reports.summary import comparison_table, self_check_line


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")  # deprecated, and still what people have
@pytest.mark.parametrize("normalize", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_layers_whose_weight_is_computed_from_other_parameters_agree_with_their_closed_form(
    normalize: Callable[[nn.Module], nn.Module],
) -> None:
    net = nn.Sequential(
        normalize(nn.Conv2d(3, 4, 3)),
        normalize(nn.ConvTranspose2d(4, 2, 3, bias=False)),
        nn.Flatten(),
        normalize(nn.Linear(2 * 8 * 8, 5)),
    )
    cost = summarize_network(net, (3, 8, 8))
    assert cost.mismatches == ()
    assert self_check_line([cost]).endswith("agree in 3 of 3 linear and convolutional layers")
    assert cost.num_parameters == sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("normalize", [nn.utils.weight_norm, nn.utils.spectral_norm])
def test_the_parameters_of_a_normalized_layer_alone_are_counted(normalize: Callable[[nn.Module], nn.Module]) -> None:
    layer = normalize(nn.Linear(6, 4))
    cost = summarize_network(layer, (6,))
    assert cost.mismatches == ()
    assert cost.num_parameters == sum(parameter.numel() for parameter in layer.parameters())


def test_pruned_layers_agree_with_their_closed_form() -> None:
    layer = nn.Linear(6, 4)
    prune.random_unstructured(layer, "weight", amount=2)
    prune.random_unstructured(layer, "bias", amount=1)
    assert summarize_network(nn.Sequential(layer), (6,)).mismatches == ()


def test_a_layer_that_differs_in_both_numbers_is_one_layer_that_does_not_agree() -> None:
    odd, even = nn.Linear(4, 4), nn.Linear(4, 4)
    odd.in_features = 5  # its attributes are not those of its weight
    cost = summarize_network(nn.Sequential(odd, even), (4,))
    (mismatch,) = cost.mismatches
    assert "16 MACs counted, 5×4 = 20 by its closed form" in mismatch
    assert "20 parameters counted, 24 by its closed form" in mismatch
    assert self_check_line([cost]).endswith("agree in 1 of 2 linear and convolutional layers")
    assert self_check_line([summarize_network(nn.Sequential(odd), (4,))]).endswith(
        "agree in 0 of 1 linear and convolutional layers"
    )


def test_a_layer_that_passes_its_input_on_has_a_column_beside_others() -> None:
    headings, *rows = comparison_table([summarize_network(layer, (10,)) for layer in (nn.Identity(), nn.ReLU())])
    assert headings == ["", "Identity", "ReLU"]
    table = {quantity: cells for quantity, *cells in rows}
    assert table["input"] == ["10", "10"]
    assert table["output"] == ["-", "10"]
    assert table["parameters"] == ["0", "0"]
    assert table["receptive field"] == ["-", "1"]


def test_the_output_of_a_network_is_not_that_of_a_layer_that_is_never_called() -> None:
    net = nn.Sequential(nn.Linear(4, 3))
    net[0].auxiliary = nn.Linear(3, 2)  # registered but never called
    _, *rows = comparison_table([summarize_network(net, (4,))])
    assert ["output", "3"] in rows
