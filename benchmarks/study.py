"""What does a study gain by training its trials side by side, and what does it cost beside them?

    python benchmarks/study.py --data-dir DIR [--rounds 3] [--trials 10] [--limit 10000] [--epochs 2] [--reports]

trains the same ten trials of simple_convnet on CIFAR-10, ten learning rates, in four ways in turn, each in a fresh process, and
prints a table as in README.md beside it; then what the local engine adds to the trials' own time, its memory, and, with
--reports, the time and size of a report of 1,000 runs.
"""

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from measure import compare, cores, in_rounds, processor, ratios, run, table, verdict

STARTED = time.perf_counter()
BATCH, HELD_BACK = 128, 0.1
GOALS = {"one after another": 1.25, "ray tune": 2.5, "optuna": 2.5}
ADDED, ADDED_AT_ONCE = 0.03, 2.0  # goals: share of the trials' own time, and seconds
TRIAL_MB = 500  # goal: memory of a trial beside the set


def rates(trials: int) -> list[float]:
    """The learning rates that the trials differ by."""
    return [round(0.001 * 30 ** (i / max(trials - 1, 1)), 6) for i in range(trials)]


# ---------------------------------------------------------------- our side


def recipes(given: argparse.Namespace) -> list[Any]:
    from convolab.training.recipe import Recipe

    base = Recipe.from_dict(
        {
            "data": {"name": "cifar10", "limit": given.limit, "validation": HELD_BACK},
            "model": {"name": "simple_convnet"},
            "training": {"epochs": given.epochs, "batch_size": BATCH},
        }
    )
    return [base.with_overrides({"optimizer.lr": rate}) for rate in rates(given.trials)]


