"""What matters in adaptation: which part changes, which losses count, and what the place brings.

    python benchmarks/adaptation.py PHOTOS OUT --recogniser mine:model --steps 300
    python benchmarks/adaptation.py PHOTOS OUT --recogniser mine:model --only all,decoder --seeds 3
    python benchmarks/adaptation.py PHOTOS OUT --recogniser mine:model --place "haze:beta=1.8..2.4"

Each variant begins from the same weights, takes the same steps, and is tried on the same held-out
photos. With `--place`, unlabelled photos of one weather are made of those held out to choose by;
adaptation with and without them is tried in that weather on the others.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch

import vrdir
from vrdir.adaptation.photos import Photos
from vrdir.adaptation.proof import proof_of, try_on
from vrdir.adaptation.recogniser import load_recogniser
from vrdir.adaptation.settings import AdaptationSettings
from vrdir.data.image_cache import decode
from vrdir.data.validation_set import ValidationSet
from vrdir.degradations.steps import ranges_of
from vrdir.images.contact_sheet import to_pil
from vrdir.model.vrdir import VRDIR

VARIANTS: dict[str, dict[str, Any]] = {
    "decoder": {},
    "last": {"trained": "last"},
    "channels": {"trained": "channels"},
    "all": {"trained": "all"},
    "no answers": {"answers": 0.0},
    "no features": {"features": 0.0},
    "no guard": {"guard": 0.0},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recogniser", required=True)
    parser.add_argument("--task")
    parser.add_argument("--weights", default="small")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--held-out", type=int, default=48)
    parser.add_argument("--only", help="names of variants with commas")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--place", help="the weather of a place, such as haze:beta=1.8..2.4")
    arguments = parser.parse_args()
    sys.path.append("")
    if arguments.place:
        return compare_place(arguments)
    names = arguments.only.split(",") if arguments.only else list(VARIANTS)
    print(
        "| variant | seed | before | after | gain | 95 % | clean | worst PSNR, dB | share | min |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in names:
        for seed in range(1, arguments.seeds + 1):
            start = time.perf_counter()
            result = adapted(arguments, f"{name}-{seed}", seed=seed, **VARIANTS[name])
            proof, minutes = result.proof, (time.perf_counter() - start) / 60
            one, clean = proof.together, proof.kinds["clean"].gain.value
            worst = min(o.psnr_after - o.psnr_before for o in proof.kinds.values())
            print(
                f"| {name} | {seed} | {one.before.value:.1f} | {one.after.value:.1f} | "
                f"{one.gain.value:+.1f} | {one.gain.low:+.1f} to {one.gain.high:+.1f} | "
                f"{clean:+.1f} | {worst:+.2f} | {result.share:g} | {minutes:.1f} |",
                flush=True,
            )
    return None


def adapted(
    arguments: argparse.Namespace, name: str, **settings: Any
) -> vrdir.adaptation.Adaptation:
    return vrdir.adapt(
        arguments.recogniser,
        arguments.photos,
        arguments.out / name,
        weights=arguments.weights,
        task=arguments.task,
        write_anyway=True,
        **{"steps": arguments.steps, "held_out": arguments.held_out, **settings},
    )


def compare_place(arguments: argparse.Namespace) -> None:
    photos = Photos.of_folder(arguments.photos, arguments.held_out)
    seen, proving = photos.divided()
    place = arguments.out / "place"
    place.mkdir(parents=True, exist_ok=True)
    for number, item in enumerate(seen):
        image = decode(item.clean)[None].float() / 255
        weather = vrdir.degrade(image, arguments.place, number)
        to_pil(weather[0]).save(place / f"{item.clean.stem}.png")
    ranges = ranges_of(arguments.place)
    weather = list(ranges)
    asked = {"degradations": "+".join(weather)}
    plain = adapted(arguments, "plain", **asked)
    placed = adapted(arguments, "placed", degraded=place, **asked)
    recogniser = load_recogniser(arguments.recogniser, arguments.task)
    before = VRDIR.from_pretrained(arguments.weights)
    side = AdaptationSettings().side(recogniser.size, before.config)
    tried = ValidationSet(proving, before.config.branches, side, ranges=ranges, whole=True)
    print("| adapted | before | after | gain | 95 % | PSNR, dB |")
    print("|---|---|---|---|---|---|")
    for name, result in (("plain", plain), ("with photos of the place", placed)):
        assert result.weights is not None
        networks = {"before": before, "after": VRDIR.from_pretrained(result.weights)}
        trials = try_on(networks, recogniser, tried, weather, torch.device("cpu"))
        one = proof_of(trials, weather, "").together
        print(
            f"| {name} | {one.before.value:.1f} | {one.after.value:.1f} | {one.gain.value:+.1f} | "
            f"{one.gain.low:+.1f} to {one.gain.high:+.1f} | {one.psnr_before:.2f} -> "
            f"{one.psnr_after:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
