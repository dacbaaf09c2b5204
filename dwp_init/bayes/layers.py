"""Convolutions whose weights have a distribution: the factorised normal posterior of Eq. 3 and Eq. 5."""

import math
from typing import Any, ClassVar, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dwp_init.names import named_modules
from dwp_init.options import check_one_of
from dwp_init.priors.checks import is_real
from dwp_init.priors.latent import Normal
from dwp_init.tensors import wide

SCALE = math.exp(-5)  # of the posterior at the start, in the authors' experiments
Estimator = Literal["flipout", "local"]

TINY = torch.finfo(torch.float32).tiny  # least variance of an output: rounding may make it negative
FLOOR = 1e-6  # added to |weight| if a scale is relative to it


class BayesConv2d(nn.Conv2d):
    """Convolves with weights drawn from q(w) = N(weight, diag exp(log_variance)), a factorised normal.

    In training mode its outputs have noise, by one of two estimators, which both take two convolutions:

    - ``"flipout"`` (Wen et al. 2018): each image is convolved with a draw of the weights, the same at all positions.
      The draws of two images of a batch are one, but for random signs of their input and output channels.
    - ``"local"``, as in the paper: local reparametrisation (Kingma et al. 2015). Each output is drawn from the normal
      distribution that follows from that of the weights, independently of all others. In truth the outputs of a channel
      share weights, so that their noise is correlated, and what averages over positions has less noise than it should.

    In evaluation mode the layer convolves with the mean; to predict, draw networks with
    :func:`dwp_init.bayes.sample_network`.

    ``weight`` is the mean of q, so any initialisation of a convolution initialises the posterior's mean. The bias has
    no distribution.

    Args:
        *arguments: Positional arguments of ``nn.Conv2d``; every stride, padding, dilation and group is supported.
        scale: Standard deviation of every weight at the start, exp(-5) by default.
        estimator: ``"flipout"`` or ``"local"``: how outputs are drawn in training mode.
        **named: Named arguments of ``nn.Conv2d``.

    Attributes:
        log_variance: Log variance of q, of the shape of ``weight``.
        estimator: How outputs are drawn in training mode.
    """

    default_scale: ClassVar[float] = SCALE

    def __init__(
        self, *arguments: Any, scale: float | None = None, estimator: Estimator = "flipout", **named: Any
    ) -> None:
        check_one_of("estimator", estimator, get_args(Estimator))
        scale = self.default_scale if scale is None else scale
        if not (is_real(scale) and 0 < scale < math.inf):
            raise ValueError(f"the scale of a posterior must be a number above 0; got {scale!r}")
        super().__init__(*arguments, **named)
        self.estimator: Estimator = estimator
        self.log_variance = nn.Parameter(torch.full_like(self.weight, self._start(float(scale))))

    def _start(self, scale: float) -> float:
        return 2 * math.log(scale)

    @property
    def q(self) -> Normal:
        """The posterior, each part of the shape of ``weight``, ``(out, in/groups, k, k)``."""
        return self.posterior(self.weight, self.log_variance)

    @property
    def wide_q(self) -> Normal:
        """The same in float32 at least, which scales need that half precision cannot hold."""
        return self.posterior(wide(self.weight), wide(self.log_variance))

    @staticmethod
    def posterior(weight: Tensor, log_variance: Tensor) -> Normal:
        """Returns q for a mean and what the layer keeps as its log variance, of one shape."""
        return Normal(weight, (0.5 * log_variance).exp())

    def draw_weight(self, generator: torch.Generator | None = None) -> Tensor:
        """Draws a weight from q, differentiably."""
        return self.q.draw(generator)

    def forward(self, input: Tensor) -> Tensor:
        """Maps images ``(n, in, h, w)`` to outputs with noise, or in evaluation mode to the mean outputs."""
        mean: Tensor = self._conv_forward(input, self.weight, self.bias)
        if not self.training:
            return mean
        if self.estimator == "flipout":
            return mean + self._flipout(input)
        spread = self._variance(input, mean.dtype).clamp_min(TINY).sqrt()
        return mean + spread.to(mean.dtype) * torch.randn_like(mean)

    def _flipout(self, input: Tensor) -> Tensor:
        """Maps images to what a draw of the weights adds to the mean outputs."""
        scale = self.wide_q.scale
        noise = (scale * torch.randn_like(scale)).to(self.weight.dtype)
        images = input.shape[:-3]
        found: Tensor = self._conv_forward(input * _signs((*images, self.in_channels, 1, 1), input), noise, None)
        return found * _signs((*images, self.out_channels, 1, 1), found)

    def _variance(self, input: Tensor, dtype: torch.dtype) -> Tensor:
        """Maps images to the variances of outputs of a dtype; squares need more range than float16 has."""
        if dtype is not torch.float16:
            return wide(self._conv_forward(input.square(), self.q.scale.square(), None))
        with torch.autocast(input.device.type, enabled=False):
            return cast(Tensor, self._conv_forward(wide(input).square(), self.wide_q.scale.square(), None))

    def extra_repr(self) -> str:
        return f"{cast(Any, super()).extra_repr()}, estimator={self.estimator!r}"

    def plain(self, weight: Tensor) -> nn.Conv2d:
        """Returns an ordinary convolution with this layer's settings, a copy of a weight and of this layer's bias."""
        conv = nn.Conv2d(**_settings(self), device="meta")  # its parameters are replaced, so that none is drawn
        for name, value in {"weight": weight, "bias": self.bias}.items():
            if value is not None:
                ours = getattr(self, name)
                copy = value.detach().clone(memory_format=torch.preserve_format)
                setattr(conv, name, nn.Parameter(copy, requires_grad=ours.requires_grad))
        return conv.train(self.training)

    @classmethod
    def of(cls, conv: nn.Conv2d, scale: float | None = None, estimator: Estimator = "flipout") -> "BayesConv2d":
        """Returns a layer with a convolution's own parameters, its posterior centred at the weight; draws nothing."""
        layer = cls(**_settings(conv), scale=scale, estimator=estimator, device="meta")  # its parameters are replaced
        layer.weight, layer.bias = conv.weight, conv.bias
        start = layer._start(cls.default_scale if scale is None else float(scale))
        with torch.inference_mode(False):  # it is to be trained, unlike tensors that are made there
            layer.log_variance = nn.Parameter(torch.full_like(conv.weight, start))
        return layer.train(conv.training)


