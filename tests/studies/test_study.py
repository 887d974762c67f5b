import math
import re
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from convolab.core.errors import LabError
from convolab.studies.metrics import Metric
from convolab.studies.section import Section
from convolab.studies.study import Study
from convolab.training.recipe import Recipe

BASE: dict[str, Any] = {
    "name": "norms",
    "seeds": [0, 1],
    "recipe": {"training": {"epochs": 2}},
    "sections": {
        "norm": {
            "overrides": {"optimizer.lr": 1e-3},
            "arms": {"with": {}, "without": {"model.batch_norm": False}},
            "contrasts": [{"arm": "with", "baseline": "without", "metric": "final_train_loss"}],
        },
        "rates": {"overrides": {"optimizer.name": "adam"}, "grid": {"optimizer.lr": [0.01, 0.001]}},
    },
}


def with_changes(*path: str, **entries: Any) -> dict[str, Any]:
    """BASE with some entries of the table at `path` changed; None removes one."""
    values = {**BASE, "sections": {name: dict(section) for name, section in BASE["sections"].items()}}
    table: Any = values
    for part in path:
        table = table[part]
    table.update(entries)
    for key in [key for key, value in entries.items() if value is None]:
        del table[key]
    return values


def test_every_arm_gets_every_seed_and_the_overrides_of_its_section():
    trials = Study.from_dict(BASE).trials
    assert [(t.section, t.arm, t.seed) for t in trials[:4]] == [
        ("norm", "with", 0),
        ("norm", "with", 1),
        ("norm", "without", 0),
        ("norm", "without", 1),
    ]
    assert [
        (t.recipe.optimizer.lr, t.recipe.model.options["batch_norm"], t.recipe.training.seed) for t in trials[1:3]
    ] == [
        (1e-3, True, 1),
        (1e-3, False, 0),
    ]
    assert all(t.recipe.training.epochs == 2 for t in trials)


def test_a_grid_makes_an_arm_of_every_combination():
    study = Study.from_dict(
        {
            "name": "g",
            "seeds": [0],
            "sections": {"s": {"grid": {"optimizer.lr": [0.1, 0.01], "model.channels": [[8], [8, 16]]}}},
        }
    )
    assert [t.arm for t in study.trials] == [
        "lr=0.1, channels=8",
        "lr=0.1, channels=8-16",
        "lr=0.01, channels=8",
        "lr=0.01, channels=8-16",
    ]
    assert study.trials[1].recipe.model.options["channels"] == (8, 16)


def test_two_keys_of_a_grid_with_the_same_last_part_keep_their_full_names():
    grid = {"optimizer.name": ["sgd", "adam"], "schedule.name": ["step", "cosine"]}
    study = Study.from_dict({"name": "g", "sections": {"s": {"grid": grid}}})
    assert "optimizer.name=sgd, schedule.name=cosine" in study.sections["s"].arm_overrides


def test_a_section_may_have_its_own_seeds():
    study = Study.from_dict(with_changes("sections", "rates", seeds=[7]))
    assert {t.seed for t in study.trials if t.section == "rates"} == {7}
    assert {t.seed for t in study.trials if t.section == "norm"} == {0, 1}


def test_sections_that_need_the_same_run_share_it():
    same = {"arms": {"usual": {"optimizer.lr": 1e-3}, "fast": {"optimizer.lr": 1.0}}}
    study = Study.from_dict(with_changes("sections", again=same))
    assert len(study.trials) == 2 * (2 + 2 + 2)
    assert len(study.recipes) == 2 * (2 + 2 + 1)


