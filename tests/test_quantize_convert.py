"""Laws of the conversion from other packages: the same codes, the same decoded latents."""

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from neuralcodec.core import torchaudio_guard
from neuralcodec.quantize.convert import (
    from_dac,
    from_encodec,
    from_huggingface,
    from_vector_quantize_pytorch,
)
from neuralcodec.quantize.grouped import (
    GroupedResidualVectorQuantizer,
    SplitResidualVectorQuantizer,
)
from neuralcodec.quantize.residual import ResidualVectorQuantizer

SIZE, LEVELS = 32, 4
DIM = 12  # of the latents, where the model leaves the choice
SCALE = 3.0  # of codebooks and latents: at the packages' own small ones hardly a code would differ


@dataclass(frozen=True)
class Source:
    """A quantizer of another package, and how it encodes `[B, D, T]` and decodes `[B, k, T]`."""

    model: nn.Module
    dim: int
    convert: Callable[[nn.Module], nn.Module]
    encode: Callable[[Tensor, int], Tensor]
    decode: Callable[[Tensor], Tensor]
    frame_rate: float | None = None
    depths: tuple[int, ...] = (2, LEVELS)


def package(name: str) -> Any:
    """Import a package, or skip the test where it isn't installed."""
    torchaudio_guard.load()
    with warnings.catch_warnings():  # dac compiles a function on import
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch.jit")
        return pytest.importorskip(name)


def fill(module: nn.Module, rng: Generator) -> None:
    """Give every weight and every codebook random values."""
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            leaf = name.split(".")[-1]
            if leaf in ("inited", "initted", "initialized"):
                tensor.fill_(1)
            elif leaf == "cluster_usage":  # some entries were hardly used
                tensor.copy_(torch.rand(tensor.shape, generator=rng) * 2).clamp_(min=0.1)
                tensor[0] = 1e-7
            elif leaf == "embed_sum":
                tensor.copy_(torch.randn(tensor.shape, generator=rng) * SCALE)
                tensor[0] *= 1e-5
            elif leaf == "embed" or "codebook" in name.split("."):
                tensor.copy_(torch.randn(tensor.shape, generator=rng) * SCALE)
            elif "proj" in name:
                tensor.copy_(torch.randn(tensor.shape, generator=rng) * 0.5)


def encodec_source(rng: Generator, *, whole: bool) -> Source:
    encodec = package("encodec")
    quantizer = encodec.quantization.ResidualVectorQuantizer(DIM, n_q=LEVELS, bins=SIZE)
    net = {"dimension": DIM, "n_filters": 2, "ratios": [4, 2], "lstm": 0, "norm": "none"}
    encoder, decoder = encodec.modules.SEANetEncoder(**net), encodec.modules.SEANetDecoder(**net)
    model = encodec.EncodecModel(encoder, decoder, quantizer, [1.0], sample_rate=44100, channels=1)
    fill(quantizer, rng)
    return Source(
        model if whole else quantizer,
        DIM,
        ResidualVectorQuantizer.from_encodec,
        lambda z, k: quantizer.vq.encode(z, n_q=k).transpose(0, 1),
        lambda codes: quantizer.decode(codes.transpose(0, 1)),
        44100 / 8 if whole else None,
    )


def dac_source(rng: Generator, *, whole: bool = False, norm: str = "old", width: Any = 5) -> Source:
    dac = package("dac")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch.nn.utils")
        model = dac.DAC(
            encoder_dim=2,
            encoder_rates=[4, 2],
            latent_dim=DIM,
            decoder_dim=8,
            decoder_rates=[2, 4],
            n_codebooks=LEVELS,
            codebook_size=SIZE,
            codebook_dim=width,
            sample_rate=44100,
        ).eval()
    quantizer = model.quantizer
    for level in quantizer.quantizers:
        for layer in (level.in_proj, level.out_proj):
            if norm != "old":
                nn.utils.remove_weight_norm(layer)
            if norm == "parametrized":
                nn.utils.parametrizations.weight_norm(layer)
    fill(quantizer, rng)
    return Source(
        model if whole else quantizer,
        DIM,
        ResidualVectorQuantizer.from_dac,
        lambda z, k: quantizer(z, n_quantizers=k)[1],
        lambda codes: quantizer.from_codes(codes)[0],
        44100 / 8 if whole else None,
    )


