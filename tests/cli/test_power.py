"""convolab power."""

import json
from pathlib import Path

import pytest

STUDY = """
name = "rates"
seeds = [0, 1, 2]
[recipe]
data = {limit = 200}
model = {name = "shallow_net", hidden = 8}
training = {epochs = 2, batch_size = 64}
[sections.rates]
arms.fast = {"optimizer.lr" = 0.1}
arms.slow = {"optimizer.lr" = 0.001}
[[sections.rates.contrasts]]
arm = "fast"
baseline = "slow"
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def study(run_cli) -> Path:
    """A study's file in the working directory."""
    Path("my_study.toml").write_text(STUDY)
    return Path("my_study.toml")


def test_a_given_spread_gives_a_table_and_a_sentence_and_trains_nothing(run_cli, study: Path) -> None:
    result = run_cli("power", study, "--spread", 0.7)
    assert result.code == 0
    heading, line = (line.split("\t") for line in result.out.splitlines()[:2])
    cells = dict(zip(heading, line, strict=True))
    assert (cells["contrast"], cells["spread"], cells["to differ"]) == ("fast − slow", "0.7", "7")
    assert result.out.endswith(
        "\nWith 3 seeds, 0 of 1 contrast can show a difference of 1 percentage point; rates needs 7.\n"
    )
    assert result.err.startswith("convolab: hours are left out: add --time, or --pilot with a folder")
    assert result.err.count("\n") == 1
    assert [path.name for path in Path().iterdir()] == ["my_study.toml"]


def test_without_anything_differences_are_in_spreads(run_cli, study: Path) -> None:
    result = run_cli("power", study)
    assert result.out.splitlines()[1].split("\t")[1:4] == ["each of 1", "-", "spreads"]
    assert "--pilot FOLDER" in result.err
    assert "convolab study my_study.toml first, whose folder is then read" in result.err
    (example,) = (line.partition("For example: ")[2] for line in result.err.splitlines() if "For example" in line)
    assert example == "convolab power my_study.toml --spread 0.7"
    assert "a spread is needed" not in run_cli(*example.split()[1:]).err
    assert run_cli("power", "coursework").code == 0


def test_the_studys_own_runs_are_taken_and_a_time_is_given(run_cli, study: Path) -> None:
    assert run_cli("study", study, "--seeds", 2).code == 0
    result = run_cli("power", study)
    assert "estimated from 4 finished runs in studies/rates\n" in result.err
    assert "contrast (0 at the 90 % upper bound of the spreads) can show" in result.out
    assert ", in about " in result.out
    assert ", in about " in run_cli("power", study, "--out", "other", "--spread", 1, "--time").out


def test_json_and_csv_have_every_number(run_cli, study: Path) -> None:
    result = json.loads(run_cli("power", study, "--spread", "best_validation_accuracy=0.7", "--json").out)
    assert result["contrasts"][0]["seeds_to_differ"] == 7
    assert result["planned_seeds"] == {"rates": 3}
    assert run_cli("power", study, "--spread", 0.7, "--csv", "table.csv").out.endswith("\ntable: table.csv\n")
    assert Path("table.csv").read_text().startswith("section,arm,baseline,metric,level,unit,spread,")
    assert run_cli("power", study, "--spread", 0.6, "--csv", "table.csv").code == 0
    Path("mine.csv").write_text("a,b\n1,2\n")
    assert run_cli("power", study, "--spread", 0.7, "--csv", "mine.csv").code == 2
    assert Path("mine.csv").read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--spread", "0"], "a spread of 0.0 for best_validation_accuracy: give a number above 0"),
        (["--spread", "nan"], "a spread of nan for best_validation_accuracy: give a number above 0"),
        (["--spread", "much"], "--spread much: give a number such as 0.7, or METRIC=0.7"),
        (["--spread", "=1"], "--spread =1: give a number such as 0.7, or METRIC=0.7"),
        (["--spread", "1", "--spread", "final_gap=1"], "give one number for all metrics, or METRIC=VALUE for each"),
        (["--spread", "final_gap=1", "--spread", "final_gap=2"], "it is given twice"),
        (["--spread", "best_validation_acuracy=1"], "did you mean 'best_validation_accuracy'?"),
        (["--power", "80"], "a power of 80: give a fraction between 0 and 1, such as 0.8"),
        (["--pilot", "nowhere"], "there is no folder nowhere"),
        (["--pilot", "."], ". holds no finished run: train some first"),
        (["--csv", "table.txt"], "--csv table.txt: give a name ending in .csv"),
        (["--budget", "quick"], "--budget is for coursework alone"),
    ],
)
def test_a_wrong_option_is_one_line(run_cli, study: Path, options: list[str], message: str) -> None:
    result = run_cli("power", study, *options)
    assert result.code == 2
    assert result.out == ""
    assert message in result.err
    assert result.err.count("\n") == 1
