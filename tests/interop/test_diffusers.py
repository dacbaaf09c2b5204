"""Zero convolutions of diffusers' ControlNet stay zero."""

import pytest
import torch

from dwp_init import apply_

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.interop


def test_zero_convolutions_of_a_controlnet_stay() -> None:
    torch.manual_seed(0)
    network = diffusers.ControlNetModel(
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        conditioning_embedding_out_channels=(8, 8),
    )
    zero = {name for name, weight in network.named_parameters() if weight.dim() == 4 and not weight.any()}
    assert "controlnet_cond_embedding.conv_out.weight" in zero
    report = apply_(network, "natural", scale="keep", seed=0)
    assert len(report) > 5 and "all zero" in report.skipped["controlnet_cond_embedding.conv_out"]
    assert {name for name, weight in network.named_parameters() if weight.dim() == 4 and not weight.any()} == zero
