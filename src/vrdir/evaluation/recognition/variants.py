"""What an evaluation runs on: clean images, the conditions in which they are degraded, and what restores them.

An image is degraded and restored at its own size and rounded to 8 bits, as a file would hold it.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vrdir.data.pairs import check_synthesis, synthesised
from vrdir.errors import ImageError, first_line
from vrdir.images.convert import open_image
from vrdir.images.folders import ForeignPaths, Names, files_below
from vrdir.images.formats import IMAGE_SUFFIXES
from vrdir.restoring.restorer import Restorer

Pixels = np.ndarray[Any, np.dtype[np.uint8]]  # (H, W, 3), RGB
COMPANIONS = {
    "", ".bak", ".cache", ".cfg", ".csv", ".data", ".db", ".doc", ".docx", ".h5", ".html", ".ini", ".ipynb", ".json", ".jsonl",
    ".license", ".lock", ".log", ".mat", ".md", ".md5", ".names", ".npy", ".npz", ".onnx", ".parquet", ".pkl", ".pt", ".pth", ".py",
    ".rst", ".safetensors", ".sh", ".sha256", ".toml", ".tsv", ".txt", ".url", ".weights", ".xls", ".xlsx", ".xml", ".yaml", ".yml",
}  # fmt: skip
"""The suffixes of files that often lie beside images and are none."""
CLEAN = "clean"  # what the images are called that nothing was done to
AS_TAKEN = "as taken"  # and those of real bad weather, which have no clean twins


class Exclusion(NamedTuple):
    """What counts nowhere, and why."""

    name: str
    reason: str


class Item(NamedTuple):
    """A clean image: its file, and what it is called: the path below its data set, without the suffix."""

    name: str
    path: Path


class Variant(NamedTuple):
    """What was done to an image: a condition's name or "clean", and a restorer's name or "" for none."""

    condition: str
    restorer: str


class Folder:
    """Images found by the names of the clean ones.

    An image lies at <folder>/<name of the clean one>.*, with the folders of its data set, or at <folder>/<its last part>.*.

    Args:
        path: the folder.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise FileNotFoundError(f"there is no folder {path}")
        self.path = path
        self.files: dict[str, list[Path]] = {}
        for file in images_below(path):
            self.files.setdefault(file.relative_to(path).with_suffix("").as_posix(), []).append(
                file
            )
        self.names = Names(self.files)
        self.owners: dict[str, str] = {}  # of files that are found by their last part
        if not self.files:
            raise FileNotFoundError(f"there are no images in {path}")

    def find(self, item: Item) -> Path:
        """The file for a clean image. Raises ImageError where there is none, or several."""
        found = self.files.get(self.names.find(item.name), [])
        if not found:
            found = self.files.get(self.names.find(_last(item.name)), [])
            owner = self.owners.setdefault(_last(item.name), item.name)
            if found and owner != item.name:
                raise ImageError(
                    f"{found[0]} would belong to {owner} and to {item.name}; keep the folders of the data set"
                )
        if len(found) != 1:
            holds = " and ".join(path.name for path in found) if found else f"no {item.name}.*"
            raise ImageError(f"{self.path} holds {holds}; one image for each clean one is needed")
        return found[0]

    def compare(self, items: Sequence[Item], known: Iterable[str]) -> list[Exclusion]:
        """What lies in the folder and belongs to no image, or is of a type that is not read.

        Args:
            items: the clean images.
            known: names of images that are excluded already, or set aside.

        Raises:
            ValueError: nothing in it belongs to any image, or one file to several.
        """
        last = Counter(_last(item.name) for item in items)
        names = {self.names.find(name) for name in ({item.name for item in items} | set(last))}
        if names.isdisjoint(self.files):
            theirs, ours = (
                next(iter(self.files.values()))[0].name,
                items[0].path.name if items else "none",
            )
            raise ValueError(
                f"{self.path} has none of the data's names: it holds {theirs}, the data {ours}; give them the same stems"
            )
        for item in items:
            own, alone = self.names.find(item.name), self.names.find(_last(item.name))
            if own not in self.files and last[_last(item.name)] > 1 and alone in self.files:
                raise ValueError(
                    f"{self.path} holds one {_last(item.name)}.*, the data several; keep its folders, as in {item.name}.*"
                )
        for name in known:
            names |= {
                self.names.find(one) for one in (name, _last(name), _last(name).rpartition(".")[0])
            }  # with a suffix or without
        without = [
            path for name, paths in self.files.items() if name not in names for path in paths
        ]
        others = [Exclusion(str(self.path / one.name), one.reason) for one in not_taken(self.path)]
        return [
            Exclusion(str(path), "there is no clean image of this name") for path in without
        ] + others


