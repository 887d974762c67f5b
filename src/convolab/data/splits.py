"""A test set for pictures that come without one."""

from convolab.data.dataset import ImageDataset, stratified_split


def train_test_split(dataset: ImageDataset) -> tuple[ImageDataset, ImageDataset]:
    """Split into (train, test): of each class the same fifth is for the test whenever it is asked.

    Raises LabError if no class has two pictures.
    """
    subsets = stratified_split(dataset, 0.2, seed=0, stream="test")
    train, test = (ImageDataset(*dataset.gather(subset.indices), dataset.classes, dataset.name) for subset in subsets)
    return train, test
