"""Intrinsic rewards: what an agent pays itself for seeing something new."""

from assay.rl.intrinsic.base import IntrinsicMixer, IntrinsicReward, freeze
from assay.rl.intrinsic.rnd import RND, last_frame, make_rnd

__all__ = ["RND", "IntrinsicMixer", "IntrinsicReward", "freeze", "last_frame", "make_rnd"]
