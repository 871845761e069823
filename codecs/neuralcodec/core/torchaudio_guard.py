"""Torchaudio beside a CPU build of torch: one place that makes the import work.

The published torchaudio wheel is built for CUDA. Its compiled extension needs `libc10_cuda.so`,
which a CPU build of torch lacks, and importing torchaudio then raises OSError although everything
used here is plain Python. encodec, dac and vocos import torchaudio too, so whoever imports one of
them calls `load` first.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_EXTENSION = "torchaudio._extension"


def _needs_stub() -> bool:
    """Tell whether torchaudio's compiled extension cannot load: torch has no CUDA library."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    return not any((Path(spec.origin).parent / "lib").glob("*c10_cuda*"))


class _StubExtension(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers the import of torchaudio's extension with a module that says: not available."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _EXTENSION:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        from torchaudio._internal.module_utils import fail_with_message

        unavailable = fail_with_message("this function needs torchaudio's compiled extension")
        contents: dict[str, Any] = {
            "_IS_TORCHAUDIO_EXT_AVAILABLE": False,
            "_IS_ALIGN_AVAILABLE": False,
            "_check_cuda_version": lambda: None,
            "fail_if_no_align": unavailable,
        }
        vars(module).update(contents)


def load() -> ModuleType:
    """Import torchaudio, in a way that works beside CPU and CUDA builds of torch alike.

    On a CUDA build, or where torchaudio is imported already, nothing but the import happens.
    """
    if "torchaudio" not in sys.modules and _needs_stub():
        sys.meta_path.insert(0, _StubExtension())
    return importlib.import_module("torchaudio")
