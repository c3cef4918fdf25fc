"""Deep networks of dense layers, plain or residual, for studies of depth."""

from jaxtyping import Float
from torch import Tensor, nn


class DeepMLP(nn.Module):
    r"""A dense stem, `depth` hidden layers of equal width, and a classifier.

    Each hidden layer is $h\leftarrow\mathrm{relu}(\mathrm{BN}(Wh))$; with `skip` its input is added:
    $h\leftarrow h+\mathrm{relu}(\mathrm{BN}(Wh))$. Both have the same parameters, and from the same seed the same
    initial ones.

    Args:
        features: inputs (images are flattened).
        classes: outputs.
        depth: hidden layers between stem and classifier.
        width: units of each.
        skip: whether layers add their input.
        norm: batch normalisation before every ReLU.

    >>> import torch
    >>> DeepMLP(196, 10, depth=16, skip=True)(torch.rand(8, 1, 14, 14)).shape
    torch.Size([8, 10])
    """

    def __init__(
        self, features: int, classes: int, depth: int, width: int = 32, skip: bool = False, norm: bool = True
    ):
        super().__init__()
        if min(features, classes, depth, width) < 1:
            raise ValueError("features, classes, depth and width must be positive")

        def layer(fan_in: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(fan_in, width, bias=not norm),
                *([nn.BatchNorm1d(width)] if norm else []),
                nn.ReLU(),
            )

        self.skip = skip
        self.stem = layer(features)
        self.layers = nn.ModuleList(layer(width) for _ in range(depth))
        self.head = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module is not self.head:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Float[Tensor, "batch *features"]) -> Float[Tensor, "batch classes"]:
        """Vectors or images to logits."""
        h = self.stem(x.flatten(1))
        for layer in self.layers:
            h = h + layer(h) if self.skip else layer(h)
        return self.head(h)
