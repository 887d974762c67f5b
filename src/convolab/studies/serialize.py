"""A study's result as plain values, for JSON: whatever a script wants to know."""

from dataclasses import asdict

from convolab.core.types import Json
from convolab.studies.results import Arm, BestOnTest, ContrastResult, SectionResult, StudyResult, train_seconds
from convolab.studies.tables import finished_metric_interval, finished_metric_values


def study_result_to_dict(result: StudyResult) -> dict[str, Json]:
    """Every arm's numbers, every contrast's result and the best run's test.

    Accuracies are fractions, losses nats, times seconds.
    """
    trial_results = result.trial_results.values()
    return {
        "study": result.study.name,
        "num_runs": len(trial_results),
        "num_completed": sum(r.is_complete for r in trial_results),
        "train_seconds": train_seconds(trial_results),
        "sections": {section.name: section_result_to_dict(section) for section in result.sections},
        "best_on_test": best_on_test_to_dict(result.best_on_test) if result.best_on_test else None,
        "notes": list(result.notes),
    }


def section_result_to_dict(result: SectionResult) -> dict[str, Json]:
    return {
        "arms": {arm.name: arm_to_dict(arm, result) for arm in result.arms},
        "contrasts": [contrast_result_to_dict(contrast_result) for contrast_result in result.contrast_results],
        "comment": result.comment,
    }


def arm_to_dict(arm: Arm, section: SectionResult) -> dict[str, Json]:
    """The status of each seed's run, and every metric that the section lists and the arm has, with mean and interval."""
    metrics: dict[str, Json] = {}
    for name, metric in section.section.reported_metrics.items():
        if interval := finished_metric_interval(arm, metric):
            by_seed = {str(seed): value for seed, value in finished_metric_values(arm, metric).items()}
            metrics[name] = {"by_seed": by_seed, **asdict(interval)}
    runs = {
        str(r.trial.seed): {
            "status": r.status,
            "recipe_key": r.trial.recipe.key,
            "epochs": len(r.history),
            "reason": r.reason,
        }
        for r in arm.results
    }
    return {"runs": runs, "metrics": metrics}


def contrast_result_to_dict(result: ContrastResult) -> dict[str, Json]:
    return {
        **result.contrast.model_dump(),
        "seeds": list(result.seeds),
        "paired_test": asdict(result.paired_test) if result.paired_test else None,
        "margin": result.margin,
        "p_adjusted": result.p_adjusted,
        "p_equivalent": result.p_equivalent,
        "verdict": result.verdict,
        "reason": result.reason,
        "seeds_needed": result.seeds_needed,
        "curves_separate_from_epoch": result.curves_separate_from_epoch,
        "comment": result.comment,
        "looks": [asdict(look) for look in result.looks],
        "optimum": {**asdict(result.optimum), "is_inside": result.optimum.is_inside} if result.optimum else None,
    }


def best_on_test_to_dict(best: BestOnTest) -> dict[str, Json]:
    trial = best.trial_result.trial
    return {
        "section": trial.section,
        "arm": trial.arm,
        "seed": trial.seed,
        "recipe_key": trial.recipe.key,
        "num_candidates": best.num_candidates,
        "validation_accuracy": best.validation_accuracy,
        "num_validation_images": best.num_validation_images,
        "selection_bias": best.selection_bias,
        "test_result": best.test_result.to_dict(),
        "comment": best.comment,
    }
