"""Begin a larger network with the weights of a smaller one: it restores just as the smaller one does, and has room to learn.

    python tools/grow_weights.py small GROWN --model base
    vrdir train refine --recipe base --weights GROWN --clean DIR --work-dir RUN

    python tools/grow_weights.py small GROWN --branch low_light=haze --branch snow=rain
    vrdir train refine --recipe small --weights GROWN ...

Wider layers compute what they did from the channels that were there, further channels start at random and nobody listens to them
yet; further residual blocks are the identity; further taps of the extractor, whose layers are the pretrained ones, add nothing yet
(function-preserving growth: Chen et al., "Net2Net", ICLR 2016; by zeros instead of copies, which need no noise to tell them apart).
A further branch is a copy of another one and takes half of its guidance: all the guidance's positions are decided, so one that began
at nothing would stay there.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from vrdir.model.vrdir import CONFIGS, VRDIR, VRDIRConfig

FREE = {"context", "strides", "widths", "encoder_blocks", "decoder_blocks"}


def with_branches(config: VRDIRConfig, further: Mapping[str, str]) -> VRDIRConfig:
    """The config with further branches, each with the one that it is to be copied from. Raises ValueError, naming what is wrong."""
    strange = [name for name in further.values() if name not in config.branches]
    if strange:
        raise ValueError(
            f"there is no branch {', '.join(strange)} to copy; there are {', '.join(config.branches)}"
        )
    return VRDIRConfig.model_validate(
        config.model_dump() | {"branches": (*config.branches, *further)}
    )


def check(source: VRDIRConfig, target: VRDIRConfig) -> None:
    """Raise ValueError unless `target` is `source` and more of it."""
    different = [
        name
        for name in VRDIRConfig.model_fields
        if name not in FREE and getattr(source, name) != getattr(target, name)
    ]
    if different:
        raise ValueError(f"only {', '.join(sorted(FREE))} may grow; {', '.join(different)} differ")
    if source.strides != target.strides[: len(source.strides)]:
        raise ValueError(
            f"further strides come after the coarsest: {source.strides} cannot grow to {target.strides}"
        )
    if source.context is not None and source.context != target.context:
        raise ValueError("a global context can be added, not changed")
    for name in sorted(FREE - {"strides", "context"}):
        before, after = getattr(source, name), getattr(target, name)
        if len(before) != len(after) or any(b > a for b, a in zip(before, after, strict=True)):
            raise ValueError(
                f"{name} can only grow, scale by scale: {before} cannot become {after}"
            )


def grow(source: VRDIR, config: VRDIRConfig, extractor_weights: Path | None = None) -> VRDIR:
    """A network of `config` that gives the images that `source` gives.

    Args:
        source: the network.
        config: what it becomes.
        extractor_weights: file with the extractor's pretrained weights, for a further tap; default: from where they are published.

    Raises:
        ValueError: `config` is not `source`'s and more.
        FileNotFoundError: the extractor's weights are not there.
    """
    check(source.config, config)
    grown = VRDIR(config)
    if (config.strides, config.context) != (source.config.strides, source.config.context):
        grown.load_pretrained_extractor(
            extractor_weights
        )  # no training would ever touch its layers up to a further tap
    with torch.no_grad():
        for projection in getattr(grown.decoder, "semantics", [])[len(source.config.strides) :]:
            for parameter in projection.parameters():
                parameter.zero_()  # of a tap that the source has not
        modules = dict(source.named_modules())
        for name, module in grown.named_modules():
            if name not in modules:
                continue
            old = {
                **dict(modules[name].named_parameters(recurse=False)),
                **dict(modules[name].named_buffers(recurse=False)),
            }
            for key, value in {
                **dict(module.named_parameters(recurse=False)),
                **dict(module.named_buffers(recurse=False)),
            }.items():
                if (
                    isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
                    and key == "weight"
                    and module.groups == 1
                ):
                    out = 1 if isinstance(module, nn.ConvTranspose2d) else 0
                    value.narrow(
                        out, 0, old[key].shape[out]
                    ).zero_()  # old outputs do not listen to new inputs
                value[tuple(slice(size) for size in old[key].shape)] = old[key]
    return grown.eval()


def branch_out(source: VRDIR, further: Mapping[str, str]) -> VRDIR:
    """`source` with further branches, copies of others, which share their guidance with them: it gives the images that `source` gives.

    Args:
        source: the network.
        further: each new branch's name, and which branch it begins as.

    Raises:
        ValueError: there is no such branch to copy, or the new name cannot be one.
    """
    grown = VRDIR(with_branches(source.config, further))
    state = source.state_dict()
    for key in grown.state_dict():
        name = key.split(".branches.")[1].split(".")[0] if ".branches." in key else ""
        if name in further:
            state[key] = state[key.replace(f".branches.{name}.", f".branches.{further[name]}.")]
    before = source.config.branches
    origin = [*range(len(before)), *(before.index(name) for name in further.values())]
    if source.config.clean_branch:
        origin.append(len(before))
    heirs = torch.tensor([origin.count(row) for row in origin])
    for key in [key for key in state if ".modulation.guidance." in key]:
        state[key] = state[key][origin]
        if key.endswith("bias"):
            state[key] = state[key] - heirs.log().to(
                state[key]
            )  # exp(g - log n), n times, is exp(g)
    grown.load_state_dict(state)
    return grown.eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="model folder, or the name of bundled weights")
    parser.add_argument("out", type=Path, help="model folder to be written")
    parser.add_argument(
        "--model", choices=CONFIGS, help="what it is to become; default: as large as it is"
    )
    parser.add_argument(
        "--branch",
        action="append",
        default=[],
        metavar="NEW=OLD",
        help="a further branch, and which one it begins as",
    )
    parser.add_argument(
        "--extractor-weights",
        type=Path,
        help="file with the extractor's pretrained weights, for a further tap",
    )
    parser.add_argument("--seed", type=int, default=0, help="of what starts at random")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    try:
        further = dict(text.split("=", 1) for text in arguments.branch if "=" in text)
        if len(further) < max(len(arguments.branch), arguments.model is None):
            raise ValueError("give --model NAME, or --branch NEW=OLD for each new branch, or both")
        grown = VRDIR.from_pretrained(arguments.source)
        if arguments.model is not None:
            grown = grow(grown, CONFIGS[arguments.model], arguments.extractor_weights)
        grown = branch_out(grown, further)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    grown.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