class RelativeBayesConv2d(BayesConv2d):
    """As :class:`BayesConv2d`, with the scale √α (|weight| + 1e-6), where α = sigmoid(log_variance) is at most 1.

    The authors' posterior for the log-uniform prior, with noise in proportion to each weight (Kingma et al. 2015) and
    α = .119 at the start.

    Its ``scale`` is √α of every weight at the start, below 1 and .345 by default: its standard deviation relative to
    its mean. Its ``log_variance`` is the logit of α.
    """

    default_scale = 0.345

    def _start(self, scale: float) -> float:
        if scale >= 1:
            raise ValueError(f"the scale of a relative posterior must be below 1; got {scale!r}")
        return math.log(scale**2 / (1 - scale**2))

    @staticmethod
    def posterior(weight: Tensor, log_variance: Tensor) -> Normal:
        return Normal(weight, (0.5 * F.logsigmoid(log_variance)).exp() * (weight.abs() + FLOOR))


def bayes_layers(model: nn.Module) -> dict[str, BayesConv2d]:
    """Returns a model's Bayesian convolutions by name, without the parts of wrappers; none if it has none."""
    return {named.name: named.module for named in named_modules(model) if isinstance(named.module, BayesConv2d)}


def scale_names(module: nn.Module) -> set[str]:
    """Returns the names of a module's parameters that are log variances of a posterior, with the parts of wrappers."""
    scales = {id(layer.log_variance) for layer in bayes_layers(module).values()}
    return {name for name, value in module.named_parameters() if id(value) in scales}


def _signs(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Draws -1 and 1, of the dtype and on the device of another tensor."""
    return torch.randint(2, shape, device=like.device).to(like.dtype) * 2 - 1


def _settings(conv: nn.Conv2d) -> dict[str, Any]:
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
    return {name: getattr(conv, name) for name in names} | {"bias": conv.bias is not None}
