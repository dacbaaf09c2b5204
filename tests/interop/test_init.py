"""`init.kernels_` in `_init_weights` of transformers, and `apply_` there, which is warned of."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dwp_init import apply_
from dwp_init.init import kernels_

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.interop


class Config(transformers.PretrainedConfig):
    model_type = "two-convolutions"


class TwoConvolutions(transformers.PreTrainedModel):
    config_class = Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.first, self.second = nn.Conv2d(8, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 3))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            kernels_(module.weight, "natural")


class WithApply(TwoConvolutions):
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            apply_(module, "natural", scale="fan_in", seed=0)


def test_weights_are_drawn_when_a_model_is_made_and_not_when_they_are_loaded(tmp_path: Path) -> None:
    model = TwoConvolutions(Config())
    assert not torch.equal(model.first.weight, model.second[0].weight)
    model.save_pretrained(tmp_path)
    again = TwoConvolutions.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_what_a_checkpoint_lacks_is_drawn_and_the_rest_stays(tmp_path: Path) -> None:
    model = TwoConvolutions(Config())
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    held = load_file(file)
    for name in ("first.bias", "second.0.weight"):
        del held[name]
    save_file(held, file, {"format": "pt"})
    again = TwoConvolutions.from_pretrained(tmp_path)
    assert torch.equal(again.first.weight, model.first.weight)  # its bias is missing, so _init_weights is called
    assert again.second[0].weight.std() > 0 and not torch.equal(again.second[0].weight, model.second[0].weight)


def test_apply_in_init_weights_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="_initialize_weights calls apply_ for each layer alone"):
        model = WithApply(Config())
    assert torch.equal(model.first.weight, model.second[0].weight)
