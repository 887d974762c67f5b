"""What a study can show before it is trained, against statsmodels, simulation and the studies' own decisions."""

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import convolab
from convolab.core.errors import LabError
from convolab.core.sequential import planned_looks
from convolab.core.stats import ALPHA, paired_t_test
from convolab.data.splits import DatasetSplits
from convolab.studies.contrast import Contrast
from convolab.studies.pilot import pooled_spread, read_pilot, spread_of_pairs, values_by_arm
from convolab.studies.power import (
    Spread,
    equivalence_power,
    given_spreads,
    seeds_to_differ,
    seeds_to_match,
    sequential_effect,
    smallest_effect,
    study_power,
)
from convolab.studies.runner import execute_study
from convolab.studies.section import Section
from convolab.studies.study import Study
from convolab.training.run import Run

NUM_STUDIES = 2_000
CHANCE = 3 * math.sqrt(0.8 * 0.2 / NUM_STUDIES)
LOSS_CONTRAST = {"arm": "fast", "baseline": "slow", "metric": "final_train_loss"}


@pytest.mark.slow
@pytest.mark.parametrize("power", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("num_tests", [1, 4, 30])
@pytest.mark.parametrize("seeds", [3, 5, 12, 100])
def test_the_smallest_effect_is_that_of_statsmodels(seeds: int, num_tests: int, power: float) -> None:
    oracle = pytest.importorskip("statsmodels.stats.power").TTestPower()
    effect = smallest_effect(seeds, ALPHA / num_tests, power)
    found = oracle.power(
        effect, seeds, ALPHA / num_tests / 2, alternative="larger"
    )  # its two-sided one is NaN at times
    assert found == pytest.approx(power, abs=1e-4)


def test_the_smallest_effect_is_the_one_that_reports_name() -> None:
    test = paired_t_test([0.74, 0.71, 0.75, 0.8], [0.70, 0.69, 0.70, 0.7], num_tests=3)
    assert test is not None
    spread = test.standard_error * 2
    assert smallest_effect(4, ALPHA / 3) * spread == pytest.approx(test.minimum_detectable_effect, rel=1e-6)


def test_a_number_of_seeds_is_the_first_that_shows_an_effect() -> None:
    for effect in (0.2, 0.7, 1.5, 4.0):
        seeds = seeds_to_differ(effect, 0.01)
        assert seeds is not None
        assert smallest_effect(seeds, 0.01) <= effect < smallest_effect(seeds - 1, 0.01)
    assert seeds_to_differ(0.05, 0.05) is None
    assert smallest_effect(1, 0.05) == math.inf


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "num_tests"), [(3, 1), (5, 4), (20, 10)])
def test_two_thousand_simulated_studies_of_fixed_seeds_have_the_power_promised(seeds: int, num_tests: int) -> None:
    level = ALPHA / num_tests
    values = np.random.default_rng(1).standard_normal((NUM_STUDIES, seeds)) + smallest_effect(seeds, level)
    found = stats.ttest_1samp(values, 0, axis=1).pvalue <= level
    assert abs(found.mean() - 0.8) < CHANCE


@pytest.mark.slow
def test_two_thousand_simulated_studies_without_a_difference_are_equivalent_as_often_as_promised() -> None:
    seeds, reach, level = 12, 1.1, 0.025
    values = np.random.default_rng(2).standard_normal((NUM_STUDIES, seeds))
    above = stats.ttest_1samp(values, -reach, axis=1, alternative="greater").pvalue
    below = stats.ttest_1samp(values, reach, axis=1, alternative="less").pvalue
    assert abs((np.maximum(above, below) <= level).mean() - equivalence_power(seeds, reach, level)) < CHANCE
    needed = seeds_to_match(reach, level)
    assert needed is not None
    assert equivalence_power(needed - 1, reach, level) < 0.8 <= equivalence_power(needed, reach, level)


SIMULATE = """
import json, math, sys
import numpy as np
from convolab.core.sequential import Estimate, planned_looks
from convolab.studies.decide import decide_contrasts

num_studies, most, effect = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
outcomes = []
for values in np.random.default_rng(3).standard_normal((num_studies, most)) + effect:
    def sample(contrast, seeds):
        return Estimate(float(values[:seeds].mean()), float(values[:seeds].std(ddof=1) / math.sqrt(seeds)), seeds)
    (decision,) = decide_contrasts(sample, [None], planned_looks(most))
    outcomes.append((decision.outcome, decision.seeds))
print(json.dumps(outcomes))
"""  # in another process, where types are not checked: 30 times as fast


