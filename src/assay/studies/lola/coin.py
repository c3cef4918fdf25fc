"""The coin game: policies on a grid, sampled play, with and without an opponent model."""

import torch
from torch import Tensor, nn

from assay.envs import CoinGame
from assay.games import fit_opponent
from assay.lab import Trial
from assay.optim.opponent import lola_policy_gradient
from assay.studies.lola import study
from assay.studies.lola.config import CoinConfig


class CoinPolicy(nn.Module):
    """Logits of the four moves from what a player sees, for a whole trace at once or step by step.

    ``mlp``: 32 tanh units. ``conv``: two 3 x 3 convolutions of 20 filters (wrapped around the torus) with batch norm.
    ``conv-lstm``: an LSTM of 32 units behind these, the policy of the paper. Batch norm uses the statistics of earlier
    batches (`observe` brings them up to date), so that replaying a trace gives the probabilities it was sampled from.
    """

    def __init__(self, kind: str, size: int = 3, planes: int = 4, filters: int = 20, width: int = 32) -> None:
        super().__init__()
        if kind not in ("mlp", "conv", "conv-lstm"):
            raise ValueError(f"unknown policy {kind!r}: choose mlp, conv or conv-lstm")
        self.recurrent = kind == "conv-lstm"
        flat = planes * size * size
        if kind == "mlp":
            self.body: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(flat, width), nn.Tanh())
            features = width
        else:
            layers: list[nn.Module] = []
            for channels in (planes, filters):
                layers += [
                    nn.Conv2d(channels, filters, 3, padding=1, padding_mode="circular"),
                    nn.BatchNorm2d(filters),
                    nn.ReLU(),
                ]
            self.body = nn.Sequential(*layers, nn.Flatten())
            features = filters * size * size
        self.width = width
        if self.recurrent:
            # Written out: fused LSTM cells cannot be differentiated twice on every device.
            self.gates = nn.Linear(features + width, 4 * width)
            features = width
        self.head = nn.Linear(features, CoinGame.num_actions)
        self.eval()

    def forward(self, obs: Tensor, state: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, object]:
        """``[steps, copies, planes, size, size] -> logits [steps, copies, 4]`` and the recurrent state."""
        steps, copies = obs.shape[:2]
        x = self.body(obs.flatten(0, 1)).unflatten(0, (steps, copies))
        if not self.recurrent:
            return self.head(x), None
        hidden, cell = state or (x.new_zeros(copies, self.width), x.new_zeros(copies, self.width))
        seen = []
        for now in x:
            enter, forget, write, show = self.gates(torch.cat([now, hidden], -1)).chunk(4, -1)
            cell = torch.sigmoid(forget + 1) * cell + torch.sigmoid(enter) * torch.tanh(write)
            hidden = torch.sigmoid(show) * torch.tanh(cell)
            seen.append(hidden)
        return self.head(torch.stack(seen)), (hidden, cell)

    @torch.no_grad()
    def observe(self, obs: Tensor) -> None:
        """Update the batch-norm statistics from a trace."""
        self.train()
        self.body(obs.flatten(0, 1))
        self.eval()


def log_prob(policy: CoinPolicy, obs: Tensor, actions: Tensor) -> Tensor:
    logits, _ = policy(obs)
    return logits.log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)


@torch.no_grad()
def trace(game: CoinGame, policies: tuple[CoinPolicy, CoinPolicy], horizon: int) -> dict[str, Tensor]:
    """One trace of all copies from fresh starts; time first."""
    obs, _ = game.reset()
    states: list[object] = [None, None]
    kept: dict[str, list[Tensor]] = {name: [] for name in ("obs", "actions", "rewards", "own", "other")}
    for _ in range(horizon):
        moves = []
        for i, policy in enumerate(policies):
            logits, states[i] = policy(obs[:, i].unsqueeze(0), states[i])
            # Exponential race: as good as drawing from the softmax, and faster.
            race = torch.empty_like(logits[0]).exponential_(generator=game.generator)
            moves.append((logits[0].softmax(-1) / race).argmax(-1))
        actions = torch.stack(moves, -1)
        kept["obs"].append(obs)
        kept["actions"].append(actions)
        step = game.step(actions)
        for name, value in (
            ("rewards", step.reward),
            ("own", step.info["own"]),
            ("other", step.info["other"]),
        ):
            kept[name].append(value.float())
        obs = step.obs
    return {name: torch.stack(values) for name, values in kept.items()}


@study.trial("coin/*", config="coin")
def coin_game(run: Trial, arm: str, config: CoinConfig) -> dict[str, float]:
    """One run a learner: shows that the machinery works on a grid, and no more than that."""
    learner = arm.partition("/")[2]
    torch.manual_seed(int(torch.randint(2**31, (), generator=run.generator("networks", device="cpu"))))
    players = tuple(CoinPolicy(config.policy).to(run.device) for _ in range(2))
    models = tuple(CoinPolicy(config.policy).to(run.device) for _ in range(2))
    make = torch.optim.Adam if config.adam else torch.optim.SGD
    optimizers = [make(p.parameters(), lr=config.rate) for p in players]
    game = CoinGame(
        config.copies,
        max_steps=config.horizon + 1,
        generator=run.generator("coin"),
        device=run.device,
        validate=False,
    )
    recent: list[tuple[float, float, float]] = []
    for update in run.steps(config.updates):
        seen = trace(game, players, config.horizon)
        obs, actions, rewards = seen["obs"], seen["actions"], seen["rewards"]
        logp = [log_prob(p, obs[:, :, i], actions[..., i]) for i, p in enumerate(players)]
        rates = {"gamma": config.gamma, "eta": config.look_ahead}
        streams = (rewards[..., 0], rewards[..., 1])
        if learner == "lola-om":
            fitted = []
            for i, model in enumerate(models):
                steps = config.fit_first if update == 0 else config.fit_later
                fit_opponent(model, obs[:, :, i], actions[..., i], steps=steps, lr=config.fit_rate)
                fitted.append(log_prob(model, obs[:, :, i], actions[..., i]))
            g1, _ = lola_policy_gradient(
                logp[0], fitted[1], *streams, players[0], models[1], mode=("lola", "naive"), **rates
            )
            _, g2 = lola_policy_gradient(
                fitted[0], logp[1], *streams, models[0], players[1], mode=("naive", "lola"), **rates
            )
        else:
            mode = "lola" if learner == "lola" else "naive"
            g1, g2 = lola_policy_gradient(*logp, *streams, *players, mode=mode, **rates)
        for policy, optimizer, grads in zip(players, optimizers, (g1, g2), strict=True):
            for name, p in policy.named_parameters():
                p.grad = grads[name]
            optimizer.step()
        if config.policy != "mlp":
            for i in range(2):
                players[i].observe(obs[:, :, i])
                models[i].observe(obs[:, :, i])
        own, other = float(seen["own"].sum()), float(seen["other"].sum())
        recent.append(
            (own / max(own + other, 1.0), float(rewards.mean()), (own + other) / seen["own"].numel())
        )
        if update % config.log_every == 0:
            run.log(update, own_share=recent[-1][0], reward=recent[-1][1])
    last = torch.tensor(recent[-max(1, config.updates // 10) :]).mean(0).tolist()
    return {"own_share": last[0], "reward": last[1], "picks": last[2]}