class Condition:
    """One way in which images are degraded.

    >>> Condition("haze:severity=3")
    >>> Condition("foggy", folder=Path("photos/foggy"))

    Args:
        name: how it is called; without a folder also how it is synthesised, as `vrdir degrade --with` takes it.
        folder: where the degraded images lie, under the names of the clean ones; see `Folder`.

    Raises:
        ValueError: nothing can be synthesised by that text, or the name is "clean".
        FileNotFoundError: there is no such folder.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        if name in (CLEAN, AS_TAKEN):
            raise ValueError(
                f"clean images are always measured; call a condition anything but {CLEAN!r} and {AS_TAKEN!r}"
            )
        self.name = name
        self.folder = Folder(folder) if folder is not None else None
        if self.folder is None:
            check_synthesis(name)

    @property
    def synthetic(self) -> bool:
        """The degraded images are synthesised."""
        return self.folder is None

    def degraded(self, item: Item, clean: Tensor, seed: int) -> Tensor:
        """The degraded image of a clean one, (1, 3, H, W) in [0, 1] by 8 bits. Raises ImageError if it is not there or of another size."""
        if self.folder is None:
            return synthesised(clean, self.name, item.path, seed)
        path = self.folder.find(item)
        degraded = open_image(path).tensor
        if degraded.shape != clean.shape:
            raise ImageError(
                f"{path} is {_size(degraded)}, {item.path} is {_size(clean)}; an image and its degraded one have one size"
            )
        return degraded


class AsTaken(Condition):
    """The data's own images, taken in real bad weather: they have no clean twins, and are the only condition."""

    def __init__(self) -> None:
        self.name = AS_TAKEN
        self.folder = None

    @property
    def synthetic(self) -> bool:
        """They are not."""
        return False

    def degraded(self, item: Item, clean: Tensor, seed: int) -> Tensor:
        """The image itself."""
        return clean


Restore = Callable[[Item, str, Pixels], Pixels]

"""The restored image, given the clean one's item, the condition's name, and the pixels to restore."""


def by_network(restorer: Restorer) -> Restore:
    """Restored by running the network."""
    return lambda item, condition, image: as_it_came(image, restorer)


def as_it_came(image: Pixels, restore: Callable[[Pixels], Pixels]) -> Pixels:
    """Restored, grey where the image is grey, as a grey file would be."""
    grey = bool((image == image[..., :1]).all())
    return np.repeat(restore(image[..., :1]), 3, axis=2) if grey else restore(image)


def by_function(function: Callable[[Pixels], Any]) -> Restore:
    """Restored by any function of an image (H, W, 3), uint8, RGB, that returns one of the same kind."""
    return lambda item, condition, image: function(image)


class FromFolders:
    """Restored images that lie in files: <folder>/<condition's name>, and <folder>/clean, each as `Folder` has it; those of images
    `AsTaken` lie in <folder> itself.

    Raises:
        FileNotFoundError: a folder is missing or holds no images.
    """

    def __init__(self, folder: Path, conditions: Iterable[Condition]) -> None:
        names = [condition.name for condition in conditions]
        files = ForeignPaths()
        where = (
            {AS_TAKEN: folder}
            if AS_TAKEN in names
            else {name: files.find(folder, name) for name in (CLEAN, *names)}
        )
        self.folders = {name: Folder(path) for name, path in where.items()}

    def __call__(self, item: Item, condition: str, image: Pixels) -> Pixels:
        """The restored image. Raises ImageError if there is none."""
        return pixels_of(open_image(self.folders[condition].find(item)).tensor)


def load_restorer(spec: str, conditions: Iterable[Condition]) -> Restore:
    """A restorer by text: a folder of results, see `FromFolders`, or `module:function`, see `by_function`.

    Raises:
        FileNotFoundError, ValueError: there is no such folder, module or function.
    """
    if Path(spec).is_dir() or ":" not in spec:
        return FromFolders(Path(spec), conditions)
    return by_function(load_function(spec))


def load_function(spec: str) -> Callable[..., Any]:
    """A function by `module:function`; the module must be importable. Raises ValueError if it is not, or has no such function."""
    module, _, name = spec.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except (
        Exception,
        SystemExit,
    ) as error:  # a module of somebody else may raise anything, or be a script that ends itself
        raise ValueError(
            f"{spec}: {module!r} cannot be imported ({first_line(error)}); is its folder on PYTHONPATH?"
        ) from None
    if not callable(found):
        raise ValueError(f"{spec}: {module} has no function {name!r}")
    return found


