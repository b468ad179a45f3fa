"""FrontEnd: whatever a recogniser is called with, its images restored."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, fx, nn

from vrdir.errors import ImageError
from vrdir.export.exported_model import ExportedModel
from vrdir.frontend.normalisation import Normalisation
from vrdir.images.convert import OVERSHOOT, open_image, overshoots_only
from vrdir.images.sixteen_bits import DeepPicture
from vrdir.model.blocks import placed
from vrdir.model.control import ALL, Control
from vrdir.model.vrdir import VRDIR, Restoration, check_result, clean_threshold
from vrdir.restoring.borders import joined_veils, restore_inside
from vrdir.restoring.loading import network_of
from vrdir.restoring.restorer import Restorer
from vrdir.restoring.strips import CPU_PIXELS, WHOLE_PIXELS, restore_in_strips

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

MASK_KEY = (
    "pixel_mask"  # of what is valid in a padded batch, as Hugging Face's detectors are given it
)
PIXELS_KEY = "pixel_values"  # Hugging Face's
IMAGE_KEYS = (
    PIXELS_KEY,
    "image",
    "images",
    "img",
    "source",
    "input",
    "inputs",
    "x",
)  # what recognisers call their images


class KeepsTypes(nn.Module):
    """A module whose parameters follow devices and layouts, but keep their types."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `to`, `half`, `cuda` and their like come down to."""

        def keep_type(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_type, recurse)  # type: ignore[no-untyped-call]


