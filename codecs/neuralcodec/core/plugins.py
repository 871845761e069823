"""Codecs and metrics of other distributions: entry points, and `module:attribute` names.

A distribution adds a codec by an entry point of the group `neuralcodec.codecs`, a metric by one of
`neuralcodec.metrics`. Without one, `module:Class` names anything that Python can import.
"""

import functools
import importlib
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

CODECS = "neuralcodec.codecs"
METRICS = "neuralcodec.metrics"


@dataclass(frozen=True)
class Plugin:
    """Something of another distribution, not imported yet.

    Attributes:
        name: under which it is asked for.
        module: to import.
        attribute: of the module; dots reach into classes.
        package: name of the distribution; "" where none is known.
    """

    name: str
    module: str
    attribute: str
    package: str = ""

    def load(self) -> Any:
        """Import and return it.

        Raises:
            ImportError: if the module can't be imported or lacks the attribute; names both, and
                the package whose entry point it is.
        """
        whose = f" of package {self.package!r}" if self.package else ""
        try:
            found: Any = importlib.import_module(self.module)
            for part in self.attribute.split("."):
                found = getattr(found, part)
        except Exception as error:  # a foreign module may raise anything when it is imported
            said = " ".join(str(error).split())
            raise ImportError(
                f"{self.name!r}{whose} can't be imported from {self.module}:{self.attribute}: "
                f"{type(error).__name__}: {said}"
            ) from error
        return found


def is_path(name: str) -> bool:
    """Return whether a name has the form `module:attribute`."""
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    return bool(colon) and all(part.isidentifier() for part in parts)


def by_path(name: str) -> Plugin:
    """Return what a name `module:attribute` stands for; see `is_path`."""
    module, _, attribute = name.partition(":")
    return Plugin(name, module, attribute)


def _plugin(point: EntryPoint) -> Plugin:
    package = point.dist.name if point.dist is not None else ""
    return Plugin(point.name, point.module, point.attr, package)


@functools.cache
def installed(group: str) -> dict[str, Plugin]:
    """Return the entry points of a group by name; of several with one name the first.

    Which packages are installed is looked up once per process.
    """
    found: dict[str, Plugin] = {}
    for point in entry_points(group=group):
        found.setdefault(point.name, _plugin(point))
    return found
