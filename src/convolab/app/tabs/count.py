"""The tab Count: what a network's layers cost and see, and question 1(c)'s f and g."""

from typing import Any

from starlette.responses import Response

from convolab.app.answers import PageCall, Tab, computed_route, json_route
from convolab.app.counting import CountForm, describe_network, find_names, offered_networks, sample_png
from convolab.app.question1 import course_layer_costs, whole_number


def count_layers(call: PageCall) -> dict[str, Any]:
    """The summary of the chosen network, and the same as a command and as Python."""
    form = CountForm.parse(call.values, call.app.nets)
    found = describe_network(form.summary(call.app.runs))
    return {**found, **form.same_as(call.app.runs).to_dict()}


def sample_image(call: PageCall) -> Response:
    """A sample image, as large as the network's input."""
    height, width = (whole_number(call.text(name), name, 1, 100_000) for name in ("height", "width"))
    return Response(sample_png(call.text("name"), height, width), media_type="image/png")


TAB = Tab(
    "count",
    "Count",
    (
        json_route("/api/count/offer", lambda call: offered_networks(call.app.nets, call.app.runs)),
        json_route("/api/count/names", lambda call: find_names(call.text("part"))),
        computed_route("/api/count", count_layers, channel="count"),
        json_route("/api/count/image", sample_image),
        json_route("/api/count/course", lambda call: course_layer_costs(call.text)),
    ),
)
