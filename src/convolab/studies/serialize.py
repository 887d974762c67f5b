"""A study's result as plain values, for JSON: whatever a script wants to know."""

from dataclasses import asdict
from typing import Any

from convolab.core.stats import mean_interval
from convolab.studies.outcomes import Arm, ContrastResult
from convolab.studies.results import BestOnTest, SectionResult, StudyResult


def study_result_to_dict(result: StudyResult) -> dict[str, Any]:
    """Every arm's numbers, every answer and the best run's test. Accuracies are fractions, losses nats, times seconds."""
    trial_results = result.trial_results.values()
    return {
        "study": result.study.name,
        "runs": len(trial_results),
        "done": sum(outcome.status in ("finished", "diverged") for outcome in trial_results),
        "training_seconds": sum(epoch.train_seconds for outcome in trial_results for epoch in outcome.history),
        "sections": {section.name: section_result_to_dict(section) for section in result.sections},
        "best_on_test": best_on_test_to_dict(result.best_on_test) if result.best_on_test else None,
        "notes": list(result.notes),
    }


def section_result_to_dict(section: SectionResult) -> dict[str, Any]:
    return {
        "arms": {arm.name: arm_to_dict(arm, section) for arm in section.arms},
        "contrasts": [contrast_result_to_dict(answer) for answer in section.contrast_results],
        "comment": section.comment,
    }


def arm_to_dict(arm: Arm, section: SectionResult) -> dict[str, Any]:
    """The status of each seed, and every metric that the section lists, with its mean and interval."""
    values = {name: arm.values(metric) for name, metric in section.section.reported_metrics.items()}
    return {
        "runs": {
            str(o.trial.seed): {
                "status": o.status,
                "recipe_key": o.trial.recipe.key,
                "epochs": len(o.history),
                "reason": o.reason,
            }
            for o in arm.results
        },
        "metrics": {
            name: {
                "by_seed": {str(seed): value for seed, value in found.items()},
                **asdict(mean_interval(list(found.values()))),
            }
            for name, found in values.items()
            if found
        },
    }


def contrast_result_to_dict(result: ContrastResult) -> dict[str, Any]:
    return {
        **result.contrast.model_dump(),
        "seeds": list(result.seeds),
        "paired": asdict(result.paired_test) if result.paired_test else None,
        "adjusted_p": result.p_adjusted,
        "verdict": result.verdict,
        "reason": result.reason,
        "parts_from_epoch": result.curves_separate_from_epoch,
        "comment": result.comment,
    }


def best_on_test_to_dict(best: BestOnTest) -> dict[str, Any]:
    trial = best.trial_result.trial
    return {
        "section": trial.section,
        "arm": trial.arm,
        "seed": trial.seed,
        "recipe_key": trial.recipe.key,
        "candidates": best.num_candidates,
        "validation_accuracy": best.validation_accuracy,
        "validation_count": best.num_validation_images,
        "inflation": best.selection_bias,
        "test": best.test_result,
        "comment": best.comment,
    }
