"""The catalogue of models and everything between a stranger's weight file and a ready network. Importing it imports no torch.

cards(), known(name), card(name), config(name) what there is
weights(name), here(name), size_on_disk(name), pull(name)        where the weights are, and getting them
load(name_or_path, card=None)                  a network and its card
from_official(card, *state_dicts), to_official(model, layout)    published tensor names, both ways, strictly
convert(files, card, output), save_folder, load_folder, card_of  our folder format
read_weights(path)                             any weight file as names and tensors, without running anything of it
verify(name), can_verify(name)                 are these the published weights? is anything published to tell it by?
"""

from __future__ import annotations

from .catalogue import card, cards, config, known
from .checkpoints import card_of, convert, from_official, load_files, load_folder, save_folder, to_official
from .hub import pull
from .locations import here, how_to_get, load, own_folder, size_on_disk, weights
from .reading import read_weights
from .verification import Check, Verification, can_verify, verify

__all__ = [
    "Check",
    "Verification",
    "can_verify",
    "card",
    "card_of",
    "cards",
    "config",
    "convert",
    "from_official",
    "here",
    "how_to_get",
    "known",
    "load",
    "load_files",
    "load_folder",
    "own_folder",
    "pull",
    "read_weights",
    "save_folder",
    "size_on_disk",
    "to_official",
    "verify",
    "weights",
]
