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

    @property
    def whose(self) -> str:
        """The package after "of", for a message; "" where none is known."""
        return f" of package {self.package!r}" if self.package else ""

    def load(self, base: type, kind: str, public: str) -> Any:
        """Import and return the class.

        Args:
            base: that it must derive from.
            kind: what that makes of it, for a message, such as "codec".
            public: the name of the base for users, such as "neuralcodec.Codec".

        Raises:
            ImportError: if the module can't be imported or lacks the attribute, or this is no class
                derived from the base; names both, and the package whose entry point it is.
        """
        try:
            found: Any = importlib.import_module(self.module)
            for part in self.attribute.split("."):
                found = getattr(found, part)
        except Exception as error:  # a foreign module may raise anything when it is imported
            said = " ".join(str(error).split())
            raise ImportError(
                f"{self.name!r}{self.whose} can't be imported from {self.module}:{self.attribute}: "
                f"{type(error).__name__}: {said}"
            ) from error
        if not (isinstance(found, type) and issubclass(found, base)):
            raise ImportError(
                f"{self.name!r}{self.whose} is no {kind}: {self.module}:{self.attribute} must be a "
                f"subclass of {public}"
            )
        return found


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


def find(group: str, name: str) -> Plugin | None:
    """Return what a name stands for: an entry point of the group, or `module:attribute`.

    None if it is neither.
    """
    module, colon, attribute = name.partition(":")
    parts = [*module.split("."), *attribute.split(".")]
    by_path = bool(colon) and all(part.isidentifier() for part in parts)
    return installed(group).get(name) or (Plugin(name, module, attribute) if by_path else None)
