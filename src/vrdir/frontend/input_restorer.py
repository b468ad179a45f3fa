"""InputRestorer: restore the images in a recogniser's input and keep everything else unchanged."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, fx

from vrdir.errors import ImageError, InputError, TracingError
from vrdir.frontend.batch_restoration import autocast_disabled, restore_batch
from vrdir.frontend.image_arguments import MASK_KEY, image_key
from vrdir.frontend.network import KeepsDtypes
from vrdir.frontend.normalisation import Normalisation
from vrdir.images.convert import open_image
from vrdir.images.open_arrays import OVERSHOOT, overshoots_only
from vrdir.images.sixteen_bits import DeepPicture
from vrdir.model.checks import check_result
from vrdir.model.clean_images import clean_threshold
from vrdir.model.control import ALL, Control
from vrdir.model.vrdir import VRDIR, Restoration

logger = logging.getLogger(__name__)

UNDECLARED = (
    "it is not known how this recogniser's tensors are normalised, so RGB in [0, 1] is assumed; "
    "a wrong guess need not cause an error: declare it in restore_before, with mean= and std=, "
    "range=255 or preprocessing=; or with range=1 if [0, 1] is right"
)


class InputRestorer(KeepsDtypes):
    """Restore the images in a recogniser's input and return an input of the same structure.

    It keeps no state of an image, so several threads may use it. The network stays in float32 and,
    unless it trains, in evaluation mode, even if the model around it uses `half`, `to`, `train` or
    autocast.

    Args:
        restorer: the network. It is frozen in place; with `trains` everything except its extractor
            is unfrozen instead.
        normalisation: how the recogniser's tensors are normalised. Pictures (PIL, paths, integer
            arrays) need none.
        declared: whether `normalisation` is known. If it is only assumed, the first tensor that
            depends on it logs a warning.
        skip_clean: as in `VRDIR.restore`.
        trains: whether gradients reach the network's parameters. They reach the input in any case.
        hook: called after each restoration with a `Restoration` (image, guidance, shares), in the
            thread that restores, but not while the model is compiled or exported.
        control: how strongly to restore, and which degradations.
        borders: set borders of one colour aside, such as a letterbox, and put them back.

    Raises:
        InputError: `skip_clean` is out of range, or the network has no clean branch.
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
        clean_threshold(skip_clean, restorer.config)  # fail now, not at the first image
        self.restorer = restorer.requires_grad_(trains)
        self.restorer.extractor.requires_grad_(False)
        self.normalisation, self.hook = normalisation, hook
        self.skip_clean, self.control, self.borders = skip_clean, control, borders
        self.trains = trains
        self._declared, self._range_is_sure = declared, False
        self.train(self.training)

    def train(self, mode: bool = True) -> InputRestorer:
        """Set training mode, if the network trains at all."""
        return super().train(mode and self.trains)

    def forward(self, batch: Any, mask: Any = None) -> Any:
        """Restore the images in `batch`. Structure, types, sizes and value ranges stay the same.

        Args:
            batch: one of

                - a tensor (B, 3, H, W) or (3, H, W), uint8 or floating point, normalised as
                  declared;
                - an array of these shapes, or with the channels last;
                - a PIL image, or the path of an image file, which becomes a PIL image;
                - a list or tuple of these, of any sizes, restored one by one;
                - a mapping that contains one of these under a name such as `pixel_values` or
                  `image`;
                - DETR's pair of `tensors` and `mask`.
            mask: of a padded batch, (B, H, W) or (H, W), not 0 where an image is; a mapping may
                hold it under `pixel_mask`. Each image is then restored alone, on the smallest
                rectangle around its valid pixels. All other pixels stay the same bit for bit.

        Raises:
            InputError: the batch is none of these, or the mask has another size.
            ImageError: an image is damaged, or its values are out of range for the normalisation.
            ResultError: the network's result is not finite.
            TracingError: a mask under torch.export or torch.compile.
        """
        if isinstance(batch, fx.Proxy):  # torch.fx records one node and does not look inside
            module = batch.tracer.path_of_module(self)  # type: ignore[attr-defined]
            return batch.tracer.create_proxy("call_module", module, (batch, mask), {})
        if mask is not None:
            return self._masked(batch, mask)
        if isinstance(batch, (Tensor, np.ndarray)):
            if batch.ndim == 4 and batch.shape[0] == 0:
                return batch
            return self._tensor(batch) if isinstance(batch, Tensor) else self._array(batch)
        if isinstance(batch, (str, Path)):
            return self._file(str(batch))
        if isinstance(batch, (Image.Image, DeepPicture)):
            return _as_pil(self._picture(batch))
        return self._container(batch)

    def _container(self, batch: Any) -> Any:
        """Restore the images in a mapping, a sequence, or DETR's pair of tensors and mask."""
        if isinstance(batch, Mapping):
            restored: Any = copy.copy(batch)
            key = image_key(batch)
            restored[key] = self(batch[key], batch.get(MASK_KEY))
            return restored
        if hasattr(batch, "tensors") and hasattr(batch, "mask"):
            restored = copy.copy(batch)
            # DETR's own mask is true where the padding is.
            restored.tensors = self(batch.tensors, None if batch.mask is None else ~batch.mask)
            return restored
        if isinstance(batch, (list, tuple)):
            images = [self(image) for image in batch]
            return batch._make(images) if hasattr(batch, "_make") else type(batch)(images)
        raise InputError(
            f"cannot find images in a {type(batch).__name__}; pass a tensor (B, 3, H, W) or (3, H, "
            "W), an array, PIL images, a list of them, or a mapping that contains them as "
            "pixel_values or image"
        )

    def _masked(self, batch: Any, mask: Any) -> Any:
        """Restore each image of a padded batch on the rectangle around its valid pixels."""
        if torch.compiler.is_compiling():
            raise TracingError(
                f"a {MASK_KEY} makes the work depend on the data, which torch.export and "
                "torch.compile do not support; remove it"
            )
        if isinstance(batch, (list, tuple)):
            return [self(image, one) for image, one in zip(batch, mask, strict=True)]
        if isinstance(batch, np.ndarray):
            with torch.no_grad():
                return self._masked(_tensor_of(batch), mask).numpy()
        if not isinstance(batch, Tensor):
            raise InputError(
                f"a {MASK_KEY} needs a tensor or an array of images, not a {type(batch).__name__}"
            )
        valid = torch.as_tensor(mask, device=batch.device) != 0
        if valid.shape != (*batch.shape[:-3], *batch.shape[-2:]):
            raise InputError(
                f"the {MASK_KEY} of images {tuple(batch.shape)} must be (B, H, W), not "
                f"{tuple(valid.shape)}"
            )
        if batch.ndim == 3:
            return self._masked(batch[None], valid[None])[0]
        return self._rectangles(batch, valid)

    def _rectangles(self, batch: Tensor, valid: Tensor) -> Tensor:
        """Restore (B, 3, H, W) where (B, H, W) is true; consecutive equal rectangles together."""
        result, rectangles = batch.clone(), [_rectangle_around(one) for one in valid]
        for (rows, columns), numbers in groupby(range(len(batch)), rectangles.__getitem__):
            run = list(numbers)
            images = slice(run[0], run[-1] + 1)
            part = batch[images, :, rows, columns]
            if part.numel():
                inside = valid[images, None, rows, columns]
                result[images, :, rows, columns] = torch.where(inside, self._tensor(part), part)
        return result

    def _tensor(self, values: Tensor) -> Tensor:
        """Restore (B, 3, H, W) or (3, H, W) values in the recogniser's normalisation."""
        _check_tensor(values)
        integer = values.dtype == torch.uint8
        if not (self._declared or integer or torch.compiler.is_compiling()):
            self._declared = True
            logger.warning(UNDECLARED)
        # uint8 comes before any normalisation, whatever is declared for floating point.
        channels = self.normalisation.channels
        normalisation = (
            Normalisation(range=(0, 255), channels=channels) if integer else self.normalisation
        )
        image = normalisation.undo(values.to(self._device(values.device), torch.float32))
        if not torch.compiler.is_compiling() and (image.is_cpu or not self._range_is_sure):
            self._range_is_sure = _check_range(image, normalisation)
        image = image.clamp(0, 1).reshape(-1, *values.shape[-3:])
        differentiable = torch.is_grad_enabled() and (values.requires_grad or self.trains)
        restored = self._restore(image, differentiable)
        if restored is image:  # all are clean: return them without any rounding
            return values
        result = normalisation.redo(restored.reshape(values.shape))
        return (result.round() if integer else result).to(values.device, values.dtype)

    def _restore(self, image: Tensor, differentiable: bool = False) -> Tensor:
        """Restore (B, 3, H, W) in [0, 1]; return the argument itself if nothing was changed."""
        if torch.compiler.is_compiling():  # sizes may be symbols, and no hook may be called
            with autocast_disabled(image.device):
                return self.restorer.restore(image, self.skip_clean, control=self.control).image
        # While a CUDA graph is captured, nothing may wait for a result.
        captured = image.is_cuda and torch.cuda.is_current_stream_capturing()
        restoration = restore_batch(
            self.restorer,
            image,
            skip_clean=self.skip_clean,
            control=self.control,
            borders=self.borders and not captured,
            differentiable=differentiable,
        )
        if not captured:
            check_result(restoration.image, restoration.shares)
        if self.hook is not None:
            self.hook(restoration)
        return restoration.image

    def _array(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        integer = np.issubdtype(array.dtype, np.integer)
        if array.ndim == 2 and not integer:
            raise InputError(
                "a recogniser's image array must be (B, 3, H, W), (3, H, W) or (H, W, 3), "
                f"not {array.shape}"
            )
        channels_first = array.ndim > 2 and array.shape[-3] == 3 and array.shape[-1] != 3
        if not channels_first and integer:
            return self._picture(array)
        ordered = array if channels_first else np.moveaxis(array, -1, -3)
        with torch.no_grad():
            restored = self(_tensor_of(ordered)).numpy()
        return np.ascontiguousarray(restored if channels_first else np.moveaxis(restored, -3, -1))

    def _file(self, path: str) -> Any:
        if path.startswith(("http://", "https://", "data:")):
            raise InputError(
                f"{path[:80]} is an address, which is not downloaded; open the image and pass it "
                "as a PIL image"
            )
        picture = _as_pil(self._picture(path))
        picture.filename = path  # some recognisers report it
        return picture

    def _picture(self, picture: Any) -> Any:
        opened = open_image(picture, self.normalisation.channels)
        with torch.no_grad():
            return opened.close(self._restore(opened.tensor.to(self._device(opened.tensor.device))))

    def _device(self, given: torch.device) -> torch.device:
        """Return the network's device.

        A replica of torch.nn.DataParallel lists no parameters; its device is that of its images.
        """
        parameter = next(self.restorer.parameters(), None)
        return given if parameter is None else parameter.device


def _check_tensor(values: Tensor) -> None:
    """Raise InputError for a tensor of the wrong shape or dtype."""
    if values.ndim not in (3, 4) or values.shape[-3] != 3:
        hint = "; it looks like (H, W, 3): permute it" if values.shape[-1] == 3 else ""
        raise InputError(
            "a recogniser's image tensor must be (B, 3, H, W) or (3, H, W), "
            f"not {tuple(values.shape)}{hint}"
        )
    if values.dtype != torch.uint8 and not values.dtype.is_floating_point:
        raise InputError(
            "image tensors must be uint8 or floating point, not "
            f"{str(values.dtype).removeprefix('torch.')}"
        )


def _check_range(image: Tensor, normalisation: Normalisation) -> bool:
    """Raise ImageError if undoing the normalisation did not give an image in [0, 1].

    Returns:
        Whether the range is certain: within [0, 1], up to a little overshoot.
    """
    low, high = (float(v) for v in image.detach().aminmax())
    if not overshoots_only(image, low, high):
        raise ImageError(
            f"the recogniser's input ranges from {low:.3g} to {high:.3g} after undoing its "
            f"normalisation, which should give an image in [0, 1]. Assumed: {normalisation}; "
            "declare what the recogniser really receives: mean=, std=, range=, channels="
        )
    return low >= -OVERSHOOT and high <= 1 + OVERSHOOT


def _tensor_of(array: np.ndarray[Any, Any]) -> Tensor:
    """Return the array as a tensor.

    torch takes only arrays in this machine's byte order, and warns of those that are read-only.
    """
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), ["C", "W"]))


def _rectangle_around(valid: Tensor) -> tuple[slice, slice]:
    """Return the rows and columns of the smallest rectangle around what is true in (H, W)."""
    rows, columns = (valid.any(axis).nonzero().flatten().tolist() or [0, -1] for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _as_pil(picture: Any) -> Any:
    """Return a PIL image: recognisers do not know pictures of 16 bits per channel."""
    return picture.reduced() if isinstance(picture, DeepPicture) else picture
