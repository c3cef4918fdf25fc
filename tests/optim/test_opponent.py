"""Opponent shaping against closed forms, finite differences, enumeration and another library's numbers."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.func import functional_call

from assay.games.forecast import policy_log_prob
from assay.games.matrix import MemoryOneGame, imp, ipd, play, swap_view
from assay.optim.opponent import (
    LOLAOptimizer,
    dice_objective,
    lola_cross_term,
    lola_policy_gradient,
    magic_box,
    opponent_shaping_grad,
    sos_fraction,
    unrolled_grad,
)

MODES = ("naive", "lola", "lookahead", "full", "sos", "lola2")


def policies(seed: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(2, *shape, 5, generator=generator, dtype=torch.float64)
    return theta[0].clone(), theta[1].clone()


def bilinear(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values xy and -xy, as losses."""
    return -x * y, x * y


def tandem(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (x + y) ** 2 - 2 * x, (x + y) ** 2 - 2 * y


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


# -- closed forms ------------------------------------------------------------------------------------------------


def test_even_policies_in_the_dilemma_are_pushed_towards_tit_for_tat():
    zero = torch.zeros(5, dtype=torch.float64)
    losses = ipd().losses
    naive = opponent_shaping_grad(losses, zero, zero.clone(), 1.0, "naive")
    shaped = opponent_shaping_grad(losses, zero, zero.clone(), 1.0, "lola")
    expected = torch.tensor([4.35, -4.35, 4.35, -4.35, 0.0], dtype=torch.float64)
    torch.testing.assert_close(
        -naive[0], torch.tensor([-1.5, -1.5, -1.5, -1.5, -0.25], dtype=torch.float64), atol=1e-12, rtol=0
    )
    torch.testing.assert_close(naive[0] - shaped[0], expected, atol=1e-12, rtol=0)
    # Player 2's is the same direction once its joint-order entries are put into its own view.
    torch.testing.assert_close(swap_view(naive[1] - shaped[1]), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("seed", range(3))
def test_in_zero_sum_games_both_corrections_are_one(seed):
    theta1, theta2 = policies(seed, 4)
    modes = ("naive", "lola", "lookahead", "full")
    grads = {m: opponent_shaping_grad(imp().losses, theta1, theta2, 0.7, m) for m in modes}
    for player in (0, 1):
        naive = grads["naive"][player]
        torch.testing.assert_close(grads["lola"][player], grads["lookahead"][player], atol=1e-10, rtol=0)
        torch.testing.assert_close(
            grads["full"][player] - naive, 2 * (grads["lola"][player] - naive), atol=1e-10, rtol=0
        )
        assert (grads["lola"][player] - naive).abs().max() > 1e-3


def test_the_corrections_differ_in_the_dilemma():
    theta1, theta2 = policies(5)
    lola, lookahead = (
        opponent_shaping_grad(ipd().losses, theta1, theta2, 1.0, m)[0] for m in ("lola", "lookahead")
    )
    assert (lola - lookahead).norm() > 0.1 * lola.norm()


@pytest.mark.parametrize("mode", MODES)
def test_without_look_ahead_every_mode_is_naive(mode):
    theta1, theta2 = policies(1, 3)
    naive = opponent_shaping_grad(ipd().losses, theta1, theta2, 0.0, "naive")
    shaped = opponent_shaping_grad(ipd().losses, theta1, theta2, 0.0, mode)
    torch.testing.assert_close(shaped, naive, atol=1e-13, rtol=0)


@pytest.mark.parametrize(("eta", "radius"), [(0.0, 1.004988), (0.5, 0.955249), (1.0, 0.905539)])
def test_step_matrix_of_the_bilinear_game(eta, radius):
    delta = 0.1
    columns = []
    for x, y in ((1.0, 0.0), (0.0, 1.0)):
        gx, gy = opponent_shaping_grad(bilinear, scalar(x), scalar(y), eta, "lola")
        columns.append(torch.stack([x - delta * gx, y - delta * gy]))
    matrix = torch.stack(columns, 1)
    expected = torch.tensor([[1 - delta * eta, delta], [-delta, 1 - delta * eta]], dtype=torch.float64)
    torch.testing.assert_close(matrix, expected, atol=1e-12, rtol=0)
    assert float(torch.linalg.eigvals(matrix).abs().max()) == pytest.approx(radius, abs=1e-6)


@pytest.mark.parametrize(
    ("mode", "total"),
    [("naive", 1.0), ("lookahead", 1.0), ("sos", 1.0), ("lola", 1.25), ("lola2", None), ("full", None)],
)
def test_fixed_points_of_the_tandem_game(mode, total):
    x, y = scalar(0.3), scalar(-0.2)
    for _ in range(400):
        gx, gy = opponent_shaping_grad(tandem, x, y, 0.1, mode)
        x, y = x - 0.1 * gx, y - 0.1 * gy
    if total is not None:
        assert float(x + y) == pytest.approx(total, abs=1e-6)
    else:  # shaping in any strength moves the fixed points away
        assert abs(float(x + y) - 1) > 0.05


# -- finite differences ------------------------------------------------------------------------------------------


def by_differences(function, point: torch.Tensor, h: float = 1e-4) -> torch.Tensor:
    out = torch.empty_like(point)
    for i in range(point.numel()):
        step = torch.zeros_like(point)
        step[i] = h
        out[i] = (function(point + step) - function(point - step)) / (2 * h)
    return out


def parts(game: MemoryOneGame, theta1: torch.Tensor, theta2: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """grad_1 L1, grad_2 L1, grad_1 L2, grad_2 L2 by plain autograd."""
    theta1, theta2 = theta1.clone().requires_grad_(), theta2.clone().requires_grad_()
    loss1, loss2 = game.losses(theta1, theta2)
    return (
        *torch.autograd.grad(loss1, (theta1, theta2), retain_graph=True),
        *torch.autograd.grad(loss2, (theta1, theta2)),
    )


@pytest.mark.parametrize("mode", ["lola", "lookahead", "full", "lola2"])
def test_correction_by_finite_differences(mode):
    game, eta = ipd(), 0.4
    theta1, theta2 = policies(11)
    _, effect, _, xi2 = parts(game, theta1, theta2)

    def believed_step(first: torch.Tensor) -> torch.Tensor:
        if mode == "lola2":
            return opponent_shaping_grad(game.losses, first, theta2, eta, "lola")[1]
        return parts(game, first, theta2)[3]

    inner = {
        "lola": lambda first: effect @ believed_step(first),
        "lola2": lambda first: effect @ believed_step(first),
        "lookahead": lambda first: parts(game, first, theta2)[1] @ xi2,
        "full": lambda first: parts(game, first, theta2)[1] @ believed_step(first),
    }[mode]
    expected = -eta * by_differences(inner, theta1)
    naive = opponent_shaping_grad(game.losses, theta1, theta2, eta, "naive")[0]
    shaped = opponent_shaping_grad(game.losses, theta1, theta2, eta, mode)[0]
    torch.testing.assert_close(shaped - naive, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 3])
def test_unrolling_by_finite_differences(steps):
    game, eta = ipd(), 0.3
    theta1, theta2 = policies(12)

    def value(first: torch.Tensor) -> torch.Tensor:
        second = theta2
        for _ in range(steps):
            second = second - eta * parts(game, first, second)[3]
        return game.losses(first, second)[0]

    got = unrolled_grad(game.losses, theta1, theta2, eta, steps=(steps, 0))
    torch.testing.assert_close(got[0], by_differences(value, theta1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(got[1], opponent_shaping_grad(game.losses, theta1, theta2, 0, "naive")[1])


def test_full_is_the_first_order_of_unrolling():
    game, h = ipd(), 1e-5
    theta1, theta2 = policies(13)
    ahead = unrolled_grad(game.losses, theta1, theta2, h)
    naive = opponent_shaping_grad(game.losses, theta1, theta2, 1.0, "naive")
    full = opponent_shaping_grad(game.losses, theta1, theta2, 1.0, "full")
    for player in (0, 1):
        slope = (ahead[player] - naive[player]) / h
        torch.testing.assert_close(slope, full[player] - naive[player], atol=1e-2, rtol=1e-3)


# -- stable opponent shaping -------------------------------------------------------------------------------------


def test_fraction_of_stable_opponent_shaping():
    big = torch.tensor([1.0, 0.0])
    # In agreement, or at right angles: everything passes.
    assert float(sos_fraction([big], [big], [-big])) == 1.0
    assert float(sos_fraction([big], [big], [torch.tensor([0.0, 1.0])])) == 1.0
    # Against look-ahead: as much as leaves (1 - a) of its length along itself.
    assert float(sos_fraction([big], [big], [4 * big])) == pytest.approx(0.5 / 4)
    assert float(sos_fraction([big], [big], [0.25 * big])) == 1.0
    # Near a fixed point: the square of the gradient.
    assert float(sos_fraction([0.05 * big], [big], [-big])) == pytest.approx(0.0025)
    xi, ahead = torch.stack([big, 0.05 * big]), torch.stack([big, big])
    batch = sos_fraction([xi], [ahead], [torch.stack([4 * big, -big])], batch=(2,))
    torch.testing.assert_close(batch, torch.tensor([0.125, 0.0025]))


# -- interface ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_stacked_games_are_independent(mode):
    theta1, theta2 = policies(3, 6)
    eta = torch.linspace(0.1, 1.0, 6, dtype=torch.float64)
    together = opponent_shaping_grad(ipd().losses, theta1, theta2, eta, mode)
    for k in range(6):
        alone = opponent_shaping_grad(ipd().losses, theta1[k], theta2[k], float(eta[k]), mode)
        torch.testing.assert_close((together[0][k], together[1][k]), alone, atol=1e-10, rtol=1e-10)


def test_each_player_may_have_its_own_mode_and_rate():
    theta1, theta2 = policies(4)
    mixed = opponent_shaping_grad(ipd().losses, theta1, theta2, (0.3, 0.9), ("lola", "sos"))
    torch.testing.assert_close(mixed[0], opponent_shaping_grad(ipd().losses, theta1, theta2, 0.3, "lola")[0])
    both = opponent_shaping_grad(ipd().losses, theta1, theta2, (0.3, 0.9), "sos")
    torch.testing.assert_close(mixed[1], both[1])
    nobody = opponent_shaping_grad(ipd().losses, theta1, theta2, (0.3, 0.9), ("lola", "naive"))
    torch.testing.assert_close(
        nobody[1], opponent_shaping_grad(ipd().losses, theta1, theta2, 0.0, "naive")[1]
    )


def networks() -> tuple[nn.Module, nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    build = lambda: nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1)).double()  # noqa: E731
    return build(), build(), torch.randn(16, 2, dtype=torch.float64)


@pytest.mark.parametrize("mode", MODES)
def test_modules_and_dicts_of_tensors_agree(mode):
    first, second, x = networks()

    def by_module(a, b):
        u, v = a(x), b(x)
        return (u * v.sin() + u**2).mean(), (v**2 - u * v**3).mean()

    def by_dict(a, b):
        u, v = functional_call(first, a, (x,)), functional_call(second, b, (x,))
        return (u * v.sin() + u**2).mean(), (v**2 - u * v**3).mean()

    g = opponent_shaping_grad(by_module, first, second, 0.5, mode)
    h = opponent_shaping_grad(
        by_dict, dict(first.named_parameters()), dict(second.named_parameters()), 0.5, mode
    )
    assert set(g[0]) == {name for name, _ in first.named_parameters()}
    torch.testing.assert_close(g, h)
    assert all(p.grad is None for p in first.parameters())


def test_nested_parameters_keep_their_structure():
    params1 = (scalar(1.0), [scalar(2.0), {"w": scalar(0.5)}])
    params2 = {"y": scalar(-1.0)}

    def losses(a, b):
        total = a[0] + a[1][0] * a[1][1]["w"]
        return total * b["y"], -total * b["y"] ** 2

    g1, g2 = opponent_shaping_grad(losses, params1, params2, 0.1, "lola")
    assert isinstance(g1, tuple)
    assert set(g1[1][1]) == {"w"}
    # total = 2 and y = -1. Player 1's term is grad_1 <stop(total), -2 total y> = 4 grad_1 total, player 2's is
    # grad_2 <stop(-y^2 grad_1 total), y grad_1 total> = -|grad_1 total|^2 = -(1 + 0.25 + 4).
    assert float(g1[0]) == pytest.approx(-1.0 - 0.1 * 4)
    assert float(g1[1][0]) == pytest.approx(0.5 * (-1.0 - 0.1 * 4))
    assert float(g2["y"]) == pytest.approx(4 + 0.1 * 5.25)


def test_optimizer_takes_the_step_of_the_gradient():
    theta1, theta2 = (nn.Parameter(t) for t in policies(7))
    before = theta1.detach().clone(), theta2.detach().clone()
    game = ipd()
    players = LOLAOptimizer(theta1, [theta2], lr=(0.5, 0.25), eta=(1.0, 0.5), mode=("lola", "lookahead"))
    values = players.step(lambda: game.losses(theta1, theta2))
    g = opponent_shaping_grad(game.losses, *before, (1.0, 0.5), ("lola", "lookahead"))
    torch.testing.assert_close(theta1.detach(), before[0] - 0.5 * g[0])
    torch.testing.assert_close(theta2.detach(), before[1] - 0.25 * g[1])
    torch.testing.assert_close(values, game.losses(*before))
    # A second step works on a fresh graph, and a scheduler reaches the groups.
    schedule = torch.optim.lr_scheduler.ExponentialLR(players, 0.5)
    players.step(lambda: game.losses(theta1, theta2))
    schedule.step()
    assert [group["lr"] for group in players.param_groups] == [0.25, 0.125]


def test_games_without_interaction_have_no_correction():
    separate = lambda x, y: (x**2 + y, y**2 + x)  # noqa: E731
    for mode in MODES:
        g = opponent_shaping_grad(separate, scalar(1.0), scalar(2.0), 0.5, mode)
        assert float(g[0]) == pytest.approx(2.0)
        assert float(g[1]) == pytest.approx(4.0)


def test_bad_input_is_told():
    # Without the shape and type check of the tests, which would be the first to refuse: inspect.unwrap.
    x, y = scalar(1.0), scalar(2.0)
    with pytest.raises(ValueError, match="unknown mode 'taylor'"):
        inspect.unwrap(opponent_shaping_grad)(bilinear, x, y, 1.0, "taylor")
    with pytest.raises(ValueError, match="share parameters"):
        opponent_shaping_grad(bilinear, x, x, 1.0)
    with pytest.raises(ValueError, match="share parameters"):
        LOLAOptimizer([x], [x])
    with pytest.raises(ValueError, match="loss 1 does not depend on the parameters of player 2"):
        opponent_shaping_grad(lambda a, b: (a**2, a * b), x, y, 1.0)
    with pytest.raises(ValueError, match="detached"):
        opponent_shaping_grad(lambda a, b: (a.detach() * 1, a * b), x, y, 1.0)
    with pytest.raises(ValueError, match="independent games"):
        opponent_shaping_grad(lambda a, b: (a * b, a * b), torch.ones(3), torch.ones(1), 1.0)
    with pytest.raises(ValueError, match="one shape"):
        opponent_shaping_grad(lambda a, b: (a * b, (a * b).expand(2)), x, y, 1.0)
    with pytest.raises(TypeError, match="floating-point"):
        opponent_shaping_grad(bilinear, torch.tensor(1), y, 1.0)
    with pytest.raises(TypeError, match="functional_call"):
        unrolled_grad(bilinear, nn.Linear(1, 1), y, 1.0)
    with pytest.raises(ValueError, match="must not be negative"):
        unrolled_grad(bilinear, x, y, 1.0, -1)
    with pytest.raises(ValueError, match="must not be negative"):
        LOLAOptimizer([x], [y], lr=-1.0)
    with pytest.raises(ValueError, match="gamma"):
        dice_objective(torch.zeros(2, 3), torch.zeros(2, 3), gamma=1.5)
    with pytest.raises(ValueError, match="baseline"):
        inspect.unwrap(lola_cross_term)(*[torch.zeros(2, 3)] * 3, baseline="trajectory")


# -- from rollouts -----------------------------------------------------------------------------------------------


def test_magic_box_is_one_and_differentiates_to_the_score():
    x = torch.tensor([0.3, -2.0], dtype=torch.float64, requires_grad=True)
    box = magic_box(x**2)
    torch.testing.assert_close(box, torch.ones_like(box))
    (first,) = torch.autograd.grad(box.sum(), x, create_graph=True)
    torch.testing.assert_close(first, 2 * x)
    (second,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(second, (2 * x) ** 2 + 2)  # (f'^2 + f'') of exp(f - stop f)


def sampled(game: MemoryOneGame, replicas: int, rollouts: int, steps: int, seed: int):
    """Independent replicas of play of one pair of policies; leaves stacked, so each has its own derivative."""
    one, two = policies(21)
    theta1, theta2 = (t.float().expand(replicas, 5).clone().requires_grad_() for t in (one, two))
    noise = torch.rand(steps, 2, replicas, rollouts, generator=torch.Generator().manual_seed(seed))
    seen = play(game, theta1.detach(), theta2.detach(), noise)
    logp1 = policy_log_prob(theta1, seen.states1, seen.actions1)
    logp2 = policy_log_prob(theta2, seen.states2, seen.actions2)
    return theta1, theta2, logp1, logp2, seen


def mixed_derivative(objective: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """[replicas, 5 (first), 5 (second)]"""
    (slope,) = torch.autograd.grad(objective.sum(), first, create_graph=True)
    rows = [torch.autograd.grad(slope[:, i].sum(), second, retain_graph=True)[0] for i in range(5)]
    return torch.stack(rows, 1)


def exact_derivatives(game: MemoryOneGame, steps: int):
    """First and mixed derivatives of player 2's truncated return, policies in their own view."""
    one, two = (t.requires_grad_() for t in policies(21))
    value = game.truncated_value(one, swap_view(two), steps)[1]
    (g1,) = torch.autograd.grad(value, one, create_graph=True)
    mixed = torch.stack([torch.autograd.grad(g1[i], two, retain_graph=True)[0] for i in range(5)])
    own = torch.stack([torch.autograd.grad(g1[i], one, retain_graph=True)[0] for i in range(5)])
    return g1.detach(), mixed, own


def assert_unbiased(samples: torch.Tensor, exact: torch.Tensor) -> None:
    mean, error = samples.double().mean(0), samples.double().std(0) / len(samples) ** 0.5
    assert ((mean - exact).abs() <= 4 * error + 1e-6).all(), ((mean - exact) / error).abs().max()
    assert error.max() < 0.02


def test_sampled_cross_term_and_dice_are_unbiased():
    game, steps = ipd(), 2
    slope, mixed, own = exact_derivatives(game, steps)
    kept: dict[str, list[torch.Tensor]] = {"cross": [], "dice": [], "first": [], "own": []}
    for part in range(4):  # 2e6 rollouts in all
        theta1, theta2, logp1, logp2, seen = sampled(game, 50, 10_000, steps, part)
        surrogate = lola_cross_term(logp1, logp2, seen.rewards2, game.gamma)
        kept["cross"].append(mixed_derivative(surrogate, theta1, theta2))
        baseline = seen.rewards2.new_full((steps, 50, 1), -1.7)
        objective = dice_objective(logp1 + logp2, seen.rewards2, baseline, game.gamma)
        kept["first"].append(torch.autograd.grad(objective.sum(), theta1, retain_graph=True)[0])
        plain = dice_objective(logp1 + logp2, seen.rewards2, gamma=game.gamma)
        kept["dice"].append(mixed_derivative(plain, theta1, theta2))
        kept["own"].append(mixed_derivative(plain, theta1, theta1))
    assert_unbiased(torch.cat(kept["cross"]), mixed)
    assert_unbiased(torch.cat(kept["dice"]), mixed)
    assert_unbiased(torch.cat(kept["own"]), own)
    assert_unbiased(torch.cat(kept["first"]), slope)


def test_dice_has_the_value_of_the_return():
    _, _, logp1, logp2, seen = sampled(ipd(), 2, 50, 6, 3)
    weight = 0.9 ** torch.arange(6.0).reshape(6, 1, 1)
    expected = (weight * seen.rewards1).sum(0).mean(-1)
    baseline = torch.randn(6, 2, 50, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(dice_objective(logp1 + logp2, seen.rewards1, baseline, 0.9), expected)


def test_policy_gradient_estimates_the_exact_shaped_gradient():
    game, steps, eta = ipd(), 3, 2.0
    theta1, theta2, logp1, logp2, seen = sampled(game, 60, 10_000, steps, 9)
    got = lola_policy_gradient(
        logp1, logp2, seen.rewards1, seen.rewards2, theta1, theta2, gamma=game.gamma, eta=eta, mode="lola"
    )

    def losses(one, two):
        v1, v2 = game.truncated_value(one, swap_view(two), steps)
        return -v1, -v2

    exact = opponent_shaping_grad(losses, *policies(21), eta, "lola")
    naive = opponent_shaping_grad(losses, *policies(21), eta, "naive")
    assert (exact[0] - naive[0]).abs().max() > 0.05
    for player in (0, 1):
        mean, error = got[player].double().mean(0), got[player].double().std(0) / 60**0.5
        # One batch gives both factors, which biases their product by about one over its size.
        assert ((mean - exact[player]).abs() <= 4 * error + 1e-3).all()
    alone = lola_policy_gradient(
        logp1,
        logp2,
        seen.rewards1,
        seen.rewards2,
        theta1,
        theta2,
        gamma=game.gamma,
        eta=eta,
        mode=("naive", "lola"),
    )
    torch.testing.assert_close(alone[1], got[1])
    assert_unbiased(alone[0], naive[0])


def test_policy_gradient_tells_bad_input():
    theta1, theta2, logp1, logp2, seen = sampled(ipd(), 1, 4, 2, 0)
    arguments = (seen.rewards1, seen.rewards2, theta1, theta2)
    with pytest.raises(ValueError, match="dice_objective"):
        lola_policy_gradient(logp1, logp2, *arguments, gamma=0.9, eta=1.0, mode="sos")
    with pytest.raises(ValueError, match="detached"):
        lola_policy_gradient(logp1.detach(), logp2, *arguments, gamma=0.9, eta=1.0)


# -- parity ------------------------------------------------------------------------------------------------------


def test_parity_with_open_spiel():
    """LOLA-DiCE gradients of OpenSpiel 2.0 (JAX) on the dilemma, estimated there and computed exactly here.

    The fixture holds means and standard errors over independent estimates made by that library's own
    ``get_dice_update_fn`` on its own environment, with one and two look-ahead steps (see its note).
    """
    fixture = json.loads((Path(__file__).parent / "opponent_openspiel.json").read_text())
    order = [1, 2, 3, 4, 0]  # OpenSpiel puts the start first
    theta1, theta2 = (torch.tensor(fixture[k], dtype=torch.float64)[order] for k in ("theta1", "theta2"))
    game = ipd(fixture["gamma"])

    def losses(one, two):
        v1, v2 = game.truncated_value(one, swap_view(two), fixture["horizon"])
        return -v1, -v2

    naive = opponent_shaping_grad(losses, theta1, theta2, 0.0, "naive")[0]
    for result in fixture["results"]:
        mean, error = (torch.tensor(result[k], dtype=torch.float64)[order] for k in ("mean", "se"))
        ours = unrolled_grad(losses, theta1, theta2, fixture["eta"], (result["lookaheads"], 0))[0]
        assert error.max() < 0.03
        assert ((ours - mean).abs() <= 4 * error + 1e-3).all()
        assert ((naive - mean).abs() > 6 * error).any()  # the look-ahead shows in the fixture
