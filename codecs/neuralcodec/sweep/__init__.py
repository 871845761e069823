"""Sweeps: a grid of codecs, codebook counts, vocabulary sizes and frame rates, scored on clips.

Data flows in one direction: `config` reads the file, `plan` makes the jobs, `run` distributes them
to workers (`work`) and stores their rows in the record (`store`). `neuralcodec.analysis` evaluates
the rows.
"""

from neuralcodec.sweep.config import Experiment, read
from neuralcodec.sweep.plan import Plan, make
from neuralcodec.sweep.run import Outcome, lacking, run

__all__ = ["Experiment", "Outcome", "Plan", "lacking", "make", "read", "run"]
