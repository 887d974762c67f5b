"""The public names of convolab."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import convolab


@pytest.mark.parametrize("name", convolab.__all__)
def test_every_public_name_can_be_imported_and_is_the_name_of_its_object(name: str) -> None:
    assert getattr(convolab, name).__name__ == name
    assert name in dir(convolab)


def test_the_version_is_the_installed_one() -> None:
    assert convolab.__version__ == version("convolab")


def test_the_error_about_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"convolab has no attribute 'account': known: .*summary"):
        convolab.account  # noqa: B018


@pytest.mark.slow
def test_importing_convolab_does_not_import_torch() -> None:
    code = "import sys, convolab; convolab.__version__; print('torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "False"
