"""The progress bar of work that takes a while. Imports rich where it is used: `promptseg --help` shall not wait for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["progress_bar"]


def progress_bar() -> Progress:
    """On the error stream while that is a terminal, so that what a command prints can be piped; gone when the work is done."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
