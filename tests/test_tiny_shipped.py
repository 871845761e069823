"""The checkpoints that come along: small, described, and as good as they were."""

import pytest
import torch

from neuralcodec import LatentCodec, load
from neuralcodec.core.registry import REGISTRY
from neuralcodec.data import clips
from neuralcodec.metrics import score
from neuralcodec.tiny.codec import SHIPPED, Tiny

NAMES = [name for name in REGISTRY if name.startswith("tiny_")]
METRICS = ["pesq_wb", "stoi", "log_mel_distance"]
TWO = ["speech_en_vm-instructions", "speech_en_ss-noservice"]

SCORES = {
    "tiny_25hz": {
        1: (1.107, 0.700, 3.077),
        2: (1.265, 0.766, 2.618),
        4: (1.613, 0.847, 2.255),
        8: (2.091, 0.895, 1.968),
    },
    "tiny_50hz": {
        1: (1.179, 0.739, 2.769),
        2: (1.564, 0.813, 2.339),
        4: (2.095, 0.893, 1.953),
        8: (2.659, 0.933, 1.638),
    },
    "tiny_100hz": {
        1: (1.229, 0.758, 2.751),
        2: (1.743, 0.846, 2.283),
        4: (2.407, 0.918, 1.788),
        8: (3.082, 0.952, 1.423),
    },
}
"""Means of METRICS over TWO by the number of codebooks, of greedy codes."""

TOLERANCES = (0.02, 0.003, 0.01)  # rounding differs between processors


def test_all_are_in_the_registry() -> None:
    files = {path.stem for path in SHIPPED.glob("*.safetensors")}
    assert files == set(NAMES) == set(SCORES)


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_are_small_and_have_a_card(name: str) -> None:
    assert (SHIPPED / f"{name}.safetensors").stat().st_size <= 8_000_000
    card = (SHIPPED / f"{name}.md").read_text(encoding="utf-8")
    for word in ("hours of audio", "licence", "Training data", "Scores", "16 kHz", "no streams"):
        assert word in card
    codec = load(name)
    assert isinstance(codec, Tiny)
    assert codec.name == name
    assert sum(p.numel() for p in codec.network.parameters()) <= 6_000_000


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_are_what_the_registry_says(name: str) -> None:
    codec, facts = load(name), REGISTRY[name].facts
    assert facts is not None
    assert codec.sample_rate == facts.sample_rate
    assert codec.frame_rates == facts.frame_rates
    assert codec.codebook_sizes == facts.codebook_sizes
    assert codec.is_causal == facts.is_causal
    assert codec.dim == facts.dim


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_hold_their_scores(name: str) -> None:
    codec = load(name)
    wavs = [clip.read(16000) for clip in clips("starter:test") if clip.path.stem in TWO]
    assert len(wavs) == len(TWO)
    means = {}
    for depth in (1, 2, 4, 8):
        given = []
        for wav in wavs:
            estimate = codec.decode(codec.encode(wav[None], depth))[0]
            values = score(wav, estimate, 16000, METRICS, kind="speech")
            given.append([values[metric] for metric in METRICS])
        means[depth] = torch.tensor(given).mean(dim=0).tolist()
    for depth, expected in SCORES[name].items():
        for value, wanted, tolerance in zip(means[depth], expected, TOLERANCES, strict=True):
            assert value == pytest.approx(wanted, abs=tolerance)


@pytest.mark.parametrize("name", NAMES)
def test_random_weights_have_the_same_sizes(name: str) -> None:
    random, shipped = load(name, weights="random"), load(name)
    assert isinstance(random, LatentCodec)
    assert random.codebook_sizes == shipped.codebook_sizes
    wav = torch.zeros(1, 1, 3200)
    assert random.encode(wav).streams[0].shape == shipped.encode(wav).streams[0].shape
    again = load(name, weights="random")
    assert isinstance(again, LatentCodec)
    assert torch.equal(again.encode_latents(wav), random.encode_latents(wav))
