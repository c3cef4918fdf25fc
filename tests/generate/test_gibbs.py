import itertools

import pytest
import torch
from scipy import stats
from torch.nn.functional import one_hot

from assay.generate.gibbs import (
    AncestralSampler,
    AnnealedErase,
    GibbsSampler,
    IndependentSampler,
    TemporalUpsampler,
)
from tests.generate.exact import Exact


def p_value(exact: Exact, x: torch.Tensor) -> float:
    """Of the chi-square test that `x` are draws from the joint (rare states pooled)."""
    counts = torch.bincount(exact.index(x), minlength=len(exact.states)).double()
    expected = exact.log_joint.double().softmax(0) * len(x)
    rare = expected < 10
    observed = torch.cat([counts[~rare], counts[rare].sum()[None]])
    wanted = torch.cat([expected[~rare], expected[rare].sum()[None]])
    return float(stats.chisquare(observed.numpy(), wanted.numpy()).pvalue)


def empty(batch: int, voices: int = 2, steps: int = 2, pitches: int = 3) -> torch.Tensor:
    return torch.zeros(batch, voices, steps, pitches)


def score(batch: int = 3, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return one_hot(torch.randint(9, (batch, 4, 8), generator=generator), 9).float()


class Counting:
    """A fixed preference that counts its calls and the examples it saw."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torch.zeros_like(x) + torch.arange(x.shape[-1])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -- schedules ---------------------------------------------------------------------------------------------------


def test_annealing() -> None:
    schedule = AnnealedErase(0.9, 0.1, 0.7)
    values = [schedule(n, 100) for n in range(100)]
    assert values[0] == 0.9
    assert values[35] == pytest.approx(0.9 - 35 * 0.8 / 70)
    assert values[70:] == pytest.approx([0.1] * 30)
    assert all(a >= b for a, b in itertools.pairwise(values))
    assert AnnealedErase(0.5, 0.5)(3, 10) == 0.5
    for bad in ((0.1, 0.9, 0.7), (1.1, 0.1, 0.7), (0.9, -0.1, 0.7), (0.9, 0.1, 0.0)):
        with pytest.raises(ValueError, match="not"):
            AnnealedErase(*bad)


# -- against a joint that can be listed ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["random", "chronological", "contiguous"])
def test_ancestral_sampling_is_exact(order: str) -> None:
    exact = Exact()
    x = AncestralSampler(exact, order)(empty(50_000), generator=generator())  # type: ignore[arg-type]
    assert p_value(exact, x) > 1e-3


def test_gibbs_with_ancestral_blocks_leaves_the_joint_as_it_is() -> None:
    exact = Exact()
    x = exact.draw(100_000, generator())
    after = GibbsSampler(exact, lambda step, steps: 0.5, inner="ancestral")(
        x, steps=3, generator=generator(1)
    )
    assert (after != x).any(-1).float().mean() > 0.2  # it did move
    assert p_value(exact, after) > 1e-3


def test_independent_gibbs_needs_the_annealing() -> None:
    exact = Exact()
    annealed = GibbsSampler(exact, AnnealedErase(0.9, 0.02, 0.5))(
        empty(20_000), steps=150, generator=generator()
    )
    blocky = GibbsSampler(exact, AnnealedErase(0.9, 0.9))(empty(20_000), steps=150, generator=generator())
    floor = exact.distance(exact.draw(20_000, generator()))
    assert exact.distance(annealed) < 0.05
    assert exact.distance(annealed) < floor + 0.03
    assert exact.distance(blocky) > 0.15


def test_one_shot_samples_the_marginals_only() -> None:
    exact = Exact()
    x = IndependentSampler(exact)(empty(50_000), generator=generator())
    marginal = exact(empty(1), torch.zeros(1, 2, 2, dtype=torch.bool)).exp()[0]
    torch.testing.assert_close(x.mean(0), marginal, atol=0.01, rtol=0)
    assert p_value(exact, x) < 1e-6
    assert exact.calls == 2


# -- what changes and what does not --------------------------------------------------------------------------------

SAMPLERS = {
    "gibbs": lambda model: GibbsSampler(model),
    "blocks": lambda model: GibbsSampler(model, block="contiguous"),
    "inner": lambda model: GibbsSampler(model, inner="ancestral"),
    "ancestral": lambda model: AncestralSampler(model),
    "one shot": lambda model: IndependentSampler(model),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_only_editable_cells_change_and_each_gets_one_pitch(name: str) -> None:
    x = score()
    x[0, 0] = 0  # a resting voice, not editable
    x[1, 2, 3] = 0  # an empty cell, editable
    before = x.clone()
    editable = torch.zeros(3, 4, 8, dtype=torch.bool)
    editable[:, 2:, 2:] = True
    editable[2, 3] = False  # examples may differ in how much they allow
    made = SAMPLERS[name](Counting())(x, editable, generator=generator())
    assert torch.equal(x, before)  # the argument is left alone
    assert torch.equal(made[~editable], before[~editable])
    assert bool((made[editable].sum(-1) == 1).all())
    assert bool(((made == 0) | (made == 1)).all())
    again = SAMPLERS[name](Counting())(x, editable, generator=generator())
    assert torch.equal(made, again)


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_empty_score_is_filled(name: str) -> None:
    made = SAMPLERS[name](Counting())(torch.zeros(2, 4, 8, 9), generator=generator())
    assert bool((made.sum(-1) == 1).all())


def test_forward_passes() -> None:
    model = Counting()
    GibbsSampler(model)(torch.zeros(2, 4, 8, 9), generator=generator())
    assert model.calls == 32  # as many steps as editable cells
    model = Counting()
    GibbsSampler(model)(score(), steps=5, generator=generator())
    assert model.calls == 5  # whatever the size of the blocks
    model = Counting()
    AncestralSampler(model)(torch.zeros(2, 4, 8, 9), generator=generator())
    assert model.calls == 32
    model, sizes = Counting(), []
    GibbsSampler(model, inner="ancestral")(
        score(),
        steps=5,
        generator=generator(),
        trace=lambda n, x, erased: sizes.append(erased.flatten(1).sum(1)),
    )
    assert model.calls == sum(int(size.max()) for size in sizes)


def test_blocks_follow_the_schedule() -> None:
    shares: list[float] = []
    blocks: list[torch.Tensor] = []

    def look(step: int, x: torch.Tensor, erased: torch.Tensor) -> None:
        shares.append(erased.float().mean().item())
        blocks.append(erased)

    x = one_hot(torch.zeros(400, 4, 20, dtype=torch.long), 3).float()
    GibbsSampler(Counting())(x, steps=10, generator=generator(), trace=look)
    assert shares == pytest.approx([AnnealedErase()(n, 10) for n in range(10)], abs=0.02)
    shares.clear()
    blocks.clear()
    GibbsSampler(Counting(), lambda step, steps: 0.3, block="contiguous")(
        x, steps=4, generator=generator(), trace=look
    )
    for block in blocks:
        assert bool((block == block[:, :1]).all())  # all voices
        time = block[:, 0].long()
        assert bool((time.sum(1) == 6).all())
        assert bool(((time[:, 1:] - time[:, :-1]).clamp(min=0).sum(1) + time[:, 0] == 1).all())  # one stretch


def test_the_first_step_from_nothing_erases_everything() -> None:
    erased_first = []
    GibbsSampler(Counting())(
        torch.zeros(2, 4, 8, 9),
        steps=2,
        generator=generator(),
        trace=lambda n, x, erased: erased_first.append(erased),
    )
    assert bool(erased_first[0].all())
    assert not bool(erased_first[1].all())


def test_a_trace_keeps_what_it_was_given() -> None:
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []
    GibbsSampler(Counting(), inner="ancestral")(
        score(), steps=4, generator=generator(), trace=lambda n, x, erased: kept.append((x, x.clone()))
    )
    assert all(torch.equal(now, then) for now, then in kept)


def test_temperature() -> None:
    def share_of_top(temperature: float) -> float:
        x = AncestralSampler(Counting())(
            torch.zeros(200, 4, 8, 9), temperature=temperature, generator=generator()
        )
        return x[..., -1].mean().item()

    expected = [float((torch.arange(9.0) / t).softmax(0)[-1]) for t in (0.5, 1.0, 3.0)]
    assert [share_of_top(t) for t in (0.5, 1.0, 3.0)] == pytest.approx(expected, abs=0.03)


# -- up-sampling ---------------------------------------------------------------------------------------------------


def test_upsampling_keeps_every_second_step() -> None:
    x = score()
    longer = TemporalUpsampler(AncestralSampler(Counting()))(x, times=2, generator=generator())
    assert longer.shape == (3, 4, 32, 9)
    assert torch.equal(longer[:, :, ::4], x)
    assert bool((longer.sum(-1) == 1).all())
    assert not torch.equal(longer[:, :, 1::4], x)  # new steps were drawn
    with pytest.raises(ValueError, match="times"):
        TemporalUpsampler(AncestralSampler(Counting()))(x, times=0)


@pytest.mark.parametrize("name", SAMPLERS)
def test_bad_calls(name: str) -> None:
    sampler = SAMPLERS[name](Counting())
    x = score()
    with pytest.raises(ValueError, match="no cell is editable"):
        sampler(x, torch.zeros(3, 4, 8, dtype=torch.bool))
    with pytest.raises(ValueError, match="temperature is positive"):
        sampler(x, temperature=0.0)
    with pytest.raises((ValueError, TypeError)):
        sampler(x, torch.ones(3, 4, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match="at least one voice and one step"):
        sampler(x[:, :, :0])


def test_bad_gibbs_options() -> None:
    with pytest.raises(ValueError, match="at least one step"):
        GibbsSampler(Counting())(score(), steps=0)
    for wrong in ({"inner": "exact"}, {"block": "square"}):
        with pytest.raises((ValueError, TypeError)):
            GibbsSampler(Counting(), **wrong)
