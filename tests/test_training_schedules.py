"""Learning rates: the published values of every family, and what holds for any schedule."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from promptseg.errors import ConfigError
from promptseg.training.schedules import Constant, Cosine, Main, MultiStep, Poly, Schedule, Warmup
from promptseg.zoo.configs import from_plain, to_plain

GOLDEN = Path(__file__).parent / "golden"


@dataclass(frozen=True)
class Holder:
    """As a recipe has it."""

    schedule: Schedule


def table(family: str, name: str = "component_lr_schedule") -> Any:
    return json.loads((GOLDEN / family / f"{name}.json").read_text(encoding="utf-8"))


# --- published values ---------------------------------------------------------------------------------------------------------------------


def test_clipseg_cosines() -> None:
    runs = table("clipseg")["cosine"]
    assert len(runs) == 5
    for name, pairs in runs.items():
        period, base, minimum = (float(part.split("=")[1]) for part in name.split(", "))
        schedule = Cosine(minimum=minimum)
        for step, expected in pairs:
            assert schedule.rate(base, step, int(period)) == pytest.approx(expected, rel=1e-6)
            assert Cosine(minimum=minimum, period=int(period)).rate(base, step, 7) == schedule.rate(base, step, int(period))


def test_clipseg_warmup_cosine() -> None:
    for name, pairs in table("clipseg")["warmup_cosine_factor"].items():
        warmup, steps = (int(part.split("=")[1]) for part in name.split(", "))
        schedule = Warmup(steps=warmup, start=1 / (warmup + 1))
        for step, expected in pairs:
            assert schedule.factor(step, steps) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_denseclip_segmentation_warms_up_a_running_poly() -> None:
    run = table("denseclip")["segmentation"]
    schedule = Warmup(steps=1500, start=1e-6, main=Poly(power=0.9, minimum=1e-6), join="multiply")
    for step, rates in zip(run["iterations"], run["lr"], strict=True):
        for base, expected in zip((1e-4, 1e-5, 0.0), rates, strict=True):  # the text encoder's rate rises from 0, as published
            assert schedule.rate(base, step, 80_000) == pytest.approx(expected, rel=1e-9)


def test_denseclip_detection_steps() -> None:
    run = table("denseclip")["detection"]
    epoch = run["iterations_per_epoch"]
    schedule = Warmup(steps=500, start=1e-3, main=MultiStep(milestones=(8 * epoch, 11 * epoch)), join="multiply")
    for step, rates in zip(run["iterations"], run["lr"], strict=True):
        for base, expected in zip((1e-4, 1e-5, 0.0), rates, strict=True):
            assert schedule.rate(base, step, 12 * epoch) == pytest.approx(expected, rel=1e-9)


def test_catseg_cosine() -> None:
    values = {1: 0.00019999999992289372, 1000: 0.0001999229036240723, 20000: 0.00017071067811865476, 79999: 7.710628802115594e-14, 80000: 0}
    for step, expected in values.items():  # param_groups_vitb_384.json of the reference collection
        assert Cosine().rate(2e-4, step, 80_000) == pytest.approx(expected, rel=1e-6, abs=1e-20)


def test_psalm_rises_and_falls() -> None:
    values = {
        0: 0,
        1: 3.571428571428572e-08,
        840: 3e-05,
        1680: 6e-05,
        1681: 5.9999999949826845e-05,
        28000: 3.1456866663433454e-05,
        56000: 0,
    }
    schedule = Warmup(steps=math.ceil(0.03 * 56_000))
    for step, expected in values.items():  # comp_schedule_mixing.json of the reference collection
        assert schedule.rate(6e-5, step, 56_000) == pytest.approx(expected, rel=1e-6, abs=1e-16)


def test_groupvit_rises_beside_its_cosine() -> None:
    values = {0: 4e-06, 1: 4.11404888e-06, 6997: 8.02e-04, 13993: 1.59988595e-03, 13994: 1.58295513e-03, 104955: 8.2e-04, 209910: 4e-05}
    schedule = Warmup(steps=2 * 6997, start=4e-6 / 1.6e-3, main=Cosine(minimum=4e-5), join="replace")
    for step, expected in values.items():  # component_lr_schedule of the reference collection
        assert schedule.rate(1.6e-3, step, 30 * 6997) == pytest.approx(expected, rel=1e-6)


# --- torch's own --------------------------------------------------------------------------------------------------------------------------

Optim = torch.optim.lr_scheduler


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (Constant(), lambda opt: Optim.ConstantLR(opt, factor=1)),
        (Cosine(minimum=0.02), lambda opt: Optim.CosineAnnealingLR(opt, 40, 0.02)),
        (Cosine(period=25), lambda opt: Optim.CosineAnnealingLR(opt, 25)),
        (Poly(power=2), lambda opt: Optim.PolynomialLR(opt, 40, 2)),
        (MultiStep(milestones=(3, 30), gamma=0.5), lambda opt: Optim.MultiStepLR(opt, [3, 30], 0.5)),
        (Warmup(steps=8, start=0.25, main=Constant()), lambda opt: Optim.LinearLR(opt, 0.25, total_iters=8)),
    ],
    ids=["constant", "cosine", "cosine of a period", "poly", "multistep", "warmup"],
)
def test_torch_agrees(schedule: Schedule, make: Any) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = make(optimizer)
    for step in range(25 if schedule == Cosine(period=25) else 40):  # torch's cosine rises again behind its period; ours stays
        assert schedule.rate(0.3, step, 40) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        scheduler.step()


# --- any schedule -------------------------------------------------------------------------------------------------------------------------

mains: st.SearchStrategy[Main] = st.one_of(
    st.just(Constant()),
    st.builds(Cosine, minimum=st.floats(0, 0.5), period=st.none() | st.integers(1, 300)),
    st.builds(Poly, power=st.floats(0.1, 3), minimum=st.floats(0, 0.5)),
    st.builds(MultiStep, milestones=st.sets(st.integers(1, 200), max_size=4).map(lambda s: tuple(sorted(s))), gamma=st.floats(0.01, 1)),
)
schedules: st.SearchStrategy[Schedule] = mains | st.builds(
    Warmup, steps=st.integers(0, 100), start=st.floats(0, 1), main=mains, join=st.sampled_from(["then", "replace", "multiply"])
)


@given(schedules, st.integers(0, 400), st.integers(1, 200))
def test_rates_stay_between_nothing_and_the_base_and_survive_files(schedule: Schedule, step: int, steps: int) -> None:
    assert 0 <= schedule.rate(1.0, step, steps) <= 1 + 1e-12
    assert from_plain(Holder, json.loads(json.dumps({"schedule": to_plain(schedule)}))).schedule == schedule


@given(mains, st.integers(0, 200), st.integers(1, 200))
def test_without_a_rise_nothing_rises(schedule: Main, step: int, steps: int) -> None:
    assert schedule.factor(step + 1, steps) <= schedule.factor(step, steps) + 1e-12


@given(mains, st.integers(1, 50), st.floats(0, 1), st.integers(60, 200))
def test_a_rise_ends_where_its_main_begins(main: Main, rise: int, start: float, steps: int) -> None:
    schedule = Warmup(steps=rise, start=start, main=main)
    assert schedule.factor(0, steps) == pytest.approx(start)
    assert schedule.factor(rise, steps) == main.factor(0, steps - rise)


# --- files --------------------------------------------------------------------------------------------------------------------------------


def parsed(values: Any) -> Schedule:
    return from_plain(Holder, {"schedule": values}, "recipe").schedule


def test_tables_name_their_kind() -> None:
    assert parsed({"kind": "cosine", "minimum": 1e-4}) == Cosine(minimum=1e-4)
    assert parsed({"kind": "multistep", "milestones": [5, 9]}) == MultiStep(milestones=(5, 9))
    nested = {"kind": "warmup", "steps": 1500, "start": 1e-6, "join": "multiply", "main": {"kind": "poly", "minimum": 1e-6}}
    assert parsed(nested) == Warmup(steps=1500, start=1e-6, join="multiply", main=Poly(minimum=1e-6))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "cosin"}, r"recipe\.schedule\.kind is one of constant, .*Did you mean 'cosine'"),
        ({"minimum": 1e-4}, r"recipe\.schedule\.kind is one of constant, cosine, poly, multistep, warmup, not None"),
        ({"kind": "poly", "pwoer": 1}, r"recipe\.schedule has an unknown key 'pwoer'\. Did you mean 'power'"),
        ({"kind": "warmup", "steps": 5, "main": {"kind": "warmup"}}, r"recipe\.schedule\.main\.kind is one of"),
        ({"kind": "multistep"}, "incomplete"),
        ("cosine", "table of settings"),
        ({"kind": "poly", "power": 0}, "power is above 0"),
        ({"kind": "cosine", "minimum": -1}, "minimum is the rate"),
        ({"kind": "cosine", "period": 0}, "period is a number of steps"),
        ({"kind": "multistep", "milestones": [9, 5]}, "rising order"),
        ({"kind": "multistep", "milestones": [5], "gamma": 2}, "gamma"),
        ({"kind": "warmup", "steps": -1}, "length of the rise"),
        ({"kind": "warmup", "steps": 5, "start": 2}, "share of the rate"),
        ({"kind": "warmup", "steps": 5, "join": "before"}, "join must be 'then' or"),
    ],
)
def test_mistakes_are_named(values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parsed(values)


def test_a_wrong_join_is_refused_from_python_too() -> None:
    with pytest.raises(ConfigError, match="'then', 'replace' or 'multiply'"):
        Warmup(steps=3, join="before")  # type: ignore[arg-type]
