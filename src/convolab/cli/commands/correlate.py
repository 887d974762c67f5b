"""`convolab correlate`: question 1(b) in numbers, for two short signals."""

from typing import Annotated

import typer

from convolab.cli.options import AsJson
from convolab.cli.terminal import print_json, print_lines, print_table


def correlate_command(
    x: Annotated[str, typer.Option("--x", help="The signal that stays, such as 1,-0.5,1/3.")],
    y: Annotated[str, typer.Option("--y", help="The signal that moves to the left, of as many samples.")],
    padding: Annotated[
        str, typer.Option(help="What comes in from the right: circular (y's own beginning) or zeros.")
    ] = "circular",
    stride: Annotated[int, typer.Option(min=1, help="Samples from one place to the next.")] = 1,
    shift: Annotated[
        int | None,
        typer.Option(min=0, help="By how many samples x is shifted, to see what z does. [default: 1, if x has two]"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Correlate two short signals: z[k] = sum_i x[i] y[i + k] for every stride-th k, both Jacobians, and whether z
    shifts with x.
    """
    from convolab.theory.sliding import parse_samples, slide_correlation

    samples = [parse_samples(text, name) for name, text in (("x", x), ("y", y))]
    sliding = slide_correlation(*samples, padding=padding, stride=stride)
    shift = min(1, len(sliding.x) - 1) if shift is None else shift
    measured = sliding.measure_shift(shift)
    if as_json:
        print_json(sliding.to_dict(shift))
        return
    ks = range(0, len(sliding.x), stride)
    print_table(["k", "z"], [[str(k), f"{z:.6g}"] for k, z in zip(ks, sliding.z.tolist(), strict=True)])
    for name, jacobian in (("x", sliding.jacobian_x), ("y", sliding.jacobian_y)):
        headings = [f"dz[k]/d{name}", *(f"{name}[{i}]" for i in range(jacobian.shape[1]))]
        rows = [[f"k = {k}", *(f"{v:.6g}" for v in row)] for k, row in zip(ks, jacobian.tolist(), strict=True)]
        print_table(headings, rows)
    what = "only shifts" if measured.only_shifts else "does not only shift"
    print_lines(f"x shifted by {shift}: z {what} (largest difference {measured.difference:.3g})")