class FrontEnd(KeepsTypes):
    """Restores the images in a recogniser's input and gives back an input of the same structure.

    It keeps nothing about an image, so threads may share one. The network stays float32 and, unless it trains, in
    evaluation mode, whatever `half`, `to`, `train` or autocast ask of the whole: its Fourier transform needs the precision.

    Args:
        restorer: the network. It is frozen in place; with `trains` all of it but its extractor is unfrozen instead.
        normalisation: what the recogniser's tensors are; pictures (PIL, paths, arrays of integers) need none.
        declared: whether somebody says so; if it is only taken for granted, the first tensor that needs it brings a warning.
        skip_clean: as in `VRDIR.restore`.
        trains: whether gradients reach the network's parameters. They reach the input in any case.
        control: how strongly to restore, and of what.
        borders: set borders of one colour aside, such as a letterbox, and put them back.
        hook: called after each restoration with a `Restoration` (image, guidance, shares), in the thread that restores; not
            while the model is traced.
    """

    def __init__(
        self,
        restorer: VRDIR,
        normalisation: Normalisation = Normalisation(),  # noqa: B008 - immutable
        *,
        declared: bool = True,
        skip_clean: bool | float = False,
        trains: bool = False,
        hook: Callable[[Restoration], None] | None = None,
        control: Control = ALL,
        borders: bool = True,
    ) -> None:
        super().__init__()
        self.control, self.borders = control, borders
        clean_threshold(skip_clean, restorer.config)  # now, not at the first image
        self.restorer = restorer.requires_grad_(trains)
        self.restorer.extractor.requires_grad_(False)
        self.normalisation, self.skip_clean, self.trains, self.hook = (
            normalisation,
            skip_clean,
            trains,
            hook,
        )
        self._declared, self._checked = declared, False
        self.train(self.training)

    def train(self, mode: bool = True) -> FrontEnd:
        return super().train(mode and self.trains)

    def forward(self, batch: Any, mask: Any = None) -> Any:
        """Restore the images in `batch`; the structure, types, sizes and value ranges stay.

        Args:
            batch: a tensor (B, 3, H, W) or (3, H, W), uint8 or floating point, normalised as declared; an array likewise, or
                channels last; a PIL image, or the path of a file, which becomes one; a list or tuple of these, of any sizes,
                restored one by one; or a mapping that holds them under a name such as `pixel_values` or `image`.
            mask: of a padded batch, (B, H, W) or (H, W), not 0 where an image is; a mapping may hold it under `pixel_mask`.
                Each image is then restored on the rectangle around what is valid, alone; all else stays bit for bit.

        Raises:
            ValueError: it is none of these, of another size than the mask, or its values are out of range for the normalisation
                declared.
            ArithmeticError: what the network makes of it is not finite.
            RuntimeError: a mask under torch.export or torch.compile, which know no sizes that depend on the data.
        """
        if isinstance(batch, fx.Proxy):  # torch.fx cannot look inside, and need not
            module = batch.tracer.path_of_module(self)  # type: ignore[attr-defined]
            return batch.tracer.create_proxy("call_module", module, (batch, mask), {})
        if mask is not None:
            return self._masked(batch, mask)
        if isinstance(batch, Tensor):
            return batch if batch.ndim == 4 and batch.shape[0] == 0 else self._tensor(batch)
        if isinstance(batch, np.ndarray):
            return batch if batch.ndim == 4 and batch.shape[0] == 0 else self._array(batch)
        if isinstance(batch, (str, Path)):
            return self._file(str(batch))
        if isinstance(batch, (Image.Image, DeepPicture)):
            return _for_recognisers(self._picture(batch))
        if isinstance(batch, Mapping):
            restored: Any = copy.copy(batch)
            key = image_key(batch)
            restored[key] = self(batch[key], batch.get(MASK_KEY))
            return restored
        if hasattr(batch, "tensors") and hasattr(
            batch, "mask"
        ):  # DETR's own; its mask marks the padding
            restored = copy.copy(batch)
            restored.tensors = self(batch.tensors, None if batch.mask is None else ~batch.mask)
            return restored
        if isinstance(batch, (list, tuple)):
            images = [self(image) for image in batch]
            return batch._make(images) if hasattr(batch, "_make") else type(batch)(images)
        raise ValueError(
            f"cannot find images in a {type(batch).__name__}; give a tensor (B, 3, H, W) or (3, H, W), an array, PIL images, "
            "a list of them, or a mapping that holds them as pixel_values or image"
        )

    def _masked(self, batch: Any, mask: Any) -> Any:
        if torch.compiler.is_compiling():
            raise RuntimeError(
                f"{MASK_KEY} decides by what is in the batch, which torch.export and torch.compile cannot; leave it out"
            )
        if isinstance(batch, (list, tuple)):
            return [self(image, one) for image, one in zip(batch, mask, strict=True)]
        if isinstance(batch, np.ndarray):
            with torch.no_grad():
                return self._masked(_tensor_of(batch), mask).numpy()
        if not isinstance(batch, Tensor):
            raise ValueError(
                f"a {MASK_KEY} belongs to a tensor or an array of images, not to a {type(batch).__name__}"
            )
        valid = torch.as_tensor(mask, device=batch.device) != 0
        if valid.shape != (*batch.shape[:-3], *batch.shape[-2:]):
            raise ValueError(
                f"the {MASK_KEY} of images {tuple(batch.shape)} is (B, H, W), not {tuple(valid.shape)}"
            )
        if batch.ndim == 3:
            return self._masked(batch[None], valid[None])[0]
        result, rectangles = batch.clone(), [_around(one) for one in valid]
        for (rows, columns), alike in groupby(range(len(batch)), rectangles.__getitem__):
            run = list(alike)
            images = slice(run[0], run[-1] + 1)
            part = batch[images, :, rows, columns]
            if part.numel():
                inside = valid[images, None, rows, columns]
                result[images, :, rows, columns] = torch.where(inside, self._tensor(part), part)
        return result

    def _tensor(self, values: Tensor) -> Tensor:
        if values.ndim not in (3, 4) or values.shape[-3] != 3:
            hint = "; it looks like (H, W, 3): permute it" if values.shape[-1] == 3 else ""
            raise ValueError(
                f"a recogniser's image tensor is (B, 3, H, W) or (3, H, W), not {tuple(values.shape)}{hint}"
            )
        if values.dtype != torch.uint8 and not values.dtype.is_floating_point:
            raise ValueError(
                f"image tensors are uint8 or floating point, not {str(values.dtype).removeprefix('torch.')}"
            )
        if not (self._declared or _is_integer(values) or torch.compiler.is_compiling()):
            self._declared = True
            logger.warning(
                "nothing says how this recogniser's tensors are normalised, so they are taken for RGB in [0, 1]; a wrong guess need not "
                "show: declare it in restore_before, by mean= and std=, range=255, preprocessing=; or range=1 where it is right"
            )
        # Integers come before any normalisation, whatever is declared for what the recogniser is given in floating point.
        normalisation = (
            Normalisation(range=(0, 255), channels=self.normalisation.channels)
            if _is_integer(values)
            else self.normalisation
        )
        image = normalisation.undo(values.to(self._device(values.device), torch.float32))
        if not torch.compiler.is_compiling() and (image.is_cpu or not self._checked):
            self._checked = _check_range(image, normalisation)
        image = image.clamp(0, 1).reshape(-1, *values.shape[-3:])
        gradients = torch.is_grad_enabled() and (values.requires_grad or self.trains)
        restored = self._restore(
            image, in_bands=not gradients and (image.is_cpu or len(image) == 1)
        )
        if restored is image:  # all of them clean: not even rounded
            return values
        result = normalisation.redo(restored.reshape(values.shape))
        return (result.round() if _is_integer(values) else result).to(values.device, values.dtype)

    def _restore(self, image: Tensor, in_bands: bool = False) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> the same; the same object if nothing was to be done. In bands, if large, they take little memory."""
        if torch.compiler.is_compiling():  # sizes may be symbols, and nothing may be called back
            with _without_autocast(image.device):
                return self.restorer.restore(image, self.skip_clean, control=self.control).image
        at_once = (
            max(1, CPU_PIXELS // (image.shape[-2] * image.shape[-1]))
            if image.is_cpu
            else len(image)
        )
        pieces = image.split(at_once)
        large = image.shape[-2] * image.shape[-1] > WHOLE_PIXELS
        network = (
            partial(restore_in_strips, self.restorer)
            if in_bands and large
            else self.restorer.restore
        )
        restore = partial(network, skip_clean=self.skip_clean, control=self.control)
        captured = (
            image.is_cuda and torch.cuda.is_current_stream_capturing()
        )  # a captured graph cannot be waited for
        with _without_autocast(image.device):
            restorations = [
                restore_inside(piece, restore, self.restorer.config.multiple)
                if self.borders and not captured
                else restore(piece)
                for piece in pieces
            ]
        restoration = restorations[0] if len(pieces) == 1 else joined(restorations)
        if all(r.image is piece for r, piece in zip(restorations, pieces, strict=True)):
            restoration = restoration._replace(image=image)
        if not captured:
            check_result(restoration.image, restoration.shares)
        if self.hook is not None:
            self.hook(restoration)
        return restoration.image

    def _array(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if array.ndim == 2 and not np.issubdtype(array.dtype, np.integer):
            raise ValueError(
                f"a recogniser's image array is (B, 3, H, W), (3, H, W) or (H, W, 3), not {array.shape}"
            )
        channels_first = array.ndim > 2 and array.shape[-3] == 3 and array.shape[-1] != 3
        if not channels_first and np.issubdtype(array.dtype, np.integer):
            return self._picture(array)
        ordered = array if channels_first else np.moveaxis(array, -1, -3)
        with torch.no_grad():
            restored = self(_tensor_of(ordered)).numpy()
        return np.ascontiguousarray(restored if channels_first else np.moveaxis(restored, -3, -1))

    def _file(self, path: str) -> Any:
        if path.startswith(("http://", "https://", "data:")):
            raise ValueError(
                f"{path[:80]} is not fetched from here; open the image and pass it as a PIL image"
            )
        picture = _for_recognisers(self._picture(path))
        picture.filename = path  # some recognisers report it
        return picture

    def _picture(self, picture: Any) -> Any:
        opened = open_image(picture, self.normalisation.channels)
        with torch.no_grad():
            image = opened.tensor.to(self._device(opened.tensor.device))
            restored = self._restore(image, in_bands=image.is_cpu or len(image) == 1)
        return opened.close(restored)

    def _device(self, given: torch.device) -> torch.device:
        """Where the network is; a replica of torch.nn.DataParallel, which lists no parameters, is where its images are."""
        parameter = next(self.restorer.parameters(), None)
        return given if parameter is None else parameter.device


def _tensor_of(array: np.ndarray[Any, Any]) -> Tensor:
    """The array, C-contiguous and in this machine's byte order, which torch takes, and writeable, without which it warns."""
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))


