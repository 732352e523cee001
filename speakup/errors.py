"""What can go wrong, said for a person, with the exit code scripts rely on."""

from __future__ import annotations

import importlib
from typing import Any


class SpeakupError(Exception):
    """Say what is wrong, with which input, and what to do next.

    Args:
        problem: What is wrong, as a clause without a final full stop.
        subject: The path, option or model it concerns; None when there is no single one.
        remedy: What to do next; None when the problem says it already.
    """

    exit_code = 1

    def __init__(self, problem: str, subject: object = None, remedy: str | None = None) -> None:
        self.problem = problem
        self.subject = None if subject is None else str(subject)
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = self.problem if self.subject is None else f"{self.subject}: {self.problem}"
        return text if self.remedy is None else f"{text}. {self.remedy}"


class ConfigError(SpeakupError):
    """A setting, option or combination of them cannot be used (exit code 2)."""

    exit_code = 2


class InputError(SpeakupError):
    """The input cannot be read as audio (exit code 3)."""

    exit_code = 3


class OutputError(SpeakupError):
    """The output cannot be written (exit code 4)."""

    exit_code = 4


class ModelError(SpeakupError):
    """A model cannot be had, or does not match its description (exit code 5)."""

    exit_code = 5


class MissingFile(ModelError):
    """A model's repository has no file of the name asked for (exit code 5)."""


def import_optional(module: str, what: str, extra: str) -> Any:
    """Import what only some installations have.

    Args:
        module: Its name.
        what: What needs it.
        extra: Which extra of speakup's brings it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{what} needs the package {module.partition('.')[0]}",
            None,
            f"Install it with: pip install 'speakup[{extra}]'",
        ) from error
