"""The examples of docs/own_data.md run as they stand there."""

import re
import shlex
from pathlib import Path

import pytest

from convolab.cli.main import main

PAGE = (Path(__file__).resolve().parents[1] / "docs/own_data.md").read_text()
((NAME, SOURCE),) = re.findall(r"^`(\w+\.py)`:\n```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.mark.slow
def test_the_examples_of_data_of_ones_own_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(SOURCE, NAME, "exec"), {})
    for command in COMMANDS:
        monkeypatch.setattr("sys.argv", shlex.split(command))
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (0, None), (command, capsys.readouterr().err)
    assert len(COMMANDS) == 5