def study(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Side by side, as `convolab study` does: a process and a thread a trial, forked from a server that is begun before all else."""
    from convolab.studies.forkserver import worker_context

    worker_context()
    from convolab.data.catalog import load
    from convolab.data.memmap import write_memmap
    from convolab.studies.executor import TERMINAL_EVENTS, Job, JobEvent, LocalExecutor
    from convolab.training.run import Run

    begun, wall = {}, 0.0  # when a trial started

    def hear(news: JobEvent) -> None:
        nonlocal wall
        if news.kind == "started":
            begun[news.key] = time.perf_counter()
        elif news.kind in TERMINAL_EVENTS:
            wall += time.perf_counter() - begun[news.key]
            assert news.kind == "finished", news

    jobs = [Job(recipe, folder / recipe.key) for recipe in recipes(given)]
    write_memmap(load("cifar10", given.data_dir), folder / "images")
    engine = time.perf_counter()
    LocalExecutor(cores()).run(jobs, folder / "images", hear, lambda: False)
    end = time.perf_counter()
    own = sum(Run(job.folder).summary["train_seconds"] for job in jobs)
    return {"seconds": end - STARTED, "engine": end - engine, "trials": wall / cores(), "training": own / cores()}


def one_after_another(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The same runs in turn in one process, each with all threads: `convolab train` in a loop that reads the images once."""
    from convolab.data.catalog import load
    from convolab.training.run import Run

    images = load("cifar10", given.data_dir)
    for recipe in recipes(given):
        Run.start(recipe, images, folder / recipe.key)
    return {"seconds": time.perf_counter() - STARTED}


# ---------------------------------------------------------------- theirs


def idiomatic_trial(data_dir: Path, limit: int, epochs: int, rate: float) -> Iterator[float]:
    """The plain loop of the PyTorch tutorial (see peers.py), with the validation of Ray Tune's and Optuna's own PyTorch examples.

    Yields the validation accuracy after each epoch (docs.ray.io/en/latest/tune/examples/tune-pytorch-cifar.html,
    github.com/optuna/optuna-examples/blob/main/pytorch/pytorch_simple.py).
    """
    import torch
    from peers import CIFAR10, MEAN, MOMENTUM, STD, WEIGHT_DECAY, simple_convnet, training_set
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms

    held = math.ceil(limit * HELD_BACK)
    plain = CIFAR10(
        data_dir, train=True, transform=transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    )
    train = DataLoader(Subset(training_set(data_dir), range(limit - held)), batch_size=BATCH, shuffle=True)
    validation = DataLoader(Subset(plain, range(limit - held, limit)), batch_size=BATCH)
    net, criterion = simple_convnet(), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    for _ in range(epochs):
        net.train()
        for inputs, labels in train:
            optimizer.zero_grad()
            loss = criterion(net(inputs), labels)
            loss.backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            correct = sum((net(inputs).argmax(1) == labels).sum().item() for inputs, labels in validation)
        yield correct / held


def ray_tune(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Ray Tune: a grid of rates, a core a trial, as many at once as there are cores."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0", "PYTHONPATH": str(Path(__file__).parent)}
    import logging

    import ray
    from ray import tune

    data_dir, limit, epochs = given.data_dir.resolve(), given.limit, given.epochs

    def trial(config: dict[str, Any]) -> None:
        for accuracy in idiomatic_trial(data_dir, limit, epochs, config["lr"]):
            tune.report({"accuracy": accuracy})

    ray.init("local", num_cpus=cores(), include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    results = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space={"lr": tune.grid_search(rates(given.trials))},
        run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
    ).fit()
    seconds = time.perf_counter() - STARTED
    assert not results.errors, results.errors
    assert len(results) == given.trials
    ray.shutdown()
    return {"seconds": seconds}


def optuna(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Optuna: the same grid, `n_jobs` threads of one process, each with one thread of torch's, as Ray's and our trials have."""
    import optuna
    import torch

    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial: optuna.Trial) -> float:
        torch.set_num_threads(1)  # of the calling thread
        rate = trial.suggest_categorical("lr", rates(given.trials))
        for epoch, accuracy in enumerate(idiomatic_trial(given.data_dir, given.limit, given.epochs, rate)):
            trial.report(accuracy, epoch)
        return accuracy

    sampler = optuna.samplers.GridSampler({"lr": rates(given.trials)}, seed=0)
    done = optuna.create_study(direction="maximize", sampler=sampler)
    done.optimize(objective, n_trials=given.trials, n_jobs=cores())
    seconds = time.perf_counter() - STARTED
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in done.trials)
    assert len(done.trials) == given.trials
    return {"seconds": seconds}


# ---------------------------------------------------------------- memory, reports


def memory(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The study once more, with the memory of all its processes summed every quarter of a second, shared pages counted once."""
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.25):
            peak = max(peak, sum(proportional_mb(pid) for pid in family(os.getpid())))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        study(given, folder)
    finally:
        done.set()
        watcher.join()
    images = sum(path.stat().st_size for path in (folder / "images").glob("*.npy")) / 1e6
    return {"peak": peak, "set": images}


def family(pid: int) -> list[int]:
    """A process and all that descend from it; Linux only."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            children.setdefault(int(path.read_text().rpartition(")")[2].split()[1]), []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def proportional_mb(pid: int) -> float:
    """A process's memory in MB (10^6 bytes), with a page that n processes share counted as an nth of one."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6  # the file has KiB
    return 0.0


def report(given: argparse.Namespace, folder: Path) -> dict[str, float]:
    """The report of 1,000 runs of 50 epochs: 20 sections of 10 arms with 5 seeds each, with made-up curves."""
    import random

    from convolab.core.environment import hardware_info, package_versions
    from convolab.reports.studies import write_study_report
    from convolab.studies.analyze import analyze_study
    from convolab.studies.results import StudyResult, TrialResult
    from convolab.studies.study import Study
    from convolab.training.history import EpochMetrics

    def made_up(key: str, effect: float) -> tuple[EpochMetrics, ...]:
        draw = random.Random(key)
        level, lines = 0.6 + effect + draw.gauss(0, 0.01), []
        for epoch in range(1, 51):
            accuracy = level * (1 - math.exp(-epoch / 8)) + draw.gauss(0, 0.004)
            loss = 2.3 * math.exp(-epoch / 12) + 0.5 - effect
            lines.append(EpochMetrics(epoch, loss, accuracy, loss + 0.1, accuracy - 0.02, 0.1, 10.0, 4500.0, "running"))
        return tuple(lines)

    arms = {f"rate {rate:g}": {"optimizer.lr": rate} for rate in rates(10)}
    names = list(arms)
    contrasts = [{"arm": name, "baseline": names[0], "metric": "final_validation_accuracy"} for name in names[1:]]
    sections = {
        f"width {width}": {"overrides": {"model.channels": [width, 2 * width]}, "arms": arms, "contrasts": contrasts}
        for width in range(4, 24)
    }
    whole = Study.from_dict({"name": "thousand", "seeds": list(range(5)), "sections": sections})
    about = {
        "data": {"train_sha256": "made up", "test_sha256": "made up"},
        "threads": 1,
        "device": "cpu",
        "precision": "fp32",
        "hardware": hardware_info(),
        "versions": package_versions(),
    }
    outcomes = [
        TrialResult(trial, "finished", made_up(trial.recipe.key, 0.01 * names.index(trial.arm)), summary=about)
        for trial in whole.trials
    ]
    assert len(whole.recipes) == 1000
    start = time.perf_counter()
    concluded = analyze_study(whole, outcomes)
    drawn = time.perf_counter()
    path = folder / "report.html"
    write_study_report(StudyResult(whole, concluded, None), path)
    end = time.perf_counter()
    return {"conclusions": drawn - start, "report": end - drawn, "megabytes": path.stat().st_size / 1e6}


CONTENDERS = {
    "convolab study": study,
    "one after another": one_after_another,
    "ray tune": ray_tune,
    "optuna": optuna,
    "memory": memory,
    "report": report,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="the folder that holds cifar-10-batches-py")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--limit", type=int, default=10_000, help="images of a trial, the tenth held back included")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--reports", action="store_true", help="also draw a report of 1,000 runs")
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)  # what the processes are called with
    given = parser.parse_args()
    if given.one:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
            line = CONTENDERS[given.one](given, Path(folder))
        images = (given.limit - math.ceil(given.limit * HELD_BACK)) * given.epochs * given.trials
        print(json.dumps(line | ({"images_per_second": images / line["seconds"]} if "seconds" in line else {})))
        return
    common = [
        "--data-dir",
        str(given.data_dir),
        "--trials",
        str(given.trials),
        "--limit",
        str(given.limit),
        "--epochs",
        str(given.epochs),
    ]
    commands = {name: [sys.executable, __file__, *common, "--one", name] for name in CONTENDERS}
    print(
        f"{processor()}; {given.rounds} rounds of {given.trials} trials of {given.epochs} epochs of {given.limit} images\n"
    )
    results = in_rounds({name: commands[name] for name in ("convolab study", *GOALS)}, given.rounds)
    print(f"{table(compare(results, 'convolab study'))}\n")
    for name, ratio in ratios(results, "convolab study", "images_per_second").items():
        if name in GOALS:
            print(f"- {ratio:.2f} x {name} (goal {GOALS[name]:g} x: {verdict(ratio >= GOALS[name])})")
    ours = results["convolab study"]
    added = median(line["engine"] - line["trials"] for line in ours)
    allowed = median(ADDED * line["trials"] + ADDED_AT_ONCE for line in ours)
    beyond = median(line["engine"] - line["training"] for line in ours)
    print(
        f"- the engine adds {added:.1f} s to {median(line['trials'] for line in ours):.1f} s of its trials, from each one's start to its end"
        f" over the cores (goal 3 % + 2 s, {allowed:.1f} s: {verdict(added <= allowed)});"
        f" {beyond:.1f} s to the steps of training alone, which leave out validation and files"
    )
    if Path("/proc/self/smaps_rollup").exists():
        line = run("memory", commands["memory"])
        most = line["set"] + TRIAL_MB * min(cores(), given.trials)
        print(
            f"- memory of all processes at its peak: {line['peak']:.0f} MB, the set of {line['set']:.0f} MB included"
            f" (goal the set and {TRIAL_MB} MB a trial, {most:.0f} MB: {verdict(line['peak'] <= most)})"
        )
    if given.reports:
        line = run("report", commands["report"])
        met = verdict(line["report"] <= 10 and line["megabytes"] <= 5)
        print(
            f"- a report of 1,000 runs: {line['report']:.1f} s, {line['megabytes']:.1f} MB (goal 10 s, 5 MB: {met});"
            f" its conclusions {line['conclusions']:.1f} s"
        )


if __name__ == "__main__":
    main()
