"""A test set for pictures that come without one."""

from convolab.data.dataset import ImageSet, stratified_split


def with_test_set(pictures: ImageSet) -> tuple[ImageSet, ImageSet]:
    """Split into (train, test): of each class the same fifth is for the test whenever it is asked.

    Raises LabError if no class has two pictures.
    """
    parts = stratified_split(pictures, 0.2, seed=0, purpose="test")
    train, test = (ImageSet(*pictures.take(part.rows), pictures.classes, pictures.name) for part in parts)
    return train, test
