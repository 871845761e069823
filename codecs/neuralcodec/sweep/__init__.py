"""Sweeps: a grid of codecs, codebook counts, vocabulary sizes and frame rates, scored on clips.

The data goes one way: `config` reads the file, `plan` lays out the jobs, `run` hands them to
workers (`work`) and puts their rows into the record (`store`); `stats` sums them up.
"""

from neuralcodec.sweep.config import Experiment, read
from neuralcodec.sweep.plan import Plan, make
from neuralcodec.sweep.run import Outcome, lacking, run

__all__ = ["Experiment", "Outcome", "Plan", "lacking", "make", "read", "run"]
