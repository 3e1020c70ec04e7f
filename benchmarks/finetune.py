"""Fine-tuning `pocket` on forty photos: what it gains on photos that it neither trains nor tests on, and what it costs elsewhere.

    python benchmarks/finetune.py DATA [--set ccp|msrc|camvid] [--preset head] [--json FILE]
    python benchmarks/finetune.py DATA [--set ccp|msrc|camvid] --write FOLDER        # only the forty photos, as data of one's own

DATA holds ccp/, msrc/ and camvid/, each with images/, labels/ and classes.txt. Of the first two only the validation photos of `pocket`'s
own training are used, so that it has seen none of them; in a fixed order the first forty are the data (three quarters train, a quarter is
held out), the next twenty are there to choose settings on (--tuning), the rest is the third part. CamVid's frames are of three drives,
those of one drive alike: each part is a drive of its own. Most of them are among the photos of `pocket`'s training, a hundredth of its
draws. The rule: at least 0.10 more mean IoU, over the classes that stand below 0.4 before, on the third part. Photos of another set, whose
names the data does not have, show what is forgotten.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from PIL import Image

import promptseg
from promptseg.data.own import annotated, own
from promptseg.data.photosets import AnnotatedPhoto, is_validation
from promptseg.training import finetune
from promptseg.training.before_after import Report, measure
from promptseg.training.own_photos import asked_for

OWN, TUNING = 40, 20
LOW, GAIN = 0.4, 0.10
CCP: Mapping[str, Sequence[str]] = {  # the set's near-synonyms are joined
    "bag": ("bag", "purse", "wallet"),
    "belt": ("belt",),
    "coat": ("coat", "jacket", "blazer", "cape", "cardigan"),
    "dress": ("dress", "romper"),
    "hair": ("hair",),
    "hat": ("hat",),
    "pants": ("pants", "jeans", "leggings"),
    "scarf": ("scarf",),
    "shirt": ("shirt", "blouse", "t-shirt", "top", "sweater", "sweatshirt", "hoodie", "jumper", "vest", "bodysuit"),
    "shoes": ("shoes", "boots", "heels", "pumps", "flats", "loafers", "sandals", "sneakers", "wedges", "clogs"),
    "shorts": ("shorts",),
    "skin": ("skin",),
    "skirt": ("skirt",),
    "stockings": ("stockings", "tights", "socks"),
    "sunglasses": ("sunglasses", "glasses"),
}
MSRC = (
    "building", "grass", "tree", "cow", "sheep", "sky", "aeroplane", "water", "car", "bicycle", "flower", "sign", "bird", "book", "chair",
    "road", "cat", "dog", "boat",
)  # fmt: skip
CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
DRIVES = ("0016E5", "0001TP", "0006R0")  # of CamVid: one's own, to choose settings on, the third part
ASKED: Mapping[str, Mapping[str, Sequence[str]]] = {
    "ccp": CCP, "msrc": {name: (name,) for name in MSRC}, "camvid": {name: (name,) for name in CAMVID},
}  # fmt: skip
ELSEWHERE = {"ccp": "msrc", "msrc": "ccp", "camvid": "msrc"}


@dataclass(frozen=True)
class Gain:
    """Mean IoU of the ``count`` classes that photos show, before and after; ``low``: of those below `LOW` before."""

    classes: Mapping[str, tuple[float, float]]

    def mean(self, *, low: bool = False) -> tuple[float, float]:
        rows = [row for row in self.classes.values() if row[0] < LOW or not low] or [(float("nan"),) * 2]
        return sum(row[0] for row in rows) / len(rows), sum(row[1] for row in rows) / len(rows)


def parts(root: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Photos of a set: one's own, those to choose settings on, the third part."""
    photos = sorted((root / "images").glob("*.jpg"), key=lambda photo: crc32(photo.stem[::-1].encode()))
    if root.name == "camvid":
        first, second, third = ([photo for photo in photos if f"_{drive}_" in photo.name] for drive in DRIVES)
        return first[:OWN], second[:TUNING], third
    unseen = [photo for photo in photos if is_validation(photo.stem)]
    return unseen[:OWN], unseen[OWN : OWN + TUNING], unseen[OWN + TUNING :]


