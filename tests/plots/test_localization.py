"""Charts of localization scores: their data and their kind."""

import pytest

from convolab.inspection.localization.samples import EvaluationSetting
from convolab.inspection.localization.score import BASELINES, LocalizationScore, ScoreRecord
from convolab.plots.localization import localization_scores_chart, score_rows

NAMES = ("erf", "rf-center", "resize", *BASELINES)


def score(setting: EvaluationSetting) -> LocalizationScore:
    records = tuple(
        ScoreRecord(
            str(n),
            "cat",
            dict.fromkeys(NAMES, n % 2 == 0),
            dict.fromkeys(NAMES, 0.1 * n),
            dict.fromkeys(NAMES, (0.1 * n,) * 9),
        )
        for n in range(4)
    )
    return LocalizationScore(setting, NAMES, records)


def photos(shorter_side: int | None) -> LocalizationScore:
    return score(EvaluationSetting(f"scale {shorter_side}px", (), shorter_side=shorter_side))


ALL_SCALES = score(EvaluationSetting("scales 160px + 224px", (), background="all_scales"))


def fields(scores: list[LocalizationScore]) -> set[str]:
    panels = localization_scores_chart(scores, "title").to_dict()["vconcat"][0]["hconcat"]
    return {
        layer["encoding"][axis]["field"]
        for panel in panels
        for layer in panel["layer"]
        for axis in ("x", "y")
        if "field" in layer["encoding"][axis]
    }


def test_the_data_have_a_row_for_each_setting_map_and_metric_in_percent() -> None:
    rows = score_rows([photos(160), ALL_SCALES])
    assert len(rows) == 2 * 6 * 3
    assert rows[0] | {"low": 0, "high": 0} == {
        "setting": "scale 160px",
        "background": "photos",
        "object_size": None,
        "shorter_side": 160,
        "num_objects": 4,
        "map": "erf",
        "metric": "pointing_game",
        "mean": 50.0,
        "low": 0,
        "high": 0,
    }


@pytest.mark.slow
def test_several_sizes_are_lines_and_one_size_is_dots() -> None:
    assert fields([photos(160), photos(224), ALL_SCALES]) == {"shorter_side", "mean", "low"}
    assert fields([photos(160)]) == {"map", "mean", "low"}
    assert fields([photos(None), photos(224)]) == {"map", "mean", "low"}


@pytest.mark.slow
def test_scores_of_synthetic_objects_are_plotted_over_their_size_with_a_row_of_panels_per_background() -> None:
    scores = [
        score(EvaluationSetting(f"{size} {background}", (), background=background, object_size=size))
        for background in ("plain", "textured")
        for size in (8, 16)
    ]
    assert fields(scores) == {"object_size", "mean", "low"}
    assert len(localization_scores_chart(scores, "title").to_dict()["vconcat"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("settings", [[photos(160), photos(224)], [photos(160), ALL_SCALES]])
def test_for_a_phone_the_panels_are_one_below_the_other_and_each_has_its_labels(
    settings: list[LocalizationScore],
) -> None:
    wide = localization_scores_chart(settings, "title").to_dict()["vconcat"]
    narrow = localization_scores_chart(settings, "title", is_narrow=True).to_dict()["vconcat"]
    assert [len(row["hconcat"]) for row in narrow] == [1] * sum(len(row["hconcat"]) for row in wide)
    axes = [row["hconcat"][0]["layer"][0]["encoding"]["y"].get("axis", {}) for row in narrow]
    assert all(axis.get("labels", True) for axis in axes)
