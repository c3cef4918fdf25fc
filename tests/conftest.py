"""Every test runs with the shapes in the signatures checked (jaxtyping with beartype)."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

# The packages whose signatures carry tensor shapes; the lab itself handles no tensors.
install_import_hook(
    [
        "assay.nn",
        "assay.optim",
        "assay.data",
        "assay.analysis",
        "assay.generate",
        "assay.games",
        "assay.meta",
        "assay.envs",
        "assay.rl",
    ],
    # An int is welcome where a float is asked for, as everywhere in Python's typing (PEP 484).
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)
