"""convolab study: many runs, one conclusion."""

from convolab.cli.options import AsJson, DataDir, Device, Log
from convolab.cli.studies import (
    ExecutorName,
    Export,
    Hours,
    RayAddress,
    RetrainDamaged,
    SeedCount,
    StudyBudget,
    StudyData,
    StudyName,
    StudyOut,
    StudySections,
    Workers,
    choose_executor,
    read_plan,
    run_and_report_study,
)


def study_command(
    study: StudyName,
    data: StudyData = None,
    budget: StudyBudget = None,
    section: StudySections = None,
    seeds: SeedCount = None,
    data_dir: DataDir = None,
    executor: ExecutorName = "local",
    address: RayAddress = None,
    workers: Workers = None,
    device: Device = "cpu",
    out: StudyOut = None,
    retrain_damaged: RetrainDamaged = False,
    hours: Hours = None,
    log: Log = None,
    export: Export = None,
    as_json: AsJson = False,
) -> None:
    """Train a recipe under named overrides (arms) and several seeds, and report what the runs support.

    Before it: `convolab power` with the same study says what its seeds can show, and with --time about how long it takes.
    """
    chosen_executor = choose_executor(executor, address, workers, device)
    plan = read_plan(study, data, budget, section, seeds, data_dir)
    run_and_report_study(
        plan,
        out,
        data_dir=data_dir,
        executor=chosen_executor,
        retrain_damaged=retrain_damaged,
        export=export,
        as_json=as_json,
        hours=hours,
        log=log,
    )
