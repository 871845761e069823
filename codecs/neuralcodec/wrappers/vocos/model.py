"""The networks of the package `vocos`: configuration, checkpoints and random weights.

They are built here from the hyperparameters of a configuration. The package would instantiate any
class that the configuration names, and download EnCodec for the model of its tokens.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
import yaml  # type: ignore[import-untyped]  # its types are in another package
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional

from neuralcodec.core import torchaudio_guard
from neuralcodec.core.networks import fill, load_state, seeded
from neuralcodec.weights import locate

torchaudio_guard.load()

from vocos.feature_extractors import MelSpectrogramFeatures  # noqa: E402  # it imports torchaudio
from vocos.heads import ISTFTHead  # noqa: E402
from vocos.models import VocosBackbone  # noqa: E402
from vocos.pretrained import Vocos  # noqa: E402
from vocos.spectral_ops import ISTFT  # noqa: E402

_KBPS_PER_CODEBOOK = 0.75  # of EnCodec at 24 kHz: 75 frames/s of 10 bits
_Kbps = Annotated[float, Field(gt=0, le=32 * _KBPS_PER_CODEBOOK, multiple_of=_KBPS_PER_CODEBOOK)]
_ENCODEC_DIM, _ENCODEC_SIZE, _ENCODEC_HOP = 128, 1024, 320


class _Strict(BaseModel):
    """Base of the parts of a configuration; the defaults are those of the published models."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _MelArguments(_Strict):
    sample_rate: PositiveInt = 24000
    n_fft: PositiveInt = 1024
    hop_length: PositiveInt = 256
    n_mels: PositiveInt = 100
    padding: Literal["center"] = "center"


class _MelFeatures(_Strict):
    class_path: Literal["vocos.feature_extractors.MelSpectrogramFeatures"] = (
        "vocos.feature_extractors.MelSpectrogramFeatures"
    )
    init_args: _MelArguments = _MelArguments()


class _EncodecArguments(_Strict):
    encodec_model: Literal["encodec_24khz"] = "encodec_24khz"
    bandwidths: tuple[_Kbps, ...] = (1.5, 3.0, 6.0, 12.0)
    train_codebooks: bool = False


class _EncodecFeatures(_Strict):
    class_path: Literal["vocos.feature_extractors.EncodecFeatures"] = (
        "vocos.feature_extractors.EncodecFeatures"
    )
    init_args: _EncodecArguments = _EncodecArguments()


class _BackboneArguments(_Strict):
    input_channels: PositiveInt
    dim: PositiveInt
    intermediate_dim: PositiveInt
    num_layers: PositiveInt = 8
    layer_scale_init_value: float | None = None
    adanorm_num_embeddings: PositiveInt | None = None


class _Backbone(_Strict):
    class_path: Literal["vocos.models.VocosBackbone"] = "vocos.models.VocosBackbone"
    init_args: _BackboneArguments


class _HeadArguments(_Strict):
    dim: PositiveInt
    n_fft: PositiveInt
    hop_length: PositiveInt
    padding: Literal["center", "same"] = "same"


class _Head(_Strict):
    class_path: Literal["vocos.heads.ISTFTHead"] = "vocos.heads.ISTFTHead"
    init_args: _HeadArguments


class _Config(_Strict):
    backbone: _Backbone
    head: _Head

    @property
    def context(self) -> int:
        """Frames before and after a frame on which its audio depends."""
        windows = math.ceil(self.head.init_args.n_fft / (2 * self.head.init_args.hop_length))
        return 3 * (1 + self.backbone.init_args.num_layers) + windows  # convolutions of width 7

    def _expect(self, *pairs: tuple[str, object, object]) -> None:
        for what, got, wanted in (
            *pairs,
            ("head.dim", self.head.init_args.dim, self.backbone.init_args.dim),
        ):
            if got != wanted:
                raise ValueError(f"{what} must be {wanted} to fit the rest, got {got}")


