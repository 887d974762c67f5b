"""The commands for studies, sweeps and comparisons."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STUDY = """
name = "rates"
seeds = [0, 1]
[recipe]
data = {limit = 200}
model = {name = "shallow_net", hidden = 8}
training = {epochs = 2, batch_size = 64}
[sections.rates]
title = "A fast and a slow rate"
arms.fast = {"optimizer.lr" = 0.1}
arms.slow = {"optimizer.lr" = 0.001}
[[sections.rates.contrasts]]
arm = "fast"
baseline = "slow"
"""


@pytest.fixture
def study(run_cli) -> Path:
    """The file of a study of four short runs, in the working directory."""
    Path("my_study.toml").write_text(STUDY)
    return Path("my_study.toml")


@pytest.mark.slow
def test_a_study_prints_its_conclusions_and_writes_a_report(run_cli, study: Path) -> None:
    result = run_cli("study", study)
    assert result.code == 0
    assert "rates: A fast and a slow rate" in result.out
    assert "  Undecided: 'fast' instead of 'slow' seems to raise " in result.out
    assert result.out.rstrip().endswith("4 of 4 runs; report: studies/rates/report.html")
    assert [line.partition("  ")[0] for line in result.err.splitlines()] == ["1/4", "2/4", "3/4", "4/4"]
    assert "A fast and a slow rate" in Path("studies/rates/report.html").read_text()


@pytest.mark.slow
def test_the_same_command_run_again_trains_nothing(run_cli, study: Path) -> None:
    first, again = run_cli("study", study), run_cli("study", study)
    assert again.out == first.out
    assert again.err == "4 of 4 runs are already complete\n"


@pytest.mark.slow
def test_the_json_of_a_study_has_every_arm_and_contrast(run_cli, study: Path) -> None:
    results = json.loads(run_cli("study", study, "--seeds", 3, "--json").out)
    assert results["num_completed"] == results["num_runs"] == 6
    arms = results["sections"]["rates"]["arms"]
    values = arms["fast"]["metrics"]["best_validation_accuracy"]["by_seed"]
    assert list(values) == ["0", "1", "2"]
    (contrast,) = results["sections"]["rates"]["contrasts"]
    assert contrast["paired_test"]["difference"]["mean"] == pytest.approx(
        arms["fast"]["metrics"]["best_validation_accuracy"]["mean"]
        - arms["slow"]["metrics"]["best_validation_accuracy"]["mean"]
    )
    written = json.loads(Path("studies/rates/report.json").read_text())
    assert written.pop("written_by").startswith("[convolab: study report of rates ")
    assert written == results


@pytest.mark.slow
def test_figures_and_tables_are_exported(run_cli, study: Path) -> None:
    assert run_cli("study", study, "--export", "figures").code == 0
    endings = {path.suffix for path in Path("figures").rglob("*") if path.is_file()}
    assert endings == {".svg", ".png", ".csv", ".md", ".json"}
    sections = json.loads(Path("figures/results.json").read_text())["sections"]
    report = json.loads(next(Path("studies").glob("*/report.json")).read_text())["sections"]
    verdicts = [contrast["verdict"] for section in sections.values() for contrast in section["contrasts"]]
    assert {*verdicts} <= {"better", "worse", "equivalent", "undecided"}
    assert sections == report


@pytest.mark.long
@pytest.mark.slow
def test_one_section_of_the_coursework_with_one_seed_decides_nothing(run_cli) -> None:
    result = run_cli("study", "coursework", "--section", "residual", "--seeds", 1)
    assert result.code == 0
    assert "a single outcome, which decides nothing" in result.out
    assert "best-on-test" not in result.out


@pytest.mark.slow
def test_a_sweep_compares_every_value_with_the_first(run_cli) -> None:
    results = json.loads(
        run_cli("sweep", "shallow_net", "optimizer.lr=0.1,0.01,0.001", "training.epochs=1", "--seeds", 2, "--json").out
    )
    assert list(results["sections"]["sweep"]["arms"]) == [f"lr={rate}, epochs=1" for rate in (0.1, 0.01, 0.001)]
    assert {c["baseline"] for c in results["sections"]["sweep"]["contrasts"]} == {"lr=0.1, epochs=1"}
    assert Path("studies/shallow_net-lr-epochs-digits/report.html").exists()


@pytest.mark.slow
def test_runs_and_arms_of_studies_are_compared(run_cli, study: Path) -> None:
    run_cli("study", study)
    result = run_cli("compare", "studies/rates:fast", "studies/rates:slow")
    assert result.code == 0
    assert "'slow' instead of 'fast'" in result.out
    assert "0.001" in Path("comparison.html").read_text()
    for name, rate in (("a", 0.1), ("b", 0.01)):
        run_cli(
            "train",
            "shallow_net",
            "--set",
            "training.epochs=1",
            "--set",
            f"optimizer.lr={rate}",
            "--out",
            f"runs/{name}",
        )
    whole = run_cli("compare", "studies/rates")  # as from Python, what the study has found so far
    assert whole.code == 0, whole.err
    assert "rates: " in whole.out
    single = run_cli("compare", "runs/a", "runs/b", "--out", "pair.html")
    command = "convolab sweep runs/a/recipe.toml optimizer.lr=0.1,0.01 --seeds 3"
    assert f"\n  {command}\n" in single.out
    assert command in Path("pair.html").read_text()
    assert run_cli(*command.split()[1:], "--json").code == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["study", "courswork"], "no study file 'courswork': did you mean 'coursework'?"),
        (["study", "coursework", "--section", "residul"], "did you mean 'residual'?"),
        (["study", "coursework", "--budget", "huge"], "unknown budget 'huge'"),
        (["study", "coursework", "--data", "cifar01"], "did you mean 'cifar10'?"),
        (["study", "my_study.toml", "--section", "rate"], "did you mean 'rates'?"),
        (["study", "my_study.toml", "--budget", "quick"], "--budget is for coursework alone"),
        (["study", "my_study.toml", "--executor", "rya"], "did you mean 'ray'?"),
        (
            ["study", "my_study.toml", "--engine", "ray"],
            "'convolab study --engine' is now called 'convolab study --executor'",
        ),
        (["sweep", "shallow_net", "optimizer.lr=1", "--repair"], "is now called 'convolab sweep --retrain-damaged'"),
        (["study", "my_study.toml", "--address", "auto"], "--address needs --executor ray"),
        (["study", "coursework", "--device", "cuda", "--executor", "ray"], "--device needs --executor local: on a Ray"),
        (
            ["sweep", "shallow_net", "optimizer.lr=0.1", "--device", "tpu"],
            "unknown device 'tpu': give cpu, cuda or mps",
        ),
        (["sweep", "shallow_net", "optimizer.lr"], "is not a sweep"),
        (
            ["sweep", "shallow_net", "optimizer.lr=0.1..0.2", "--search", "2", "--log", "playback"],
            "--log is for a grid",
        ),
        (["sweep", "shallow_net", "optimizer.lr=0.1,0.1"], "the grid holds a value twice"),
        (["sweep", "shallow_net", "optimizer.lr=0.1", "optimizer.lr=0.2"], "a key is given twice"),
        (
            ["sweep", "shallow_net", "optimizer.lr=0.1", "--epochs", "1", "--set", "training.epochs=2"],
            "training.epochs is given twice, by its own option and by --set",
        ),
        (
            ["sweep", "shallow_net", "optimizer.lr=0.1", "--set", "model.name=simple_convnet"],
            "model.name is given twice, by its own option and by --set",
        ),
        (
            ["sweep", "shallow_net", "optimizer.lr=0.1", "--set", "data.limit=50", "--set", "data.limit=60"],
            "data.limit is given twice, by --set",
        ),
        (["sweep", "shallow_net", "optimizer.rate=0.1"], "a recipe has no key 'optimizer.rate'"),
        (["sweep", "shalow_net", "optimizer.lr=0.1"], "did you mean 'shallow_net'?"),
        (["compare", "runs/none", "runs/other"], "is not a run folder"),
        (["compare", "my_study:fast"], "is not a study's folder"),
    ],
)
def test_a_wrong_argument_gives_one_line_and_writes_nothing(
    run_cli, study: Path, args: list[str], message: str
) -> None:
    result = run_cli(*args)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert result.out == ""
    assert [path.name for path in Path().iterdir()] == ["my_study.toml"]


@pytest.mark.slow
def test_a_diverging_arm_is_reported_and_the_study_ends_without_an_error(run_cli) -> None:
    Path("diverging.toml").write_text(STUDY.replace("= 0.1}", "= 1e30}"))
    result = run_cli("study", "diverging.toml")
    assert result.code == 0
    assert "diverged" in result.out
    assert "2 of 2 runs" in result.out


def start_convolab(*args: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", "from convolab.cli.main import main; main()", *args], start_new_session=True, **options
    )


def wait_for(pattern: str, process: subprocess.Popen, seconds: float = 60) -> None:
    """Wait until a process has written such a file; it is ended, and the test fails, if it has not in so many seconds."""
    end = time.monotonic() + seconds
    while not list(Path().glob(pattern)):
        assert process.poll() is None, f"it ended with {process.returncode} and without {pattern}"
        if time.monotonic() > end:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            pytest.fail(f"there was no {pattern} after {seconds} seconds")
        time.sleep(0.02)


@pytest.mark.timing
def test_control_c_stops_a_study_with_its_runs_saved(run_cli, study: Path) -> None:
    Path("long.toml").write_text(STUDY.replace("epochs = 2", "epochs = 400"))
    process = start_convolab("study", "long.toml", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for("studies/rates/runs/*/state.safetensors", process)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "stopping after the current steps" in err
    assert out.endswith("; stopped: run the same command to continue\n")
    summaries = [json.loads(path.read_text()) for path in Path("studies/rates/runs").glob("*/summary.json")]
    assert {summary["status"] for summary in summaries} == {"stopped"}
    assert all(summary["epochs_done"] < 400 for summary in summaries)
    assert any(summary["epochs_done"] > 0 for summary in summaries)  # of the run whose state the test waited for


@pytest.mark.timing
@pytest.mark.long
def test_on_a_terminal_there_is_a_table_of_the_running_trials(run_cli, study: Path) -> None:
    Path("long.toml").write_text(STUDY.replace("epochs = 2", "epochs = 40"))
    parent, child = pty.openpty()
    process = start_convolab("study", "long.toml", stdout=subprocess.DEVNULL, stderr=child)
    os.close(child)
    output = b""
    while process.poll() is None or not output:
        try:
            output += os.read(parent, 65536)
        except OSError:
            break
    process.wait(timeout=300)
    assert b"of 4 runs done" in output
    assert b"images/s" in output
    assert b"4/4" in output


@pytest.fixture
def own_networks(run_cli) -> Path:
    """Two networks in a file each, in a folder."""
    Path("nets").mkdir()
    for name in "AB":
        Path(f"nets/{name.lower()}.py").write_text(
            "from torch import nn\n"
            f"class {name}(nn.Sequential):\n"
            "    def __init__(self, shape, classes, hidden=8):\n"
            "        super().__init__(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, classes))\n"
        )
    return Path("nets")


FAST = ("--epochs", "1", "--set", "data.limit=200", "--seeds", "1")


@pytest.mark.slow
def test_a_sweep_over_networks_of_ones_own_runs_and_its_arms_and_runs_are_compared(run_cli, own_networks: Path) -> None:
    swept = run_cli("sweep", "simple_convnet", "model.name=nets/a.py:A,nets/b.py:B", *FAST, "--out", "s")
    assert swept.code == 0, swept.err
    compared = run_cli("compare", "s:name=a.py:A", "s:name=b.py:B")
    assert compared.code == 0, compared.err
    for name in "AB":
        run_cli("train", f"nets/{name.lower()}.py:{name}", "--epochs", "1", "--out", name)
    compared = run_cli("compare", "A", "B", "--out", "runs.html")
    assert compared.code == 0, compared.err
    assert run_cli("sweep", "nets/a.py:A", "optimizer.lr=.1,.01", *FAST).code == 0
    assert Path("studies/a-A-lr-digits/report.html").exists()


@pytest.mark.slow
def test_a_sweep_logs_each_of_its_runs_as_a_study_does(run_cli) -> None:
    swept = run_cli("sweep", "shallow_net", "optimizer.lr=0.1,0.01", *FAST, "--log", "playback", "--out", "s")
    assert swept.code == 0, swept.err
    assert len(list(Path("s/runs").glob("*/playback"))) == 2


@pytest.mark.slow
def test_an_arm_of_a_network_of_ones_own_has_its_own_runs_and_not_those_with_other_options(
    run_cli, own_networks: Path
) -> None:
    Path("own.toml").write_text(
        'name = "own"\nseeds = [0]\n[recipe]\ndata = {limit = 200}\nmodel = {name = "nets/a.py:A"}\n'
        "training = {epochs = 1, batch_size = 64}\n[sections.s]\narms.small = {}\n"
        'arms.large = {"model.hidden" = 16}\n'
    )
    assert run_cli("study", "own.toml", "--out", "s", "--trust").code == 0
    values = json.loads(run_cli("compare", "s:small", "s:large", "--json").out)
    (section,) = values["sections"].values()
    assert [list(arm["runs"]) for arm in section["arms"].values()] == [["0"], ["0"]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "grid",
    [
        ("optimizer.lr=0.01234567,0.01234568",),
        (
            *("optimizer.lr=0.1,0.01", "training.batch_size=64", "training.label_smoothing=0.1"),
            *("optimizer.momentum=0.9", "optimizer.weight_decay=0.0001", "schedule.name=cosine", "data.validation=0.2"),
        ),
    ],
)
def test_a_sweep_of_close_values_and_one_over_seven_keys_run(run_cli, grid: tuple[str, ...]) -> None:
    result = run_cli("sweep", "shallow_net", *grid, *FAST)
    assert result.code == 0, result.err
    assert "2 of 2 runs" in result.out


@pytest.mark.slow
def test_runs_of_different_seeds_are_compared(run_cli) -> None:
    for name, rate, seed in (("a", 0.1, 0), ("b", 0.01, 5)):
        run_cli("train", "shallow_net", "--epochs", "1", "--lr", rate, "--seed", seed, "--out", name)
    result = run_cli("compare", "a", "b")
    assert result.code == 0, result.err
    assert "2 of 2 runs" in result.out


@pytest.mark.slow
def test_a_sweep_takes_the_plain_options_of_train_and_says_so_where_one_makes_no_sense(run_cli) -> None:
    result = run_cli("sweep", "shallow_net", "optimizer.lr=.1,.01", *FAST, "--batch-size", "50", "--out", "s")
    assert result.code == 0, result.err
    assert "batch_size = 50" in Path("s/study.toml").read_text()
    assert "did you mean" not in run_cli("sweep", "shallow_net", "optimizer.lr=.1", "--seed", "1").err
    swept_and_set = run_cli("sweep", "shallow_net", "training.epochs=1,2", "--epochs", "1")
    assert "training.epochs is swept" in swept_and_set.err
    assert "set by --seeds" in run_cli("sweep", "shallow_net", "training.seed=1,2").err


@pytest.mark.slow
def test_a_recipe_with_a_byte_order_mark_and_a_number_without_a_zero_are_read(run_cli) -> None:
    Path("r.toml").write_bytes(b'\xef\xbb\xbf[model]\nname = "shallow_net"\n')
    result = run_cli("train", "--recipe", "r.toml", "--epochs", "1", "--set", "optimizer.lr=.001", "--out", "a")
    assert result.code == 0, result.err
    assert "lr = 0.001" in Path("a/recipe.toml").read_text()


UNTIL_DECIDED = STUDY.replace("seeds = [0, 1]", 'seeds = "until decided"\nmax_seeds = 4')


@pytest.mark.slow
def test_a_study_until_decided_prints_a_line_at_each_look_and_goes_on_after_its_hours(run_cli) -> None:
    Path("my_study.toml").write_text(UNTIL_DECIDED)
    first = run_cli("study", "my_study.toml", "--hours", "0.000001")
    assert first.code == 0
    assert "rates: after 3 seeds " in first.err
    again = run_cli("study", "my_study.toml", "--json")
    (contrast,) = json.loads(again.out)["sections"]["rates"]["contrasts"]
    assert contrast["verdict"] in ("better", "worse", "equivalent", "undecided")
    assert [look["seeds"] for look in contrast["looks"]] == [3, 4][: len(contrast["looks"])]
    assert {"difference", "p", "level", "p_equivalent", "level_equivalent", "outcome"} <= set(contrast["looks"][0])


@pytest.mark.parametrize("hours", ["0", "-1", "nan", "inf"])
def test_hours_that_are_no_time_are_refused_before_anything_is_written(run_cli, hours: str) -> None:
    Path("my_study.toml").write_text(UNTIL_DECIDED)
    result = run_cli("study", "my_study.toml", f"--hours={hours}")
    assert result.code == 2
    assert result.err.rstrip().endswith("hours: give a number above 0")
    assert not Path("studies").exists()


def test_hours_for_fixed_seeds_and_a_most_below_the_first_look_are_refused_in_one_line(run_cli, study: Path) -> None:
    assert 'seeds are "until decided"' in run_cli("study", study, "--hours", "1").err
    Path("few.toml").write_text(UNTIL_DECIDED.replace("max_seeds = 4", "max_seeds = 2"))
    assert run_cli("study", "few.toml").err.rstrip() == (
        "convolab: few.toml: section 'rates': max_seeds is 2: the first look is at 3 seeds, give 3 to 100"
    )


@pytest.mark.slow
def test_the_seed_of_a_search_is_that_of_its_plan_and_0_if_none_is_given(
    run_cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = []
    monkeypatch.setattr("convolab.cli.commands.sweep.run_and_report_search", lambda plan, *_, **__: plans.append(plan))
    for words in ((), ("--search-seed", "0"), ("--search-seed", "7")):
        assert run_cli("sweep", "shallow_net", "optimizer.lr=0.001..1.0", "--search", "6", *words).code == 0
    assert [plan.seed for plan in plans] == [0, 0, 7]


SEARCH = (
    *("sweep", "shallow_net", "optimizer.lr=0.001..1.0", "model.hidden=8,16", "--search", "6"),
    *("--epochs", "3", "--set", "data.limit=200", "--seeds", "2", "--out", "s"),
)


@pytest.mark.slow
def test_a_search_says_who_won_that_its_score_is_biased_the_verdict_and_the_test(run_cli) -> None:
    result = run_cli(*SEARCH)
    assert result.code == 0, result.err
    assert result.out.startswith("configuration\tepochs\tvalidation accuracy")
    assert "the best of 6 configurations, so this number is biased upwards" in result.out
    assert "  on fresh seeds: " in result.out
    assert "tested once" in result.out
    assert Path("s/configurations.csv").read_text().count("\n") == 7
    assert "no seed of this comparison was used in choosing it" in Path("s/decision/report.html").read_text()
    seeds = {json.loads(p.read_text())["recipe_key"] for p in Path("s/runs").glob("*/summary.json")}
    assert seeds.isdisjoint(path.name for path in Path("s/decision/runs").iterdir())
    assert len(list(Path("s").rglob("test.json"))) == 1
    again = run_cli(*SEARCH)
    assert again.out == result.out
    assert ": finished" not in again.err
    assert ": paused" not in again.err
    values = json.loads(run_cli(*SEARCH, "--json").out)
    assert values["winner"]["configuration"] == values["configurations"][0]["configuration"]
    assert values["decision"]["sections"]["decision"]["contrasts"][0]["seeds"] == [0, 1]
    assert 0 <= values["test"]["accuracy"] <= 1


@pytest.mark.slow
def test_a_search_whose_winner_is_the_default_compares_nothing_and_one_without_a_winner_says_so(run_cli) -> None:
    common = ("--search", "1", "--epochs", "1", "--set", "data.limit=200", "--seeds", "1")
    result = run_cli("sweep", "shallow_net", "training.batch_size=128", *common)
    assert "it is the default itself" in result.out
    result = run_cli("sweep", "shallow_net", "optimizer.lr=1e30", *common)
    assert result.code == 0
    assert "no configuration was trained for all epochs" in result.out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["optimizer.lr=0.01..0.1"], "is for a search: give --search N, or values"),
        (["optimizer.lr=0.01,0.1", "--sampler", "tpe"], "give --search N too"),
        (["optimizer.lr=0.01,0.1", "--search-seed", "0"], "give --search N too"),
        (["optimizer.lr=0.01..0.1", "--search", "3", "--search-seed", "-1"], "the search's seed is -1"),
        (["optimizer.lr=0.01..0.1", "--search", "0"], "give 1 to 1,000"),
        (["optimizer.lr=0.1..0.01", "--search", "3"], "from a lower number to a higher one"),
        (["optimizer.lr=-1..0.01", "--search", "3"], "no number is negative"),
        (["optimizer.rate=0.01..0.1", "--search", "3"], "a recipe has no key 'optimizer.rate'"),
        (["optimizer.lr=0.01..0.1", "--search", "3", "--set", "data.validation=0"], "data.validation is 0"),
        (["optimizer.lr=0.01..0.1", "--search", "3", "--sampler", "tp"], "did you mean 'tpe'?"),
    ],
)
def test_a_wrong_search_gives_one_line_and_writes_nothing(run_cli, args: list[str], message: str) -> None:
    result = run_cli("sweep", "shallow_net", *args)
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1
    assert list(Path().iterdir()) == []


@pytest.mark.long
@pytest.mark.timing
def test_a_search_that_is_killed_goes_on_to_the_same_end(run_cli) -> None:
    longer = (*SEARCH[:7], "90", *SEARCH[8:-1])
    whole = run_cli(*longer, "whole").out
    for pattern in ("runs/*/state.safetensors", "decision/runs/*/state.safetensors"):
        process = start_convolab(*longer, "cut", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(f"cut/{pattern}", process)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert run_cli(*longer, "cut").out == whole.replace("whole/", "cut/")
