"""Restore millions of images in object storage, on one machine or a Ray cluster."""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.cluster.account import Account, Row
    from vrdir.cluster.datasets import map_in_pandas, restore
    from vrdir.cluster.run import restore_addresses

__all__ = ["Account", "Row", "map_in_pandas", "restore", "restore_addresses"]

_HOMES = {
    "Account": "vrdir.cluster.account",
    "Row": "vrdir.cluster.account",
    "map_in_pandas": "vrdir.cluster.datasets",
    "restore": "vrdir.cluster.datasets",
    "restore_addresses": "vrdir.cluster.run",
}

__getattr__, _ = offer(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
