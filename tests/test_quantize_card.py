"""What quantizers show of themselves: one line in a terminal, tables in a notebook."""

from xml.etree import ElementTree

import pytest
import torch
from torch import Generator, nn

from neuralcodec.quantize import (
    GroupedResidualVectorQuantizer,
    Learning,
    ResidualVectorQuantizer,
    SplitResidualVectorQuantizer,
)

AT_RANDOM = Learning(start_vectors=0)  # there are codebooks from the beginning

Quantizer = ResidualVectorQuantizer | GroupedResidualVectorQuantizer | SplitResidualVectorQuantizer


def plain(dim: int = 6, levels: int = 3, size: int = 4) -> ResidualVectorQuantizer:
    return ResidualVectorQuantizer(dim, levels, size, learning=AT_RANDOM)


def tables(rvq: Quantizer) -> list[ElementTree.Element]:
    return ElementTree.fromstring(rvq._repr_html_()).findall("table")


def rows(table: ElementTree.Element) -> list[list[str | None]]:
    return [[cell.text for cell in row] for row in table.findall("tr")]


def test_one_line_shows_sizes_rates_and_training(rng: Generator) -> None:
    rvq = ResidualVectorQuantizer(64, 8, 1024, frame_rate=50)
    known = "ResidualVectorQuantizer(dim=64, 8 x 1024, euclidean, 50 Hz, 4 kbit/s, ema, cpu"
    assert repr(rvq) == f"{known}, no codebooks yet)"
    rvq.fit(torch.randn(1, 64, 1024, generator=rng), iterations=1, beam_width=1, refinements=0)
    assert repr(rvq) == f"{known})"


def test_codebooks_of_the_first_training_batches_count_as_codebooks(rng: Generator) -> None:
    rvq = ResidualVectorQuantizer(6, 2, 4)
    assert repr(rvq).endswith("no codebooks yet)")
    rvq(torch.randn(1, 6, 8, generator=rng))
    assert not rvq.fitted
    assert repr(rvq).endswith("cpu)")


@pytest.mark.parametrize(
    ("rvq", "line"),
    [
        (
            ResidualVectorQuantizer(6, 3, (16, 4, 4), metric="cosine", learning=AT_RANDOM),
            "dim=6, 1 x 16 + 2 x 4, cosine, 8 bits/frame, ema, cpu",
        ),
        (
            ResidualVectorQuantizer(6, 7, range(2, 9), frame_rate=86.1328125, learning=AT_RANDOM),
            "dim=6, 1 x 2 + 1 x 3 + 1 x 4 + 1 x 5 + 3 more, euclidean, 86.1328 Hz, 1.318 kbit/s, "
            "ema, cpu",
        ),
        (
            ResidualVectorQuantizer(6, 3, 4, codebook_dim=2, learning=AT_RANDOM),
            "dim=6, 3 x 4, codebook_dim=2 per level, euclidean, 6 bits/frame, ema, cpu",
        ),
        (
            ResidualVectorQuantizer(
                *(6, 3, 4),
                codebook_dim=2,
                projection="shared",
                learning=Learning(codebooks="gradient", start_vectors=0),
            ),
            "dim=6, 3 x 4, codebook_dim=2 shared, euclidean, 6 bits/frame, gradient codebooks, cpu",
        ),
        (
            ResidualVectorQuantizer(6, 1, 4, codebook_dim=2, learning=AT_RANDOM),
            "dim=6, 1 x 4, codebook_dim=2, euclidean, 2 bits/frame, ema, cpu",
        ),
        (plain().to("meta"), "dim=6, 3 x 4, euclidean, 6 bits/frame, ema, meta"),
        (
            GroupedResidualVectorQuantizer([plain(), plain()]),
            "dim=12, 2 x (3 x 4), euclidean, 12 bits/frame, ema, cpu",
        ),
        (
            GroupedResidualVectorQuantizer(
                [plain(), ResidualVectorQuantizer(6, 3, 4, frame_rate=50, learning=AT_RANDOM)]
            ),
            "dim=12, 2 x (3 x 4), euclidean, 50 Hz, 12 bits/frame, ema, cpu",
        ),
        (
            SplitResidualVectorQuantizer(
                [
                    ResidualVectorQuantizer(6, 1, 16, frame_rate=12.5, learning=AT_RANDOM),
                    ResidualVectorQuantizer(
                        *(6, 7, 4), codebook_dim=2, projection="shared", frame_rate=12.5
                    ),
                ]
            ),
            "dim=6, (1 x 16) + (7 x 4), no projection/codebook_dim=2 shared, euclidean, 12.5 Hz, "
            "0.225 kbit/s, ema, cpu, no codebooks yet",
        ),
    ],
)
def test_one_line_shows_what_is_unusual(rvq: Quantizer, line: str) -> None:
    assert repr(rvq) == f"{type(rvq).__name__}({line})"


def test_in_a_module_it_stays_one_line() -> None:
    for rvq in (plain(), GroupedResidualVectorQuantizer([plain(), plain()])):
        model = nn.ModuleDict({"encoder": nn.Linear(2, 6), "rvq": rvq})
        assert f"  (rvq): {rvq!r}" in repr(model).splitlines()
        assert "\n" not in repr(rvq)


def test_html_shows_usage_once_it_was_collected(rng: Generator) -> None:
    rvq = plain()
    (facts,) = tables(rvq)
    assert rows(facts)[:2] == [["dim", "6"], ["codebooks", "3 x 4"]]
    assert len(tables(rvq.to("meta"))) == 1
    rvq = plain()
    rvq(torch.randn(1, 6, 50, generator=rng), num_codebooks=2)
    _, levels = tables(rvq)
    head, *figures = rows(levels)
    assert head == ["level", "entries", "usage", "perplexity", "entropy (bits)"]
    assert [row[:2] for row in figures] == [["0", "4"], ["1", "4"], ["2", "4"]]
    assert [row[2] for row in figures[:2]] == [f"{used:.1%}" for used in rvq.usage[:2].tolist()]
    assert [row[3] for row in figures[:2]] == [f"{p:.1f}" for p in rvq.perplexity[:2].tolist()]
    assert figures[2][2:] == ["-", "-", "-"]


def test_html_of_parts_lists_all_codebooks_in_the_order_of_the_codes(rng: Generator) -> None:
    split = SplitResidualVectorQuantizer([plain(levels=1, size=16), plain(levels=2)])
    assert len(tables(split)) == 1
    split(torch.randn(1, 6, 50, generator=rng))
    assert [row[1] for row in rows(tables(split)[1])] == ["entries", "16", "4", "4"]


def test_html_escapes_and_refers_to_nothing() -> None:
    odd = type("A<b>&'\"", (ResidualVectorQuantizer,), {})(6, 3, 4)
    caption = tables(odd)[0].find("caption")
    assert caption is not None
    assert caption.text == "A<b>&'\""
    tags = {element.tag for element in ElementTree.fromstring(odd._repr_html_()).iter()}
    assert tags == {"div", "table", "caption", "tr", "th", "td"}
    assert not any(element.attrib for element in ElementTree.fromstring(odd._repr_html_()).iter())
