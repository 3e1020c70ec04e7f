"""The embedded model: load, encode, decode, further prompts, and the cold start of the command line.

    python benchmarks/pocket.py [--json FILE]

On the example photograph shown at 640 x 480. There is no peer that gives masks right after ``pip install``; the rows have none.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile

from PIL import Image

import promptseg
from clipseg import PHOTO, PHRASES
from common import Row, Work, machine, parser, peak_mb, report, seconds


def median(work: Work, rounds: int) -> float:
    """Median seconds after one run that pays for set-up."""
    work()
    return statistics.median(seconds(work) for _ in range(rounds))


def cold_start(rounds: int) -> float:
    """Seconds from an empty process to a written overlay."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "promptseg", "segment", str(PHOTO), "a dog", "--overwrite", "-o", folder]
        return median(lambda: subprocess.run(command, check=True, capture_output=True), rounds)


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    segmenter = promptseg.load("pocket")
    with Image.open(PHOTO) as file:
        photo = file.convert("RGB").resize((640, 480))
    counter = iter(range(10**9))

    def fresh() -> Image.Image:
        """The photo with one pixel changed: nothing that was remembered helps."""
        changed = photo.copy()
        changed.putpixel((0, 0), (next(counter) % 256, next(counter) // 256 % 256, 7))
        return changed

    known = segmenter.embed_image(photo)

    def ask(prompts: list[str]) -> Work:
        return lambda: [mask.mask for mask in segmenter(known, prompts)]

    def whole() -> object:
        return segmenter(fresh(), "a dog")[0].mask

    rounds = options.rounds
    rows = [
        Row("load", median(lambda: promptseg.load("pocket"), rounds)),
        Row("photo and text to mask", median(whole, rounds), ours_peak_mb=peak_mb(whole)),
        Row("encode a photo", median(lambda: segmenter.embed_image(fresh()), rounds)),
        *(Row(f"{n} prompt{'s' * (n > 1)} on a known photo", median(ask(PHRASES[:n]), rounds)) for n in (1, 10, 50)),
        Row("command line, cold start", cold_start(rounds)),
    ]
    report({**machine(), "precision": segmenter.precision}, rows, options.json)


if __name__ == "__main__":
    main()
