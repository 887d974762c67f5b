"""A run on its test set: once, recorded; the images that it got wrong then; and a run on any other image."""

from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from convolab.core.errors import require
from convolab.core.files import write_json
from convolab.core.run_files import TEST_FILE
from convolab.core.types import MessageCallback
from convolab.data.image_io import ImageLike, open_image
from convolab.data.splits import DatasetSplits
from convolab.models.classifier import ImageClassifier
from convolab.models.inference import (
    compute_logits,
    describe_unsteady_logits,
    freeze_for_inference,
    require_finite_weights,
    top_classes,
)
from convolab.training.averaged_views import AveragedViews
from convolab.training.evaluation import evaluate
from convolab.training.predictions import DatasetPredictions, Mistakes, predict_dataset, worst_mistakes
from convolab.training.run_records import EvaluationRecord, new_evaluation_record, new_views_record
from convolab.training.setup import splits_of_run

if TYPE_CHECKING:
    from convolab.training.run import Run

NUM_TRIED = 3  # test images that are enough to see whether their logits depend on one another


def record_test(
    run: "Run",
    data_dir: Path | str | None,
    splits: DatasetSplits | None,
    allow_unfinished: bool,
    on_message: MessageCallback | None = None,
) -> EvaluationRecord:
    """The best weights on the test set, recorded in test.json; a second call returns the record. See `Run.test`."""
    run.require_same_recipe()
    net, epoch = run.load_weights("best")
    if record := run.test_result:
        require(
            record.epoch == epoch,
            f"{run.folder} was tested with the weights of epoch {record.epoch}, and its best are now of epoch "
            f"{epoch}: testing twice would turn the test set into a validation set; remove test.json to do so anyway",
        )
        return record
    require(
        allow_unfinished or run.status == "finished",
        f"{run.folder} is {run.status} after {len(run.history)} of {run.recipe.training.epochs} epochs: "
        f"{'' if run.status == 'diverged' else 'resume it first, or '}"
        "test it as it is (--allow-unfinished; in Python allow_unfinished=True)",
    )
    splits = splits_of_run(run, splits, on_message, data_dir)
    pixels = splits.test.gather(torch.arange(min(NUM_TRIED, len(splits.test))))[0] / 255
    predictions = predict_test_images(net, splits)
    with_views = None
    if views := run.recipe.metrics.test_views:
        with_views = new_views_record(views, evaluate(AveragedViews(net, views), splits.test))
    record = new_evaluation_record(predictions, epoch, describe_unsteady_logits(net, pixels), with_views)
    write_json(run.folder / TEST_FILE, {**run.run_id.to_dict(), **record.to_dict()})
    return record


def find_mistakes(run: "Run", count: int, data_dir: Path | str | None, splits: DatasetSplits | None) -> Mistakes:
    """The test images that a tested run got wrong. Its record stays as it is. See `Run.mistakes`."""
    require(
        run.test_result is not None,
        f"{run.folder} was not tested yet, and its mistakes are those of the test: test it first",
    )
    record_test(run, data_dir, splits, allow_unfinished=True)  # refuses other weights than those that were tested
    splits = splits_of_run(run, splits, None, data_dir)
    net, _ = run.load_weights("best")
    return worst_mistakes(predict_test_images(net, splits), splits.test, count)


def predict_test_images(net: ImageClassifier, splits: DatasetSplits) -> DatasetPredictions:
    """What a network with finite weights says of the test images."""
    require_finite_weights(net)
    return predict_dataset(net, splits.test)


def predict_image(run: "Run", image: ImageLike, top: int, max_pixels: int | None) -> list[tuple[str, float]]:
    """The `top` most probable classes of an image, with their probabilities. See `Run.predict`."""
    require(
        isinstance(top, Integral) and not isinstance(top, bool) and top >= 1,
        f"top = {top!r}: give how many classes are wanted, a whole number of at least 1",
    )
    net = freeze_for_inference(run.net())
    name, photo = open_image(image, max_pixels)
    pixels = net.preprocess(photo)
    unsteady = describe_unsteady_logits(net, torch.cat([pixels, pixels.flip(3), 1 - pixels]))
    require(not unsteady, f"{unsteady}; so it predicts nothing of one image")
    probabilities = compute_logits(net, pixels, image_name=name)[0].double().softmax(0)
    return [(found.name, found.probability) for found in top_classes(net.classes, probabilities, top)]
