"""Whether the runs in the evidence are those that the homework asks for: its recipes, with its seeds."""

from collections.abc import Iterator, Mapping, Sequence

from convolab.core.text import truncate_list
from convolab.handin.homework import Homework, NotebookInfo, RecipeOverrides
from convolab.handin.notebook_file import HandedInCell, printed_settings
from convolab.handin.verify.evidence import RunEvidence
from convolab.handin.verify.signs import Sign, as_note


def seed_signs(
    homework: Homework, notebooks: Mapping[str, Sequence[HandedInCell]], runs: Sequence[RunEvidence]
) -> Iterator[Sign]:
    """Runs of a notebook's recipe with other seeds than 0, 1, ..., and runs of no recipe of the homework."""
    known: set[str] = set()
    for info in homework.notebooks:
        if not info.recipe:
            continue
        own = [run for run in runs if has_recipe(run, homework.recipes[info.recipe])]
        known |= {run.name for run in own}
        wanted = set(range(max(info.num_runs.values(), default=0)))
        others = sorted({run.seed for run in own if run.seed is not None} - wanted)
        if others:
            yield Sign(
                "evidence",
                f"runs of {info.name} have the seeds {seed_list(others)}; the homework's are {seed_list(wanted)}",
            )
        missing = sorted(set(range(num_wanted(info, notebooks.get(info.name, ())))) - {run.seed for run in own})
        if own and missing:
            yield Sign("evidence", f"runs of {info.name} with the seeds {seed_list(missing)} are missing")
    other_runs = [run.name for run in runs if run.recipe is not None and run.name not in known]
    if other_runs:
        yield as_note("evidence", f"runs of no recipe of the homework: {truncate_list(other_runs)}")


def num_wanted(info: NotebookInfo, cells: Sequence[HandedInCell]) -> int:
    """How many runs a notebook leaves, by the dataset and the form that it printed; 0 if it does not say."""
    printed = printed_settings(cells)
    return info.num_runs.get(printed.get("data", "") + ("-fast" if printed.get("fast") == "True" else ""), 0)


def has_recipe(run: RunEvidence, overrides: RecipeOverrides) -> bool:
    """Whether a run's recipe has all values of a recipe of the homework."""
    if run.recipe is None:
        return False
    values = run.recipe.to_dict()
    return all(
        same_value(values.get(key.partition(".")[0], {}).get(key.partition(".")[2]), value)
        for key, value in overrides.items()
    )


def same_value(own: object, wanted: object) -> bool:
    """Whether two values of a recipe are equal; a list is one whatever it is stored in."""
    return (
        list(own) == list(wanted)
        if isinstance(own, list | tuple) and isinstance(wanted, list | tuple)
        else own == wanted
    )


def seed_list(seeds: Sequence[int] | set[int]) -> str:
    return truncate_list([str(seed) for seed in sorted(seeds)], 8)