def _around(valid: Tensor) -> tuple[slice, slice]:
    """The rows and columns of the smallest rectangle that holds all that is true in (H, W)."""
    rows, columns = (valid.any(axis).nonzero().flatten().tolist() or [0, -1] for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Switch autocast off, whoever has switched it on: it is meant for the recogniser."""
    return (
        torch.autocast(device.type, enabled=False)
        if torch.amp.is_autocast_available(device.type)
        else nullcontext()
    )


def _for_recognisers(picture: Any) -> Any:
    """A PIL picture, whatever it came as: none of them knows those of 16 bits per channel."""
    return picture.reduced() if isinstance(picture, DeepPicture) else picture


def _is_integer(values: Tensor) -> bool:
    return values.dtype == torch.uint8


def _check_range(image: Tensor, normalisation: Normalisation) -> bool:
    """Raise ValueError if undoing the normalisation left no image. Whether it is beyond doubt: nothing but a little overshoot."""
    low, high = (float(v) for v in image.detach().aminmax())
    if not overshoots_only(image, low, high):
        raise ImageError(
            f"the recogniser's input goes from {low:.3g} to {high:.3g} once its normalisation is undone, which should give an image in "
            f"[0, 1]. It was taken for {normalisation}; declare what the recogniser is really given: mean=, std=, range=, channels="
        )
    return low >= -OVERSHOOT and high <= 1 + OVERSHOOT


def joined(restorations: list[Restoration]) -> Restoration:
    """Those of the parts of a batch as one."""
    images, guidance, shares, veils = zip(*restorations, strict=True)
    maps = [torch.cat(parts) for parts in zip(*guidance, strict=True)] if all(guidance) else []
    return Restoration(torch.cat(images), maps, torch.cat(shares), joined_veils(veils))


def image_key(batch: Mapping[Any, Any]) -> Any:
    """The name under which a mapping holds its images. Raises ValueError if it has none that is known."""
    for key in IMAGE_KEYS:
        if key in batch:
            return key
    raise ValueError(
        f"no images under any of {', '.join(IMAGE_KEYS)} among {', '.join(map(str, batch)) or 'nothing'}"
    )


def load_network(weights: str | Path | VRDIR | Restorer, device: torch.device) -> VRDIR:
    """The restoration network on a device; a given one is moved there. Raises ValueError for one that is exported or not in float32."""
    if isinstance(weights, Restorer) and weights.precision != "float32":
        raise ValueError(
            f"a front-end computes in float32; give it a Restorer of that precision, not {weights.precision}, or the weights"
        )
    network = weights.model if isinstance(weights, Restorer) else weights
    if isinstance(network, ExportedModel):
        raise ValueError(
            "a front-end runs with backend torch, since gradients pass through it; give it the weights, not the exported file"
        )
    return placed(network_of(network), device)
