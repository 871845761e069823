"""Checks that a codec gives the same results under autocast and when it is copied or pickled."""

import copy
import pickle

import torch

from neuralcodec.check.compare import Comparison
from neuralcodec.check.line import Finding
from neuralcodec.check.subject import Subject, arrays
from neuralcodec.core.codec import Codec

_HALVES = (torch.bfloat16, torch.float16)


def autocast(subject: Subject) -> Finding:
    """Codes and audio under `torch.autocast` are those of full precision."""
    seen = Comparison()
    kinds = set()
    for half in _HALVES:
        with torch.autocast(subject.codec.device.type, dtype=half):
            coded = subject.encode(subject.wav)
            back = subject.decode(subject.coded, subject.length)
        kinds.add(back.dtype)
        seen.coded(arrays(coded), arrays(subject.coded))
        seen.audio(back, subject.decoded)
    found = seen.finding("bfloat16 and float16 around encode and decode", exact=True)
    if kinds == {torch.float32}:
        return found
    shown = ", ".join(sorted(str(kind) for kind in kinds))
    return Finding(False, f"audio of {shown}", "torch.float32", found.explanation)


def copies(subject: Subject) -> Finding:
    """A deep copy and a pickled copy give the same codes and audio as the codec."""
    unpickled = pickle.loads(pickle.dumps(subject.codec))  # bytes of this process alone
    seen = Comparison()
    for each in (copy.deepcopy(subject.codec), unpickled):
        assert isinstance(each, Codec)
        twin = Subject(each, trained=subject.trained)
        seen.coded(arrays(twin.encode(subject.wav)), arrays(subject.coded))
        seen.audio(twin.decode(subject.coded, subject.length), subject.decoded)
    return seen.finding("copy.deepcopy and pickle", exact=True)
