"""Write the homework's notebooks from their source: `make notebooks`. With --execute, run the solutions and store them.

student/ is the form to fill in, solution/ the form with the solution; each notebook is there as .py and as .ipynb. A
stored solution whose code is that of the source keeps its outputs; a check that was changed has none until it is run.
Running takes minutes on digits, and longer on cifar10, whose images are looked for in $CONVOLAB_DATA.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from convolab.core.files import write_text
from convolab.handin.homework import FORMS, load_homework
from convolab.handin.notebooks import NotebookCell, build_notebook, notebook_json, percent_text

FOLDER = Path(__file__).resolve().parent
SOLUTION_DATA = "cifar10"  # of the stored solutions


def write_notebooks() -> None:
    """Write all forms; a stored solution with the same cells stays as it is."""
    homework = load_homework()
    for notebook in homework.notebooks:
        for form in FORMS:
            cells = build_notebook(homework, notebook.name, form, SOLUTION_DATA if form == "solution" else "digits")
            stem = FOLDER / form / notebook.name
            write_text(stem.with_suffix(".py"), percent_text(cells))
            if not has_these_cells(stem.with_suffix(".ipynb"), cells):
                write_text(stem.with_suffix(".ipynb"), with_stored_outputs(stem.with_suffix(".ipynb"), cells))


def with_stored_outputs(path: Path, cells: Sequence[NotebookCell]) -> str:
    """The text of a notebook; the outputs stored in a file are kept if only texts and checks differ there.

    A check that differs has no output then, since it was not run.
    """
    content = json.loads(notebook_json(cells))
    stored = {cell.get("id"): cell for cell in json.loads(path.read_text())["cells"]} if path.exists() else {}
    own_code = {cell.name: cell.text for cell in cells if cell.type == "code" and cell.tag != "check"}
    if any("".join(stored[name]["source"]) != text for name, text in own_code.items() if name in stored) or (
        own_code.keys() - stored.keys()
    ):
        return notebook_json(cells)
    for cell in content["cells"]:
        old = stored.get(cell["id"], {})
        if cell["cell_type"] == "code" and "".join(old.get("source", "")) == "".join(cell["source"]):
            cell.update(execution_count=old.get("execution_count"), outputs=old.get("outputs", []))
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def has_these_cells(path: Path, cells: Sequence[NotebookCell]) -> bool:
    """Whether a notebook has exactly these cells, whatever their outputs."""
    if not path.exists():
        return False
    stored = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text())["cells"]]
    return stored == [(cell.type, cell.text) for cell in cells]


def execute(name: str) -> None:
    """Run a stored solution from its first cell to its last, and store its outputs. Its runs are thrown away."""
    import nbformat
    from nbclient import NotebookClient

    path = FOLDER / "solution" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=None,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    write_text(path, nbformat.writes(notebook) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--execute", nargs="*", metavar="NAME", help="notebooks to run; without a name, all")
    wanted = parser.parse_args().execute
    write_notebooks()
    for name in [notebook.name for notebook in load_homework().notebooks] if wanted == [] else wanted or []:
        execute(name)


if __name__ == "__main__":
    main()
