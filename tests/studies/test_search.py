"""Searches: what is sampled, who goes on, and that neither kills nor workers change anything."""

import importlib.util
import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support.run_contents import run_contents

from convolab.core.errors import LabError
from convolab.data.splits import DatasetSplits
from convolab.studies import runner, search_runner
from convolab.studies.executor import EventCallback, Executor, Job, JobEvent, LocalExecutor
from convolab.studies.runner import read_study_result
from convolab.studies.search import (
    FIRST_SEED,
    Choice,
    Proposals,
    Range,
    Search,
    best_third,
    parse_range,
    propose,
    propose_random,
    rung_epochs,
    score_at,
    space_of,
)
from convolab.studies.search_runner import SearchResult, execute_search
from convolab.studies.trials import estimate_training_cost, find_corruption, train_trial
from convolab.training.history import EpochMetrics
from convolab.training.recipe import Recipe

SPACE = {"optimizer.lr": Range(0.0005, 2.0), "model.hidden": Choice((8, 16, 64))}


@pytest.fixture
def make_search() -> Callable[..., Search]:
    def make(count: int = 9, sampler: str = "random", epochs: int = 9, **changes) -> Search:
        recipe = Recipe.from_dict(
            {
                "data": {"limit": 200},
                "model": {"name": "shallow_net"},
                "schedule": {"name": "cosine"},  # every epoch's rate depends on the number of all of them
                "training": {"epochs": epochs, "batch_size": 64},
            }
        )
        return Search(
            **{"name": "rates", "recipe": recipe, "space": SPACE, "count": count, "sampler": sampler} | changes
        )

    return make


def epoch(number: int, accuracy: float, loss: float = 1.0) -> EpochMetrics:
    return EpochMetrics(number, 1.0, 0.5, loss, accuracy)


def summary(result: SearchResult) -> list[dict]:
    return [one.to_row() for one in result.tried]


# ---------------------------------------------------------------- what is sampled


def draw(space: dict, count: int, seed: int = 0) -> list[dict]:
    recipe = Recipe.from_dict({"model": {"name": "shallow_net"}})
    (drawn,) = propose_random(Search("x", recipe, space, count, seed=seed))
    return drawn


def test_draws_are_log_uniform_for_rates_uniform_from_zero_and_whole_for_whole_numbers() -> None:
    keys = rate, momentum, size, schedule = "optimizer.lr", "optimizer.momentum", "training.batch_size", "schedule.name"
    values = Range(0.001, 0.1), Range(0.0, 0.9), Range(1, 4, whole=True), Choice(("step", "cosine"))
    drawn = draw(dict(zip(keys, values, strict=True)), 1000)
    assert 450 < sum(one[rate] < 0.01 for one in drawn) < 550
    assert 450 < sum(one[momentum] < 0.45 for one in drawn) < 550
    assert {one[size] for one in drawn} == {1, 2, 3, 4}
    assert 450 < sum(one[schedule] == "step" for one in drawn) < 550
    assert all(0.001 <= one[rate] <= 0.1 for one in drawn)


def test_the_same_seed_draws_the_same_and_more_draws_begin_with_the_same() -> None:
    assert draw(SPACE, 5) == draw(SPACE, 20)[:5]
    assert draw(SPACE, 5) != draw(SPACE, 5, seed=1)


def test_no_configuration_is_drawn_twice_and_a_small_space_is_drawn_whole() -> None:
    drawn = draw({"model.hidden": Choice((1, 2)), "training.batch_size": Range(1, 3, whole=True)}, 50)
    assert len(drawn) == len({json.dumps(one) for one in drawn}) == 6


