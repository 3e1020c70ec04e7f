"""Orders and choices that depend on their key alone."""

from __future__ import annotations

import numpy as np

from promptseg.data.randomness import Epochs, shuffled


def test_every_epoch_shows_everything_once_in_its_own_order() -> None:
    place, again = Epochs(7, 3), Epochs(7, 3)
    seen = [place(number) for number in range(21)]
    assert [epoch for epoch, _ in seen] == [number // 7 for number in range(21)]
    orders = [[index for epoch, index in seen if epoch == one] for one in range(3)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert [again(number) for number in np.random.default_rng(0).permutation(21).tolist()] == [
        seen[number] for number in np.random.default_rng(0).permutation(21).tolist()
    ]
    assert orders[1] == shuffled(range(7), 3, 1)
    assert orders != [[index for _, index in map(Epochs(7, 4), range(start, start + 7))] for start in (0, 7, 14)]
