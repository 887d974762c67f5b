"""The commands, as a person types them."""

import io
import json
import shutil
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
from filelock import FileLock
from PIL import Image

from convolab.data.catalog import load
from convolab.plots.images import to_pil_image
from convolab.training.run import Run

QUICK = ("--set", "training.epochs=2")


HELP = "from convolab.cli.main import app\ntry: app(['--help'])\nexcept SystemExit: pass"


@pytest.mark.slow
def test_help_needs_neither_torch_nor_pydantic_nor_rich() -> None:
    heavy = "{'torch', 'numpy', 'pydantic', 'altair', 'rich'}"
    code = f"{HELP}\nimport sys\nassert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.timing
def test_help_takes_at_most_12_times_as_long_as_python_alone() -> None:
    def seconds(code: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        return time.perf_counter() - started

    pairs = [(seconds("0"), seconds(HELP)) for _ in range(20)]  # in turn, so that other load meets both
    assert statistics.median(of_help for _, of_help in pairs) <= 12 * statistics.median(alone for alone, _ in pairs)


def test_the_version_is_the_package_s(lab) -> None:
    result = lab("--version")
    assert (result.code, result.out) == (0, f"convolab {version('convolab')}\n")


@pytest.mark.slow
def test_a_network_is_trained_and_tested_and_predicts(lab, tmp_path) -> None:
    trained = lab("train", "simple_convnet", "--data", "digits", "--set", "training.epochs=4", "--out", "runs/simple")
    assert trained.code == 0
    assert "finished after 4 of 4 epochs" in trained.out
    assert {"curves.html", "curves.svg", "curves.png"} <= {p.name for p in Path("runs/simple").iterdir()}

    record = json.loads(lab("test", "runs/simple", "--json").out)
    assert record["accuracy"] == record["correct"] / record["count"]
    assert record["interval"][0] < record["accuracy"] < record["interval"][1]
    assert len(record["per_class"]) == 10
    assert {"confusion.html", "confusion.svg", "confusion.png"} <= {p.name for p in Path("runs/simple").iterdir()}

    images = load("digits").test
    to_pil_image(images.images[0]).resize((80, 80), Image.Resampling.NEAREST).save("digit.png")
    found = json.loads(lab("predict", "runs/simple", "digit.png", "--top", 3, "--json").out)
    assert len(found) == 3
    assert sum(
        f["probability"] for f in json.loads(lab("predict", "runs/simple", "digit.png", "--top", 10, "--json").out)
    ) == pytest.approx(1, abs=1e-5)
    assert found[0]["class"] == images.classes[images.labels[0]]

    listed = json.loads(lab("runs", "--json").out)
    assert [r["status"] for r in listed] == ["finished"]
    assert listed[0]["test_accuracy"] == record["accuracy"]
    assert listed[0]["best_validation_accuracy"] == Run("runs/simple").best_epoch.validation_accuracy


@pytest.mark.slow
def test_options_override_keys_of_a_recipe_file(lab) -> None:
    Path("r.toml").write_text('[model]\nname = "shallow_net"\nhidden = 16\n[training]\nepochs = 7\n')
    assert (
        lab(
            "train",
            "--recipe",
            "r.toml",
            "--set",
            "training.epochs=1",
            "--set",
            "optimizer.name=adam",
            "--seed",
            3,
            "--out",
            "a",
        ).code
        == 0
    )
    recipe = Run("a").recipe
    assert (recipe.model.options["hidden"], recipe.training.epochs, recipe.training.seed, recipe.optimizer.name) == (
        16,
        1,
        3,
        "adam",
    )


@pytest.mark.slow
def test_without_out_two_runs_get_two_readable_folders(lab) -> None:
    for _ in range(2):
        assert lab("train", "shallow_net", "--set", "training.epochs=1").code == 0
    names = [p.name for p in Path("runs").iterdir()]
    assert len(names) == 2
    assert all(name.startswith("shallow_net-digits-") for name in names)


@pytest.mark.slow
def test_a_folder_of_images_is_trained_on_and_what_cannot_be_read_is_named(lab) -> None:
    for shade, name in ((40, "dark"), (200, "light")):
        Path("mine", name).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (50, 40), (shade + i, shade, shade)).save(Path("mine", name, f"{i}.png"))
    Path("mine/dark/broken.png").write_bytes(b"no image")
    done = lab(
        "train",
        "simple_convnet",
        "--data",
        "folder:mine",
        "--set",
        "training.batch_size=8",
        *QUICK,
        "--out",
        "runs/mine",
    )
    assert done.code == 0
    assert "dark/broken.png" in done.err
    assert lab("test", "runs/mine", "--json").code == 0


