"""A small U-Net that predicts the next picture from the present one and an action.

The forward model of curiosity on raw pixels (Burda et al. 2018, arXiv 1808.04355, section 2.2: "for the method with
raw pixels a U-Net"): a dense model of 84 x 84 x 4 numbers would have nearly a thousand million weights, and most of a
picture stays where it is, which skip connections carry past the bottleneck.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from assay.rl.nets import orthogonal


class ActionUNet(nn.Module):
    """Pictures (flattened) and actions to the pictures that follow, the action shown to every layer.

    Three strided convolutions, a dense bottleneck with a residual block, three transposed convolutions, each given
    the output of its partner on the way down. Pictures of any size from 8 x 8 on. It takes and gives flat features,
    as `ForwardDynamics(model=...)` wants them with `PixelFeatures`.

    Args:
        shape: (channels, height, width) of a picture.
        actions: numbers in an action's code.
        width: channels of the first convolution; the others have twice as many.
        hidden: units of the bottleneck; 512 in the paper.
        generator: of the initialisation.

    Raises:
        ValueError: not a picture, one smaller than 8 x 8, or sizes below 1.

    >>> net = ActionUNet((4, 84, 84), actions=3, width=8, hidden=16)
    >>> net(torch.randn(2, 4 * 84 * 84), torch.eye(3)[:2]).shape
    torch.Size([2, 28224])
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        actions: int,
        width: int = 32,
        hidden: int = 512,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        if len(shape) != 3 or min(shape[1:]) < 8:
            raise ValueError(
                f"a picture has (channels, height, width), at least 8 x 8 and channels first: got {tuple(shape)}"
            )
        if min(actions, width, hidden, shape[0]) < 1:
            raise ValueError(f"sizes are positive: got {(shape[0], actions, width, hidden)}")
        self.shape = (int(shape[0]), int(shape[1]), int(shape[2]))
        channels, height, across = self.shape
        # Large pictures shrink by 3 x 2 x 2, small ones by 2 x 2 x 1.
        strides = (3, 2, 2) if min(height, across) >= 36 else (2, 2, 1)
        plan = list(zip((channels, width, 2 * width), (width, 2 * width, 2 * width), strides, strict=True))
        down, sizes = [], [(height, across)]
        for before, after, stride in plan:
            conv = nn.Conv2d(before + actions, after, 2 * stride + 1, stride, padding=stride)
            down.append(orthogonal(conv, generator=generator))
            sizes.append(tuple((side - 1) // stride + 1 for side in sizes[-1]))  # type: ignore[arg-type]
        self.down, self.sizes = nn.ModuleList(down), sizes
        self.small = (2 * width, *sizes[-1])
        flat = math.prod(self.small)

        def dense(inputs: int, outputs: int, gain: float) -> nn.Linear:
            return orthogonal(nn.Linear(inputs + actions, outputs), gain, generator=generator)

        self.squeeze = dense(flat, hidden, 2**0.5)
        self.inner, self.outer = dense(hidden, hidden, 2**0.5), dense(hidden, hidden, 1.0)
        self.spread = dense(hidden, flat, 2**0.5)
        up = []
        for k, (before, after, stride) in enumerate(reversed(plan)):
            # From the layer below, the partner's output, and the action.
            grow = nn.ConvTranspose2d(2 * after + actions, before, 2 * stride, stride, padding=stride // 2)
            gain = 1.0 if k == len(plan) - 1 else 2**0.5
            nn.init.orthogonal_(grow.weight, gain, generator=generator)
            nn.init.zeros_(grow.bias)  # type: ignore[arg-type]
            up.append(grow)
        self.up = nn.ModuleList(up)

    def forward(
        self, features: Float[Tensor, "batch pixels"], action: Float[Tensor, "batch actions"]
    ) -> Float[Tensor, "batch pixels"]:
        """[B, C H W] and [B, a] to [B, C H W]."""
        if features.shape[1] != math.prod(self.shape):
            raise ValueError(
                f"pictures of {self.shape} have {math.prod(self.shape)} numbers: got {features.shape[1]}"
            )

        def told(x: Tensor) -> Tensor:
            if x.ndim == 2:
                return torch.cat((x, action), 1)
            return torch.cat((x, action[..., None, None].expand(-1, -1, *x.shape[2:])), 1)

        x, partners = features.view(-1, *self.shape), []
        for conv in self.down:
            x = F.leaky_relu(conv(told(x)), 0.2)
            partners.append(x)
        code = F.leaky_relu(self.squeeze(told(x.flatten(1))), 0.2)
        code = code + self.outer(told(F.leaky_relu(self.inner(told(code)), 0.2)))
        x = F.leaky_relu(self.spread(told(code)), 0.2).view(-1, *self.small)
        for k, conv in enumerate(self.up):
            joined = torch.cat((x, partners[-1 - k]), 1)
            height, width = self.sizes[-2 - k]
            # Strides that do not divide a side leave it a little too long or too short.
            grown = conv(told(joined))
            x = F.pad(grown, (0, width - grown.shape[3], 0, height - grown.shape[2]))
            if k < len(self.up) - 1:
                x = F.leaky_relu(x, 0.2)
        return x.flatten(1)
