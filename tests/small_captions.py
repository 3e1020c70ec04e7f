"""GroupViT's training at a size that takes seconds: plain photos of one colour, captions that name it, a small random network.

As a script it trains and is killed in the middle:  python small_captions.py ROOT OUTPUT STEP
"""

from __future__ import annotations

import io
import os
import signal
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import small_groupvit
from promptseg import training
from promptseg.contracts import Recipe
from promptseg.models.groupvit.augment import CaptionAugmentation
from promptseg.training.schedules import Constant

COLOURS = {
    "tomato": (230, 40, 30), "meadow": (40, 200, 60), "ocean": (30, 60, 230), "lemon": (240, 220, 40),
    "snow": (245, 245, 245), "coal": (15, 15, 15), "plum": (150, 30, 140), "brick": (140, 60, 30),
}  # fmt: skip
GENTLE = CaptionAugmentation(scale=(0.5, 1.0), operations=0)  # the published one turns red into green


def photo(name: str, number: int) -> Image.Image:
    """48 x 40, its colour a little different each time."""
    noise = np.random.default_rng(number).integers(-8, 9, (40, 48, 3))
    return Image.fromarray((np.array(COLOURS[name]) + noise).clip(0, 255).astype(np.uint8))


def folder(root: Path, each: int = 1) -> Path:
    """`data.captions.captioned_folder`'s form: ``each`` photos of every colour with two captions."""
    (root / "images").mkdir(parents=True)
    lines = ["image,caption"]
    for place, name in enumerate([name for name in COLOURS for _ in range(each)]):
        photo(name, place).save(root / "images" / f"{place:03d}.png")
        lines += [f"{place:03d}.png,the {name}", f'{place:03d}.png,"a {name}, closely"']
    (root / "captions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """A file of a shard."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def encoded(name: str, number: int, form: str = "JPEG") -> bytes:
    """The photo as a file."""
    buffer = io.BytesIO()
    photo(name, number).save(buffer, format=form)
    return buffer.getvalue()


def shards(root: Path) -> Path:
    """Two data sets of one shard each, as img2dataset writes them: some downloads failed, some have a text of another ending."""
    for place, data in enumerate(("gcc3m", "yfcc14m")):
        (root / data).mkdir(parents=True)
        with tarfile.open(root / data / "000000.tar", "w") as tar:
            for number, name in enumerate(list(COLOURS)[4 * place : 4 * place + 4]):
                key, text = f"{number:09d}", ("txt", "text")[place]
                add(tar, f"{key}.json", b'{"status": "success"}')
                add(tar, f"{key}.jpg", encoded(name, number))
                add(tar, f"{key}.{text}", f"the {name}\n".encode())
            add(tar, "000000007.txt", b"a photo that was gone")
            add(tar, "000000008.jpg", encoded("coal", 8))
    return root


def recipe(root: Path, output: Path, *, options: Mapping[str, Any] | None = None, **changes: Any) -> Recipe:
    """A published recipe with a small network and few steps."""
    base = training.recipe("groupvit/gcc-yfcc")
    config = replace(small_groupvit.CONFIG, image=replace(small_groupvit.IMAGE, size=32, drop_path=0.1))
    small = replace(base.options, **{"config": config, "tagger": "pattern", **(options or {})})
    values: dict[str, Any] = {
        "steps": 8, "batch_size": 4, "lr": 1e-3, "schedule": Constant(), "precision": "float32", "workers": 0, "save_every_s": 0.0,
        **changes,
    }  # fmt: skip
    return replace(base, data=str(root), output=str(output), options=small, **values)


if __name__ == "__main__":
    last = int(sys.argv[3])

    def die(step: int, _: Mapping[str, float]) -> None:
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    training.train(recipe(Path(sys.argv[1]), Path(sys.argv[2])), report=die)
