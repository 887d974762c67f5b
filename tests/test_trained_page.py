"""The examples of docs/trained.md run as they stand there."""

import re
import shlex
from pathlib import Path

import pytest

from convolab.cli.main import main

PAGE = (Path(__file__).resolve().parents[1] / "docs/trained.md").read_text()
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
CODE = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.mark.slow
def test_the_examples_of_a_trained_run_work(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        monkeypatch.setattr("sys.argv", shlex.split(command))
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (0, None), (command, capsys.readouterr().err)
    names = {}
    exec(CODE, names)
    assert names["logits"].shape == (4, 10)
    assert "classes" in names["extra"]["about.json"]
    assert len(COMMANDS) == 6
