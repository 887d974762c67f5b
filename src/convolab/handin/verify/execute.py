"""Notebooks of a hand-in, executed again, and what they print now against what was handed in."""

import base64
import io
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from convolab.core.environment import processor_name
from convolab.core.errors import LabError
from convolab.core.files import sha256_of
from convolab.core.text import pluralize, truncate_list
from convolab.handin.check import NUMBER
from convolab.handin.notebook_file import (
    HandedInCell,
    one_line,
    printed_settings,
    read_notebook,
    settings_cell,
    shorten_cell,
)
from convolab.handin.verify.fence import Permission, run_fenced, work_folder
from convolab.handin.verify.numbers import chart_points
from convolab.handin.verify.signs import Sign, confirmed, skipped

# Of printed numbers, absolute and relative, and of a chart's values as a part of their range: where processor, torch and
# threads are those of the hand-in, and where another one rounds differently.
SAME_MACHINE, OTHER_MACHINE = 0.002, 0.05
PIXEL_TOLERANCE = 255  # times the tolerance: the mean difference of two figures of pixels
THUMBNAIL = (64, 64)
# What differs between two honest executions: times, speeds, folders, threads and the numbers of objects in memory.
# A number of bounded length, from its first digit on: a line of digits is not read again from each of them.
VOLATILE = re.compile(
    r"(?<!\d)\d{1,20}(?:[.,]\d{1,20}){0,4} ?(?:ms|s|min|h|images/s|it/s)\b|\b\d{8}-\d{6}(?:-\d+)?|\bat 0x[0-9a-f]+|"
    r"(?:torch = .*)|(?<!\d)\d{1,9} threads?\b"
)


def execute_signs(
    hand_in: str,
    name: str,
    content: bytes,
    cells: Sequence[HandedInCell],
    processors: Collection[str],
    permission: Permission,
) -> Iterator[Sign]:
    """Execute a notebook again, in its own form (FAST or full), and give the cells that show something else now.

    Args:
        hand_in: the name of the zip.
        name: the notebook's file, and what is in it: `content` as bytes, `cells` as they were read.
        processors: those of the hand-in's runs, which decide how exactly numbers are compared.
        permission: what the teacher allows.
    """
    printed = printed_settings(cells)
    threads = re.search(r"(?<!\d)(\d{1,9}) threads?", printed.get("torch", ""))
    try:
        permission.require([(Path(f"{hand_in}/{name}"), sha256_of(content))])
        job = {
            "kind": "execute", "notebook": name, "fast": printed.get("fast") == "True",
            "data": printed.get("data", "digits"), "threads": int(threads[1]) if threads else None,
        }  # fmt: skip
        with work_folder() as folder:
            (folder / name).write_bytes(content)
            result = run_fenced(folder, job, permission)
            again = list(map(shorten_cell, read_notebook(folder / str(result.get("executed")), folder)))
    except LabError as error:
        yield skipped(name, f"not executed again: {error}", "execute")
        return
    own, new = settings_cell(cells), settings_cell(again)
    has_same_settings = own is not None and new is not None and own.text == new.text
    is_same = has_same_settings and set(processors) == {processor_name()}
    tolerance = SAME_MACHINE if is_same else OTHER_MACHINE
    found = list(output_differences(cells, again, tolerance))
    yield from (Sign(f"{name}, {cell}", what, "execute") for cell, what in found)
    if not found:
        why = "" if is_same else ", as processor, torch or threads differ or are not known"
        shown = f"{pluralize(len(again), 'cell')} {'shows' if len(again) == 1 else 'show'} the same"
        yield confirmed(name, f"executed again: {shown}, within {tolerance:g}{why}", "execute")


