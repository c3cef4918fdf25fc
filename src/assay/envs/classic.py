r"""Classic control as batched tensor programs: the worlds of Gymnasium step for step, and the cart-pole swing-up.

State and arithmetic are float64 where Gymnasium's are (`dtype` changes that), so a copy set to a Gymnasium state
follows it to 1e-6 for a thousand steps. Observations are float32. Continuous actions beyond their bounds are clipped,
as Gymnasium does.

    >>> import torch
    >>> from assay.envs import CartPole
    >>> env = CartPole(num_envs=1024, generator=torch.Generator().manual_seed(0))
    >>> obs, _ = env.reset()
    >>> env.step(torch.zeros(1024, dtype=torch.int64)).obs.shape
    torch.Size([1024, 4])
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from assay.envs.base import TensorEnv, where_rows


def check_box(action: Tensor, num_envs: int, size: int) -> None:
    """Raise ValueError unless `action` is a finite float tensor [num_envs, size]."""
    if action.shape != (num_envs, size):
        raise ValueError(f"actions are [{num_envs}, {size}] here: got shape {tuple(action.shape)}")
    if not action.is_floating_point():
        raise ValueError(f"continuous actions are floats: got {action.dtype}")
    if not bool(action.isfinite().all()):
        raise ValueError("actions are finite: got NaN or infinity")


class _Control(TensorEnv):
    """A physical system with a state vector.

    Attributes:
        state: [N, D], in `dtype`; assign a new tensor to set it.
    """

    state_names = ("state",)
    state_size: int
    action_size: int = 1
    """Length of a continuous action (where `num_actions` is None)."""

    def __init__(
        self,
        num_envs: int,
        *,
        max_steps: int | None,
        dtype: torch.dtype = torch.float64,
        **options: Any,
    ):
        super().__init__(num_envs, max_steps=max_steps, **options)
        if not dtype.is_floating_point:
            raise ValueError(f"the state is computed in a floating type: got {dtype}")
        self.dtype = dtype
        self.state = torch.zeros(num_envs, self.state_size, dtype=dtype, device=self.device)

    def _check(self, action: Tensor) -> None:
        if self.num_actions is None:
            check_box(action, self.num_envs, self.action_size)
        super()._check(action)

    def _columns(self) -> tuple[Tensor, ...]:
        """The state's variables, each [N] and contiguous (so that sine and cosine are vectorised)."""
        return self.state.t().contiguous().unbind(0)

    def _between(self, low: float, high: float, size: int) -> Tensor:
        """[N, size] uniform in [low, high)."""
        return self.uniform(size).to(self.dtype) * (high - low) + low


class CartPole(_Control):
    """Keep a pole upright on a cart by pushing it left (0) or right (1): Gymnasium's `CartPole-v1`.

    State and observation [N, 4]: cart position (m), velocity (m/s), pole angle (rad), angular velocity (rad/s). Reward
    1 a step; terminated beyond 2.4 m or 12 degrees; truncated after 500 steps. Barto, Sutton, Anderson (1983).
    """

    num_actions = 2
    state_size = 4
    obs_shape = (4,)
    x_limit = 2.4
    angle_limit = 12 * 2 * math.pi / 360

    def __init__(self, num_envs: int, *, max_steps: int | None = 500, **options: Any):
        super().__init__(num_envs, max_steps=max_steps, **options)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        gravity, pole_mass, total, length, tau = 9.8, 0.1, 1.1, 0.5, 0.02
        x, v, angle, w = self._columns()
        force = action.to(self.dtype) * 20.0 - 10.0
        cos, sin = torch.cos(angle), torch.sin(angle)
        push = (force + pole_mass * length * w.square() * sin) / total
        turn = (gravity * sin - cos * push) / (length * (4.0 / 3.0 - pole_mass / total * cos.square()))
        accelerate = push - pole_mass * length / total * turn * cos
        change = torch.stack((v, accelerate, w, turn), 1)
        self.state = self.state + tau * change
        x, _, angle, _ = self.state.unbind(1)
        terminated = (x.abs() > self.x_limit) | (angle.abs() > self.angle_limit)
        return torch.ones(self.num_envs, device=self.device), terminated, {}

    def _reset_rows(self, mask: Tensor) -> None:
        self.state = where_rows(mask, self._between(-0.05, 0.05, 4), self.state)

    def observe(self) -> Tensor:
        return self.state.to(torch.float32, copy=True)

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        high = np.array([2 * self.x_limit, np.inf, 2 * self.angle_limit, np.inf], dtype=np.float32)
        return spaces.Box(-high, high, dtype=np.float32), spaces.Discrete(2)


