"""The small reference cases, each against its own tolerances; ``check.py`` runs any others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import check
import pytest
import torch
from cases import Case, Check, NotYetError, compare, compare_value, index_of
from runners_groupvit import network

from promptseg import zoo
from promptseg.models.groupvit import GroupVitOptions, naming
from promptseg.nn.attention import Attention
from promptseg.segmenter import Segmenter

HERE = Path(__file__).parent
CASES = check.find(sorted(folder for folder in HERE.iterdir() if folder.is_dir() and not folder.name.startswith("_")))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.family}-{case.path.stem}")
def test_case_is_met(case: Case) -> None:
    beyond = [found for found in check.run(case) if not found.passed]
    assert not beyond


NEEDS_DOWNLOAD = {"psalm/tokenization"}  # the exact ids need GPT-2's merges, which `.ci/run` fetches; texts and rules: test_psalm_tokens.py
FULL_SIZE = {"denseclip/seg_pipeline"}  # all cases of the kind are of full-size networks; others cover its parts


def test_every_kind_with_a_runner_has_a_case_here() -> None:
    assert {case.kind for case in CASES} == set(check.RUNNERS) - NEEDS_DOWNLOAD - FULL_SIZE


def test_the_segmenter_scores_as_the_reference_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """GroupViT's sliding windows asked for as a user does, its prompts and threshold, too; the case enlarges the map beyond the photo."""
    case = Case(HERE / "groupvit" / "tiny_seg_slide.json")
    args, net = case.args, network(case)
    test, asked, answer = args["test_cfg"], list[Any](), net.to_semantic

    def told(*given: Any) -> Any:
        asked[:] = given
        return answer(*given)

    monkeypatch.setattr(net, "to_semantic", told)
    card = replace(zoo.card("groupvit-gcc-yfcc"), config=net.config, preprocess=net.config.preprocess, templates=tuple(args["templates"]))
    options = GroupVitOptions(size=min(args["image"].shape[:2]), crop=test["crop_size"][0], stride=test["stride"][0])
    ask = Segmenter(net, card, device="cpu", precision="float32")
    shown = ask.semantic(args["image"], args["class_names"][1:], background=test["bg_thresh"], options=options)
    assert float((shown.labels + 1 == case.tensors["scores"][0].argmax(0)).mean()) > 0.995
    seen, synonyms, threshold = asked
    scores = torch.zeros(1, len(args["class_names"]), *seen.content)
    for index, one in naming.score_maps(seen, synonyms, threshold):
        scores[0, index + 1] = one
    labels, _ = naming.semantic(replace(seen, size=tuple(args["original_size"])), synonyms, threshold)
    checks = {found.name: found for found in case.compare({"scores": scores, "prediction": labels + 1})}
    assert checks["scores"].passed
    assert checks["prediction"].passed
    assert bool((scores[0, 1:].amax((1, 2)) > 0).all())


def test_a_flipped_sign_in_attention_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least that could go wrong, and the smallest case that sees it."""
    split = Attention._split

    def flipped(self: Attention, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k, v = split(self, x)
        return -q, k, v

    case = Case(HERE / "clipseg" / "component_attention.json")
    assert all(found.passed for found in check.run(case))
    monkeypatch.setattr(Attention, "_split", flipped)
    assert not any(found.passed for found in check.run(case) if found.name in ("y", "attn"))


def test_statuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """0 within tolerance, 1 beyond, 2 a kind without a runner unless only known ones are asked for."""
    prompts = HERE / "clipseg" / "component_prompts.json"
    assert check.main([str(prompts)]) == 0
    text = prompts.read_text(encoding="utf-8")
    changed, unknown = tmp_path / "changed.json", tmp_path / "unknown.json"
    changed.write_text(text.replace("a bad photo of a {}.", "a dad photo of a {}."), encoding="utf-8")
    unknown.write_text(text.replace("clipseg/prompts", "clipseg/nonsense"), encoding="utf-8")
    assert check.main([str(changed)]) == 1
    assert "FAIL templates/shuffle+" in capsys.readouterr().out
    assert check.main([str(unknown)]) == 2
    assert check.main(["--known", str(tmp_path / "unknown.json")]) == 0
    assert "no runner for clipseg/nonsense" in capsys.readouterr().out


def test_networks_that_the_package_lacks_are_listed() -> None:
    case = Case(HERE / "clipseg" / "tiny_variants_base.json")
    assert case.data["args"]["config"]["class"] == "CLIPDensePredT"
    case.data["args"]["config"]["class"] = "CLIPDenseNothing"
    with pytest.raises(NotYetError, match="CLIPDenseNothing"):
        check.run(case)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[:, ::4, 2:]", (slice(None), slice(None, None, 4), slice(2, None))),
        ("[..., -1]", (..., -1)),
        ("[[0, 2], :]", ([0, 2], slice(None))),
        ("[:3]", slice(None, 3)),
    ],
)
def test_slices(text: str, expected: object) -> None:
    assert index_of(text) == expected


@pytest.mark.parametrize(
    ("tolerance", "off", "passes"),
    [
        ({"rtol": 0.1, "atol": 0}, 0.09, True),
        ({"rtol": 0.1, "atol": 0}, 0.11, False),
        ({"rtol": 0, "atol_of_max": 0.01}, 0.039, True),  # the largest entry is 4
        ({"rtol": 0, "atol_of_max": 0.01}, 0.041, False),
        ({"fro": 0.01}, 0.05, True),  # the norm of 1, 2, 3, 4 is 5.48
        ({"fro": 0.01}, 0.06, False),
        ({"equal": True}, 0.0, True),
        ({"equal": True}, 1e-12, False),
        ({"min_equal": 0.75}, 1.0, True),
        ({"min_equal": 0.76}, 1.0, False),
        ({"rtol": 1, "atol": 1}, float("nan"), False),
    ],
)
def test_tolerances(tolerance: dict[str, float], off: float, passes: bool) -> None:
    reference = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64).numpy()
    result = reference.copy()
    result[0] += off
    found = compare("x", reference, result, tolerance)
    assert found.passed is passes


def test_values_of_every_type() -> None:
    def passed(expected: object, result: object, tolerance: dict[str, float] | None = None) -> bool:
        found: Check = compare_value("x", expected, result, tolerance)
        return found.passed

    assert passed(["a", "b"], ["a", "b"])
    assert not passed(["a", "b"], ["a", "c"])
    assert passed(1.0, 1.00001, {"rtol": 1e-3, "atol": 0})
    assert not passed(1.0, 1.1, {"rtol": 1e-3, "atol": 0})
    assert passed(None, None)
    assert not passed(None, 3)
    assert not compare("x", torch.zeros(2).numpy(), torch.zeros(3).numpy(), {"rtol": 1, "atol": 1}).passed
