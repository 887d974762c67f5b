"""The commands, as a person types them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from convolab.data.catalog import load
from convolab.plots import training as training_plots
from convolab.training.run import Run

QUICK = ("--set", "training.epochs=2")


def test_help_needs_neither_torch_nor_pydantic() -> None:
    code = "import sys\nfrom convolab.cli.main import app\ntry: app(['--help'])\nexcept SystemExit: pass\nassert not {'torch', 'numpy', 'pydantic', 'altair'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_network_is_trained_tested_and_asked(lab, tmp_path) -> None:
    trained = lab("train", "simple_convnet", "--data", "digits", "--set", "training.epochs=4", "--out", "runs/simple")
    assert trained.code == 0
    assert "finished after 4 of 4 epochs" in trained.out
    assert {"curves.html", "curves.svg", "curves.png"} <= {p.name for p in Path("runs/simple").iterdir()}

    record = json.loads(lab("test", "runs/simple", "--json").out)
    assert record["accuracy"] == record["correct"] / record["count"]
    assert record["interval"][0] < record["accuracy"] < record["interval"][1]
    assert len(record["per_class"]) == 10
    assert {"confusion.html", "confusion.svg", "confusion.png"} <= {p.name for p in Path("runs/simple").iterdir()}

    pictures = load("digits").test
    training_plots.to_pil_image(pictures.images[0]).resize((80, 80), Image.Resampling.NEAREST).save("digit.png")
    found = json.loads(lab("predict", "runs/simple", "digit.png", "--top", 3, "--json").out)
    assert len(found) == 3
    assert sum(
        f["probability"] for f in json.loads(lab("predict", "runs/simple", "digit.png", "--top", 10, "--json").out)
    ) == pytest.approx(1, abs=1e-5)
    assert found[0]["class"] == pictures.classes[pictures.labels[0]]

    listed = json.loads(lab("runs", "--json").out)
    assert [r["state"] for r in listed] == ["finished"]
    assert listed[0]["test_accuracy"] == record["accuracy"]
    assert listed[0]["best_validation_accuracy"] == Run("runs/simple").best_epoch.validation_accuracy


def test_a_recipe_file_is_changed_by_the_words_behind_it(lab) -> None:
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


def test_without_out_two_runs_go_to_two_readable_places(lab) -> None:
    for _ in range(2):
        assert lab("train", "shallow_net", "--set", "training.epochs=1").code == 0
    names = [p.name for p in Path("runs").iterdir()]
    assert len(names) == 2
    assert all(name.startswith("shallow_net-digits-") for name in names)


def test_a_folder_of_pictures_is_trained_on_and_what_cannot_be_read_is_named(lab) -> None:
    for shade, name in ((40, "dark"), (200, "light")):
        Path("mine", name).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (50, 40), (shade + i, shade, shade)).save(Path("mine", name, f"{i}.png"))
    Path("mine/dark/broken.png").write_bytes(b"no picture")
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


def test_one_batch_is_learnt_by_heart_and_the_steps_are_said(lab) -> None:
    done = lab("train", "simple_convnet", "--overfit-one-batch", "--out", "o", "--json")
    result = json.loads(done.out)
    assert (done.code, result["reached"], result["accuracy"]) == (0, True, 1.0)
    assert len(json.loads(Path("o/overfit.json").read_text())["accuracies"]) == result["steps"] + 1
    assert Path("o/overfit.png").stat().st_size > 1000


def test_a_network_that_cannot_learn_a_batch_ends_with_1(lab) -> None:
    done = lab(
        "train", "shallow_net", "--overfit-one-batch", "--set", "optimizer.lr=1e-9", "--set", "training.batch_size=8"
    )
    assert done.code == 1
    assert "does not learn one batch" in done.out


@pytest.mark.parametrize(
    ("words", "said"),
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
        (("train", "shallow_net", "--recipe", "none.toml"), "none.toml"),
        (("train", "shallow_net", "--device", "tpu"), "cpu, cuda or mps"),
        (("train", "shallow_net", "--data", "folder:nowhere"), "nowhere"),
        (("train", "shallow_net", "--data", "folder:empty"), "empty"),
        (("train", "shallow_net", "--data", "folder:one"), "two classes or more"),
        (("train", "shallow_net", "--out", "full"), "not empty"),
        (("train", "shallow_net", "--out", "file/below"), "choose another --out"),
        (("train", "mine.py:Net"), "mine.py"),
        (("resume", "nowhere"), "holds no run"),
        (("test", "nowhere"), "holds no run"),
        (("predict", "nowhere", "x.png"), "holds no run"),
        (("runs", "nowhere"), "no folder nowhere"),
        (("runs", "empty"), "holds no runs"),
        (("data", "show", "digits", "--out", "sheet.xyz"), ".png"),
        (("data", "fetch", "digits"), "nothing to download"),
    ],
)
def test_a_wrong_input_is_one_line_and_exit_2_and_nothing_is_written(lab, tmp_path, words, said) -> None:
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
    assert said in result.err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_out_that_holds_a_run_is_refused(lab) -> None:
    assert lab("train", "shallow_net", *QUICK, "--out", "a").code == 0
    before = Path("a/metrics.jsonl").read_bytes()
    again = lab("train", "shallow_net", *QUICK, "--out", "a")
    assert again.code == 2
    assert "holds a run already" in again.err
    assert Path("a/metrics.jsonl").read_bytes() == before


def test_predict_refuses_what_is_no_picture(lab) -> None:
    lab("train", "shallow_net", *QUICK, "--out", "a")
    Path("x.png").write_text("no picture")
    result = lab("predict", "a", "x.png")
    assert result.code == 2
    assert "x.png" in result.err
    assert result.err.count("\n") == 1


def test_picture_sets_are_listed_and_shown(lab) -> None:
    names = [source["name"] for source in json.loads(lab("data", "list", "--json").out)]
    assert {"digits", "fashion_mnist", "cifar10", "cifar100"} <= set(names)
    assert "folder:PATH" in lab("data", "list").out
    assert lab("data", "show", "digits", "--out", "sheet.png").code == 0
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 300
        assert len(set(sheet.convert("L").tobytes())) > 10  # digits have shades


def test_in_a_pipe_there_are_plain_lines_and_no_bars(lab) -> None:
    done = lab("train", "shallow_net", *QUICK, "--out", "a")
    assert "\x1b" not in done.out + done.err
    assert [line.split()[1] for line in done.err.splitlines() if line.startswith("epoch")] == ["1/2", "2/2"]


def test_resuming_a_finished_run_changes_nothing(lab) -> None:
    lab("train", "shallow_net", *QUICK, "--out", "a")
    before = Path("a/last.safetensors").read_bytes()
    again = lab("resume", "a")
    assert again.code == 0
    assert Path("a/last.safetensors").read_bytes() == before


def test_ctrl_c_ends_after_the_step_and_resume_gives_the_same_bits(lab, tmp_path) -> None:
    words = [
        "train",
        "simple_convnet",
        "--set",
        "training.epochs=6",
        "--set",
        "training.batch_size=8",
        "--threads",
        "1",
    ]
    command = [sys.executable, "-c", "from convolab.cli.main import main; main()", *words, "--out", "stopped"]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "stopped" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_text()) and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert "stopped after" in out
    assert "next: convolab resume stopped" in out
    assert Run(tmp_path / "stopped").status == "stopped"
    resumed = lab("resume", "stopped")
    assert resumed.code == 0, resumed.err
    lab(*words, "--out", "whole")
    for name in ("best.safetensors", "last.safetensors"):
        assert Path("stopped", name).read_bytes() == Path("whole", name).read_bytes()


def test_the_public_face_has_what_it_promises() -> None:
    import convolab

    assert all(getattr(convolab, name) is not None for name in convolab.__all__)
    with pytest.raises(AttributeError, match="convolab has no nonsense"):
        _ = convolab.nonsense
