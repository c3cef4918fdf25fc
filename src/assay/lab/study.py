"""Study: one paper's experiment, its arms, config, claims and figures."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal

from assay._extras import EXTRAS
from assay.lab.config import Config, with_values
from assay.lab.errors import InputError, unknown

if TYPE_CHECKING:
    from assay.lab.claim import Claim
    from assay.lab.results import Results

Group = Literal["arm", "seed", "all"]
PROFILES = ("smoke", "demo", "laptop", "paper")


@dataclass(frozen=True)
class Paper:
    """What is being tested: enough to find and to cite it."""

    title: str
    authors: str
    year: int
    arxiv: str = ""
    venue: str = ""

    @property
    def url(self) -> str:
        """Where to read it ("" if it has no arXiv number)."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else ""

    @property
    def citation(self) -> str:
        where = ", ".join(part for part in (self.venue, f"arXiv {self.arxiv}" if self.arxiv else "") if part)
        return f"{self.authors} ({self.year}). {self.title}.{f' {where}.' if where else ''}"


@dataclass(frozen=True)
class Arm:
    """One condition being compared.

    `seeds` replaces the study's number of seeds for this arm; `extra` arms answer open questions and run only with
    `--extras`.
    """

    name: str
    about: str = ""
    seeds: int | None = None
    extra: bool = False


@dataclass(frozen=True)
class Question:
    """An open question about the paper, the extra arms that look into it, and what we found."""

    id: str
    ask: str
    arms: tuple[str, ...] = ()
    answer: str = ""


@dataclass(frozen=True)
class Experiment:
    """A trial or batch function and the arms that it runs."""

    function: Callable[..., Any]
    patterns: tuple[str, ...]
    part: str | None
    batch: bool
    group: Group = "arm"
    size: int | None = None

    def runs(self, arm: str) -> bool:
        return any(fnmatchcase(arm, pattern) for pattern in self.patterns)


@dataclass(frozen=True)
class FigureSpec:
    """A function that draws one figure from results."""

    title: str
    function: "Callable[[Results], Any]"
    question: str | None = None

    @property
    def name(self) -> str:
        return self.function.__name__.replace("_", "-")


