"""The commands to train, test and predict, as a user calls them."""

import io
import json
import os
import pty
import re
import resource
import shutil
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image

import convolab
from convolab.cli.main import COMMANDS, help_line, load_command
from convolab.cli.run_status import next_command
from convolab.data.catalog import DATASETS, load
from convolab.models.registry import NETWORKS, is_own_factory
from convolab.plots.images import to_pil_image
from convolab.training.lock import is_locked, run_lock
from convolab.training.recipe import Recipe
from convolab.training.run import Run

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--set", "training.epochs=2")


HELP = "from convolab.cli.main import app\ntry: app(['--help'])\nexcept SystemExit: pass"


@pytest.mark.slow
def test_help_needs_neither_torch_nor_pydantic_nor_rich() -> None:
    heavy = "{'torch', 'numpy', 'pydantic', 'altair', 'rich'}"
    code = f"{HELP}\nimport sys\nassert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def processor_seconds_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.mark.slow
@pytest.mark.timing
def test_help_takes_at_most_12_times_as_long_as_python_alone() -> None:
    def seconds(code: str) -> float:
        before = processor_seconds_of_children()  # which other processes do not lengthen
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        return processor_seconds_of_children() - before

    pairs = [(seconds("0"), seconds(HELP)) for _ in range(20)]  # alternating, so that other load slows both
    assert statistics.median(help_seconds for _, help_seconds in pairs) <= 12 * statistics.median(
        python_seconds for python_seconds, _ in pairs
    )


def test_the_version_is_that_of_the_package(run_cli) -> None:
    result = run_cli("--version")
    assert (result.code, result.out) == (0, f"convolab {version('convolab')}\n")


@pytest.mark.slow
def test_a_network_is_trained_and_tested_and_predicts(run_cli, tmp_path) -> None:
    trained = run_cli(
        "train", "simple_convnet", "--data", "digits", "--set", "training.epochs=4", "--out", "runs/simple"
    )
    assert trained.code == 0
    assert "finished after 4 of 4 epochs" in trained.out
    assert {"curves.html", "curves.svg", "curves.png"} <= {p.name for p in Path("runs/simple").iterdir()}

    record = json.loads(run_cli("test", "runs/simple", "--json").out)
    assert record["accuracy"] == record["correct"] / record["count"]
    assert record["interval"][0] < record["accuracy"] < record["interval"][1]
    assert len(record["per_class"]) == 10
    assert {"confusion.html", "confusion.svg", "confusion.png"} <= {p.name for p in Path("runs/simple").iterdir()}

    images = load("digits").test
    to_pil_image(images.images[0]).resize((80, 80), Image.Resampling.NEAREST).save("digit.png")
    predicted = json.loads(run_cli("predict", "runs/simple", "digit.png", "--top", 3, "--json").out)
    assert len(predicted) == 3
    assert sum(
        entry["probability"]
        for entry in json.loads(run_cli("predict", "runs/simple", "digit.png", "--top", 10, "--json").out)
    ) == pytest.approx(1, abs=1e-5)
    assert predicted[0]["class"] == images.classes[images.labels[0]]
    both = json.loads(run_cli("predict", "runs/simple", "digit.png", "chelsea", "--top", 3, "--json").out)["images"]
    assert [found["image"] for found in both] == ["digit.png", "chelsea"]
    assert both[0]["classes"] == predicted
    assert run_cli("predict", "runs/simple", "chelsea", "coffee", "--top", 1).out.count("coffee") == 1
    unknown = run_cli("predict", "runs/simple", "chelse")
    assert (unknown.code, "no sample image 'chelse': did you mean 'chelsea'?" in unknown.err) == (2, True), unknown.err
    too_large = run_cli("predict", "runs/simple", "digit.png", "--max-pixels", 63)
    assert (too_large.code, "raise the limit: --max-pixels" in too_large.err) == (2, True)

    listed = json.loads(run_cli("runs", "--json").out)
    assert [run["status"] for run in listed] == ["finished"]
    assert listed[0]["test_accuracy"] == record["accuracy"]
    assert listed[0]["best_validation_accuracy"] == Run("runs/simple").best_epoch.validation_accuracy


