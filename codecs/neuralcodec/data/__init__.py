"""Sets of clips on which codecs are measured: folders, manifests and the starter set."""

from neuralcodec.data.clip import Clip
from neuralcodec.data.clips import clips
from neuralcodec.data.starter_set import STARTER, Credit, starter_credits

__all__ = ["STARTER", "Clip", "Credit", "clips", "starter_credits"]