@dataclass(eq=False)
class Study:
    """One paper's experiment.

    Args:
        id: lower-case words joined by hyphens; the module is named by it, with underscores.
        paper: what is tested.
        domain: the topic under which the study is listed.
        arms: the conditions compared, as names or `Arm`s; `experiment/arm` where the paper has several experiments.
        config: frozen dataclass with the laptop profile's values (may nest frozen dataclasses).
        claims: what the paper asserts, each with its pre-registered test.
        profiles: profile -> config values that differ from the laptop's; dotted keys reach nested configs. Two keys
            are reserved: `seeds` (at most so many seeds an arm) and `arms` (globs of the arms that run).
        seeds: seeds per arm, counted from 0.
        mechanisms: item of the contract -> the public name that implements it, or `arm:NAME`.
        needs: extras (of `assay._extras.EXTRAS`) whose packages the laptop profile needs.
        questions: the open questions that extra arms look into.
        usage: a few runnable lines that show the component in use.
        number, title: place in the catalogue and headline.
        time_limit: seconds after which one trial (or batch) is given up.
    """

    id: str
    paper: Paper
    domain: str
    arms: tuple[str | Arm, ...]
    config: Any
    claims: "tuple[Claim, ...]" = ()
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: int = 5
    mechanisms: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    questions: tuple[Question, ...] = ()
    usage: str = ""
    number: int = 0
    title: str = ""
    time_limit: float = 1800.0

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.id):
            raise ValueError(f"study id {self.id!r}: use lower-case words joined by hyphens")
        if not is_dataclass(self.config) or isinstance(self.config, type):
            raise TypeError(f"study {self.id}: config must be an instance of a frozen dataclass")
        if "seeds" in {f.name for f in fields(self.config)}:
            raise ValueError(f"study {self.id}: 'seeds' is set on the study or arm, not in its config")
        self.all_arms: dict[str, Arm] = {}
        for arm in self.arms:
            arm = Arm(arm) if isinstance(arm, str) else arm
            if arm.name in self.all_arms:
                raise ValueError(f"study {self.id}: arm {arm.name!r} stands twice")
            self.all_arms[arm.name] = arm
        if not self.all_arms:
            raise ValueError(f"study {self.id}: give at least one arm")
        seen: set[str] = set()
        for claim in self.claims:
            if claim.id in seen:
                raise ValueError(f"study {self.id}: claim {claim.id!r} stands twice")
            seen.add(claim.id)
            for name in claim.arms:
                if name not in self.all_arms:
                    raise ValueError(
                        f"study {self.id}, claim {claim.id}: {unknown('arm', name, self.all_arms)}"
                    )
        for extra in self.needs:
            if extra not in EXTRAS:
                raise ValueError(f"study {self.id}: {unknown('extra', extra, EXTRAS)}")
        for question in self.questions:
            for name in question.arms:
                if name not in self.all_arms:
                    raise ValueError(
                        f"study {self.id}, question {question.id}: {unknown('arm', name, self.all_arms)}"
                    )
        self.experiments: list[Experiment] = []
        self.figures: list[FigureSpec] = []
        self.checks: list[Callable[[Any], None]] = []
        self.module = ""
        for profile in self.profiles:
            self.configure(profile)

    # -- declaring what runs -------------------------------------------------------------------------------------

    def trial(self, *patterns: Any, config: str | None = None) -> Any:
        """Decorate the function that runs one (arm, seed): `(run: Trial, arm, config) -> metrics`.

        `@study.trial` runs every arm; `@study.trial("gan/*", config="gan")` runs the arms that match and hands it
        only that part of the config, so that other experiments stay fresh when it changes.
        """
        return self._declare(patterns, config, batch=False)

    def batch(
        self, *patterns: Any, config: str | None = None, group: Group = "arm", size: int | None = None
    ) -> Any:
        """Decorate the function that runs many (arm, seed) pairs as one tensor program.

        It is called `(run: Batch, pairs, config)` and yields or returns one metrics dict for each pair, in order.
        `group` says which pairs may meet in one call: all seeds of an "arm", all arms of a "seed", or "all"; `size`
        caps the pairs of a call, which lets processes share them. Calls never depend on the number of workers.
        """
        if group not in ("arm", "seed", "all"):
            raise ValueError(f"group must be 'arm', 'seed' or 'all', not {group!r}")
        if size is not None and size < 1:
            raise ValueError("size must be at least 1")
        return self._declare(patterns, config, batch=True, group=group, size=size)

    def _declare(self, patterns: tuple[Any, ...], part: str | None, **kind: Any) -> Any:
        if len(patterns) == 1 and callable(patterns[0]):
            return self._declare((), part, **kind)(patterns[0])
        if part is not None and not hasattr(self.config, part):
            raise ValueError(f"study {self.id}: its config has no part {part!r}")
        globs = tuple(patterns) or ("*",)
        for glob in globs:
            if not any(fnmatchcase(arm, glob) for arm in self.all_arms):
                raise ValueError(f"study {self.id}: no arm matches {glob!r}")

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self.experiments.append(Experiment(function, globs, part, **kind))
            return function

        return register

    def figure(self, title: str, question: str | None = None) -> Callable[..., Any]:
        """Decorate a function `(results) -> matplotlib Figure | None` whose picture goes on the study's page."""
        if question is not None and question not in {q.id for q in self.questions}:
            raise ValueError(f"study {self.id}: figure {title!r} answers an unknown question {question!r}")

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self.figures.append(FigureSpec(title, function, question))
            return function

        return register

    def check(self, function: Callable[[Any], None]) -> Callable[[Any], None]:
        """Decorate a function `(config) -> None` that raises before a run whose data or packages are not there."""
        self.checks.append(function)
        return function

    # -- asking what runs ----------------------------------------------------------------------------------------

    def experiment(self, arm: str) -> Experiment:
        """The function that runs `arm` (exactly one must)."""
        found = [experiment for experiment in self.experiments if experiment.runs(arm)]
        if len(found) != 1:
            raise ValueError(
                f"study {self.id}: {len(found)} trial functions run arm {arm!r}; there must be one"
            )
        return found[0]

    def configure(self, profile: str = "laptop", changes: Mapping[str, Any] | None = None) -> Any:
        """The config of a profile with `changes` applied (values, or strings as typed on the command line)."""
        values = {k: v for k, v in self._profile(profile).items() if k not in ("seeds", "arms")}
        return with_values(with_values(self.config, values), changes or {})

    def _profile(self, profile: str) -> Mapping[str, Any]:
        if profile not in self.profile_names:
            raise unknown("profile", profile, self.profile_names)
        return self.profiles.get(profile, {})

    @property
    def profile_names(self) -> tuple[str, ...]:
        own = [name for name in self.profiles if name not in PROFILES]
        return tuple(name for name in PROFILES if name in self.profiles or name == "laptop") + tuple(own)

    def select_arms(
        self, patterns: Iterable[str] | None = None, extras: bool = False, profile: str = "laptop"
    ) -> tuple[str, ...]:
        """Names of the arms that a run covers: those that match `patterns`, else the profile's, else all defaults.

        Extra arms run with `extras`, or where `patterns` name them, or where the `arms` of the paper profile do (what
        only a large machine can run is not part of the published evidence).
        """
        if patterns is not None:
            chosen: list[str] = []
            for pattern in patterns:
                found = [name for name in self.all_arms if fnmatchcase(name, pattern)]
                if not found:
                    raise unknown("arm", pattern, self.all_arms)
                chosen += [name for name in found if name not in chosen]
            if not chosen:
                raise InputError(f"no arms given: choose from {', '.join(self.all_arms)}")
            return tuple(name for name in self.all_arms if name in chosen)
        chosen_by_profile = self._profile(profile).get("arms")
        globs = chosen_by_profile or ("*",)
        extras = extras or (profile == "paper" and chosen_by_profile is not None)
        return tuple(
            arm.name
            for arm in self.all_arms.values()
            if (extras or not arm.extra) and any(fnmatchcase(arm.name, glob) for glob in globs)
        )

    def seeds_of(
        self, arm: str, profile: str = "laptop", seeds: int | None = None, first: int = 0
    ) -> tuple[int, ...]:
        """The seeds that `arm` runs under a profile; `seeds` (from the command line) replaces every default."""
        if seeds is not None and seeds < 1:
            raise InputError(f"seeds must be at least 1, not {seeds}")
        if first < 0:
            raise InputError(f"the first seed must be at least 0, not {first}")
        count = seeds
        if count is None:
            count = self.all_arms[arm].seeds or self.seeds
            count = min(count, self._profile(profile).get("seeds", count))
        return tuple(range(first, first + count))

    def part(self, arm: str, config: Any) -> Any:
        """The part of `config` that the function running `arm` receives."""
        part = self.experiment(arm).part
        return config if part is None else getattr(config, part)

    def describe(self) -> dict[str, Any]:
        """Everything that `assay list --json` tells."""
        return {
            "number": self.number,
            "id": self.id,
            "domain": self.domain,
            "title": self.title or self.paper.title,
            "paper": {
                "title": self.paper.title,
                "authors": self.paper.authors,
                "year": self.paper.year,
                "arxiv": self.paper.arxiv,
                "venue": self.paper.venue,
            },
            "arms": [arm.name for arm in self.all_arms.values() if not arm.extra],
            "extras": [arm.name for arm in self.all_arms.values() if arm.extra],
            "seeds": self.seeds,
            "profiles": list(self.profile_names),
            "needs": list(self.needs),
            "claims": [{"id": c.id, "statement": c.statement, "paper": c.paper} for c in self.claims],
            "mechanisms": {k: [v] if isinstance(v, str) else list(v) for k, v in self.mechanisms.items()},
        }

    def __repr__(self) -> str:
        return f"Study({self.id!r}, {len(self.all_arms)} arms, {len(self.claims)} claims)"


__all__ = ["PROFILES", "Arm", "Config", "Experiment", "FigureSpec", "Group", "Paper", "Question", "Study"]
