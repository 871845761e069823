"""What a training writes down: tables in CSV, and event files for TensorBoard if wanted."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neuralcodec.core.files import write_whole


class Table:
    """A CSV file that grows by rows with a step, and forgets those that a resume takes again.

    Args:
        path: the file.
        columns: in order; the first is "step".
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, tuple(columns)

    def begin(self, step: int) -> None:
        """Keep the rows up to `step` alone; 0 keeps none.

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
        """Write a row; what it lacks stays empty."""
        values = [row.get(column) for column in self.columns]
        texts = ["" if value is None else f"{value:.7g}" for value in values]
        with self.path.open("a", encoding="utf-8") as file:
            file.write(",".join(texts) + "\n")


class Events:
    """Event files for TensorBoard, of every number of a row.

    Args:
        folder: where to; None: nowhere.

    Raises:
        ImportError: if they are wanted and the package is missing; the cure is given.
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
        """Write the numbers of a row."""
        if self._writer is not None:
            for name, value in row.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
