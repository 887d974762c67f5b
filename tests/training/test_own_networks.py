"""A run of a person's own network keeps the network's code, uses only its copy, and opens from any folder."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from support.callbacks import stop_after
from support.own_code import become_another_user

from convolab.core.errors import LabError
from convolab.core.files import sha256_of
from convolab.data.catalog import load
from convolab.models import own_code
from convolab.models.registry import trust_named
from convolab.studies.trials import find_corruption
from convolab.training.recipe import Recipe
from convolab.training.run import Run

NET = """
from pathlib import Path
import torch
from torch import nn
from helper import activation

Path({mark!r}).touch()


class Net(nn.Module):
    def __init__(self, shape, classes, hidden: int = 16):
        super().__init__()
        self.first = nn.Linear(shape[0] * shape[1] * shape[2], hidden)
        self.second = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.second(activation(self.first(x.flatten(1))))
"""
HELPER = "import torch\n\n\ndef activation(x):\n    return torch.relu(x)\n"
RECIPE = {"model": {"name": "net.py:Net"}, "training": {"epochs": 2}, "data": {"limit": 300}}


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """The file that shows that the network's code ran."""
    return tmp_path / "RAN"


@pytest.fixture
def own_run(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run of somebody's own network, trained in that person's folder, which is the current one."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "net.py").write_text(NET.format(mark=str(mark)))
    (folder / "helper.py").write_text(HELPER)
    monkeypatch.chdir(folder)
    become_another_user(tmp_path / "data", monkeypatch)
    trust_named("net.py:Net")
    run = Run.start(Recipe.from_dict(RECIPE), load("digits"), "run")
    mark.unlink()
    monkeypatch.setattr(own_code, "_LOADED", {})
    return run


def error_line(function, *args, **settings) -> str:
    with pytest.raises(LabError) as caught:
        function(*args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
def test_the_run_holds_the_code_and_its_sha256(own_run: Run) -> None:
    assert (own_run.folder / "code/net.py").read_bytes() == Path("net.py").read_bytes()
    assert (own_run.folder / "code/helper.py").read_text() == HELPER
    record = json.loads((own_run.folder / "summary.json").read_text())["code"]
    assert record["entry"] == "net.py"
    assert record["sha256"] == {name: sha256_of(Path(name).read_bytes()) for name in ("helper.py", "net.py")}


@pytest.mark.slow
def test_a_run_opens_from_any_folder(own_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = [p.clone() for p in own_run.net().parameters()]
    shutil.copytree("run", tmp_path / "elsewhere/copy")
    shutil.rmtree(tmp_path / "own")
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = Run("copy")
    assert all(torch.equal(a, b) for a, b in zip(run.net().parameters(), weights, strict=True))
    assert run.test().count == 359


@pytest.mark.slow
@pytest.mark.parametrize("file", ["net.py", "helper.py"])
def test_an_edited_original_is_reported_and_the_runs_own_copy_is_used(own_run: Run, file: str) -> None:
    pixels = load("digits").test.images[:5].float() / 255
    logits = own_run.net()(pixels)
    assert own_run.code_note is None
    Path(file).write_text(Path(file).read_text().replace("relu", "tanh") + "\nWIDTH = 3\n")
    trust_named("net.py:Net")
    assert torch.equal(Run("run").net()(pixels), logits)
    assert Run("run").code_note == f"{file} was edited since run began: the run's own copy in code/ is used"


@pytest.mark.slow
def test_a_resumed_run_continues_with_its_own_copy(own_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = own_run.net("last")
    recipe = Recipe.from_dict(RECIPE)

    stopped = Run.start(recipe, load("digits"), "stopped", callbacks=stop_after(4))
    assert stopped.status == "stopped"
    Path("helper.py").write_text(HELPER.replace("relu", "tanh"))
    stopped.resume()
    assert all(torch.equal(a, b) for a, b in zip(stopped.net("last").parameters(), whole.parameters(), strict=True))


@pytest.mark.slow
def test_a_strangers_run_is_read_without_running_its_code(
    own_run: Run, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become_another_user(tmp_path / "other", monkeypatch)
    run = Run("run")
    assert (run.status, len(run.history), run.recipe.model.options) == ("finished", 2, {"hidden": 16})
    assert "code/helper.py is code that you have not trusted yet" in error_line(run.net)
    assert "have not trusted" in error_line(run.test)
    assert "have not trusted" in error_line(run.predict, "nothing.png")
    assert not mark.exists()
    assert Run("run", trust=True).net()
    assert mark.exists()


@pytest.mark.slow
def test_a_weights_file_of_a_run_of_ours_cannot_name_code_of_theirs(
    own_run: Run, tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An honest run whose weights file, and the recipe in it, name somebody's code."""
    become_another_user(tmp_path / "other", monkeypatch)
    honest = Run.start(Recipe.from_dict({"training": {"epochs": 1}}), load("digits"), "honest")
    shutil.copy("run/best.safetensors", "honest/best.safetensors")
    shutil.copytree("run/code", "honest/code")
    assert "have not trusted" in error_line(honest.net)
    assert not mark.exists()


@pytest.mark.slow
def test_a_changed_copy_is_refused_even_by_its_owner(own_run: Run, mark: Path) -> None:
    Path("run/code/helper.py").write_text(HELPER.replace("relu", "tanh"))
    assert "helper.py was changed since the run began" in error_line(Run("run").net)
    assert not mark.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["code", "code/@optimizer"])
def test_a_copy_of_the_code_that_is_a_link_is_refused_though_it_holds_the_same_bytes(
    own_run: Run, tmp_path: Path, mark: Path, name: str
) -> None:
    summary = json.loads((own_run.folder / "summary.json").read_text())
    if name != "code":
        shutil.copytree(own_run.folder / "code", own_run.folder / name)
        summary["parts"] = {"optimizer": summary["code"]}
        (own_run.folder / "summary.json").write_text(json.dumps(summary))
    (own_run.folder / name).rename(tmp_path / "elsewhere")
    (own_run.folder / name).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    message = f"{own_run.folder / name} is a symbolic link to a path outside its folder"
    assert message in error_line(lambda: Run(own_run.folder).codes)
    if name == "code":
        assert message in error_line(own_run.net)
    assert not mark.exists()


@pytest.mark.slow
def test_a_study_does_not_mix_runs_of_two_versions_of_the_code(own_run: Run) -> None:
    recipe = Recipe.from_dict(RECIPE)
    assert find_corruption(own_run.folder, recipe) is None
    Path("helper.py").write_text(HELPER.replace("relu", "tanh"))
    assert "helper.py was edited since run began" in find_corruption(own_run.folder, recipe)


@pytest.mark.slow
def test_deleting_a_run_deletes_its_code(own_run: Run) -> None:
    assert own_run.delete() == []
    assert not Path("run").exists()
    assert Path("net.py").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "        return self.second(x)",
            r"^the network does not accept images of shape 1x8x8: .* \(net\.py, line LAST\)$",
        ),
        (
            "        raise KeyError('a')",
            r"^the network does not accept images of shape 1x8x8: KeyError: 'a' \(net\.py, line LAST\)$",
        ),
    ],
)
def test_an_error_in_a_persons_own_network_names_its_line(own_run: Run, line: str, message: str) -> None:
    source = Path("net.py").read_text().splitlines()
    Path("net.py").write_text("\n".join([*source[:-1], line]) + "\n")
    message = message.replace("LAST", str(len(source)))
    assert re.search(message, error_line(Run.start, Recipe.from_dict(RECIPE), load("digits"), "other"))
