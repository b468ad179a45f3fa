"""Compare the diagnosis with the degradations that were synthesised.

    python benchmarks/diagnosis.py DIR [--weights small] [--photos 16] [--plot OUT.png]

DIR is the folder of clean photos that was trained on. The photos that `vrdir train` holds out of it
are degraded by several strengths of haze (with smooth depth and with edges), noise and rain, all
synthetic. The script prints the correlation, the mean error, and the diagnosis of the clean photos.
The plot shows the predicted against the true value.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vrdir.data.image_cache import decode
from vrdir.data.items import items_of, split
from vrdir.degradations.degrade import apply_degradation
from vrdir.restoring.restorer import Restorer


def true_haze(clean: torch.Tensor, hazy: torch.Tensor, airlight: torch.Tensor) -> float:
    """Return the mean of 1 - t of synthetic haze, from its equation solved for t."""
    distance = (airlight.view(1, 3, 1, 1) - clean).abs().amax(1)
    left = (airlight.view(1, 3, 1, 1) - hazy).abs().amax(1)
    known = distance > 0.1
    return float((1 - (left / distance.clamp_min(1e-6)))[known].clamp(0, 1).mean())


def main() -> None:
    """Degrade, restore, and print how the diagnosis compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clean", type=Path, metavar="DIR")
    parser.add_argument("--weights", default="small")
    parser.add_argument("--photos", type=int, default=16)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    paths = [item.clean for item in split(items_of(arguments.clean, (), ()), arguments.photos)[1]]
    restorer = Restorer(arguments.weights, "cpu")
    points: dict[str, list[tuple[float, float]]] = {"haze": [], "noise": [], "rain": []}
    clean_hazes = []
    for number, path in enumerate(paths):
        photo = decode(path)[None].float() / 255
        clean_hazes.append(restorer.restore(photo).diagnosis[0].haze or 0.0)
        for step in range(4):
            generator = [torch.Generator().manual_seed(100 * number + step)]
            depth = ("smooth", "regions")[step % 2]
            settings: dict[str, Any] = {"beta": 0.3 + 0.8 * step, "depth": depth}
            hazy = apply_degradation(photo, "haze", generator, colour_cast=0.0, **settings)
            truth = true_haze(photo, hazy.image, hazy.parameters["airlight"][0])
            points["haze"].append((truth, restorer.restore(hazy.image).diagnosis[0].haze or 0.0))
            sigma = 5.0 + 15 * step
            noisy = apply_degradation(photo, "noise", generator, sigma=sigma).image
            points["noise"].append((sigma, restorer.restore(noisy).diagnosis[0].noise or 0.0))
            coverage = 0.05 + 0.1 * step
            rainy = apply_degradation(photo, "rain", generator, coverage=coverage).image
            points["rain"].append((coverage, restorer.restore(rainy).diagnosis[0].rain or 0.0))
    for name, pairs in points.items():
        true, said = np.array(pairs).T
        figures = {
            "correlation": round(float(np.corrcoef(true, said)[0, 1]), 3),
            "mean_error": round(float(np.abs(true - said).mean()), 3),
            "bias": round(float((said - true).mean()), 3),
        }
        print(name, json.dumps(figures))
    above = sum(haze > 0.15 for haze in clean_hazes)
    print(f"clean: {above} of {len(clean_hazes)} above a haze of 0.15")
    if arguments.plot:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
        for axis, (name, pairs) in zip(axes, points.items(), strict=True):
            true, said = np.array(pairs).T
            axis.scatter(true, said, s=14, alpha=0.6)
            most = max(true.max(), said.max())
            axis.plot([0, most], [0, most], color="grey", linewidth=1)
            axis.set(title=name, xlabel="true (synthetic)", ylabel="diagnosis")
        figure.savefig(arguments.plot, dpi=110)


if __name__ == "__main__":
    main()
