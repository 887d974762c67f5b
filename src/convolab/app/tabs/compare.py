"""The tab Compare: tick runs or studies, see curves, verdicts and differences together; start a study; open the report."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, Response

import convolab
from convolab.app.answers import PageCall, Tab, computed_route, json_route
from convolab.app.comparison import (
    MAX_COMPARED,
    recipe_differences,
    report_page,
    result_values,
    same_as_compare,
    same_as_study,
)
from convolab.app.forms import SweepForm, require_offered
from convolab.app.run_rows import run_rows

if TYPE_CHECKING:
    from convolab.app.comparison import StudyResult

# The report's own page says what it may do; it runs apart from this one, and asks for nothing.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)


def list_all(call: PageCall) -> dict[str, Any]:
    """What can be ticked."""
    app = call.app
    jobs = app.jobs.entries()
    active = {job.run: job for job in jobs if job.kind == "study" and job.state != "ended"}
    found = app.runs.find().studies
    studies = [
        {
            "name": name,
            "is_here": name in found,
            "job": active[name].id if name in active else None,
            "state": active[name].state if name in active else "",
        }
        for name in dict.fromkeys([*found, *active])
    ]
    failed = [
        {"run": job.run, "message": job.message}
        for job in jobs
        if job.kind == "study" and job.state == "ended" and job.message
    ]
    runs = [run for run in run_rows(app.runs, jobs) if run.get("epochs_done")]
    return {"runs": runs, "studies": studies, "failed": failed[-3:]}


def read_result(call: PageCall) -> tuple["StudyResult", list[Path]]:
    """What is ticked: one study, or several runs of which the first is the baseline."""
    studies, names = call.texts("study"), call.texts("run")
    if len(names) > MAX_COMPARED:
        raise convolab.LabError(f"{len(names)} runs are ticked: tick {MAX_COMPARED} at most")
    folders = [call.app.runs.study(studies[0])] if studies else [call.app.runs.run(name).folder for name in names]
    return convolab.compare(folders), folders


def compare_all(call: PageCall) -> dict[str, Any]:
    """The comparison of what is ticked, and how it is made without the page."""
    result, folders = read_result(call)
    is_study = bool(call.texts("study"))
    same = same_as_study(folders[0]) if is_study else same_as_compare(folders)
    runs = [] if is_study else [call.app.runs.run(name) for name in call.texts("run")]
    return {
        **result_values(result),
        "same": same.to_dict(),
        "differences": recipe_differences(runs),
        "runs": call.texts("run"),
    }


def open_report(call: PageCall) -> Response:
    """The report of what is ticked, for a frame of its own."""
    result, _ = read_result(call)
    return HTMLResponse(report_page(result), headers={"content-security-policy": REPORT_POLICY})


def read_sweep(call: PageCall) -> tuple[SweepForm, Path]:
    """The study of the form, and the folder it will have."""
    app = call.app
    values: Mapping[str, Any] = {name: value for name, value in call.values.items() if name != "name"}
    form = SweepForm.parse(values)
    varied = [{key: value} for key, choices in form.grid.items() for value in choices]
    require_offered([form.base.overrides, *varied], app.nets, app.data)  # before the recipes are made, as in Train
    study = form.study()
    name = call.text("name").strip() or app.runs.free_name(study.name, app.jobs.reserved())
    return form, app.runs.new(name)


def check_study(call: PageCall) -> dict[str, Any]:
    """How many runs the study of the form has, and the same without the page."""
    form, folder = read_sweep(call)
    same = form.same_as(folder, call.app.data_dir).to_dict()
    return {**same, "name": folder.name, "num_runs": len(form.study().recipes)}


def start_study(call: PageCall) -> dict[str, str]:
    """Put the study into the queue."""
    form, folder = read_sweep(call)
    job = call.app.jobs.add("study", form.words(folder, call.app.data_dir), folder.name)
    return {"job": job.id, "name": folder.name}


TAB = Tab(
    "compare",
    "Compare",
    (
        json_route("/api/compare/list", list_all),
        computed_route("/api/compare", compare_all, channel="compare", posts=False),
        computed_route("/report", open_report, channel="report", posts=False),
        json_route("/api/compare/check", check_study, posts=True, checks=True),
        json_route("/api/compare/start", start_study, posts=True),
    ),
)
