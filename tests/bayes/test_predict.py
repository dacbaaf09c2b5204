import math

import pytest
import torch
from torch import nn

from dwp_init.bayes import bayesianize_, posterior_mean_, predict, predict_samples, predictive_entropy


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
    parts = predict_samples(network(), IMAGES, 5, torch.Generator().manual_seed(2), batch_size=3)
    torch.testing.assert_close(parts, first)
    with pytest.raises(ValueError, match="samples must be a whole number from 1"):
        predict_samples(network(), IMAGES, 0)
    torch.testing.assert_close(first.sum(2), torch.ones(5, 7))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_probabilities_of_half_precision_sum_to_one(dtype: torch.dtype) -> None:
    found = predict(network().to(dtype), IMAGES.to(dtype))
    torch.testing.assert_close(found.sum(1), torch.ones(7), rtol=1e-6, atol=0)


def test_entropies_of_known_predictions() -> None:
    found = predictive_entropy(torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.25, 0.75], [0.5, 0.5]]]))
    quarter = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    torch.testing.assert_close(found, torch.tensor([[math.log(2), 0.0], [quarter, math.log(2)]]))
