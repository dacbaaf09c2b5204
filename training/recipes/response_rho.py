"""The constants of the response in apply_: how alike a layer's inputs are, on networks of our own and CIFAR-10 images.

    python -m training run response_rho --data-root DATA --workers 2 --record

Expected: no figure; the paper does not state how activations grow.
Found: ``training/results/response_rho.csv``. The correlation ρ^|Δ| of neighbours alone does not fit both orthogonal
and independent draws, nor colour stems; with a correlation between channels one ρ does. Distances along the axes are as
good as Euclidean ones. :mod:`dwp_init.response` has the constants. That of depthwise layers, 0.7, weighs
networks of ReLUs and of SiLUs alike. The choice was not blind to ``public_models``: no constant is fitted to it, but
networks of SiLUs are here because public ones were off, and depthwise values were tried on some of those.
Departures: evaluation mode, in which normalisation layers do nothing yet, 64 images and two seeds.
"""

from training.engine.stage import Stage
from training.experiments.response_rho import ResponseRho

FOLDER = "scale"
MODERN = """
vgg 16 32 64, vgg 32 64 128, vgg 16 32 64 64 64, cifar 16 32 32, cifar 48 64 64, resnet 16 32 64,
resnet-7x7-stem 32 64 128, mobilenet 16 24 48, mobilenet 16 32 64, convmixer 64, convnext 48 96
"""
RELU = tuple(f"stack {kernel} {width} 13" for kernel in (3, 5, 7) for width in (32, 64))
RELU = (*RELU, "separable 3 64 11", "separable 3 128 13", "separable 7 64 11")
SILU = ("stack-silu 3 64 13", "stack-silu 7 64 13", "separable-silu 3 64 11", "separable-silu 7 64 11")


def stages(smoke: bool = False) -> dict[str, Stage]:
    networks = ("stack 3 4 2", "separable 3 4 2") if smoke else (*map(str.strip, MODERN.split(",")), *RELU, *SILU)
    return {
        "response_rho": ResponseRho(networks=networks, images=4, seeds=1) if smoke else ResponseRho(networks=networks)
    }
