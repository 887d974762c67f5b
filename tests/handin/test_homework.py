"""homework.toml, and that it and the notebooks' sources speak of the same cells."""

import pytest

from convolab.core.errors import LabError
from convolab.handin import homework as module
from convolab.handin.homework import Homework, load_homework
from convolab.handin.notebooks import read_source
from convolab.training.recipe import Recipe


def test_every_cell_that_an_item_names_has_the_tag_for_it(homework: Homework) -> None:
    for notebook in homework.notebooks:
        tags = {cell.name: cell.tag for cell in read_source(notebook.name)}
        for item in homework.items_of(notebook.name):
            for names, tag in (
                (item.code, "gap"),
                (item.checks, "check"),
                (item.figures, "figure"),
                (item.comments, "comment"),
            ):
                assert {name: tags.get(name) for name in names} == dict.fromkeys(names, tag)
            assert all(value.cell in tags for value in item.values)


def test_every_cell_with_a_tag_belongs_to_exactly_one_item(homework: Homework) -> None:
    named = [name for item in homework.items for name in (*item.code, *item.checks, *item.figures, *item.comments)]
    tagged = [cell.name for notebook in homework.notebooks for cell in read_source(notebook.name) if cell.tag]
    assert sorted(named) == sorted(tagged)


def test_every_item_has_a_notebook_and_its_own_id(homework: Homework) -> None:
    assert {item.notebook for item in homework.items} == {notebook.name for notebook in homework.notebooks}
    ids = [item.id for item in homework.items]
    assert len(set(ids)) == len(ids)


def test_every_value_has_a_range_for_every_dataset(homework: Homework) -> None:
    for item in homework.items:
        for value in item.values:
            assert value.ranges.keys() == set(homework.datasets)
            assert all(low <= high for low, high in value.ranges.values())


def test_every_recipe_is_one_that_convolab_can_train(homework: Homework) -> None:
    for overrides in homework.recipes.values():
        Recipe.from_dict({}).with_overrides(overrides)


def test_every_dataset_has_a_trial_budget_that_is_smaller(homework: Homework) -> None:
    for name in homework.datasets:
        budget, trial = homework.budgets[name], homework.budgets[f"{name}-fast"]
        assert trial.epochs * trial.limit < budget.epochs * budget.limit


def test_a_damaged_file_is_one_line_that_names_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    text = module.read_package_file("homework.toml").replace("min_comment_words = 12", 'min_comment_words = "many"')
    monkeypatch.setattr(module, "read_package_file", lambda name: text)
    load_homework.cache_clear()
    try:
        with pytest.raises(LabError, match=r"homework.toml: min_comment_words = 'many': give a whole number"):
            load_homework()
    finally:
        load_homework.cache_clear()
