"""Scores of predictions: accuracy, calibration, and how well they tell unknown images from known ones."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, multiclass_calibration_error


def prediction_scores(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Scores probabilities ``(n, classes)`` against labels ``(n,)``.

    Returns:
        ``accuracy`` in %; ``nll``, the mean negative log-likelihood, in nats; ``brier``, the mean squared error summed
        over classes; ``ece``, the expected calibration error over 15 bins of confidence, in %.

    Raises:
        ValueError: A probability is NaN or infinite.
    """
    broken = (~probabilities.isfinite()).any(1).sum().item()
    if broken:
        raise ValueError(f"the probabilities of {broken} of {len(labels)} images are NaN: the network has diverged")
    classes = probabilities.shape[1]
    found = {
        "accuracy": 100 * (probabilities.argmax(1) == labels).float().mean(),
        "nll": F.nll_loss(probabilities.clamp_min(1e-12).log(), labels),
        "brier": (probabilities - F.one_hot(labels, classes)).square().sum(1).mean(),
        "ece": 100 * multiclass_calibration_error(probabilities, labels, classes, n_bins=15),
    }
    return {name: value.item() for name, value in found.items()}


def ood_auroc(probabilities: Tensor, others: Tensor) -> float:
    """Returns how well the largest probability separates known images from others: the area under the ROC curve, in %.

    Args:
        probabilities: ``(n, classes)``, for images like those of the training set.
        others: ``(m, classes)``, for images of something else.
    """
    confidence = torch.cat([probabilities.amax(1), others.amax(1)])
    known = torch.cat([torch.ones(len(probabilities)), torch.zeros(len(others))]).long()
    return 100 * binary_auroc(confidence, known.to(confidence.device)).item()
