"""Clips to measure codecs on: folders, manifests, and the starter set of the package."""

from neuralcodec.data.clip import Clip
from neuralcodec.data.clips import clips
from neuralcodec.data.starter_set import STARTER, Credit, starter_credits

__all__ = ["STARTER", "Clip", "Credit", "clips", "starter_credits"]
