import pytest

from convolab.core.errors import LabError
from convolab.studies.coursework import COURSEWORK_SECTIONS, coursework


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
    assert len(study.sections[section].arm_overrides) == 5
    assert {"train_loss", "validation_loss"} <= set(study.sections[section].curves)


@pytest.mark.slow
def test_batch_norm_is_compared_at_the_learning_rates_of_the_course():
    study = coursework("cifar10", "full")
    rates = {
        (t.section, t.recipe.optimizer.name, t.recipe.optimizer.lr)
        for t in study.trials
        if t.section.startswith("batch-norm")
    }
    assert rates == {("batch-norm-sgd", "sgd", 1e-3), ("batch-norm-adam", "adam", 1e-4)}


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
    assert small == {("crop:1", "flip", "cutout:2")}
    assert large == {("crop:4", "flip", "cutout:8")}


@pytest.mark.slow
def test_the_default_recipe_is_trained_once_for_all_sections_that_use_it():
    study = coursework()
    default = {t.recipe.key for t in study.trials if t.section == "shallow-vs-conv" and t.arm == "convnet"}
    shared = {t.section for t in study.trials if t.recipe.key in default}
    assert {"residual", "transforms", "schedules", "lr-sgd", "gamma-step"} <= shared


@pytest.mark.slow
def test_the_quick_budget_takes_fewer_images_and_epochs():
    quick, full = coursework("cifar10", "quick").base_recipe, coursework("cifar10", "full").base_recipe
    assert (quick.data.limit, full.data.limit) == (10_000, None)
    assert quick.training.epochs < full.training.epochs


def test_the_error_about_an_unknown_section_suggests_the_nearest_name():
    with pytest.raises(LabError, match="did you mean 'residual'"):
        coursework(sections=("residuals",))
