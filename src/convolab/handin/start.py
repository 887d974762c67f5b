"""Lay out the homework in a folder: notebooks, the file for question 1, and what to do."""

from contextlib import nullcontext
from pathlib import Path

from convolab.core.errors import LabError, errors_name, require, suggest
from convolab.core.escape import shell_word
from convolab.core.files import read_text, require_writable, write_text
from convolab.handin.homework import FORMS, MAX_SOURCE_BYTES, Form, Homework
from convolab.handin.homework_rules import HOMEWORK_FILE, PLAIN_NAME, README, own_code_names
from convolab.handin.notebooks import build_notebook, notebook_json, require_cells
from convolab.handin.question1 import answers_template, theory_options


def start_homework(homework: Homework, folder: Path, form: str = "student", data: str = "digits") -> list[Path]:
    """Write the homework into a folder, new or with other files in it, and return the files.

    A homework other than the course's leaves a copy of its file there, so that `check` and `pack` know it.

    Raises LabError, before anything is written, for an unknown form or dataset, a folder that cannot be written, and
    for a file that is there already.
    """
    kind = find_form(form)
    with errors_name(homework.file) if homework.file else nullcontext():
        texts = homework_files(homework, kind, data, folder)
    require(not folder.exists() or folder.is_dir(), f"{folder} is a file: choose a folder")
    existing = [name for name in texts if (folder / name).exists() or (folder / name).is_symlink()]
    require(
        not existing, f"{folder} has {', '.join(existing)} already, and nothing is overwritten: choose a new folder"
    )
    require_writable(folder)
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def find_form(name: str) -> Form:
    """A form by its name. Raises LabError for an unknown one."""
    for form in FORMS:
        if form == name:
            return form
    raise LabError(f"there is no form '{name}': {suggest(name, FORMS)}")


def homework_files(homework: Homework, form: Form, data: str, folder: Path) -> dict[str, str]:
    """The text of each file by its name."""
    require_cells(homework)
    notebooks = {
        f"{notebook.name}.ipynb": notebook_json(build_notebook(homework, notebook.name, form, data))
        for notebook in homework.notebooks
    }
    answers = {homework.question1.answers: answers_template(homework)}
    copies = (
        {}
        if homework.file is None
        else {**code_of_recipes(homework, homework.file.parent), HOMEWORK_FILE: homework.text}
    )
    return {**notebooks, **answers, **copies, README: what_to_do(homework, folder)}


def code_of_recipes(homework: Homework, folder: Path) -> dict[str, str]:
    """The files of code that the recipes name, which lie beside the homework's: the runs look for them beside the notebooks."""
    names = [name.rpartition(":")[0] for recipe in homework.recipes.values() for name in own_code_names(recipe)]
    files = sorted({name for name in names if name.endswith(".py")})
    for name in files:
        require(PLAIN_NAME.fullmatch(name), f"recipes: {name}: the file must lie beside the homework's")
    return {name: read_text(folder / name, MAX_SOURCE_BYTES) for name in files}


def what_to_do(homework: Homework, folder: Path) -> str:
    """The text of the README."""
    name = shell_word(folder.absolute().name)
    answers, pdf = shell_word(homework.question1.answers), shell_word(homework.question1.pdf)
    notebooks = "\n".join(f"- `{notebook.name}.ipynb`: {notebook.title}" for notebook in homework.notebooks)
    digits = " The bundled digits take minutes." if "digits" in homework.datasets else ""
    return f"""# {homework.title}

- `{homework.question1.answers}`: question 1, {homework.question1.title}
{notebooks}

1. Answer question 1 in its file, or put a PDF called `{homework.question1.pdf}` here. From the file,
   `convolab theory --answers {answers}{theory_options(homework)} --name "Your Name" --pdf {pdf}` makes one.
2. Open the notebooks with Jupyter, VS Code or Colab. Fill in each `# TODO`, in place of the `...` below it. The cell
   after it checks your code and says what is still wrong. Write your own comments.
3. `DATA` at the top of a notebook chooses the images: {" or ".join(homework.datasets)}.{digits}
4. Restart the kernel, run all cells in order, and save.
5. In the folder above this one, `convolab handin check {name}` lists what is still open.
6. `convolab handin pack {name} --name "Your Name" --out handin.zip` makes the file that you hand in.
"""