@pytest.mark.slow
@pytest.mark.parametrize("most", [8, 20])
def test_two_thousand_simulated_studies_until_decided_have_the_power_and_the_seeds_promised(most: int) -> None:
    promised = sequential_effect(planned_looks(most), 1)
    command = [sys.executable, "-c", SIMULATE, *map(str, (NUM_STUDIES, most, promised.effect))]
    outcomes = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    seeds = np.array([seeds for _, seeds in outcomes])
    assert abs(np.mean([outcome == "different" for outcome, _ in outcomes]) - 0.8) < CHANCE
    assert abs(seeds.mean() - promised.mean_seeds) < 3 * seeds.std() / math.sqrt(NUM_STUDIES)


@pytest.mark.slow
def test_nine_of_ten_upper_bounds_of_a_spread_are_above_the_true_one() -> None:
    estimates = np.random.default_rng(4).standard_normal((NUM_STUDIES, 3)).std(axis=1, ddof=1)
    bounds = [Spread(value, "its own pairs", 2).high for value in estimates]
    assert abs(np.mean(np.array(bounds) > 1) - 0.9) < CHANCE
    assert Spread(0.5, "given").high == 0.5


def test_a_given_spread_is_in_the_unit_of_reports(make_study: Callable[..., Study]) -> None:
    result = study_power(make_study(), given_spreads(make_study(), 0.7))
    (contrast,) = result.contrasts
    assert contrast.spread is not None
    assert (contrast.spread.value, contrast.spread.source) == (pytest.approx(0.007), "given")
    assert contrast.smallest_difference(5) == pytest.approx(0.007 * smallest_effect(5, ALPHA))
    (row,) = result.rows()
    assert (row["unit"], row["spread"], row["margin"]) == ("percentage points", pytest.approx(0.7), 1.0)
    assert row["smallest_difference_5_seeds"] == pytest.approx(0.7 * smallest_effect(5, ALPHA))
    assert row["seeds_to_differ"] == seeds_to_differ(1 / 0.7, ALPHA)


def test_the_conclusion_counts_contrasts_that_show_their_margin(make_study: Callable[..., Study]) -> None:
    assert study_power(make_study(), {}).conclusion.startswith("No contrast has both a margin and a known")
    small = make_study(seeds=list(range(5)))
    result = study_power(
        small, given_spreads(small, 0.5), run_seconds=dict.fromkeys([("rates", "fast"), ("rates", "slow")], 720.0)
    )
    assert "With 5 seeds, 1 of 1 contrast can show a difference of 1 percentage point, in about " in result.conclusion
    timed = study_power(small, {}, run_seconds=result.run_seconds)
    assert "; the planned seeds take about " in timed.conclusion
    short = study_power(make_study(), given_spreads(make_study(), 0.5))
    assert (
        short.conclusion == "With 2 seeds, 0 of 1 contrast can show a difference of 1 percentage point; rates needs 5."
    )
    section = {**make_study().model_dump()["sections"]["rates"], "max_seeds": 6}
    until = make_study(seeds="until decided", sections={"rates": section})
    text = study_power(until, given_spreads(until, 0.9)).conclusion
    assert text.startswith('With at most 6 seeds, "until decided", 0 of 1 contrast')
    assert text.endswith("; rates needs 9 fixed seeds.")


def test_runs_that_sections_share_are_counted_once(make_study: Callable[..., Study]) -> None:
    section = make_study().model_dump()["sections"]["rates"]
    study = make_study(sections={"one": {**section, "seeds": [0, 1, 2]}, "two": section})
    seconds = {(name, arm): 10.0 for name in ("one", "two") for arm in ("fast", "slow")}
    one = study_power(study, {}, run_seconds=seconds).duration({"one": 3, "two": 0})
    assert study_power(study, {}, run_seconds=seconds).duration({"one": 3, "two": 2}) == one
    assert study_power(study, {}).duration({"one": 3, "two": 2}) is None


