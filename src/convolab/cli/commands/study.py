"""Many runs: studies, sweeps, comparisons."""

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from convolab.cli.options import AsJson, DataDir
from convolab.cli.progress import StudyTable
from convolab.cli.terminal import Interrupts, print_json, say
from convolab.core.errors import nearest, need

Seeds = Annotated[
    int | None, typer.Option(min=1, help="How many seeds, from 0 on.", show_default="3, or the study's own")
]
Out = Annotated[
    Path | None, typer.Option(help="The study's folder; the same command goes on there.", show_default="studies/NAME")
]
EngineName = Annotated[str, typer.Option("--engine", help="local: a trial a core; ray: a cluster.")]
Address = Annotated[
    str | None,
    typer.Option(help="Of the Ray cluster; auto: the one this machine belongs to.", show_default="a local one"),
]
Workers = Annotated[int | None, typer.Option(min=1, help="Trials side by side.", show_default="one a core")]
Repair = Annotated[bool, typer.Option("--repair", help="Train damaged runs anew.")]
Export = Annotated[Path | None, typer.Option(help="A folder for every figure as SVG and PNG and every table as CSV.")]


def study(
    what: Annotated[str, typer.Argument(help="coursework, or a study's file (TOML).")],
    data: Annotated[
        str | None,
        typer.Option(help="A picture set's name, or folder:PATH.", show_default="digits, or the study's own"),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Of the coursework: quick or full.", show_default="quick; of digits full")
    ] = None,
    section: Annotated[list[str] | None, typer.Option(help="Only this section. May be repeated.")] = None,
    seeds: Seeds = None,
    data_dir: DataDir = None,
    engine: EngineName = "local",
    address: Address = None,
    workers: Workers = None,
    out: Out = None,
    repair: Repair = False,
    export: Export = None,
    as_json: AsJson = False,
) -> None:
    """Train the same recipe under named changes and several seeds, and conclude no more than the runs carry."""
    need(budget in (None, "quick", "full"), f"no budget '{budget}': give quick or full")
    chosen = choose_engine(engine, address, workers)
    from convolab.studies.coursework import coursework
    from convolab.studies.study import Study

    numbered = None if seeds is None else tuple(range(seeds))
    if what == "coursework":
        planned = coursework(data or "digits", budget, seeds=numbered or (0, 1, 2), only=tuple(section or ()))
    else:
        need(Path(what).is_file(), f"there is no study '{what}': give coursework, or a study's file (TOML)")
        need(budget is None, "a study's file has no budgets: set data.limit and training.epochs in it")
        planned = Study.read(what)
        values = planned.model_dump(exclude_unset=True)
        if data:
            values["recipe"] = {
                **values.get("recipe", {}),
                "data": {**values.get("recipe", {}).get("data", {}), "name": data},
            }
        if numbered:
            values["seeds"] = numbered
        planned = Study.parse(values).only(section or list(planned.sections))
    run_study(planned, out or Path("studies") / planned.name, data_dir, chosen, repair, export, as_json)


def sweep(
    recipe: Annotated[str, typer.Argument(help="A recipe's file (TOML), or a network's name.")],
    grid: Annotated[
        list[str], typer.Argument(help="Keys and their values, as optimizer.lr=0.1,0.01; several keys are combined.")
    ],
    data: Annotated[
        str | None, typer.Option(help="A picture set's name, or folder:PATH.", show_default="the recipe's")
    ] = None,
    seeds: Seeds = None,
    data_dir: DataDir = None,
    engine: EngineName = "local",
    address: Address = None,
    workers: Workers = None,
    out: Out = None,
    repair: Repair = False,
    export: Export = None,
    as_json: AsJson = False,
) -> None:
    """Try values of some recipe keys, each with several seeds; every arm is held against the first."""
    chosen = choose_engine(engine, address, workers)
    from convolab.studies.study import Study
    from convolab.training.recipe import Recipe

    base = Recipe.read(recipe) if recipe.endswith(".toml") else Recipe.parse({"model": {"name": recipe}})
    base = base.changed({"data.name": data} if data else {})
    values = dict(parse_values(text) for text in grid)
    need(len(values) == len(grid), "a key stands twice: give all its values at once, as optimizer.lr=0.1,0.01")
    section: dict[str, Any] = {"grid": values, "curves": ["train_loss", "validation_loss", "validation_accuracy"]}
    name = f"{Path(recipe).stem}-{'-'.join(key.rpartition('.')[2] for key in values)}-{Path(base.data.name).name}"
    whole = {
        "name": name,
        "title": f"{recipe}: {', '.join(values)}",
        "seeds": tuple(range(seeds or 3)),
        "recipe": base.values(),
    }
    first, *others = Study.parse({**whole, "sections": {"sweep": section}}).sections["sweep"].named_arms
    metrics = ("best_validation_accuracy", "final_train_loss") if base.data.validation else ("final_train_loss",)
    section["contrasts"] = [{"arm": arm, "against": first, "metric": metric} for metric in metrics for arm in others]
    planned = Study.parse({**whole, "sections": {"sweep": section}})
    run_study(planned, out or Path("studies") / name, data_dir, chosen, repair, export, as_json)


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Folders of runs, or STUDY:ARM of a study's folder; the others are held against the first."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("comparison.html"),
    export: Export = None,
    as_json: AsJson = False,
) -> None:
    """Set runs side by side; runs that differ only in their seed are one arm."""
    from convolab.studies.compare import compare as compared
    from convolab.studies.compare import find_arm

    report(compared([run for place in runs for run in find_arm(place)]), out, export, as_json)


