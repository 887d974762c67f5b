"""A place in a notebook that is drawn again and again while something runs, at little cost."""

import sys
import time

CURVES_SHARE = 0.01  # of the time may go into drawing curves while something runs; its end draws them once more
FIRST_CURVES_SECONDS = 5  # before that the bar is enough
MIN_REDRAW_SECONDS = 0.5  # a bar costs about a millisecond


def is_notebook() -> bool:
    """Whether this runs in the kernel of a notebook, which can draw: Jupyter's, VS Code's or Colab's."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    is_colab = type(shell).__module__.startswith("google.colab")
    return shell is not None and ("IPKernelApp" in getattr(shell, "config", {}) or is_colab)


class NotebookDisplay:
    """One output of a cell, replaced in place."""

    def __init__(self, html: str) -> None:
        from IPython.display import HTML, display

        self.make_html = HTML
        self.started_at = self.drawn_at = time.monotonic()
        self.seconds_drawing = 0.0
        self.handle = display(HTML(html), display_id=True)

    def may_draw(self) -> bool:
        """Whether the last drawing is a moment ago, so that the bar may be drawn again."""
        return time.monotonic() - self.drawn_at >= MIN_REDRAW_SECONDS

    def may_draw_curves(self) -> bool:
        """Whether drawing has taken its share of the time only, so that the curves may be drawn again."""
        seconds = time.monotonic() - self.started_at
        return seconds >= FIRST_CURVES_SECONDS and self.seconds_drawing <= CURVES_SHARE * seconds

    def draw(self, html: str, started: float) -> None:
        """Replace what is shown; making it began at `started`, by `time.monotonic`."""
        if self.handle is not None:
            self.handle.update(self.make_html(html))
        self.drawn_at = time.monotonic()
        self.seconds_drawing += self.drawn_at - started


def bar_html(fraction_done: float) -> str:
    """A bar of progress."""
    return f'<progress value="{fraction_done:.4f}" max="1" style="width:100%"></progress>'
