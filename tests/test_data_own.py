"""One's own data in every form, and the mistakes that are found in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import replicas
from promptseg.data.checks import inspect
from promptseg.data.own import annotated, kind_of, own
from promptseg.data.own_checks import label_findings
from promptseg.errors import DataError


def told(path: Path) -> str:
    """All findings, one per line; wrong ones with an exclamation mark."""
    return "\n".join(f"{'! ' if finding.wrong else '  '}{finding}" for finding in label_findings(path))


# --- reading ----------------------------------------------------------------------------------------------------------------------------


def test_label_maps(tmp_path: Path) -> None:
    photos = own(replicas.own_maps(tmp_path))
    assert (kind_of(tmp_path), photos.classes) == ("maps", ("background", "cup", "spoon"))
    masks, unknown = photos[0].masks()
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"background": 300, "cup": 300, "spoon": 300}
    assert unknown.sum() == 300
    unlabelled = own(tmp_path, zero="ignore")
    assert unlabelled.classes == ("cup", "spoon")
    assert unlabelled[0].masks()[1].sum() == 600
    assert not told(tmp_path)


def test_a_class_list_may_name_the_zero(tmp_path: Path) -> None:
    photos = own(replicas.own_maps(tmp_path, classes="background\ncup\nspoon\n"))
    assert photos.classes == ("background", "cup", "spoon")
    assert photos[0].masks()[0]["spoon"].sum() == 300
    assert own(tmp_path, zero="ignore").classes == ("cup", "spoon")


@pytest.mark.parametrize("zero", ["Background", "BACKGROUND", "__background__", "Void", "[unlabeled]"])
def test_the_zero_by_any_of_its_names(zero: str, tmp_path: Path) -> None:
    photos = own(replicas.own_maps(tmp_path / "maps", values=(0, 1, 2), classes=f"{zero}\ncup\nspoon\n"))
    assert photos.classes == (zero, "cup", "spoon")
    assert set(photos[0].masks()[0]) == {zero, "cup", "spoon"}
    (photo, _) = annotated(photos)
    assert (photo.present, photo.absent, set(photo.masks()[0])) == (("cup", "spoon"), (), {"cup", "spoon"})
    folder = replicas.own_folders(tmp_path / "folders") / "masks"
    (folder / "cup").rename(folder / zero)
    assert [photo.present + photo.absent for photo in annotated(own(folder.parent))] == [("spoon",)] * 2


def test_what_only_begins_like_nothing_is_a_class(tmp_path: Path) -> None:
    assert own(replicas.own_maps(tmp_path, classes="background 2\nspoon\n")).classes == ("background", "background 2", "spoon")


def test_label_maps_in_parts(tmp_path: Path) -> None:
    replicas.own_maps(tmp_path)
    for name, part in (("a", "train"), ("b", "val")):
        for file in list(tmp_path.glob(f"*/{name}.*")):
            (file.parent / part).mkdir()
            file.rename(file.parent / part / file.name)
    photos = own(tmp_path)
    assert (kind_of(tmp_path), [sample.id for sample in photos]) == ("maps", ["train/a", "val/b"])
    assert [set(sample.masks()[0]) for sample in photos] == [{"background", "cup", "spoon"}] * 2
    assert [sample.id for sample in own(tmp_path, "val")] == ["val/b"]
    assert not told(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"no classes.txt beside masks"):
        own(tmp_path)


def test_a_folder_per_class(tmp_path: Path) -> None:
    photos = own(replicas.own_folders(tmp_path))
    assert (kind_of(tmp_path), photos.classes) == ("folders", ("cup", "spoon"))
    assert [set(sample.masks()[0]) for sample in photos] == [{"cup"}, {"cup", "spoon"}]
    assert photos[1].masks()[0]["cup"].sum() == 100
    assert not told(tmp_path)


@pytest.mark.parametrize("place", ["instances.json", "images/labels.json", "annotations/x.json"])
def test_coco(tmp_path: Path, place: str) -> None:
    table = replicas.coco_table()
    replicas.write_json(tmp_path / place, table)
    for image in table["images"]:
        replicas.photo(tmp_path / "images" / image["file_name"], replicas.COCO_SIZE)
    photos = own(tmp_path / place)
    assert photos[0].image().shape == (30, 40, 3)
    assert set(photos[1].masks()[0]) == {"person", "dog"}
    assert not told(tmp_path / place)
    if place != "images/labels.json":
        assert len(own(tmp_path)) == 3


def test_coco_in_parts(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        table = replicas.coco_table(2)
        replicas.write_json(tmp_path / part / "_annotations.coco.json", table)
        for image in table["images"]:
            replicas.photo(tmp_path / part / image["file_name"], replicas.COCO_SIZE)
    assert [sample.id for sample in own(tmp_path)] == [f"{part}/_annotations.coco/{n}" for part in ("train", "valid") for n in (1, 2)]
    assert [sample.path.parent.name for sample in own(tmp_path, "valid")] == ["valid", "valid"]
    table["categories"][0] = {"id": 1, "name": "people"}
    replicas.write_json(tmp_path / "valid" / "_annotations.coco.json", table)
    with pytest.raises(DataError, match="list different categories"):
        own(tmp_path)


def test_coco_as_published(tmp_path: Path) -> None:
    replicas.coco_instances(tmp_path)
    replicas.coco_panoptic(tmp_path)
    photos = own(tmp_path)
    assert [sample.path.parent.name for sample in photos] == ["val2017"] * 3
    assert inspect(photos).ok


def test_class_lists_of_windows_editors(tmp_path: Path) -> None:
    replicas.own_maps(tmp_path)
    (tmp_path / "classes.txt").write_bytes("\ufeffcup\r\nspoon\r\n".encode())
    assert own(tmp_path).classes == ("background", "cup", "spoon")


def test_yolo(tmp_path: Path) -> None:
    photos = own(replicas.own_yolo(tmp_path))
    assert (kind_of(tmp_path), photos.classes) == ("yolo", ("cup", "spoon"))
    assert [sample.id for sample in photos] == ["images/train/a", "images/val/b", "images/val/c"]
    assert [set(sample.masks()[0]) for sample in photos] == [{"cup"}, {"spoon"}, set()]
    assert photos[0].masks()[0]["cup"][6:24, 10:30].mean() > 0.9
    assert len(own(tmp_path, "val")) == 2
    with pytest.raises(DataError, match="folder named 'test'"):
        own(tmp_path, "test")
    (tmp_path / "data.yaml").write_text("names: [cup, spoon]")
    assert own(tmp_path).classes == ("cup", "spoon")


def test_what_is_known_of_own_photos(tmp_path: Path) -> None:
    first, second = annotated(own(replicas.own_folders(tmp_path)))
    assert (first.present, first.absent) == (("cup",), ("spoon",))
    assert second.absent == ()
    (photo, _) = annotated(own(replicas.own_maps(tmp_path / "maps", values=(0, 2))))
    assert (photo.present, photo.absent) == (("spoon",), ("cup",))
    assert set(photo.masks()[0]) == {"spoon"}


# --- mistakes ---------------------------------------------------------------------------------------------------------------------------


def test_unknown_forms(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder masks.*no .tar files"):
        own(tmp_path)
    with pytest.raises(DataError, match="neither a folder nor"):
        own(tmp_path / "nothing")
    replicas.own_maps(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"no classes.txt beside masks"):
        own(tmp_path)
    (tmp_path / "classes.txt").write_text("cup\ncup\n")
    with pytest.raises(DataError, match="names twice: cup"):
        own(tmp_path)


def test_photos_in_folders_of_their_classes(tmp_path: Path) -> None:
    for name in ("cup", "spoon"):
        for folder in (tmp_path / "images" / name, tmp_path / "masks" / name / name):
            folder.mkdir(parents=True)
        replicas.photo(tmp_path / "images" / name / "a.jpg")
        replicas.labels(tmp_path / "masks" / name / name / "a.png", replicas.rectangle((40, 48), (2, 3, 10, 12), 255))
    samples = own(tmp_path).samples
    assert [[region.name for region in sample.regions()] for sample in samples] == [["cup"], ["spoon"]]


def test_masks_of_0_and_255(tmp_path: Path) -> None:
    replicas.own_maps(tmp_path, values=(0, 255), classes="cup\n")
    assert "! masks of 0 and 255, but 255 means ignored" in told(tmp_path)
    assert "a.png" in told(tmp_path)


def test_ids_that_are_one_too_high(tmp_path: Path) -> None:
    replicas.own_maps(tmp_path, values=(0, 2, 3))
    assert "ids out of range (classes.txt allows 0..2" in told(tmp_path)
    assert "one too high" in told(tmp_path)
    assert "holds [3]" in told(tmp_path)
    report = inspect(own(tmp_path))
    assert not report.ok
    assert "annotations that cannot be used" in str(report.findings[0])


def test_ids_that_may_be_one_too_low(tmp_path: Path) -> None:
    replicas.own_maps(tmp_path, values=(0, 1, 255))
    assert told(tmp_path).startswith("  no map holds 2, 'spoon', but some hold 0, none of the classes. Where 0 means 'cup', all ids")
    assert "a.png holds [0, 1, 255]" in told(tmp_path)
    (tmp_path / "classes.txt").write_text("background\ncup\nspoon\n")
    assert not told(tmp_path), "the list says what 0 means"


@pytest.mark.parametrize("values", [(0, 1, 2), (1, 255), (0,)])
def test_ids_that_are_not_shifted(values: tuple[int, ...], tmp_path: Path) -> None:
    assert not told(replicas.own_maps(tmp_path, values=values))


def test_photos_and_maps_without_partners(tmp_path: Path) -> None:
    replicas.own_maps(tmp_path)
    replicas.photo(tmp_path / "images" / "c.jpg", replicas.COCO_SIZE)
    replicas.labels(tmp_path / "masks" / "d.png", np.zeros(replicas.COCO_SIZE, np.uint8))
    replicas.photo(tmp_path / "masks" / "a.jpg", replicas.COCO_SIZE)
    lines = told(tmp_path).splitlines()
    assert lines[0] == "! photos without a label map in masks: c"
    assert lines[1].startswith("! label maps without a photo in images: ")
    assert lines[2].startswith("! label maps saved as JPEG")


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    replicas.own_folders(tmp_path)
    (tmp_path / "masks" / "fork").mkdir()
    replicas.labels(tmp_path / "masks" / "cup" / "z.png", np.zeros(replicas.COCO_SIZE, np.uint8))
    replicas.photo(tmp_path / "images" / "c.jpg", replicas.COCO_SIZE)
    assert "! masks without a photo of the same name in images: " in told(tmp_path)
    assert "! classes whose folder is empty: fork" in told(tmp_path)
    assert "  photos without a mask of any class; they count as showing none: c" in told(tmp_path)
    replicas.labels(tmp_path / "masks" / "cup" / "a.png", np.zeros((9, 9), np.uint8))
    assert "a.png is no usable mask" in str(inspect(own(tmp_path)).findings[0])


def test_coco_mistakes(tmp_path: Path) -> None:
    table = replicas.coco_table()
    table["annotations"][0]["segmentation"] = [[5, 5, 45, 5, 45, 20]]
    table["annotations"][1]["id"] = 1
    table["images"][2]["file_name"] = table["images"][1]["file_name"]
    replicas.write_json(tmp_path / "x.json", table)
    text = told(tmp_path / "x.json")
    assert "! photos that x.json lists twice: 000000000002.jpg" in text
    assert "! annotations that reach beyond their photo: are width and height exchanged, or was the photo resized: 1" in text
    assert "  annotation ids that occur twice in x.json: 1" in text


@pytest.mark.parametrize(("step", "which"), [(-1, "low"), (1, "high")])
def test_coco_ids_that_are_shifted(tmp_path: Path, step: int, which: str) -> None:
    table = replicas.coco_table()
    for annotation in table["annotations"]:
        annotation["category_id"] += step
    replicas.write_json(tmp_path / "x.json", table)
    with pytest.raises(DataError, match=f"all category ids of the annotations look one too {which}"):
        own(tmp_path / "x.json")


def test_yolo_mistakes(tmp_path: Path) -> None:
    replicas.own_yolo(tmp_path)
    file = tmp_path / "labels" / "train" / "a.txt"
    outline = "0.2 0.2 0.8 0.2 0.8 0.8"
    for line, message in (
        (f"2 {outline}", r"line 1: .* is not a class 0..1"),
        (f"-1 {outline}", r"line 1: .* is not a class 0..1"),
        ("0 0.5 0.5 0.2 0.2", "may be boxes"),
        ("0 5 5 30 5 30 20", "shares of the photo's width"),
        ("0 0.5 0.5 0.2", "pairs of coordinates"),
    ):
        file.write_text(line)
        with pytest.raises(DataError, match=message):
            own(tmp_path)[0].masks()
    file.write_text(f"2 {outline}")
    (tmp_path / "labels" / "val" / "z.txt").write_text(f"1 {outline}")
    assert "ids out of range (data.yaml names 2 classes, so 0..1); they look one too high" in told(tmp_path)
    assert "! label files without a photo" in told(tmp_path)
    (tmp_path / "data.yaml").write_text("path: x")
    with pytest.raises(DataError, match="no usable list of names"):
        own(tmp_path)


def test_rotated_photos_are_told(tmp_path: Path) -> None:
    replicas.own_folders(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "a.jpg", exif=exif)
    assert "  photos with a rotation in their EXIF data" in told(tmp_path)


def test_a_report_counts_and_collects(tmp_path: Path) -> None:
    replicas.own_folders(tmp_path)
    report = inspect(own(tmp_path))
    assert (report.ok, report.photos, report.pixels, report.empty) == (True, 2, 2 * 1200, [])
    assert (report.classes["cup"].photos, report.classes["cup"].pixels) == (2, 200)
    photos = own(tmp_path)
    (tmp_path / "images" / "a.jpg").unlink()
    (tmp_path / "images" / "b.jpg").write_bytes(b"no photo")
    report = inspect(photos)
    assert [finding.what for finding in report.findings] == ["missing photos", "photos that cannot be read"]
    assert not report.ok
    table = replicas.coco_table(2)
    table["images"][0]["width"] = 50
    replicas.write_json(tmp_path / "t" / "x.json", table)
    for image in table["images"]:
        replicas.photo(tmp_path / "t" / "images" / image["file_name"], replicas.COCO_SIZE)
    del table["annotations"][2]  # the crowd, whose runs do not fill 50 columns
    replicas.write_json(tmp_path / "t" / "x.json", table)
    (finding, _) = inspect(own(tmp_path / "t" / "x.json")).findings
    assert "000000000001.jpg is 40x30, its masks are 50x30" in str(finding)
