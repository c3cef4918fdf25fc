"""What is recorded is what the layers said, row by row."""

import math

import pytest
import torch
from torch import nn

from assay.analysis.activations import as_observations, check_same_inputs, fourier_resize, record_activations
from assay.analysis.similarity import pwcca


@pytest.fixture
def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(4 * 36, 5),
        nn.ReLU(),
    )


def test_rows_are_observations(net):
    x = torch.randn(10, 1, 6, 6)
    net[1].eval()  # a mode of its own must come back too
    found = record_activations(net, ["0", "1", "5"], [(x[:4], torch.zeros(4)), (x[4:], torch.zeros(6))])
    assert net.training
    assert not net[1].training
    assert found.count == 10
    conv = net[0](x)
    assert torch.allclose(found["0"], conv.permute(0, 2, 3, 1).reshape(360, 4), atol=1e-6)  # before the ReLU
    assert torch.allclose(found["1"], conv.relu().permute(0, 2, 3, 1).reshape(360, 4), atol=1e-6)
    assert torch.allclose(found["5"], net.eval()(x), atol=1e-6)  # no dropout
    flat = record_activations(net, ["1"], [x], conv="flatten")["1"]
    assert torch.allclose(flat, conv.relu().flatten(1), atol=1e-6)
    pooled = record_activations(net, ["1"], [x], conv="pool")["1"]
    assert torch.allclose(pooled, conv.relu().mean((2, 3)), atol=1e-6)
    assert not any(module._forward_hooks for module in net.modules())


def test_states_of_a_recurrent_layer():
    gru = nn.Sequential(nn.GRU(3, 4, batch_first=True))
    x = torch.randn(2, 5, 3)
    assert torch.allclose(record_activations(gru, ["0"], [x])["0"], gru[0](x)[0].reshape(10, 4))


def test_order_of_inputs_is_checked(net):
    x = torch.randn(8, 1, 6, 6)
    one = record_activations(net, ["5"], x.split(4))
    check_same_inputs(one, record_activations(net, ["1"], [x]))  # other batches, same inputs
    with pytest.raises(ValueError, match="another order"):
        check_same_inputs(one, record_activations(net, ["5"], [x.flip(0)]))
    with pytest.raises(ValueError, match="saw 4 inputs"):
        check_same_inputs(one, record_activations(net, ["5"], [x[:4]]))


def test_bad_layers_are_named(net):
    x = torch.randn(2, 1, 6, 6)
    with pytest.raises(ValueError, match="no layer 'conv9'"):
        record_activations(net, ["conv9"], [x])
    with pytest.raises(ValueError, match="no batch"):
        record_activations(net, ["1"], [])
    with pytest.raises(ValueError, match="layer '1' returns NaN"):
        record_activations(net, ["1"], [x / 0])
    assert not any(module._forward_hooks for module in net.modules())
    shared = nn.ReLU()
    with pytest.raises(ValueError, match="'0' ran 2 times"):
        record_activations(nn.Sequential(shared, shared), ["0"], [x])
    with pytest.raises(ValueError, match="give `size`"):
        record_activations(net, ["1"], [x], conv="fourier")
    with pytest.raises(ValueError, match="2, 3 or 4 axes"):
        as_observations(torch.zeros(2))


@pytest.mark.parametrize(("old", "new"), [(7, 4), (8, 5), (6, 9), (5, 5), (4, 8)])
def test_low_frequencies_are_resampled_exactly(old, new):
    def wave(size: int) -> torch.Tensor:
        at = torch.arange(size, dtype=torch.float64) / size * 2 * math.pi
        return (2 + at.cos()[:, None] + (at[:, None] + at).sin()).expand(1, 2, size, size)

    assert torch.allclose(fourier_resize(wave(old), new), wave(new), atol=1e-10)


def test_layers_of_different_resolution_can_be_compared():
    maps = torch.randn(30, 3, 5, 5, dtype=torch.float64)
    finer = fourier_resize(maps, 10)  # the same function on a finer grid
    mix = torch.randn(3, 3, dtype=torch.float64)
    other = torch.einsum("nchw,cd->ndhw", finer, mix)
    rows = as_observations(maps, "fourier", 5), as_observations(other, "fourier", 5)
    assert rows[0].shape == (750, 3)
    assert float(pwcca(*rows)) == pytest.approx(1, abs=1e-6)
