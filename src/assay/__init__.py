"""assay: deep-learning papers as components to import and claims to re-test."""

__version__ = "0.1.0"