@pytest.mark.parametrize(
    ("text", "current", "expected"),
    [
        ("0.003..0.3", 0.1, Range(0.003, 0.3)),
        (".001...3", 0.1, Range(0.001, 0.3)),
        ("1..10", 0.1, Range(1.0, 10.0)),  # a rate's, though written without points
        ("16..256", 128, Range(16, 256, whole=True)),
        ("1e-4..1e-2", 0.1, Range(1e-4, 1e-2)),
        ("2..9", None, Range(2, 9, whole=True)),
        ("../nets/a.py:A", "simple_convnet", None),
        ("a..b", 0.1, None),
        ("0.1", 0.1, None),
    ],
)
def test_two_numbers_with_dots_between_are_a_range(text: str, current: object, expected: Range | None) -> None:
    assert parse_range("k", text, current) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer.lr": ["0.3..0.003"]}, "from a lower number to a higher one"),
        ({"optimizer.lr": ["0.1..0.1"]}, "from a lower number to a higher one"),
        ({"optimizer.lr": ["-0.1..0.3"]}, "no number is negative"),
        ({"optimizer.lr": ["0.1.."]}, "is not a range"),
        ({"optimizer.lr": ["0.1..inf"]}, "is not a range"),
        ({"optimizer.lr": ["0.1..0.2..0.3"]}, "is not a range"),
        ({"optimizer.lr": ["0.1..0.2", 0.5]}, "one range, or values"),
        ({"training.batch_size": ["1.5..8"]}, "takes whole numbers"),
        ({"model.hidden": [f"1..{'9' * 400}"]}, "is not a range|too large"),
    ],
)
def test_a_wrong_range_is_one_line_that_names_its_key(values: dict, message: str) -> None:
    recipe = Recipe.from_dict({"model": {"name": "shallow_net"}})
    with pytest.raises(LabError, match=message) as caught:
        space_of(values, recipe)
    assert next(iter(values)) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "give 1 to 1,000"),
        ({"count": 10**9}, "give 1 to 1,000"),
        ({"sampler": "tpee"}, "did you mean 'tpe'"),
        ({"seed": -1}, "give 0 or more"),
        ({"space": {"training.epochs": Choice((1, 2))}}, "cannot be searched"),
        ({"space": {"data.validation": Range(0.1, 0.5)}}, "cannot be searched"),
        ({"space": {"optimizer.rate": Range(0.1, 0.5)}}, "no key 'optimizer.rate'"),
        ({"space": {"training.label_smoothing": Range(0.1, 1.5)}}, "training.label_smoothing"),
        ({"space": {"optimizer.lr": Choice((0.1, 0.1))}}, "a value twice"),
        ({"recipe": Recipe.from_dict({"data": {"validation": 0.0}})}, "data.validation is 0"),
    ],
)
def test_a_search_that_cannot_be_is_refused_when_it_is_made(
    make_search: Callable[..., Search], changes: dict, message: str
) -> None:
    with pytest.raises(LabError, match=message) as caught:
        make_search(**changes)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- who goes on


def test_the_best_third_goes_on_and_the_loss_decides_between_equals() -> None:
    scores = {name: (0.9, -float(loss)) for name, loss in zip("abcdefg", range(7, 0, -1), strict=True)}
    assert best_third(scores) == ["g", "f"]
    assert best_third({"a": (0.1, 0.0), "b": None}) == ["a"]
    assert best_third({"a": None}) == []


def test_a_score_is_that_of_the_rung_whatever_was_trained_since() -> None:
    history = [epoch(1, 0.5, 2.0), epoch(2, 0.4), epoch(3, 0.9)]
    assert score_at(history, 2) == score_at(history[:2], 2) == (0.5, -2.0)
    assert score_at([], 2) is None


def test_few_epochs_have_fewer_rungs() -> None:
    assert [rung_epochs(epochs) for epochs in (1, 2, 3, 9, 10)] == [[1], [2], [1, 3], [1, 3, 9], [1, 3, 10]]


# ---------------------------------------------------------------- runs


@pytest.mark.slow
def test_each_rung_goes_on_with_the_runs_of_the_one_before(make_search, in_process, tmp_path: Path) -> None:
    events: list[JobEvent] = []
    lines: list[str] = []
    result = execute_search(make_search(), tmp_path, executor=in_process, on_event=events.append, on_rung=lines.append)
    assert lines == [
        f"{text} of 9"
        for text in (
            "9 configurations up to epoch 1",
            "3 configurations up to epoch 3",
            "1 configuration up to epoch 9",
        )
    ]
    assert [one.rung for one in result.tried] == [9] + 2 * [3] + 6 * [1]
    assert sum(event.kind == "epoch" for event in events) == 9 * 1 + 3 * 2 + 1 * 6
    assert [one.result.status for one in result.tried] == ["finished"] + 8 * ["stopped"]
    assert max(event.fraction_done for event in events) == 1.0
    study = read_study_result(tmp_path).study
    assert study.seeds == (FIRST_SEED,)