def test_a_study_reads_back_from_its_own_file_as_the_same_trials(tmp_path: Path):
    study = Study.from_dict(BASE)
    study.write(tmp_path / "study.toml")
    assert Study.read(tmp_path / "study.toml").trials == study.trials


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (with_changes("sections", "norm", arms=None), "give either arms or a grid, not both"),
        (with_changes("sections", "norm", grid={"optimizer.lr": [1.0]}), "give either arms or a grid, not both"),
        (
            with_changes("sections", "norm", contrasts=[{"arm": "with", "baseline": "wihtout"}]),
            "did you mean 'without'?",
        ),
        (
            with_changes("sections", "norm", contrasts=[{"arm": "with", "baseline": "with"}]),
            "contrasts: the arm 'with' is compared with itself: give another baseline",
        ),
        (
            with_changes(
                "sections", "norm", contrasts=[{"arm": "with", "baseline": "without", "metric": "final_trian_loss"}]
            ),
            "did you mean 'final_train_loss'?",
        ),
        (with_changes("sections", "norm", curves=["train_los"]), "did you mean 'train_loss'?"),
        (
            with_changes("sections", "norm", arms={"with": {}, "without": {"model.batchnorm": False}}),
            "section 'norm', arm 'without': the network 'simple_convnet' has no option 'batchnorm': "
            "did you mean 'batch_norm'?",
        ),
        (with_changes("sections", "norm", overrides={"optimiser.lr": 1.0}), "did you mean 'optimizer'?"),
        (with_changes("sections", "norm", overrides={"optimizer.lr": "fast"}), "optimizer.lr = 'fast'"),
        (
            with_changes("sections", "norm", arms={"a": {}, "b": {}}, contrasts=[]),
            "the arms 'a' and 'b' are the same recipe",
        ),
        (with_changes("sections", "rates", grid={"optimizer.lr": [0.1, 0.1]}), "the grid holds a value twice"),
        (with_changes("sections", "rates", grid={"optimizer.lr": []}), "a key of the grid has no values"),
        (
            with_changes("sections", "norm", contrast=[]),
            "a study has no key 'sections.norm.contrast': did you mean 'contrasts'?",
        ),
        (with_changes(seeds=[0, 0]), "seeds [0, 0] must be non-empty and distinct"),
        (with_changes(seeds=[]), "seeds"),
        (with_changes(sections={}), "sections"),
        (with_changes(sede=[1]), "did you mean 'seeds'?"),
        (with_changes(recipe={"trainign": {}}), "did you mean 'training'?"),
        (
            with_changes(
                "sections", "norm", overrides={"data.validation": 0}, contrasts=[{"arm": "with", "baseline": "without"}]
            ),
            "needs validation images, but the arm 'with' has none: set data.validation above 0",
        ),
    ],
)
def test_an_error_in_a_study_is_reported_in_one_line_before_anything_runs(values: dict[str, Any], message: str):
    with pytest.raises(LabError) as error:
        Study.from_dict(values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            with_changes("sections", "norm", change={"optimizer.lr": 0.1}),
            "sections.norm.change is now called sections.norm.overrides",
        ),
        (
            with_changes("sections", "norm", contrasts=[{"arm": "with", "against": "without"}]),
            "sections.norm.contrasts.0.against is now called sections.norm.contrasts.0.baseline",
        ),
        (
            with_changes("sections", "norm", metrics=["epochs_until_train_accuracy:1"]),
            "metric 'epochs_until_train_accuracy:1' is now called 'epochs_to_train_accuracy:1'",
        ),
        (
            with_changes("sections", "norm", metrics=["seconds_until_train_loss:1"]),
            "is now called 'seconds_to_train_loss:1'",
        ),
        (with_changes(recipe={"data": {"size": 32}}), "data.size is now called data.image_size"),
    ],
)
def test_the_error_about_a_name_of_the_first_edition_gives_the_new_name(values: dict[str, Any], message: str):
    with pytest.raises(LabError) as error:
        Study.from_dict(values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_overrides_apply_in_order_so_an_arm_with_a_new_name_resets_the_options_of_its_section():
    sections = {
        "s": {"overrides": {"optimizer.name": "adam", "optimizer.lr": 0.5}, "arms": {"a": {"optimizer.name": "sgd"}}}
    }
    (trial,) = Study.from_dict({"name": "order", "seeds": [0], "sections": sections}).trials
    assert trial.recipe.key == Recipe().key


def test_a_study_file_of_a_later_format_is_refused():
    with pytest.raises(LabError, match="this study has format 2, and this convolab knows formats up to 1"):
        Study.from_dict(with_changes(format=2))


def test_a_study_is_written_with_its_format():
    assert Study.from_dict(BASE).to_toml().startswith("format = 1\n")


def test_the_error_about_an_unknown_section_suggests_the_nearest_name(tmp_path: Path):
    Study.from_dict(BASE).write(tmp_path / "study.toml")
    with pytest.raises(LabError, match=r"no section 'rate' in the study .*: did you mean 'rates'"):
        Study.read(tmp_path / "study.toml", sections=["rate"])


def test_a_study_file_can_be_read_with_fewer_sections_other_seeds_and_another_dataset(tmp_path: Path):
    Study.from_dict(BASE).write(tmp_path / "study.toml")
    study = Study.read(tmp_path / "study.toml", data="cifar10", seeds=range(3), sections=["rates"])
    assert {trial.section for trial in study.trials} == {"rates"}
    assert {trial.seed for trial in study.trials} == {0, 1, 2}
    assert {trial.recipe.data.name for trial in study.trials} == {"cifar10"}
    assert study.base_recipe.training.epochs == 2


def test_other_seeds_take_the_place_of_a_sections_own_too(tmp_path: Path):
    values = with_changes("sections", "rates", seeds=[7])
    values["sections"]["norm"]["seeds"] = "until decided"
    Study.from_dict(values).write(tmp_path / "study.toml")
    study = Study.read(tmp_path / "study.toml", seeds=range(2))
    assert {(trial.section, trial.seed) for trial in study.possible_trials} == {
        (section, seed) for section in ("norm", "rates") for seed in (0, 1)
    }


def test_a_wrong_key_in_a_section_called_seeds_is_not_taken_for_seeds():
    with pytest.raises(LabError, match=r"^study: sections\.seeds\.widen = 'a': give a whole number$"):
        Study.from_dict({"name": "x", "sections": {"seeds": {"arms": {"a": {}}, "widen": "a"}}})


def test_the_names_of_metrics_are_parsed_once_however_many_trials_are_checked(monkeypatch: pytest.MonkeyPatch):
    parsed: list[str] = []
    parse = Metric.parse
    monkeypatch.setattr(Metric, "parse", lambda text: parsed.append(text) or parse(text))
    metrics = [f"epochs_to_train_accuracy:{share}" for share in (0.5, 0.6, 0.7, 0.8)]
    counts = []
    for num_seeds in (1, 50):
        parsed.clear()
        Study.from_dict(with_changes("sections", "norm", metrics=metrics) | {"seeds": list(range(num_seeds))})
        counts.append(len(parsed))
    assert counts[0] == counts[1]


# ---- grids


GRID = Section(grid={"optimizer.lr": (0.1, 1.0, 0.01), "optimizer.name": ("sgd", "adam")})


def test_neighbors_in_a_grid_differ_by_one_step_of_one_key_in_the_order_of_size():
    assert GRID.grid_neighbors("lr=0.1, name=sgd") == ["lr=0.1, name=adam", "lr=1, name=sgd", "lr=0.01, name=sgd"]
    assert GRID.grid_neighbors("lr=1, name=adam") == ["lr=0.1, name=adam", "lr=1, name=sgd"]


def test_a_grid_has_an_edge_only_along_numbers():
    assert GRID.is_at_grid_edge("lr=1, name=sgd")
    assert GRID.is_at_grid_edge("lr=0.01, name=adam")
    assert not GRID.is_at_grid_edge("lr=0.1, name=adam")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seeds": list(range(10_001))}, "the study has 10,001 runs, and may have 10,000"),
        (
            {"sections": {"big": {"grid": {f"optimizer.k{i}": list(range(99)) for i in range(3)}}}},
            "the grid has 970,299 arms, and a section may have 1,000",
        ),
    ],
)
def test_a_study_of_too_many_runs_is_refused_at_once(change: dict, message: str) -> None:
    values = {"name": "big", "seeds": [0], "sections": {"one": {"arms": {"a": {}}}}, **change}
    start = time.monotonic()
    with pytest.raises(LabError, match=message):
        Study.from_dict(values)
    assert time.monotonic() - start < 2