@pytest.mark.slow
def test_options_override_keys_of_a_recipe_file(run_cli) -> None:
    Path("r.toml").write_text('[model]\nname = "shallow_net"\nhidden = 16\n[training]\nepochs = 7\n')
    assert (
        run_cli(
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
def test_optimizer_schedule_and_augment_are_options_of_train_and_a_new_name_has_its_own_defaults(run_cli) -> None:
    Path("r.toml").write_text("[optimizer]\nlr = 0.5\n[schedule]\nname = 'step'\ngamma = 0.5\n")
    options = ("--optimizer", "adam", "--schedule", "cosine", "--augment", "crop:1, flip")
    result = run_cli("train", "shallow_net", "--recipe", "r.toml", "--epochs", 1, *options, "--out", "a")
    assert result.code == 0, result.err
    names = {"optimizer.name": "adam", "schedule.name": "cosine", "data.augment": ["crop:1", "flip"]}
    expected = Recipe().with_overrides({"model.name": "shallow_net", "training.epochs": 1, **names})
    assert Run("a").recipe.key == expected.key


@pytest.mark.slow
def test_a_recipe_s_file_may_stand_in_the_place_of_the_network(run_cli) -> None:
    Path("r.toml").write_text('[model]\nname = "shallow_net"\nhidden = 16\n[training]\nepochs = 1\n')
    assert run_cli("train", "r.toml", "--out", "a").code == 0
    assert Run("a").recipe.key == Recipe.read("r.toml").key


@pytest.mark.slow
def test_without_out_two_runs_get_two_readable_folders(run_cli) -> None:
    for _ in range(2):
        assert run_cli("train", "shallow_net", "--set", "training.epochs=1").code == 0
    names = [p.name for p in Path("runs").iterdir()]
    assert len(names) == 2
    assert all(name.startswith("shallow_net-digits-") for name in names)


@pytest.mark.slow
def test_a_folder_of_images_is_trained_on_and_unreadable_files_are_named(run_cli) -> None:
    for shade, name in ((40, "dark"), (200, "light")):
        Path("mine", name).mkdir(parents=True)
        for i in range(20):
            Image.new("RGB", (50, 40), (shade + i, shade, shade)).save(Path("mine", name, f"{i}.png"))
    Path("mine/dark/broken.png").write_bytes(b"no image")
    result = run_cli(
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
    assert result.code == 0
    assert "dark/broken.png" in result.err
    assert run_cli("test", "runs/mine", "--json").code == 0


@pytest.mark.slow
def test_one_batch_is_overfitted_and_the_steps_are_reported(run_cli) -> None:
    command = ("train", "simple_convnet", "--overfit-one-batch")
    result = run_cli(*command, "--out", "o", "--json")
    report = json.loads(result.out)
    assert (result.code, report["success"], report["accuracy"]) == (0, True, 1.0)
    assert len(json.loads(Path("o/overfit.json").read_text())["accuracies"]) == report["steps"] + 1
    assert Path("o/overfit.png").stat().st_size > 1000
    assert "curve: o/overfit.html (also .svg, .png and .json)" in run_cli(*command, "--out", "o").out


@pytest.mark.slow
def test_a_network_that_cannot_overfit_a_batch_exits_with_1(run_cli) -> None:
    result = run_cli(
        "train", "shallow_net", "--overfit-one-batch", "--set", "optimizer.lr=1e-9", "--set", "training.batch_size=8"
    )
    assert result.code == 1
    assert "cannot overfit one batch" in result.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("train",), "simple_convnet"),
        (("train", "simple_convet"), "did you mean 'simple_convnet'?"),
        (("train", "resnet18"), "did you mean timm/resnet18 or torchvision/resnet18?"),
        (("train", "none.toml"), "cannot read the recipe none.toml"),
        (("train", "none.toml", "--recipe", "other.toml"), "none.toml and other.toml are both recipes"),
        (("train", "shallow_net", "--data", "cifar01"), "did you mean 'cifar10'?"),
        (("train", "shallow_net", "--set", "optimizer.name=adamm"), "did you mean 'adam'?"),
        (("train", "shallow_net", "--set", "optimizer.lrr=1"), "did you mean 'lr'?"),
        (("train", "shallow_net", "--set", "training.epochs=ten"), "training.epochs = 'ten'"),
        (("train", "shallow_net", "--set", "training.epochs=0"), "give a number above 0"),
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
def test_a_wrong_input_gives_one_line_and_exit_code_2_and_writes_nothing(run_cli, tmp_path, args, message) -> None:
    for folder in ("empty", "one/cats", "full"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "one/cats/a.png")
    (tmp_path / "full/letter.txt").write_text("dear")
    (tmp_path / "file").write_text("a file")
    before = sorted(tmp_path.rglob("*"))
    result = run_cli(*args)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("convolab: ")
    assert result.err.count("\n") == 1
    assert message in result.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.slow
def test_an_out_folder_that_has_a_run_is_refused(run_cli) -> None:
    assert run_cli("train", "shallow_net", *QUICK, "--out", "a").code == 0
    before = Path("a/metrics.jsonl").read_bytes()
    result = run_cli("train", "shallow_net", *QUICK, "--out", "a")
    assert result.code == 2
    assert "holds a run already" in result.err
    assert Path("a/metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_predict_refuses_a_file_that_is_not_an_image(run_cli) -> None:
    run_cli("train", "shallow_net", *QUICK, "--out", "a")
    Path("x.png").write_text("no image")
    result = run_cli("predict", "a", "x.png")
    assert result.code == 2
    assert "x.png" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.slow
def test_in_a_pipe_there_are_plain_lines_and_no_progress_bars(run_cli) -> None:
    result = run_cli("train", "shallow_net", *QUICK, "--out", "a")
    assert "\x1b" not in result.out + result.err
    assert [line.split()[1] for line in result.err.splitlines() if line.startswith("epoch")] == ["1/2", "2/2"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "3", "--set", "training.epochs=4"], "training.epochs is given twice"),
        (["--lr", "0.1", "--set", "optimizer.lr=0.1"], "optimizer.lr is given twice"),
        (["--optimizer", "adam", "--set", "optimizer.name=sgd"], "optimizer.name is given twice"),
        (["--augment", "flip", "--set", "data.augment=[]"], "data.augment is given twice"),
        (["--set", "data.limit=50", "--set", "data.limit=60"], "data.limit is given twice, by --set"),
        (["--overfit-one-batch", "--log", "playback"], "--log is for a training of epochs"),
    ],
)
def test_options_that_contradict_each_other_are_refused(run_cli, options: list[str], message: str) -> None:
    result = run_cli("train", "shallow_net", *options)
    assert result.code == 2
    assert message in result.err


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(run_cli) -> None:
    run_cli("train", "shallow_net", *QUICK, "--out", "a")
    before = Path("a/last.safetensors").read_bytes()
    result = run_cli("resume", "a")
    assert result.code == 0
    assert Path("a/last.safetensors").read_bytes() == before


