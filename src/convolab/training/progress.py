"""How far a training is: what a state holds of it beside the tensors."""

from dataclasses import dataclass, field

from convolab.core.errors import require
from convolab.training.history import EpochMetrics


@dataclass
class TrainingProgress:
    """Progress of a training, between two steps."""

    epoch: int = 0  # epochs done
    step: int = 0  # steps done of the next epoch
    loss_sum: float = 0.0  # the next epoch's sum over images so far, nats
    correct: int = 0
    num_images: int = 0
    seconds: float = 0.0
    history: list[EpochMetrics] = field(default_factory=list)

    def require_possible(self, epochs: int, steps_per_epoch: int, batch_size: int, images_per_epoch: int) -> None:
        """Raise LabError for numbers that contradict one another, or a training of this length."""
        seen = min(self.step * batch_size, images_per_epoch)
        checks = {
            f"{self.epoch} epochs of {epochs}": 0 <= self.epoch <= epochs,
            f"{len(self.history)} epochs' metrics after {self.epoch} epochs": (
                [metrics.epoch for metrics in self.history] == list(range(1, self.epoch + 1))
            ),
            f"{self.step} steps of {steps_per_epoch} of an epoch": 0 <= self.step <= steps_per_epoch,
            f"{self.num_images} images after {self.step} steps": self.num_images == seen,
            f"{self.correct} right images of {self.num_images}": 0 <= self.correct <= self.num_images,
            f"{self.seconds} seconds": self.seconds >= 0,
        }
        for what, is_possible in checks.items():
            require(is_possible, f"this state is damaged: it has {what}")
