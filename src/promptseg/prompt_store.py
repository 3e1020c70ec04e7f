"""Conditions of long class lists on disk, and what was told about them, recognised by content: the list and the weights that encoded it.

One file per list, the least recently used ones removed first. A file that cannot be read or written is as good as none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .caches import digest
from .errors import PromptTruncated, PromptUnread
from .notices import Notice

AT_LEAST = 16  # texts in a list that is worth a file
LIMIT = 128 * 2**20  # bytes of all files
KINDS: dict[str, type[UserWarning]] = {kind.__name__: kind for kind in (PromptTruncated, PromptUnread)}

__all__ = ["PromptStore"]


class PromptStore:
    """``folder``: where the files are; ``weights``: the module that decides the conditions, read once, when a list is first asked for."""

    def __init__(self, folder: Path, weights: nn.Module) -> None:
        self.folder, self._weights = folder, weights
        self._state: tuple[torch.dtype, str] | None = None

    def get(self, keys: Sequence[str]) -> tuple[Tensor, list[tuple[Notice, ...]]] | None:
        """The conditions (N, D) of the prompts with these keys, on the weights' device, and the notices of each; or None."""
        if len(keys) < AT_LEAST:
            return None
        from safetensors import safe_open

        path = self._path(keys)
        try:
            with safe_open(path, "pt") as file:
                found, told = file.get_tensor("condition"), json.loads(file.metadata()["notices"])
            notices = [tuple((KINDS[kind], message) for kind, message in row) for row in told]
            os.utime(path)  # used last
        except Exception:  # missing, cut off, unreadable
            return None
        if not len(found) == len(notices) == len(keys):
            return None
        return found.to(next(self._weights.parameters()).device), notices

    def put(self, keys: Sequence[str], rows: Sequence[Tensor], notices: Sequence[Sequence[Notice]]) -> None:
        """Keep what was computed."""
        if len(keys) < AT_LEAST:
            return
        from safetensors.torch import save_file

        path = self._path(keys)
        unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            told = json.dumps([[(kind.__name__, message) for kind, message in row] for row in notices])
            save_file({"condition": torch.stack(list(rows)).cpu().contiguous()}, unfinished, {"notices": told})
            unfinished.replace(path)
            self._tidy()
        except OSError:
            unfinished.unlink(missing_ok=True)

    def _path(self, keys: Sequence[str]) -> Path:
        return self.folder / f"{digest(self._fingerprint(), *keys)}.safetensors"

    def _fingerprint(self) -> str:
        """A digest of the weights; casting the network makes others of them."""
        tensors = self._weights.state_dict()
        dtype = next(iter(tensors.values())).dtype
        if self._state is None or self._state[0] != dtype:
            arrays = [part for name, tensor in tensors.items() for part in (name, tensor.detach().cpu().contiguous().view(torch.uint8))]
            self._state = dtype, digest(str(dtype), *(part if isinstance(part, str) else part.numpy() for part in arrays))
        return self._state[1]

    def _tidy(self) -> None:
        """Remove the files that were not used for longest, down to the limit."""
        files = sorted(((file.stat().st_mtime, file.stat().st_size, file) for file in self.folder.glob("*.safetensors")), reverse=True)
        total = 0
        for _, size, file in files:
            total += size
            if total > LIMIT:
                file.unlink(missing_ok=True)
