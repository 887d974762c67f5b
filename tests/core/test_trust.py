"""Which code may run is recorded by the SHA-256 of its bytes, for one user."""

import os
from pathlib import Path

import pytest

from convolab.core import trust as trust_module
from convolab.core.errors import LabError
from convolab.core.files import sha256_of
from convolab.core.trust import require_trusted, trust, trust_all, trust_here, trusted_digests

A, B = sha256_of(b"a"), sha256_of(b"b")


@pytest.fixture(autouse=True)
def new_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(trust_module, "_TRUSTED_HERE", set())
    return tmp_path / "data"


def another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_module, "_TRUSTED_HERE", set())


def test_what_is_trusted_is_remembered_in_a_private_file(new_user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust([A])
    another_process(monkeypatch)
    assert trusted_digests() == {A}
    assert (new_user / "trusted_code").stat().st_mode & 0o777 == 0o600
    require_trusted([(Path("a.py"), A)])


def test_what_is_trusted_twice_is_written_once(new_user: Path) -> None:
    trust([A])
    trust([A, B])
    assert (new_user / "trusted_code").read_text().split() == [A, B]


def test_other_code_is_refused_with_its_file_and_its_sha256() -> None:
    trust([A])
    with pytest.raises(LabError) as caught:
        require_trusted([(Path("a.py"), A), (Path("theirs/b.py"), B)])
    assert "theirs/b.py" in str(caught.value)
    assert B in str(caught.value)
    assert "--trust" in str(caught.value)


def test_trusting_all_is_for_one_block_and_remembers_what_it_opened() -> None:
    with trust_all():
        require_trusted([(Path("a.py"), A)])
    require_trusted([(Path("a.py"), A)])
    with pytest.raises(LabError):
        require_trusted([(Path("b.py"), B)])


def test_trusting_all_within_a_block_that_does_not_changes_nothing_for_it() -> None:
    with trust_all(), trust_all(False):
        require_trusted([(Path("b.py"), B)])


def test_trust_of_one_process_is_not_recorded(new_user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust_here([A])
    require_trusted([(Path("a.py"), A)])
    another_process(monkeypatch)
    assert trusted_digests() == set()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_record_that_others_can_write_is_not_believed(
    new_user: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    trust([A])
    (new_user / "trusted_code").chmod(mode)
    another_process(monkeypatch)
    assert trusted_digests() == set()


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="this system cannot refuse links")
def test_a_record_that_is_a_link_is_neither_read_nor_written(
    new_user: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    new_user.mkdir()
    theirs = tmp_path / "theirs"
    theirs.write_text(f"{B}\n")
    theirs.chmod(0o600)
    (new_user / "trusted_code").symlink_to(theirs)
    trust([A])
    assert theirs.read_text() == f"{B}\n"
    another_process(monkeypatch)
    assert trusted_digests() == set()


def test_where_nothing_can_be_recorded_this_process_trusts_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONVOLAB_DATA", str(tmp_path / "file" / "below"))
    trust([A])
    require_trusted([(Path("a.py"), A)])
