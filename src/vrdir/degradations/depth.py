"""Depth for photos without a depth map: smooth fields, and scenes of objects on a ground plane."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.degradations.draws import Draws

DepthKind = Literal["smooth", "regions", "mixed"]
"""How depth is drawn: a smooth field; objects with edges on a ground plane; or one of the two, at
random, for each image."""

REGIONS = 48  # the most into which a photo is divided
CLUSTERED_PX = 96  # side of the copy on which they are found
CHUNK_PX = 2**17  # pixels that are given to their regions at once


def drawn_depth(draws: Draws, kind: str) -> Tensor:
    """Return a depth (B, 1, H, W) in units of the scene's depth, about 0 (near) to 1.5 (far).

    Args:
        draws: of the batch.
        kind: one of `DepthKind`.
    """
    if kind == "smooth":
        return smooth_depth(draws)
    regions = region_depth(draws)
    if kind == "regions":
        return regions
    return torch.where(draws.unit(1, 1, 1) < 0.75, regions, smooth_depth(draws))


def smooth_depth(draws: Draws) -> Tensor:
    """Return a receding ground plane with relief, (B, 1, H, W).

    The plane rises mostly upwards, as outdoors, in any direction now and then; two octaves of
    smooth relief are added to it. The nearest point is at 0 to 0.6 and the farthest up to 0.9
    beyond, so that a crop may be all near or all far.
    """
    device = draws.image.device
    height, width = draws.image.shape[-2:]
    tilt = 0.6 * draws.normal(1, 1, 1)  # radians from upwards
    y = torch.linspace(1, 0, height, device=device).view(1, 1, -1, 1)
    x = torch.linspace(0, 1, width, device=device).view(1, 1, 1, -1)
    plane = y * torch.cos(tilt) + x * torch.sin(tilt)
    relief = draws.smooth_field(4) + 0.5 * draws.smooth_field(8)
    field = scaled(plane + draws.uniform("relief", (0.1, 1.0)) * relief)
    near = draws.uniform("near", (0.0, 0.6))
    return near + draws.uniform("extent", (0.1, 0.9)) * field


def region_depth(draws: Draws) -> Tensor:
    """Return a depth with edges, (B, 1, H, W): regions of the photo on a ground plane.

    The photo is divided into up to 48 regions of similar colour. Each of them is upright, at the
    depth at which it meets the ground, or part of the ground, which recedes in perspective to a
    horizon. So near, clear, dark objects are in front of thick fog, as in photos.
    """
    batch = draws.image.shape[0]
    labels = regions_of(draws)
    ground = ground_depth(draws)
    flat, where = ground.flatten(1), labels.flatten(1)

    def of_regions(reduce: str) -> Tensor:  # (B, REGIONS)
        start = torch.full((batch, REGIONS), 0.5, device=flat.device)
        return start.scatter_reduce(1, where, flat, reduce, include_self=False)

    foot = of_regions("amin")  # where the region meets the ground
    own = torch.lerp(of_regions("mean"), foot, draws.unit(1))
    own = (own + 0.15 * draws.unit(1) * draws.normal(REGIONS)).clamp(0, 1)
    upright = draws.unit(REGIONS) < 0.3 + 0.7 * draws.unit(1)
    depth = torch.where(upright.gather(1, where), own.gather(1, where), flat).view_as(ground)
    relief = draws.uniform("relief", (0.0, 0.3)) * (draws.smooth_field(4) - 0.5)
    near = draws.uniform("near", (0.0, 0.35))
    return near + draws.uniform("extent", (0.3, 1.2)) * scaled(depth + relief)


def ground_depth(draws: Draws) -> Tensor:
    """Return the depth of bare ground in [0, 1], (B, 1, H, W); 1 at the horizon and above it."""
    device = draws.image.device
    height, width = draws.image.shape[-2:]
    tilt = 0.3 * draws.normal(1, 1, 1)
    y = torch.linspace(1, 0, height, device=device).view(1, 1, -1, 1)
    x = torch.linspace(-0.5, 0.5, width, device=device).view(1, 1, 1, -1)
    plane = scaled(y * torch.cos(tilt) + x * torch.sin(tilt))
    ground = (plane / draws.uniform("horizon", (0.3, 1.0))).clamp(0, 1)
    return ground / (1 + draws.uniform("perspective", (0.0, 6.0)) * (1 - ground))


def regions_of(draws: Draws) -> Tensor:
    """Divide each photo into regions of similar colour and place, (B, H, W) int64, 0 to 47.

    K-means on colour and place, as SLIC (Achanta et al., PAMI 2012), on a small copy; then each
    pixel joins the most similar region. The number of regions, and the weight of position relative
    to colour, are drawn for each photo.
    """
    image = draws.image.float()
    height, width = image.shape[-2:]
    count = draws.uniform("regions", (6, REGIONS)).view(-1, 1)
    weight = draws.log_uniform("compactness", (0.4, 4.0), 0.1)

    def described(photo: Tensor) -> Tensor:  # (B, H, W, 5)
        y = torch.linspace(0, 1, photo.shape[-2], device=photo.device).view(1, 1, -1, 1)
        x = torch.linspace(0, 1, photo.shape[-1], device=photo.device).view(1, 1, 1, -1)
        place = torch.cat([part.expand(len(photo), 1, *photo.shape[-2:]) for part in (y, x)], 1)
        return torch.cat([2 * photo, weight * place], 1).permute(0, 2, 3, 1)

    size = [min(side, CLUSTERED_PX) for side in (height, width)]
    small = functional.interpolate(image, size=size, mode="bilinear", antialias=True)
    points = described(small).flatten(1, 2)
    first = (draws.unit(REGIONS) * points.shape[1]).long()
    centres = points.gather(1, first[..., None].expand(-1, -1, 5))
    absent = torch.arange(REGIONS, device=image.device) >= count  # (B, REGIONS)

    def nearest(values: Tensor) -> Tensor:
        lengths = (centres**2).sum(2).masked_fill(absent, torch.inf)
        return torch.baddbmm(lengths[:, None], values, centres.mT, alpha=-2).argmin(2)

    for _ in range(4):
        labels = nearest(points)[..., None].expand(-1, -1, 5)
        centres = centres.scatter_reduce(1, labels, points, "mean", include_self=False)
    values = described(image).flatten(1, 2)
    labels = torch.cat([nearest(part) for part in values.split(CHUNK_PX, 1)], 1)
    return labels.view(len(image), height, width)


def scaled(field: Tensor) -> Tensor:
    """Return a field (B, 1, H, W) stretched to [0, 1], image by image."""
    low, high = field.amin((2, 3), keepdim=True), field.amax((2, 3), keepdim=True)
    return (field - low) / (high - low).clamp_min(1e-6)
