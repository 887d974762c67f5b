"""Ten honest hand-ins pass. Each of ten frauds is found: by reading where it is careless, and else by what is run again."""

import json
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from support.small_homework import NOTEBOOK, edit_notebook, pack, repack, replace_in_outputs

from convolab.handin.homework import Homework
from convolab.handin.verify.signs import Sign
from convolab.handin.verify.verify import HandInReport, verify_hand_ins
from convolab.training.recipe import Recipe

pytestmark = pytest.mark.slow
Q5 = f"{NOTEBOOK}.ipynb"


def verify(mine: Homework, *paths: Path, **options: object) -> list[HandInReport]:
    return list(verify_hand_ins(list(paths), mine, unfenced=True, trust=True, **options).reports)


def lines(signs: Iterable[Sign]) -> list[str]:
    return [sign.line for sign in signs]


def assert_found(report: HandInReport, words: str, means: str = "reading") -> None:
    """That a contradiction with these words was found by these means."""
    found = lines(report.contradictions)
    assert any(words in line and line.startswith(f"[{means}]") for line in found), found


def assert_shared(report: HandInReport, words: str) -> None:
    """That something with these words is shared with others, and counts as no contradiction."""
    assert any(words in sign.what for sign in report.shared), lines(report.shared)
    assert not any(words in sign.what for sign in report.contradictions)


def assert_only_found_by(mine: Homework, path: Path, words: str, **options: object) -> None:
    """That reading finds nothing, and what is run again does."""
    [report] = verify(mine, path)
    assert lines(report.contradictions) == []
    [report] = verify(mine, path, **options)
    assert_found(report, words, "rerun" if "rerun" in options else "execute")


def runs_of(folder: Path) -> list[Path]:
    return sorted((folder / "runs").iterdir())


