"""The dense networks of latent-variable priors, which are cheaper than those of the paper."""

from torch import Tensor, nn


class DenseNetwork(nn.Module):
    """Two hidden layers and two heads: maps ``(..., inputs)`` to two tensors ``(..., outputs)``.

    Args:
        inputs: Number of inputs.
        hidden: Width of the hidden layers.
        outputs: Number of outputs of each head.
        dropout: Share of hidden units dropped while training.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        first = (nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout))
        second = (nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.body = nn.Sequential(*first, *second)
        self.heads = nn.Linear(hidden, 2 * outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        heads: Tensor = self.heads(self.body(x))
        loc, raw = heads.chunk(2, dim=-1)
        return loc, raw
