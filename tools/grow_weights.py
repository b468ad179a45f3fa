"""Build a larger network from the weights of a smaller one; both restore images alike.

    python tools/grow_weights.py small GROWN --model base
    vrdir train refine --recipe base --weights GROWN --clean DIR --work-dir RUN

    python tools/grow_weights.py small GROWN --branch low_light=haze --branch snow=rain
    vrdir train refine --recipe small --weights GROWN ...

The larger network gives the same images at first, and can learn more (function-preserving growth:
Chen et al., "Net2Net", ICLR 2016, here with zeros instead of copies):

- A wider layer computes the old channels from the old channels. New channels start at random, and
  the weights that read them start at zero.
- A new residual block starts as the identity.
- A new tap of the extractor has the pretrained layers, and the weights that read it start at zero.
- A new branch is a copy of an old one, and the two share the old one's guidance equally. A branch
  whose guidance started at zero would never get any.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from vrdir.errors import WeightsError
from vrdir.model.config import CONFIGS, VRDIRConfig
from vrdir.model.vrdir import VRDIR

FREE = {"context", "strides", "widths", "encoder_blocks", "decoder_blocks"}


def with_branches(config: VRDIRConfig, further: Mapping[str, str]) -> VRDIRConfig:
    """Return the config with new branches.

    Args:
        config: the config so far.
        further: the name of each new branch, and of the branch that it is copied from.

    Raises:
        WeightsError: there is no such branch to copy.
    """
    strange = [name for name in further.values() if name not in config.branches]
    if strange:
        known = ", ".join(config.branches)
        raise WeightsError(f"there is no branch {', '.join(strange)} to copy; there are {known}")
    return VRDIRConfig.model_validate(
        config.model_dump() | {"branches": (*config.branches, *further)}
    )


def check(source: VRDIRConfig, target: VRDIRConfig) -> None:
    """Raise WeightsError unless `target` is `source`, or larger."""
    different = [
        name
        for name in VRDIRConfig.model_fields
        if name not in FREE and getattr(source, name) != getattr(target, name)
    ]
    if different:
        raise WeightsError(
            f"only {', '.join(sorted(FREE))} may grow; {', '.join(different)} differ"
        )
    if source.strides != target.strides[: len(source.strides)]:
        raise WeightsError(
            "further strides come after the coarsest: "
            f"{source.strides} cannot grow to {target.strides}"
        )
    if source.context is not None and source.context != target.context:
        raise WeightsError("a global context can be added, not changed")
    for name in sorted(FREE - {"strides", "context"}):
        before, after = getattr(source, name), getattr(target, name)
        if len(before) != len(after) or any(b > a for b, a in zip(before, after, strict=True)):
            raise WeightsError(
                f"{name} can only grow, scale by scale: {before} cannot become {after}"
            )


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and buffers of a module itself, without those of its parts."""
    return {
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers(recurse=False)),
    }


def copy_into(module: nn.Module, smaller: nn.Module) -> None:
    """Copy a layer's tensors into a larger layer; old outputs ignore the new inputs."""
    old = own_tensors(smaller)
    for key, value in own_tensors(module).items():
        is_convolution = isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
        if is_convolution and key == "weight" and module.groups == 1:
            outputs = 1 if isinstance(module, nn.ConvTranspose2d) else 0
            value.narrow(outputs, 0, old[key].shape[outputs]).zero_()
        value[tuple(slice(size) for size in old[key].shape)] = old[key]


def grow(source: VRDIR, config: VRDIRConfig, extractor_weights: Path | None = None) -> VRDIR:
    """Return a network of another config that restores images as `source` does.

    Args:
        source: the network.
        config: what it becomes.
        extractor_weights: file with the extractor's pretrained weights, for a new tap; by default
            those of the package that publishes them.

    Raises:
        WeightsError: `config` is not `source`'s, or larger.
        MissingFileError: the extractor's weights do not exist.
    """
    check(source.config, config)
    grown = VRDIR(config)
    if (config.strides, config.context) != (source.config.strides, source.config.context):
        # The layers up to a new tap are frozen, so training would never change random ones.
        grown.load_pretrained_extractor(extractor_weights)
    with torch.no_grad():
        for projection in getattr(grown.decoder, "semantics", [])[len(source.config.strides) :]:
            for parameter in projection.parameters():
                parameter.zero_()  # reads a tap that the source does not have
        modules = dict(source.named_modules())
        for name, module in grown.named_modules():
            if name in modules:
                copy_into(module, modules[name])
    return grown.eval()


def branch_out(source: VRDIR, further: Mapping[str, str]) -> VRDIR:
    """Return `source` with new branches, which restores images as `source` does.

    A new branch is a copy of an old one and takes half of its guidance.

    Args:
        source: the network.
        further: the name of each new branch, and of the branch that it is copied from.

    Raises:
        WeightsError: there is no such branch to copy.
        ValueError: the new name cannot be a branch's name.
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
            # n branches of guidance exp(g - log n) have exp(g) together.
            state[key] = state[key] - heirs.log().to(state[key])
    grown.load_state_dict(state)
    return grown.eval()


def main() -> None:
    """Grow, and write the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="model folder, or the name of bundled weights")
    parser.add_argument("out", type=Path, help="model folder to be written")
    parser.add_argument(
        "--model", choices=CONFIGS, help="the larger config; default: that of the source"
    )
    parser.add_argument(
        "--branch",
        action="append",
        default=[],
        metavar="NEW=OLD",
        help="a new branch, and the one that it is copied from",
    )
    parser.add_argument(
        "--extractor-weights",
        type=Path,
        help="file with the extractor's pretrained weights, for a new tap",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random weights")
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    try:
        further = dict(text.split("=", 1) for text in arguments.branch if "=" in text)
        if len(further) < max(len(arguments.branch), arguments.model is None):
            raise WeightsError(
                "give --model NAME, or --branch NEW=OLD for each new branch, or both"
            )
        grown = VRDIR.from_pretrained(arguments.source)
        if arguments.model is not None:
            grown = grow(grown, CONFIGS[arguments.model], arguments.extractor_weights)
        grown = branch_out(grown, further)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    grown.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