def edit_json(path: Path, change: Callable[[dict], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def edit_metrics(run: Path, change: Callable[[list[dict]], None]) -> None:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    change(records)
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.mark.long
def test_ten_honest_hand_ins_pass_with_all_their_points(mine: Homework, class_folder: Path) -> None:
    reports = verify(mine, class_folder)
    assert len(reports) == 10
    assert {report.name: (report.refused, lines(report.contradictions)) for report in reports} == {
        report.name: ("", []) for report in reports
    }
    assert {report.total_points for report in reports} == {mine.points} == {17.5}
    assert all(report.num_done == report.num_items for report in reports)
    assert all(sign.where == "answers in code" for report in reports for sign in report.notes)


@pytest.mark.long
def test_an_honest_hand_in_passes_when_its_runs_and_its_notebook_are_run_again(
    mine: Homework, class_folder: Path
) -> None:
    [report] = verify(mine, class_folder / "Ada.zip", rerun="all", execute=True)
    assert lines(report.contradictions) == []
    assert report.skipped == report.notes == []
    assert [line.partition(": ")[2] for line in lines(report.confirmed)] == [
        "trained again: 2 epochs and the weights agree bit by bit",
        "trained again: 2 epochs and the weights agree bit by bit",
        "executed again: 10 cells show the same, within 0.002",
    ]


def test_an_honest_hand_in_passes_when_its_notebook_is_executed_again(mine: Homework, class_folder: Path) -> None:
    [report] = verify(mine, class_folder / "Ada.zip", execute=True)
    assert (lines(report.contradictions), report.skipped) == ([], [])
    assert [sign.what for sign in report.confirmed] == ["executed again: 10 cells show the same, within 0.002"]


def test_fraud_1_an_accuracy_edited_in_the_notebook(mine: Homework, work: Path) -> None:
    path = pack(mine, work, "Zoe")
    accuracy = shown_accuracy(work, "test accuracy")

    def edit(files: dict[str, bytes]) -> None:
        assert accuracy.encode() in files[Q5]
        files[Q5] = files[Q5].replace(f"test accuracy = {accuracy}".encode(), b"test accuracy = 0.9712")

    repack(path, edit, fix_digests=False)
    [report] = verify(mine, path)
    assert_found(report, "it was changed after the hand-in was packed")
    assert_found(report, "the printed 95 % interval does not fit 0.9712")
    repack(path, lambda files: None)  # the manifest is no signature
    [report] = verify(mine, path)
    assert not any("changed after" in line for line in lines(report.contradictions))
    assert_found(report, "the printed 95 % interval does not fit 0.9712")


@pytest.mark.long
def test_fraud_1_done_with_care_is_found_by_an_execution_only(mine: Homework, work: Path) -> None:
    printed = {
        "output_type": "stream",
        "name": "stdout",
        "text": "test accuracy = 0.9000\n95 % interval 0.8646 to 0.9270\n",
    }
    assert shown_accuracy(work, "test accuracy") != "0.9000"
    edit_notebook(work, lambda cells: cells["q5-2-test"].update(outputs=[printed]))
    assert_only_found_by(mine, pack(mine, work, "Zoe"), "it prints `test accuracy", execute=True)


def shown_accuracy(folder: Path, label: str) -> str:
    text = (folder / Q5).read_text()
    return text[text.index(f"{label} = ") + len(label) + 3 :][:6]


def test_fraud_2_a_figure_of_another_cell(mine: Homework, work: Path) -> None:
    def swap(cells: dict) -> None:
        other = next(output for output in cells["q5-2-second-figure"]["outputs"] if "data" in output)
        for output in cells["q5-2-figure"]["outputs"]:
            if "image/svg+xml" in output.get("data", {}):
                output["data"]["image/svg+xml"] = other["data"]["image/svg+xml"]

    edit_notebook(work, swap)
    [report] = verify(mine, pack(mine, work, "Zoe"))
    assert_found(report, "its figure is that of q5-2-second-figure")
    assert_found(report, "its chart does not have the title 'Two seeds, as wide as asked'")
    assert_found(report, "the chart of the cell does not have it")


@pytest.mark.long
def test_fraud_2_done_with_care_is_found_by_an_execution_only(mine: Homework, work: Path) -> None:
    def bend(cells: dict) -> None:
        [output] = [o for o in cells["q5-2-second-figure"]["outputs"] if "data" in o]
        svg = "".join(output["data"]["image/svg+xml"])
        value = (
            next(part for part in svg.split('"') if part.startswith("epoch: 2; validation loss"))
            .split("): ")[1]
            .split(";")[0]
        )
        output["data"]["image/svg+xml"] = svg.replace(value, "0.1")

    edit_notebook(work, bend)
    assert_only_found_by(mine, pack(mine, work, "Zoe"), "its figure 1 is another one", execute=True)


def test_fraud_3_weights_and_runs_of_others(mine: Homework, work: Path, class_folder: Path) -> None:
    first, second = runs_of(work)
    path = pack(mine, work, "Zoe")

    def edit(files: dict[str, bytes]) -> None:
        files[f"evidence/{second.name}/weights.json"] = files[f"evidence/{first.name}/weights.json"]

    repack(path, edit)
    reports = verify(mine, path, class_folder / "Ada.zip")
    assert_found(reports[0], f"its weights are those of {first.name}, which has another recipe")
    assert_shared(reports[0], "whose recipes differ")
    shutil.rmtree(first)
    shutil.copytree(class_folder / "work" / "Bela" / "runs" / first.name, first)
    reports = verify(mine, pack(mine, work, "Zoe", work.parent / "again.zip"), class_folder / "Bela.zip")
    assert all(report.shared for report in reports)
    assert_shared(reports[0], f"{first.name}, with the same seconds in each epoch")


def test_fraud_3_made_up_digests_are_found_by_a_rerun_only(mine: Homework, work: Path) -> None:
    path = pack(mine, work, "Zoe")

    def edit(files: dict[str, bytes]) -> None:
        name = f"evidence/{runs_of(work)[0].name}/weights.json"
        files[name] = json.dumps({"sha256": {"best.safetensors": "ab" * 32}}).encode()

    assert_only_found_by(mine, repack(path, edit), "best.safetensors has another SHA-256", rerun=runs_of(work)[0].name)


def test_fraud_4_another_seed(mine: Homework, work: Path) -> None:
    recipe = runs_of(work)[1] / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("seed = 1", "seed = 7"))
    [report] = verify(mine, pack(mine, work, "Zoe"))
    assert_found(report, "it is not the recipe that the run began with")
    assert_found(report, "have the seeds 7; the homework's are 0, 1")
    assert_found(report, "with the seeds 1 are missing")


@pytest.mark.long
def test_fraud_4_done_with_care_is_found_by_a_rerun_only(mine: Homework, work: Path) -> None:
    """A lucky seed under the name of the one that was asked for: recipe, keys and metrics agree with each other."""
    first, second = runs_of(work)
    keys = [json.loads((run / "summary.json").read_text())["recipe_key"] for run in (first, second)]
    for name in ("metrics.jsonl", "summary.json"):
        (second / name).write_text((first / name).read_text().replace(keys[0], keys[1]))
    edit_metrics(
        second,
        lambda records: [
            record.update(
                train_seconds=record["train_seconds"] * 1.5, images_per_second=record["images_per_second"] / 1.5
            )
            for record in records
        ],
    )
    records = [json.loads(line) for line in (second / "metrics.jsonl").read_text().splitlines()]
    best = max(records, key=lambda record: record["validation_accuracy"])
    kept = {key: value for key, value in best.items() if key not in ("format", "recipe_key", "data_key")}
    edit_json(
        second / "summary.json",
        lambda summary: summary.update(best=kept, train_seconds=sum(r["train_seconds"] for r in records)),
    )
    for weights in second.glob("*.safetensors"):
        weights.write_bytes(weights.read_bytes() + b" ")
    assert Recipe.read(second / "recipe.toml").training.seed == 1
    path = pack(mine, work, "Zoe")
    [report] = verify(mine, path, rerun="all")
    assert_found(report, "trained again, train_loss of epoch 1 is", "rerun")
    [read] = verify(mine, path)
    assert not any("metrics.jsonl" in line or "recipe.toml" in line for line in lines(read.contradictions))


def test_fraud_5_metrics_edited_by_hand(mine: Homework, work: Path) -> None:
    run = runs_of(work)[0]
    edit_metrics(run, lambda records: records[-1].update(validation_accuracy=0.9123))
    [report] = verify(mine, pack(mine, work, "Zoe"))
    assert_found(report, "its values of validation_accuracy are no fractions of one number of images")
    assert_found(report, "its best epoch is not the one that the summary holds")
    assert_found(report, "no run in evidence/ has this accuracy")


@pytest.mark.long
def test_fraud_5_done_with_care_is_found_by_a_rerun_only(mine: Homework, work: Path) -> None:
    run = runs_of(work)[0]
    edit_metrics(run, lambda records: records[0].update(train_loss=records[0]["train_loss"] - 0.25))
    assert_only_found_by(mine, pack(mine, work, "Zoe"), "trained again, train_loss of epoch 1 is", rerun=2, seed=9)


def test_fraud_6_a_notebook_that_was_not_executed_in_order(mine: Homework, work: Path) -> None:
    def reorder(cells: dict) -> None:
        cells["q5-2-check"]["execution_count"], cells["q5-2-figure"]["execution_count"] = 7, 6

    edit_notebook(work, reorder)
    [report] = verify(mine, pack(mine, work, "Zoe"))
    assert_found(report, "run out of order: q5-2-figure")
    edit_notebook(work, lambda cells: cells["q5-2-check"].update(execution_count=6))
    [report] = verify(mine, pack(mine, work, "Zoe"))
    assert_found(report, "two cells have the execution count")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("WIDTHS = [8, 32]\nfrom helper import mean_accuracy", "it imports helper, which is not in the hand-in"),
        ("WIDTHS = [8, 32]\n%run helper.py", "it runs what the notebook does not hold: `%run helper.py`"),
        ("WIDTHS = [8, 32]\nexec(open('helper.py').read())", "it calls exec"),
        (
            "WIDTHS = [8, 32]\nimport importlib\nhelper = importlib.import_module('helper')",
            "it calls importlib.import_module",
        ),
        ("WIDTHS = [8, 32]\nimport sys\nsys.path.insert(0, '/home/zoe')", "it changes where modules are imported from"),
        ("WIDTHS = [8, 32]\nmean_accuracy = torch.hub.load('a/b', 'mean')", "it calls torch.hub.load"),
    ],
)
def test_fraud_7_code_that_the_notebook_does_not_show(mine: Homework, work: Path, source: str, words: str) -> None:
    edit_notebook(work, lambda cells: cells["q5-1-mean"].update(source=source))
    [report] = verify(mine, pack(mine, work, "Zoe"))
    assert_found(report, words)


