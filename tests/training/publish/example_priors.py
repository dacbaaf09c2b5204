"""Priors with a licence and details of several forms, and how a card is taken apart."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from dwp_init import Gaussian, Prior, load_prior, save_prior

FILES = ("README.md", "kernels.png", "config.json", "model.safetensors")
NETWORKS: dict[str, Any] = {  # details["source"] of kernels that the pipeline collected
    "dataset": "notmnist",
    "images": 5,
    "layer": "l",
    "filters": [1, 2],
    "networks": 24,
    "epochs": 1,
    "batch_size": 2,
    "lr": 0.1,
    "l2": 0.2,
    "precision": "float32",
    "test_accuracy_mean": 0.5,
}


def licensed(prior: Prior | None = None, **details: Any) -> Prior:
    """A prior, by default a Gaussian over 3×3 kernels, with a licence and these details."""
    prior = Gaussian((1, 3, 3)) if prior is None else prior
    prior.details = {"license": "MIT", **details}
    return prior


def parts(text: str) -> dict[str, str]:
    """A card's sections by heading."""
    found = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return {heading: body.strip() for heading, body in zip(found[1::2], found[2::2], strict=True)}


def change(folder: Path, **details: object) -> None:
    """Saves a prior again with other details."""
    prior = load_prior(folder)
    prior.details |= details
    save_prior(prior, folder)


def card_data(text: str) -> Any:
    """What the Hub reads of a card's front matter."""
    return ModelCard(text).data
