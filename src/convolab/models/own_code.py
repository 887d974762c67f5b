"""Code of a person's own: the file that defines a network, the modules beside it that it imports, and their bytes.

A run keeps a copy of these files in its `code/` folder and uses only that. Code runs if every file of it is trusted
(`core.trust`); the bytes that were checked are the bytes that run, from memory. An installed package is imported as
ever, if its module has the bytes that were trusted.
"""

import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import CodeType, ModuleType
from typing import Any

import torch
from typing_extensions import TypedDict  # typing has what pydantic needs from Python 3.12 on

from convolab.core.errors import LabError, describe_exception, is_memory_error, require, suggest
from convolab.core.files import require_no_link, sha256_of, size_of_file, write_bytes
from convolab.core.trust import require_trusted, trust, trust_here

MAX_FILES = 100  # of one network's code
MAX_SOURCE_BYTES = 1_000_000  # of one of its files
INSTALLED = {  # where packages are installed: also a person's own, and those of the Python below an environment
    *(Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")),
    *(Path(path) for path in sys.path if Path(path).name in ("site-packages", "dist-packages")),
    Path(__file__).parents[2],
}


class CodeRecord(TypedDict):
    """What a run's summary and its weights record of somebody's own code."""

    entry: str  # the file that defines the part
    module: str
    is_installed: bool
    sha256: dict[str, str]  # of every file, by name


@dataclass(frozen=True)
class OwnCode:
    """The source of a network: the file that defines it and the modules beside it that it imports.

    Attributes:
        root: the folder that the names of the files are relative to.
        entry: the file that defines the network, such as "net.py" or "package/net.py".
        module: the entry's own name if the network was named package.module:Name, else nothing.
        files: the bytes of every file, by name; of an installed package only the entry's.
    """

    root: Path
    entry: str
    module: str
    files: Mapping[str, bytes]

    @property
    def is_installed(self) -> bool:
        """Whether it is a module of an installed package, which is imported from there."""
        return bool(self.module) and self.root in INSTALLED

    @property
    def sha256(self) -> dict[str, str]:
        """The SHA-256 of every file, by name."""
        return {name: sha256_of(content) for name, content in sorted(self.files.items())}

    @cached_property
    def digest(self) -> str:
        """A SHA-256 of all of it."""
        return sha256_of(repr((self.entry, sorted(self.sha256.items()))).encode())

    def to_record(self) -> CodeRecord:
        """What a run's summary and its weights record of it."""
        return {
            "entry": self.entry, "module": self.module, "is_installed": self.is_installed, "sha256": self.sha256,
        }  # fmt: skip

    def write(self, folder: Path) -> None:
        """Write a copy of every file below a folder."""
        for name, content in self.files.items():
            write_bytes(folder / name, content)

    def trust(self) -> None:
        """Record that this code may run: for what a person names in a command or a call."""
        trust(self.sha256.values())

    def load(self, attribute: str) -> Any:  # noqa: ANN401 (whatever a file holds)
        """A class or function of the entry, imported once for each content.

        Raises LabError, before anything is imported, unless every file is trusted; and if the import fails.
        """
        require_trusted((self.root / name, digest) for name, digest in self.sha256.items())
        module = load_module(self)
        public_names = [name for name in vars(module) if not name.startswith("_")]
        require(hasattr(module, attribute), f"{self.entry} has no {attribute}: {suggest(attribute, public_names, 10)}")
        return getattr(module, attribute)


_PROVIDED: dict[str, OwnCode] = {}  # by name: code that came to this process as bytes, from another machine


def provide_code(name: str, code: OwnCode) -> None:
    """Let a network's name stand for code that another process of this user sent, and let that code run here."""
    trust_here(code.sha256.values())
    _PROVIDED[name] = code


def is_own_code(name: str) -> bool:
    """Whether a network's name is that of somebody's code, and not of a network of convolab or a library."""
    return ":" in name


def find_own_code(name: str) -> OwnCode:
    """The code that a network's name stands for; it is read, and nothing of it is imported.

    Args:
        name: `file.py:Name`, the file relative to the current folder, or `package.module:Name`.

    Raises LabError if there is no such file, and if it is too large to be kept with every run.
    """
    if name in _PROVIDED:
        return _PROVIDED[name]
    source, _, attribute = name.rpartition(":")
    is_relative = source.startswith(".") and not source.endswith(".py")
    require(
        source and attribute and not is_relative,
        f"'{name}' is not the name of your own code: write file.py:Name or package.module:Name",
    )
    if source.endswith(".py"):
        path = Path(source).absolute()
        require(
            path.is_file(),
            f"no file {source} to find {attribute} in: give its path relative to the current directory",
        )
        return read_code(path.parent, path.name, "")
    root, entry = find_module_file(source)
    return read_code(root, entry, source)


def find_module_file(module: str) -> tuple[Path, str]:
    """The folder that holds the package of `package.module`, and the module's file in it; nothing is imported."""
    top, *rest = module.split(".")
    importlib.invalidate_caches()
    spec = importlib.machinery.PathFinder.find_spec(top, [*sys.path, ""])
    if spec and spec.origin and spec.origin.endswith(".py") and top not in sys.stdlib_module_names:
        origin = Path(spec.origin).absolute()
        root = origin.parent.parent if origin.name == "__init__.py" else origin.parent
        if entry := module_file(root, [top, *rest]):
            return root, entry
    raise LabError(f"there is no Python file of a network for '{module}': write file.py:Name or package.module:Name")


def module_file(root: Path, parts: Sequence[str]) -> str | None:
    """The file of a module below a folder: its name, or None."""
    stem = PurePosixPath(*parts)
    for name in (f"{stem}.py", f"{stem}/__init__.py"):
        if (root / name).is_file():
            return name
    return None


def read_code(root: Path, entry: str, module: str) -> OwnCode:
    """A file and, from what the source says, all modules beside it that it imports, directly or not."""
    if module and root in INSTALLED:
        return OwnCode(root, entry, module, {entry: read_module_source(root / entry)})
    files: dict[str, bytes] = {}
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name in files:
            continue
        require(
            len(files) < MAX_FILES,
            f"{root / entry} imports more than {MAX_FILES} files, which every run would keep: name a smaller file",
        )
        files[name] = read_module_source(root / name)
        packages = [str(parent / "__init__.py") for parent in PurePosixPath(name).parents if str(parent) != "."]
        waiting += [package for package in packages if (root / package).is_file()]
        waiting += imported_files(root, name, parse_source(root / name, files[name]))
    return OwnCode(root, entry, module, files)


def read_module_source(path: Path) -> bytes:
    try:
        require(
            size_of_file(path) <= MAX_SOURCE_BYTES,
            f"{path} has more than {MAX_SOURCE_BYTES:,} bytes: this is not source code",
        )
        return path.read_bytes()
    except OSError as error:
        raise LabError(f"cannot read {path} ({error.strerror})") from error


def parse_source(path: Path, content: bytes) -> ast.Module:
    """The syntax tree of a file. Raises LabError, naming the line, if it is not Python."""
    try:
        return ast.parse(content)
    except SyntaxError as error:
        raise LabError(f"{path}, line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise LabError(f"{path} is not Python: {error}") from error


def imported_files(root: Path, name: str, tree: ast.AST) -> Iterator[str]:
    """The files beside a file that the import statements in a part of it name, wherever they stand."""
    package = PurePosixPath(name).parent.parts
    for node in ast.walk(tree):
        candidates: list[list[str]] = []
        if isinstance(node, ast.Import):
            candidates = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            candidates = [base, *([*base, alias.name] for alias in node.names)]
        for parts in candidates:
            # The standard library's modules have precedence, as they have in every script.
            if parts and parts[0] not in sys.stdlib_module_names and (found := module_file(root, parts)):
                yield found


def require_imports_at_the_top(code: OwnCode) -> None:
    """Raise LabError for an import in a function that names a file beside it: it would run once the copies are gone."""
    if code.is_installed:
        return
    for name, content in code.files.items():
        for node in ast.walk(parse_source(code.root / name, content)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            found = next(imported_files(code.root, name, node), None)
            require(
                found is None,
                f"{code.root / name} imports {found} in the function {node.name}, which would not find the copy that a run "
                "keeps of it: import it at the top of the file",
            )


def code_of_record(folder: Path, record: CodeRecord) -> OwnCode:
    """The copy of a network's code in a run's folder.

    Raises LabError if a file is missing, was changed, or would lie outside the folder, also by a link.
    """
    digests = record["sha256"]
    require(record["entry"] in digests, f"{folder} is damaged: its run does not say which file defines the network")
    files: dict[str, bytes] = {}
    if record["is_installed"]:
        code = find_own_code(f"{record['module']}:network")
        require(
            code.is_installed and code.sha256 == digests,
            f"{code.root / code.entry} is not the file that this run began with: install the package's version of then",
        )
        return code
    for name, digest in digests.items():
        parts = PurePosixPath(name).parts
        require(
            parts and ".." not in parts and not name.startswith("/") and "\\" not in name and "\0" not in name,
            f"{folder} is damaged: {name!r} is not a file in it",
        )
        for parent in (folder, *(folder.joinpath(*parts[:end]) for end in range(1, len(parts)))):
            require_no_link(parent)
        files[name] = read_module_source(folder / name)
        require(
            sha256_of(files[name]) == digest,
            f"{folder / name} was changed since the run began: restore it, or start a new run",
        )
    return OwnCode(folder, record["entry"], record["module"], files)


class OwnCodeFinder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports modules from the checked bytes of one network's code, and nothing else that lies in its folder."""

    def __init__(self, code: OwnCode, entry_name: str) -> None:
        self.code = code
        self.files = {".".join(module_parts(file)): file for file in code.files} | {entry_name: code.entry}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self.files:
            return None
        origin = str(self.code.root / self.files[fullname])
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=origin, is_package=self.is_package(fullname))
        spec.has_location = True
        return spec

    def get_code(self, fullname: str) -> CodeType:
        file = self.files[fullname]
        return compile(self.code.files[file], str(self.code.root / file), "exec", dont_inherit=True)

    def get_source(self, fullname: str) -> str:
        return importlib.util.decode_source(self.code.files[self.files[fullname]])

    def is_package(self, fullname: str) -> bool:
        return PurePosixPath(self.files[fullname]).name == "__init__.py"


def module_parts(file: str) -> tuple[str, ...]:
    """The parts of the name of the module in a file.

    >>> module_parts("package/net.py"), module_parts("package/__init__.py")
    (('package', 'net'), ('package',))
    """
    path = PurePosixPath(file)
    return path.parent.parts if path.name == "__init__.py" else path.with_suffix("").parts


_LOADED: dict[str, ModuleType] = {}  # the entry of each code, by the code's digest


def load_module(code: OwnCode) -> ModuleType:
    """Import the entry of a network's code from its bytes, once for each content.

    Raises LabError if the code cannot be imported, whatever it does.
    """
    if code.digest not in _LOADED:
        require_imports_at_the_top(code)
        stem = PurePosixPath(code.entry).stem.replace(".", "_")  # a dot would be a package's
        name = code.module or f"convolab_own_{code.digest[:12]}_{stem}"
        only_its_files = nullcontext() if code.is_installed else only_this_code(OwnCodeFinder(code, name))
        with own_code_errors(f"cannot import {code.root / code.entry}"), only_its_files:
            module = importlib.import_module(name)
        _LOADED[code.digest] = module
        sys.modules.setdefault(name, module)  # where a dataclass looks for the names of its types
    return _LOADED[code.digest]


@contextmanager
def only_this_code(finder: OwnCodeFinder) -> Iterator[None]:
    """Inside the block, modules with the names of one network's code are that code's; afterwards all is as before.

    So two versions of one file, or two files with helpers of the same name, stay apart.
    """
    hidden = {name: sys.modules.pop(name) for name in finder.files if name in sys.modules}
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in finder.files:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)


@contextmanager
def own_code_errors(failure: str, advice: str = "") -> Iterator[None]:
    """Whatever somebody else's code raises inside the block, also an exit, is a LabError in one line: FAILURE: reason.

    An advice stands at its end. A change of what torch keeps for the whole process is a LabError too; it is undone. Too
    little memory stays the error that it is.
    """
    gradients, dtype = torch.is_grad_enabled(), torch.get_default_dtype()
    try:
        yield
        is_changed = (torch.is_grad_enabled(), torch.get_default_dtype()) != (gradients, dtype)
    except (LabError, KeyboardInterrupt):
        raise
    except BaseException as error:
        if is_memory_error(error):
            raise
        raise LabError(f"{failure}: {describe_exception(error)}{advice}") from error
    finally:
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(dtype)
    require(
        not is_changed,
        f"{failure}: it changes a setting of the whole process (torch.set_grad_enabled, torch.set_default_dtype): use "
        "torch.no_grad() around what needs no gradient, and name the dtype of a tensor",
    )
