import math

import pytest
import torch
from torch.nn.functional import conv2d, one_hot

from assay.nn.pianoroll import Coconet


def example(
    batch: int = 2, steps: int = 8, pitches: int = 12, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = one_hot(torch.randint(pitches, (batch, 4, steps), generator=generator), pitches).float()
    return x, torch.rand(batch, 4, steps, generator=generator) < 0.5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask_input": False},
        {"mask_marks": "erased"},
        {"norm": "group"},
        {"norm": "none"},
        {"separable": True},
        {"small_tail": True},
        {"dilation": [1, (1, 2), (2, 4), 1]},
        {"residual": False},
    ],
)
def test_erased_cells_never_feed_the_net(options: dict) -> None:
    torch.manual_seed(0)
    net = Coconet(4, layers=4, width=8, **options).eval()
    x, known = example()
    other, _ = example(seed=1)
    hidden = torch.where(known[..., None], x, other * 7.0 + torch.randn(other.shape))
    logits = net(x, known)
    assert logits.shape == x.shape
    assert torch.equal(logits, net(hidden, known))
    assert not torch.equal(logits, net(other, known))
    torch.testing.assert_close(logits.softmax(-1).sum(-1), torch.ones(2, 4, 8))


def test_layer_by_layer() -> None:
    """Without normalisation: convolution, sum with what entered layers 1, 3, ..., activation; last layer linear."""
    torch.manual_seed(0)
    net = Coconet(4, layers=6, width=8, norm="none")
    x, known = example()
    mask = known.float()[..., None].expand_as(x)
    weights = [(layer.weight, layer.bias) for layer in net.convolutions]
    hidden = conv2d(torch.cat([x * mask, mask], 1), *weights[0], padding=1).relu()
    for first, second in ((1, 2), (3, 4)):
        inner = conv2d(hidden, *weights[first], padding=1).relu()
        hidden = (conv2d(inner, *weights[second], padding=1) + hidden).relu()
    torch.testing.assert_close(net(x, known), conv2d(hidden, *weights[5], padding=1))


def test_the_mask_tells_a_hole_from_a_rest() -> None:
    torch.manual_seed(0)
    x = torch.zeros(1, 4, 8, 12)
    hole, rest = torch.zeros(1, 4, 8, dtype=torch.bool), torch.ones(1, 4, 8, dtype=torch.bool)
    blind = Coconet(4, layers=4, width=8, mask_input=False).eval()
    assert torch.equal(blind(x, hole), blind(x, rest))
    sighted = Coconet(4, layers=4, width=8).eval()
    assert not torch.equal(sighted(x, hole), sighted(x, rest))
    flipped = Coconet(4, layers=4, width=8, mask_marks="erased").eval()
    flipped.load_state_dict(sighted.state_dict())
    assert torch.equal(flipped(x, hole), sighted(x, rest))


def test_shifting_a_piece_shifts_the_logits_away_from_the_edges() -> None:
    torch.manual_seed(0)
    net = Coconet(4, layers=4, width=8, dilation=[1, (1, 2), 1, 1]).eval()
    x, known = example(1, 20, 30)
    moved = net(x.roll((1, 3), (2, 3)), known.roll(1, 2))
    reach = 4 + 1
    inside = (..., slice(reach + 1, -reach), slice(reach + 3, -reach))
    torch.testing.assert_close(moved[inside], net(x, known).roll((1, 3), (2, 3))[inside])


def test_any_length_after_training_on_another() -> None:
    net = Coconet(4, layers=4, width=8).eval()
    for steps in (1, 16, 64):
        assert net(*example(1, steps, 46)).shape == (1, 4, steps, 46)


def test_start_as_in_the_authors_code() -> None:
    torch.manual_seed(0)
    net = Coconet(4, layers=6, width=64)
    for layer in net.convolutions:
        fan = layer.weight[0].numel()
        assert layer.weight.std().item() == pytest.approx(math.sqrt(2 / fan), rel=0.1)
    for norm in net.norms:  # the output layer's too
        assert norm.weight.unique().item() == pytest.approx(0.1)
        assert (norm.eps, norm.momentum) == (1e-7, 0.01)


def test_group_norm_does_not_see_the_other_examples() -> None:
    torch.manual_seed(0)
    x, known = example(4)
    for norm, alike in (("group", True), ("batch", False)):
        net = Coconet(4, layers=4, width=8, norm=norm).train()  # type: ignore[arg-type]
        assert torch.allclose(net(x, known)[:1], net(x[:1], known[:1]), atol=1e-5) is alike


@pytest.mark.parametrize("options", [{}, {"separable": True, "norm": "none"}, {"mask_input": False}])
def test_every_weight_learns(options: dict) -> None:
    torch.manual_seed(0)
    net = Coconet(4, layers=5, width=8, **options)
    x, known = example()
    (net(x, known).log_softmax(-1) * x).sum().backward()
    assert all(bool((p.grad != 0).any()) for p in net.parameters())


def test_separable_convolutions_are_smaller() -> None:
    def count(net: torch.nn.Module) -> int:
        return sum(p.numel() for p in net.parameters())

    assert count(Coconet(4, 8, 32, separable=True)) < count(Coconet(4, 8, 32)) / 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"voices": 0}, "voices >= 1"),
        ({"layers": 1}, "layers >= 2"),
        ({"dilation": [1]}, "1 dilations for 8 layers"),
        ({"norm": "layer"}, "norm"),
        ({"mask_marks": "holes"}, "mask_marks"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(
        (ValueError, TypeError), match=message
    ):  # under test, beartype is there first for literals
        Coconet(**options)


def test_wrong_number_of_voices() -> None:
    with pytest.raises(ValueError, match="has 3 voices, the roll 4"):
        Coconet(3, 4, 8)(*example())
