"""Training of the tiny codec: losses, data, and going on with a training that was killed."""

import csv
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pystoi
import pytest
import torch
from safetensors.torch import load_file
from torch import Generator, Tensor

from neuralcodec.core import audio
from neuralcodec.data import Clip, clips
from neuralcodec.tiny.codec import Tiny
from neuralcodec.tiny.model import TinyConfig, TinyModel
from neuralcodec.tiny.training import recipe as recipes
from neuralcodec.tiny.training import train as training
from neuralcodec.tiny.training import validation
from neuralcodec.tiny.training.balance import Balancer
from neuralcodec.tiny.training.corpus import (
    Augmentation,
    Corpus,
    Source,
    _equalize,
    find,
    is_held_out,
)
from neuralcodec.tiny.training.discriminator import (
    Discriminator,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from neuralcodec.tiny.training.losses import LOSSES, _spectra
from neuralcodec.tiny.training.optimizers import optimizers
from neuralcodec.tiny.training.processes import Processes
from neuralcodec.tiny.training.recipe import Recipe, Schedule
from neuralcodec.tiny.training.trainer import Diverged, Trainer, _Pass, add_noise

ALONE = Processes(0, 1, torch.device("cpu"))

MINIATURE = """
name = "miniature"
seed = 3
losses = {{ mel = 1.0, complex = 1.0, noise = 0.2, loudness = 0.5 }}

[model]
frame_rate = 25
num_codebooks = 2
codebook_size = 8
dim = 6
width = 12
encoder_depth = 1
decoder_depth = 1
fine_width = 8
fine_decoder_depth = 1

[data]
seconds = 0.24
batch = 4
held_out = 0.5
validation_clips = 1
validation_seconds = 1
sources = [{{ audio = "{audio}" }}]

[schedule]
steps = {steps}
quantize_from = 4
freeze_from = 14
warmup = 4

[quantizer]
fit_seconds = 4

[records]
log_every = 1
save_every = 3
"""

ADVERSARY = """
[adversary]
start = 2
channels = 2
"""


@pytest.fixture
def speakers(tmp_path: Path) -> Path:
    """Two seconds of each of four speakers, with a manifest: harmonic tones of their own pitch."""
    folder = tmp_path / "audio"
    folder.mkdir()
    lines = ["file,kind,speaker"]
    noise = np.random.default_rng(0)
    for number in range(4):
        t = torch.arange(32000) / 16000
        tone = sum(torch.sin(2 * math.pi * (110 + 40 * number) * k * t) / k for k in range(1, 9))
        swell = 0.55 + 0.45 * torch.sin(2 * math.pi * 3 * t)
        hiss = torch.from_numpy(noise.standard_normal(32000).astype("float32")) * 0.01
        assert isinstance(tone, Tensor)
        audio.write(folder / f"{number}.flac", 0.2 * tone * swell + hiss, 16000)
        lines.append(f"{number}.flac,speech,voice{number}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def write(folder: Path, speakers: Path, *, steps: int = 18, more: str = "") -> Path:
    path = folder / "miniature.toml"
    path.write_text(MINIATURE.format(audio=speakers, steps=steps) + more)
    return path


def rows(path: Path, *, without: str = "seconds") -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != without} for row in csv.DictReader(file)]


def command(file: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "neuralcodec", "train", str(file), "--out", str(out)]


def as_shipped(recipe: str) -> str:
    """Give a recipe the losses, the optimizer and the gradient that the shipped models had."""
    for old, new in (
        ("loudness = 0.5", "loudness = 0.5, envelope = 0.5"),
        ("seconds = 0.24", "seconds = 0.48"),
        ("warmup = 4", 'warmup = 4\noptimizer = "muon"'),
        ("fit_seconds = 4", 'fit_seconds = 4\ncommitment = 0\ngradient = "noise_substitution"'),
    ):
        assert old in recipe
        recipe = recipe.replace(old, new)
    return recipe


@pytest.mark.parametrize("shipped", [False, True])
def test_killed_training_goes_on_with_the_curve_of_an_unbroken_one(
    shipped: bool, tmp_path: Path, speakers: Path
) -> None:
    file = write(tmp_path, speakers, steps=24, more=ADVERSARY)
    if shipped:
        file.write_text(as_shipped(file.read_text()))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    broken = tmp_path / "broken"
    running = subprocess.Popen(command(file, broken), env=environment, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if (broken / "log.csv").is_file() and len(rows(broken / "log.csv")) >= 8:
            break
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "it was done before it could be killed"
    assert len(rows(broken / "log.csv")) < 24
    assert not (broken / "model.safetensors").exists()

    for out in (broken, tmp_path / "whole"):
        subprocess.run(command(file, out), env=environment, check=True, capture_output=True)
    for table in ("log.csv", "validation.csv"):
        assert rows(broken / table) == rows(tmp_path / "whole" / table)
    assert len(rows(broken / "log.csv")) == 24
    files = [out / "model.safetensors" for out in (broken, tmp_path / "whole")]
    ours, theirs = (Tiny(weights=file).network.state_dict() for file in files)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_training_learns_and_its_model_is_a_codec(tmp_path: Path, speakers: Path) -> None:
    file = write(tmp_path, speakers, steps=80)
    recipe = recipes.read(file)
    path = training.train(recipe, tmp_path / "out")
    curve = [float(row["mel"]) for row in rows(tmp_path / "out" / "log.csv")]
    assert np.mean(curve[-10:]) < 0.75 * np.mean(curve[:10])
    codec = Tiny(weights=path)
    wav, _ = audio.read(speakers / "0.flac")
    assert codec.decode(codec.encode(wav[None])).shape == (1, 1, 32000)
    assert codec.facts["steps"] == 80
    assert codec.facts["hours_heard"] == pytest.approx(80 * 4 * 0.24 / 3600, abs=1e-3)
    scores = rows(tmp_path / "out" / "validation.csv")
    assert [row["num_codebooks"] for row in scores] == ["0", "1", "2"]
    assert all(0 < float(row["stoi"]) < 1 for row in scores)


def test_a_folder_of_another_recipe_is_refused(tmp_path: Path, speakers: Path) -> None:
    file = write(tmp_path, speakers, steps=3)
    training.train(recipes.read(file), tmp_path / "out")
    file.write_text(file.read_text().replace("seed = 3", "seed = 4"))
    with pytest.raises(ValueError, match="is of another recipe than 'miniature' is now"):
        training.train(recipes.read(file), tmp_path / "out")


def test_a_folder_that_began_with_another_model_is_refused(tmp_path: Path, speakers: Path) -> None:
    file = write(tmp_path, speakers, steps=2)
    first, second = tmp_path / "first", tmp_path / "second"
    path = training.train(recipes.read(file), first)
    file.write_text(f'begin_with = "{path}"\n' + file.read_text())
    training.train(recipes.read(file), second)
    training.train(recipes.read(file), second)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="or began with another model"):
        training.train(recipes.read(file), second)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("freeze_from = 14\n", "", "needs a schedule.freeze_from before step 18.*got None"),
        ("freeze_from = 14", "freeze_from = 18", "needs a schedule.freeze_from before step 18"),
        ("seconds = 0.48", "seconds = 0.24", r"needs data.seconds of at least 0\.4, got 0\.24"),
    ],
)
def test_recipes_that_could_not_learn_are_refused(
    old: str, new: str, message: str, tmp_path: Path, speakers: Path
) -> None:
    file = write(tmp_path, speakers)
    text = as_shipped(file.read_text())
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        recipes.read(file)


