"""Draw docs/architecture.svg from the code's own imports: the layers, their modules, and who imports whom.

Run by `make architecture`; a test compares the picture with what this draws from the present code.
"""

import ast
import tomllib
from collections import Counter
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "convolab"
ROW, LEFT, TEXT, CELL = 74, 16, 600, 62  # pixels: height of a row, margin, width of the text, width of a column
STYLE = """
svg { font: 13px system-ui, sans-serif; background: #fff; color: #1a1a1a } text { fill: currentColor }
.name { font-weight: 600; font-size: 15px } .modules { opacity: .75; font-size: 12px } .line { stroke: currentColor; opacity: .25 }
.dot { fill: #2a6fb0 } .count { font-size: 11px; text-anchor: middle; opacity: .8 } .column { text-anchor: middle; font-size: 11px }
@media (prefers-color-scheme: dark) { svg { background: #16181c; color: #e8e8e8 } .dot { fill: #6db3f2 } }
"""


def read_layers() -> list[str]:
    """The packages from top to bottom, as the import contract lists them."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    return [name.strip() for layer in contract["layers"] for name in layer.split("|")]


def count_imports(layers: list[str]) -> Counter[tuple[str, str]]:
    """How many import statements of each package name each other package."""
    counts: Counter[tuple[str, str]] = Counter()
    for path in PACKAGE.rglob("*.py"):
        importer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                parts = (name or "").split(".")
                if parts[0] == "convolab" and len(parts) > 1 and parts[1] in layers and parts[1] != importer:
                    counts[importer, parts[1]] += 1
    return counts


def list_modules(layer: str) -> str:
    """A package's modules and subpackages by name, the way they are listed on the picture."""
    if (PACKAGE / f"{layer}.py").exists():
        return "what a person calls in Python, in one module"
    names = []
    for path in sorted((PACKAGE / layer).iterdir()):
        if path.is_dir() and (path / "__init__.py").exists():
            inner = sum(1 for module in path.glob("*.py") if module.name != "__init__.py")
            names.append(f"{path.name}/ ({inner})")
        elif path.suffix == ".py" and path.name != "__init__.py":
            names.append(path.stem)
    return "  ".join(names)


def wrap(text: str, width: int) -> list[str]:
    """Break a list of names into lines of at most `width` characters."""
    lines = [""]
    for word in text.split("  "):
        if lines[-1] and len(lines[-1]) + len(word) + 2 > width:
            lines.append("")
        lines[-1] += (" · " if lines[-1] else "") + word
    return lines


def draw() -> str:
    """The whole picture, as SVG."""
    layers = read_layers()
    counts = count_imports(layers)
    width, height = LEFT * 2 + TEXT + CELL * len(layers), ROW * len(layers) + 56
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        ' aria-label="The layers of convolab and their imports">',
        f"<style>{STYLE}</style>",
    ]
    for column, layer in enumerate(layers):
        x = LEFT + TEXT + CELL * (column + 0.5)
        parts.append(f'<text class="column" x="{x}" y="28">{layer}</text>')
    parts.append(
        f'<text class="modules" x="{LEFT}" y="28">each layer imports only layers below it; circles: import statements</text>'
    )
    for row, layer in enumerate(layers):
        top = 44 + ROW * row
        parts.append(f'<line class="line" x1="{LEFT}" x2="{width - LEFT}" y1="{top}" y2="{top}"/>')
        parts.append(f'<text class="name" x="{LEFT}" y="{top + 20}">{layer}</text>')
        for number, line in enumerate(wrap(list_modules(layer), 92)[:3]):
            parts.append(f'<text class="modules" x="{LEFT}" y="{top + 37 + 14 * number}">{escape(line)}</text>')
        for column, other in enumerate(layers):
            count = counts[layer, other]
            if count:
                x = LEFT + TEXT + CELL * (column + 0.5)
                radius = 3 + min(14, count**0.5 * 2)
                parts.append(f'<circle class="dot" cx="{x}" cy="{top + 30}" r="{radius:.1f}"/>')
                parts.append(f'<text class="count" x="{x}" y="{top + 64}">{count}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "architecture.svg").write_text(draw())
    print("docs/architecture.svg")
