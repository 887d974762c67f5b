"""A folder of the homework, made up and changed for a test."""

import json
from pathlib import Path
from typing import Any

from convolab.handin.homework import Homework

OWN_COMMENT = (
    "My curves say: two lines cross near epoch four, then the dashed one wins by a little. I would not trust it, since "
    "my neighbor got another order with his seed."
)
PNG = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo="}, "metadata": {}}


def pretend_to_run(content: dict[str, Any], homework: Homework) -> None:
    """Give a notebook's cells the outputs of a good run, and comments of a person's own."""
    values = {
        value.cell: [f"{v.label} = {v.ranges['digits'][1]}" for v in item.values if v.cell == value.cell]
        for item in homework.items
        for value in item.values
    }
    count = 0
    for cell in content["cells"]:
        name, tags = cell["metadata"]["name"], cell["metadata"].get("tags", [])
        if tags == ["comment"]:
            for key in ("execution_count", "outputs"):
                del cell[key]
            cell.update(cell_type="markdown", source=OWN_COMMENT)
        elif cell["cell_type"] == "code":
            count += 1
            printed = ["data = digits", "fast = False"] if name.endswith("-settings") else values.get(name, [])
            cell["execution_count"] = count
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "\n".join(printed) + "\n"}]
            cell["outputs"] += [PNG] if tags == ["figure"] else []


def edit_cell(path: Path, name: str, **changes: object) -> None:
    """Change one cell of a notebook."""
    content = json.loads(path.read_text())
    [cell] = [cell for cell in content["cells"] if cell["metadata"]["name"] == name]
    cell.update(changes)
    path.write_text(json.dumps(content))
