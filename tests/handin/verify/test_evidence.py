"""Evidence that contradicts itself: each edit of a run's files is a sign, and a whole one has none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from convolab.data.catalog import load
from convolab.handin.verify.copies import Traces, copy_signs, own_run_signs
from convolab.handin.verify.evidence import RunEvidence, have_common_count, read_evidence
from convolab.training.recipe import Recipe
from convolab.training.run import Run

Values = dict


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder evidence/ with two tested runs of different seeds."""
    folder = tmp_path_factory.mktemp("trained")
    for seed in (0, 1):
        recipe = Recipe.from_dict(
            {"model": {"name": "shallow_net"}, "data": {"limit": 300}, "training": {"epochs": 3, "seed": seed}}
        )
        run = Run.start(recipe, load("digits"), folder / "evidence" / f"run-{seed}")
        run.test()
        (run.folder / "weights.json").write_text(json.dumps({"sha256": {"best.safetensors": f"{seed}" * 64}}))
    return folder


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "hand-in")
    return tmp_path / "hand-in"


def edit(path: Path, change: Callable[[Values], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_epochs(path: Path, change: Callable[[list[Values]], object]) -> None:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    change(records)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def problems(folder: Path) -> list[str]:
    return [sign.what for run in read_evidence(folder) for sign in run.signs if sign.weight == "sign"]


@pytest.mark.slow
def test_whole_runs_have_no_sign(trained: Path) -> None:
    runs = read_evidence(trained)
    assert [run.name for run in runs] == ["run-0", "run-1"]
    assert [run.seed for run in runs] == [0, 1]
    assert problems(trained) == []
    assert list(own_run_signs(Traces("Ada", "", runs=runs))) == []


EPOCH_EDITS: list[tuple[Callable[[list[Values]], object], str]] = [
    (
        lambda records: records[2].update(validation_accuracy=0.987),
        "its best epoch is not the one that the summary holds",
    ),
    (lambda records: records[1].update(validation_accuracy=0.12345), "are no fractions of one number of images"),
    (lambda records: records[0].update(train_accuracy=0.4321), "its values of train_accuracy are no fractions"),
    (lambda records: records[0].update(train_seconds=9.0), "is not the same number of images in each epoch"),
    (lambda records: records.pop(), "it has 2 epochs, and the summary says 3"),
    (lambda records: records[1].update(epoch=3), "line 2 of metrics.jsonl is damaged: it is epoch 3, not 2"),
    (lambda records: records[1].update(recipe_key="0" * 12), "belongs to another run"),
    (lambda records: records[1].pop("train_loss"), "train_loss"),
    (
        lambda records: records[1].update(validation_accuracy=1.5),
        "line 2 of metrics.jsonl is damaged: validation_accuracy",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("change", "words"), EPOCH_EDITS)
def test_metrics_that_were_edited_by_hand_are_a_sign(
    folder: Path, change: Callable[[list[Values]], object], words: str
) -> None:
    edit_epochs(folder / "evidence/run-0/metrics.jsonl", change)
    assert any(words in problem for problem in problems(folder)), problems(folder)


def test_the_first_of_equally_accurate_epochs_which_was_once_the_best_is_no_sign(folder: Path) -> None:
    run = folder / "evidence/run-0"
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = json.loads((run / "summary.json").read_text())["best"]
    other = next(record for record in epochs if record["epoch"] != best["epoch"])
    equal = {**other, "validation_accuracy": best["validation_accuracy"], "validation_loss": 9.0}
    edit_epochs(run / "metrics.jsonl", lambda records: records.__setitem__(other["epoch"] - 1, equal))
    edit(run / "summary.json", lambda values: values["best"].update({k: equal[k] for k in values["best"]}))
    edit(run / "test.json", lambda values: values.update(epoch=other["epoch"]))
    assert problems(folder) == []


FILE_EDITS: list[tuple[str, Callable[[Values], object], str]] = [
    ("summary.json", lambda values: values.update(train_seconds=1.0), "do not add up to those of the summary"),
    ("summary.json", lambda values: values["best"].update(validation_accuracy=1.0), "its best epoch is not the one"),
    ("summary.json", lambda values: values.update(best=None), "its best epoch is not the one"),
    ("summary.json", lambda values: values.update(recipe_key="0" * 12), "it is not the recipe that the run began with"),
    ("summary.json", lambda values: values.pop("data"), "it has no data"),
    ("test.json", lambda values: values.update(accuracy=0.99), "its accuracy is 0.99, and"),
    ("test.json", lambda values: values.update(accuracy=0.99, correct=355), "its confusion matrix has"),
    ("test.json", lambda values: values["confusion"][0].__setitem__(0, 1), "its confusion matrix has"),
    ("test.json", lambda values: values.update(interval=[0.9, 0.99]), "its interval is not that of its accuracy"),
    ("test.json", lambda values: values["per_class"].update({"0": 0.123}), "the accuracies of its classes"),
    ("test.json", lambda values: values.update(confusion="all"), "it holds no record of a test"),
    ("test.json", lambda values: values.update(confusion=[[1], [2]]), "it holds no record of a test"),
    ("test.json", lambda values: values.update(recipe_key="0" * 12), "belongs to another run"),
]


@pytest.mark.parametrize(("name", "change", "words"), FILE_EDITS)
def test_a_summary_and_a_test_that_were_edited_are_a_sign(
    folder: Path, name: str, change: Callable[[Values], object], words: str
) -> None:
    edit(folder / "evidence/run-0" / name, change)
    assert any(words in problem for problem in problems(folder)), problems(folder)


def test_a_run_that_was_killed_or_still_trains_is_a_note_and_no_contradiction(folder: Path) -> None:
    at_the_start = {"status": "running", "epochs_done": 0, "best": None, "train_seconds": 0.0}
    edit(folder / "evidence/run-0/summary.json", lambda values: values.update(at_the_start))
    signs = read_evidence(folder)[0].signs
    assert [(sign.what, sign.weight) for sign in signs] == [
        ("its training was killed, or still went on when this was packed", "note")
    ]
    edit(folder / "evidence/run-0/summary.json", lambda values: values.update(epochs_done=99))
    assert any("the summary says 99" in problem for problem in problems(folder))


@pytest.mark.parametrize("name", ["summary.json", "recipe.toml", "metrics.jsonl", "test.json", "weights.json"])
@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, "\x00"])
def test_a_damaged_file_is_a_sign_in_one_line_and_the_other_run_is_read(folder: Path, name: str, content: str) -> None:
    (folder / "evidence/run-0" / name).write_text(content)
    runs = read_evidence(folder)
    assert len(runs) == 2
    assert runs[1].signs == []
    assert all("\n" not in sign.line and str(folder) not in sign.line for sign in runs[0].signs)
    assert runs[0].signs or (name, content) == ("weights.json", "[]")


def test_copies_among_hand_ins_are_found_by_times_and_by_weights_of_another_recipe(folder: Path) -> None:
    first, second = read_evidence(folder)
    second.weights = dict(first.weights)
    [sign] = own_run_signs(Traces("Ada", "", runs=[first, second]))
    assert "its weights are those of run-0, which has another recipe" in sign.what
    first_again, second_again = read_evidence(folder)
    signs = copy_signs([Traces("Ada", "a", runs=[first_again]), Traces("Bela", "b", runs=read_evidence(folder)[:1])])
    assert [[sign.what for sign in found] for found in signs] == [
        ["the run run-0, with the same seconds in each epoch"],
    ] * 2
    assert {sign.shared_by for found in signs for sign in found} == {("Ada", "Bela")}
    assert copy_signs([Traces("Ada", "a", runs=[first_again]), Traces("Bela", "b", runs=[second_again])]) == [[], []]


@pytest.mark.slow
def test_equal_recipes_on_equal_machines_have_equal_bits_and_the_one_that_has_not_is_named(folder: Path) -> None:
    def run_of(number: int, loss: float = 0.0) -> RunEvidence:
        run = read_evidence(folder)[0]
        run.history = [
            type(epoch)(
                **{**vars(epoch), "train_seconds": epoch.train_seconds * number, "train_loss": epoch.train_loss + loss}
            )
            for epoch in run.history
        ]
        return run

    names = ("Ada", "Bela", "Chen", "Dora")
    traces = [Traces(name, name, runs=[run_of(i + 1, 0.1 * (name == "Dora"))]) for i, name in enumerate(names)]
    signs = copy_signs(traces)
    assert [len(found) for found in signs] == [0, 0, 0, 1]
    assert (
        signs[3][0].what
        == "this run's result differs from 3 others of the same recipe and processor: check it with --rerun run-0"
    )
    assert signs[3][0].weight == "note"
    copies = [Traces(f"Copy {i}", f"{i}", runs=[run_of(1)]) for i in range(3)]
    [*_, last] = copy_signs([*copies, Traces("Dora", "Dora", runs=[run_of(4, 0.1)])])
    assert last == []  # one run, however often it was copied, does not outvote another
    [sign] = own_run_signs(Traces("Ada", "", runs=[run_of(1), run_of(2, 0.1)]))
    assert "it has the recipe and the machine of run-0, and other bits" in sign.what


def test_two_hand_ins_of_one_person_are_not_compared(folder: Path) -> None:
    signs = copy_signs([Traces("Ada", sha256, f"{sha256}.zip", runs=read_evidence(folder)) for sha256 in "ab"])
    assert all([sign.weight for sign in found] == ["note"] for found in signs)


def test_one_zip_that_was_handed_in_twice_under_one_name_is_a_note_and_no_contradiction(folder: Path) -> None:
    signs = copy_signs([Traces("Ada", "a", file, runs=read_evidence(folder)) for file in ("ada.zip", "copy.zip")])
    assert [[sign.weight for sign in found] for found in signs] == [["note"], ["note"]]
    assert signs[0][0].what == "one zip, byte for byte, handed in twice under one name"
    assert signs[0][0].shared_by == ("Ada (ada.zip)", "Ada (copy.zip)")
    nameless = copy_signs([Traces(name, "a", f"{name}.zip", runs=read_evidence(folder)) for name in ("ada", "copy")])
    assert [[sign.weight for sign in found] for found in nameless] == [["shared"], ["shared"]]


def test_what_twenty_hand_ins_share_is_one_group_and_others_are_in_none() -> None:
    copies = [Traces(f"Copy {i}", f"{i}", notebooks={"q": "same"}, code="same") for i in range(20)]
    signs = copy_signs([*copies, Traces("Zoe", "z", notebooks={"q": "own"}, code="own")])
    assert signs[20] == []
    [group] = {sign for found in signs for sign in found}
    assert all(found == [group] for found in signs[:20])
    assert (group.weight, group.shared_by) == ("shared", tuple(f"Copy {i}" for i in range(20)))
    assert group.parts == ("the notebook q.ipynb, byte for byte", "all answers in code, character by character")
    assert group.what == "; ".join(group.parts)


def test_comments_that_go_from_hand_to_hand_are_one_group_with_the_smallest_part() -> None:
    words = [f"w{i}" for i in range(60)]
    three = [Traces(name, name, comments=frozenset(words[i : i + 30])) for name, i in (("A", 0), ("B", 10), ("C", 22))]
    signs = copy_signs(three)
    assert [[sign.what for sign in found] for found in signs] == [["60 % or more of the words of their comments"]] * 3


def test_accuracies_are_fractions_of_one_number_of_images() -> None:
    assert have_common_count([0.0, 1.0, 0.5, 1 / 3, 17 / 143 * 143 / 143], 1_000)
    assert not have_common_count([0.5, 1 / 7, 0.1001], 1_000)
    assert not have_common_count([-0.1], 1_000)
