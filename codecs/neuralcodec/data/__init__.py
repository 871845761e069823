"""Clips to measure codecs on: folders, manifests, and the starter set that comes along."""

from neuralcodec.data.clips import Clip, clips
from neuralcodec.data.starter_set import STARTER, Credit, starter_credits

__all__ = ["STARTER", "Clip", "Credit", "clips", "starter_credits"]