def output_differences(
    cells: Sequence[HandedInCell], again: Sequence[HandedInCell], tolerance: float
) -> Iterator[tuple[str, str]]:
    """The cells that show something else, and what."""
    for own, new in zip(cells, again, strict=False):
        if own.type != "code":
            continue
        if new.error and not own.error:
            yield own.name, f"executed again it ends in an error: {new.error}"
            continue
        difference = text_difference(own.text, new.text, tolerance)
        if difference:
            yield own.name, difference
        elif len(own.figures) != len(new.figures):
            yield (
                own.name,
                f"executed again it shows {pluralize(len(new.figures), 'figure')}, and {len(own.figures)} were handed in",
            )
        elif differing := [
            i for i, pair in enumerate(zip(own.figures, new.figures, strict=True)) if not is_like(*pair, tolerance)
        ]:
            yield (
                own.name,
                f"executed again, its figure {truncate_list([str(i + 1) for i in differing])} is another one",
            )


def text_difference(own: str, new: str, tolerance: float) -> str:
    """How two outputs differ by more than the tolerance, or an empty text."""
    own_lines, new_lines = (
        [line for line in VOLATILE.sub("", text).splitlines() if line.strip()] for text in (own, new)
    )
    for one, other in zip(own_lines, new_lines, strict=False):
        numbers = [list(map(float, re.findall(NUMBER, line))) for line in (one, other)]
        words = [re.sub(NUMBER, "#", line) for line in (one, other)]
        if words[0] != words[1] and not (numbers[0] and len(numbers[0]) == len(numbers[1]) and same_start(*words)):
            return f"executed again it prints `{one_line(other)}`, and `{one_line(one)}` was handed in"
        if any(not are_close_numbers(a, b, tolerance, has_percent="%" in one) for a, b in zip(*numbers, strict=False)):
            return f"executed again it prints `{one_line(other)}`, and `{one_line(one)}` was handed in"
    if len(own_lines) != len(new_lines):
        return f"executed again it prints {pluralize(len(new_lines), 'line')}, and {len(own_lines)} were handed in"
    return ""


def same_start(one: str, other: str) -> bool:
    """Whether two lines begin with the same words, up to their first number: such as the name of the best candidate."""
    return one.partition("#")[0] == other.partition("#")[0] != ""


def are_close_numbers(one: float, other: float, tolerance: float, has_percent: bool) -> bool:
    """Whether two printed numbers are equal within the tolerance."""
    slack = tolerance * (100 if has_percent and max(abs(one), abs(other)) > 1 else 1)
    return abs(one - other) <= slack + tolerance * max(abs(one), abs(other))


def is_like(own: tuple[str, str], new: tuple[str, str], tolerance: float) -> bool:
    """Whether two figures show the same: charts by their data, pixels by their mean difference."""
    if own == new:
        return True
    if own[0] == new[0] == "image/svg+xml":
        return charts_agree(own[1], new[1], tolerance)
    return "svg" not in own[0] + new[0] and pixels_agree(own[1], new[1], tolerance)


def charts_agree(own: str, new: str, tolerance: float) -> bool:
    """Whether two charts in SVG have the same series, and values that are close."""

    def points_of(svg: str) -> dict[tuple[str, str, float | None], float]:
        cell = HandedInCell("", "code", "", None, "", "", "", True, figures=(("image/svg+xml", svg),))
        return {(point.quantity, point.series, point.x): point.value for point in chart_points(cell)}

    ours, theirs = points_of(own), points_of(new)
    if ours.keys() != theirs.keys() or not ours:
        return ours.keys() == theirs.keys() and len(own) == len(new)
    spread = max(ours.values()) - min(ours.values())
    return all(abs(ours[key] - theirs[key]) <= tolerance * max(spread, abs(ours[key])) for key in ours)


def pixels_agree(own: str, new: str, tolerance: float) -> bool:
    """Whether two images in base64 look alike."""
    import numpy as np
    from PIL import Image

    arrays = []
    for payload in (own, new):
        try:
            with Image.open(io.BytesIO(base64.b64decode(payload))) as image:
                arrays.append((image.size, np.asarray(image.convert("RGB").resize(THUMBNAIL), dtype=float)))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return False
    (size, first), (other_size, second) = arrays
    return size == other_size and float(np.abs(first - second).mean()) <= PIXEL_TOLERANCE * tolerance