INTERRUPTED_AFTER_AN_EPOCH = """
import os, signal
from convolab.cli import main
from convolab.reports import live

def interrupt(bar, metrics):
    os.kill(os.getpid(), signal.SIGINT)

live.TrainingBar.on_epoch = interrupt
main.main()
"""


@pytest.mark.timing
def test_ctrl_c_ends_after_the_step_and_resume_gives_the_same_bits(run_cli, tmp_path) -> None:
    settings = ["--set", "training.epochs=3", "--set", "data.limit=300"]
    args = ["train", "simple_convnet", *settings, "--threads", "1"]
    command = [sys.executable, "-c", INTERRUPTED_AFTER_AN_EPOCH, *args, "--out", "stopped"]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = child.communicate(timeout=300)
    assert child.returncode == 130, err  # so that `convolab train && convolab test` does not test what was stopped
    assert "stopped after" in out
    assert "next: convolab resume stopped" in out
    run = Run(tmp_path / "stopped")
    assert (run.status, len(run.history)) == ("stopped", 1)
    resumed = run_cli("resume", "stopped")
    assert resumed.code == 0, resumed.err
    run_cli(*args, "--out", "uninterrupted")
    for name in ("best.safetensors", "last.safetensors"):
        assert Path("stopped", name).read_bytes() == Path("uninterrupted", name).read_bytes()


