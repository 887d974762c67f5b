"""Networks of a person's own: their files are found without an import, kept, trusted, and run from the kept bytes."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from convolab.core import trust as trust_module
from convolab.core.errors import LabError
from convolab.models import own_code
from convolab.models.own_code import code_of_record, find_own_code
from convolab.models.registry import build, build_by_name, resolve_options

NET = """
from __future__ import annotations
from dataclasses import dataclass
from pathlib import Path
import torch
from torch import nn
from helper import WIDTH

Path("RAN").touch()


@dataclass
class Config:
    width: int = WIDTH


class Net(nn.Sequential):
    def __init__(self, shape, classes, bias: bool = True):
        inputs = shape[0] * shape[1] * shape[2]
        super().__init__(nn.Flatten(), nn.Linear(inputs, Config().width, bias), nn.Linear(WIDTH, classes))


def make(shape, classes):
    return Net(shape, classes)


def not_a_network(shape, classes):
    return "a string"


class Other:
    def __init__(self, shape, classes):
        Path("CALLED").touch()
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the network of a user who has trusted nothing yet."""
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(trust_module, "_TRUSTED_HERE", set())
    monkeypatch.setattr(own_code, "_LOADED", {})
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "net.py").write_text(NET)
    (folder / "helper.py").write_text("WIDTH = 5\n")
    (folder / "unrelated.py").write_text("raise SystemExit\n")
    monkeypatch.chdir(folder)
    return folder


def error_line(function, *args) -> str:
    with pytest.raises(LabError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_code_of_a_network_is_its_file_and_the_modules_beside_it_that_it_imports(own_folder: Path) -> None:
    code = find_own_code("net.py:Net")
    assert (code.root, code.entry, code.module) == (own_folder, "net.py", "")
    assert code.files == {name: (own_folder / name).read_bytes() for name in ("net.py", "helper.py")}
    assert not Path("RAN").exists()


@pytest.mark.parametrize(
    "statement", ["import sub.deep", "from sub import deep", "from sub.deep import X", "def f():\n    import sub.deep"]
)
def test_packages_are_followed_however_they_are_imported(own_folder: Path, statement: str) -> None:
    (own_folder / "sub").mkdir()
    (own_folder / "sub/__init__.py").write_text("from .other import Y\n")
    (own_folder / "sub/other.py").write_text("Y = 1\n")
    (own_folder / "sub/deep.py").write_text("from . import other\nX = 1\n")
    (own_folder / "net.py").write_text(f"{statement}\n")
    names = {"net.py", "sub/__init__.py", "sub/other.py", "sub/deep.py"}
    assert set(find_own_code("net.py:Net").files) == names


@pytest.mark.parametrize("statement", ["import helper", "from helper import WIDTH"])
@pytest.mark.parametrize("file", ["net.py", "helper.py"])
def test_an_import_in_a_function_is_refused_because_it_would_find_the_live_file_and_not_the_runs_copy(
    own_folder: Path, file: str, statement: str
) -> None:
    text = (own_folder / file).read_text() + f"class Late:\n    def late(self):\n        {statement}\n"
    (own_folder / file).write_text(text)
    line = error_line(lambda: build("net.py:Net", (1, 2, 2), 3))
    assert f"{own_folder / file} imports helper.py in the function late" in line
    assert line.endswith("import it at the top of the file")
    assert not Path("RAN").exists()


def test_a_library_may_be_imported_in_a_function(own_folder: Path) -> None:
    (own_folder / "helper.py").write_text("WIDTH = 5\ndef late():\n    import json, torch.fft\n")
    assert build("net.py:Net", (1, 2, 2), 3)[1].out_features == 5


def test_a_file_with_a_dot_in_its_name_is_imported(own_folder: Path) -> None:
    (own_folder / "net.py").rename(own_folder / "net.v2.py")
    assert build("net.v2.py:Net", (1, 2, 2), 3)[1].out_features == 5


def test_a_module_beside_the_file_does_not_replace_one_of_the_standard_library(own_folder: Path) -> None:
    (own_folder / "json.py").write_text("raise SystemExit\n")
    (own_folder / "net.py").write_text("import json\nfrom torch import nn\nclass Net(nn.Module): pass\n")
    assert set(find_own_code("net.py:Net").files) == {"net.py"}


def test_code_that_nobody_trusted_is_not_imported() -> None:
    for call in (lambda: find_own_code("net.py:Net").load("Net"), lambda: resolve_options("net.py:Net", {})):
        assert "is code that you have not trusted yet" in error_line(call)
    assert "have not trusted" in error_line(lambda: build_by_name("net.py:Net", (1, 2, 2), 3, {}))
    assert not Path("RAN").exists()


def test_code_that_a_call_names_may_run_from_then_on() -> None:
    assert build("net.py:Net", (1, 2, 2), 3)(torch.zeros(1, 1, 2, 2)).shape == (1, 3)
    assert Path("RAN").exists()
    assert build_by_name("net.py:Net", (1, 2, 2), 3, {"bias": False})[1].bias is None


@pytest.mark.parametrize("file", ["net.py", "helper.py"])
def test_a_changed_file_is_no_longer_trusted(own_folder: Path, file: str) -> None:
    build("net.py:Net", (1, 2, 2), 3)
    (own_folder / file).write_text((own_folder / file).read_text() + "# a change\n")
    assert f"{own_folder / file} is code that you have not trusted yet" in error_line(
        lambda: find_own_code("net.py:Net").load("Net")
    )


def test_a_file_may_define_a_dataclass_whose_types_are_strings() -> None:
    assert build("net.py:make", (1, 2, 2), 3)[1].out_features == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net.py:Other", "Other of net.py is not a network: give a subclass of torch.nn.Module"),
        ("net.py:WIDTH", "WIDTH of net.py is not a network"),
        ("net.py:torch", "torch of net.py is not a network"),
        ("net.py:not_a_network", "gives str: it must give a torch.nn.Module"),
        ("net.py:Nett", "net.py has no Nett: did you mean 'Net'?"),
        ("subprocess:Popen", "there is no Python file of a network for 'subprocess'"),
        ("os:kill", "there is no Python file of a network for 'os'"),
        ("os.path:join", "there is no Python file of a network for 'os.path'"),
        ("nowhere.inside:Net", "there is no Python file of a network for 'nowhere.inside'"),
        ("posix:system", "there is no Python file"),
        ("numpy.random:seed", "seed of numpy/random/__init__.py is not a network"),
        (".net:Net", "is not the name of your own code"),
    ],
)
def test_what_is_no_network_is_not_called(name: str, message: str) -> None:
    assert message in error_line(lambda: build(name, (1, 2, 2), 3))
    assert not Path("CALLED").exists()


def test_an_installed_package_is_imported_from_where_it_is() -> None:
    code = find_own_code("torchvision.models.alexnet:AlexNet")
    assert code.is_installed
    assert list(code.files) == ["torchvision/models/alexnet.py"]
    code.trust()
    assert code.load("AlexNet") is __import__("torchvision").models.AlexNet


def test_a_package_in_the_current_folder_is_code_of_ones_own(own_folder: Path) -> None:
    (own_folder / "pack").mkdir()
    (own_folder / "pack/__init__.py").write_text("")
    (own_folder / "pack/net.py").write_text("from .parts import Layer\nclass Net(Layer): pass\n")
    (own_folder / "pack/parts.py").write_text("from torch import nn\nclass Layer(nn.Flatten):\n    pass\n")
    code = find_own_code("pack.net:Net")
    assert set(code.files) == {"pack/__init__.py", "pack/net.py", "pack/parts.py"}
    assert code.module == "pack.net"
    code.trust()
    assert issubclass(code.load("Net"), nn.Flatten)
    assert "pack.parts" not in sys.modules


def test_two_versions_of_one_file_stay_apart(own_folder: Path) -> None:
    first = build("net.py:Net", (1, 2, 2), 3)
    (own_folder / "helper.py").write_text("WIDTH = 7\n")
    second = build("net.py:Net", (1, 2, 2), 3)
    assert (first[1].out_features, second[1].out_features) == (5, 7)
    assert "helper" not in sys.modules


def test_a_module_of_the_same_name_that_is_imported_already_is_left_alone(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = type(sys)("helper")
    theirs.WIDTH = 99
    monkeypatch.setitem(sys.modules, "helper", theirs)
    assert build("net.py:Net", (1, 2, 2), 3)[1].out_features == 5
    assert sys.modules["helper"] is theirs


def test_the_kept_copy_runs_wherever_it_lies(own_folder: Path, tmp_path: Path, monkeypatch) -> None:
    code = find_own_code("net.py:Net")
    code.trust()
    code.write(tmp_path / "kept")
    (own_folder / "net.py").unlink()
    monkeypatch.chdir(tmp_path)
    copy = code_of_record(tmp_path / "kept", code.to_record())
    assert build_by_name("net.py:Net", (1, 2, 2), 3, {}, code=copy)[1].out_features == 5


def test_only_the_recorded_files_of_a_kept_copy_are_imported(tmp_path: Path) -> None:
    code = find_own_code("net.py:Net")
    code.trust()
    code.write(tmp_path / "kept")
    (tmp_path / "kept/dataclasses.py").write_text("from pathlib import Path\nPath('STOLEN').touch()\n")
    (tmp_path / "kept/torch.py").write_text("from pathlib import Path\nPath('STOLEN').touch()\n")
    code_of_record(tmp_path / "kept", code.to_record()).load("Net")
    assert not Path("STOLEN").exists()


def test_a_kept_file_that_was_changed_is_refused(tmp_path: Path) -> None:
    code = find_own_code("net.py:Net")
    code.write(tmp_path)
    (tmp_path / "helper.py").write_text("WIDTH = 6\n")
    line = error_line(code_of_record, tmp_path, code.to_record())
    assert f"{tmp_path / 'helper.py'} was changed since the run began" in line


@pytest.mark.parametrize("name", ["../net.py", "/etc/passwd", "a/../../net.py", "", "a\\b.py", "a\0.py"])
def test_a_record_cannot_name_a_file_outside_the_runs_folder(tmp_path: Path, name: str) -> None:
    record = {"entry": name, "module": "", "is_installed": False, "sha256": {name: "0" * 64}}
    assert "is damaged" in error_line(code_of_record, tmp_path, record)


def test_a_record_without_the_file_of_its_entry_is_damaged(tmp_path: Path) -> None:
    record = {"entry": "a.py", "module": "", "is_installed": False, "sha256": {"b.py": "0" * 64}}
    assert "does not say which file defines the network" in error_line(code_of_record, tmp_path, record)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:\n", "line 1"),
        ("raise RuntimeError('two\\nlines')\n", "two (net.py, line 1)"),
        ("import nowhere_to_be_found\n", "ModuleNotFoundError"),
        ("1 / 0\n", "ZeroDivisionError"),
        ("x = '\0'\n", "net.py"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_line(own_folder: Path, text: str, message: str) -> None:
    (own_folder / "net.py").write_text(text)
    assert message in error_line(lambda: build("net.py:Net", (1, 2, 2), 3))


@pytest.mark.slow
def test_code_of_too_many_or_too_large_files_is_refused(own_folder: Path) -> None:
    for number in range(101):
        (own_folder / f"part{number}.py").write_text("")
    (own_folder / "net.py").write_text("".join(f"import part{number}\n" for number in range(101)))
    assert "imports more than 100 files" in error_line(find_own_code, "net.py:Net")
    (own_folder / "net.py").write_text("x = 1\n" * 200_000)
    assert "this is not source code" in error_line(find_own_code, "net.py:Net")
