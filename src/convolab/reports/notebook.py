"""A place in a notebook that is drawn again and again while something runs, at little cost."""

import sys
import time

DISPLAY_SHARE = 0.01  # of the time may go into drawing between the first drawing and the last, which cost about 1 s
MIN_REDRAW_SECONDS = 0.3


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
        """Whether drawing has taken its share of the time only, and the last drawing is a moment ago."""
        now = time.monotonic()
        is_cheap = self.seconds_drawing <= DISPLAY_SHARE * (now - self.started_at)
        return is_cheap and now - self.drawn_at >= MIN_REDRAW_SECONDS

    def draw(self, html: str, started: float) -> None:
        """Replace what is shown; making it began at `started`, by `time.monotonic`."""
        if self.handle is not None:
            self.handle.update(self.make_html(html))
        self.drawn_at = time.monotonic()
        self.seconds_drawing += self.drawn_at - started


def bar_html(fraction_done: float) -> str:
    """A bar of progress."""
    return f'<progress value="{fraction_done:.4f}" max="1" style="width:100%"></progress>'
