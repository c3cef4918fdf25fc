"""Deep dense networks: the skip is an addition and nothing else."""

import pytest
import torch
from torch import nn

from assay.nn.residual import DeepMLP


@pytest.mark.parametrize("norm", [True, False])
def test_layers_add_their_input_or_not(norm: bool) -> None:
    nets = []
    for skip in (False, True):
        torch.manual_seed(0)
        nets.append(DeepMLP(6, 3, depth=2, width=5, skip=skip, norm=norm).eval())
    plain, residual = nets
    for p, q in zip(plain.parameters(), residual.parameters(), strict=True):
        assert torch.equal(p, q)
    x = torch.randn(4, 1, 2, 3)
    h = plain.stem(x.flatten(1))
    assert torch.allclose(plain(x), plain.head(plain.layers[1](plain.layers[0](h))))
    h = h + residual.layers[0](h)
    assert torch.allclose(residual(x), residual.head(h + residual.layers[1](h)))


def test_depth_counts_hidden_layers_and_sizes_are_checked() -> None:
    net = DeepMLP(6, 3, depth=16, width=8)
    assert sum(isinstance(m, nn.Linear) for m in net.modules()) == 18
    assert sum(p.numel() for p in net.parameters()) == 6 * 8 + 16 * 64 + 17 * 16 + 8 * 3 + 3
    with pytest.raises(ValueError, match="positive"):
        DeepMLP(6, 3, depth=0)
