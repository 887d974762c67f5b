"""Scores of known records, compared with scipy and statsmodels."""

import json
from dataclasses import replace

import pytest
import torch
from scipy.stats import binomtest, ttest_rel
from statsmodels.stats.multitest import multipletests

from convolab.core.stats import ALPHA
from convolab.inspection.adversarial.transfer import McNemarResult
from convolab.inspection.localization.samples import EvaluationSetting
from convolab.inspection.localization.score import (
    BASELINES,
    LocalizationScore,
    MapComparison,
    ScoreRecord,
    best_threshold,
    describe_score,
)

ALL_MAPS = ("erf", "rf-center", "resize", *BASELINES)


def record(sample: str, hits: dict[str, bool], ious: tuple[float, ...] = (0.5,) * 9, label: str = "x") -> ScoreRecord:
    names = (*hits, *(name for name in BASELINES if name not in hits))
    return ScoreRecord(
        sample,
        label,
        {name: hits.get(name, False) for name in names},
        dict.fromkeys(names, 0.3),
        dict.fromkeys(names, ious),
    )


def score(records: tuple[ScoreRecord, ...], names: tuple[str, ...] = ("erf", *BASELINES)) -> LocalizationScore:
    return LocalizationScore(EvaluationSetting("x", ()), names, records)


def test_the_threshold_of_each_half_is_chosen_on_the_other_half() -> None:
    low = (1.0,) + (0.0,) * 8
    high = (0.0,) * 8 + (0.4,)
    records = tuple(record(str(n), {"erf": True}, low if n % 2 == 0 else high) for n in range(6))
    result = score(records)
    assert result.fold_thresholds("erf") == (0.9, 0.1)
    assert result.cross_fitted_ious("erf") == [0.0] * 6
    assert best_threshold(records[:1], "erf") == 0.1
    assert best_threshold((), "erf") == 0.5


def test_objects_of_one_image_are_in_the_same_half() -> None:
    first, second = score(tuple(record(name, {"erf": True}) for name in "aabbccdd")).folds
    assert {r.sample for r in first} == {"a", "c"}
    assert {r.sample for r in second} == {"b", "d"}


def test_every_category_has_the_same_weight_in_the_macro_mean() -> None:
    records = (
        *(record(str(n), {"erf": True}, label="many") for n in range(9)),
        record("z", {"erf": False}, label="one"),
    )
    result = score(records)
    assert result.pointing_game("erf")[0] == 9
    assert result.pointing_game_macro_mean("erf").mean == 0.5
    assert result.pointing_game("erf")[1] == pytest.approx(tuple(binomtest(9, 10).proportion_ci(method="wilson")))


def test_a_real_difference_is_significant_and_no_other_is_claimed() -> None:
    records = tuple(record(str(n), {"erf": n < 36, "resize": n < 35, "rf-center": n < 10}) for n in range(40))
    result = score(records, ALL_MAPS)
    by_pair = {(c.first, c.second): c for c in result.comparisons if c.metric == "pointing_game"}
    assert by_pair["erf", "rf-center"].p_value < 0.001
    assert by_pair["erf", "rf-center"].better == "erf"
    assert by_pair["erf", "resize"].p_value == 1
    assert by_pair["erf", "resize"].discordant_counts == (1, 0)
    text = " ".join(describe_score(result))
    assert "erf over rf-center" in text
    assert "not significant: erf and resize" in text


def test_p_values_are_corrected_for_the_number_of_tests() -> None:
    records = tuple(record(str(n), {"erf": n < 7, "resize": False, "rf-center": True}) for n in range(7))
    uncorrected = 2 * 0.5**7  # of four of the six comparisons
    p_values = {round(c.p_value, 9) for c in score(records, ALL_MAPS).comparisons if c.metric == "pointing_game"}
    assert p_values == {1.0, round(6 * uncorrected, 9)}


@pytest.mark.slow
def test_energy_and_iou_are_compared_by_paired_tests_with_holms_correction() -> None:
    noise = torch.rand(30, generator=torch.Generator().manual_seed(0)).tolist()
    records = []
    for number, value in enumerate(noise):
        base = record(str(number), {"erf": True, "resize": True})
        energies = {"erf": 0.5 + 0.1 * value, "resize": 0.45 + 0.1 * value + 0.01 * (number % 3)}
        records.append(replace(base, energy_fractions=base.energy_fractions | energies))
    result = score(tuple(records), ("erf", "resize", *BASELINES))
    compared = [c for c in result.comparisons if c.metric == "energy_in_box"]
    values = {name: [r.energy_fractions[name] for r in records] for name in ("erf", "resize", "center")}
    uncorrected = [ttest_rel(values[c.first], values[c.second]).pvalue for c in compared]
    expected = multipletests(uncorrected, method="holm")[1].tolist()
    assert [c.p_value for c in compared] == pytest.approx(expected, rel=1e-6)
    assert compared[0].better == "erf"
    assert compared[0].difference == pytest.approx(0.04, abs=1e-6)
    assert [c.p_value for c in result.comparisons if c.metric == "iou"] == [1.0] * 3


def test_the_keys_of_a_score_in_json() -> None:
    records = tuple(record(str(n), {"erf": n < 3, "rf-center": True, "resize": True}) for n in range(6))
    values = json.loads(json.dumps(score(records, ALL_MAPS).to_dict(), allow_nan=False))
    assert set(values) == {
        "setting",
        "background",
        "object_size",
        "shorter_side",
        "num_objects",
        "num_categories",
        "tolerance",
        "maps",
        "comparisons",
        "records",
    }
    assert set(values["maps"]) == set(ALL_MAPS)
    assert set(values["maps"]["erf"]) == {
        "hits",
        "fraction",
        "interval",
        "pointing_game_macro_mean",
        "energy",
        "thresholds",
        "iou",
        "box_accuracy",
    }
    assert set(values["comparisons"][0]) == {
        "metric",
        "first",
        "second",
        "difference",
        "discordant_counts",
        "p_value",
    }
    assert set(values["records"][0]) == {"sample", "label", "pointing_hits", "energy_fractions", "ious"}


def test_a_p_value_of_exactly_the_level_is_significant_in_every_comparison() -> None:
    assert MapComparison("iou", "erf", "resize", 0.1, None, ALPHA).is_significant
    assert McNemarResult(6, 0, ALPHA).is_significant


@pytest.mark.parametrize("strongest", BASELINES)
def test_each_map_is_compared_with_the_baseline_that_hits_most(strongest: str) -> None:
    hits = {name: 5 if name == strongest else 2 for name in BASELINES} | {"erf": 6}
    records = tuple(record(str(n), {name: n < count for name, count in hits.items()}) for n in range(8))
    for comparison in score(records).comparisons:
        assert (comparison.first, comparison.second) == ("erf", strongest)
    [by_hits] = [c for c in score(records).comparisons if c.metric == "pointing_game"]
    assert by_hits.discordant_counts == (1, 0)
