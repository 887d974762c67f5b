"""Whether the cells that the homework gave are as it gave them, and whether a notebook runs code that it does not hold."""

import ast
import builtins
import re
import sys
from collections.abc import Iterator, Mapping, Sequence

from convolab.core.environment import package_version
from convolab.core.errors import LabError
from convolab.core.text import truncate_list
from convolab.handin.homework import Homework, NotebookInfo
from convolab.handin.notebook_file import HandedInCell, one_line
from convolab.handin.notebooks import NotebookCell, build_notebook, read_source
from convolab.handin.verify.signs import Sign, as_note

USUAL_PACKAGES = frozenset(
    ("convolab", "torch", "torchvision", "numpy", "scipy", "sklearn", "skimage", "PIL", "matplotlib", "seaborn", "pandas", "altair", "IPython", "ipywidgets", "tqdm", "timm", "cv2")
)  # fmt: skip
RUNS_TEXT = ("exec", "eval", "compile", "__import__")  # functions of Python that run a text or import by name
RUNS_FILES = (
    "importlib.import_module", "importlib.util.spec_from_file_location", "runpy.run_path", "runpy.run_module",
    "pickle.load", "pickle.loads", "joblib.load", "torch.hub.load", "torch.jit.load", "os.system",
    "subprocess.run", "subprocess.Popen", "subprocess.check_output", "get_ipython",
)  # fmt: skip
LOADS_WEIGHTS = "torch.load"  # often of one's own
NAME_PARTS = 8  # that are looked at of a function's name; importlib.util.spec_from_file_location has three
MAGIC = re.compile(r"(?m)^[ \t]*(?:!|%{1,2}(?:run|load|loadpy|macro|store|sx|system|bash|sh|script|writefile)\b).*$")
INSTALLS = re.compile(r"\s*[!%]\s*(?:pip|uv pip|conda) install\b")
CHANGEABLE = re.compile(r"(?m)^(?:DATA|DATA_DIR|FAST|CONVOLAB|IMAGE_ADDRESS|OWN_IMAGES|LARGE_IMAGE)\b.*$")


def given_cell_signs(
    homework: Homework, info: NotebookInfo, data: str, cells: Sequence[HandedInCell], version: str
) -> Iterator[Sign]:
    """Checks, figures and other given cells that differ from those of the homework.

    Another version of convolab than this one may have given other cells: then a difference is a note.
    """
    is_this_version = version == package_version("convolab")
    try:
        given = {
            cell.name: cell for cell in build_notebook(homework, info.name, "student", data or homework.datasets[0])
        }
    except (LabError, ValueError) as error:
        yield as_note(info.name, f"the given cells are not compared: {error}")
        return
    handed_in = {cell.name: cell for cell in reversed(cells)}
    for name, cell in given.items():
        own = handed_in.get(name)
        if cell.type != "code" or cell.tag in ("gap", "comment") or own is None:
            continue
        if comparable(own.source) != comparable(cell.text):
            what = {"check": "the check", "figure": "the cell of the figure"}.get(cell.tag, "a given cell")
            make = Sign if cell.tag and is_this_version else as_note
            other = "" if is_this_version else f", packed by convolab {one_line(version) or 'of an unknown version'}"
            yield make(f"{info.name}, {name}", f"{what} is not that of the homework{other}: compare them")
    extra = [cell.name or "a cell without a name" for cell in cells if cell.type == "code" and cell.name not in given]
    if extra:
        yield as_note(info.name, f"cells of their own: {truncate_list(extra)}")


def comparable(source: str) -> str:
    """A cell's source without what a person is asked to change, and without spaces at the ends of lines."""
    return "\n".join(line.rstrip() for line in CHANGEABLE.sub("", source).strip().splitlines())


def hidden_code_signs(
    homework: Homework, info: NotebookInfo, cells: Sequence[HandedInCell], own_files: Mapping[str, bytes]
) -> Iterator[Sign]:
    """Imports of modules that nobody else has, and code that is run from texts and files."""
    given = given_sources(homework, info)
    known = USUAL_PACKAGES | sys.stdlib_module_names | set(info.imports) | imported_names(given)
    for cell in cells:
        if cell.type != "code" or comparable(cell.source) in given:
            continue
        place = f"{info.name}, {cell.name or 'a cell without a name'}"
        for magic in MAGIC.findall(cell.source):
            make = as_note if INSTALLS.match(magic) else Sign
            yield make(place, f"it runs what the notebook does not hold: `{magic.strip()[:80]}`")
        try:
            tree = ast.parse(MAGIC.sub("pass", cell.source))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        foreign = sorted({name for node in ast.walk(tree) for name in module_names(node)} - known)
        if foreign:
            where = "" if any(f"{name}.py" in own_files for name in foreign) else ", which is not in the hand-in"
            yield Sign(place, f"it imports {truncate_list(foreign)}{where}: code that the notebook does not show")
        calls = sorted(
            {name for node in ast.walk(tree) if isinstance(node, ast.Call) for name in [dotted_name(node.func)]}
        )
        if LOADS_WEIGHTS in calls:
            yield as_note(place, f"it calls {LOADS_WEIGHTS}: weights or data that the notebook does not show")
        hidden = [name for name in calls if is_hiding(name)]
        if hidden:
            yield Sign(place, f"it calls {truncate_list(hidden)}: code or data that the notebook does not show")
        if any(
            isinstance(node, ast.Attribute) and dotted_name(node) in ("sys.path", "sys.modules")
            for node in ast.walk(tree)
        ):
            yield Sign(place, "it changes where modules are imported from")


def is_hiding(name: str) -> bool:
    """Whether a call runs or loads what is not to be seen in its cell."""
    last = name.rpartition("builtins.")[2]
    return (last in RUNS_TEXT and hasattr(builtins, last)) or name in RUNS_FILES


def given_sources(homework: Homework, info: NotebookInfo) -> set[str]:
    """The given cells of a notebook for each dataset, to be compared."""
    try:
        built: list[NotebookCell] = [
            cell for data in homework.datasets for cell in build_notebook(homework, info.name, "student", data)
        ]
    except LabError:
        return set()
    return {comparable(cell.text) for cell in built if cell.type == "code"}


def given_names(homework: Homework, info: NotebookInfo) -> set[str]:
    """The cells of a notebook that the homework gives as they are; none where its source is not at hand."""
    try:
        return {cell.name for cell in read_source(info.name, homework) if cell.tag not in ("gap", "comment")}
    except LabError:
        return set()


def imported_names(sources: set[str]) -> set[str]:
    """The packages that some cells import."""
    names: set[str] = set()
    for source in sources:
        try:
            names |= {name for node in ast.walk(ast.parse(source)) for name in module_names(node)}
        except (SyntaxError, ValueError):
            continue
    return names


def module_names(node: ast.AST) -> list[str]:
    """The packages that a statement imports; a relative import is that of a module called `.`."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [(node.module or "").partition(".")[0] if not node.level else "."]
    return []


def dotted_name(node: ast.AST) -> str:
    """The name of a function as it is written, such as torch.load; of a longer one its last parts, empty for what has none."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute) and len(parts) < NAME_PARTS:
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id if isinstance(node, ast.Name) else ""]))
