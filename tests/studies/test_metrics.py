import math
from dataclasses import replace

import pytest
from support.histories import history

from convolab.core.errors import LabError
from convolab.studies.metrics import METRIC_KINDS, QUANTITIES, Metric

RUN = history([0.3, 0.6, 0.5], losses=[1.5, 0.9, 1.0], gap=0.1)
NAMES = [f"final_{q}" for q in QUANTITIES] + [f"best_{q}" for q in QUANTITIES] + ["final_gap"]
TIMES = [f"{kind}_{q}:0.5" for kind in METRIC_KINDS[2:] for q in QUANTITIES]


@pytest.mark.parametrize("name", NAMES + TIMES + ["epochs_to_train_loss:0.0123456789", "seconds_to_train_accuracy:1"])
def test_the_text_of_a_metric_is_parsed_to_the_same_metric(name: str) -> None:
    assert str(Metric.parse(name)) == name
    assert Metric.parse(str(Metric.parse(name))) == Metric.parse(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("best_validation_acuracy", "did you mean 'best_validation_accuracy'"),
        ("best_gap", "unknown metric"),
        ("validation_accuracy", "unknown metric"),
        ("", "unknown metric"),
        ("epochs_to_validation_accuracy", "give the threshold"),
        ("final_train_loss:0.5", "takes no threshold"),
        ("epochs_to_train_loss:low", "'low' is not a number"),
        ("epochs_to_train_loss:nan", "above 0"),
        ("epochs_to_train_loss:-1", "above 0"),
        ("epochs_to_validation_accuracy:60", "at most 1"),
    ],
)
def test_an_unknown_metric_is_refused_in_one_line(name: str, message: str) -> None:
    with pytest.raises(LabError, match=message) as error:
        Metric.parse(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("final_train_loss", 1.0),
        ("best_train_loss", 0.9),
        ("final_validation_loss", 2.0),
        ("best_validation_loss", 1.8),
        ("final_validation_accuracy", 0.5),
        ("best_validation_accuracy", 0.6),
        ("best_train_accuracy", 0.7),
        ("final_gap", 0.1),
        ("epochs_to_validation_accuracy:0.6", 2.0),  # reached when equal
        ("epochs_to_train_loss:0.9", 2.0),
        ("seconds_to_train_loss:0.9", 4.0),
        ("epochs_to_validation_accuracy:0.61", 3.0),  # never reached: all its epochs
        ("seconds_to_validation_accuracy:0.61", 6.0),
    ],
)
def test_a_metric_is_the_number_its_name_says(name: str, value: float) -> None:
    assert Metric.parse(name).compute(RUN) == pytest.approx(value)


@pytest.mark.parametrize(
    ("name", "higher", "unit", "validation"),
    [
        ("final_train_loss", False, "nats", False),
        ("best_validation_accuracy", True, "%", True),
        ("final_train_accuracy", True, "%", False),
        ("final_gap", False, "%", True),
        ("epochs_to_validation_accuracy:0.6", False, "epochs", True),
        ("seconds_to_train_loss:0.6", False, "s", False),
    ],
)
def test_a_metric_has_a_direction_a_unit_and_says_whether_it_needs_validation(
    name: str, higher: bool, unit: str, validation: bool
) -> None:
    metric = Metric.parse(name)
    assert (metric.higher_is_better, metric.unit, metric.needs_validation) == (higher, unit, validation)


def test_a_metrics_title_is_plain_english() -> None:
    assert Metric.parse("best_validation_accuracy").title == "best validation accuracy"
    assert Metric.parse("final_gap").title == ("final generalization gap (training minus validation accuracy)")
    assert Metric.parse("epochs_to_train_accuracy:0.57").title == "epochs to a training accuracy of 57 %"
    assert Metric.parse("seconds_to_train_loss:0.5").title == "seconds to a training loss of 0.5 nats"


def test_the_curve_of_a_metric_is_its_quantity_after_each_epoch() -> None:
    assert Metric.parse("epochs_to_train_loss:0.5").curve(RUN) == [1.5, 0.9, 1.0]
    assert Metric.parse("final_gap").curve(RUN) == pytest.approx([0.1, 0.1, 0.1])


def test_times_can_be_compared_up_to_the_shortest_run_that_never_reached_the_threshold() -> None:
    metric = Metric.parse("epochs_to_validation_accuracy:0.6")
    short, long = history([0.1] * 4), history([0.1] * 9)
    assert metric.censoring_time([RUN, long, short]) == 4
    assert metric.censoring_time([RUN]) == math.inf
    assert Metric.parse("best_validation_accuracy").censoring_time([short]) == math.inf
    assert Metric.parse("seconds_to_validation_accuracy:0.6").censoring_time([long, short]) == 8.0


def test_accuracies_are_quantized_by_the_number_of_images_and_losses_are_not() -> None:
    fractions = [history([correct / 144 for correct in row]) for row in ([50, 61, 62], [70, 90, 90])]
    for name in ("best_validation_accuracy", "final_gap"):
        assert Metric.parse(name).quantization_step(fractions) == pytest.approx(1 / 144)
    many = [history([correct / 59_999 for correct in range(30_000 + i, 59_999, 997)]) for i in (0, 1)]
    assert Metric.parse("best_validation_accuracy").quantization_step(many) == pytest.approx(1 / 59_999, rel=1e-6)
    assert Metric.parse("final_train_loss").quantization_step(fractions) == 0
    assert (
        Metric.parse("best_validation_accuracy").quantization_step([history([0.5, 0.5])]) == 0
    )  # no step was observed


def test_times_are_quantized_by_epochs() -> None:
    runs = [history([0.3, 0.6], seconds=2.0), history([0.3, 0.6], seconds=3.0)]
    assert Metric.parse("epochs_to_validation_accuracy:0.6").quantization_step(runs) == 1
    assert Metric.parse("seconds_to_validation_accuracy:0.6").quantization_step(runs) == pytest.approx(2.5)


def test_a_run_without_validation_still_has_its_training_numbers() -> None:
    run = [replace(epoch, validation_loss=None, validation_accuracy=None) for epoch in RUN]
    assert Metric.parse("best_train_loss").compute(run) == 0.9
    assert Metric.parse("final_train_accuracy").quantization_step([run]) > 0
