"""A study's result as plain values, for JSON: whatever a script wants to know."""

from dataclasses import asdict
from typing import Any

from convolab.core.stats import mean_interval
from convolab.studies.outcomes import Answer, Arm
from convolab.studies.results import BestOnTest, SectionResult, StudyResult


def facts(result: StudyResult) -> dict[str, Any]:
    """Every arm's numbers, every answer and the best run's test. Accuracies are fractions, losses nats, times seconds."""
    outcomes = result.outcomes.values()
    return {
        "study": result.study.name,
        "runs": len(outcomes),
        "done": sum(outcome.status in ("finished", "diverged") for outcome in outcomes),
        "training_seconds": sum(epoch.seconds for outcome in outcomes for epoch in outcome.history),
        "sections": {section.name: of_section(section) for section in result.sections},
        "best_on_test": of_best(result.best) if result.best else None,
        "notes": list(result.notes),
    }


def of_section(section: SectionResult) -> dict[str, Any]:
    return {
        "arms": {arm.name: of_arm(arm, section) for arm in section.arms},
        "contrasts": [of_answer(answer) for answer in section.answers],
        "comment": section.comment,
    }


def of_arm(arm: Arm, section: SectionResult) -> dict[str, Any]:
    """The status of each seed, and every metric that the section lists, with its mean and interval."""
    values = {name: arm.values(metric) for name, metric in section.section.listed.items()}
    return {
        "runs": {
            str(o.trial.seed): {
                "status": o.status,
                "recipe_key": o.trial.recipe.key,
                "epochs": len(o.history),
                "reason": o.reason,
            }
            for o in arm.outcomes
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


def of_answer(answer: Answer) -> dict[str, Any]:
    return {
        **answer.contrast.model_dump(),
        "seeds": list(answer.seeds),
        "paired": asdict(answer.paired) if answer.paired else None,
        "adjusted_p": answer.adjusted,
        "verdict": answer.verdict,
        "reason": answer.reason,
        "parts_from_epoch": answer.parts_from,
        "comment": answer.comment,
    }


def of_best(best: BestOnTest) -> dict[str, Any]:
    trial = best.outcome.trial
    return {
        "section": trial.section,
        "arm": trial.arm,
        "seed": trial.seed,
        "recipe_key": trial.recipe.key,
        "candidates": best.candidates,
        "validation_accuracy": best.validation_accuracy,
        "validation_count": best.validation_count,
        "inflation": best.inflation,
        "test": best.record,
        "comment": best.comment,
    }