@pytest.mark.slow
def test_the_winner_has_the_bits_of_a_run_that_was_never_paused(
    make_search, in_process, digits, tmp_path: Path
) -> None:
    winner = execute_search(make_search(), tmp_path / "search", executor=in_process).winner
    assert winner is not None
    train_trial(winner.result.trial.recipe, digits, tmp_path / "run")
    assert run_contents(tmp_path / "run") == run_contents(winner.result.folder)


@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [5, *(pytest.param(at, marks=pytest.mark.long) for at in (12, 17))])  # in each rung
def test_a_search_that_is_stopped_anywhere_goes_on_to_the_same_end(
    make_search, in_process, tmp_path: Path, stop_at: int
) -> None:
    whole = execute_search(make_search(), tmp_path / "whole", executor=in_process)
    events: list[JobEvent] = []

    def is_over() -> bool:
        return sum(event.kind == "epoch" for event in events) >= stop_at

    first = execute_search(
        make_search(), tmp_path / "cut", executor=in_process, on_event=events.append, should_stop=is_over
    )
    assert not first.is_complete
    assert first.winner is None
    second = execute_search(make_search(), tmp_path / "cut", executor=in_process, on_event=events.append)
    assert summary(second) == summary(whole)
    assert sum(event.kind == "epoch" for event in events) == 9 + 6 + 6  # no epoch twice


@pytest.mark.slow
def test_a_finished_search_is_not_trained_again(make_search, in_process, tmp_path: Path) -> None:
    first = execute_search(make_search(), tmp_path, executor=in_process)
    events: list[JobEvent] = []
    again = execute_search(make_search(), tmp_path, executor=in_process, on_event=events.append)
    assert events == []
    assert summary(again) == summary(first)


@pytest.mark.timing
def test_one_and_two_workers_find_the_same(make_search, tmp_path: Path) -> None:
    results = [execute_search(make_search(), tmp_path / str(n), executor=LocalExecutor(n)) for n in (1, 2)]
    assert summary(results[0]) == summary(results[1])
    for one in results[0].tried:
        other = next(other for other in results[1].tried if other.name == one.name)
        assert run_contents(one.result.folder) == run_contents(other.result.folder)


@pytest.mark.slow
def test_a_configuration_that_diverges_or_fails_does_not_go_on_and_the_search_ends(
    make_search, in_process, tmp_path: Path
) -> None:
    space = {"optimizer.lr": Choice((0.1, 1e30, 0.01))}
    result = execute_search(make_search(count=3, space=space), tmp_path, executor=in_process)
    assert result.winner is not None
    assert result.tried[-1].result.status == "diverged"
    assert result.tried[-1].score is None
    all_diverge = make_search(count=1, space={"optimizer.lr": Choice((1e30,))}, name="bad")
    assert execute_search(all_diverge, tmp_path / "bad", executor=in_process).winner is None


class FailsAtTheLastRung:
    """An executor in which the first run that is to be trained to its end fails."""

    def __init__(self, inner: Executor) -> None:
        self.inner, self.has_failed = inner, False

    def run(
        self, jobs: list[Job], dataset_folder: Path, on_event: EventCallback, should_stop: Callable[[], bool]
    ) -> None:
        last = [job for job in jobs if job.pause_after == job.recipe.training.epochs]
        if last and not self.has_failed:
            self.has_failed = True
            on_event(JobEvent(last[0].recipe.key, "failed", reason="out of memory"))
            jobs = [job for job in jobs if job is not last[0]]
        self.inner.run(jobs, dataset_folder, on_event, should_stop)


@pytest.mark.slow
def test_where_the_only_one_at_the_last_rung_fails_the_next_best_goes_on(
    make_search, in_process, tmp_path: Path
) -> None:
    search = make_search(count=3, epochs=9)
    first = execute_search(search, tmp_path / "a", executor=in_process)
    result = execute_search(search, tmp_path / "b", executor=FailsAtTheLastRung(in_process))
    assert first.winner is not None
    assert result.winner is not None
    assert result.winner.name != first.winner.name
    reached = {one.name: one.rung for one in result.tried}
    assert reached[first.winner.name] < 9


@pytest.mark.slow
def test_too_few_epochs_and_too_few_configurations_are_reported(make_search, in_process, tmp_path: Path) -> None:
    messages: list[str] = []
    search = make_search(count=5, epochs=2, space={"model.hidden": Choice((8, 16))})
    result = execute_search(search, tmp_path, executor=in_process, on_message=messages.append)
    assert [one.rung for one in result.tried] == [2, 2]
    assert any("too few epochs to halve" in message for message in messages)
    assert "the search has only 2 different configurations" in messages


