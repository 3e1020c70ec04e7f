"""Which names a training photo is asked for: some that it shows, some that it does not, the hard ones first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from ...data.asked_crops import TrainingPhoto
from .vocabulary import ELSEWHERE, RARE_WITH_PEOPLE, overlapping

RELATED = 0.45  # cosine from which a name may be a kind of, or a part of, what a photo of one class shows
HARDNESS_NOISE = 0.12  # of the draw among absent names, in units of cosine


class Asking:
    """Chooses K names for a photo. ``vectors``: unit vector of every name; absent names near to what is shown are the hard ones."""

    def __init__(self, photos: Sequence[TrainingPhoto], vectors: Mapping[str, Tensor], prompts: int) -> None:
        self.prompts = prompts
        self.counts: dict[str, int] = {}
        for photo in photos:
            for name in photo.names:
                self.counts[name] = self.counts.get(name, 0) + 1
        self.rows = {name: row for row, name in enumerate(vectors)}
        matrix = np.stack([vector.numpy() for vector in vectors.values()])
        self.similarity = matrix @ matrix.T
        classes = {name for photo in photos if photo.source == "imagenet" for name in photo.names}
        self.elsewhere = {"coco": (), "coco_person": RARE_WITH_PEOPLE, "imagenet": tuple(sorted(classes | set(ELSEWHERE)))}

    def __call__(
        self,
        photo: TrainingPhoto,
        names: Sequence[str],
        left: Sequence[int],
        shown: Sequence[int],
        absent: set[str],
        rng: np.random.Generator,
    ) -> tuple[tuple[str, ...], tuple[int | None, ...]]:
        """K names and, for each, the index of its mask in ``names`` or None. ``left``: the masks of which the crop holds anything;
        ``shown``: those of which it holds enough to ask for.

        One to K/2 + 1 places are for what is there; a photo with fewer names is asked again for the same ones, which the caller words
        differently. Half of the absent names are hard, half any.
        """
        places = int(rng.integers(1, self.prompts // 2 + 2)) if shown else 0
        picked = rng.choice(shown, min(places, len(shown)), replace=False).tolist() if shown else []
        truth: list[int | None] = [picked[i % len(picked)] for i in range(places)]
        denied = self._denied(photo, [names[m] for m in left], absent, rng)[: self.prompts - places]
        asked = [names[m] for m in truth if m is not None] + denied
        truth += [None] * len(denied)
        while len(asked) < self.prompts:  # few names can be denied here: ask again for any of those chosen
            again = int(rng.integers(len(asked)))
            asked.append(asked[again])
            truth.append(truth[again])
        return tuple(asked), tuple(truth)

    def _denied(self, photo: TrainingPhoto, names: Sequence[str], absent: set[str], rng: np.random.Generator) -> list[str]:
        """All names that are surely not there, in the order in which to ask for them: a hard one, any one, a hard one, ..."""
        missing = self._missing(photo, names, absent)
        if not missing:
            return []
        order = rng.permutation(len(missing)).tolist()
        if names:
            near = self.similarity[np.ix_([self.rows[name] for name in names], [self.rows[name] for name in missing])].max(0)
            hard = np.argsort(-(near + rng.gumbel(size=len(missing)) * HARDNESS_NOISE)).tolist()
            order = [i for pair in zip(hard, order, strict=True) for i in pair]
        return [missing[i] for i in dict.fromkeys(order)]

    def _missing(self, photo: TrainingPhoto, names: Sequence[str], absent: set[str]) -> list[str]:
        result = {name for name in absent if not any(overlapping(name, there, photo.distinct) for there in names)}
        shown = [self.rows[name] for name in names]
        for name in self.elsewhere.get(photo.source, ELSEWHERE):
            if name in result or any(overlapping(name, there, False) for there in names):
                continue
            if photo.source == "imagenet" and shown and self.similarity[self.rows[name], shown].max() > RELATED:
                continue
            result.add(name)
        return sorted(result)
