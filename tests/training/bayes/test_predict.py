import math

import pytest
import torch
from torch import nn

from training.bayes import bayesianize_, ood_auroc, posterior_mean_, predict, predict_samples, prediction_scores


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(72, 3))
    bayesianize_(model, scale=0.3)
    return model


IMAGES = torch.rand(7, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_predictions_are_those_of_the_mean_network() -> None:
    model = network().train()
    model[1].eval()
    found = predict(model, IMAGES, batch_size=3)
    assert model.training and not model[1].training
    torch.testing.assert_close(found, posterior_mean_(network()).eval()(IMAGES).softmax(1))
    torch.testing.assert_close(found.sum(1), torch.ones(7))
    assert not found.requires_grad


def test_samples_are_predictions_of_drawn_networks() -> None:
    first, again = (predict_samples(network(), IMAGES, 5, torch.Generator().manual_seed(2)) for _ in range(2))
    assert first.shape == (5, 7, 3) and torch.equal(first, again)
    assert (first.std(0) > 1e-3).all()
    with pytest.raises(ValueError, match="samples must be a whole number from 1"):
        predict_samples(network(), IMAGES, 0)
    torch.testing.assert_close(first.sum(2), torch.ones(5, 7))


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
