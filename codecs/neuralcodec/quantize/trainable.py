"""Codebooks that learn while a model around them trains."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Generator, Tensor, nn

from neuralcodec.quantize import card, distributed, statistics
from neuralcodec.quantize.codebooks import Codebooks
from neuralcodec.quantize.learning import Learning, Seen, State, learn
from neuralcodec.quantize.lookup.books import check_squares
from neuralcodec.quantize.passes import Pass, Passes
from neuralcodec.quantize.start import ITERATIONS, Start, at_least


class TrainableCodebooks(Codebooks):
    """Codebooks with the state of their training.

    In training mode a forward pass learns, with four exceptions: `freeze` stops it, `learning=None`
    does so from the beginning, a pass under `torch.no_grad` does not learn, and what activation
    checkpointing computes again does not learn again. `model.requires_grad_(False)` on a model
    around the quantizer reaches parameters only, not codebooks that are moving averages: call
    `freeze` as well.

    Attributes:
        counts: `[K, V]`, exponential moving average of the number of vectors per batch assigned to
            each entry.
        sums: `[K, V, Dc]`, exponential moving average of the sum of these vectors; None if the
            codebooks are trained by gradient.
        histogram: `[K, V]`, decayed count of how often each entry was selected in training; see
            `statistics`.
        learning: how the codebooks learn, the defaults if the argument was None.
        frozen: whether they do not learn.
    """

    counts: Tensor
    sums: Tensor | None
    histogram: Tensor

    def __init__(self, *arguments: Any, learning: Learning | None, **settings: Any) -> None:
        super().__init__(*arguments, learning=learning or Learning(), **settings)
        learned = isinstance(self.codebooks, nn.Parameter)
        numbers = self.codebooks[:, :, 0].detach()
        self.register_buffer("sums", None if learned else torch.zeros_like(self.codebooks))
        self.register_buffer("counts", torch.zeros_like(numbers))
        self.register_buffer("histogram", torch.zeros_like(numbers))
        self.frozen = False
        self._passes = Passes()
        self._collected: list[Seen] = []
        self._new_start()
        self.reset_parameters()
        if learning is None:
            self.freeze()

    def _new_start(self) -> None:
        self._start = Start(self.learning.start_vectors * self.codebook_size)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Make the quantizer's own tensors those of a new one, such as after `to_empty`.

        The projections are modules with a `reset_parameters` of their own.
        """
        super().reset_parameters()
        self._state().reset()
        self._collected = []
        self._new_start()

    def freeze(self) -> Self:
        """Keep codebooks and statistics as they are, also in training mode; undo with `unfreeze`.

        Codebooks that are a parameter no longer require gradients. Projections are not concerned:
        they are frozen as any layer, with `requires_grad_`.
        """
        return self._freeze(True)

    def unfreeze(self) -> Self:
        """Let the codebooks learn again."""
        return self._freeze(False)

    def _freeze(self, frozen: bool) -> Self:
        self.frozen = frozen
        if isinstance(self.codebooks, nn.Parameter):
            self.codebooks.requires_grad_(not frozen)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """As of any module; False also freezes codebooks that are moving averages, True undoes it.

        Called on a model around the quantizer, it reaches parameters only.
        """
        super().requires_grad_(requires_grad)
        return self._freeze(not requires_grad)

    @property
    def learns(self) -> bool:
        """Whether the codebooks learn in training mode."""
        fixed = isinstance(self.codebooks, nn.Parameter) and not self.codebooks.requires_grad
        return not (self.frozen or fixed)

    # The state dict

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Save as `nn.Module` does, and what a start that is not complete has collected."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self._start.vectors is not None:
            destination[f"{prefix}start"] = self._start.vectors
            destination[f"{prefix}start_fitted"] = torch.tensor(self._start.fitted)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load as `Codebooks` does, and go on with the start that was saved, if any."""
        vectors = state_dict.pop(f"{prefix}start", None)
        fitted = state_dict.pop(f"{prefix}start_fitted", 0)
        has_codebooks, before = f"{prefix}codebooks" in state_dict, len(error_msgs)
        super()._load_from_state_dict(
            *(state_dict, prefix, local_metadata, strict),
            *(missing_keys, unexpected_keys, error_msgs),
        )
        if has_codebooks and len(error_msgs) == before:
            self._collected = []
            self._new_start()
            if vectors is not None:
                self._start.vectors = vectors.clone().to(self.codebooks.device)
                self._start.fitted = int(fitted)

    # Learning

    @property
    def started(self) -> bool:
        """Whether there are codebooks, if only of the first training batches."""
        return super().started or self._start.fitted > 0 or bool(self.codebooks.any())

    def _state(self) -> State:
        return State(self.codebooks, self.counts, self.sums, self.histogram, self.valid)

    @torch.no_grad()
    def _take(self, codebooks: Tensor) -> None:
        """Replace the codebooks by `[K, V, Dc]` and mark them as fitted."""
        self._state().restart(codebooks)
        self.fitted.fill_(True)

    def _begin(self, vectors: Tensor, teaches: bool) -> None:
        """Continue the initialisation with the latents `[N, D]` float32 of a batch.

        A pass that does not teach begins it if there are no codebooks yet, and no more than that.

        Raises:
            ValueError: if a latent is not finite or its squared length is above the float32 range.
        """
        check_squares(vectors.square().sum(dim=1), "z")
        begins = not self.started
        if begins or (teaches and not self._start.ahead):
            self._start.add(vectors)
        self._start.ahead = begins and not teaches
        if begins or (teaches and self.learning.update == "call"):
            self._refit()

    @torch.no_grad()
    def _refit(self) -> bool:
        """Fit the codebooks to the vectors of the start if that is due; return whether it was."""
        chosen = self._start.due()
        if chosen is None:
            return False
        books = torch.zeros_like(self.codebooks)
        if distributed.is_first():
            generator = Generator().manual_seed(int(torch.randint(2**31, ())))
            vectors = self._shared(at_least(chosen, self.codebook_size))
            books.copy_(
                self._fit(vectors, iterations=ITERATIONS, beam_width=1, generator=generator)
            )
        distributed.copy_first(books)
        self._state().restart(books)
        if self._start.complete:
            self.fitted.fill_(True)
            self._new_start()  # releases the collected vectors
        return True

    def _codebooks_of(self, turn: Pass) -> Tensor | None:
        """Return the codebooks of a pass if they are not those of now: before it taught them."""
        if turn.teaches:
            self._passes.keep(self.codebooks)
        recalled = self._passes.recall() if turn.again and not turn.teaches else None
        if recalled is None or not self.codebooks.requires_grad:
            return recalled
        return recalled + (self.codebooks - self.codebooks.detach())  # with today's gradient

    def _learn(self, inputs: Sequence[Tensor], codes: Tensor, mask: Tensor | None) -> None:
        """Learn from each level's inputs `[B, T, Dc]` and codes `[B, T, K]`, or collect them.

        Raises:
            ValueError: if the module was converted to a type other than float32.
        """
        if self.codebooks.dtype != torch.float32:
            raise ValueError(
                f"codebooks must stay float32 to learn, got {self.codebooks.dtype}: "
                "use autocast in place of converting the module"
            )
        seen = Seen.of([each.detach() for each in inputs], codes, mask)
        if self.learning.update == "manual":
            self._collected.append(seen)
        else:
            learn(self._state(), self.learning, seen)

    def update(self) -> None:
        """Learn from the latents of all training passes since the last update, as from one batch.

        For gradient accumulation, with `Learning(update="manual")`: call it once per optimiser
        step. Until then the latents stay in memory, once per level, and the codebooks as they are;
        no checkpoint holds them. Under `torch.distributed` all processes must call it.

        Raises:
            ValueError: if the quantizer updates its codebooks in each call.
        """
        if self.learning.update != "manual":
            raise ValueError("update() needs Learning(update='manual'), got update='call'")
        collected, self._collected = self._collected, []
        if not self.learns:
            return
        if not self.fitted and self._refit():
            return  # the codes that were collected are those of other codebooks
        learn(self._state(), self.learning, Seen.joined(collected))

    # Statistics

    @property
    def usage(self) -> Tensor:
        """Fraction of the entries in use per level, `[K]`; see `statistics.usage`."""
        return statistics.usage(self.histogram, self.codebook_sizes)

    @property
    def entropy(self) -> Tensor:
        """Entropy in bits of the training codes per level, `[K]`; see `statistics.entropy`."""
        return statistics.entropy(self.histogram)

    @property
    def perplexity(self) -> Tensor:
        """Perplexity of the training codes per level, `[K]`: 2 to the power of the entropy."""
        return self.entropy.exp2()

    def summary(self) -> str:
        """Return a printable table of entries, usage, perplexity and entropy per level."""
        return statistics.table(self.codebook_sizes, self.usage, self.entropy)

    def __repr__(self) -> str:
        return card.line(type(self).__name__, card.facts(self.dim, [self]))

    def _repr_html_(self) -> str:
        shown = card.facts(self.dim, [self])
        figures = self.codebook_sizes, self.usage, self.entropy
        return card.html_card(type(self).__name__, shown, *figures)
