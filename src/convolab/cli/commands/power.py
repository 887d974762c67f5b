"""convolab power: what a study can show, with how many seeds, before it is trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from convolab.cli.options import AsJson, DataDir
from convolab.cli.studies import SeedCount, StudyBudget, StudyData, StudyName, StudySections, read_plan
from convolab.cli.terminal import print_fitting_table, print_json, print_lines, print_note
from convolab.core.errors import LabError, require

if TYPE_CHECKING:
    from convolab.studies.power import StudyPower

EXAMPLE_SPREADS = {"%": 0.7, "nats": 0.02}  # in the unit that reports show


def power_command(
    study: StudyName,
    spread: Annotated[
        list[str] | None,
        typer.Option(
            help="Standard deviation of a contrast's difference over seeds, in percentage points, nats, ...: one for "
            "all, or METRIC=VALUE. Repeatable."
        ),
    ] = None,
    pilot: Annotated[
        Path | None,
        typer.Option(
            help="Folder of finished runs to estimate spreads and hours from.", show_default="the study's own folder"
        ),
    ] = None,
    power: Annotated[float, typer.Option(help="How often a true difference should be found.")] = 0.8,
    time: Annotated[bool, typer.Option("--time", help="Train one recipe for two seconds to estimate hours.")] = False,
    data: StudyData = None,
    budget: StudyBudget = None,
    section: StudySections = None,
    seeds: SeedCount = None,
    data_dir: DataDir = None,
    out: Annotated[
        Path | None, typer.Option(help="The study's own folder, which is only read.", show_default="studies/NAME")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table as CSV.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say which differences a study can show, with how many seeds and in what time, before it is trained."""
    given = parse_spreads(spread or [])
    plan = read_plan(study, data, budget, section, seeds, data_dir)
    require(csv is None or csv.suffix.lower() == ".csv", f"--csv {csv}: give a name ending in .csv")
    from convolab.api_studies import power as compute_power
    from convolab.reports.power import DROP_ORDER, EXPLANATION, power_table, power_to_dict

    result = compute_power(plan, spread=given, pilot=pilot, out=out, power=power, time=time, data_dir=data_dir)
    if csv is not None:
        result.save(csv)
    if as_json:
        print_json(power_to_dict(result))
        return
    print_fitting_table(*power_table(result), DROP_ORDER, "give --csv or --json")
    print_lines(*EXPLANATION)
    for note in result.notes:
        print_note(note)
    if all(contrast.spread is None for contrast in result.contrasts):
        print_note(
            "a spread is needed (how much a difference varies over seeds); three ways: --spread NUMBER; --pilot FOLDER "
            f"with finished runs; or convolab study {study} first, whose folder is then read. For example: "
            f"convolab power {study} {example_spreads(result)}"
        )
    if result.run_seconds is None:
        print_note(
            "hours are left out: add --time, or --pilot with a folder of runs on one thread; "
            "convolab study shows the time left as it trains"
        )
    print_lines("", result.conclusion, *([f"table: {csv}"] if csv else []))


def example_spreads(result: "StudyPower") -> str:
    """The options that give each metric of a study a spread."""
    metrics = {c.contrast.metric: EXAMPLE_SPREADS.get(c.contrast.parsed_metric.unit, 1) for c in result.contrasts}
    if len(metrics) == 1:
        return f"--spread {next(iter(metrics.values()))}"
    return " ".join(f"--spread {metric}={value}" for metric, value in metrics.items())


def parse_spreads(texts: list[str]) -> float | dict[str, float] | None:
    """What --spread says: one number for all metrics, or one for each.

    >>> parse_spreads(["0.7"]), parse_spreads(["final_gap=0.7", "final_train_loss=0.01"])
    (0.7, {'final_gap': 0.7, 'final_train_loss': 0.01})
    """
    values: dict[str, float] = {}
    for text in texts:
        metric, equals, number = text.rpartition("=")
        require(metric or not equals, f"--spread {text}: give a number such as 0.7, or METRIC=0.7")
        require(metric not in values, f"--spread {text}: it is given twice, as {values.get(metric)} already")
        try:
            values[metric] = float(number)
        except ValueError:
            raise LabError(f"--spread {text}: give a number such as 0.7, or METRIC=0.7") from None
    require("" not in values or len(values) == 1, "--spread: give one number for all metrics, or METRIC=VALUE for each")
    return values.get("", values or None)
