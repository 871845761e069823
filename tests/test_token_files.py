import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from neuralcodec.core.tokens import Tokens


def _coded(num_samples: int) -> Tokens:
    """Bytes with sides, as of a codec of variable bitrate."""
    count = num_samples // 7
    return Tokens(
        torch.arange(count)[None, None] % 256,
        frame_rates=(count / num_samples * 44100,),
        codebook_sizes=(256,),
        sample_rate=44100,
        num_samples=num_samples,
        side={"sizes": torch.tensor([[count - 1, 1]]), "gain": torch.tensor([0.1])},
        side_bits=0.1,
    )


def _ragged() -> Tokens:
    whole = torch.arange(24).reshape(1, 2, 12)
    return Tokens(
        (whole[:, 0, ::2], whole[:, 1]), (44100 / 1024, 44100 / 512), (12, 24), 44100, 12 * 512
    )


LINE = torch.arange(12)[None]
CASES = {
    "a clip": _coded(700),
    "different lengths": Tokens.batch([_coded(700), _coded(1400)]),
    "strided views": _ragged(),
    "views of one tensor": _ragged().with_codes([LINE[:, :6], LINE], 9),
    "no frames": _ragged().with_codes([torch.zeros(1, 0, dtype=torch.long)] * 2, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_what_was_saved_is_loaded(case: str, tmp_path: Path) -> None:
    path = tmp_path / "any name"
    CASES[case].save(path)
    loaded = Tokens.load(str(path))
    assert loaded == CASES[case]
    assert loaded.clips == CASES[case].clips
    assert isinstance(loaded.codes, Tensor) == isinstance(CASES[case].codes, Tensor)
    assert [each.name for each in tmp_path.iterdir()] == ["any name"]


def test_numbers_of_numpy_are_saved(tmp_path: Path) -> None:
    sizes, rate = tuple(np.array([4])), np.int64(100)
    tokens = Tokens(torch.zeros(1, 1, 3, dtype=torch.long), (np.float32(10),), sizes, rate, 30)  # type: ignore[arg-type]  # what is tested
    tokens.save(tmp_path / "file")
    assert Tokens.load(tmp_path / "file") == tokens


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    _ragged().save(path)
    with pytest.raises(ValueError, match="no values to save"):
        _ragged().to("meta").save(path)
    assert Tokens.load(path) == _ragged()
    with pytest.raises(OSError, match=r"cannot write .*nowhere"):
        _ragged().save(tmp_path / "nowhere" / "file")


def _change(path: Path, **changes: Any) -> None:
    """Write another header over that of a file; "absent" removes a field."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        header = json.loads(file.metadata()["neuralcodec.tokens"])
    header = {name: value for name, value in (header | changes).items() if value != "absent"}
    save_file(tensors, path, {"neuralcodec.tokens": json.dumps(header)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"version": 2},
            "has version 2 of the format, this release of neuralcodec reads version 1",
        ),
        ({"version": "absent"}, "damaged header: KeyError.'version'"),
        ({"codebook_sizes": "absent"}, "damaged header: KeyError.'codebook_sizes'"),
        ({"clips": [{"frames": [1]}]}, "damaged header"),
        ({"clips": 3}, "damaged header"),
        ({"num_samples": "absent"}, "no valid tokens: .*num_samples"),
        ({"codebook_sizes": [12, 3]}, r"no valid tokens: codes of codebook 1 must lie in 0\.\.2"),
        ({"colour": "red"}, "no valid tokens: .*colour"),
    ],
)
def test_damaged_files_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    _ragged().save(path)
    _change(path, **changes)
    with pytest.raises(ValueError, match=f"file .*{message}"):
        Tokens.load(path)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(FileNotFoundError, match="file"):
        Tokens.load(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        Tokens.load(tmp_path)
    for contents in (b"", b"text", pickle.dumps({"codes": 3}), bytes(100)):
        path.write_bytes(contents)
        with pytest.raises(ValueError, match="file is not a safetensors file"):
            Tokens.load(path)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(ValueError, match=r"file holds no tokens: Tokens\.save did not write it"):
        Tokens.load(path)
    save_file({"codes": torch.ones(2)}, path, {"neuralcodec.tokens": "[]"})
    with pytest.raises(ValueError, match="file has a damaged header"):
        Tokens.load(path)