def choose_engine(name: str, address: str | None, workers: int | None) -> Any:
    """The engine of that name. Raises LabError for another."""
    need(name in ("local", "ray"), f"no engine '{name}': {nearest(name, ('local', 'ray'))}")
    need(name == "ray" or address is None, "--address is a Ray cluster's: give --engine ray too")
    if name == "ray":
        from convolab.studies.ray_executor import RayEngine

        return RayEngine(address, workers)
    from convolab.studies.forkserver import fork_server

    fork_server()  # imports torch while this process does
    from convolab.studies.executor import LocalEngine

    return LocalEngine(workers) if workers else LocalEngine()


def parse_values(text: str) -> tuple[str, tuple[Any, ...]]:
    """`section.key=a,b,c`: the key and its values, read as TOML, and as plain strings where they are none.

    >>> parse_values("optimizer.lr=0.1,0.01"), parse_values("model.channels=[8],[8,16]"), parse_values("schedule.name=step,cosine")
    (('optimizer.lr', (0.1, 0.01)), ('model.channels', ([8], [8, 16])), ('schedule.name', ('step', 'cosine')))
    """
    key, equals, values = text.partition("=")
    need(equals and key.strip() and values.strip(), f"'{text}' sweeps nothing: write section.key=value,value")
    try:
        return key.strip(), tuple(tomllib.loads(f"values = [{values}]")["values"])
    except tomllib.TOMLDecodeError:
        return key.strip(), tuple(value.strip() for value in values.split(","))


def run_study(
    planned: Any, folder: Path, data_dir: Path | None, engine: Any, repair: bool, export: Path | None, as_json: bool
) -> None:
    """Conduct a study and show what came of it; exit 1 if a trial failed."""
    from convolab.studies.runner import conduct

    with StudyTable(planned) as table, Interrupts("after the steps under way") as interrupts:
        result = conduct(
            planned,
            folder,
            data_dir=data_dir,
            engine=engine,
            repair=repair,
            hear=table.hear,
            plan=table.plan,
            say=say,
            stop=interrupts.stop,
        )
    report(result, folder / "report.html", export, as_json)
    if any(outcome.status == "failed" for outcome in result.outcomes.values()):
        raise typer.Exit(1)


def report(result: Any, page: Path, export: Path | None, as_json: bool) -> None:
    """Write the report, and say in words what each section came to; intervals and single contrasts are in the report."""
    from convolab.core.files import write_json
    from convolab.reports.export import export as write_export
    from convolab.reports.studies import write_report
    from convolab.studies.serialize import facts

    write_report(result, page)
    if export:
        write_export(result, export)
    found = facts(result) | {"report": str(page)}
    write_json(page.with_suffix(".json"), found)
    if as_json:
        print_json(found)
        return
    for section in result.sections:
        print(f"\n{section.name}: {section.section.title}" if section.section.title else f"\n{section.name}")
        print(f"  {section.comment}")
    if result.best:
        print(f"\nbest-on-test: {result.best.comment}")
    for note in result.notes:
        say(note)
    done = sum(outcome.status in ("finished", "diverged") for outcome in result.outcomes.values())
    print(
        f"\n{done} of {len(result.outcomes)} runs; report: {page}"
        + (f"; figures and tables: {export}" if export else "")
    )
