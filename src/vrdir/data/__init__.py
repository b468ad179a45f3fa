"""Data for training and validation: pair lists, public data sets, training crops."""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.data.batches import Batch
    from vrdir.data.items import Item, items_of
    from vrdir.data.pairs import Pair, checked_pairs, open_pair, read_pairs, write_pairs
    from vrdir.data.public_datasets import RULES, match
    from vrdir.data.training_set import TrainingSet
    from vrdir.data.validation_set import ValidationSet

__all__ = [
    "RULES",
    "Batch",
    "Item",
    "Pair",
    "TrainingSet",
    "ValidationSet",
    "checked_pairs",
    "items_of",
    "match",
    "open_pair",
    "read_pairs",
    "write_pairs",
]

_HOMES = {
    "Batch": "vrdir.data.batches",
    "Item": "vrdir.data.items",
    "Pair": "vrdir.data.pairs",
    "RULES": "vrdir.data.public_datasets",
    "TrainingSet": "vrdir.data.training_set",
    "ValidationSet": "vrdir.data.validation_set",
    "checked_pairs": "vrdir.data.pairs",
    "items_of": "vrdir.data.items",
    "match": "vrdir.data.public_datasets",
    "open_pair": "vrdir.data.pairs",
    "read_pairs": "vrdir.data.pairs",
    "write_pairs": "vrdir.data.pairs",
}

__getattr__, _ = offer(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