def test_longer_records_may_change_between_runs(tmp_path: Path, speakers: Path) -> None:
    file = write(tmp_path, speakers, steps=6)
    training.train(recipes.read(file), tmp_path / "out", steps=3)
    file.write_text(file.read_text().replace("save_every = 3", "save_every = 2"))
    training.train(recipes.read(file), tmp_path / "out")
    assert [row["step"] for row in rows(tmp_path / "out" / "log.csv")] == list("123456")


def test_a_training_begins_with_another_model(tmp_path: Path, speakers: Path) -> None:
    file = write(tmp_path, speakers, steps=30)
    first = training.train(recipes.read(file), tmp_path / "out")
    file.write_text(f'begin_with = "{first}"\n' + file.read_text())
    training.train(recipes.read(file), tmp_path / "again", steps=2)
    before, after = (
        [float(row["mel"]) for row in rows(tmp_path / out / "log.csv")] for out in ("out", "again")
    )
    assert after[0] < 0.8 * before[0]


def test_only_the_decoder_learns_when_the_encoder_is_frozen(tmp_path: Path, speakers: Path) -> None:
    trainer = make(tmp_path, speakers)
    while trainer.phase() != "frozen":
        trainer.run_step()
    trainer.run_step()
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    trainer.run_step()
    after = trainer.model.state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"decoder"}


def test_phases_follow_the_schedule(tmp_path: Path, speakers: Path) -> None:
    trainer = make(tmp_path, speakers)
    phases, used = [], []
    for _ in range(18):
        phases.append(trainer.phase())
        values = trainer.run_step()
        used.append(values["commitment"] > 0)
    assert phases == ["free"] * 4 + ["learning"] * 10 + ["frozen"] * 4
    assert used == [phase == "learning" for phase in phases]


def test_the_learning_rate_rises_linearly_and_falls_by_half_a_cosine(
    tmp_path: Path, speakers: Path
) -> None:
    trainer = make(tmp_path, speakers, lambda text: text.replace("warmup = 4", "warmup = 8"))
    schedule = trainer.recipe.schedule
    assert (schedule.steps, schedule.warmup) == (18, 8)
    rates = []
    for trainer.step in range(19):
        rates.append(trainer.learning_rate() / schedule.learning_rate)
    assert rates[:8] == pytest.approx([(step + 1) / 8 for step in range(8)])
    assert rates[8:] == pytest.approx(
        [0.01 + 0.99 * math.cos(math.pi / 2 * left) ** 2 for left in np.linspace(0, 1, 11)]
    )


def test_the_learning_rate_is_that_of_each_step(
    tmp_path: Path, speakers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path, speakers)
    optimizer, used = trainer._optimizers["optimizer"], []
    step = optimizer.step

    def noted() -> None:
        used.append([group["lr"] for group in optimizer.param_groups])
        step()

    monkeypatch.setattr(optimizer, "step", noted)
    expected = []
    for _ in range(6):
        expected.append([trainer.learning_rate()] * 2)
        trainer.run_step()
    assert used == expected


def gradients_of_a_step(
    folder: Path, speakers: Path, monkeypatch: pytest.MonkeyPatch, **settings: object
) -> dict[str, Tensor]:
    """Take a first step with a quantizer; give the gradients that the optimizer was given.

    Settings are those of the tables [schedule] and [quantizer].
    """
    more = {"clip": 1000.0, "commitment": 1.0} | settings

    def change(text: str) -> str:
        text = text.replace("quantize_from = 4", f"quantize_from = 0\nclip = {more['clip']}")
        return text.replace("fit_seconds", f"commitment = {more['commitment']}\nfit_seconds")

    found: dict[str, Tensor] = {}
    trainer = make(folder, speakers, change)

    def note() -> None:
        for name, parameter in trainer.model.named_parameters():
            if parameter.grad is not None:
                found[name] = parameter.grad.clone()

    monkeypatch.setattr(trainer._optimizers["optimizer"], "step", note)
    trainer.run_step()
    return found


