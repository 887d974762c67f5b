"""The tab Slide: question 1(b) by hand. The browser computes while a sample is dragged; this is the library's own answer."""

from typing import Any

from convolab.app.answers import PageCall, Tab, json_route
from convolab.app.question1 import SlideForm


def slide_signals(call: PageCall) -> dict[str, Any]:
    """The correlation, its Jacobians, what a shift does, and the same as a command and as Python."""
    form = SlideForm(
        call.text("x"),
        call.text("y"),
        call.text("padding", "circular"),
        call.text("stride", "1"),
        call.text("shift", "1"),
    )
    return {**form.sliding().to_dict(form.shift_samples), **form.same_as().to_dict()}


TAB = Tab("slide", "Slide", (json_route("/api/slide", slide_signals),))