class Pendulum(_Control):
    """Swing a pendulum up and hold it: Gymnasium's `Pendulum-v1`.

    State [N, 2]: angle (rad, 0 upright), angular velocity (rad/s). Observation [N, 3]: cosine, sine, angular velocity.
    Action [N, 1]: torque in [-2, 2] N m. Reward -(angle^2 + 0.1 velocity^2 + 0.001 torque^2) of the state acted in;
    never terminated; truncated after 200 steps.

    Args:
        num_envs: N.
        gravity: m/s^2.
        max_steps: time limit.
        **options: see `TensorEnv`; `dtype` of the state.
    """

    state_size = 2
    obs_shape = (3,)
    max_torque, max_speed, dt = 2.0, 8.0, 0.05

    def __init__(self, num_envs: int, *, gravity: float = 10.0, max_steps: int | None = 200, **options: Any):
        super().__init__(num_envs, max_steps=max_steps, **options)
        self.gravity = gravity

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        angle, w = self._columns()
        asked = action[:, 0].clamp(-self.max_torque, self.max_torque)
        # Three times the torque is rounded to the action's precision, as in Gymnasium.
        torque, push = asked.to(self.dtype), (3.0 * asked).to(self.dtype)
        wrapped = torch.remainder(angle + math.pi, 2 * math.pi) - math.pi
        cost = wrapped.square() + 0.1 * w.square() + 0.001 * torque.square()
        w = w + (1.5 * self.gravity * torch.sin(angle) + push) * self.dt
        w = w.clamp(-self.max_speed, self.max_speed)
        self.state = torch.stack((angle + w * self.dt, w), 1)
        never = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        return -cost.float(), never, {}

    def _reset_rows(self, mask: Tensor) -> None:
        drawn = self._between(-1.0, 1.0, 2)
        drawn = torch.stack((drawn[:, 0] * math.pi, drawn[:, 1]), 1)
        self.state = where_rows(mask, drawn, self.state)

    def observe(self) -> Tensor:
        angle, w = self._columns()
        return torch.stack((torch.cos(angle), torch.sin(angle), w), 1).float()

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        high = np.array([1.0, 1.0, self.max_speed], dtype=np.float32)
        torque = np.float32(self.max_torque)
        return spaces.Box(-high, high, dtype=np.float32), spaces.Box(-torque, torque, (1,), np.float32)


