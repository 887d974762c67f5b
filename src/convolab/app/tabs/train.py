"""The tab Train: choose a recipe, start it, watch its curves, stop it and go on; the queue of what waits."""

from pathlib import Path
from typing import Any

import convolab
from convolab.app.answers import PageCall, Tab, json_route
from convolab.app.choices import RECIPE_CHOICES, dataset_choices, network_choices
from convolab.app.forms import TrainForm, is_count
from convolab.app.playing_back import show_playback
from convolab.app.run_rows import run_curves, run_rows
from convolab.app.same_as import command_line, option_words, python_literal


def offer(call: PageCall) -> dict[str, Any]:
    """What the controls offer, and the default recipe."""
    app = call.app
    return {
        "data": dataset_choices(app.data, app.data_dir),
        "net": network_choices(app.nets),
        **RECIPE_CHOICES,
        "recipe": convolab.Recipe().to_dict(),
    }


def read_form(call: PageCall) -> tuple[TrainForm, convolab.Recipe, Path]:
    """The form, its recipe, and the folder that its run will have."""
    app = call.app
    values = dict(call.values)
    name = str(values.pop("name", "")).strip()
    form = TrainForm.parse(values)
    recipe = form.recipe()
    require_offered(recipe, app.data)
    free = app.runs.free_name(f"{recipe.model.name}-{recipe.data.name}", app.jobs.reserved())
    return form, recipe, app.runs.new(name or free)


def require_offered(recipe: convolab.Recipe, own: tuple[str, ...]) -> None:
    """Raise LabError for images at a path that the server was not given: the page opens no other."""
    name = recipe.data.name
    if ":" in name and name not in own:
        raise convolab.LabError(f"the page reads no path that it was not given: start it with --data {name}")
    weights = recipe.model.weights
    if weights is not None and weights != "pretrained":
        raise convolab.LabError("the page reads no file of weights: use the command line for model.weights")


def check_training(call: PageCall) -> dict[str, str]:
    """The same as a command and as Python, for the form as it is now."""
    form, _, folder = read_form(call)
    return {**form.same_as(folder, call.app.data_dir).to_dict(), "name": folder.name}


def start_training(call: PageCall) -> dict[str, str]:
    """Put the training into the queue."""
    form, _, folder = read_form(call)
    job = call.app.jobs.add("train", form.words(folder, call.app.data_dir), folder.name)
    return {"job": job.id, "name": folder.name}


def list_runs(call: PageCall) -> dict[str, Any]:
    """All runs, and what the messages of the last jobs that failed."""
    jobs = call.app.jobs.entries()
    failed = [{"run": job.run, "message": job.message} for job in jobs[-10:] if job.state == "ended" and job.message]
    return {"runs": run_rows(call.app.runs, jobs), "failed": failed[-3:]}


def resume_training(call: PageCall) -> dict[str, str]:
    """Put a stopped run into the queue again, or a finished one for more epochs, as a new run."""
    name, epochs = call.text("run"), call.text("epochs").strip()
    run = call.app.runs.run(name)
    if not epochs:
        job = call.app.jobs.add("resume", option_words("resume", str(run.folder), options={}), name)
        return {"job": job.id, "name": name}
    done = len(run.history)
    if not is_count(epochs) or int(epochs) <= done:
        raise convolab.LabError(f"{epochs[:20]} epochs: give the number in all, more than the {done} that are done")
    out = call.app.runs.new(call.app.runs.free_name(name.rpartition("/")[2], call.app.jobs.reserved()))
    words = option_words("resume", str(run.folder), options={"epochs": epochs, "out": out})
    return {"job": call.app.jobs.add("extend", words, out.name).id, "name": out.name}


def same_as_resume(call: PageCall) -> dict[str, str]:
    """The same as `resume_training`, as a command and as Python."""
    run, epochs = call.app.runs.run(call.text("run")), call.text("epochs").strip()
    command = command_line(option_words("resume", str(run.folder), options={"epochs": epochs or None}))
    method = f"extend({int(epochs)})" if is_count(epochs) else "resume()"
    return {
        "command": command,
        "python": f"import convolab\n\nrun = convolab.Run({python_literal(run.folder)}).{method}",
    }


TAB = Tab(
    "train",
    "Train",
    (
        json_route("/api/train/offer", offer),
        json_route("/api/train/check", check_training, posts=True, checks=True),
        json_route("/api/train/start", start_training, posts=True),
        json_route("/api/train/resume", resume_training, posts=True),
        json_route("/api/train/same-as-resume", same_as_resume),
        json_route("/api/runs", list_runs),
        json_route("/api/runs/curves", lambda call: [run_curves(call.app.runs, name) for name in call.texts("run")]),
        json_route("/api/runs/playback", lambda call: show_playback(call.app.runs, call.text("run"))),
        json_route("/api/jobs/stop", lambda call: {"state": call.app.jobs.stop(call.text("job")).state}, posts=True),
    ),
)
