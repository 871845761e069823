import math
from typing import Any

import pytest

from neuralcodec.cli.settings import parse, scalar, text_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("true", True),
        ("True", True),
        ("FALSE", False),
        ("null", None),
        ("3200", 3200),
        ("700C", "700C"),
        ("random", "random"),
        ("starter:fit", "starter:fit"),
        ("my/model.th", "my/model.th"),
        ("", ""),
        ("nan", "nan"),
        ("Infinity", "Infinity"),
        ("1e999", "1e999"),
        ("[1]", "[1]"),
        ('{"a": 1}', '{"a": 1}'),
        ('"12"', '"12"'),
        ("[" * 100_000, "[" * 100_000),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_a_value_is_a_number_a_truth_or_a_text(text: str, value: Any) -> None:
    found = scalar(text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("value", [12, -0.5, 1e-9, math.pi, True, False, None, "wide", "700C"])
def test_what_is_written_is_read_again(value: Any) -> None:
    found = scalar(text_of(value))
    assert (type(found), found) == (type(value), value)


def test_pairs_keep_their_order_and_all_behind_the_first_equals_sign() -> None:
    found = parse(["weights=a=b.th", "vbr=False", "word="])
    assert [*found.items()] == [("weights", "a=b.th"), ("vbr", False), ("word", "")]
    pairs = {"weights": "12", "encodec_weights": "null"}  # names of files, whatever they look like
    assert parse([f"{key}={value}" for key, value in pairs.items()]) == pairs
    assert parse(None) == parse([]) == {}


@pytest.mark.parametrize("pair", ["bits", "=4", "", "="])
def test_what_is_no_pair_is_named(pair: str) -> None:
    with pytest.raises(ValueError, match=f"--set takes KEY=VALUE, got '{pair}'"):
        parse(["a=1", pair])


def test_a_key_given_twice_is_named_with_both_values() -> None:
    with pytest.raises(ValueError, match="bits is given twice, as '4' and 'x'"):
        parse(["bits=4", "bits=x"])