def as_own(root: Path, photos: Sequence[Path], folder: Path) -> Path:
    """Some photos of a set in the form of one's own data: label maps in which 0 means none of the classes, 255 unknown."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    (folder / "classes.txt").write_text((root / "classes.txt").read_text(encoding="utf-8"), encoding="utf-8")
    for photo in photos:
        (folder / "images" / photo.name).symlink_to(photo.resolve())
        with Image.open(root / "labels" / f"{photo.stem}.png") as picture:
            values = np.array(picture)
        if root.name != "ccp":
            values[values == 0] = 255  # unlabelled there
        Image.fromarray(values).save(folder / "labels" / f"{photo.stem}.png")
    return folder


def gain(before: Path | str, after: Path, photos: Sequence[AnnotatedPhoto], names: Sequence[str]) -> Gain:
    """Both models on the same photos."""
    first, last = (measure(promptseg.load(model), photos, names).classes for model in (before, after))
    return Gain({name: (first[name], last[name]) for name in names if name in first})


def show(title: str, found: Gain) -> None:
    """A table of all classes, and the means."""
    print(f"\n{title}\n| class | before | after | change |\n|---|---:|---:|---:|")
    means = {f"mean of those below {LOW}": found.mean(low=True), "mean": found.mean()}
    for name, (first, last) in {**found.classes, **means}.items():
        print(f"| {name} | {first:.3f} | {last:.3f} | {last - first:+.3f} |")


def tuned(options: argparse.Namespace, data: Path, output: Path) -> tuple[Report, float]:
    """The fine-tuned model, and the seconds that all cores together worked for it."""
    begun = time.process_time()
    report = finetune(
        data, model=options.model, preset=options.preset, output=output, classes=ASKED[options.set], steps=options.steps,
        changes=options.changes,
    )  # fmt: skip
    return report, time.process_time() - begun


def main() -> None:
    options = _options()
    other = ELSEWHERE[options.set]
    root, elsewhere = options.data / options.set, options.data / other
    own_photos, tuning, third = parts(root)
    if options.write:
        print(f"{len(own_photos)} photos in {as_own(root, own_photos, options.write)}")
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        report, worked = tuned(options, as_own(root, own_photos, place / "own"), place / "run")
        print(f"{report}\n\ntraining took {report.seconds:.0f} s on {torch.get_num_threads()} cores, all of it {worked:.0f} s of work")
        rest = annotated(own(as_own(root, tuning if options.tuning else third, place / "rest")))
        names = [row.name for row in report.classes]
        seen = gain(options.model, report.folder, asked_for(rest, ASKED[options.set]), names)
        show(f"{len(rest)} photos that it neither trained nor tested on", seen)
        strange = annotated(own(as_own(elsewhere, parts(elsewhere)[1], place / "elsewhere")))
        kept = gain(options.model, report.folder, asked_for(strange, ASKED[other]), [n for n in ASKED[other] if n not in names])
        show(f"{len(strange)} photos of {other}, whose names the data does not have", kept)
    low = seen.mean(low=True)
    verdict = "met" if low[1] - low[0] >= GAIN else "missed"
    print(f"\nThe rule (at least {GAIN:.2f} more over the classes below {LOW}) is {verdict}: {low[0]:.3f} -> {low[1]:.3f}.")
    if options.json:
        facts = {"seconds": report.seconds, "work": worked, "threads": torch.get_num_threads(), "preset": report.preset}
        options.json.write_text(json.dumps({**facts, "third": asdict(seen), "elsewhere": asdict(kept)}, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("data", type=Path)
    options.add_argument("changes", nargs="*", metavar="KEY=VALUE", help="settings of the preset's recipe")
    options.add_argument("--set", choices=tuple(ASKED), default="ccp")
    options.add_argument("--model", default="pocket")
    options.add_argument("--preset", default="head")
    options.add_argument("--steps", type=int)
    options.add_argument("--tuning", action="store_true", help="measure on the photos to choose settings on, not on the third part")
    options.add_argument("--write", type=Path, metavar="FOLDER", help="write the forty photos there and measure nothing")
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return options.parse_intermixed_args()


if __name__ == "__main__":
    main()