SEVEN_KEYS = {
    "optimizer.lr": [0.0123, 0.02],
    "optimizer.momentum": [0.9],
    "optimizer.weight_decay": [0.0005],
    "training.epochs": [1, 2],
    "training.batch_size": [128],
    "data.limit": [300],
    "data.validation": [0.1],
}


@pytest.mark.parametrize(
    "grid",
    [
        {"optimizer.lr": [0.01234567, 0.01234568]},
        {"optimizer.lr": [1.00000001, 1.00000002], "training.epochs": [1, 2]},
        {"data.name": ["folder:sets/a/small", "folder:sets/b/small", "folder:sets\\c\\small/"]},
        {"data.name": ["folder:a\nb", "folder:a\tb", "folder:/", "folder:" + "x" * 300, "folder:" + "x" * 301]},
        {"data.augment": [["crop:1"] * 60, ["crop:1"] * 61]},
        SEVEN_KEYS,
    ],
)
def test_a_grid_of_any_values_has_arms_that_contrasts_can_name(grid: dict[str, Any]):
    first, *others = arms = Section.model_validate({"grid": grid}).arm_overrides
    contrasts = [{"arm": arm, "baseline": first} for arm in others]
    study = Study.from_dict({"name": "g", "seeds": [0], "sections": {"s": {"grid": grid, "contrasts": contrasts}}})
    assert len(study.trials) == len(arms) == math.prod(map(len, grid.values()))
    assert [dict(overrides) for overrides in arms.values()] == [trial_overrides(t.recipe, grid) for t in study.trials]


def trial_overrides(recipe: Recipe, grid: dict[str, Any]) -> dict[str, Any]:
    values = recipe.to_dict()
    return {key: values[key.partition(".")[0]][key.partition(".")[2]] for key in grid}


def test_a_grid_of_networks_of_ones_own_names_them_by_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"nets/{name}.py").write_text(
            "from torch import nn\ndef Net(shape, classes): return nn.Flatten()\n"
        )
    contrast = {"arm": "name=b.py:Net", "baseline": "name=a.py:Net"}
    grid = {"model.name": ["nets/a.py:Net", "nets/b.py:Net"]}
    study = Study.from_dict({"name": "g", "sections": {"s": {"grid": grid, "contrasts": [contrast]}}})
    assert [t.recipe.model.name for t in study.trials[::3]] == grid["model.name"]


