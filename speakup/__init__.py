"""Clean, full-band, correctly loud speech from the recording at hand.

The public names load on first use, so that `import speakup` costs nothing heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from speakup.config import Config
    from speakup.errors import SpeakupError
    from speakup.folders.run import run_batch
    from speakup.models.catalogue import list_models, load_model
    from speakup.pipeline import Pipeline, enhance
    from speakup.result import Result

__version__ = "0.1.0"

__all__ = [
    "Config",
    "Pipeline",
    "Result",
    "SpeakupError",
    "__version__",
    "enhance",
    "list_models",
    "load_model",
    "run_batch",
]

_HOMES = {
    "Config": "speakup.config",
    "Pipeline": "speakup.pipeline",
    "Result": "speakup.result",
    "SpeakupError": "speakup.errors",
    "enhance": "speakup.pipeline",
    "list_models": "speakup.models.catalogue",
    "load_model": "speakup.models.catalogue",
    "run_batch": "speakup.folders.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