@pytest.mark.slow
def test_a_run_is_deleted_only_after_confirmation_and_only_its_own_files(run_cli, monkeypatch) -> None:
    assert run_cli("train", "shallow_net", *QUICK, "--out", "a").code == 0
    Path("a/letter.txt").write_text("theirs")
    names = {path.name for path in Path("a").iterdir()}
    refused = run_cli("runs", "--delete", "a")
    assert refused.code == 2
    assert refused.err == "convolab: a is not deleted without a question: add --yes where nobody can answer\n"
    assert {path.name for path in Path("a").iterdir()} == names
    deleted = run_cli("runs", "--delete", "a", "--yes", "--json")
    assert json.loads(deleted.out) == {"deleted": "a", "remaining": ["a/letter.txt"]}
    assert [path.name for path in Path("a").iterdir()] == ["letter.txt"]
    assert "is not a run folder" in run_cli("runs", "--delete", "a", "--yes").err


@pytest.mark.slow
def test_a_link_to_a_run_is_not_deleted_and_code_that_is_not_the_runs_stays(run_cli) -> None:
    assert run_cli("train", "shallow_net", *QUICK, "--out", "a").code == 0
    Path("link").symlink_to("a")
    names = {path.name for path in Path("a").iterdir()}
    assert "is a link" in run_cli("runs", "--delete", "link", "--yes").err
    assert {path.name for path in Path("a").iterdir()} == names
    Path("a/code/sub").mkdir(parents=True)
    Path("a/code/sub/thesis.py").write_text("mine")
    assert run_cli("runs", "--delete", "a", "--yes", "--json").code == 0
    assert [str(path) for path in Path("a").rglob("*") if path.is_file()] == ["a/code/sub/thesis.py"]


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
def test_deleting_a_run_asks_for_confirmation_at_a_terminal(run_cli, monkeypatch, answer: str, code: int) -> None:
    run_cli("train", "shallow_net", *QUICK, "--out", "a")
    terminal = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    result = run_cli("runs", "--delete", "a")
    assert result.code == code
    assert "Delete a (2 epochs of shallow_net on digits, finished)?" in result.err
    assert Path("a").exists() == (answer == "n")


