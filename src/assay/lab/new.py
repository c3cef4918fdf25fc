"""The skeleton of a new study: runs as it stands, so that the first thing to do is to change it."""

import re
from pathlib import Path

from assay.lab import registry
from assay.lab.errors import InputError

STUDY = '''r"""{title}: say in one line what it is.

What the paper found, and how: two paragraphs in your own words, with its equations, e.g. $y = x + \\epsilon$.

How it is tested here, and what differs from the paper. After the run: why a claim came out as it did.

Authors (year). *Title*. Venue, arXiv number.
"""

from dataclasses import dataclass

import torch

from assay.lab import Claim, Difference, Paper, Results, Study, Trial
from assay.lab.figures import bars, figure


@dataclass(frozen=True)
class Config:
    """Laptop values; the paper's are in `profiles`."""

    steps: int = 200  # gradient steps
    learning_rate: float = 0.1


study = Study(
    number=0,  # its place in the catalogue
    id="{id}",
    title="{title}: a headline",
    paper=Paper(title="Title", authors="Author et al.", year=2000, arxiv=""),
    domain="{domain}",
    arms=("baseline", "method"),
    config=Config(),
    seeds=5,
    profiles={{"smoke": {{"steps": 5, "seeds": 2}}, "paper": {{"steps": 20_000}}}},
    mechanisms={{"the thing that the paper adds": "arm:method"}},
    claims=(
        Claim(
            id="method-helps",
            statement="The method ends with a lower loss than the baseline.",
            paper="0.1 against 0.4 (Table 1)",
            # Written down before the run: the smallest effect that counts.
            test=Difference("loss", arm="method", versus="baseline", at_most=-0.05),
        ),
    ),
    usage="""
import torch
print(torch.ones(2) + 1)  # five lines that show the component in somebody's own code
""",
)


@study.trial
def trial(run: Trial, arm: str, config: Config) -> dict[str, float]:
    """Fit a noisy line; the method adds the intercept that the baseline lacks."""
    generator = run.generator("data")  # the same data in both arms: they are paired
    x = torch.rand(256, 1, generator=generator, device=run.device)
    y = 2 * x + 1 + 0.1 * torch.randn(256, 1, generator=generator, device=run.device)
    features = torch.cat([x, torch.ones_like(x)], dim=1) if arm == "method" else x
    weights = torch.zeros(features.shape[1], 1, device=run.device, requires_grad=True)
    optimiser = torch.optim.SGD([weights], lr=config.learning_rate)
    for step in run.steps(config.steps):
        loss = torch.nn.functional.mse_loss(features @ weights, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        run.log(step, loss=loss)
    return {{"loss": loss.item()}}


@study.figure("Final loss")
def final_loss(results: Results):
    """One bar an arm."""
    picture, axes = figure()
    bars(axes, list(results.arms), [results.metric(arm, "loss").mean() for arm in results.arms])
    axes.set_ylabel("mean squared error")
    return picture
'''

TEST = '''"""{title}: the oracles of its contract."""

from assay.lab import registry, runner


def test_smoke_runs_and_repeats(tmp_path) -> None:
    study = registry.load("{id}")
    first = runner.run(study, "smoke", executor="inline", results=tmp_path / "a")
    second = runner.run(study, "smoke", executor="inline", results=tmp_path / "b")
    assert not first.failed
    assert [t.metrics for t in first.trials] == [t.metrics for t in second.trials]
'''

CHECKLIST = """# {title}: what is owed

- [ ] the module's docstring says what the paper found, with equations, and what differs here
- [ ] every mechanism of the paper exists, is in a component package, and stands in `mechanisms`
- [ ] each claim has the paper's own figure and a test with thresholds fixed before the run
- [ ] baselines get the same care (tuning, time) as the method; tuning uses other seeds than the published ones
- [ ] closed forms, invariants, gradients and parity are tests, and would catch the usual mistakes
- [ ] `assay run {id} --profile smoke` takes 10 s at most and repeats to the bit
- [ ] `assay run {id}` stays within 10 minutes on 2 cores
- [ ] the paper profile has a real loader, and a wrong path gives one clear error (`@study.check`)
- [ ] `usage` shows the component in five lines
- [ ] `assay publish {id}`, then look at its page: `assay site --open`
- [ ] `make catalogue` (the README's table), `make lint`, `make test`
"""


def write_skeleton(study_id: str, domain: str = "vision", into: Path | None = None) -> list[Path]:
    """Write module, test and checklist; the paths written.

    Raises:
        InputError: a bad id, a study that exists, or no checkout to write into.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", study_id):
        raise InputError(f"study id {study_id!r}: use lower-case words joined by hyphens, e.g. my-study")
    if not re.fullmatch(r"[a-z]+(-[a-z]+)*", domain):
        raise InputError(f"domain {domain!r}: use one lower-case word, e.g. vision")
    if study_id in registry.modules():
        raise InputError(f"study {study_id!r} exists: {registry.modules()[study_id]}")
    name = study_id.replace("-", "_")
    if not name.isidentifier():
        raise InputError(f"study id {study_id!r}: begin with a letter")
    checkout = Path(__file__).resolve().parents[3]
    if into is not None:
        files = {
            into / f"{name}.py": STUDY,
            into / "tests" / f"test_{name}.py": TEST,
            into / f"{name}.md": CHECKLIST,
        }
    elif (checkout / "pyproject.toml").is_file():
        files = {
            registry.study_folders()[0] / f"{name}.py": STUDY,
            checkout / "tests" / "studies" / f"test_{name}.py": TEST,
            checkout / "docs" / "contracts" / f"{study_id}.md": CHECKLIST,
        }
    else:
        raise InputError(
            "assay is not run from a checkout: give a folder with --into and set ASSAY_STUDIES to it"
        )
    for path in files:
        if path.exists():
            raise InputError(f"{path} exists already")
    title = study_id.replace("-", " ").capitalize()
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.format(id=study_id, title=title, domain=domain), encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from None
    return list(files)
