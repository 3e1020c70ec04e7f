"""The least that could go wrong in training, and the smallest case that sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import check
import pytest
import runners_catseg
import runners_clipseg_training
import torch
from cases import Case
from runners_clipseg import config_of, named_as_published, pixels
from torch import Tensor

from promptseg.data.samples import IGNORE
from promptseg.models import catseg
from promptseg.models.catseg.keys import LAYOUTS
from promptseg.models.catseg.run import Batch, CatSegRun
from promptseg.models.catseg.tuning import tune
from promptseg.models.clipseg import Model
from promptseg.models.clipseg.batches import Example
from promptseg.models.clipseg.losses import mask_loss
from promptseg.models.clipseg.run import ClipSegRun
from promptseg.nn.conversion import to_official
from promptseg.training import recipe
from promptseg.training.loop import optimise
from promptseg.training.schedules import Cosine

HERE = Path(__file__).parent


def test_a_flipped_sign_in_the_loss_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def flipped(logits: Tensor, targets: Tensor) -> Tensor:
        return mask_loss(-logits, targets)

    case = Case(HERE / "clipseg" / "component_loss.json")
    assert all(found.passed for found in check.run(case))
    monkeypatch.setattr(runners_clipseg_training, "mask_loss", flipped)
    assert not any(found.passed for found in check.run(Case(case.path)))


class Stored(ClipSegRun):
    """Photos, examples, wordings and weights of a case in place of a data set's; all else is as in any run."""

    def __init__(self, case: Case) -> None:
        args, self.published = case.args, case.state_dict()
        self.model = Model.from_official(replace(config_of(args["config"]), dropout=args["dropout"]), self.published)
        shown = ([pixels(photo, args["input_size"])[0] for photo in args[name]] for name in ("images", "support"))
        self.examples = [
            Example(*of_one)
            for of_one in zip(next(shown), args["targets"], args["prompts"], next(shown), args["text_weights"].flatten(), strict=True)
        ]

    def example(self, number: int) -> Example:
        return self.examples[number % len(self.examples)]


def test_the_published_recipe_takes_the_published_first_steps(tmp_path: Path) -> None:
    """Rate, betas, decay and loss are the recipe's own; of its 20,000 steps only the first are taken."""
    case = Case(HERE / "clipseg" / "tiny_train_steps.json")
    run, published = Stored(case), recipe("clipseg/pc-plus")
    steps, results = case.args["steps"], dict[str, Any]()
    begun = replace(
        published, output=str(tmp_path), steps=steps, schedule=Cosine(minimum=1e-4, period=published.steps),
        batch_size=len(run.examples), precision="float32", workers=0,
    )  # fmt: skip
    optimise(begun, run, report=lambda step, figures: results.update({f"loss_{step}": figures["mask"]}))
    results |= {f"after/{name}": tensor for name, tensor in named_as_published(run.model.state_dict(), run.published).items()}
    checks = [found for found in case.compare(results) if found.name.startswith(("loss_", "after"))]
    assert len(checks) == steps + 8
    assert all(found.passed for found in checks), checks


class StoredCatSeg(CatSegRun):
    """As `Stored`, of a batch for CAT-Seg."""

    def __init__(self, case: Case) -> None:
        args, config = case.args, runners_catseg.config_of(case.args["config"])
        self.model = catseg.Model.from_official(config, case.state_dict())
        tune(self.model.train(), recipe("catseg/base").options.mode)
        self.names = runners_catseg.texts(args["classes"], args["prompt"])
        target = args["target"].repeat_interleave(args["target_repeat"], 1).repeat_interleave(args["target_repeat"], 2).long()
        labels = torch.where(target == args["ignore"], IGNORE, target)
        shown = [runners_catseg.clip_input(photo, None, config.side, args["config"]["size_divisibility"]) for photo in args["images"]]
        self.examples = [Batch(one, label[None]) for one, label in zip(shown, labels, strict=True)]

    def example(self, number: int) -> Batch:
        return self.examples[number % len(self.examples)]


def test_catsegs_published_recipe_takes_the_published_first_steps(tmp_path: Path) -> None:
    """Rates of the groups, decay, clipping and loss are the recipe's own; the case's cosine falls within 10 steps."""
    case = Case(HERE / "catseg" / "tiny_train_steps.json")
    run, published, steps = StoredCatSeg(case), recipe("catseg/base"), case.args["steps"]
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    begun = replace(
        published, output=str(tmp_path), steps=steps, schedule=Cosine(period=case.args["optimizer"]["max_iter"]),
        batch_size=len(run.examples), workers=0, validate_every=None,
    )  # fmt: skip
    results = dict[str, Any]()

    def note(step: int, figures: Mapping[str, float]) -> None:
        results.update({f"loss.{step}": figures["class"], f"lr_head.{step}": figures["rate"]})

    optimise(begun, run, report=note)
    change = {name: tensor - before[name] for name, tensor in run.model.state_dict().items()}
    results |= {f"change:{name}": tensor for name, tensor in to_official(LAYOUTS["official"], change).items()}
    checks = [found for found in case.compare(results) if found.name.startswith(("loss.", "lr_head.", "change:"))]
    assert len(checks) == 2 * steps + 9
    assert all(found.passed for found in checks), checks
