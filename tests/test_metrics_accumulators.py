"""Rules that hold for every metric: parts merge to the whole bit for bit, states survive JSON, mistakes are refused."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from promptseg.errors import ConfigError, DataError
from promptseg.metrics import (
    Accumulator,
    BoundaryIoU,
    Found,
    Labelled,
    MaskAP,
    MaskIoU,
    PairIoU,
    PanopticQuality,
    Presence,
    ReferringIoU,
    SemanticBoundaryIoU,
    SemanticIoU,
    ThresholdSweep,
    TopK,
    VideoJF,
    ZeroShotIoU,
    merged,
)

Arguments = tuple[Any, ...]
CLASSES = ("background", "cat", "dog", "boat")


def blobs(rng: np.random.Generator, count: int, size: tuple[int, int] = (9, 11)) -> np.ndarray:
    """(count, H, W) bool: random rectangles, some of them empty."""
    rows, columns = np.indices(size)
    tops, lefts = rng.integers(0, size[0], (count, 1, 1)), rng.integers(0, size[1], (count, 1, 1))
    heights, widths = rng.integers(0, 6, (count, 1, 1)), rng.integers(0, 6, (count, 1, 1))
    return (rows >= tops) & (rows < tops + heights) & (columns >= lefts) & (columns < lefts + widths)


def _pair(rng: np.random.Generator, index: int) -> Arguments:
    prediction, target = blobs(rng, 2)
    return f"class {rng.integers(3)}", prediction, target, rng.random(target.shape) > 0.1


def _labels(rng: np.random.Generator, index: int) -> Arguments:
    prediction, target = rng.integers(0, 3, (2, 7, 8))
    return np.where(rng.random(target.shape) < 0.1, -1, prediction), np.where(rng.random(target.shape) < 0.2, 255, target)


def _scores(rng: np.random.Generator, index: int) -> Arguments:
    name, _, target, known = _pair(rng, index)
    return name, (rng.random(target.shape) + target) / 2, target, known


def _presence(rng: np.random.Generator, index: int) -> Arguments:
    return bool(rng.integers(2)), bool(rng.integers(2)), float(rng.random() / 20)


def _expression(rng: np.random.Generator, index: int) -> Arguments:
    return _pair(rng, index)[1:]


def _segments(rng: np.random.Generator, index: int) -> Arguments:
    prediction, target = (np.kron(rng.integers(0, 5, (3, 4)), np.ones((3, 3), dtype=int)) for _ in range(2))
    categories = {number: ("cat", "dog", "sky")[number % 3] for number in range(1, 5)}
    return prediction, categories, np.where(rng.random(target.shape) < 0.7, prediction, target), categories, (3,)


def _frame(rng: np.random.Generator, index: int) -> Arguments:
    return f"sequence {index % 2}", index % 3, index, *blobs(rng, 2, (20, 30))


def _guesses(rng: np.random.Generator, index: int) -> Arguments:
    return CLASSES[index % 2], rng.integers(0, 4, 5), int(rng.integers(5))


def _instances(rng: np.random.Generator, index: int) -> Arguments:
    truth = [Labelled(mask, "cat" if number else "dog", crowd=number == 2) for number, mask in enumerate(blobs(rng, 3, (20, 20)))]
    # few different scores: the order of equal ones must not depend on the parts
    found = [Found(one.mask, one.category, float(rng.integers(3)) / 2) for one in truth if rng.random() < 0.8]
    return f"photo {index}", found, truth


@dataclass(frozen=True)
class Kind:
    make: Callable[[], Accumulator[Any]]
    case: Callable[[np.random.Generator, int], Arguments]

    def cases(self, seed: int, count: int) -> list[Arguments]:
        rng = np.random.default_rng(seed)
        return [self.case(rng, index) for index in range(count)]

    def measured(self, cases: Sequence[Arguments]) -> Accumulator[Any]:
        metric = self.make()
        for case in cases:
            metric.update(*case)  # type: ignore[attr-defined]
        return metric


KINDS = {
    "mask IoU": Kind(MaskIoU, _pair),
    "pair IoU": Kind(PairIoU, _pair),
    "boundary IoU": Kind(lambda: BoundaryIoU(share=0.1), _pair),
    "presence": Kind(Presence, _presence),
    "sweep": Kind(lambda: ThresholdSweep((0.2, 0.5, 0.8)), _scores),
    "semantic": Kind(lambda: SemanticIoU(CLASSES), _labels),
    "semantic boundary": Kind(lambda: SemanticBoundaryIoU(CLASSES), _labels),
    "zero-shot": Kind(lambda: ZeroShotIoU(CLASSES, unseen=("dog", "boat")), _labels),
    "referring": Kind(ReferringIoU, _expression),
    "panoptic": Kind(lambda: PanopticQuality(("cat", "dog"), ("sky",)), _segments),
    "video": Kind(VideoJF, _frame),
    "top-k": Kind(lambda: TopK((1, 2)), _guesses),
    "instances": Kind(lambda: MaskAP(("cat", "dog")), _instances),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def same(first: Any, second: Any) -> None:
    """Equal to the last bit, NaN included."""
    np.testing.assert_equal(dataclasses.asdict(first), dataclasses.asdict(second))


def exchanged(metric: Accumulator[Any]) -> Accumulator[Any]:
    """As another process or a later run gets it."""
    return type(metric).from_state(json.loads(json.dumps(metric.state(), allow_nan=False)))


@every_kind
@settings(max_examples=12)
@given(seed=st.integers(0, 10_000), parts=st.lists(st.integers(0, 2), min_size=1, max_size=9), order=st.randoms(use_true_random=False))
def test_parts_merge_to_the_whole(kind: Kind, seed: int, parts: list[int], order: Any) -> None:
    cases = kind.cases(seed, len(parts))
    shuffled = list(zip(parts, cases, strict=True))
    order.shuffle(shuffled)
    pieces = [kind.measured([case for part, case in shuffled if part == number]) for number in range(3)]
    same(merged(exchanged(piece) for piece in pieces).compute(), kind.measured(cases).compute())


@every_kind
def test_a_resumed_metric_goes_on_as_if_nothing_had_happened(kind: Kind) -> None:
    cases = kind.cases(1, 6)
    resumed = exchanged(kind.measured(cases[:3]))
    for case in cases[3:]:
        resumed.update(*case)  # type: ignore[attr-defined]
    same(resumed.compute(), kind.measured(cases).compute())
    assert resumed.settings() == kind.make().settings()


@every_kind
def test_merging_leaves_the_other_parts_alone(kind: Kind) -> None:
    cases = kind.cases(2, 3)
    parts = [kind.measured(cases[:1]), kind.measured(cases[1:2])]
    before = json.dumps([part.state() for part in parts])
    whole = kind.make().merge(parts[0]).merge(parts[1])
    assert json.dumps(merged(parts).state()) == json.dumps(whole.state())
    whole.update(*cases[2])  # type: ignore[attr-defined]
    assert json.dumps([part.state() for part in parts]) == before


@every_kind
def test_nothing_measured_can_be_computed(kind: Kind) -> None:
    same(kind.make().compute(), exchanged(kind.make()).compute())


@every_kind
def test_results_are_frozen_and_name_their_rule(kind: Kind) -> None:
    result = kind.measured(kind.cases(3, 3)).compute()
    field = dataclasses.fields(result)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(result, field, 0)
    assert {"absent", "tolerated", "guesses"} & {item.name for item in dataclasses.fields(result)}


@every_kind
def test_tensors_count_like_arrays(kind: Kind) -> None:
    def as_tensors(value: Any) -> Any:
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    cases = kind.cases(4, 4)
    same(kind.measured([tuple(map(as_tensors, case)) for case in cases]).compute(), kind.measured(cases).compute())


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (MaskIoU(), PairIoU()),
        (MaskIoU(), MaskIoU(absent="zero")),
        (SemanticIoU(("a", "b")), SemanticIoU(("b", "a"))),
        (ThresholdSweep((0.5,)), ThresholdSweep((0.4,))),
        (PairIoU(), BoundaryIoU()),
    ],
)
def test_different_metrics_do_not_merge(ours: Accumulator[Any], theirs: Accumulator[Any]) -> None:
    with pytest.raises(ConfigError, match="cannot be merged into"):
        ours.merge(theirs)


def test_nothing_cannot_be_merged() -> None:
    with pytest.raises(ConfigError, match="at least one"):
        merged([])


@pytest.mark.parametrize("name", ["video", "instances"])
def test_what_exists_once_is_counted_once(name: str) -> None:
    kind = KINDS[name]
    cases = kind.cases(5, 2)
    with pytest.raises(DataError, match="already counted"):
        kind.measured([cases[0], cases[0]])
    with pytest.raises(DataError, match="in both parts"):
        kind.measured(cases).merge(kind.measured(cases[:1]))


def test_numbers_of_numpy_are_names_too() -> None:
    mask = np.ones((2, 2), bool)
    metric = MaskIoU().update(np.int64(3), mask, mask).update(3, mask, ~mask)  # type: ignore[arg-type]
    assert exchanged(metric).compute().per_class == {3: 0.5}


def test_states_of_others_are_refused() -> None:
    with pytest.raises(DataError, match="'MaskIoU', not of 'PairIoU'"):
        PairIoU.from_state(MaskIoU().state())
    with pytest.raises(DataError, match="another version"):
        PairIoU.from_state({"metric": "PairIoU", "settings": {"gone": 1}, "sums": {}})
    with pytest.raises(DataError, match="another version"):
        PairIoU.from_state({"metric": "PairIoU", "settings": {}, "sums": {}})


@pytest.mark.parametrize(
    "make",
    [
        lambda: MaskIoU(absent="skipped"),  # type: ignore[arg-type]
        lambda: PairIoU(absent="two"),  # type: ignore[arg-type]
        lambda: SemanticIoU(("a",), absent="ones"),  # type: ignore[arg-type]
        lambda: ReferringIoU(absent="gref"),  # type: ignore[arg-type]
        lambda: PanopticQuality((1,), absent="one"),  # type: ignore[arg-type]
        lambda: VideoJF(absent="nan"),  # type: ignore[arg-type]
        lambda: ThresholdSweep(absent=""),  # type: ignore[arg-type]
    ],
)
def test_unknown_rules_are_refused_with_those_that_exist(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigError, match=r"is not known; choose one of '(skip|one|gres)'"):
        make()


def test_metrics_bring_no_torch() -> None:
    code = "import sys, promptseg.metrics; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_the_examples_of_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    masks, thresholds, exchange = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    mask = np.ones((4, 4), bool)
    told: dict[str, Any] = {"answers": [("a", mask, mask)], "other": PairIoU().update("a", ~mask, mask)}
    exec(masks + exchange, told)
    assert told["whole"].compute().mean == 0.5
    exec(thresholds, {"answers": [("a", np.full((4, 4), 0.7), mask)]})
    assert "threshold=0.02" in capsys.readouterr().out
