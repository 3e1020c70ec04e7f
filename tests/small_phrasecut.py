"""CLIPSeg's training at a size that takes seconds: coloured boxes on dark photos in PhraseCut's format, small random towers.

As a script it trains and is killed in the middle:  python small_phrasecut.py ROOT OUTPUT STEP
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import replicas
import small_clipseg
from promptseg import training, zoo
from promptseg.contracts import Recipe

COLOURS = {"red box": (230, 30, 30), "sitting man": (30, 220, 60), "blue chairs": (40, 60, 240), "wine bottle": (240, 220, 40)}


def photos(root: Path) -> Path:
    """`replicas.phrasecut` with photos that show what is said of them."""
    replicas.phrasecut(root)
    for image, said in replicas.PHRASES.items():
        pixels = np.full((40, 48, 3), 20, dtype=np.uint8)
        for phrase, (x, y, w, h) in said:
            pixels[y : y + h, x : x + w] = COLOURS[phrase]
        Image.fromarray(pixels).save(root / "images" / f"{image}.jpg", quality=95)
    return root


def clip(folder: Path) -> Path:
    """A small CLIP, inside a CLIPSeg as they are published, whose texts differ: random ones nearly all mean their last token."""
    model = small_clipseg.build()
    with torch.no_grad():
        model.text.token_embedding.weight[-2:] = 0  # what begins and ends a phrase
        for block in model.text.blocks:
            block.attn.out.weight.mul_(4)
    return zoo.save_folder(model, folder, "clipseg-rd64")


def recipe(name: str, root: Path, output: Path, *, options: Mapping[str, Any] | None = None, **changes: Any) -> Recipe:
    """A published recipe with a small network, small photos and few steps."""
    base = training.recipe(name)
    config = replace(small_clipseg.smaller(base.options.config), technique="highlight")
    small = replace(base.options, **{"config": config, "clip": None, "size": 64, **(options or {})})
    values = {"steps": 8, "batch_size": 4, "lr": 5e-3, "precision": "float32", "workers": 0, "save_every_s": 0.0, **changes}
    return replace(base, data=str(root), output=str(output), options=small, **values)


if __name__ == "__main__":
    last = int(sys.argv[3])

    def die(step: int, _: Mapping[str, float]) -> None:
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    training.train(recipe("clipseg/pc-plus", Path(sys.argv[1]), Path(sys.argv[2])), report=die)
