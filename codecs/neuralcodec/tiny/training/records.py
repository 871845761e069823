"""Logs of a training run: tables in CSV and, optionally, event files for TensorBoard."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuralcodec.core.files import write_whole


class Table:
    """A CSV file with one row per step that can be truncated when a training run is resumed.

    Args:
        path: the file.
        columns: column names in order; the first is "step".
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)

    def begin(self, step: int) -> None:
        """Create the file, or keep only its rows up to `step`; 0 keeps none.

        Raises:
            ValueError: if the file has other columns.
        """
        lines = [",".join(self.columns)]
        if step and self.path.is_file():
            with self.path.open(newline="", encoding="utf-8") as file:
                reader = csv.DictReader(file)
                if tuple(reader.fieldnames or ()) != self.columns:
                    wanted = ", ".join(self.columns)
                    raise ValueError(f"{self.path} has other columns than {wanted}")
                lines += [
                    ",".join(row[column] or "" for column in self.columns)
                    for row in reader
                    if (row["step"] or "").isdigit() and int(row["step"]) <= step
                ]
        write_whole(self.path, ("\n".join(lines) + "\n").encode())

    def add(self, row: Mapping[str, float]) -> None:
        """Append a row; columns without a value remain empty."""
        values = [row.get(column) for column in self.columns]
        texts = ["" if value is None else f"{value:.7g}" for value in values]
        with self.path.open("a", encoding="utf-8") as file:
            file.write(",".join(texts) + "\n")


class Events:
    """Writer of event files for TensorBoard.

    Args:
        folder: output folder; None disables the writer.

    Raises:
        ImportError: if `folder` is given and the package is missing; the message names the package.
    """

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("records.tensorboard needs 'tensorboard': pip install it") from error
        self._writer = SummaryWriter(str(folder))

    def add(self, group: str, row: Mapping[str, float], step: int) -> None:
        """Write the values of a row as scalars `group/name`."""
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        """Flush and close the files."""
        if self._writer is not None:
            self._writer.close()