@pytest.mark.slow
def test_a_configuration_that_cannot_be_trained_is_refused_before_any_training(
    make_search, in_process, tmp_path: Path
) -> None:
    search = make_search(space={"training.batch_size": Range(64, 5000, whole=True)})
    with pytest.raises(LabError, match="a batch of"):
        execute_search(search, tmp_path / "out", executor=in_process)
    assert not list((tmp_path / "out").glob("runs/*"))


@pytest.mark.slow
def test_each_configuration_is_checked_once_however_many_batches_there_are(
    make_search, in_process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_two_batches(search: Search) -> Proposals:
        (drawn,) = propose_random(search)
        yield drawn[:2]
        yield drawn[1:]  # one of them again

    checks: list[tuple[str, str]] = []

    def estimate(recipe: Recipe, splits: DatasetSplits) -> float:
        checks.append(("cost", recipe.key))
        return estimate_training_cost(recipe, splits)

    def look(folder: Path, recipe: Recipe) -> str | None:
        checks.append(("files", recipe.key))
        return find_corruption(folder, recipe)

    monkeypatch.setattr(search_runner, "propose", in_two_batches)
    monkeypatch.setattr(runner, "estimate_training_cost", estimate)
    monkeypatch.setattr(runner, "find_corruption", look)
    result = execute_search(make_search(count=3, epochs=1), tmp_path, executor=in_process)
    keys = {one.result.trial.recipe.key for one in result.tried}
    assert len(keys) == 3
    assert sorted(checks) == sorted((kind, key) for kind in ("cost", "files") for key in keys)


@pytest.mark.slow
def test_a_search_goes_into_no_folder_of_something_else(make_search, in_process, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(LabError, match="holds no study"):
        execute_search(make_search(), tmp_path, executor=in_process)


def test_the_decision_has_seeds_that_no_search_uses(make_search) -> None:
    search = make_search()
    for num_seeds in (None, 5):
        study = search.decision("1. lr=0.1", {"optimizer.lr": 0.1}, num_seeds)
        assert max(trial.seed for trial in study.possible_trials) < FIRST_SEED
        assert {trial.arm for trial in study.trials} == {"default", "winner"}


# ---------------------------------------------------------------- Optuna


def test_without_optuna_tpe_is_one_line(make_search, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(LabError, match=r"^Optuna is not installed: pip install 'convolab\[optuna\]', or search with"):
        execute_search(make_search(sampler="tpe"), tmp_path)
    assert list(tmp_path.iterdir()) == []


needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")


@needs_optuna
@pytest.mark.slow
def test_tpe_with_the_same_scores_proposes_the_same_and_prefers_what_was_good(make_search) -> None:
    space = {
        "optimizer.lr": Range(0.001, 1.0),
        "model.hidden": Choice((8, 16)),
        "training.batch_size": Range(8, 64, whole=True),
    }

    def ask(count: int) -> list[dict]:
        proposals, asked = propose(make_search(space=space, count=count, sampler="tpe")), []
        batch = next(proposals)
        with suppress(StopIteration):
            while True:
                asked += batch
                batch = proposals.send([one["training.batch_size"] / 64 for one in batch])
        return asked

    asked = ask(62)
    assert len(asked) == 62
    assert ask(30) == asked[:30]
    assert all(0.001 <= one["optimizer.lr"] <= 1 and isinstance(one["training.batch_size"], int) for one in asked)
    early, late = ([one["training.batch_size"] for one in part] for part in (asked[:20], asked[-20:]))
    assert sum(late) > sum(early) + 100


@needs_optuna
@pytest.mark.slow
@pytest.mark.parametrize("stop_at", [3, 6, 11])
def test_a_search_by_tpe_that_is_stopped_goes_on_to_the_same_end(
    make_search, in_process, tmp_path: Path, stop_at: int
) -> None:
    search = make_search(count=12, sampler="tpe")
    whole = execute_search(search, tmp_path / "whole", executor=in_process)
    events: list[JobEvent] = []
    execute_search(
        search, tmp_path / "cut", executor=in_process, on_event=events.append,
        should_stop=lambda: sum(event.kind == "epoch" for event in events) >= stop_at,
    )  # fmt: skip
    assert summary(execute_search(search, tmp_path / "cut", executor=in_process)) == summary(whole)
    assert len(whole.tried) == 12
