"""Every exception that a user of promptseg can meet.

Each message says what was given, what is allowed and what to do next. The command line prints it as one line; ``--debug`` adds the
traceback. Facts that a program may want to act on are attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

__all__ = [
    "ConfigError",
    "DataError",
    "ExportError",
    "ImageError",
    "MemoryLimitError",
    "NumericalError",
    "PromptError",
    "PromptSegError",
    "PromptTruncated",
    "PromptUnread",
    "TrainingStopped",
    "UnknownModel",
    "UnsafeFile",
    "UnsupportedPrompt",
    "UnsupportedTask",
    "WeightsError",
    "WeightsNotFound",
    "nearest",
]


class PromptSegError(Exception):
    """Base of all errors that promptseg raises on purpose."""


class ImageError(PromptSegError, ValueError):
    """A photo, or a mask given as an image, cannot be used; the message names the file."""


class PromptError(PromptSegError, ValueError):
    """A prompt is empty, malformed or does not fit its photo."""


class PromptTruncated(UserWarning):
    """A phrase is longer than the text tower reads; the message says which words are lost."""


class PromptUnread(UserWarning):
    """The model does not know these words of a phrase: its mask is of the others, and empty where there are none."""


class UnsupportedTask(PromptSegError):
    """The model has no such task."""

    def __init__(self, model: str, task: str, models: Iterable[str], hint: str = "") -> None:
        self.model, self.task, self.models = model, task, tuple(models)
        others = ", ".join(self.models) or "none in this version"
        super().__init__(f"{model!r} cannot do {task!r}. Models that can: {others}.{' ' + hint if hint else ''}")


class UnsupportedPrompt(PromptSegError):
    """The model does not understand this type of prompt."""

    def __init__(self, model: str, prompt: str, models: Iterable[str], hint: str = "") -> None:
        self.model, self.prompt, self.models = model, prompt, tuple(models)
        others = ", ".join(self.models) or "none in this version"
        super().__init__(f"{model!r} takes no prompts of the kind {prompt!r}. Models that do: {others}.{' ' + hint if hint else ''}")


class UnknownModel(PromptSegError, LookupError):
    """No card, file or folder has this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        self.name, self.known = name, tuple(known)
        super().__init__(f"Unknown model {name!r}.{nearest(name, known)} `promptseg models` lists all of them.")


class WeightsNotFound(PromptSegError, FileNotFoundError):
    """The weights of a known model are not on this machine."""


class WeightsError(PromptSegError, ValueError):
    """A checkpoint does not hold exactly the tensors that the model needs."""

    def __init__(self, message: str, *, missing: Sequence[str] = (), unexpected: Sequence[str] = (), misshaped: Sequence[str] = ()) -> None:
        self.missing, self.unexpected, self.misshaped = tuple(missing), tuple(unexpected), tuple(misshaped)
        super().__init__(message)


class TrainingStopped(PromptSegError):
    """The run was asked to stop (SIGTERM, Ctrl-C), saved its state and can be continued with ``--resume``."""


class UnsafeFile(WeightsError):
    """A checkpoint asks for code to be run; nothing of it was executed."""


class ConfigError(PromptSegError, ValueError):
    """A configuration, recipe or option has an unknown key or an impossible value."""


class DataError(PromptSegError, ValueError):
    """A data set is incomplete or inconsistent; the message names the file."""


class ExportError(PromptSegError, ValueError):
    """A result cannot be written in the wanted format or place."""


class MemoryLimitError(PromptSegError, MemoryError):
    """An operation would need more memory than is sensible; the message gives the number and the way around."""


class NumericalError(PromptSegError, ArithmeticError):
    """A model computed something that is not a number."""


def nearest(name: str, known: Sequence[str]) -> str:
    """`` Did you mean 'x'?`` for the closest known name, or an empty string."""
    matches = get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""