@pytest.mark.slow
def test_one_batch_is_overfitted_and_the_steps_are_reported(lab) -> None:
    done = lab("train", "simple_convnet", "--overfit-one-batch", "--out", "o", "--json")
    result = json.loads(done.out)
    assert (done.code, result["success"], result["accuracy"]) == (0, True, 1.0)
    assert len(json.loads(Path("o/overfit.json").read_text())["accuracies"]) == result["steps"] + 1
    assert Path("o/overfit.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_network_that_cannot_learn_a_batch_ends_with_1(lab) -> None:
    done = lab(
        "train", "shallow_net", "--overfit-one-batch", "--set", "optimizer.lr=1e-9", "--set", "training.batch_size=8"
    )
    assert done.code == 1
    assert "cannot overfit one batch" in done.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("train",), "simple_convnet"),
        (("train", "simple_convet"), "did you mean 'simple_convnet'?"),
        (("train", "shallow_net", "--data", "cifar01"), "did you mean 'cifar10'?"),
        (("train", "shallow_net", "--set", "optimizer.name=adamm"), "did you mean 'adam'?"),
        (("train", "shallow_net", "--set", "optimizer.lrr=1"), "did you mean 'lr'?"),
        (("train", "shallow_net", "--set", "training.epochs=ten"), "training.epochs = 'ten'"),
        (("train", "shallow_net", "--set", "training.epochs=0"), "greater than 0"),
        (("train", "shallow_net", "--set", "training.batch_size=5000"), "training.batch_size"),
        (("train", "shallow_net", "--set", "nonsense"), "section.key=value"),
        (("train", "shallow_net", "--set", "data.size=16"), "data.size is now called data.image_size"),
        (("runs", "--delete", "nowhere"), "is not a run folder"),
        (("train", "shallow_net", "--recipe", "none.toml"), "none.toml"),
        (("train", "shallow_net", "--device", "tpu"), "cpu, cuda or mps"),
        (("train", "shallow_net", "--data", "folder:nowhere"), "nowhere"),
        (("train", "shallow_net", "--data", "folder:empty"), "empty"),
        (("train", "shallow_net", "--data", "folder:one"), "at least two classes"),
        (("train", "shallow_net", "--out", "full"), "not empty"),
        (("train", "shallow_net", "--out", "file/below"), "choose another folder"),
        (("train", "mine.py:Net"), "mine.py"),
        (("resume", "nowhere"), "is not a run folder"),
        (("test", "nowhere"), "is not a run folder"),
        (("predict", "nowhere", "x.png"), "is not a run folder"),
        (("runs", "nowhere"), "no folder nowhere"),
        (("runs", "empty"), "holds no runs"),
        (("data", "show", "digits", "--out", "sheet.xyz"), ".png"),
        (("data", "download", "digits"), "nothing to download"),
    ],
)
def test_a_wrong_input_is_one_line_and_exit_2_and_nothing_is_written(lab, tmp_path, words, expected) -> None:
    for folder in ("empty", "one/cats", "full"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "one/cats/a.png")
    (tmp_path / "full/letter.txt").write_text("dear")
    (tmp_path / "file").write_text("a file")
    before = sorted(tmp_path.rglob("*"))
    result = lab(*words)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("convolab: ")
    assert result.err.count("\n") == 1
    assert expected in result.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_an_out_that_holds_a_run_is_refused(lab) -> None:
    assert lab("train", "shallow_net", *QUICK, "--out", "a").code == 0
    before = Path("a/metrics.jsonl").read_bytes()
    again = lab("train", "shallow_net", *QUICK, "--out", "a")
    assert again.code == 2
    assert "holds a run already" in again.err
    assert Path("a/metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_predict_refuses_a_file_that_is_not_an_image(lab) -> None:
    lab("train", "shallow_net", *QUICK, "--out", "a")
    Path("x.png").write_text("no image")
    result = lab("predict", "a", "x.png")
    assert result.code == 2
    assert "x.png" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.slow
def test_in_a_pipe_there_are_plain_lines_and_no_bars(lab) -> None:
    done = lab("train", "shallow_net", *QUICK, "--out", "a")
    assert "\x1b" not in done.out + done.err
    assert [line.split()[1] for line in done.err.splitlines() if line.startswith("epoch")] == ["1/2", "2/2"]


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(lab) -> None:
    lab("train", "shallow_net", *QUICK, "--out", "a")
    before = Path("a/last.safetensors").read_bytes()
    again = lab("resume", "a")
    assert again.code == 0
    assert Path("a/last.safetensors").read_bytes() == before


INTERRUPTED_AFTER_AN_EPOCH = """
import os, signal
from convolab.cli import main, terminal

def interrupt(bar, metrics):
    os.kill(os.getpid(), signal.SIGINT)

terminal.TrainingBar.on_epoch = interrupt
main.main()
"""


@pytest.mark.timing
def test_ctrl_c_ends_after_the_step_and_resume_gives_the_same_bits(lab, tmp_path) -> None:
    settings = ["--set", "training.epochs=3", "--set", "data.limit=300"]
    words = ["train", "simple_convnet", *settings, "--threads", "1"]
    command = [sys.executable, "-c", INTERRUPTED_AFTER_AN_EPOCH, *words, "--out", "stopped"]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, err
    assert "stopped after" in out
    assert "next: convolab resume stopped" in out
    run = Run(tmp_path / "stopped")
    assert (run.status, len(run.history)) == ("stopped", 1)
    resumed = lab("resume", "stopped")
    assert resumed.code == 0, resumed.err
    lab(*words, "--out", "whole")
    for name in ("best.safetensors", "last.safetensors"):
        assert Path("stopped", name).read_bytes() == Path("whole", name).read_bytes()


@pytest.mark.slow
def test_a_run_is_deleted_only_with_consent_and_only_its_own_files(lab, monkeypatch) -> None:
    assert lab("train", "shallow_net", *QUICK, "--out", "a").code == 0
    Path("a/letter.txt").write_text("theirs")
    names = {path.name for path in Path("a").iterdir()}
    refused = lab("runs", "--delete", "a")
    assert refused.code == 2
    assert refused.err == "convolab: a is not deleted without a question: add --yes where nobody can answer\n"
    assert {path.name for path in Path("a").iterdir()} == names
    deleted = lab("runs", "--delete", "a", "--yes", "--json")
    assert json.loads(deleted.out) == {"deleted": "a", "remaining": ["a/letter.txt"]}
    assert [path.name for path in Path("a").iterdir()] == ["letter.txt"]
    assert "is not a run folder" in lab("runs", "--delete", "a", "--yes").err


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
def test_deleting_a_run_asks_at_a_terminal(lab, monkeypatch, answer: str, code: int) -> None:
    lab("train", "shallow_net", *QUICK, "--out", "a")
    terminal = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    result = lab("runs", "--delete", "a")
    assert result.code == code
    assert "Delete a (2 epochs of shallow_net on digits, finished)?" in result.err
    assert Path("a").exists() == (answer == "n")


@pytest.mark.slow
def test_a_run_in_training_is_not_deleted(lab) -> None:
    lab("train", "shallow_net", *QUICK, "--out", "a")
    with FileLock("a/.lock"):
        result = lab("runs", "--delete", "a", "--yes")
    assert result.code == 2
    assert "is being trained by another process" in result.err
    assert Path("a/recipe.toml").exists()


def test_a_run_of_the_first_edition_is_listed_and_not_resumed(lab) -> None:
    stored = Path(__file__).resolve().parents[1] / "data_files" / "run_first_edition"
    shutil.copytree(stored, "runs/old")
    (overview,) = json.loads(lab("runs", "--json").out)
    assert (overview["status"], overview["epochs_done"], overview["epochs"]) == ("stopped", 2, 3)
    result = lab("resume", "runs/old")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "was written by convolab's first edition: it can be read and tested, but not resumed" in result.err


def test_the_public_face_has_what_it_promises() -> None:
    import convolab

    assert all(getattr(convolab, name) is not None for name in convolab.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = convolab.nonsense