def test_a_gradient_longer_than_the_clip_is_scaled_down_to_it(
    tmp_path: Path, speakers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, clipped = (
        gradients_of_a_step(tmp_path, speakers, monkeypatch, clip=clip) for clip in (1000.0, 0.01)
    )
    norm = float(torch.cat([each.flatten() for each in whole.values()]).norm())
    assert norm > 0.1
    for name, gradient in whole.items():
        torch.testing.assert_close(clipped[name], gradient * 0.01 / norm, rtol=1e-3, atol=1e-7)


def test_commitment_weighs_as_much_as_the_recipe_says(
    tmp_path: Path, speakers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none, one, three = (
        gradients_of_a_step(tmp_path, speakers, monkeypatch, commitment=weight)
        for weight in (0.0, 1.0, 3.0)
    )
    for name, gradient in none.items():
        added = one[name] - gradient
        assert bool(added.any()) == name.startswith("encoder.")
        torch.testing.assert_close(three[name], gradient + 3 * added, rtol=1e-3, atol=1e-6)


def test_codebooks_are_fitted_with_care_when_nothing_moves_them_any_more(
    tmp_path: Path, speakers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path, speakers)
    fits: list[tuple[int, dict[str, Any]]] = []
    fit = trainer.model.rvq.fit

    def noted(z: Tensor, **options: Any) -> Any:
        fits.append((trainer.step, options))
        return fit(z, **options)

    monkeypatch.setattr(trainer.model.rvq, "fit", noted)
    for _ in range(18):
        trainer.run_step()
    quick = {"beam_width": 1, "refinements": 0, "seed": 3}
    assert fits == [(4, quick), (14, {"seed": 3})]  # where they go on learning, and where not


def test_the_frozen_encoder_is_the_average_of_the_one_that_learned(
    tmp_path: Path, speakers: Path
) -> None:
    trainer = make(tmp_path, speakers)
    while trainer.phase() != "frozen":
        trainer.run_step()
    average = {name: tensor.clone() for name, tensor in trainer.average.items()}
    encoder = [name for name in average if name.startswith("encoder.")]
    now = dict(trainer.model.named_parameters())
    assert not all(torch.equal(now[name], average[name]) for name in encoder)
    trainer.run_step()
    assert all(torch.equal(now[name], average[name]) for name in encoder)


def test_a_frozen_decoder_hears_prefixes_of_every_depth(tmp_path: Path, speakers: Path) -> None:
    dropping = "fit_seconds = 4\ndropout = 1.0"
    trainer = make(tmp_path, speakers, lambda text: text.replace("fit_seconds = 4", dropping))
    wav, rvq = trainer.corpus.batch(24, 0), trainer.model.rvq
    z = trainer.model.encoder(wav).detach()
    rvq.fit(z)
    given = _Pass(trainer.model, trainer.recipe.quantizer)._coded(wav)
    prefixes = [rvq.decode(rvq.encode(z)[:, :depth]) for depth in (1, 2)]
    depths = [
        [depth for depth in (1, 2) if torch.allclose(each, prefixes[depth - 1][place], atol=1e-6)]
        for place, each in enumerate(given)
    ]
    assert {*map(tuple, depths)} == {(1,), (2,)}


def test_processes_hear_other_crops(
    tmp_path: Path, speakers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Heard(Exception):
        """Ends a step when its crops are there."""

    crops: list[Tensor] = []

    def hear(self: _Pass, wav: Tensor, phase: str) -> None:
        crops.append(wav)
        raise Heard

    trainer = make(tmp_path, speakers)
    monkeypatch.setattr(
        "neuralcodec.tiny.training.trainer.DistributedDataParallel", lambda module, **_: module
    )
    monkeypatch.setattr(_Pass, "forward", hear)
    for rank in (0, 1):
        processes = Processes(rank, 2, torch.device("cpu"))
        with pytest.raises(Heard):
            Trainer(trainer.recipe, trainer.corpus, processes).run_step()
    first, second = crops
    assert len(first) == len(second) == trainer.recipe.data.batch // 2
    assert not any(torch.equal(one, other) for one in first for other in second)


def test_noise_takes_the_share_it_is_given_of_the_variance(rng: Generator) -> None:
    torch.manual_seed(0)
    scales = torch.linspace(0, 2, 16)[:, None]
    z = torch.randn(4, 16, 5000, generator=rng) * scales + 3
    for share in (0.01, 0.5):
        noise = add_noise(z, share, share) - z
        assert float(noise.var() / z.var(dim=(0, 2)).mean()) == pytest.approx(share, rel=0.02)
        # the same in all dimensions, whatever their own variance is
        assert torch.allclose(noise.var(dim=(0, 2)), noise.var().expand(16), rtol=0.05)
    shares = (add_noise(z, 0.01, 0.5) - z).var(dim=(1, 2)) / z.var(dim=(0, 2)).mean()
    assert len(torch.unique(shares)) == 4
    assert shares.min() > 0.009
    assert shares.max() < 0.51


def test_low_and_high_shares_of_noise_are_drawn_alike_on_a_logarithmic_scale(
    rng: Generator,
) -> None:
    torch.manual_seed(0)
    z = torch.randn(2000, 1, 50, generator=rng)
    shares = (add_noise(z, 0.01, 1.0) - z).square().mean(dim=(1, 2))
    for below, part in ((0.0316, 0.25), (0.1, 0.5), (0.316, 0.75)):
        # Besides chance there is that of each crop's noise, which spreads the steps' edges.
        assert float((shares < below).float().mean()) == pytest.approx(part, abs=0.05)


def test_noise_teaches_an_encoder_to_leave_out_what_is_not_worth_its_bits() -> None:
    torch.manual_seed(0)
    worth = torch.tensor([1.0, 0.5, 0.02, 0.02])  # standard deviations of a source
    encoder, decoder = torch.eye(4).requires_grad_(), torch.eye(4).requires_grad_()
    optimizer = torch.optim.Adam([encoder, decoder], lr=0.01)
    for _ in range(400):
        x = torch.randn(1, 4, 500) * worth[:, None]
        loss = (decoder @ add_noise(encoder @ x, 0.1, 0.1) - x).square().sum(dim=1).mean()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    spread = torch.linalg.svdvals(encoder.detach() * worth)  # of the latents, by direction
    assert spread[1] > 0.4 * spread[0]  # both that matter are there, the lesser one lifted
    assert spread[2] < 0.1 * spread[0]


def make(folder: Path, speakers: Path, change: Callable[[str], str] = str) -> Trainer:
    file = write(folder, speakers)
    file.write_text(change(file.read_text()))
    recipe = recipes.read(file)
    corpus = Corpus(
        recipe.data.sources,
        seconds=recipe.data.seconds,
        augmentation=recipe.data.augmentation,
        held_out=0.5,
    )
    return Trainer(recipe, corpus, ALONE)


def test_gradients_that_are_not_finite_change_nothing_and_then_stop(
    tmp_path: Path, speakers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path, speakers)
    trainer.run_step()
    before = {k: v.clone() for k, v in trainer.model.named_parameters()}
    monkeypatch.setitem(LOSSES, "mel", lambda reference, estimate: (estimate * math.nan).sum())
    assert math.isnan(trainer.run_step()["gradient_norm"])
    assert trainer.skipped == 1
    assert all(torch.equal(before[k], v) for k, v in trainer.model.named_parameters())
    assert torch.isfinite(trainer._balancer.norms).all()
    for _ in range(18):
        trainer.run_step()
    with pytest.raises(Diverged, match=r"not finite for 20 steps, the last 20: .* 0\.001"):
        trainer.run_step()


def test_a_step_with_a_finite_gradient_renews_the_patience(
    tmp_path: Path, speakers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, good = make(tmp_path, speakers), LOSSES["mel"]
    for number in (10, 11):  # fewer than 20 in a row
        monkeypatch.setitem(LOSSES, "mel", lambda reference, estimate: (estimate * math.nan).sum())
        for _ in range(number):
            trainer.run_step()
        monkeypatch.setitem(LOSSES, "mel", good)
        assert math.isfinite(trainer.run_step()["gradient_norm"])
    assert trainer.skipped == 21


def test_the_average_follows_the_weights_fast_at_first_and_slowly_later(
    tmp_path: Path, speakers: Path
) -> None:
    trainer = make(
        tmp_path, speakers, lambda text: text.replace("steps = 18", "steps = 18\naverage = 0.4")
    )
    expected = {k: v.detach().double() for k, v in trainer.model.named_parameters()}
    for step in range(7):
        trainer.run_step()
        kept = min(0.4, (1 + step) / (10 + step))
        for name, parameter in trainer.model.named_parameters():
            expected[name] = kept * expected[name] + (1 - kept) * parameter.detach().double()
    for name, average in trainer.average.items():
        torch.testing.assert_close(average.double(), expected[name], rtol=1e-4, atol=1e-7)


def test_what_is_validated_and_exported_is_the_average(
    tmp_path: Path, speakers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[TinyModel] = []

    def judge(model: TinyModel, *_: Any, **__: Any) -> list[dict[str, float]]:
        judged.append(model)
        return []

    monkeypatch.setattr(validation, "validate", judge)
    recipe = recipes.read(write(tmp_path, speakers, steps=12))
    path = training.train(recipe, tmp_path / "out")
    state = load_file(tmp_path / "out" / "state.safetensors")
    exported = Tiny(weights=path).network.state_dict()
    for name in [name for name in exported if name.startswith(("encoder.", "decoder."))]:
        average, last = state[f"average.{name}"], state[f"model.{name}"]
        assert torch.equal(judged[-1].state_dict()[name], average)
        rounding = average.abs().amax(dim=-1, keepdim=True) / 127 if average.ndim > 1 else 1e-3
        assert ((exported[name] - average).abs() <= rounding).all(), name
        assert not torch.equal(average, last)


def test_an_adversary_learns_from_its_first_step_on_and_leaves_the_codec_alone(
    tmp_path: Path, speakers: Path
) -> None:
    trainer = make(tmp_path, speakers, lambda text: text + ADVERSARY)  # from step 2 on
    judge = trainer._judge
    assert judge is not None
    judged = []
    for _ in range(4):
        before = [parameter.clone() for parameter in judge.parameters()]
        values = trainer.run_step()
        moved = [not torch.equal(*pair) for pair in zip(before, judge.parameters(), strict=True)]
        judged.append((all(moved), any(moved), "discriminator" in values, "features" in values))
    assert judged == [(False,) * 4] * 2 + [(True,) * 4] * 2
    audio_of = torch.randn(2, 3840, requires_grad=True)
    trainer._judged(torch.randn(2, 3840), audio_of)
    assert audio_of.grad is None  # what the discriminator learns is no gradient of the decoder


def test_bfloat16_trains_too(tmp_path: Path, speakers: Path) -> None:
    trainer = make(tmp_path, speakers, lambda text: 'precision = "bfloat16"\n' + text)
    values = [trainer.run_step() for _ in range(6)]
    assert all(math.isfinite(value) for row in values for value in row.values())
    assert trainer.skipped == 0


def test_two_processes_share_a_batch(tmp_path: Path, speakers: Path) -> None:
    file = write(tmp_path, speakers, steps=16, more=ADVERSARY)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    arguments = ["-m", "neuralcodec", "train", str(file), "--out", str(tmp_path / "two")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    where = ["--master-addr", "127.0.0.1", "--master-port", "0", "--rdzv-backend", "c10d"]
    where += ["--rdzv-endpoint", "127.0.0.1:0"]
    subprocess.run(
        [*torchrun, *where, *arguments], env=environment, check=True, capture_output=True
    )
    log = rows(tmp_path / "two" / "log.csv")
    assert [row["step"] for row in log] == [str(step) for step in range(1, 17)]
    assert all(math.isfinite(float(row["mel"])) for row in log)
    Tiny(weights=tmp_path / "two" / "model.safetensors")


def test_a_batch_must_be_shared_evenly(tmp_path: Path, speakers: Path) -> None:
    recipe = recipes.read(write(tmp_path, speakers))
    with pytest.raises(
        ValueError, match=r"data\.batch must be a multiple of the 3 processes, got 4"
    ):
        training._start(recipe, tmp_path, Processes(0, 3, torch.device("cpu")))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("frame_rate = 25", "frame_rat = 25", "key in .model. 'frame_rat'; .* 'frame_rate'"),
        ("frame_rate = 25", "frame_rate = 30", "model: frame_rate must divide 100 Hz, .* got 30"),
        ("batch = 4", "batsh = 4", "unknown key in .data. 'batsh'; did you mean 'batch'"),
        ("{ audio", "{ wait = 1, audio", "unknown key in .data.sources.0. 'wait'; .* 'weight'"),
        ("mel = 1.0", "mell = 1.0", "losses: unknown loss 'mell'; did you mean 'mel'"),
        ("mel = 1.0", "mel = 0.0", "losses: mel must have a weight above 0, got 0"),
        ("seconds = 0.24", "seconds = 0.25", "data.seconds must be whole latents of 0.04 s"),
        ("freeze_from = 14", "freeze_from = 3", "must not be before quantize_from, got 3 and 4"),
        (
            "fit_seconds",
            "noise = [0.5, 0.1]\nfit_seconds",
            r"noise: must be a range .* \[0.5, 0.1\]",
        ),
        ("seed = 3", "seed = -3", "seed: Input should be .* got -3"),
        ("[records]", "[recods]", "unknown key 'recods'; did you mean 'records'"),
    ],
)
def test_bad_recipes_name_the_value(
    old: str, new: str, message: str, tmp_path: Path, speakers: Path
) -> None:
    file = write(tmp_path, speakers)
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        recipes.read(file)


def test_the_projects_recipes_are_good() -> None:
    files = sorted((Path(__file__).parents[1] / "experiments" / "train").glob("*.toml"))
    assert len(files) >= 3
    for file in files:
        recipe = recipes.read(file)
        assert recipe.model.num_codebooks == 8


def corpus(speakers: Path, memory_mib: int = 64) -> Corpus:
    return Corpus(
        [Source(str(speakers))],
        seconds=0.5,
        augmentation=Augmentation(),
        held_out=0.5,
        memory_mib=memory_mib,
    )


def test_batches_depend_on_their_key_alone(speakers: Path) -> None:
    first, second = corpus(speakers), corpus(speakers, memory_mib=0)
    batch = first.batch(4, 1, 2, 3)
    assert batch.shape == (4, 8000)
    assert batch.abs().max() <= 1
    second.batch(4, 0, 0, 0)
    assert torch.equal(second.batch(4, 1, 2, 3), batch)
    assert not torch.equal(first.batch(4, 1, 2, 4), batch)


def test_clips_are_kept_in_memory_up_to_the_limit(tmp_path: Path, rng: Generator) -> None:
    for number in range(4):  # of 0.4 MB each in 16 bits
        wav = 0.1 * torch.randn(1, 200_000, generator=rng)
        audio.write(tmp_path / f"{number}.wav", wav, 16000)
    found = Corpus(
        [Source(str(tmp_path))],
        seconds=0.5,
        augmentation=Augmentation(),
        held_out=0.0,
        memory_mib=1,
    )
    found.batch(40, 0)
    kept = sum(samples.nbytes for samples in found._kept.values())
    assert 2**19 < kept <= 2**20


def test_speakers_are_held_out_whole(speakers: Path) -> None:
    found = corpus(speakers)
    out = {clip.speaker for clip in found.held_out}
    heard = {clip.speaker for clips in found._clips for clip in clips}
    assert out
    assert heard
    assert not out & heard
    alone = Clip("a.flac", Path("a.flac"))
    assert is_held_out(alone, 0.999999)
    assert not is_held_out(alone, 0.0)


def test_sources_leave_out_speakers_and_kinds(speakers: Path) -> None:
    left = find(Source(str(speakers), exclude_speakers=("voice1", "voice3")))
    assert [clip.speaker for clip in left] == ["voice0", "voice2"]
    with pytest.raises(ValueError, match=r"nothing is left of .* with kinds \['music'\]"):
        find(Source(str(speakers), kinds=("music",)))


def test_an_empty_source_is_refused() -> None:
    with pytest.raises(ValueError, match=r"audio must be a folder, .*got ' '"):
        Source(" ")


def test_a_stream_weighs_what_it_holds(tmp_path: Path) -> None:
    audio.write(tmp_path / "a.flac", torch.rand(1, 16000) * 0.1, 16000)
    content = (tmp_path / "a.flac").read_bytes()  # the samples, 36 bits from byte 21: not known
    (tmp_path / "a.flac").write_bytes(
        content[:21] + bytes([content[21] & 0xF0]) + bytes(4) + content[26:]
    )
    corpus = Corpus([Source(str(tmp_path))], seconds=0.5, augmentation=Augmentation(), held_out=0.0)
    assert corpus.seconds == 1.0


def test_a_recipe_finds_the_model_of_its_start_at_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "recipe.toml").write_text(
        'name = "a"\nbegin_with = "~/m.safetensors"\ndata.sources = [{audio = "x"}]\n'
        "schedule.steps = 1\n"
    )
    recipe = recipes.read("~/recipe.toml")
    assert recipe.begin_with == str(tmp_path / "m.safetensors")


def test_a_dataset_of_torchaudio_is_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "LibriSpeech" / "train-clean-100"
    for speaker in ("19", "26"):
        chapter = folder / speaker / "198"
        chapter.mkdir(parents=True)
        lines = []
        for number in range(2):
            name = f"{speaker}-198-{number:04d}"
            audio.write(chapter / f"{name}.flac", torch.rand(1, 8000) * 0.1, 16000)
            lines.append(f"{name} SOME WORDS")
        (chapter / f"{speaker}-198.trans.txt").write_text("\n".join(lines))
    found = find(Source(f"torchaudio:LIBRISPEECH:{tmp_path}"))
    assert len(found) == 4
    assert {clip.speaker for clip in found} == {"19", "26"}
    assert all(clip.read(16000).shape == (1, 8000) for clip in found)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find(Source("torchaudio:LIBRISPEECH:~")) == found
    with pytest.raises(ValueError, match="unknown NAME 'LIBRISPEACH'; did you mean 'LIBRISPEECH'"):
        find(Source("torchaudio:LIBRISPEACH:/data"))


def test_speakers_of_a_folder_are_its_folders(tmp_path: Path) -> None:
    for name in ("p225", "p226"):
        (tmp_path / name / "day").mkdir(parents=True)
        audio.write(tmp_path / name / "day" / "a.flac", torch.rand(1, 8000) * 0.1, 16000)
    speakers = [clip.speaker for clip in find(Source(str(tmp_path), speaker_level=1))]
    assert speakers == ["p225", "p226"]
    with pytest.raises(ValueError, match=r"speaker_level 3 is no folder around p225/day/a\.flac"):
        find(Source(str(tmp_path), speaker_level=3))


def test_augmentation_changes_level_and_filters(speakers: Path) -> None:
    options = Augmentation(peak=(0.5, 0.5), keep_level=0, mix=1, filter=1)
    loud = Corpus([Source(str(speakers))], seconds=0.5, augmentation=options, held_out=0.5)
    batch = loud.batch(3, 0)
    assert torch.allclose(batch.abs().amax(dim=1), torch.tensor(0.5))
    with pytest.raises(ValueError, match=r"peak must be a range .* got \[0.5, 0.1\]"):
        Augmentation(peak=(0.5, 0.1))
    with pytest.raises(ValueError, match=r"mix must be in 0\.\.1, got 1\.5"):
        Augmentation(mix=1.5)


@pytest.mark.parametrize(
    ("weights", "share"), [((1.0, 4.0), 0.2), ((4.0, 1.0), 0.8), ((0.0, 0.0), 0.25)]
)
def test_sources_are_heard_by_their_weight_or_length_and_clips_by_their_length(
    weights: tuple[float, float], share: float, tmp_path: Path
) -> None:
    for name, seconds, levels in (("a", 1, (0.1, 0.2)), ("b", 3, (0.3, 0.4))):
        (tmp_path / name).mkdir()
        for level, part in zip(levels, (0.25, 0.75), strict=True):
            wav = torch.full((1, round(16000 * seconds * part)), level)
            audio.write(tmp_path / name / f"{level}.wav", wav, 16000)
    heard = Corpus(
        [Source(str(tmp_path / name), weight) for name, weight in zip("ab", weights, strict=True)],
        seconds=0.01,
        augmentation=Augmentation(keep_level=1, mix=0, filter=0),
        held_out=0.0,
    )
    tenths = (10 * heard.batch(1000, 0).amax(dim=1)).round().int()
    found = torch.bincount(tenths, minlength=5)[1:] / 1000
    expected = torch.tensor([share / 4, 3 * share / 4, (1 - share) / 4, 3 * (1 - share) / 4])
    assert torch.allclose(found, expected, atol=0.06)  # four standard deviations at the most


def test_peaks_are_drawn_on_a_logarithmic_scale(speakers: Path) -> None:
    options = Augmentation(peak=(0.01, 1.0), keep_level=0, mix=0, filter=0)
    found = Corpus([Source(str(speakers))], seconds=0.02, augmentation=options, held_out=0.0)
    peaks = found.batch(1000, 0).abs().amax(dim=1)
    for below, part in ((0.0316, 0.25), (0.1, 0.5), (0.316, 0.75)):
        assert float((peaks < below).float().mean()) == pytest.approx(part, abs=0.06)


def test_silence_is_not_heard_but_where_there_is_nothing_else(tmp_path: Path) -> None:
    options = Augmentation(keep_level=1, mix=0, filter=0)
    for name, tone in (("half", 0.5), ("nothing", 0.0)):
        (tmp_path / name).mkdir()
        wav = torch.cat([torch.zeros(1, 16000), torch.full((1, 16000), tone)], dim=1)
        audio.write(tmp_path / name / "a.wav", wav, 16000)
        sources = [Source(str(tmp_path / name))]
        found = Corpus(sources, seconds=0.02, augmentation=options, held_out=0.0)
        peaks = found.batch(50, 0).abs().amax(dim=1)
        assert torch.equal(peaks > 0, torch.full((50,), tone > 0))


def test_what_is_mixed_in_lies_5_to_25_db_below(speakers: Path) -> None:
    def batch(mix: float) -> Tensor:
        options = Augmentation(keep_level=1, mix=mix, filter=0)
        quiet = Corpus([Source(str(speakers))], seconds=0.5, augmentation=options, held_out=0.0)
        return torch.cat([quiet.batch(1, number) for number in range(40)])

    alone, mixed = batch(0), batch(1)
    added = 10 * ((mixed - alone).square().mean(dim=1) / alone.square().mean(dim=1)).log10()
    quiet = mixed.abs().amax(dim=1) < 1  # a sum beyond full scale is brought to another level
    assert quiet.sum() > 20
    assert -25.1 < float(added[quiet].min()) < -20
    assert -10 < float(added[quiet].max()) < -4.9


def test_the_equalizer_stays_within_6_db() -> None:
    click = np.zeros(4000)
    click[2000] = 1
    gains = [
        20 * np.log10(np.abs(np.fft.rfft(_equalize(click, np.random.default_rng(seed)))))
        for seed in range(30)
    ]
    assert np.abs(gains).max() < 6.01
    assert np.abs(gains).max() > 5


def test_validation_is_the_mean_over_the_clips_that_have_a_score(
    speakers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([1.0, math.nan, 4.0])
    monkeypatch.setattr(
        validation, "score", lambda *_, **__: dict.fromkeys(validation.METRICS, next(values))
    )
    model = TinyModel(TinyConfig(frame_rate=25, dim=6, width=12, fine_width=8)).eval()
    (row,) = validation.validate(
        model, find(Source(str(speakers)))[:3], seconds=0.2, quantized=False
    )
    assert row == {"num_codebooks": 0, "clips": 3, **dict.fromkeys(validation.METRICS, 2.5)}


def test_means_are_of_the_steps_since_the_last_row() -> None:
    means = training._Means({})
    for values in ([1.0, 3.0], [5.0]):
        for value in values:
            means.add({"mel": value})
        assert means.take() == {"mel": sum(values) / len(values)}


def test_validation_takes_a_clip_of_each_speaker_in_turn() -> None:
    def clip(name: str, speaker: str, kind: str = "speech") -> Clip:
        return Clip(name, Path(name), kind, "", speaker)

    found = [clip("a", "x"), clip("b", "x"), clip("c", "y", "unknown"), clip("d", "z", "music")]
    assert [each.name for each in validation.choose(found, 2)] == ["a", "c"]
    assert [each.name for each in validation.choose(found, 9)] == ["a", "c", "b"]
    assert validation.depths(8) == [1, 2, 4, 8]
    assert validation.depths(3) == [1, 2, 3]
    assert validation.depths(1) == [1]


@pytest.fixture
def speech(rng: Generator) -> Tensor:
    t = torch.arange(16000) / 16000
    swell = 0.5 + 0.5 * torch.sin(2 * math.pi * 2 * t)
    tone = sum(torch.sin(2 * math.pi * 140 * k * t) / k for k in range(1, 20))
    return (0.05 * tone * swell + 0.002 * torch.randn(16000, generator=rng))[None]


@pytest.mark.parametrize("name", LOSSES)
def test_losses_rise_with_noise_and_have_a_finite_gradient(
    name: str, speech: Tensor, rng: Generator
) -> None:
    loss = LOSSES[name]
    noise = torch.randn(speech.shape, generator=rng)
    values = [float(loss(speech, speech + level * noise)) for level in (0, 0.001, 0.01, 0.1)]
    assert values == sorted(values)
    assert values[0] <= 0.01
    for start in (speech + 0.01 * noise, torch.zeros_like(speech), speech.clone()):
        estimate = start.requires_grad_()
        loss(speech, estimate).backward()  # type: ignore[no-untyped-call]
        assert estimate.grad is not None
        assert torch.isfinite(estimate.grad).all()
    silence = torch.zeros_like(speech)
    assert math.isfinite(float(loss(silence, speech)))
    assert math.isfinite(float(loss(silence, silence)))


@pytest.mark.parametrize("length", [96, 100])  # whole hops of 16 samples, and not
def test_the_gradient_of_spectra_is_that_of_finite_differences(length: int, rng: Generator) -> None:
    wav = torch.randn(2, length, generator=rng, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda wav: _spectra(wav, 32), (wav,))


@pytest.mark.parametrize("gain", [0.5, 3.0])
def test_mel_loss_of_a_gain_is_its_logarithm(gain: float, speech: Tensor, rng: Generator) -> None:
    loud = 100 * torch.randn(speech.shape, generator=rng)  # every band is far above the floor
    loss = float(LOSSES["mel"](loud, gain * loud))
    assert loss == pytest.approx(abs(math.log(gain)), rel=1e-3)


def test_noise_loss_is_the_mean_of_the_logarithms_of_tenths_of_a_second(rng: Generator) -> None:
    levels = torch.logspace(-4, 0, 10).repeat_interleave(1600)  # mean of logs, not log of means
    reference, noise = torch.randn(2, 2, 16000, generator=rng) * levels
    estimate = reference + 0.1 * noise.flip(1)
    ratios = []
    for start in range(0, 16000, 1600):
        part = slice(start, start + 1600)
        power = (reference - estimate)[:, part].square().mean(1) + 1e-6
        ratios.append(power / (reference[:, part].square().mean(1) + 1e-6) + 1e-3)
    expected = float(torch.stack(ratios).log().mean())
    assert float(LOSSES["noise"](reference, estimate)) == pytest.approx(expected, rel=1e-5)


def test_complex_loss_is_of_magnitudes_to_the_power_of_0_3_with_and_without_phase(
    rng: Generator,
) -> None:
    def compressed(wav: Tensor) -> np.ndarray:
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
        starts = range(0, wav.shape[-1] - 511, 256)
        frames = np.array([hann * wav[0, start : start + 512].numpy() for start in starts])
        spectra = np.fft.rfft(frames) / 512**0.5
        powered: np.ndarray = np.abs(spectra) ** 0.3 * np.exp(1j * np.angle(spectra))
        return powered

    reference, noise = torch.randn(2, 1, 8000, generator=rng)
    estimate = 0.7 * reference + 0.3 * noise
    ours, theirs = compressed(reference), compressed(estimate)
    expected = (np.abs(ours) - np.abs(theirs)) ** 2 + np.abs(ours - theirs) ** 2
    found = float(LOSSES["complex"](reference, estimate))
    assert found == pytest.approx(float(expected.mean()), rel=1e-3)


def test_loudness_hears_what_is_added_more_than_what_is_missing(speech: Tensor) -> None:
    hiss = 0.02 * torch.randn(speech.shape, generator=torch.Generator().manual_seed(0))
    loss = LOSSES["loudness"]
    assert loss(speech, speech + hiss) > 1.5 * loss(speech + hiss, speech)
    assert loss(4 * speech, 4 * (speech + hiss)) == pytest.approx(
        float(loss(speech, speech + hiss)), rel=1e-3
    )


def test_differences_of_up_to_a_quarter_of_the_loudness_are_masked(rng: Generator) -> None:
    noise = 0.1 * torch.randn(1, 16000, generator=rng)
    # Loudness grows with the amplitude to the power of 0.46: by a quarter at a gain of 1.6.
    none, below, above = (
        float(LOSSES["loudness"](noise, gain * noise)) for gain in (1.0, 1.5, 1.75)
    )
    assert none < below
    assert above - below > 5 * (below - none)


def test_envelope_loss_is_what_stoi_measures(rng: Generator) -> None:
    loss = LOSSES["envelope"]
    voices = [clip for clip in clips("starter:test") if clip.kind == "speech"]
    for clip in voices[:3]:
        speech = clip.read(16000)[:, :48000]
        noise = torch.randn(speech.shape, generator=rng)
        for share in (0.1, 0.3, 1.0):
            estimate = speech + share * speech.std() * noise
            measured = 1 - pystoi.stoi(speech[0].numpy(), estimate[0].numpy(), 16000)
            assert float(loss(speech, estimate)) == pytest.approx(measured, rel=0.2)
        found = float(loss(speech, estimate))
        assert float(loss(speech, 3 * estimate)) == pytest.approx(found, rel=1e-3)
        silence = torch.zeros(1, 32000)
        longer = [torch.cat([wav, silence], dim=1) for wav in (speech, estimate)]
        assert float(loss(*longer)) == pytest.approx(found, rel=0.08)


def test_envelope_loss_leaves_quiet_and_flat_signals_alone(speech: Tensor, rng: Generator) -> None:
    loss = LOSSES["envelope"]
    tone = 0.1 * torch.sin(2 * math.pi * 440 * torch.arange(16000) / 16000)[None]
    for equal in (torch.zeros(1, 16000), tone, speech):
        assert float(loss(equal, equal)) == 0
    noise = 0.3 * torch.randn(speech.shape, generator=rng)
    steepest = []
    for level in (1e-1, 1e-4):
        reference = speech / speech.std() * level
        estimate = (reference + level * noise).requires_grad_()
        loss(reference, estimate).backward()  # type: ignore[no-untyped-call]
        assert estimate.grad is not None
        steepest.append(float(estimate.grad.norm()))
    assert steepest[1] < 200 * steepest[0]  # in proportion to 1 / level it were 1000


def test_envelope_loss_needs_audio_that_is_long_enough(speech: Tensor) -> None:
    with pytest.raises(ValueError, match=r"needs 0\.4 s of audio, got 0\.2 s"):
        LOSSES["envelope"](speech[:, :3200], speech[:, :3200])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_weights_decay_in_matrices_alone(optimizer: Literal["adamw", "muon"]) -> None:
    model = TinyModel(TinyConfig(frame_rate=25, dim=6, width=12, fine_width=8))
    schedule = Schedule(steps=1, optimizer=optimizer, learning_rate=0.1, weight_decay=0.5)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)  # so that nothing else moves them
    for each in optimizers(model, schedule).values():
        each.step()
    for name, parameter in model.named_parameters():
        kept = 1 - 0.1 * 0.5 if parameter.ndim > 1 else 1
        assert torch.allclose(parameter, kept * before[name], rtol=1e-5), name


def test_muon_takes_the_matrices_inside_and_adamw_the_rest() -> None:
    model = TinyModel(TinyConfig(frame_rate=25, dim=6, width=12, fine_width=8))
    both = optimizers(model, Schedule(steps=1, optimizer="muon"))
    counts = {
        name: [p.ndim for group in each.param_groups for p in group["params"]]
        for name, each in both.items()
    }
    blocks = 3 + 4 + 1 + 2
    assert counts["muon"] == [2] * (2 * blocks + 2)
    assert len(counts["muon"]) + len(counts["optimizer"]) == len(list(model.parameters()))
    assert list(optimizers(model, Schedule(steps=1))) == ["optimizer"]


def test_balanced_gradients_keep_to_their_weights(rng: Generator) -> None:
    output = torch.randn(3, 50, generator=rng, requires_grad=True)
    first, second = torch.randn(2, 3, 50, generator=rng)
    balancer = Balancer({"a": 1.0, "b": 3.0}, decay=0.0)
    losses = {"a": (1000 * first * output).sum(), "b": (0.01 * second * output).sum()}
    gradient = balancer.gradient(losses, output)
    expected = sum(
        weight * direction / direction.norm(dim=-1).mean()
        for weight, direction in ((0.25, first), (0.75, second))
    )
    assert torch.allclose(gradient, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="weights above 0"):
        Balancer({"a": 0.0})
    with pytest.raises(ValueError, match="weights above 0"):
        Balancer({})


def test_the_scale_of_a_loss_is_averaged_over_the_steps(rng: Generator) -> None:
    output = torch.randn(2, 30, generator=rng, requires_grad=True)
    direction = torch.nn.functional.normalize(torch.randn(2, 30, generator=rng))
    balancer = Balancer({"a": 1.0}, decay=0.9)
    for scale, mean in ((1.0, 1.0), (4.0, (0.9 + 4) / 1.9), (2.0, (0.81 + 0.9 * 4 + 2) / 2.71)):
        gradient = balancer.gradient({"a": (scale * direction * output).sum()}, output)
        assert torch.allclose(gradient, direction * scale / mean, rtol=1e-4)


def test_discriminator_learns_to_tell_and_the_decoder_is_told(rng: Generator) -> None:
    torch.manual_seed(0)
    judge = Discriminator(channels=4)
    real = torch.sin(torch.arange(4000) * 0.1).repeat(2, 1)
    made = (0.3 * torch.randn(2, 4000, generator=rng)).requires_grad_()
    with torch.no_grad():
        before = float(discriminator_loss(judge(real), judge(made)))
    optimizer = torch.optim.Adam(judge.parameters(), lr=0.01)
    for _ in range(40):
        loss = discriminator_loss(judge(real), judge(made.detach()))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(loss.detach()) < 0.5 * before
    judged = judge(made)
    assert adversarial_loss(judged) > adversarial_loss(judge(real))
    assert feature_loss(judge(real), judge(real)) == 0
    assert feature_loss(judge(real), judged) > 0.1
    torch.autograd.backward(adversarial_loss(judged) + feature_loss(judge(real), judged))
    assert made.grad is not None
    assert made.grad.abs().sum() > 0
    features = torch.randn(2, 3, generator=rng, requires_grad=True)
    others = torch.randn(2, 3, generator=rng, requires_grad=True)
    torch.autograd.backward(feature_loss([(real, [features])], [(real, [others])]))
    assert features.grad is None  # a recording's features are what they are
    assert others.grad is not None


def test_recipe_of_defaults_needs_data_and_steps_alone() -> None:
    table = {"name": "x", "data": {"sources": [{"audio": "a"}]}, "schedule": {"steps": 5}}
    recipe = Recipe.model_validate(table)
    assert recipe.adversary is None
    assert recipe.model.frame_rate == 50
