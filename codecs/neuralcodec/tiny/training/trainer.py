"""One training step: a batch is encoded, quantized, decoded and scored, and weights are updated.

All random numbers are drawn from the seed and the step number, so that the state of a training run
consists of its tensors and that number.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from neuralcodec.quantize import Learning
from neuralcodec.tiny.checkpoint import Part
from neuralcodec.tiny.model import TinyModel
from neuralcodec.tiny.training import discriminator as adversary
from neuralcodec.tiny.training.balance import Balancer
from neuralcodec.tiny.training.corpus import Corpus
from neuralcodec.tiny.training.losses import LOSSES
from neuralcodec.tiny.training.optimizers import optimizers
from neuralcodec.tiny.training.processes import Processes
from neuralcodec.tiny.training.recipe import Quantizer, Recipe

_FINAL_RATE = 0.01  # learning rate at the end, relative to its peak
_PATIENCE = 20  # consecutive steps without a finite gradient after which training fails
_STEP, _FIT = 0, 1  # streams of batches
_ADVERSARIAL, _FEATURES = "adversarial", "features"


class Diverged(RuntimeError):
    """Raised if the gradients of a training run are no longer finite."""


def add_noise(z: Tensor, low: float, high: float) -> Tensor:
    """Add noise that takes the place of a quantization error.

    Its power is a fraction of the mean variance of the latents and equal in all dimensions, like
    the error of a quantizer with Euclidean distance. The encoder therefore gains by giving more
    variance to dimensions that matter more, and none to those that are not worth their bits. This
    is reverse water-filling, which a straight-through gradient does not teach. The fraction, drawn
    per crop uniformly on a logarithmic scale, corresponds to a number of codebooks.

    Args:
        z: `[B, D, T]`.
        low: smallest fraction, above 0.
        high: largest fraction.

    Returns:
        `[B, D, T]`.
    """
    share = torch.empty(len(z), 1, 1, device=z.device).uniform_(math.log(low), math.log(high)).exp()
    power = z.var(dim=(0, 2), correction=0).mean()
    return z + (share * power).sqrt() * torch.randn_like(z)


class _Pass(nn.Module):
    """The forward pass of training, as one module for `DistributedDataParallel`."""

    def __init__(self, model: TinyModel, options: Quantizer) -> None:
        super().__init__()
        self.model = model
        self.beam_width, self.noise = options.beam_width, options.noise

    def forward(self, wav: Tensor, phase: str) -> tuple[Tensor, Tensor]:
        """Return the estimate `[B, T]` of `wav [B, T]`, and the commitment loss."""
        if phase == "frozen":
            quantized = self._coded(wav)
            return self.model.decoder(quantized), wav.new_zeros(())
        z = self.model.encoder(wav)
        if phase == "free":
            heard = add_noise(z, *self.noise) if self.noise[1] else z
            return self.model.decoder(heard), wav.new_zeros(())
        result = self.model.rvq(z)
        return self.model.decoder(result.quantized), result.commitment_loss

    @torch.no_grad()
    def _coded(self, wav: Tensor) -> Tensor:
        """Return quantized latents: by beam search with all codebooks, or greedily with fewer.

        A crop uses a prefix of random length of its greedy codes with the probability of quantizer
        dropout, so that the decoder trains on codes of any number of codebooks as it will receive
        them.
        """
        rvq = self.model.rvq
        z = self.model.encoder(wav)
        quantized = rvq.decode(rvq.encode(z, beam_width=self.beam_width))
        dropped = torch.rand(len(z)) < rvq.learning.quantizer_dropout
        if not dropped.any():
            return quantized
        greedy = rvq.encode(z[dropped])
        for place, codes in zip(dropped.nonzero()[:, 0], torch.split(greedy, 1), strict=True):
            depth = int(torch.randint(1, rvq.num_codebooks + 1, ()))
            quantized[place] = rvq.decode(codes[:, :depth])[0]
        return quantized


class Trainer:
    """A model with its optimisers, losses and data.

    Args:
        recipe: settings of the training run.
        corpus: training data.
        processes: the processes that train together.

    Attributes:
        model: the model in training, on the device.
        average: moving average of each parameter, by name.
        step: number of the next step, from 0.
        skipped: total number of steps without a finite gradient, which update no parameters.
    """

    def __init__(self, recipe: Recipe, corpus: Corpus, processes: Processes) -> None:
        self.recipe, self.corpus, self.processes = recipe, corpus, processes
        torch.manual_seed(recipe.seed)
        options = Learning(
            start_vectors=0,
            quantizer_dropout=recipe.quantizer.dropout,
            gradient=recipe.quantizer.gradient,
            decay=recipe.quantizer.decay,
        )
        self.model = TinyModel(recipe.model, options).to(processes.device)
        self.average = {k: v.detach().clone() for k, v in self.model.named_parameters()}
        self._optimizers = optimizers(self.model, recipe.schedule)
        weights = dict(recipe.losses)
        self._judge: adversary.Discriminator | None = None
        if recipe.adversary is not None:
            self._judge = adversary.Discriminator(recipe.adversary.channels).to(processes.device)
            self._judge_optimizer = torch.optim.AdamW(
                self._judge.parameters(), lr=recipe.adversary.learning_rate, betas=(0.5, 0.9)
            )
            weights[_ADVERSARIAL] = recipe.adversary.weight
            weights[_FEATURES] = recipe.adversary.feature_weight
        self._balancer = Balancer(weights, average=lambda norm: processes.average([norm]))
        self.step = self.skipped = self._in_a_row = 0
        self._wrapped: tuple[str, nn.Module] | None = None

    @property
    def parts(self) -> dict[str, Part]:
        """Everything that resuming needs except the step number."""
        parts: dict[str, Part] = {
            "model": self.model,
            "average": self.average,
            **self._optimizers,
            "balancer": {"norms": self._balancer.norms},
        }
        if self._judge is not None:
            parts |= {"judge": self._judge, "judge_optimizer": self._judge_optimizer}
        return parts

    def phase(self) -> str:
        """Return the phase of the next step.

        It is "free" without a quantizer, "learning" with one, or "frozen" with a fixed encoder.
        """
        schedule = self.recipe.schedule
        if self.step < schedule.quantize_from:
            return "free"
        frozen = schedule.freeze_from
        return "learning" if frozen is None or self.step < frozen else "frozen"

    def learning_rate(self) -> float:
        """Return the learning rate of the next step: linear warm-up, then a cosine."""
        schedule = self.recipe.schedule
        if self.step < schedule.warmup:
            return schedule.learning_rate * (self.step + 1) / schedule.warmup
        done = (self.step - schedule.warmup) / max(schedule.steps - schedule.warmup, 1)
        cosine = (1 + math.cos(math.pi * min(done, 1.0))) / 2
        return schedule.learning_rate * (_FINAL_RATE + (1 - _FINAL_RATE) * cosine)

    @torch.no_grad()
    def _fit(self, phase: str) -> None:
        """Fit the codebooks to the encoder's latents of a part of the corpus."""
        recipe, crops = self.recipe, 32
        count = math.ceil(recipe.quantizer.fit_seconds / (crops * recipe.data.seconds))
        key = (recipe.seed, self.step, _FIT)
        batches = (self.corpus.batch(crops, *key, index) for index in range(count))
        device = self.processes.device
        latents = torch.cat([self.model.encoder(wav.to(device)) for wav in batches])
        z = latents.mT.flatten(0, 1).mT[None]
        if phase == "frozen":
            self.model.rvq.fit(z, seed=recipe.seed)
        else:  # these codebooks continue to train, so a faster fit suffices
            self.model.rvq.fit(z, beam_width=1, refinements=0, seed=recipe.seed)
        self.processes.copy_first(self.model.rvq.codebooks)

    def _enter(self, phase: str) -> None:
        """Prepare the first step of a phase: fit the codebooks, of averaged weights if frozen."""
        schedule = self.recipe.schedule
        if phase == "frozen" and self.step == schedule.freeze_from:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(self.average[name])
            self._fit(phase)
        elif phase == "learning" and self.step == schedule.quantize_from:
            self._fit(phase)

    def _pass(self, phase: str) -> nn.Module:
        """Return the forward module, built again if a new phase has other trainable parameters."""
        if self._wrapped is not None and self._wrapped[0] == phase:
            return self._wrapped[1]
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(phase != "frozen" or name.startswith("decoder."))
        if self.recipe.compile:
            self.model.encoder.compile()
            self.model.decoder.compile()
        module: nn.Module = _Pass(self.model, self.recipe.quantizer)
        if self.processes.count > 1:
            module = DistributedDataParallel(module, broadcast_buffers=False)
        self._wrapped = phase, module
        return module

    @contextlib.contextmanager
    def _autocast(self) -> Iterator[None]:
        enabled = self.recipe.precision == "bfloat16"
        with torch.autocast(self.processes.device.type, torch.bfloat16, enabled=enabled):
            yield

    def _judged(self, wav: Tensor, estimate: Tensor) -> dict[str, Tensor]:
        """Train the discriminator on a batch; return its loss and the losses that it defines."""
        table = self.recipe.adversary
        if self._judge is None or table is None or self.step < table.start:
            return {}
        real, made = self._judge(wav), self._judge(estimate.detach())
        loss = adversary.discriminator_loss(real, made)
        self._judge_optimizer.zero_grad()
        torch.autograd.backward(loss)
        gradients = [p.grad for p in self._judge.parameters() if p.grad is not None]
        self.processes.average(gradients)
        if all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            self._judge_optimizer.step()
        with torch.no_grad():
            real = self._judge(wav)
        made = self._judge(estimate)
        return {
            _ADVERSARIAL: adversary.adversarial_loss(made),
            _FEATURES: adversary.feature_loss(real, made),
            "discriminator": loss.detach(),
        }

    def run_step(self) -> dict[str, float]:
        """Run one step; return its losses and the norm of its gradient by name.

        Raises:
            Diverged: if the gradient was not finite in 20 consecutive steps.
        """
        recipe, processes = self.recipe, self.processes
        torch.manual_seed((recipe.seed * 1_000_003 + self.step) * 1009 + processes.rank)
        phase = self.phase()
        self.model.train()
        self._enter(phase)
        module = self._pass(phase)
        size = recipe.data.batch // processes.count
        wav = self.corpus.batch(size, recipe.seed, self.step, _STEP, processes.rank)
        wav = wav.to(processes.device)
        with self._autocast():
            estimate, commitment = module(wav, phase)
        estimate = estimate.float()
        losses = {name: LOSSES[name](wav, estimate) for name in recipe.losses}
        losses |= self._judged(wav, estimate)
        gradient = self._balancer.gradient(losses, estimate) / size
        weighed = recipe.quantizer.commitment * commitment
        learned = [estimate, weighed] if weighed.requires_grad else [estimate]
        self.model.zero_grad()
        torch.autograd.backward(learned, [gradient, None][: len(learned)])
        norm = self._update()
        self.step += 1
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        return {**values, "commitment": float(commitment.detach()), "gradient_norm": norm}

    def _update(self) -> float:
        """Update weights and their moving average if the gradient is finite; return its norm."""
        schedule = self.recipe.schedule
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = float(nn.utils.clip_grad_norm_(parameters, schedule.clip))
        if not math.isfinite(norm):
            self.skipped, self._in_a_row = self.skipped + 1, self._in_a_row + 1
            if self._in_a_row >= _PATIENCE:
                raise Diverged(
                    f"the gradient was not finite for {_PATIENCE} steps, the last {self.step}: "
                    f"try a lower learning_rate than {schedule.learning_rate}"
                )
            return norm
        self._in_a_row = 0
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate()
            optimizer.step()
        # The decay is smaller at first, so that the average forgets the initial weights.
        decay = min(schedule.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                self.average[name].lerp_(parameter, 1 - decay)
        return norm

    def averaged(self) -> TinyModel:
        """Return a copy of the model with averaged weights, in evaluation mode."""
        model = TinyModel(self.recipe.model, self.model.rvq.learning).to(self.processes.device)
        state: dict[str, Any] = {**self.model.state_dict(), **self.average}
        model.load_state_dict(state)
        return model.eval()
