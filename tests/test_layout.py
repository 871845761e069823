"""The layout that keeps imports clean."""

import codecs
import re
import subprocess
import sys
from pathlib import Path

import neuralcodec

ROOT = Path(__file__).parents[1]


def test_codecs_is_a_source_root_and_no_package() -> None:
    assert not (ROOT / "codecs" / "__init__.py").exists()
    assert [path.name for path in (ROOT / "codecs").iterdir() if path.name != "__pycache__"] == [
        "neuralcodec"
    ]
    assert not (ROOT / "tests" / "codecs").exists()


def test_standard_library_codecs_wins_in_the_root() -> None:
    code = "import codecs; print(codecs.lookup('utf8').name, codecs.__file__)"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert out.stdout.split() == ["utf-8", codecs.__file__]


def _modules_after(code: str) -> set[str]:
    out = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(out.stdout.split())


def test_quantizer_loads_nothing_heavy() -> None:
    loaded = _modules_after("import neuralcodec.quantize")
    heavy = {"pandas", "matplotlib", "dac", "vocos", "encodec", "transformers", "torchaudio", "av"}
    assert not loaded & heavy
    ours = {name for name in loaded if name.startswith("neuralcodec")}
    assert all(name == "neuralcodec" or name.startswith("neuralcodec.quantize") for name in ours)


def test_package_itself_loads_nothing() -> None:
    assert "torch" not in _modules_after("import neuralcodec")


def test_metrics_registry_loads_no_metric_package() -> None:
    loaded = _modules_after("import neuralcodec.metrics")
    assert not loaded & {"pesq", "pystoi", "visqol", "torchaudio"}


def test_lazy_names() -> None:
    assert neuralcodec.load("mdct").dim == 320
    assert neuralcodec.core.audio.__name__ == "neuralcodec.core.audio"
    assert Path(neuralcodec.__file__).with_name("py.typed").exists()


def test_what_a_codec_has_is_declared_and_not_looked_for() -> None:
    """An attribute that the program asks of a codec belongs in the base class."""
    found = [
        f"{path.name}: {line.strip()}"
        for folder in ("codecs", "experiments")
        for path in (ROOT / folder).rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if re.search(r"(getattr|hasattr)\((self\.|subject\.)?(codec|inner|built)\b", line)
    ]
    assert found == []