@pytest.mark.slow
def test_a_question_about_a_strangers_run_sends_no_codes_to_the_terminal(run_cli, monkeypatch) -> None:
    run_cli("train", "shallow_net", *QUICK, "--out", "a")
    recipe = Path("a/recipe.toml").read_text()
    Path("a/recipe.toml").write_text(recipe.replace('"digits"', '"folder:\\u001b]0;x\\u0007"'))
    terminal = io.StringIO("n\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    result = run_cli("runs", "--delete", "a")
    assert "Delete a (2 epochs of shallow_net on folder:" in result.err
    assert not {"\x1b", "\x07"} & set(result.err)


@pytest.mark.slow
def test_a_run_in_training_is_not_deleted(run_cli) -> None:
    run_cli("train", "shallow_net", *QUICK, "--out", "a")
    with FileLock("a/.lock"):
        result = run_cli("runs", "--delete", "a", "--yes")
    assert result.code == 2
    assert "is being trained by another process" in result.err
    assert Path("a/recipe.toml").exists()


def test_a_run_of_the_first_edition_is_listed_and_not_resumed(run_cli) -> None:
    stored = Path(__file__).resolve().parents[1] / "data_files" / "run_first_edition"
    shutil.copytree(stored, "runs/old")
    (overview,) = json.loads(run_cli("runs", "--json").out)
    assert (overview["status"], overview["epochs_done"], overview["epochs"]) == ("stopped", 2, 3)
    result = run_cli("resume", "runs/old")
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert "was written by convolab's first edition: it can be read and tested, but not resumed" in result.err


def test_every_public_name_can_be_imported() -> None:
    import convolab

    assert all(getattr(convolab, name) is not None for name in convolab.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = convolab.nonsense


def test_alone_it_says_what_to_try_first(run_cli) -> None:
    result = run_cli()
    assert result.code == 0
    for command in ("convolab train simple_convnet", "convolab explain chelsea", "convolab study coursework"):
        assert command in result.out


def commands_with_words(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """A command and all below it, each with the words that call it."""
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands_with_words(inner, (*words, name))


def test_the_help_of_train_names_the_networks_the_datasets_and_the_defaults_of_a_recipe() -> None:
    parameters = {parameter.name: parameter for parameter in load_command("train").params}
    shown = {name: str(parameter.show_default) for name, parameter in parameters.items()}
    recipe = Recipe()
    defaults = {
        "data": recipe.data.name, "epochs": recipe.training.epochs, "batch_size": recipe.training.batch_size,
        "seed": recipe.training.seed, "optimizer": recipe.optimizer.name, "schedule": recipe.schedule.name,
    }  # fmt: skip
    assert {name: shown[name] for name in defaults} == {
        name: f"the recipe's, else {default}" for name, default in defaults.items()
    }
    assert all(name in parameters["data"].help for name in DATASETS)
    others = ("efficientnet_lite1", "efficientnet_lite2", "shallow_net_class")
    ours = [name for name, factory in NETWORKS.items() if not is_own_factory(factory) and name not in others]
    for command in ("train", "summary"):
        help_text = next(p.help for p in load_command(command).params if p.name == "network")
        assert all(name in help_text for name in ours)


@pytest.mark.slow
def test_no_help_loses_what_stands_in_square_brackets(run_cli) -> None:
    shown = 0
    for name in COMMANDS:
        for words, command in commands_with_words(load_command(name), (name,)):
            texts = [part.help for part in (command, *command.params) if "[" in (getattr(part, "help", None) or "")]
            page = re.sub(r"[\s│]", "", run_cli(*words, "--help").out) if texts else ""
            assert all(re.sub(r"\s", "", text) in page for text in texts), words
            shown += len(texts)
    assert shown >= 3  # correlate's formula and default, and an option of a network


@pytest.mark.slow
def test_help_shows_the_commands_in_sections_and_flags_without_a_type(run_cli) -> None:
    page = run_cli("--help").out
    positions = [page.index(f"{section}:") for section in ("Train", "Compare", "Look inside", "Homework")]
    assert positions == sorted(positions)
    assert all(f"  {name} " in page for name in COMMANDS)
    for command in COMMANDS:
        assert "<bool>" not in run_cli(command, "--help").out


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "word", "completed"), [("tra", 1, "train"), ("train --dat", 2, "--data-dir")])
def test_the_shell_completes_commands_and_options(typed: str, word: int, completed: str) -> None:
    code = "from convolab.cli.main import app; app(prog_name='convolab')"
    environment = os.environ | {
        "_CONVOLAB_COMPLETE": "complete_bash", "COMP_WORDS": f"convolab {typed}", "COMP_CWORD": str(word),
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert completed in done.stdout.split()


@pytest.mark.slow
def test_what_is_changed_most_has_options_of_its_own(run_cli) -> None:
    result = run_cli("train", "shallow_net", "--epochs", "1", "--lr", "0.2", "--batch-size", "64", "--out", "a")
    assert result.code == 0
    recipe = Run("a").recipe
    assert (recipe.training.epochs, recipe.optimizer.lr, recipe.training.batch_size) == (1, 0.2, 64)


def test_every_commands_errors_point_to_a_section_that_is_there() -> None:
    for command, entry in COMMANDS.items():
        page, _, section = entry.page.partition("#")
        text = (ROOT / "docs" / page).read_text()
        headings = {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)", text, re.M)}
        assert not section or section in headings, command
        is_checkout = Path(convolab.__file__).is_relative_to(ROOT / "src")  # an installed wheel has no pages
        assert (str(ROOT / "docs" / page) in help_line(command)) == is_checkout


@pytest.mark.slow
def test_at_a_terminal_an_error_says_where_to_read_on(tmp_path) -> None:
    terminal, its_end = pty.openpty()
    result = subprocess.run(
        [sys.executable, "-m", "convolab", "train", "nonesuch"], cwd=tmp_path, stderr=its_end, stdout=subprocess.PIPE
    )
    os.close(its_end)
    text = os.read(terminal, 4096).decode()
    os.close(terminal)
    assert result.returncode == 2
    assert text.count("\n") == 2
    assert "more: convolab train --help, and " in text


@pytest.fixture
def damaged_runs(run_cli) -> Path:
    """A whole run, and for each way to damage a run one that is damaged so."""
    run_cli("train", "shallow_net", *QUICK, "--out", "runs/whole")
    for name, damage in {
        "no-metrics": lambda run: (run / "metrics.jsonl").unlink(),
        "odd-metrics": lambda run: (run / "metrics.jsonl").write_text("{"),
        "list-summary": lambda run: (run / "summary.json").write_text("[]"),
        "no-summary": lambda run: (run / "summary.json").unlink(),
        "no-recipe": lambda run: (run / "recipe.toml").unlink(),
        "odd-recipe": lambda run: (run / "recipe.toml").write_text("epochs = ["),
        "binary-recipe": lambda run: (run / "recipe.toml").write_bytes(b"\xff\xfe\x00"),
        "odd-test": lambda run: (run / "test.json").write_text("[]"),
        "no-epochs": lambda run: (run / "summary.json").write_text("{}"),
    }.items():
        shutil.copytree("runs/whole", f"runs/{name}")
        damage(Path("runs") / name)
    return Path("runs")


@pytest.mark.slow
def test_a_damaged_run_is_a_row_and_hides_no_other(run_cli, damaged_runs: Path) -> None:
    result = run_cli("runs", damaged_runs)
    assert result.code == 0
    rows = {line.split("\t")[0]: line.split("\t")[1] for line in result.out.splitlines()[1:]}
    assert rows.keys() == {str(path) for path in damaged_runs.iterdir()}
    assert {status for folder, status in rows.items() if folder != "runs/whole"} == {"damaged"}
    assert rows["runs/whole"] == "finished"
    assert result.err.count("\n") == len(rows) - 1


@pytest.mark.slow
def test_a_run_with_a_file_of_another_run_is_listed_as_damaged_and_the_file_is_named(run_cli) -> None:
    for seed in (0, 1):
        run_cli("train", "shallow_net", *QUICK, "--seed", seed, "--out", f"runs/{seed}")
    files = ("best.safetensors", "last.safetensors", "state.safetensors", "state.previous.safetensors", "recipe.toml")
    for file in files:
        shutil.copytree("runs/0", f"runs/mixed-{file}")
        shutil.copy(f"runs/1/{file}", f"runs/mixed-{file}/{file}")
    shutil.copytree("runs/0", "runs/cut")
    Path("runs/cut/best.safetensors").write_bytes(b"\xff" * 7)
    for name in ("run_format_1", "run_first_edition"):
        shutil.copytree(ROOT / "tests/data_files" / name, f"runs/{name}")
    rows = {Path(row["folder"]).name: row for row in json.loads(run_cli("runs", "--json").out)}
    for file in files:
        assert rows[f"mixed-{file}"]["status"] == "damaged"
        assert f"runs/mixed-{file}/{file}" in rows[f"mixed-{file}"]["reason"]
    assert (rows["cut"]["status"], "best.safetensors" in rows["cut"]["reason"]) == ("damaged", True)
    assert {rows[name]["status"] for name in ("0", "1")} == {"finished"}
    assert {rows[name]["status"] for name in ("run_format_1", "run_first_edition")} == {"stopped"}
    assert run_cli("test", "runs/mixed-last.safetensors").code == 0  # the test needs the best weights alone


@pytest.mark.slow
def test_a_run_of_a_network_that_was_registered_elsewhere_is_listed(run_cli) -> None:
    NETWORKS["tiny"] = NETWORKS["shallow_net"]
    run_cli("train", "tiny", *QUICK, "--out", "runs/tiny")
    del NETWORKS["tiny"]
    (row,) = json.loads(run_cli("runs", "--json").out)
    assert (row["network"], row["status"]) == ("tiny", "finished")
    assert "unknown network 'tiny'" in run_cli("test", "runs/tiny").err


@pytest.mark.slow
def test_looking_at_a_run_writes_nothing_and_does_not_hinder_its_training(run_cli) -> None:
    run_cli("train", "shallow_net", *QUICK, "--out", "runs/a")
    Path("runs/a/.lock").unlink()
    before = sorted(Path("runs/a").iterdir())
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            Run("runs/a").status  # noqa: B018

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        assert sorted(Path("runs/a").iterdir()) == before
        assert not is_locked(Path("runs/a"))
        for _ in range(50):
            with run_lock(Path("runs/a")):
                assert is_locked(Path("runs/a"))
    finally:
        stop.set()
        for looker in lookers:
            looker.join()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["state.safetensors", "best.safetensors", "last.safetensors", "recipe.toml"])
def test_a_finished_run_with_a_file_of_another_is_not_called_finished(run_cli, tmp_path: Path, name: str) -> None:
    for seed, folder in ((0, "a"), (1, "b")):
        run_cli("train", "shallow_net", "--epochs", "1", "--set", "data.limit=300", "--seed", seed, "--out", folder)
    (tmp_path / "b" / name).write_bytes((tmp_path / "a" / name).read_bytes())
    result = run_cli("resume", "b")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)


