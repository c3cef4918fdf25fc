"""assay: deep-learning papers as components to import and claims to re-test.

import assay

results = assay.run("coordconv", seeds=5)
for verdict in results.verdicts:
    print(verdict.claim, verdict.outcome)
"""

from typing import TYPE_CHECKING, Any

from assay._version import __version__

if TYPE_CHECKING:
    from assay.lab.results import Results
    from assay.lab.study import Study

__all__ = ["__version__", "catalogue", "load", "run"]


def catalogue() -> list[dict[str, Any]]:
    """Every study with number, id, domain, title, arms, claims and mechanisms. Does not import torch."""
    from assay.lab import registry

    return registry.catalogue()


def load(study: str) -> "Study":
    """One study by its id, for example "coordconv". InputError names the nearest id if there is none."""
    from assay.lab import registry

    return registry.load(study)


def run(study: "str | Study", profile: str = "laptop", **options: Any) -> "Results":
    """Run a study (what is finished already is reused) and return its Results.

    Takes the options of `assay.lab.runner.run`: arms, extras, seeds, first_seed, changes, executor, workers, address,
    device, results, time_limit.
    """
    from assay.lab import runner

    return runner.run(load(study) if isinstance(study, str) else study, profile, **options)