def test_runs_of_one_arm_with_other_seeds_in_another_section_are_counted_too(
    make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("convolab.studies.power.count_usable_cores", lambda: 1)
    section = make_study().model_dump()["sections"]["rates"]
    study = make_study(sections={"one": {**section, "seeds": [0, 1, 2]}, "two": {**section, "seeds": [3, 4, 5]}})
    power = study_power(
        study, {}, run_seconds={(name, arm): 10.0 for name in ("one", "two") for arm in ("fast", "slow")}
    )
    assert power.duration({"one": 3, "two": 3}) == 120
    assert power.duration({"one": 5, "two": 0}) == 100  # more than are planned


def test_a_wrong_spread_or_power_is_one_line(make_study: Callable[..., Study]) -> None:
    study = make_study()
    for spread in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(LabError, match=r"a spread of .* for best_validation_accuracy: give a number above 0"):
            given_spreads(study, spread)
    with pytest.raises(LabError, match="did you mean 'best_validation_accuracy'"):
        given_spreads(study, {"best_validation_acuracy": 1.0})
    for power in (0.0, 1.0, -1.0, 80.0, math.nan):
        with pytest.raises(LabError, match=r"a power of .*: give a fraction between 0 and 1"):
            study_power(study, {}, power)
    section = study.model_dump()["sections"]["rates"]
    mixed = make_study(sections={"rates": {**section, "contrasts": [LOSS_CONTRAST, *section["contrasts"]]}})
    with pytest.raises(LabError, match="one spread for metrics in nats and %: give each"):
        given_spreads(mixed, 0.7)
    with pytest.raises(LabError, match="has no contrast"):
        study_power(make_study(sections={"rates": {**section, "contrasts": []}}), {})


@pytest.fixture(scope="module")
def trained(make_study: Callable[..., Study], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny study with three seeds, each run on one thread."""
    from convolab.studies.executor import LocalExecutor

    folder = tmp_path_factory.mktemp("pilot") / "tiny"
    execute_study(make_study(seeds=[0, 1, 2]), folder, executor=LocalExecutor(1))
    return folder


@pytest.mark.slow
def test_a_pilots_spread_is_that_of_the_contrasts_own_pairs(make_study: Callable[..., Study], trained: Path) -> None:
    study = make_study(name="another", seeds=list(range(9)), recipe={**make_study().recipe, "data": {"limit": 250}})
    pilot = read_pilot(study, trained)
    ((key, spread),) = pilot.spreads.items()
    runs = [Run(path) for path in (trained / "runs").iterdir()]
    values = {(r.recipe.optimizer.lr, r.recipe.training.seed): key[1].parsed_metric.compute(r.history) for r in runs}
    differences = [values[0.1, seed] - values[0.001, seed] for seed in range(3)]
    assert (spread.value, spread.source) == (pytest.approx(np.std(differences, ddof=1)), "its own pairs")
    assert spread.degrees_of_freedom == 2
    assert pilot.notes == (f"what is not given is estimated from 6 finished runs in {trained}",)
    result = convolab.power(study, pilot=trained)
    assert result.contrasts[0].spread == spread
    assert "at the 90 % upper bound of the spreads" in result.conclusion
    assert result.to_frame().shape[0] == 1
    assert "<table>" in result._repr_html_()


@pytest.mark.slow
def test_the_very_runs_of_a_study_are_its_pairs_whatever_else_the_folders_study_asks(
    make_study: Callable[..., Study], trained: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained, tmp_path / "copy")
    arms = {"wide": {"model.hidden": 16}, "narrow": {}}
    other = {"width": {"arms": arms, "contrasts": [{"arm": "wide", "baseline": "narrow"}]}}
    make_study(sections=other).write(folder / "study.toml")
    (spread,) = read_pilot(make_study(seeds=[0, 1, 2]), folder).spreads.values()
    assert (spread.source, spread.degrees_of_freedom) == ("its own pairs", 2)


@pytest.mark.slow
def test_a_pilot_that_asks_another_question_gives_the_spread_of_all_pairs(
    make_study: Callable[..., Study], trained: Path
) -> None:
    arms = {"wide": {"model.hidden": 16}, "narrow": {}}
    contrast = {"arm": "wide", "baseline": "narrow", "metric": "final_train_loss"}
    study = make_study(sections={"width": {"arms": arms, "contrasts": [contrast]}})
    (spread,) = read_pilot(study, trained).spreads.values()
    runs = [Run(path) for path in (trained / "runs").iterdir()]
    assert spread == pooled_spread(values_by_arm(study.sections["width"].contrasts[0].parsed_metric, runs))
    assert (spread.source, spread.degrees_of_freedom) == ("all pairs of the metric", 2)


@pytest.mark.slow
def test_a_run_takes_as_long_as_in_the_pilot_or_it_is_left_open(
    make_study: Callable[..., Study], trained: Path
) -> None:
    study = make_study()
    base = study.recipe
    seconds = read_pilot(study, trained).run_seconds
    assert seconds is not None
    twice = make_study(recipe={**base, "training": {"epochs": 4, "batch_size": 64}})
    longer = read_pilot(twice, trained).run_seconds
    assert longer is not None
    assert sum(longer.values()) == pytest.approx(2 * sum(seconds.values()), rel=0.05)
    other = make_study(recipe={**base, "model": {"name": "shallow_net", "hidden": 9}})
    assert read_pilot(other, trained).run_seconds is None
    timed = convolab.power(other, time=True)
    assert timed.run_seconds is not None
    assert set(timed.run_seconds) == set(seconds)
    assert min(timed.run_seconds.values()) > 0


@pytest.mark.slow
def test_the_time_is_measured_on_the_images_that_the_arms_train_on(
    make_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch, digits: DatasetSplits
) -> None:
    loaded: list[str] = []

    def load(name: str, root: Path | None, image_size: int) -> DatasetSplits:
        loaded.append(name)
        return digits

    monkeypatch.setattr("convolab.api_studies.load", load)
    recipe = make_study().recipe
    sections = {"rates": {**make_study().model_dump()["sections"]["rates"], "overrides": {"data.name": "digits"}}}
    study = make_study(recipe={**recipe, "data": {**recipe["data"], "name": "cifar10"}}, sections=sections)
    assert convolab.power(study, spread=1.0, time=True, out="nowhere").run_seconds is not None
    assert loaded == ["digits"]


@pytest.mark.slow
def test_a_pilot_that_says_nothing_is_one_line(
    make_study: Callable[..., Study], trained: Path, tmp_path: Path, digits: DatasetSplits
) -> None:
    with pytest.raises(LabError, match="holds no finished run"):
        convolab.power(make_study(), pilot=tmp_path)
    with pytest.raises(LabError, match="there is no folder"):
        convolab.power(make_study(), pilot=tmp_path / "nowhere")
    Run.start(make_study().base_recipe, digits, tmp_path / "one")
    with pytest.raises(LabError, match="no two arms with two seeds in common that have best_validation_accuracy"):
        convolab.power(make_study(), pilot=tmp_path)
    assert convolab.power(make_study(), spread=1.0, pilot=tmp_path).contrasts[0].spread == Spread(0.01, "given")


@pytest.mark.slow
def test_a_pilots_other_data_and_damaged_runs_are_named(
    make_study: Callable[..., Study], trained: Path, tmp_path: Path
) -> None:
    other = make_study(recipe={**make_study().recipe, "data": {"name": "fashion_mnist", "limit": 200}})
    assert ", on digits instead of fashion_mnist" in read_pilot(other, trained).notes[0]
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    damaged = next(iter((copy / "runs").iterdir()))
    (damaged / "summary.json").write_text("[]")
    pilot = read_pilot(make_study(), copy)
    assert pilot.num_runs == 5
    assert pilot.notes[1].startswith(f"left out: {damaged}")
    assert next(iter(pilot.spreads.values())).degrees_of_freedom == 1


def test_the_spread_of_many_arms_is_what_a_two_way_layout_leaves_over() -> None:
    """Where each arm and each seed has a mean of its own."""
    table = np.random.default_rng(5).standard_normal((4, 5))
    arms = {("digits", f"arm {i}"): dict(enumerate(map(float, row))) for i, row in enumerate(table)}
    residuals = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    spread = pooled_spread(arms)
    assert spread is not None
    assert spread.value == pytest.approx(math.sqrt(2 * (residuals**2).sum() / 12))
    assert spread.degrees_of_freedom == 12
    assert pooled_spread({**arms, ("other", "arm 0"): {0: 9.0, 1: -9.0}}) == spread
    assert pooled_spread({key: {0: values[0]} for key, values in arms.items()}) is None


def test_a_contrast_of_which_nothing_is_known_spreads_by_its_weights_as_pairs_do():
    pooled: dict[str, Spread | None] = {"final_train_loss": Spread(0.1, "all pairs of the metric", 4)}
    plain = Contrast(arm="a", baseline="b", metric="final_train_loss")
    both = plain.model_copy(update={"interaction": ("c", "d")})
    section = Section(arms={name: {} for name in "abcd"})
    assert spread_of_pairs(plain, section, pooled) == pooled["final_train_loss"]
    spread = spread_of_pairs(both, section, pooled)
    assert spread is not None
    assert spread.value == pytest.approx(0.1 * math.sqrt(2))


@pytest.mark.parametrize("widen", [0, 2])
def test_a_trend_of_which_nothing_is_known_spreads_less_than_a_pair(widen: int):
    asked = {"trend": "optimizer.lr", "metric": "final_train_loss"}
    grid = {"optimizer.lr": [0.01, 0.1, 1.0, 10.0, 100.0]}
    section = Section.model_validate({"grid": grid, "widen": widen, "contrasts": [asked]})
    pooled: dict[str, Spread | None] = {"final_train_loss": Spread(0.1, "all pairs of the metric", 4)}
    spread = spread_of_pairs(section.contrasts[0], section, pooled)
    assert spread is not None
    values = np.random.default_rng(6).standard_normal((20_000, 5))
    pair = (values[:, 0] - values[:, 1]).std()
    trend = (values @ np.array([2, -1, -2, -1, 2]) / 4).std()
    assert spread.value / 0.1 == pytest.approx(trend / pair, rel=0.03)
