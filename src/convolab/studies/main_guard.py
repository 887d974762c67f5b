"""Whether the script that starts a study may be imported by its workers."""

import ast
import sys
from pathlib import Path

from convolab.core.errors import require


def require_guarded_main() -> None:
    """Raise LabError where workers would run the script that starts them: each imports it, so the call must be guarded.

    Known before a worker is started: by where the script is now, and whether that is below `if __name__ == "__main__":`.
    """
    main = vars(sys.modules.get("__main__", object))
    frame = sys._getframe()
    while frame is not None and not (frame.f_globals is main and frame.f_code.co_name == "<module>"):
        frame = frame.f_back
    if frame is None or not isinstance(file := main.get("__file__"), str):
        return  # a notebook, a console, a command
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    guards = [node for node in tree.body if isinstance(node, ast.If) and "__name__" in ast.dump(node.test)]
    require(
        any(node.lineno <= frame.f_lineno <= (node.end_lineno or node.lineno) for node in guards),
        f'line {frame.f_lineno} of {file} starts workers, which import this file: put it below `if __name__ == "__main__":`, '
        "and so all else that is to happen once",
    )
