from collections.abc import Callable
from pathlib import Path

import pytest

from dwp_init import Gaussian, save_prior
from training.starts.priors import bundled_digests


def test_bundled_priors_alone_have_digests(tmp_path: Path, gaussian: Callable[..., Gaussian]) -> None:
    found = bundled_digests("notmnist-7x7")
    assert list(found) == ["notmnist-7x7"] and set(found["notmnist-7x7"]) == {"config.json", "model.safetensors"}
    folder = str(save_prior(gaussian(3), tmp_path / "mine"))
    with pytest.raises(ValueError, match="mine' is a folder; this stage takes bundled priors: notmnist-"):
        bundled_digests("notmnist-7x7", folder)
    with pytest.raises(ValueError, match="no prior and no folder is called 'none'"):
        bundled_digests("none")