@pytest.mark.long
def test_fraud_7_done_with_care_is_found_by_an_execution_only(mine: Homework, work: Path) -> None:
    source = "WIDTHS = [8, 32]\nhidden = getattr(convolab.__builtins__['__imp' + 'ort__']('helper'), 'mean_accuracy')\nmean_accuracy = hidden"
    edit_notebook(work, lambda cells: cells["q5-1-mean"].update(source=source))
    assert_only_found_by(mine, pack(mine, work, "Zoe"), "executed again it ends in an error", execute=True)


def test_fraud_8_a_zip_that_leads_out_of_its_folder(mine: Homework, work: Path) -> None:
    path = pack(mine, work, "Zoe")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../evil.py", "x")
    [report] = verify(mine, path)
    assert "a path that leads out of it" in report.refused
    assert not (work.parents[1] / "evil.py").exists()


def test_fraud_9_a_bomb(mine: Homework, work: Path, class_folder: Path) -> None:
    path = pack(mine, work, "Zoe")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1_000_000))
        archive.getinfo("zeros").file_size = 10_000_000_000
    reports = verify(mine, path, class_folder / "Ada.zip")
    assert "would unpack to 10.0 GB" in reports[0].refused
    assert "\n" not in reports[0].refused
    assert reports[1].total_points == mine.points


