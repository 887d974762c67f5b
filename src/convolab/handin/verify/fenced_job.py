"""What happens behind the fence: a recipe is trained, or a notebook executed. The claims to compare with stay outside."""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

JOB, RESULT = "job.json", "result.json"  # what is to be done, and what came of it
MAX_MORE_PROCESSES = 4096  # processes and threads, beside those that the user has already


def do_job(folder: Path) -> None:
    """Do the job that a folder holds, and write its result there."""
    from convolab.core.limits import VARIABLE, lift_limits

    lift_limits(os.environ.get(VARIABLE, ""))
    job = json.loads((folder / JOB).read_text(encoding="utf-8"))
    set_limits(*job["limits"])
    try:
        result = {"rerun": train_again, "execute": execute_notebook}[job["kind"]](folder, job)
    except MemoryError:
        result = {"error": "it needs more memory than the limit allows"}
    except (Exception, SystemExit) as error:  # of code that is not ours: whatever it raises is its result
        last, kind = traceback.extract_tb(error.__traceback__)[-1], type(error).__name__
        text = " ".join(str(error).split())[:1000]
        is_ours = kind in ("LabError", "Diverged")
        result = {"error": text if is_ours else f"{kind}: {text} ({Path(last.filename).name}, line {last.lineno})"}
    part = folder / f".{RESULT}"
    part.write_text(json.dumps(result), encoding="utf-8")
    part.replace(folder / RESULT)


def set_limits(memory_bytes: int, file_bytes: int, open_files: int, seconds: int) -> None:
    """Limit this process and all that it starts, where the system can."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    cores = 64  # seconds of a processor are those of all threads together
    # Not RLIMIT_AS: torch, and the JavaScript that draws charts, reserve far more addresses than they use.
    wanted = {"RLIMIT_DATA": memory_bytes, "RLIMIT_FSIZE": file_bytes, "RLIMIT_NOFILE": open_files}
    wanted |= {"RLIMIT_CPU": cores * seconds, "RLIMIT_CORE": 0, "RLIMIT_NPROC": count_threads() + MAX_MORE_PROCESSES}
    for name, limit in wanted.items():
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        try:
            resource.setrlimit(kind, (limit, limit))
        except (ValueError, OSError):
            continue  # macOS knows some of them by name alone


def count_threads() -> int:
    """How many processes and threads this user has, as far as they can be seen from here."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == os.getuid():
                count += sum(1 for _ in (process / "task").iterdir())
        except OSError:
            continue  # it has ended
    return count


def train_again(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Train the recipe in recipe.toml, with the copies of own code in code/, and say all that is compared."""
    import torch

    from convolab.core.environment import count_usable_cores, hardware_info, package_versions
    from convolab.core.files import sha256_of_file
    from convolab.core.free_cores import use_threads
    from convolab.core.run_files import RECIPE_FILE
    from convolab.core.trust import trust_here
    from convolab.data.catalog import load
    from convolab.models.own_code import code_of_record, provide_code
    from convolab.training.recipe import Recipe
    from convolab.training.run import Run
    from convolab.training.run_code import code_folder

    trust_here(job["trusted"])
    use_threads(max(1, min(int(job["threads"] or 1), count_usable_cores())))
    for part, record in job["codes"].items():
        provide_code(job["own_parts"][part], code_of_record(code_folder(folder, part), record))
    recipe = Recipe.read(folder / RECIPE_FILE)
    splits = load(recipe.data.name, job["data_dir"], image_size=recipe.data.image_size, download=False)
    run = Run.start(recipe, splits, folder / "again", device="cpu")
    test = run.test(splits=splits) if job["tested"] and run.status == "finished" else None
    weights = {path.name: sha256_of_file(path) for path in sorted(run.folder.glob("[bl]*.safetensors"))}
    return {
        "history": [epoch.to_record() for epoch in run.history],
        "weights": weights,
        "test": None if test is None else {"accuracy": test.accuracy, "loss": test.loss, "confusion": test.confusion},
        "threads": torch.get_num_threads(),
        "precision": run.summary["precision"],
        "versions": dict(package_versions()),
        "hardware": dict(hardware_info()),
        "data_key": run.summary["data_key"],
    }


def execute_notebook(folder: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Run a notebook from its first cell to its last; cells that fail keep their error, and the others go on."""
    import os

    import nbformat
    from nbclient import NotebookClient

    os.environ.update({"CONVOLAB_FAST": "1" if job["fast"] else "0", "CONVOLAB_HOMEWORK_DATA": job["data"]})
    # Datasets that are there are read; what is written, such as caches and trust, stays in this folder.
    home = Path(os.environ["CONVOLAB_DATA"])
    home.mkdir(parents=True, exist_ok=True)
    for name, path in job["datasets"].items():
        (home / name).symlink_to(path)
    if job["threads"]:
        os.environ["OMP_NUM_THREADS"] = str(job["threads"])
    path = folder / job["notebook"]
    notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    work = folder / "work"
    work.mkdir()
    client = NotebookClient(
        notebook, timeout=None, kernel_name="python3", allow_errors=True, record_timing=False, coalesce_streams=True,
        resources={"metadata": {"path": str(work)}},
    )  # fmt: skip
    client.execute(env=dict(os.environ))
    (folder / "executed.ipynb").write_text(nbformat.writes(notebook), encoding="utf-8")
    return {"executed": "executed.ipynb"}


if __name__ == "__main__":
    do_job(Path(sys.argv[1]))
