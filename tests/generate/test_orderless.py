import itertools
import math

import pytest
import torch
from scipy import stats
from torch.nn.functional import one_hot

from assay.generate.orderless import (
    OrderlessMask,
    cell_nll,
    cell_order,
    each_frame_nll,
    ensemble_nll,
    frame_nll,
    mix_orders,
    note_nll,
    orderless_nll,
    sample_categorical,
)
from tests.generate.exact import Exact


def uniform(x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x)


def rolls(batch: int, voices: int = 4, steps: int = 6, pitches: int = 10, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return one_hot(torch.randint(pitches, (batch, voices, steps), generator=generator), pitches).float()


class Lopsided:
    """Conditionals of no joint: logits depend on the known cells through fixed random weights."""

    def __init__(self, voices: int = 4, steps: int = 6, pitches: int = 10) -> None:
        size = voices * steps * pitches
        generator = torch.Generator().manual_seed(7)
        self.weight = torch.randn(size, size, generator=generator) * 0.5
        self.calls = 0

    def __call__(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return ((x * known[..., None]).flatten(1) @ self.weight).view_as(x)


# -- masks -------------------------------------------------------------------------------------------------------


def test_orderless_masks_are_uniform_in_size_and_place() -> None:
    erased = OrderlessMask((2, 4))(20_000, generator=torch.Generator().manual_seed(0))
    sizes = erased.flatten(1).sum(1)
    assert stats.chisquare(torch.bincount(sizes, minlength=9)[1:].numpy()).pvalue > 1e-3
    assert sizes.min() == 1
    # Given the size 2, each of the 28 pairs is as likely as any other.
    twos = erased[sizes == 2].flatten(1)
    pairs = torch.bincount(twos.long() @ (2 ** torch.arange(8)), minlength=256)
    assert stats.chisquare(pairs[pairs > 0].numpy()).pvalue > 1e-3
    assert int((pairs > 0).sum()) == 28


def test_bernoulli_masks_hardly_ever_erase_everything() -> None:
    erased = OrderlessMask((4, 16), "bernoulli", probability=0.5)(
        2_000, generator=torch.Generator().manual_seed(0)
    )
    sizes = erased.flatten(1).sum(1).float()
    assert sizes.mean() == pytest.approx(32, abs=0.5)
    assert sizes.max() < 52
    assert (
        OrderlessMask((4, 16))(2_000, generator=torch.Generator().manual_seed(0)).flatten(1).all(1).sum() > 10
    )


def test_tasks_erase_what_they_say() -> None:
    def mask(kind: str, **options: object) -> torch.Tensor:
        return OrderlessMask((4, 8), kind, **options)(3, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]

    assert mask("harmonise").sum((0, 2)).tolist() == [0, 24, 24, 24]
    assert mask("harmonise", voice=3).sum((0, 2)).tolist() == [24, 24, 24, 0]
    assert mask("voice", voice=2).sum((0, 2)).tolist() == [0, 0, 24, 0]
    assert mask("span").sum((0, 1)).tolist() == [0, 0, 12, 12, 12, 12, 0, 0]
    assert mask("chunks", chunk=2).sum((0, 1)).tolist() == [0, 0, 12, 12, 0, 0, 12, 12]
    one_voice = OrderlessMask((4, 8), "voice")(200, generator=torch.Generator().manual_seed(0))
    assert bool((one_voice.sum(2).sort(1).values == torch.tensor([0, 0, 0, 8])).all())
    assert (one_voice[:, :, 0].sum(0) > 25).all()  # every voice gets its turn


def test_complete_erases_the_holes() -> None:
    x = rolls(2)
    x[0, 1, 2] = 0
    erased = OrderlessMask((4, 6), "complete")(2, x=x)
    assert erased.nonzero().tolist() == [[0, 1, 2]]
    with pytest.raises(ValueError, match="needs the rolls"):
        OrderlessMask((4, 6), "complete")(2)


@pytest.mark.parametrize(
    "bad", [{"shape": (0, 4)}, {"probability": 0.0}, {"voice": 4}, {"chunk": 0}, {"kind": "random"}]
)
def test_bad_masks(bad: dict) -> None:
    with pytest.raises((ValueError, TypeError)):
        OrderlessMask(**{"shape": (4, 4), **bad})


# -- the loss ----------------------------------------------------------------------------------------------------


def test_orderless_loss_in_closed_form() -> None:
    x = rolls(2)
    logits = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
    erased = torch.zeros(2, 4, 6, dtype=torch.bool)
    erased[0, 0, :3] = True
    erased[1] = True
    cross = -(logits.log_softmax(-1) * x).sum(-1)
    loss = orderless_nll(logits, x, erased)
    torch.testing.assert_close(loss, torch.stack([cross[0, 0, :3].mean(), cross[1].mean()]))
    flat = orderless_nll(logits, x, erased, reweight=False)
    torch.testing.assert_close(flat, torch.stack([cross[0, 0, :3].sum(), cross[1].sum()]) * 2 / 25)
    everything = orderless_nll(logits, x, erased, count="all")
    torch.testing.assert_close(everything, torch.stack([cross[0].sum() / 3, cross[1].mean()]))
    loss.sum().backward()
    assert logits.grad is not None
    assert bool((logits.grad.abs().sum(-1) > 0).eq(erased).all())  # visible cells teach nothing


def test_rests_are_not_counted() -> None:
    x = rolls(1)
    x[0, 0, :3] = 0
    erased = torch.zeros(1, 4, 6, dtype=torch.bool)
    erased[0, 0] = True
    logits = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    cross = -(logits.log_softmax(-1) * x).sum(-1)
    torch.testing.assert_close(orderless_nll(logits, x, erased), cross[:, 0, 3:].mean(1))
    erased[0, 0, 3:] = False
    assert orderless_nll(logits, x, erased).tolist() == [0.0]


def test_expected_loss_is_the_likelihood_averaged_over_orders() -> None:
    """Two cells with hand-made conditionals that fit no joint: both sides by enumeration."""
    model = Lopsided(1, 2, 3)
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(3, generator=generator)

    def conditionals(x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return model(x, known) + first

    for values in itertools.product(range(3), repeat=2):
        x = one_hot(torch.tensor([[values]]), 3).double()
        model.weight = model.weight.double()
        chain = torch.stack(
            [note_nll(conditionals, x, order=torch.tensor([order])) * 2 for order in ([0, 1], [1, 0])]
        ).mean()
        expected = torch.zeros(())
        for size in (1, 2):
            sets = list(itertools.combinations(range(2), size))
            for cells in sets:
                erased = torch.zeros(1, 1, 2, dtype=torch.bool)
                erased[0, 0, list(cells)] = True
                loss = orderless_nll(conditionals(x, ~erased), x, erased)[0]
                expected = expected + loss / (2 * len(sets))
        assert 2 * float(expected) == pytest.approx(float(chain), abs=1e-6)


# -- likelihoods -------------------------------------------------------------------------------------------------


def test_uniform_model() -> None:
    x = rolls(3)
    log10 = torch.full((3,), math.log(10))
    for order in ("random", "chronological", "contiguous"):
        torch.testing.assert_close(note_nll(uniform, x, order=order), log10)  # type: ignore[arg-type]
    for within in ("argmax", "sample", "truth"):
        torch.testing.assert_close(frame_nll(uniform, x, within_frame=within), 4 * log10)  # type: ignore[arg-type]
    for unit in ("piece", "cell"):
        torch.testing.assert_close(ensemble_nll(uniform, x, orders=3, unit=unit), log10)  # type: ignore[arg-type]


def test_every_order_gives_the_joint_of_consistent_conditionals() -> None:
    exact = Exact()
    x = exact.draw(20, torch.Generator().manual_seed(0))
    truth = -exact.log_prob(x)
    for order in ("random", "chronological", "contiguous"):
        torch.testing.assert_close(note_nll(exact, x, order=order) * 4, truth)  # type: ignore[arg-type]
    for order in ("random", "chronological"):
        torch.testing.assert_close(frame_nll(exact, x, order=order, within_frame="truth") * 2, truth)  # type: ignore[arg-type]
    torch.testing.assert_close(ensemble_nll(exact, x, orders=4) * 4, truth)


def test_cells_against_one_call_each() -> None:
    model, x = Lopsided(), rolls(2)
    order = cell_order(
        "random", torch.ones(2, 4, 6, dtype=torch.bool), generator=torch.Generator().manual_seed(3)
    )
    expected = torch.zeros(2, 24)
    for piece in range(2):
        known = torch.zeros(1, 4, 6, dtype=torch.bool)
        for cell in order[piece].tolist():
            voice, step = divmod(cell, 6)
            logits = model(x[piece : piece + 1], known)[0, voice, step]
            expected[piece, cell] = -logits.log_softmax(-1)[x[piece, voice, step].argmax()]
            known[0, voice, step] = True
    torch.testing.assert_close(cell_nll(model, x, order=order).flatten(1), expected)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_size_changes_nothing_but_the_number_of_calls(batch_size: int) -> None:
    x = rolls(3)
    model = Lopsided()
    few = note_nll(model, x, generator=torch.Generator().manual_seed(0), batch_size=batch_size)
    assert model.calls == math.ceil(3 * 24 / batch_size)
    torch.testing.assert_close(few, note_nll(Lopsided(), x, generator=torch.Generator().manual_seed(0)))
    frames = frame_nll(Lopsided(), x, generator=torch.Generator().manual_seed(0), batch_size=batch_size)
    torch.testing.assert_close(frames, frame_nll(Lopsided(), x, generator=torch.Generator().manual_seed(0)))


def test_resting_cells_are_shown_but_not_scored() -> None:
    x = rolls(1)
    x[0, 1, 2] = 0
    scores = cell_nll(uniform, x)
    assert scores.isnan().nonzero().tolist() == [[0, 1, 2]]
    assert note_nll(uniform, x).item() == pytest.approx(math.log(10))
    assert frame_nll(uniform, x).item() == pytest.approx(math.log(10) * 23 / 6)
    seen = []

    def spy(x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        seen.append(known[:, 1, 2])
        return torch.zeros_like(x)

    cell_nll(spy, x, order="chronological")
    assert torch.cat(seen).tolist() == [False] * (2 * 4 + 2) + [True] * (24 - 10)


def test_frame_by_frame_with_the_models_own_guess() -> None:
    """One frame of two voices: each voice order by hand, the first voice's best guess shown to the second."""
    exact = Exact(voices=2, steps=1)
    x = exact.draw(1, torch.Generator().manual_seed(2))
    by_hand = []
    for first, second in ((0, 1), (1, 0)):
        known = torch.zeros(1, 2, 1, dtype=torch.bool)
        logits = exact(x, known)[0, :, 0].log_softmax(-1)
        total = -logits[first, x[0, first, 0].argmax()]
        guess = x.clone()
        guess[0, first, 0] = one_hot(logits[first].argmax(), 3).to(x)
        known[0, first] = True
        total = total - exact(guess, known)[0, second, 0].log_softmax(-1)[x[0, second, 0].argmax()]
        by_hand.append(float(total))
    found = {
        round(float(frame_nll(exact, x, generator=torch.Generator().manual_seed(i))), 4) for i in range(20)
    }
    assert found == {round(value, 4) for value in by_hand}
    assert by_hand[0] != by_hand[1]


def test_chronological_frames_see_the_past_only() -> None:
    seen = []

    def spy(x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        seen.append(known.clone())
        return torch.zeros_like(x)

    frame_nll(spy, rolls(1, voices=3, steps=4), order="chronological")
    first = seen[0]  # the first voice of every frame
    assert first.all(1).long().tolist() == [[0] * 4, [1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert [known.sum().item() - first.sum().item() for known in seen] == [0, 4, 8]


def test_ensembles() -> None:
    x, model = rolls(3), Lopsided()
    one = ensemble_nll(model, x, orders=1, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(one, note_nll(model, x, generator=torch.Generator().manual_seed(0)))
    generator = torch.Generator().manual_seed(0)
    orders = torch.stack([note_nll(model, x, generator=generator) for _ in range(5)])
    mixture = ensemble_nll(model, x, orders=5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixture, (math.log(5) - (-24 * orders).logsumexp(0)) / 24)
    assert (mixture <= orders.mean(0)).all()
    assert (mixture >= orders.min(0).values).all()
    # Cell by cell flatters: no single order, nor their mixture, is that good.
    cells = ensemble_nll(model, x, orders=5, unit="cell", generator=torch.Generator().manual_seed(0))
    assert (cells < mixture).all()


def test_averaging_unit_by_unit_can_beat_the_entropy() -> None:
    """Two cells that always agree: log 2 nats a piece, and every order says so; cell by cell they seem to cost less."""

    def twins(x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        seen = (x * known[..., None]).sum(2, keepdim=True)  # what either cell shows, the other must be
        return torch.where(seen.sum(-1, keepdim=True) > 0, (seen - 1) * 50.0, 0.0).expand_as(x)

    x = one_hot(torch.tensor([[[1, 1]]]), 2).float()
    orders = [torch.tensor([[0, 1]]), torch.tensor([[1, 0]])]
    scores = torch.stack([cell_nll(twins, x, order=order).flatten(1) for order in orders])
    assert scores.sum(2).flatten().tolist() == pytest.approx([math.log(2)] * 2, abs=1e-6)
    assert 2 * mix_orders(scores).item() == pytest.approx(math.log(2), abs=1e-6)
    # Each cell: half of exp(-log 2), half of exp(0).
    assert 2 * mix_orders(scores, unit="cell").item() == pytest.approx(-2 * math.log(0.75), abs=1e-6)
    assert 2 * mix_orders(scores, unit="cell").item() < math.log(2)


def test_frames_one_by_one() -> None:
    exact = Exact()
    x = exact.draw(5, torch.Generator().manual_seed(0))
    frames = each_frame_nll(exact, x, order="chronological", within_frame="truth")
    first = torch.zeros(5, 2, 2, dtype=torch.bool)
    second = first.clone()
    second[:, 0, 0] = True
    by_hand = sum(
        -(exact(x, known).log_softmax(-1) * x).sum(-1)[:, voice, 0]
        for voice, known in ((0, first), (1, second))
    )
    torch.testing.assert_close(frames[:, 0], by_hand)
    torch.testing.assert_close(frames.sum(1), -exact.log_prob(x))
    torch.testing.assert_close(
        frame_nll(exact, x, order="chronological", within_frame="truth"), frames.mean(1)
    )


def test_orders() -> None:
    erased = torch.ones(3, 4, 6, dtype=torch.bool)
    assert cell_order("chronological", erased)[0, :6].tolist() == [0, 6, 12, 18, 1, 7]
    grown = cell_order("contiguous", erased, generator=torch.Generator().manual_seed(0)) % 6
    for row in grown.tolist():
        frames = list(dict.fromkeys(row))
        assert all(row[4 * k : 4 * k + 4] == [frame] * 4 for k, frame in enumerate(frames))
        assert all(max(frames[:k]) - min(frames[:k]) == k - 1 for k in range(1, 7))
    drawn = torch.stack(
        [
            cell_order("random", erased[:, :1, :3], generator=torch.Generator().manual_seed(i))
            for i in range(400)
        ]
    )
    counts = torch.bincount((drawn.flatten(0, 1) * torch.tensor([9, 3, 1])).sum(1))
    assert stats.chisquare(counts[counts > 0].numpy()).pvalue > 1e-3
    assert int((counts > 0).sum()) == 6
    erased[:, 0] = False
    for kind in ("random", "chronological", "contiguous"):
        assert (cell_order(kind, erased)[:, :18] >= 6).all()  # erased cells come first
    with pytest.raises(ValueError, match="order is"):
        cell_order("backwards", erased)


@pytest.mark.parametrize("order", [torch.zeros(2, 24, dtype=torch.long), torch.arange(24).expand(3, -1)])
def test_a_wrong_order(order: torch.Tensor) -> None:
    with pytest.raises((ValueError, TypeError)):
        note_nll(uniform, rolls(2), order=order)


def test_bad_likelihood_options() -> None:
    x = rolls(1)
    with pytest.raises((ValueError, TypeError)):
        mix_orders(torch.zeros(2, 3, 4), unit="frame")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size is at least 1"):
        note_nll(uniform, x, batch_size=0)
    with pytest.raises(ValueError, match="at least one order"):
        ensemble_nll(uniform, x, orders=0)
    for wrong in (
        lambda: frame_nll(uniform, x, within_frame="guess"),  # type: ignore[arg-type]
        lambda: frame_nll(uniform, x, order="contiguous"),  # type: ignore[arg-type]
        lambda: ensemble_nll(uniform, x, unit="frame"),  # type: ignore[arg-type]
        lambda: orderless_nll(x, x, x.sum(-1) > 0, count="some"),  # type: ignore[arg-type]
    ):
        with pytest.raises((ValueError, TypeError)):
            wrong()


def test_categorical_draws() -> None:
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0])
    generator = torch.Generator().manual_seed(0)
    for temperature in (1.0, 0.5, 2.0):
        drawn = sample_categorical(logits.expand(40_000, 4), temperature=temperature, generator=generator)
        expected = (logits / temperature).softmax(0) * 40_000
        assert (
            stats.chisquare(
                torch.bincount(drawn, minlength=4).numpy(),
                expected.double().numpy() * 40_000 / expected.double().sum().item(),
            ).pvalue
            > 1e-3
        )
    with pytest.raises(ValueError, match="temperature is positive"):
        sample_categorical(logits, temperature=0.0)
