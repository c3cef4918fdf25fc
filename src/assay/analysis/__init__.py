"""Looking into trained networks and their samples."""

from assay.analysis.counterpoint import (
    CounterpointReport,
    counterpoint_report,
    interval_histogram,
    jensen_shannon,
    phrase_novelty,
)
from assay.analysis.coverage import nearest_template, position_coverage

__all__ = [
    "CounterpointReport",
    "counterpoint_report",
    "interval_histogram",
    "jensen_shannon",
    "nearest_template",
    "phrase_novelty",
    "position_coverage",
]