def table_lines(text: str) -> list[str]:
    """Lines of a drawn table, without the terminal's codes."""
    return [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in text.splitlines()]


@pytest.mark.slow
def test_a_narrow_terminal_lists_runs_with_what_matters_first_and_cuts_no_name(run_cli, monkeypatch) -> None:
    folder = "runs/a-name-of-a-run-that-is-long"
    run_cli("train", "shallow_net", *QUICK, "--out", folder)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for columns, missing in (("200", ""), ("80", "recipe"), ("60", "network, data, recipe")):
        monkeypatch.setenv("COLUMNS", columns)
        lines = table_lines(run_cli("runs").out)
        assert max(map(len, lines[:-1])) <= int(columns)
        (row,) = [line for line in lines if folder in line]
        assert row.split()[1] == "finished"
        assert missing in lines[-1] or not missing
        assert "…" not in "".join(lines)


@pytest.mark.slow
def test_in_a_pipe_runs_are_listed_with_every_column(run_cli, monkeypatch) -> None:
    run_cli("train", "shallow_net", *QUICK, "--out", "runs/a")
    monkeypatch.setenv("COLUMNS", "20")
    heading, row = (line.split("\t") for line in run_cli("runs").out.splitlines())
    assert heading[:5] == ["run", "status", "epochs", "changed", "best validation"]
    assert heading[5:] == ["test", "network", "data", "recipe", "parent"]
    assert row[:3] == ["runs/a", "finished", "2/2"]


