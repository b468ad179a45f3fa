"""Begin a larger network with the weights of a smaller one: it restores just as the smaller one does, and has room to learn.

    python tools/grow_weights.py small GROWN --model base
    vrdir train refine --recipe base --weights GROWN --clean DIR --work-dir RUN

Wider layers compute what they did from the channels that were there, further channels start at random and nobody listens to them
yet; further residual blocks are the identity; further taps of the extractor add nothing yet (function-preserving growth: Chen et
al., "Net2Net", ICLR 2016; by zeros instead of copies, which need no noise to tell them apart).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from vrdir.model.vrdir import CONFIGS, VRDIR, VRDIRConfig

FREE = {"strides", "widths", "encoder_blocks", "decoder_blocks"}


def check(source: VRDIRConfig, target: VRDIRConfig) -> None:
    """Raise ValueError unless `target` is `source` and more of it."""
    different = [name for name in VRDIRConfig.model_fields if name not in FREE and getattr(source, name) != getattr(target, name)]
    if different:
        raise ValueError(f"only {', '.join(sorted(FREE))} may grow; {', '.join(different)} differ")
    if source.strides != target.strides[: len(source.strides)]:
        raise ValueError(f"further strides come after the coarsest: {source.strides} cannot grow to {target.strides}")
    for name in sorted(FREE - {"strides"}):
        before, after = getattr(source, name), getattr(target, name)
        if len(before) != len(after) or any(b > a for b, a in zip(before, after, strict=True)):
            raise ValueError(f"{name} can only grow, scale by scale: {before} cannot become {after}")


def grow(source: VRDIR, config: VRDIRConfig) -> VRDIR:
    """A network of `config` that gives the images that `source` gives. Raises ValueError if `config` is not `source`'s and more."""
    check(source.config, config)
    grown = VRDIR(config)
    with torch.no_grad():
        for projection in getattr(grown.decoder, "semantics", [])[len(source.config.strides) :]:
            for parameter in projection.parameters():
                parameter.zero_()  # of a tap that the source has not
        modules = dict(source.named_modules())
        for name, module in grown.named_modules():
            if name not in modules:
                continue
            old = {**dict(modules[name].named_parameters(recurse=False)), **dict(modules[name].named_buffers(recurse=False))}
            for key, value in {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}.items():
                if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)) and key == "weight" and module.groups == 1:
                    out = 1 if isinstance(module, nn.ConvTranspose2d) else 0
                    value.narrow(out, 0, old[key].shape[out]).zero_()  # old outputs do not listen to new inputs
                value[tuple(slice(size) for size in old[key].shape)] = old[key]
    return grown.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="model folder, or the name of bundled weights")
    parser.add_argument("out", type=Path, help="model folder to be written")
    parser.add_argument("--model", required=True, choices=CONFIGS, help="what it is to become")
    parser.add_argument("--seed", type=int, default=0, help="of what starts at random")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    try:
        grown = grow(VRDIR.from_pretrained(arguments.source), CONFIGS[arguments.model])
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    grown.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