def test_a_value_that_stands_twice_in_a_grid_is_refused_with_its_key() -> None:
    with pytest.raises(LabError, match=r"holds a value twice \(of optimizer\.lr\)"):
        Study.from_dict({"name": "s", "sections": {"s": {"grid": {"optimizer.lr": [0.1, 0.1]}}}})


# ---- seeds "until decided"


def until_decided(**values: Any) -> Study:
    arms = {"a": {}, "b": {"optimizer.lr": 0.2}}
    section = {"arms": arms, "contrasts": [{"arm": "a", "baseline": "b"}]}
    return Study.from_dict({"name": "x", "seeds": "until decided", "sections": {"s": section}, **values})


def test_seeds_until_decided_plan_the_first_look_and_allow_for_the_rest():
    study = until_decided()
    assert [trial.seed for trial in study.trials if trial.arm == "a"] == [0, 1, 2]
    assert [trial.seed for trial in study.possible_trials if trial.arm == "a"] == list(range(20))
    assert study.seeds_text("s") == "until decided, at most 20"
    assert Study.from_dict(tomllib.loads(study.to_toml())) == study


def test_a_section_has_seeds_until_decided_of_its_own():
    arms = {"a": {}, "b": {"optimizer.lr": 0.2}}
    own = {"arms": arms, "seeds": "until decided", "max_seeds": 5, "contrasts": [{"arm": "a", "baseline": "b"}]}
    study = until_decided(seeds=[7], sections={"fixed": {"arms": arms}, "own": own})
    assert (study.looks("fixed"), study.looks("own")) == ((), (3, 4, 5))
    assert study.seeds_of("fixed") == (7,)


@pytest.mark.parametrize("max_seeds", [-1, 0, 2, 101])
def test_a_most_of_seeds_below_the_first_look_is_refused_in_one_line(max_seeds: int):
    with pytest.raises(LabError, match=f"section 's': max_seeds is {max_seeds}: the first look is at 3 seeds"):
        until_decided(max_seeds=max_seeds)


def test_seeds_until_decided_without_a_contrast_are_refused_in_one_line():
    with pytest.raises(LabError, match="section 's': seeds are \"until decided\", but it has no contrast"):
        until_decided(sections={"s": {"arms": {"a": {}}}})


@pytest.mark.parametrize("seeds", ["until done", "", "3"])
def test_other_words_for_seeds_are_refused_in_one_line(seeds: str):
    with pytest.raises(LabError, match='give a list of whole numbers, or "until decided"'):
        until_decided(seeds=seeds)


@pytest.mark.slow
def test_an_arm_is_checked_once_however_many_seeds_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[object] = []
    parse = Recipe.parse_overrides

    def count(self: Recipe, *overrides: Any, **keywords: Any) -> Recipe:
        checked.append(overrides)
        return parse(self, *overrides, **keywords)

    monkeypatch.setattr(Recipe, "parse_overrides", count)
    arms = {"a": {}, "b": {"optimizer.lr": 0.1, "training.seed": 7}}
    study = Study.from_dict({"name": "many", "seeds": list(range(1000)), "sections": {"lr": {"arms": arms}}})
    assert len(study.recipes) == 2000
    assert len(checked) == 2
    expected = study.base_recipe.with_overrides({"optimizer.lr": 0.1, "training.seed": 999})
    last = study.trials[-1].recipe
    assert (last, last.key) == (expected, expected.key)


PAIR = {"arms": {"a": {}, "b": {"optimizer.lr": 0.02}}, "contrasts": [{"arm": "a", "baseline": "b"}]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "."}, "name = '.' is not a name of a folder"),
        ({"name": ".."}, "name = '..' is not a name of a folder"),
        ({"name": "a/b"}, "leave out slashes, tabs and line breaks"),
        ({"seeds": [True, False]}, "give a whole number"),
        ({"seeds": "until decided", "max_seeds": True}, "give a whole number"),
        (
            {"sections": {"s": {**PAIR, "contrasts": 2 * PAIR["contrasts"]}}},
            "a − b by best_validation_accuracy is asked twice",
        ),
        (
            {"sections": {"s": {**PAIR, "contrasts": [*PAIR["contrasts"], {"arm": "b", "baseline": "a"}]}}},
            "b − a by best_validation_accuracy is asked twice",
        ),
    ],
)
def test_a_name_of_no_folder_yes_for_a_number_and_a_question_asked_twice_are_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(LabError, match=re.escape(words)) as caught:
        Study.from_dict({"name": "x", "sections": {"s": PAIR}, **changes})
    assert "\n" not in str(caught.value)
