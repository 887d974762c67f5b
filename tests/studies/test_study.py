from pathlib import Path
from typing import Any

import pytest

from convolab.core.errors import LabError
from convolab.studies.study import Study

BASE: dict[str, Any] = {
    "name": "norms",
    "seeds": [0, 1],
    "recipe": {"training": {"epochs": 2}},
    "sections": {
        "norm": {
            "change": {"optimizer.lr": 1e-3},
            "arms": {"with": {}, "without": {"model.batch_norm": False}},
            "contrasts": [{"arm": "with", "against": "without", "metric": "final_train_loss"}],
        },
        "rates": {"change": {"optimizer.name": "adam"}, "grid": {"optimizer.lr": [0.01, 0.001]}},
    },
}


def changed(*path: str, **entries: Any) -> dict[str, Any]:
    """BASE with some entries of the table at `path` set anew; None takes one away."""
    whole = {**BASE, "sections": {name: dict(section) for name, section in BASE["sections"].items()}}
    table: Any = whole
    for part in path:
        table = table[part]
    table.update(entries)
    for key in [key for key, value in entries.items() if value is None]:
        del table[key]
    return whole


def test_every_arm_gets_every_seed_and_its_section_s_changes():
    trials = Study.parse(BASE).trials
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
    study = Study.parse(
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


def test_two_keys_of_a_grid_with_the_same_end_keep_their_whole_names():
    grid = {"optimizer.name": ["sgd", "adam"], "schedule.name": ["step", "cosine"]}
    study = Study.parse({"name": "g", "sections": {"s": {"grid": grid}}})
    assert "optimizer.name=sgd, schedule.name=cosine" in study.sections["s"].arm_overrides


def test_a_section_may_have_seeds_of_its_own():
    study = Study.parse(changed("sections", "rates", seeds=[7]))
    assert {t.seed for t in study.trials if t.section == "rates"} == {7}
    assert {t.seed for t in study.trials if t.section == "norm"} == {0, 1}


def test_sections_that_need_the_same_run_share_it():
    same = {"arms": {"usual": {"optimizer.lr": 1e-3}, "fast": {"optimizer.lr": 1.0}}}
    study = Study.parse(changed("sections", again=same))
    assert len(study.trials) == 2 * (2 + 2 + 2)
    assert len(study.recipes) == 2 * (2 + 2 + 1)


def test_a_study_reads_back_from_its_own_file_as_the_same_trials(tmp_path: Path):
    study = Study.parse(BASE)
    study.write(tmp_path / "study.toml")
    assert Study.read(tmp_path / "study.toml").trials == study.trials


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (changed("sections", "norm", arms=None), "give either arms or a grid"),
        (changed("sections", "norm", grid={"optimizer.lr": [1.0]}), "give either arms or a grid"),
        (changed("sections", "norm", contrasts=[{"arm": "with", "against": "wihtout"}]), "did you mean 'without'?"),
        (changed("sections", "norm", contrasts=[{"arm": "with", "against": "with"}]), "sets the arm 'with' against itself"),
        (changed("sections", "norm", contrasts=[{"arm": "with", "against": "without", "metric": "final_trian_loss"}]), "did you mean 'final_train_loss'?"),
        (changed("sections", "norm", curves=["train_los"]), "did you mean 'train_loss'?"),
        (changed("sections", "norm", arms={"with": {}, "without": {"model.batchnorm": False}}), "section 'norm', arm 'without': the network 'simple_convnet' has no option 'batchnorm': did you mean 'batch_norm'?"),
        (changed("sections", "norm", change={"optimiser.lr": 1.0}), "did you mean 'optimizer'?"),
        (changed("sections", "norm", change={"optimizer.lr": "fast"}), "optimizer.lr = 'fast'"),
        (changed("sections", "norm", arms={"a": {}, "b": {}}, contrasts=[]), "the arms 'a' and 'b' are the same recipe"),
        (changed("sections", "rates", grid={"optimizer.lr": [0.1, 0.1]}), "a value stands twice in the grid"),
        (changed("sections", "rates", grid={"optimizer.lr": []}), "a key of the grid has no values"),
        (changed("sections", "norm", contrast=[]), "a study has no key 'sections.norm.contrast': did you mean 'contrasts'?"),
        (changed(seeds=[0, 0]), "seeds [0, 0] repeat"),
        (changed(seeds=[]), "seeds"),
        (changed(sections={}), "sections"),
        (changed(sede=[1]), "did you mean 'seeds'?"),
        (changed(recipe={"trainign": {}}), "did you mean 'training'?"),
        (changed("sections", "norm", change={"data.validation": 0}, contrasts=[{"arm": "with", "against": "without"}]), "needs validation pictures, and the arm 'with' holds none back"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_study_is_said_in_one_line_before_anything_runs(values: dict[str, Any], said: str):
    with pytest.raises(LabError) as refused:
        Study.parse(values)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_section_is_answered_with_the_nearest():
    with pytest.raises(LabError, match="no section 'rate' in the study norms: did you mean 'rates'"):
        Study.parse(BASE).select_sections(["rate"])


def test_only_some_sections_bring_only_their_own_trials():
    some = Study.parse(BASE).select_sections(["rates"])
    assert {trial.section for trial in some.trials} == {"rates"}
    assert set(some.recipes) == {trial.recipe.key for trial in some.trials}