class Source:
    """Every variant of every image, made when asked.

    Args:
        conditions: of different names; or `AsTaken` alone.
        restorers: by name; a `Restorer` is run by `by_network`.
        seed: of the synthesis.

    Raises:
        ValueError: two conditions of one name, `AsTaken` beside another, or a restorer without a name.
    """

    def __init__(
        self,
        conditions: Sequence[Condition],
        restorers: Mapping[str, Restore | Restorer],
        seed: int,
    ) -> None:
        names = [condition.name for condition in conditions]
        if len(set(names)) < len(names):
            raise ValueError(f"two conditions have one name: {', '.join(sorted(names))}")
        if AS_TAKEN in names and len(names) > 1:
            raise ValueError(
                "images as taken have no clean twins, so no other condition can be measured beside them"
            )
        if "" in restorers:
            raise ValueError("a restorer needs a name")
        self.conditions = {condition.name: condition for condition in conditions}
        self.restorers = {
            name: by_network(given) if isinstance(given, Restorer) else given
            for name, given in restorers.items()
        }
        self.seed = seed

    @property
    def shown(self) -> list[str]:
        """What the images are shown as: clean, if there are such, and under each condition."""
        return list(self.conditions) if AS_TAKEN in self.conditions else [CLEAN, *self.conditions]

    @property
    def variants(self) -> list[Variant]:
        """All of them: clean first, and in each condition the one that is not restored first."""
        return [
            Variant(condition, restorer)
            for condition in self.shown
            for restorer in ("", *self.restorers)
        ]

    @property
    def folders(self) -> list[Folder]:
        """Those in which images are looked for."""
        degraded = [
            condition.folder
            for condition in self.conditions.values()
            if condition.folder is not None
        ]
        restored = [
            one
            for given in self.restorers.values()
            if isinstance(given, FromFolders)
            for one in given.folders.values()
        ]
        return [*degraded, *restored]

    def images(self, item: Item) -> Iterator[tuple[Variant, Pixels]]:
        """The variants of an image, in the order of `variants`. Raises whatever opening or restoring raises."""
        clean = open_image(item.path).tensor
        for condition in self.shown:
            seen = (
                clean
                if condition == CLEAN
                else self.conditions[condition].degraded(item, clean, self.seed)
            )
            pixels = pixels_of(seen)
            yield (
                Variant(condition, ""),
                pixels.copy(),
            )  # a recogniser may write into what it is given
            for name in self.restorers:
                yield Variant(condition, name), self._restored(name, item, condition, pixels)

    def picture(self, item: Item, variant: Variant) -> Tensor:
        """One variant of an image, (3, H, W) in [0, 1]."""
        image = open_image(item.path).tensor
        if variant.condition != CLEAN:
            image = self.conditions[variant.condition].degraded(item, image, self.seed)
        if variant.restorer:
            restored = self._restored(variant.restorer, item, variant.condition, pixels_of(image))
            return torch.from_numpy(restored.copy()).movedim(-1, 0) / 255
        return image[0]

    def _restored(self, name: str, item: Item, condition: str, image: Pixels) -> Pixels:
        restored = self.restorers[name](
            item, condition, image.copy()
        )  # a function of somebody else may write into what it is given
        if (
            not isinstance(restored, np.ndarray)
            or restored.dtype != np.uint8
            or restored.shape != image.shape
        ):
            kind = (
                f"{restored.dtype} {restored.shape}"
                if isinstance(restored, np.ndarray)
                else type(restored).__name__
            )
            raise ImageError(
                f"{name} returned {kind} for an image of uint8 {image.shape} ({condition}); give back the same kind and size"
            )
        return restored


def images_below(folder: Path) -> list[Path]:
    """The images in a folder and all below it but hidden ones, sorted; linked folders are entered: data sets are often made of links."""
    return sorted(files_below(folder, unreadable=lambda error: None))


class _NotTaken:
    """The suffixes of files that may hold images but are not read; what mostly lies beside images is none of them."""

    def __contains__(self, suffix: object) -> bool:
        return suffix not in IMAGE_SUFFIXES and suffix not in COMPANIONS


def not_taken(folder: Path) -> list[Exclusion]:
    """The files below a folder whose type is not read."""
    files = sorted(files_below(folder, _NotTaken(), unreadable=lambda error: None))
    names = [(file.relative_to(folder).as_posix(), file.suffix) for file in files]
    return [
        Exclusion(
            name, f"a file of a type that is not read: {suffix or 'no suffix'}; save images as PNG"
        )
        for name, suffix in names
    ]


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def pixels_of(image: Tensor) -> Pixels:
    """(1, 3, H, W) in [0, 1] -> (H, W, 3), rounded to 8 bits."""
    return (image[0] * 255).round().byte().movedim(0, -1).cpu().numpy()


def _size(image: Tensor) -> str:
    return f"{image.shape[3]} x {image.shape[2]} pixels"
