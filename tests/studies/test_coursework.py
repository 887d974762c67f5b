from pathlib import Path

import pytest
from PIL import Image

from convolab.core.errors import LabError
from convolab.data.catalog import load
from convolab.studies.coursework import COURSEWORK_SECTIONS, coursework
from convolab.studies.runner import estimate_costs
from convolab.studies.trials import estimate_training_cost
from convolab.training.sections import Data


@pytest.mark.slow
def test_the_coursework_has_every_section_of_the_question():
    study = coursework()
    assert (*study.sections, "best-on-test") == COURSEWORK_SECTIONS
    assert study.test_best


@pytest.mark.slow
@pytest.mark.parametrize("data", ["digits", "cifar10"])
@pytest.mark.parametrize("section", ["lr-sgd", "lr-adam", "gamma-step"])
def test_each_search_tries_five_values_and_plots_both_losses(data: str, section: str):
    study = coursework(data)
    assert len(study.sections[section].written_arms) == 5
    assert study.sections[section].contrasts[-1].trend
    assert {"train_loss", "validation_loss"} <= set(study.sections[section].curves)


@pytest.mark.slow
def test_batch_norm_is_compared_at_the_learning_rates_of_the_course():
    study = coursework("cifar10", "full")
    rates = {
        (t.section, t.recipe.optimizer.name, t.recipe.optimizer.lr)
        for t in study.trials
        if t.section.startswith("batch-norm")
    }
    assert rates == {
        ("batch-norm-sgd", "sgd", 1e-3), ("batch-norm-sgd", "sgd", 0.1), ("batch-norm-adam", "adam", 1e-4),
    }  # fmt: skip


@pytest.mark.slow
def test_the_one_batch_to_overfit_is_the_whole_training_set():
    for trial in coursework().trials:
        if trial.section == "overfit-one-batch":
            assert (trial.recipe.data.limit, trial.recipe.training.batch_size, trial.recipe.data.validation) == (
                128,
                128,
                0,
            )
            assert trial.recipe.data.augment == ()


@pytest.mark.slow
def test_crops_and_cutouts_grow_with_the_images():
    small, large = (
        {t.recipe.data.augment for t in coursework(data).trials if "cutout" in t.arm} for data in ("digits", "cifar10")
    )
    assert small == {("crop:1", "cutout:2")}  # the mirror image of a digit is none
    assert large == {("crop:4", "flip", "cutout:8")}


@pytest.mark.slow
def test_the_default_recipe_is_trained_once_for_all_sections_that_use_it():
    study = coursework()
    default = {t.recipe.key for t in study.trials if t.section == "shallow-vs-conv" and t.arm == "convnet"}
    shared = {t.section for t in study.trials if t.recipe.key in default}
    assert {"lr-sgd", "wider-convnet"} <= shared


@pytest.mark.slow
def test_the_quick_budget_takes_fewer_images_and_epochs():
    quick, full = coursework("cifar10", "quick").base_recipe, coursework("cifar10", "full").base_recipe
    assert (quick.data.limit, full.data.limit) == (10_000, None)
    assert quick.training.epochs < full.training.epochs


@pytest.mark.slow
def test_the_quick_budget_of_few_images_and_of_ones_own_asks_for_no_more_than_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert coursework("digits", "quick").base_recipe.data.validation == coursework().base_recipe.data.validation == 0.3
    for number in range(40):
        path = tmp_path / "pets" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32)).save(path)
    study = coursework("folder:pets")
    assert (study.base_recipe.data.limit, study.base_recipe.training.epochs) == (None, 5)
    splits = load("folder:pets", image_size=32)
    for trial in study.trials[:2]:
        assert estimate_training_cost(trial.recipe.with_overrides({"training.batch_size": 8}), splits) > 0


def write_pets(folder: Path, counts: dict[str, int]) -> str:
    """A folder of two classes with so many images of each, by split."""
    for split, count in counts.items():
        for name in ("cat", "dog"):
            (folder / "pets" / split / name).mkdir(parents=True)
            for number in range(count):
                color = (number, 200 * (name == "cat"), 50 * len(split))
                Image.new("RGB", (32, 32), color).save(folder / "pets" / split / name / f"{number}.png")
    return "folder:pets"


@pytest.mark.slow
@pytest.mark.parametrize(
    "counts", [{"": 20}, {"train": 20, "val": 5}, {"train": 20, "val": 5, "test": 5}, {"train": 2, "test": 1}]
)
def test_the_coursework_can_be_trained_on_few_images_of_ones_own_and_with_their_own_validation(
    tmp_path: Path, counts: dict[str, int]
) -> None:
    messages: list[str] = []
    data = write_pets(tmp_path, counts)
    assert (*coursework(data, data_dir=tmp_path, on_message=messages.append).sections, "best-on-test") == (
        COURSEWORK_SECTIONS
    )
    assert messages == []
    sections = ("shallow-vs-conv", "overfit-one-batch", "transforms")
    study = coursework(data, sections=sections, data_dir=tmp_path)
    splits = load(data, tmp_path)
    assert min(estimate_costs(study.possible_trials, splits).values()) > 0
    default = Data().validation
    expected = {default} if "val" in counts else {0.0, 0.3}
    assert {trial.recipe.data.validation for trial in study.trials} == expected


@pytest.mark.slow
def test_sections_that_images_of_ones_own_are_too_few_for_are_left_out_with_a_line(tmp_path: Path) -> None:
    messages: list[str] = []
    data = write_pets(tmp_path, {"train": 1, "test": 1})
    study = coursework(data, data_dir=tmp_path, on_message=messages.append)
    assert list(study.sections) == ["overfit-one-batch"]
    (message,) = messages
    assert message.startswith("the coursework with folder:pets is without shallow-vs-conv, batch-norm-sgd, ")
    with pytest.raises(LabError, match="cannot be done with folder:pets: no class would have two training images"):
        coursework(data, sections=["residual"], data_dir=tmp_path)
    with pytest.raises(LabError, match="cannot read nowhere"):
        coursework("folder:nowhere")


@pytest.mark.slow
def test_all_images_are_trained_on_until_every_contrast_is_decided_and_few_with_three_seeds():
    assert coursework("cifar10", "full").seeds == "until decided"
    assert coursework("cifar10", "quick").seeds == (0, 1, 2)
    assert coursework("cifar10", "full", seeds=(4, 5)).seeds == (4, 5)


@pytest.mark.slow
def test_residual_connections_are_asked_about_at_three_depths_and_how_their_effect_changes():
    section = coursework().sections["residual"]
    assert [contrast.arm for contrast in section.contrasts if contrast.is_plain][:3] == [
        "3 layers, residual", "9 layers, residual", "15 layers, residual",
    ]  # fmt: skip
    assert [contrast.interaction for contrast in section.contrasts if contrast.interaction] == [
        ("3 layers, residual", "3 layers")
    ]


def test_the_error_about_an_unknown_section_suggests_the_nearest_name():
    with pytest.raises(LabError, match="did you mean 'residual'"):
        coursework(sections=("residuals",))
