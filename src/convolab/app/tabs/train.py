"""The tab Train: choose a recipe, start it, watch its curves, stop it and go on; the queue of what waits."""

from pathlib import Path
from typing import Any

import convolab
from convolab.app.answers import PageCall, Tab, json_route
from convolab.app.choices import RECIPE_CHOICES, dataset_choices, network_choices
from convolab.app.forms import TrainForm, is_count, require_offered
from convolab.app.playing_back import show_playback
from convolab.app.run_rows import run_curves, run_rows
from convolab.app.same_as import SameAs, command_line, option_words, python_call, python_literal


def offer(call: PageCall) -> dict[str, Any]:
    """What the controls offer, and the default recipe."""
    app = call.app
    return {
        "data": dataset_choices(app.data, app.data_dir),
        "net": network_choices(app.nets),
        **RECIPE_CHOICES,
        "recipe": convolab.Recipe().to_dict(),
    }


def read_form(call: PageCall) -> tuple[TrainForm, Path]:
    """The form, and the folder that its run will have."""
    app = call.app
    values = dict(call.values)
    name = str(values.pop("name", "")).strip()
    form = TrainForm.parse(values)
    require_offered([form.overrides], app.nets, app.data)  # before the recipe is made, which loads what it names
    recipe = form.recipe()
    free = app.runs.free_name(f"{recipe.model.name}-{recipe.data.name}", app.jobs.reserved())
    return form, app.runs.new(name or free)


def check_training(call: PageCall) -> dict[str, str]:
    """The same as a command and as Python, for the form as it is now."""
    form, folder = read_form(call)
    return {**form.same_as(folder, call.app.data_dir).to_dict(), "name": folder.name}


def start_training(call: PageCall) -> dict[str, str]:
    """Put the training into the queue."""
    form, folder = read_form(call)
    job = call.app.jobs.add("train", form.words(folder, call.app.data_dir), folder.name)
    return {"job": job.id, "name": folder.name}


def list_runs(call: PageCall) -> dict[str, Any]:
    """All runs, and what the messages of the last jobs that failed."""
    jobs = call.app.jobs.entries()
    failed = [{"run": job.run, "message": job.message} for job in jobs[-10:] if job.state == "ended" and job.message]
    return {"runs": run_rows(call.app.runs, jobs), "failed": failed[-3:]}


def read_resume(call: PageCall) -> tuple[Path, int | None, Path | None]:
    """The folder of the run that goes on; and for more epochs how many in all, and the folder of the new run."""
    name, epochs = call.text("run"), call.text("epochs").strip()
    run = call.app.runs.run(name)
    if not epochs:
        return run.folder, None, None
    done = len(run.history)
    if not is_count(epochs) or int(epochs) <= done:
        raise convolab.LabError(f"{epochs[:20]} epochs: give the number in all, more than the {done} that are done")
    free = call.app.runs.free_name(name.rpartition("/")[2], call.app.jobs.reserved())
    return run.folder, int(epochs), call.app.runs.new(free)


def resume_training(call: PageCall) -> dict[str, str]:
    """Put a stopped run into the queue again, or a finished one for more epochs, as a new run."""
    folder, epochs, out = read_resume(call)
    words = option_words("resume", str(folder), options={"epochs": epochs, "out": out})
    name = out.name if out else call.text("run")
    return {"job": call.app.jobs.add("extend" if out else "resume", words, name).id, "name": name}


def same_as_resume(call: PageCall) -> dict[str, str]:
    """The same as `resume_training`, as a command and as Python."""
    folder, epochs, out = read_resume(call)
    command = command_line(option_words("resume", str(folder), options={"epochs": epochs, "out": out}))
    run = f"convolab.Run({python_literal(folder)})"
    python = f"{run}.resume()" if epochs is None else python_call(f"{run}.extend", epochs, keywords={"out": out})
    return SameAs(command, f"import convolab\n\nrun = {python}").to_dict()


def same_as_test(call: PageCall) -> dict[str, str]:
    """A run's test as a command and as Python. The page makes none: the test images are used once, on purpose."""
    folder = call.app.runs.run(call.text("run")).folder
    command = command_line(option_words("test", str(folder), options={}))
    return SameAs(command, f"import convolab\n\nresult = convolab.Run({python_literal(folder)}).test()").to_dict()


TAB = Tab(
    "train",
    "Train",
    (
        json_route("/api/train/offer", offer),
        json_route("/api/train/check", check_training, posts=True, checks=True),
        json_route("/api/train/start", start_training, posts=True),
        json_route("/api/train/resume", resume_training, posts=True),
        json_route("/api/train/same-as-resume", same_as_resume, checks=True),
        json_route("/api/train/same-as-test", same_as_test, checks=True),
        json_route("/api/runs", list_runs),
        json_route("/api/runs/curves", lambda call: [run_curves(call.app.runs, name) for name in call.texts("run")]),
        json_route("/api/runs/playback", lambda call: show_playback(call.app.runs, call.text("run"))),
        json_route("/api/jobs/stop", lambda call: {"state": call.app.jobs.stop(call.text("job")).state}, posts=True),
    ),
)