@pytest.mark.slow
def test_runs_are_listed_with_the_keys_in_which_they_are_not_the_default(run_cli) -> None:
    run_cli("train", "shallow_net", *QUICK, "--out", "runs/a")
    run_cli("train", "shallow_net", *QUICK, "--optimizer", "adam", "--lr", 0.01, "--seed", 3, "--out", "runs/b")
    _, *rows = (line.split("\t") for line in run_cli("runs").out.splitlines())
    assert [row[3] for row in rows] == ["-", "optimizer=adam, lr=0.01, seed=3"]
    assert [row["changed"] for row in json.loads(run_cli("runs", "--json").out)] == [
        {},
        {"optimizer.name": "adam", "optimizer.lr": 0.01, "training.seed": 3},
    ]


@pytest.mark.slow
def test_what_to_do_next_is_no_test_after_the_test_or_without_test_images(run_cli) -> None:
    assert "next: convolab test a" in run_cli("train", "shallow_net", *QUICK, "--out", "a").out
    run_cli("test", "a")
    assert "next: convolab predict a IMAGE" in run_cli("resume", "a").out
    for name, shade in (("dark", 40), ("light", 200)):
        for split in ("train", "val"):
            Path("mine", split, name).mkdir(parents=True)
            for i in range(12):
                Image.new("RGB", (8, 8), (shade + i, shade, len(split))).save(
                    Path("mine", split, name, f"{split}{i}.png")
                )
    options = ("--data", "folder:mine", "--set", "data.image_size=8", "--set", "training.batch_size=8")
    result = run_cli("train", "shallow_net", *options, *QUICK, "--out", "b")
    assert "next: convolab predict b IMAGE" in result.out, result.err
    diverged = run_cli("train", "simple_convnet", "--lr", "1e12", *QUICK, "--out", "c")
    assert "next: convolab test" not in diverged.out
    assert "resume" not in diverged.out
    assert next_command(Run("c")) == "convolab train --recipe c/recipe.toml --lr 1e+11"


def test_no_page_counts_the_questions_of_the_course_in_words() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "src/convolab/cli/main.py"]
    numbers = "eight|nine|ten|eleven|twelve|thirteen"
    assert not [page.name for page in pages if re.search(rf"\b({numbers}|\d+) questions\b", page.read_text())]


@pytest.mark.parametrize("value", ["0", "abc", "-1", "1.5", ""])
def test_a_variable_that_is_no_number_of_threads_is_one_line(
    value: str, run_cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    result = run_cli("train", "shallow_net", "--out", "run")
    assert (result.code, result.err.count("\n"), Path("run").exists()) == (2, 1, False)
    assert "is not a number of threads" in result.err