def test_fraud_10_an_output_that_was_pasted_in(mine: Homework, work: Path) -> None:
    printed = {"output_type": "stream", "name": "stdout", "text": "The mean is right.\n"}
    result = {"output_type": "execute_result", "execution_count": 44, "data": {"text/plain": "0.97"}, "metadata": {}}

    def paste(cells: dict) -> None:
        cells["q5-1-mean"]["outputs"] = [printed]
        cells["q5-2-test"]["outputs"] += [result]
        cells["q5-1-check"]["execution_count"] = None

    edit_notebook(work, paste)
    [report] = verify(mine, pack(mine, work, "Zoe"))
    assert_found(report, "it has an output, and its code only defines things")
    assert_found(report, "its result is of the execution 44, and the cell's is")
    assert_found(report, "it has a result, and its code does not end in an expression")
    assert_found(report, "it has an output and was not run")


@pytest.mark.long
def test_fraud_10_done_with_care_is_found_by_an_execution_only(mine: Homework, work: Path) -> None:
    def paste(cells: dict) -> None:
        replace_in_outputs(cells["q5-1-check"], "The mean is right.", "The mean is right, in 3 steps.")

    edit_notebook(work, paste)
    assert_only_found_by(mine, pack(mine, work, "Zoe"), "it prints `The mean is right.`", execute=True)


def test_a_check_that_was_changed_is_found(mine: Homework, work: Path) -> None:
    edit_notebook(work, lambda cells: cells["q5-1-check"].update(source='print("The mean is right.")'))
    [report] = verify(mine, pack(mine, work, "Zoe"))
    assert_found(report, "the check is not that of the homework")


def test_comments_and_notebooks_of_others_are_found_on_both_sides(
    mine: Homework, work: Path, class_folder: Path
) -> None:
    theirs = json.loads((class_folder / "work" / "Dora" / Q5).read_text())
    [comment] = [cell["source"] for cell in theirs["cells"] if cell["metadata"]["name"] == "q5-2-comment"]
    edit_notebook(work, lambda cells: cells["q5-2-comment"].update(source=f"{comment} And that is all."))
    reports = verify(mine, pack(mine, work, "Zoe"), class_folder / "Dora.zip")
    assert_shared(reports[0], "of the words of their comments")
    assert_shared(reports[1], "of the words of their comments")
    shutil.copy(class_folder / "work" / "Dora" / Q5, work / Q5)
    reports = verify(mine, pack(mine, work, "Zoe"), class_folder / "Dora.zip")
    assert_shared(reports[0], f"the notebook {Q5}, byte for byte")