class _Car(_Control):
    """An under-powered car in a valley; subclasses say how the action pushes and what it costs."""

    state_size = 2
    obs_shape = (2,)
    low, high, max_speed = -1.2, 0.6, 0.07
    goal: float
    reached: float
    """Reward for reaching the flag."""

    def __init__(
        self,
        num_envs: int,
        *,
        action_repeat: int = 1,
        goal_velocity: float = 0.0,
        max_steps: int | None,
        **options: Any,
    ):
        super().__init__(num_envs, max_steps=max_steps, **options)
        if action_repeat < 1:
            raise ValueError(f"an action is made at least once: got action_repeat={action_repeat}")
        self.action_repeat, self.goal_velocity = action_repeat, goal_velocity

    def _push(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """(change of velocity by the engine, reward of one physical step), each [N]."""
        raise NotImplementedError

    def _pull(self, position: Tensor) -> Tensor:
        """Change of velocity by the slope."""
        return -0.0025 * torch.cos(3.0 * position)

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        push, each = self._push(action)
        position, velocity = self._columns()
        made = torch.ones_like(each)
        done = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        for k in range(self.action_repeat):
            v = (velocity + (push + self._pull(position))).clamp(-self.max_speed, self.max_speed)
            x = (position + v).clamp(self.low, self.high)
            v = v.masked_fill((x <= self.low) & (v < 0), 0.0)
            if k:  # a car at the flag stays there for the rest of the repeats
                x, v = torch.where(done, position, x), torch.where(done, velocity, v)
                made = made + ~done
            position, velocity = x, v
            done = (position >= self.goal) & (velocity >= self.goal_velocity)
        self.state = torch.stack((position, velocity), 1)
        height = torch.sin(3.0 * position) * 0.45 + 0.55
        reward = each * made + self.reached * done
        return reward.float(), done, {"height": height.float(), "success": done}

    def _reset_rows(self, mask: Tensor) -> None:
        drawn = self._between(-0.6, -0.4, 1)
        self.state = where_rows(mask, torch.cat((drawn, torch.zeros_like(drawn)), 1), self.state)

    def observe(self) -> Tensor:
        return self.state.to(torch.float32, copy=True)

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        low = np.array([self.low, -self.max_speed], dtype=np.float32)
        high = np.array([self.high, self.max_speed], dtype=np.float32)
        actions = (
            spaces.Box(-1.0, 1.0, (1,), np.float32)
            if self.num_actions is None
            else spaces.Discrete(self.num_actions)
        )
        return spaces.Box(low, high, dtype=np.float32), actions


class MountainCar(_Car):
    """Rock a weak car up a hill: Gymnasium's `MountainCar-v0`.

    State and observation [N, 2]: position, velocity. Actions 0, 1, 2: push left, coast, push right. Reward -1 a
    physical step; terminated at the flag (0.5); truncated after 200 decisions. `info` gives `height` (of the hill
    under the car) and `success`.

    Args:
        num_envs: N.
        action_repeat: physical steps a decision; the last decision stops at the flag.
        goal_velocity: least velocity at the flag.
        max_steps: time limit in decisions.
        **options: see `TensorEnv`; `dtype` of the state.
    """

    num_actions = 3
    goal, reached = 0.5, 0.0

    def __init__(self, num_envs: int, *, max_steps: int | None = 200, **options: Any):
        super().__init__(num_envs, max_steps=max_steps, **options)

    def _push(self, action: Tensor) -> tuple[Tensor, Tensor]:
        push = (action - 1).to(self.dtype) * 0.001
        return push, torch.full_like(push, -1.0)


class MountainCarContinuous(_Car):
    """The mountain car with a force in [-1, 1]: Gymnasium's `MountainCarContinuous-v0`.

    As `MountainCar`, but the flag is at 0.45 and worth 100, each physical step costs 0.1 force^2 (of the force asked
    for, before it is clipped), and the limit is 999 decisions. Gymnasium rounds this world's state to float32 each
    step, so that is the default `dtype` here.

    Args:
        num_envs: N.
        num_forces: None: actions [N, 1] float; K: actions 0..K-1 stand for K forces spread evenly over [-1, 1].
        action_repeat: physical steps a decision.
        goal_velocity: least velocity at the flag.
        max_steps: time limit in decisions.
        dtype: of the state.
        **options: see `TensorEnv`.
    """

    goal, reached = 0.45, 100.0

    def __init__(
        self,
        num_envs: int,
        *,
        num_forces: int | None = None,
        max_steps: int | None = 999,
        dtype: torch.dtype = torch.float32,
        **options: Any,
    ):
        super().__init__(num_envs, max_steps=max_steps, dtype=dtype, **options)
        if num_forces is not None:
            if num_forces < 2:
                raise ValueError(f"discrete forces are at least 2 (-1 and 1): got num_forces={num_forces}")
            self.num_actions = num_forces
            self.forces = torch.linspace(-1.0, 1.0, num_forces, dtype=dtype, device=self.device)

    def _push(self, action: Tensor) -> tuple[Tensor, Tensor]:
        asked = action[:, 0].to(self.dtype) if self.num_actions is None else self.forces[action]
        return asked.clamp(-1.0, 1.0) * 0.0015, -0.1 * asked.square()

    def _pull(self, position: Tensor) -> Tensor:
        # Gymnasium takes this cosine in double precision of a position kept in single precision.
        return (-0.0025 * torch.cos((3.0 * position).double())).to(self.dtype)


class Acrobot(_Control):
    """Swing the tip of a two-link pendulum above a bar by a torque at the elbow: Gymnasium's `Acrobot-v1`.

    State [N, 4]: two angles (rad) and their velocities (rad/s). Observation [N, 6]: cosine and sine of each angle, two
    velocities. Actions 0, 1, 2: torque -1, 0, 1 N m. Reward -1 a step, 0 where the tip rises a link's length above the
    pivot (terminated); truncated after 500 steps. Fourth-order Runge-Kutta of the book's equations, dt 0.2 s.
    """

    num_actions = 3
    state_size = 4
    obs_shape = (6,)
    dt = 0.2
    max_speeds = (4 * math.pi, 9 * math.pi)

    def __init__(self, num_envs: int, *, max_steps: int | None = 500, **options: Any):
        super().__init__(num_envs, max_steps=max_steps, **options)

    @staticmethod
    def _slope(state: Tensor, torque: Tensor) -> Tensor:
        # Both links: mass 1, length 1, centre 0.5, moment of inertia 1; cos(a - pi/2) is sin(a).
        a, b, v, w = state.unbind(0)
        cos, sin = torch.cos(b), torch.sin(b)
        d1 = cos + 3.5
        d2 = 0.5 * cos + 1.25
        ratio = d2 / d1
        phi2 = torch.sin(a + b) * 4.9
        phi1 = torch.sin(a) * 14.7 + phi2 - (0.5 * w + v) * w * sin
        b_ddot = (torque + ratio * phi1 - 0.5 * v.square() * sin - phi2) / (1.25 - d2 * ratio)
        a_ddot = -(d2 * b_ddot + phi1) / d1
        return torch.stack((v, w, a_ddot, b_ddot))

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        torque = (action - 1).to(self.dtype)
        y, dt = self.state.t().contiguous(), self.dt
        k1 = self._slope(y, torque)
        k2 = self._slope(torch.add(y, k1, alpha=dt / 2), torque)
        k3 = self._slope(torch.add(y, k2, alpha=dt / 2), torque)
        k4 = self._slope(torch.add(y, k3, alpha=dt), torque)
        y = y + dt / 6.0 * (k1 + 2 * k2 + 2 * k3 + k4)
        angles = y[:2] - 2 * math.pi * torch.round(y[:2] / (2 * math.pi))
        v = y[2].clamp(-self.max_speeds[0], self.max_speeds[0])
        w = y[3].clamp(-self.max_speeds[1], self.max_speeds[1])
        self.state = torch.stack((angles[0], angles[1], v, w), 1)
        terminated = -torch.cos(angles[0]) - torch.cos(angles[0] + angles[1]) > 1.0
        return terminated.float() - 1.0, terminated, {"success": terminated}

    def _reset_rows(self, mask: Tensor) -> None:
        self.state = where_rows(mask, self._between(-0.1, 0.1, 4), self.state)

    def observe(self) -> Tensor:
        a, b, v, w = self._columns()
        return torch.stack((torch.cos(a), torch.sin(a), torch.cos(b), torch.sin(b), v, w), 1).float()

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        high = np.array([1.0, 1.0, 1.0, 1.0, *self.max_speeds], dtype=np.float32)
        return spaces.Box(-high, high, dtype=np.float32), spaces.Discrete(3)


STARTS: dict[str, tuple[float, float, float, float]] = {
    "hard": (2.4, 10.0, math.pi / 2, 10.0),
    "medium": (1.2, 1.0, 0.5, 1.0),
}
"""Half-widths of the uniform starts of `CartPoleSwingUp`, around (0, 0, pi, 0)."""


class CartPoleSwingUp(_Control):
    r"""Swing a hanging pole up by pushing its cart, with friction: the world of the observational-dropout paper.

    State [N, 4]: x (m), velocity, angle (rad, 0 upright, pi hanging), angular velocity w. Observation [N, 5]: x,
    velocity, cosine, sine, w. Action [N, 1]: F = 10 clip(a, -1, 1) N. With total mass M = 1 kg, pole mass m = 0.5 kg,
    length l = 0.6 m, friction b = 0.1,

    $$\ddot x = \frac{-2 m l w^2 \sin\theta + 3 m g \sin\theta\cos\theta + 4F - 4b\dot x}{4M - 3m\cos^2\theta},\quad
    \ddot\theta = \frac{-3 m l w^2 \sin\theta\cos\theta + 6 M g \sin\theta + 6(F - b\dot x)\cos\theta}
    {4 l M - 3 m l \cos^2\theta}.$$

    Positions move with the old velocities (Euler). Reward (cos th + 1)/2 * cos(pi x / 4.8) of the new state;
    terminated beyond |x| = 2.4 m. Freeman, Metz, Ha (2019), "Learning to predict without looking ahead", appendix.

    Args:
        num_envs: N.
        dt: seconds a step.
        start: "easy": normal around hanging, std 0.2; "hard": uniform, x +-2.4, velocities +-10, angle within pi/2 of
            hanging; "medium": x +-1.2, velocities +-1, angle within 0.5.
        friction: b.
        gravity: m/s^2.
        max_steps: time limit.
        **options: see `TensorEnv`; `dtype` of the state.
    """

    state_size = 4
    obs_shape = (5,)
    x_limit, force = 2.4, 10.0
    total_mass, pole_mass, length = 1.0, 0.5, 0.6

    def __init__(
        self,
        num_envs: int,
        *,
        dt: float = 0.01,
        start: str = "easy",
        friction: float = 0.1,
        gravity: float = 9.82,
        max_steps: int | None = 1000,
        **options: Any,
    ):
        super().__init__(num_envs, max_steps=max_steps, **options)
        if start != "easy" and start not in STARTS:
            raise ValueError(f"start is one of easy, {', '.join(STARTS)}: got {start!r}")
        if dt <= 0:
            raise ValueError(f"dt is a positive number of seconds: got {dt}")
        self.dt, self.start, self.friction, self.gravity = dt, start, friction, gravity
        self._centre = torch.tensor([0.0, 0.0, math.pi, 0.0], dtype=self.dtype, device=self.device)
        spread = STARTS.get(start, (0.2,) * 4)
        self._spread = torch.tensor(spread, dtype=self.dtype, device=self.device)

    def accelerations(
        self, state: Float[Tensor, "*batch 4"], action: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch 2"]:
        """Acceleration of the cart (m/s^2) and of the angle (rad/s^2) under an action in [-1, 1]."""
        _, v, angle, w = state.unbind(-1)
        sin, cos = torch.sin(angle), torch.cos(angle)
        total, pole, ml = self.total_mass, self.pole_mass, self.pole_mass * self.length
        pull = self.force * action.clamp(-1.0, 1.0).to(state.dtype) - self.friction * v
        whirl = ml * w.square() * sin
        room = 4.0 * total - 3.0 * pole * cos.square()
        x = (4.0 * pull - 2.0 * whirl + 3.0 * pole * self.gravity * sin * cos) / room
        turn = (6.0 * total * self.gravity * sin + (6.0 * pull - 3.0 * whirl) * cos) / (self.length * room)
        return torch.stack((x, turn), -1)

    def reward_of(self, x: Float[Tensor, "*batch"], cos: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Reward of a cart at `x` (m) whose pole's angle has cosine `cos`."""
        return (cos + 1.0) * 0.5 * torch.cos(x * (math.pi / 2 / self.x_limit))

    def _step(self, action: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        acceleration = self.accelerations(self.state, action[:, 0])
        velocity = self.state[:, 1::2]
        change = torch.stack((velocity, acceleration), 2).flatten(1)
        self.state = self.state + self.dt * change
        x = self.state[:, 0]
        reward = self.reward_of(x, torch.cos(self.state[:, 2]))
        return reward.float(), x.abs() > self.x_limit, {}

    def _reset_rows(self, mask: Tensor) -> None:
        drawn = self.normal(4) if self.start == "easy" else self.uniform(4) * 2.0 - 1.0
        self.state = where_rows(mask, self._centre + drawn.to(self.dtype) * self._spread, self.state)

    def observe(self) -> Tensor:
        x, v, angle, w = self._columns()
        return torch.stack((x, v, torch.cos(angle), torch.sin(angle), w), 1).float()

    def _spaces(self, spaces: Any) -> tuple[Any, Any]:
        import numpy as np

        high = np.array([np.inf, np.inf, 1.0, 1.0, np.inf], dtype=np.float32)
        return spaces.Box(-high, high, dtype=np.float32), spaces.Box(-1.0, 1.0, (1,), np.float32)
