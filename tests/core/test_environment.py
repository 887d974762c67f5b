"""The hardware, the packages, the folder with the files of convolab, and settings of the whole process."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from convolab.core import environment
from convolab.core.environment import cache_folder, data_root, hardware_info, package_versions

COUNT_PAGE_FAULTS = """
import resource
import sys
import torch
from convolab.core.environment import tune_malloc

if sys.argv[1] == "tuned":
    tune_malloc()
for step in range(12):
    if step == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    large, small = torch.ones(2**24), torch.ones(2**20)  # 64 MB and 4 MB
    del large, small
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="only glibc has mallopt")
def test_memory_freed_by_a_large_tensor_is_reused_without_page_faults() -> None:
    tuned, default = (
        int(subprocess.check_output([sys.executable, "-c", COUNT_PAGE_FAULTS, setting]))
        for setting in ("tuned", "default")
    )
    assert default > 200  # at least one fault per 2 MB; 8 x 16384 of them with small pages
    assert tuned < default / 4


@pytest.mark.parametrize(
    ("cpuinfo", "native"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse avx512f avx512_bf16\n", True),
        ("processor\t: 0\nflags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n", True),
        ("processor\t: 0\nflags\t\t: fpu sse avx2 avx512f\nbugs\t\t: bf16\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd i8mm\n", False),
        ("processor\t: 0\n", False),
        (None, False),
    ],
)
def test_native_bf16_is_read_from_the_flags_of_the_processor(
    cpuinfo: str | None, native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cpuinfo"
    if cpuinfo is not None:
        path.write_text(cpuinfo)
    monkeypatch.setattr("builtins.open", lambda *_, real=open: real(path))
    result = environment.has_native_bf16()
    monkeypatch.undo()
    assert result == native


def test_the_recorded_versions_are_those_of_the_installed_packages() -> None:
    versions = package_versions()
    assert versions["torch"] == version("torch")
    assert set(versions) == set(environment.RECORDED_PACKAGES)


def test_a_caller_can_change_its_dict_of_versions_without_an_effect_on_others() -> None:
    package_versions()["torch"] = "0"
    assert package_versions()["torch"] == version("torch")


def test_no_field_of_the_hardware_is_empty() -> None:
    assert all(hardware_info().values())


def test_the_data_root_is_given_by_the_environment_or_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CONVOLAB_DATA", "~/elsewhere")
    assert data_root() == tmp_path / "elsewhere"
    monkeypatch.setenv("CONVOLAB_DATA", "")
    assert data_root() == tmp_path / ".cache" / "convolab"


def test_a_cache_folder_is_created_and_marked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path))
    folder = tmp_path / "cache" / "hub"
    assert cache_folder("hub") == cache_folder("hub") == folder
    assert os.listdir(folder) == ["CACHEDIR.TAG"]
    assert (folder / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")


def test_a_folder_of_the_user_is_not_marked_as_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path))
    folder = tmp_path / "cache" / "hub"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    cache_folder("hub")
    assert os.listdir(folder) == ["notes.txt"]


def test_the_path_of_a_cache_folder_that_cannot_be_created_is_returned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "file"))
    assert cache_folder("hub") == tmp_path / "file" / "cache" / "hub"
    assert (tmp_path / "file").read_text() == "in the way"


USE_THE_LIBRARY = """
import os, torch

def state():
    # scikit-learn sets KMP_... when it is imported
    variables = {name: value for name, value in os.environ.items() if not name.startswith("KMP_")}
    return variables, torch.get_num_threads(), torch.get_rng_state().tolist()

before = state()
import convolab
convolab.load("digits")
for name in convolab.__all__:
    getattr(convolab, name)
assert state() == before
"""


@pytest.mark.slow
def test_importing_convolab_and_loading_a_dataset_do_not_change_the_process() -> None:
    subprocess.run([sys.executable, "-c", USE_THE_LIBRARY], check=True, capture_output=True)
