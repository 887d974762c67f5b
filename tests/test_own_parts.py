"""The examples of docs/own_parts.md run as they stand there."""

import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from convolab.cli.main import main

PAGE = (Path(__file__).resolve().parents[1] / "docs/own_parts.md").read_text()
FILES = dict(re.findall(r"^`(\w+\.py)`:\n```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))
COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.mark.slow
def test_the_examples_of_parts_of_ones_own_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, source in FILES.items():
        Path(name).write_text(source)
    for label in "ab":
        Path("letters", label).mkdir(parents=True)
        for number in range(8):
            color = (20 * number, 200 * (label == "a"), 0)
            Image.new("RGB", (32, 32), color).save(Path("letters", label, f"{number}.png"))
    for command in COMMANDS:
        monkeypatch.setattr("sys.argv", shlex.split(command))
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code in (0, None), (command, capsys.readouterr().err)
    assert len(FILES) == 4
    assert len(COMMANDS) == 16