class MelConfig(_Config):
    """Configuration of Vocos for log-mel frames."""

    feature_extractor: _MelFeatures = _MelFeatures()
    backbone: _Backbone = _Backbone(
        init_args=_BackboneArguments(input_channels=100, dim=512, intermediate_dim=1536)
    )
    head: _Head = _Head(
        init_args=_HeadArguments(dim=512, n_fft=1024, hop_length=256, padding="center")
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        mel, head = self.feature_extractor.init_args, self.head.init_args
        self._expect(
            ("backbone.input_channels", self.backbone.init_args.input_channels, mel.n_mels),
            (
                "backbone.adanorm_num_embeddings",
                self.backbone.init_args.adanorm_num_embeddings,
                None,
            ),
            ("head.n_fft", head.n_fft, mel.n_fft),
            ("head.hop_length", head.hop_length, mel.hop_length),
            ("head.padding", head.padding, mel.padding),
        )
        return self


class EncodecConfig(_Config):
    """Configuration of Vocos for EnCodec's tokens at 24 kHz."""

    feature_extractor: _EncodecFeatures = _EncodecFeatures()
    backbone: _Backbone = _Backbone(
        init_args=_BackboneArguments(
            input_channels=_ENCODEC_DIM, dim=384, intermediate_dim=1152, adanorm_num_embeddings=4
        )
    )
    head: _Head = _Head(init_args=_HeadArguments(dim=384, n_fft=1280, hop_length=_ENCODEC_HOP))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        backbone, head = self.backbone.init_args, self.head.init_args
        self._expect(
            ("backbone.input_channels", backbone.input_channels, _ENCODEC_DIM),
            ("backbone.adanorm_num_embeddings", backbone.adanorm_num_embeddings, len(self.depths)),
            ("head.hop_length", head.hop_length, _ENCODEC_HOP),
            ("head.padding", head.padding, "same"),
        )
        return self

    @property
    def depths(self) -> tuple[int, ...]:
        """Numbers of codebooks for which it was trained, in the order of its bandwidth ids."""
        bandwidths = self.feature_extractor.init_args.bandwidths
        return tuple(int(kbps / _KBPS_PER_CODEBOOK) for kbps in bandwidths)


class Codebooks(nn.Module):
    """EnCodec's codebooks in the format of Vocos: the entries of all levels in one matrix."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.codebook_weights = nn.Parameter(torch.zeros(levels * _ENCODEC_SIZE, _ENCODEC_DIM))

    def forward(self, codes: Tensor) -> Tensor:
        """Return the sum `[B, D, T]` of the entries of codes `[B, K, T]`."""
        first = torch.arange(codes.shape[1], device=codes.device) * _ENCODEC_SIZE
        return functional.embedding(codes + first[:, None], self.codebook_weights).sum(dim=1).mT


class _WholeIstft(ISTFT):  # type: ignore[misc]  # the package declares no types
    """The package's inverse transform of centred frames, without the cut at the last centre.

    Frames of T samples are centred at 0, hop, .. up to the last multiple of hop within T. The
    second half of the last window gives the T % hop samples after it.
    """

    def forward(self, spec: Tensor) -> Tensor:
        """Return wav `[B, frames * hop]` of spectra `[B, bins, frames]`."""
        return torch.istft(
            spec,
            self.n_fft,
            self.hop_length,
            self.win_length,
            self.window,
            center=True,
            length=spec.shape[-1] * self.hop_length,
        )


def _network(config: MelConfig | EncodecConfig) -> Any:
    """Build the package's model, with `Codebooks` in place of a downloaded EnCodec."""
    features: nn.Module
    if isinstance(config, MelConfig):
        mel = config.feature_extractor.init_args
        features = MelSpectrogramFeatures(
            mel.sample_rate, mel.n_fft, mel.hop_length, mel.n_mels, mel.padding
        )
    else:
        features = Codebooks(max(config.depths))
    arguments = config.backbone.init_args
    backbone = VocosBackbone(
        input_channels=arguments.input_channels,
        dim=arguments.dim,
        intermediate_dim=arguments.intermediate_dim,
        num_layers=arguments.num_layers,
        layer_scale_init_value=arguments.layer_scale_init_value,
        adanorm_num_embeddings=arguments.adanorm_num_embeddings,
    )
    spectrum = config.head.init_args
    head = ISTFTHead(spectrum.dim, spectrum.n_fft, spectrum.hop_length, spectrum.padding)
    if spectrum.padding == "center":
        head.istft = _WholeIstft(
            spectrum.n_fft, spectrum.hop_length, spectrum.n_fft, spectrum.padding
        )
    return Vocos(features, backbone, head)


def random_model(config: MelConfig | EncodecConfig) -> Any:
    """Build a model with random weights from a fixed seed; codebooks are zeros.

    Decoded audio is noise. torch's global random state is not changed.

    Returns:
        Vocos: on the CPU.
    """
    with seeded(), torch.no_grad():
        network = _network(config)
        for key, parameter in network.backbone.named_parameters():
            if key.endswith((".scale.weight", ".shift.weight")):
                # otherwise all bandwidths would give the same audio
                parameter.add_(torch.randn(parameter.shape) / 4)
    return network


def _read_config(path: Path, kind: type[MelConfig] | type[EncodecConfig]) -> Any:
    try:
        return kind.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path} is no configuration of such a Vocos: {error}") from error


def load_model(
    name: str, kind: type[MelConfig] | type[EncodecConfig], weights: str | Path | None
) -> tuple[Any, Any]:
    """Build the published model `name` with its weights.

    Args:
        name: "vocos_mel_24khz" or "vocos_encodec_24khz".
        kind: class of its configuration.
        weights: a folder with `config.yaml` and `pytorch_model.bin`, or the path of the latter, in
            the same folder as the former; None: the published ones; "random": `random_model`.

    Returns:
        The configuration, and Vocos on the CPU.

    Raises:
        WeightsMissing: if a file cannot be found or downloaded.
        ValueError: if the configuration names other classes, its hyperparameters are inconsistent,
            or the weights do not fit them.
    """
    if weights == "random":
        return kind(), random_model(kind())
    folder = None if weights is None else Path(weights).expanduser()
    beside = folder.parent if folder is not None and folder.is_file() else folder
    config = _read_config(locate(f"{name}_config", beside), kind)
    state = load_state(locate(name, folder))
    with torch.random.fork_rng(devices=[]):
        network = _network(config)
    # The package saves all of EnCodec in the state, but here EnCodec is loaded separately.
    prefix = "feature_extractor.encodec."
    fill(network, {key: t for key, t in state.items() if not key.startswith(prefix)}, name)
    return config, network
