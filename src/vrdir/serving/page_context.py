"""The steps of the page's network that remove haze by the global context, as ONNX graphs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vrdir.model.global_context import LocalTone, Veil, lift
from vrdir.model.vrdir import VRDIR
from vrdir.serving.page_graph import traced

# The tensors that the step "context" returns: of networks with a local tone, and of others.
TONE = ("low", "span", "offsets")
VEIL = ("airlight", "exposure", "log_gain")


class _Context(nn.Module):
    """Take the reduced copy of the whole image, and return what the global context finds in it."""

    def __init__(self, model: VRDIR) -> None:
        super().__init__()
        self.model = model

    def forward(self, copy: Tensor) -> tuple[Tensor, ...]:
        found = self.model.veil(copy)
        assert found is not None
        return tuple(found[:3])


class _Lift(nn.Module):
    """Take rows of the image and what the context found, and return the rows without haze."""

    def __init__(self, tone: bool) -> None:
        super().__init__()
        self.tone = tone

    def forward(
        self,
        image: Tensor,
        first: Tensor,
        second: Tensor,
        third: Tensor,
        down: Tensor,
        across: Tensor,
        size: Tensor,
    ) -> Tensor:
        """Return the rows of the image without haze, (1, 3, H, W).

        Args:
            image: rows of the image, (1, 3, H, W) in [0, 1].
            first: the first tensor that the context found, with the strength applied.
            second: the second one.
            third: the third one.
            down: (H,), the position of each row in the photo, from 0.
            across: (W,), the position of each column in the photo, from 0.
            size: (2,), height and width of the photo in pixels.
        """
        found = LocalTone(first, second, third, third, third) if self.tone else None
        veil = found or Veil(first, second, third)
        rows, columns = (
            _read(veil.grid[axis], size[axis], at) for axis, at in ((0, down), (1, across))
        )
        return lift(image, veil, rows, columns)


def _read(before: int, after: Tensor, at: Tensor) -> Tensor:
    """Return the rows `at` of the matrix that resamples `before` values to `after`.

    Returns:
        (len(at), before); each row sums to 1.
    """
    scale = before / after
    middle = (at + 0.5) * scale
    grid = torch.arange(before) + 0.5
    weights = (1 - (middle[:, None] - grid[None]).abs() / scale.clamp_min(1.0)).clamp_min(0)
    return weights / weights.sum(1, keepdim=True)


def context_steps(model: VRDIR) -> dict[str, bytes]:
    """Return the steps "context" and "lift" of a network that has a global context.

    Returns:
        ONNX files by name.
    """
    context = model.config.context
    assert context is not None
    names = TONE if context.tone else VEIL
    small = torch.rand(1, 3, context.side, context.side)
    with torch.no_grad():
        found = _Context(model)(small)
    image = torch.rand(1, 3, 32, 48)
    inputs = {"image": image, **dict(zip(names, found, strict=True))}
    inputs |= {"down": torch.arange(32.0), "across": torch.arange(48.0)}
    inputs["size"] = torch.tensor([32.0, 48.0])
    height, width = (torch.export.Dim(name) for name in ("height", "width"))
    free = {"image": {2: height, 3: width}, "down": {0: height}, "across": {0: width}}
    return {
        "context": traced(_Context(model), {"copy": small}, names, {}),
        "lift": traced(_Lift(context.tone), inputs, ["clear"], free),
    }
