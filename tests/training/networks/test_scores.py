import math

import pytest
import torch

from training.networks.scores import ood_auroc, prediction_scores


def test_scores_of_known_predictions() -> None:
    """Four images, one wrong; all with the same confidence, which is what calibration compares with."""
    probabilities = torch.tensor([[0.7, 0.3], [0.7, 0.3], [0.3, 0.7], [0.7, 0.3]])
    found = prediction_scores(probabilities, torch.tensor([0, 0, 1, 1]))
    assert found["accuracy"] == 75
    assert found["nll"] == pytest.approx(-(3 * math.log(0.7) + math.log(0.3)) / 4)
    assert found["brier"] == pytest.approx((3 * 2 * 0.3**2 + 2 * 0.7**2) / 4)
    assert found["ece"] == pytest.approx(5, abs=1e-4)


def test_certain_errors_have_a_finite_score() -> None:
    found = prediction_scores(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert found == {"accuracy": 0, "nll": pytest.approx(27.63, abs=0.01), "brier": 2, "ece": 100}


def test_a_network_that_diverged_has_no_score() -> None:
    with pytest.raises(ValueError, match="the probabilities of 1 of 2 images are NaN: the network has diverged"):
        prediction_scores(torch.tensor([[0.5, 0.5], [math.nan, math.nan]]), torch.tensor([0, 0]))


def test_unknown_images() -> None:
    sure, unsure = torch.tensor([[0.9, 0.1], [0.1, 0.9]]), torch.tensor([[0.6, 0.4], [0.5, 0.5]])
    assert ood_auroc(sure, unsure) == 100 and ood_auroc(unsure, sure) == 0 and ood_auroc(sure, sure) == 50
