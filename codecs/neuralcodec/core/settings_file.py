"""Read TOML files into a typed model; whatever is wrong is one clear line."""

import tomllib
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ValidationError

from neuralcodec.core.files import expanded
from neuralcodec.core.names import unknown

Model = TypeVar("Model", bound=BaseModel)


_UNKNOWN = {"extra_forbidden", "unexpected_keyword_argument"}  # of models and of dataclasses


def _keys_at(model: type[BaseModel], place: list[str]) -> list[str]:
    """List the keys that the table at `place` in a file of `model` may have."""
    found: Any = model
    for part in place:
        if part.isdigit():  # a place in a list of tables
            continue
        known = getattr(found, "model_fields", None) or get_type_hints(found)
        hint = getattr(known[part], "annotation", known[part])
        found = next(filter(_is_table, [hint, *get_args(hint)]))
    if is_dataclass(found):
        return [field.name for field in fields(found)]
    return [*found.model_fields]


def _is_table(hint: Any) -> bool:
    return isinstance(hint, type) and (issubclass(hint, BaseModel) or is_dataclass(hint))


def message(error: ValidationError, model: type[BaseModel]) -> str:
    """Return the first problem of a file as one line; an unknown key comes with the nearest one."""
    # A misspelled key comes first: it explains why another is missing.
    first = min(error.errors(), key=lambda problem: problem["type"] not in _UNKNOWN)
    *place, last = map(str, first["loc"] or ("",))
    if first["type"] in _UNKNOWN:
        where = f"key in [{'.'.join(place)}]" if place else "key"
        return str(unknown(where, last, _keys_at(model, place)))
    where = ".".join([*place, last])
    if first["type"] in {"missing", "value_error"}:  # the latter are ours, and say what they got
        return f"{where}: {first['msg'].removeprefix('Value error, ')}".removeprefix(": ")
    return f"{where}: {first['msg']}, got {first['input']!r}"


def read(path: str | Path, model: type[Model], what: str) -> Model:
    """Read and check a TOML file in UTF-8, with or without a byte order mark.

    Args:
        path: the file; a leading `~` is the home folder.
        model: the model that it must fit.
        what: the kind of file, for the error if it does not exist: "sweep".

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no TOML, or a key or value is not allowed; the message names the key,
            and the nearest known one.
    """
    path = expanded(path)
    if not path.is_file():
        raise FileNotFoundError(f"no {what} file at {path}")
    try:
        return model.model_validate(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid TOML: {error}") from error
    except ValidationError as error:
        raise ValueError(f"{path}: {message(error, model)}") from error