def lucidrains_source(rng: Generator, kind: str, **options: Any) -> Source:
    if kind != "VectorQuantize":
        # Only a module with quantizer dropout decodes fewer levels than it has.
        options = {"num_quantizers": LEVELS, "quantize_dropout": True} | options
    module = getattr(package("vector_quantize_pytorch"), kind)(
        **({"dim": DIM, "codebook_size": SIZE} | options)
    ).eval()
    fill(module, rng)
    if options.get("use_cosine_sim"):
        for name, embed in module.named_buffers():
            if name.endswith(".embed"):
                embed.copy_(functional.normalize(embed, dim=-1))

    def encode(z: Tensor, k: int) -> Tensor:
        codes: Tensor = module(z.mT)[1]  # [B, T], [B, T, K] or [G, B, T, K]
        if kind == "VectorQuantize":
            return codes[:, None]
        if kind == "ResidualVQ":
            return codes[..., :k].mT
        return codes[..., : k // module.groups].permute(1, 3, 0, 2).flatten(1, 2)

    def decode(codes: Tensor) -> Tensor:
        if kind == "VectorQuantize":
            codes = codes[:, 0]
        elif kind == "ResidualVQ":
            codes = codes.mT
        else:
            codes = torch.unflatten(codes, 1, (-1, module.groups)).permute(2, 0, 3, 1)
        decoded: Tensor = module.get_output_from_indices(codes)
        return decoded.mT

    count = options.get("num_quantizers", 1) * options.get("groups", 1)
    convert = ResidualVectorQuantizer.from_vector_quantize_pytorch
    return Source(module, DIM, convert, encode, decode, depths=((count + 1) // 2, count))


def bitrate_source(model: Any, rng: Generator) -> Source:
    """A model of transformers whose quantizer takes a bitrate: 4 levels of 5 bits at 5513 Hz."""
    fill(model.quantizer, rng)
    quantizer = model.quantizer
    return Source(
        model,
        DIM,
        ResidualVectorQuantizer.from_huggingface,
        lambda z, k: quantizer.encode(z, (k + 0.5) * 5 * 5.513).transpose(0, 1),
        lambda codes: quantizer.decode(codes.transpose(0, 1)),
        44100 / 8,
    )


def encodec_of_huggingface(rng: Generator) -> Source:
    transformers = package("transformers")
    config = transformers.EncodecConfig(
        sampling_rate=44100,
        target_bandwidths=[110.5],  # 4 levels of 5 bits at 5513 Hz
        hidden_size=DIM,
        codebook_dim=DIM,
        codebook_size=SIZE,
        num_filters=2,
        upsampling_ratios=[4, 2],
        num_lstm_layers=1,
    )
    model = transformers.EncodecModel(config).eval()
    return bitrate_source(model, rng)


def dac_of_huggingface(rng: Generator, *, norm: bool) -> Source:
    transformers = package("transformers")
    config = transformers.DacConfig(
        encoder_hidden_size=3,
        downsampling_ratios=[4, 2],
        decoder_hidden_size=8,
        n_codebooks=LEVELS,
        codebook_size=SIZE,
        codebook_dim=5,
        sampling_rate=44100,
    )
    model = transformers.DacModel(config).eval()
    if norm:
        model.apply_weight_norm()
    fill(model.quantizer, rng)
    quantizer = model.quantizer
    return Source(
        model,
        config.hidden_size,
        ResidualVectorQuantizer.from_huggingface,
        lambda z, k: quantizer(z, n_quantizers=k)[1],
        lambda codes: quantizer.from_codes(codes)[0],
        44100 / 8,
    )


def mimi_of_huggingface(rng: Generator, *, width: int = 8, semantic: int = 1) -> Source:
    transformers = package("transformers")
    config = transformers.MimiConfig(
        hidden_size=DIM,
        num_filters=2,
        upsampling_ratios=[4, 2],
        sampling_rate=24000,
        codebook_size=SIZE,
        codebook_dim=width,
        vector_quantization_hidden_dimension=width,
        num_quantizers=LEVELS,
        num_semantic_quantizers=semantic,
        num_hidden_layers=1,
        intermediate_size=8,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=6,
        upsample_groups=DIM,
    )
    model = transformers.MimiModel(config).eval()
    fill(model.quantizer, rng)
    quantizer = model.quantizer
    return Source(
        model,
        DIM,
        ResidualVectorQuantizer.from_huggingface,
        lambda z, k: quantizer.encode(z, k).transpose(0, 1),
        quantizer.decode,
        1500.0,
        depths=(semantic, LEVELS),
    )


def xcodec_of_huggingface(rng: Generator) -> Source:
    transformers = package("transformers")
    config = transformers.XcodecConfig(
        acoustic_model_config=transformers.DacConfig(
            encoder_hidden_size=4, downsampling_ratios=[4, 2], decoder_hidden_size=8
        ),
        semantic_model_config=transformers.HubertConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            conv_dim=[4, 4],
            conv_stride=[4, 2],
            conv_kernel=[4, 2],
            num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2,
        ),
        sample_rate=44100,
        target_bandwidths=[110.5],  # 4 levels of 5 bits at 5513 Hz
        codebook_size=SIZE,
        codebook_dim=DIM,
    )
    model = transformers.XcodecModel(config).eval()
    return bitrate_source(model, rng)


SOURCES: dict[str, Callable[[Generator], Source]] = {
    "encodec": lambda rng: encodec_source(rng, whole=True),
    "encodec-quantizer": lambda rng: encodec_source(rng, whole=False),
    "dac": lambda rng: dac_source(rng, whole=True),
    "dac-quantizer": dac_source,
    "dac-parametrized": lambda rng: dac_source(rng, norm="parametrized"),
    "dac-merged": lambda rng: dac_source(rng, norm="none"),
    "dac-widths": lambda rng: dac_source(rng, width=[6, 5, 4, 3]),
    "vq": lambda rng: lucidrains_source(rng, "VectorQuantize"),
    "vq-projected": lambda rng: lucidrains_source(rng, "VectorQuantize", codebook_dim=5),
    "vq-cosine": lambda rng: lucidrains_source(rng, "VectorQuantize", use_cosine_sim=True),
    "rvq": lambda rng: lucidrains_source(rng, "ResidualVQ"),
    "rvq-projected": lambda rng: lucidrains_source(rng, "ResidualVQ", codebook_dim=5),
    "rvq-cosine": lambda rng: lucidrains_source(
        rng, "ResidualVQ", codebook_dim=5, use_cosine_sim=True
    ),
    "rvq-sizes": lambda rng: lucidrains_source(rng, "ResidualVQ", codebook_size=(32, 16, 5, 7)),
    "rvq-shared-sampled": lambda rng: lucidrains_source(
        rng, "ResidualVQ", shared_codebook=True, stochastic_sample_codes=True
    ),
    "rvq-grouped": lambda rng: lucidrains_source(rng, "GroupedResidualVQ", groups=3),
    "hf-encodec": encodec_of_huggingface,
    "hf-dac": lambda rng: dac_of_huggingface(rng, norm=False),
    "hf-dac-normed": lambda rng: dac_of_huggingface(rng, norm=True),
    "hf-xcodec": xcodec_of_huggingface,
    "hf-mimi": mimi_of_huggingface,
    "hf-mimi-unprojected": lambda rng: mimi_of_huggingface(rng, width=DIM, semantic=2),
}


def gaps(rvq: nn.Module, z: Tensor, mine: Tensor, theirs: Tensor) -> Iterator[Tensor]:
    """Give, wherever two codes first part, by what share their distances differ there."""
    if isinstance(rvq, GroupedResidualVectorQuantizer):
        groups = len(rvq.parts)
        for g, (part, channels) in enumerate(zip(rvq.parts, z.chunk(groups, 1), strict=True)):
            yield from gaps(part, channels, mine[:, g::groups], theirs[:, g::groups])
        return
    if isinstance(rvq, SplitResidualVectorQuantizer):
        start = 0
        for part in rvq.parts:
            assert isinstance(part, ResidualVectorQuantizer)
            codes = slice(start, start := start + part.num_codebooks)
            yield from gaps(part, z, mine[:, codes], theirs[:, codes])
        return
    assert isinstance(rvq, ResidualVectorQuantizer)
    into = rvq.project_in
    by_level = into is not None and len(into.weight) > 1
    tables = rvq.tables() if by_level else rvq.codebooks
    residual = z.mT if into is None or by_level else into(z.mT)  # [B, T, D]
    agreed = torch.ones(residual.shape[:2], dtype=torch.bool)
    for k in range(mine.shape[1]):
        x = into(residual, k) if into is not None and by_level else residual
        vectors = [x, *(rvq.codebooks[k][codes[:, k]] for codes in (mine, theirs))]
        if rvq.metric == "cosine":
            vectors = [functional.normalize(each, dim=2) for each in vectors]
        here, there = ((vectors[0] - entry).square().sum(dim=2) for entry in vectors[1:])
        differ = mine[:, k] != theirs[:, k]
        yield ((here - there).abs() / there)[agreed & differ]
        agreed &= ~differ
        residual = residual - tables[k][mine[:, k]]


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, rng: Generator) -> Source:
    return SOURCES[request.param](rng)


@torch.no_grad()
def test_codes_and_latents_are_theirs(source: Source, rng: Generator) -> None:
    ours: Any = source.convert(source.model)  # before theirs has computed anything that it keeps
    z = torch.randn(3, source.dim, 300, generator=rng) * SCALE
    for k in source.depths:
        theirs = source.encode(z, k)
        assert int((theirs.flatten().bincount() > 0).sum()) > SIZE / 2  # codes that tell something
        mine = ours.encode(z, k)
        assert mine.shape == theirs.shape
        parted = torch.cat(list(gaps(ours, z, mine, theirs)))
        assert len(parted) < 1e-3 * z.shape[0] * z.shape[2]
        assert (parted < 1e-5).all()
        torch.testing.assert_close(ours.decode(theirs), source.decode(theirs), rtol=1e-5, atol=1e-5)


def test_frame_rate_is_not_rounded(source: Source) -> None:
    ours = source.convert(source.model)
    parts: Any = getattr(ours, "parts", [ours])
    assert {part.frame_rate for part in parts} == {source.frame_rate}


def test_old_weight_norm_is_read_from_its_parts(rng: Generator) -> None:
    source = dac_source(rng)
    layer: Any = source.model.get_submodule("quantizers.0.out_proj")
    z = torch.zeros(1, DIM, 1)
    source.encode(z, 1)  # computes `weight`
    with torch.no_grad():
        layer.weight_g.mul_(2)  # `weight` is now out of date, as after load_state_dict
    ours: Any = from_dac(source.model)
    codes = source.encode(z, 1)
    torch.testing.assert_close(ours.decode(codes), source.decode(codes).detach())


def test_mimi_is_read_from_its_sums(rng: Generator) -> None:
    source = mimi_of_huggingface(rng)
    book: Any = source.model.get_submodule(
        "quantizer.semantic_residual_vector_quantizer.layers.0.codebook"
    )
    codes = torch.full((1, 1, 1), 3)
    before = source.decode(codes)  # computes `embed`, which is kept from then on
    book.embed_sum.mul_(2)  # as load_state_dict would
    ours: Any = from_huggingface(source.model)
    torch.testing.assert_close(ours.decode(codes), 2 * before.detach())


def test_a_model_of_another_package_or_class_is_named(rng: Generator) -> None:
    with pytest.raises(ValueError, match=r"EncodecModel.* of encodec, got torch\S+Linear"):
        from_encodec(nn.Linear(2, 2))
    model = encodec_of_huggingface(rng).model  # its class has the same name
    with pytest.raises(ValueError, match=r"of encodec, got transformers\S+EncodecModel"):
        from_encodec(model)
    with pytest.raises(ValueError, match=r"of dac, got transformers\S+EncodecModel"):
        from_dac(model)
    with pytest.raises(ValueError, match=r"of vector_quantize_pytorch, got transformers"):
        from_vector_quantize_pytorch(model)
    with pytest.raises(ValueError, match=r"MimiModel.* of transformers, got torch"):
        from_huggingface(nn.Linear(2, 2))


def test_untrained_codebooks_are_refused() -> None:
    encodec, transformers = package("encodec"), package("transformers")
    with pytest.raises(ValueError, match="codebook 0 is all zeros"):
        from_encodec(encodec.quantization.ResidualVectorQuantizer(DIM, n_q=LEVELS, bins=SIZE))
    config = transformers.EncodecConfig(num_filters=2, hidden_size=DIM, num_lstm_layers=1)
    with pytest.raises(ValueError, match="codebook 0 is all zeros"):
        from_huggingface(transformers.EncodecModel(config))


def test_an_entry_without_direction_is_refused(rng: Generator) -> None:
    source = dac_source(rng)
    with torch.no_grad():
        source.model.get_parameter("quantizers.2.codebook.weight")[5] = 0
    with pytest.raises(ValueError, match="codebook 2 has an entry of length 0"):
        from_dac(source.model)


@pytest.mark.parametrize(
    ("kind", "option", "more"),
    [
        ("VectorQuantize", {"heads": 2}, {}),
        ("VectorQuantize", {"layernorm_after_project_in": True}, {"codebook_dim": 5}),
        ("VectorQuantize", {"affine_param": True}, {}),
        ("VectorQuantize", {"vq_bridge": nn.Linear(DIM, DIM)}, {}),
        ("ResidualVQ", {"kmeans_init": True}, {}),
        ("ResidualVQ", {"implicit_neural_codebook": True}, {}),
        ("ResidualVQ", {"eval_beam_size": 4}, {"beam_size": 2}),
        ("GroupedResidualVQ", {"affine_param": True}, {"groups": 2}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_options_that_change_the_code_are_named(
    kind: str, option: dict[str, Any], more: dict[str, Any]
) -> None:
    levels = {} if kind == "VectorQuantize" else {"num_quantizers": LEVELS}
    module = getattr(package("vector_quantize_pytorch"), kind)(
        dim=DIM, codebook_size=SIZE, **levels, **option, **more
    )
    with pytest.raises(ValueError, match=next(iter(option))):
        from_vector_quantize_pytorch(module)


def test_inner_products_are_not_taken_for_cosines(rng: Generator) -> None:
    source = lucidrains_source(rng, "ResidualVQ", use_cosine_sim=True)
    embed = source.model.get_buffer("layers.1._codebook.embed")
    embed.mul_(1.5)  # as a model does that learns them by gradient, with orthogonal_reg_weight
    with pytest.raises(ValueError, match=r"use_cosine_sim .* length is not 1 \(1.5..1.5\)"):
        from_vector_quantize_pytorch(source.model)


def test_importing_loads_none_of_the_packages() -> None:
    code = "import neuralcodec.quantize.convert, sys; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = {"encodec", "dac", "transformers", "vector_quantize_pytorch", "torchaudio"}
    assert not packages & set(out.stdout.split())
