"""VRDIR: the whole network, its configuration, and how it is saved and loaded."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, cast

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors.torch import save as serialize
from torch import Tensor, nn

from vrdir.atomic import write_whole
from vrdir.errors import InputError, MissingFileError, ResultError, WeightsError
from vrdir.forks import survive_forks
from vrdir.model.control import ALL, Control
from vrdir.model.global_context import GlobalContext, Lift, lift, lift_whole, reduced, resampling
from vrdir.model.global_statistics import GlobalStatistics
from vrdir.model.intrinsic_extractor import EXTRACTORS, ExtractorName, select_taps
from vrdir.model.loading import check_finite, read_settings, read_shapes, read_tensors
from vrdir.model.semantics_decoder import PixelSkipDecoder, SemanticsDecoder
from vrdir.model.semantics_enhancement import CLEAN, SemanticsEnhancement
from vrdir.tensors import crop_to, pad_to_multiple
from vrdir.weights.bundled import resolve_weights, upload

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
# Of the clean branch, from which on `skip_clean` leaves an image alone. For `small`: four in ten clean photos, 2 % at most of degraded
# ones that can be seen to be (docs/frontend.md).
CLEAN_SHARE = 0.3
THIN = 0.02  # a mean log gain below which there is no veil to speak of: 2 % of the contrast


class ContextConfig(BaseModel):
    """The shape of the global context (`vrdir.model.global_context`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: int = Field(
        default=192,
        ge=32,
        le=1024,
        description="Side of the reduced copy of the whole image, in pixels; a multiple of 32.",
    )
    strides: tuple[int, ...] = Field(
        default=(4, 8, 16),
        min_length=1,
        max_length=5,
        description="Strides at which E is tapped on the copy.",
    )
    channels: int = Field(
        default=48, ge=4, le=1024, description="Channels of the head, a multiple of 4."
    )
    tone: bool = Field(
        default=False,
        description="Raise local contrast, where a camera's fog asks for it, instead of taking "
        "a veil of haze away.",
    )

    @model_validator(mode="after")
    def _check(self) -> ContextConfig:
        if self.side % 32 or self.channels % 4:
            raise ValueError("side is a multiple of 32, and channels is a multiple of 4")
        return self


# A config may come from a stranger: far more than any network of today has, and still built in seconds.
SCALES = Field(max_length=8)
Blocks = Annotated[int, Field(ge=0, le=64)]
Width = Annotated[int, Field(ge=1, le=4096)]


class VRDIRConfig(BaseModel):
    """Everything that decides the network's shape. `PAPER`, `SMALL`, `FIELD` and `BASE` below have recipes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    extractor: ExtractorName = Field(
        description="The recognition network that the extractor E is cut from."
    )
    strides: Annotated[tuple[int, ...], SCALES] = Field(
        description="Strides at which E is tapped, in pixels; each has an enhancement (ISE)."
    )
    branches: Annotated[tuple[Annotated[str, Field(max_length=40)], ...], Field(max_length=32)] = (
        Field(
            default=("haze", "noise", "rain"),
            description="The degradations, with one branch (DNC) each at every tap, in the order of the guidance maps.",
        )
    )
    clean_branch: bool = Field(
        default=False, description="Add a further branch, the identity, after the others."
    )
    branch_blocks: Blocks = Field(default=0, description="Residual blocks in each branch.")
    decoder: Literal["semantics", "pixel_skip"] = Field(
        default="semantics",
        description='"semantics" is the paper\'s (features alone), "pixel_skip" ours (a U-shape whose output is a residual).',
    )
    widths: Annotated[tuple[Width, ...], SCALES] = Field(
        default=(), description="Channels of the pixel_skip decoder at strides 2, 4, 8, ..."
    )
    encoder_blocks: Annotated[tuple[Blocks, ...], SCALES] = Field(
        default=(),
        description="Residual blocks of the pixel_skip encoder at each of these strides.",
    )
    decoder_blocks: Annotated[tuple[Blocks, ...], SCALES] = Field(
        default=(),
        description="Residual blocks of the pixel_skip decoder at each of these strides.",
    )
    channel_attention: bool = Field(default=False, description="Channel attention in these blocks.")
    context: ContextConfig | None = Field(
        default=None,
        description="The global context, which takes the veil of haze away before all else: side of "
        "the reduced copy, strides, channels; null for none.",
    )

    @model_validator(mode="after")
    def _check(self) -> VRDIRConfig:
        if not self.branches or len(set(self.branches)) != len(self.branches):
            raise ValueError(
                f"branches must be different names, at least one, not {list(self.branches)}"
            )
        if CLEAN in self.branches:
            raise ValueError("the clean branch is asked for with clean_branch, not among branches")
        if any(not name.isidentifier() or hasattr(nn.ModuleDict(), name) for name in self.branches):
            raise ValueError(
                f"a branch's name is letters, digits and underscores, and none that Python uses; not {list(self.branches)}"
            )
        for strides in (self.strides, self.context.strides if self.context else (self.strides[:1])):
            select_taps(EXTRACTORS[self.extractor].available, strides)
        if (
            self.decoder == "pixel_skip"
            and not len(self.widths) == len(self.encoder_blocks) == len(self.decoder_blocks) >= 1
        ):
            raise ValueError(
                "widths, encoder_blocks and decoder_blocks must name the same number of scales, at least one"
            )
        return self

    @property
    def multiple(self) -> int:
        """Height and width inside the network are multiples of this many pixels; `forward` and `restore` pad to it."""
        return max(2 ** len(self.widths), *self.strides)

    @property
    def guidance_names(self) -> tuple[str, ...]:
        """What each guidance map stands for, in order."""
        return (*self.branches, CLEAN) if self.clean_branch else self.branches


PAPER = VRDIRConfig(extractor="vgg16_conv2_2", strides=(2,))
SMALL = VRDIRConfig(
    extractor="efficientnet_lite0",
    strides=(4, 8),
    branches=("haze", "noise", "sensor_noise", "rain"),
    clean_branch=True,
    branch_blocks=1,
    decoder="pixel_skip",
    widths=(32, 64, 96, 128),
    encoder_blocks=(1, 1, 1, 1),
    decoder_blocks=(3, 3, 2, 1),
    channel_attention=True,
)
FIELD = SMALL.model_copy(update={"context": ContextConfig(tone=True)})
BASE = VRDIRConfig(
    extractor="efficientnet_lite0",
    strides=(4, 8, 16),
    branches=("haze", "noise", "sensor_noise", "rain"),
    clean_branch=True,
    branch_blocks=1,
    decoder="pixel_skip",
    widths=(48, 96, 160, 192),
    encoder_blocks=(2, 2, 2, 1),
    decoder_blocks=(4, 4, 3, 2),
    channel_attention=True,
    context=ContextConfig(channels=64),
)
CONFIGS = {"paper": PAPER, "small": SMALL, "field": FIELD, "base": BASE}


class Restoration(NamedTuple):
    """What `VRDIR.restore` returns.

    Attributes:
        image: (B, 3, H, W) in [0, 1].
        guidance: one (B, K, h, w) per tap, fine to coarse; the K maps sum to 1 at every position.
        shares: (B, K), the mean of the guidance over positions and taps: how much of each degradation the network sees.
        veil: the veil over the whole image, which is removed first, as strongly as `control` says;
            None without a global context, or if haze is not to be removed.
    """

    image: Tensor
    guidance: list[Tensor]
    shares: Tensor
    veil: Lift | None = None


class VRDIR(nn.Module):
    """The restoration network: `SAD(ISE(E(x)))` (VRD-IR, CVPR 2023).

    Call it on an RGB float tensor (B, 3, H, W) in [0, 1], H and W from 1 up, to get the restored image of the same shape.
    Everything but E trains; which part does so when is decided by the training stages.

    Args:
        config: the network's shape. The weights are random, E's too: see `load_pretrained_extractor` and `from_pretrained`.
    """

    def __init__(self, config: VRDIRConfig) -> None:
        super().__init__()
        survive_forks()
        self.config = config
        deeper = config.context.strides if config.context else ()
        self.extractor = EXTRACTORS[config.extractor]((*config.strides, *deeper))
        self.extractor.requires_grad_(False)
        self.taps = select_taps(self.extractor.available, config.strides)
        self.enhancement = nn.ModuleDict(
            {
                f"stride{tap.stride}": SemanticsEnhancement(
                    tap.channels, config.branches, config.branch_blocks, config.clean_branch
                )
                for tap in self.taps
            }
        )
        self.context: GlobalContext | None = None
        if config.context is not None:
            deep = select_taps(self.extractor.available, config.context.strides)
            self.context = GlobalContext(deep, config.context.channels, config.context.tone)
        self.decoder: SemanticsDecoder | PixelSkipDecoder
        if config.decoder == "semantics":
            self.decoder = SemanticsDecoder(self.taps)
        else:
            self.decoder = PixelSkipDecoder(
                self.taps,
                config.widths,
                config.encoder_blocks,
                config.decoder_blocks,
                config.channel_attention,
                sees_veiled=config.context is not None,
            )

    @property
    def scales(self) -> list[SemanticsEnhancement]:
        """The ISE of every tap, fine to coarse."""
        return cast(list[SemanticsEnhancement], list(self.enhancement.values()))

    @property
    def unveils(self) -> bool:
        """Whether haze is the global context's to take away, and not the local network's."""
        return self.context is not None and not self.context.tone

    def extract(self, image: Tensor) -> list[Tensor]:
        """E at the taps of the local network."""
        return self.extractor(image, self.config.strides)

    def veil(self, copy: Tensor) -> Lift | None:
        """The veil over whole images, by their reduced copies; None without a global context."""
        if self.context is None or self.config.context is None:
            return None
        return self.context(self.extractor(copy, self.config.context.strides), copy)

    def find_veil(self, image: Tensor) -> Lift | None:
        """The veil over whole images (B, 3, H, W)."""
        context = self.config.context
        return None if context is None else self.veil(reduced(image, context.side))

    def lifted_windows(self, windows: Tensor, copy: Tensor, place: Tensor) -> tuple[Tensor, Lift]:
        """Take the veil away from windows of larger views, and return it, too (training).

        Args:
            windows: (B, 3, h, w).
            copy: (B, 3, S, S), the reduced copies of the views.
            place: (B, 3), each window's top and left in its view and the view's side, in pixels;
                all views have one size.
        """
        veil = self.veil(copy)
        assert veil is not None
        matrix = resampling(veil.grid[-1], int(place[0, 2]), windows.device)
        rows, columns = (
            matrix[place[:, i, None] + torch.arange(windows.shape[i + 2], device=windows.device)]
            for i in (0, 1)
        )
        return lift(windows, veil, rows, columns), veil

    def enhance(
        self, features: list[Tensor], statistics: GlobalStatistics | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """ISE at every tap: the mixed features and the guidance maps."""
        guidance = self.guide(features, statistics)
        return self.mix(features, guidance, statistics), guidance

    def guide(
        self, features: list[Tensor], statistics: GlobalStatistics | None = None
    ) -> list[Tensor]:
        """FGM at every tap: the guidance maps."""
        return [ise.modulation(f, statistics) for ise, f in zip(self.scales, features, strict=True)]

    def mix(
        self,
        features: list[Tensor],
        guidance: list[Tensor],
        statistics: GlobalStatistics | None = None,
    ) -> list[Tensor]:
        """The branches at every tap, mixed by the guidance maps."""
        return [
            ise.mix(f, g, statistics)
            for ise, f, g in zip(self.scales, features, guidance, strict=True)
        ]

    def enhance_with(self, branch: str, features: list[Tensor]) -> list[Tensor]:
        """One DNC branch alone, unmixed, at every tap (stage 2). Raises KeyError for a branch that is not there."""
        return [ise.branches[branch](f) for ise, f in zip(self.scales, features, strict=True)]

    def branch_parameters(self, branch: str) -> list[nn.Parameter]:
        """The parameters of one branch at every tap."""
        return [p for ise in self.scales for p in ise.branches[branch].parameters()]

    def fusion_parameters(self) -> list[nn.Parameter]:
        """The parameters of FGM at every tap."""
        return [p for ise in self.scales for p in ise.modulation.parameters()]

    def restore(
        self,
        image: Tensor,
        skip_clean: bool | float = False,
        statistics: GlobalStatistics | None = None,
        control: Control = ALL,
    ) -> Restoration:
        """Restore and say why: the image, the guidance maps and the share of each degradation.

        Args:
            image: (B, 3, H, W), RGB in [0, 1].
            skip_clean: leave an image exactly as it is where the guidance calls it clean, and spare it the branches and the
                decoder; the others come out as in a batch of their own. A number replaces the `CLEAN_SHARE` of the clean
                branch from which on an image counts as clean. It waits for the guidance, so on a GPU it synchronises.
            statistics: where modules take means over the whole image from, such as a video's (see `vrdir.model.global_statistics`);
                None: from the image itself.
            control: how strongly it restores, and of what.

        Raises:
            ValueError: the image has another shape, or there is no clean branch to skip by.
            ArithmeticError: the guidance that `skip_clean` decides by is not finite.
            RuntimeError: `skip_clean` under torch.export or torch.compile, which know no branch that depends on the data.
        """
        check_image(image)
        threshold = clean_threshold(skip_clean, self.config)
        veil = self.find_veil(image) if control.lifts() else None
        lifted = None if veil is None else control.of_veil(veil)
        clear = image if lifted is None else lift_whole(image, lifted)
        original = pad_to_multiple(image, self.config.multiple)
        padded = pad_to_multiple(clear, self.config.multiple)
        features = self.extract(padded)
        guidance = self.guide(features, statistics)
        shares = shares_of(guidance)
        if not control.is_local(self.unveils):
            return Restoration(in_range(clear), guidance, shares, veil)
        steering = control.of_guidance(guidance, self.config.branches)
        if threshold is None:
            mixed = self.mix(features, steering, statistics)
            restored = control.of_result(padded, self.decoder(mixed, padded, original, statistics))
            image = in_range(crop_to(restored, image.shape[-2:]))
            return Restoration(image, guidance, shares, veil)
        if torch.compiler.is_compiling():
            raise RuntimeError(
                "skip_clean decides by what is in the image, which torch.export and torch.compile cannot; switch it off"
            )

        check_result(shares)  # NaN is above no threshold
        unclean = (~is_clean(shares, lifted, threshold)).nonzero().flatten()
        if len(unclean) == 0:
            return Restoration(image, guidance, shares, veil)
        if len(unclean) < len(image):
            features = [f[unclean] for f in features]
            padded, original = padded[unclean], original[unclean]
        mixed = self.mix(features, [g[unclean] for g in steering], statistics)
        restored = control.of_result(padded, self.decoder(mixed, padded, original, statistics))
        restored = in_range(crop_to(restored, image.shape[-2:]))
        return Restoration(image.index_copy(0, unclean, restored), guidance, shares, veil)

    def forward(self, image: Tensor) -> Tensor:
        return self.restore(image).image

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As every module's, of contiguous tensors: safetensors refuses others, such as weights that are channels last."""
        state = super().state_dict(*args, **kwargs)
        if not kwargs.get("keep_vars"):
            prefix = kwargs.get("prefix", "")
            state.update(
                {name: state[name].contiguous() for name in state if name.startswith(prefix)}
            )
        return state

    def load_pretrained_extractor(self, path: Path | None = None) -> None:
        """Give E its pretrained weights, before training: from `path`, else from where they are published."""
        self.extractor.load_pretrained(path)

    def save_pretrained(self, folder: Path | str, *, half: bool = False) -> None:
        """Write `config.json` and `model.safetensors` into `folder`, each in one piece or not at all.

        `half` stores float16, which halves the file; loading gives float32 again. For `small` it moved the validation PSNR of
        each kind of image by at most 0.04 dB.

        Raises:
            ValueError: a value is not finite, or not in float16.
        """
        folder = Path(folder)
        state = {
            name: (t.half() if half else t).detach().cpu().contiguous()
            for name, t in self.state_dict().items()
        }
        check_finite(state, "the network in float16" if half else "the network", "it is not saved")
        folder.mkdir(parents=True, exist_ok=True)
        config = json.dumps(self.config.model_dump(mode="json"), indent=2) + "\n"
        # Serialised first, written under a temporary name, renamed: a reader meets a whole file or none, and weights only with a config.
        for name, content in ((CONFIG_FILE, config.encode()), (WEIGHTS_FILE, serialize(state))):
            write_whole(content, folder / name)

    def push_to_hub(
        self,
        repository: str,
        *,
        half: bool = False,
        private: bool | None = None,
        token: str | None = None,
        message: str = "Upload VRDIR weights",
    ) -> str:
        """Upload what `save_pretrained` writes to a Hugging Face repository, which is made if it is not there.

        `VRDIR.from_pretrained(repository)` and `vrdir.Restorer(repository)` then load it.

        Args:
            repository: its id, "owner/name".
            half: as for `save_pretrained`.
            private: whether to make it a private one; None: as the owner's default is.
            token: of an account that may write there; None: the one that is logged in.
            message: the commit's.

        Returns:
            The commit's address.

        Raises:
            ValueError: huggingface_hub is not installed, or the hub does not take it.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, half=half)
            return upload(Path(folder), repository, private=private, token=token, message=message)

    @classmethod
    def from_pretrained(
        cls, weights: str | Path = "small", *, device: torch.device | str = "cpu"
    ) -> VRDIR:
        """Load a model in evaluation mode. Nothing is unpickled and nothing is skipped.

        Args:
            weights: the name of bundled weights, a folder with `config.json` and `model.safetensors`, or the id of a
                Hugging Face repository ("owner/name", with the `hub` extra).
            device: where to put it.

        Raises:
            FileNotFoundError: there are no such weights.
            ValueError: a file is damaged, holds another architecture than its config says, or a value that is not finite.
        """
        folder = resolve_weights(weights)
        config = read_config(folder / CONFIG_FILE)
        path = folder / WEIGHTS_FILE
        if not path.is_file():
            raise MissingFileError(
                f"{path} is missing: a model folder holds {CONFIG_FILE} and {WEIGHTS_FILE}"
            )
        shapes = read_shapes(path)
        try:
            with torch.device("meta"):  # no memory for what the file does not hold
                outline = cls(config)
        except ValueError as error:
            raise WeightsError(f"{folder / CONFIG_FILE} describes no network: {error}") from None
        check_state(
            outline,
            shapes,
            f"{path} does not fit the config beside it",
            f"use the {CONFIG_FILE} it was saved with",
        )
        model = cls(config)
        model.load_state_dict(read_tensors(path))
        return model.to(device).eval()


def check_image(image: Tensor) -> None:
    """Raise ValueError if a tensor is no (B, 3, H, W) of at least one pixel."""
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise InputError(
            f"expected an RGB tensor (B, 3, H, W) of at least one pixel, got shape {tuple(image.shape)}"
        )


def in_range(restored: Tensor) -> Tensor:
    """What a decoder gives, clamped to [0, 1]. What is infinite becomes NaN rather than white: `check_result` is to find it."""
    return restored.clamp(0, 1) + 0 * restored


def check_result(*values: Tensor) -> None:
    """Raise ArithmeticError if a network's result is not finite."""
    if not all(bool(value.isfinite().all()) for value in values):
        raise ResultError(
            "the network's result has NaN or infinite values, so there is no image; its weights are damaged, or too large for the "
            "precision it computes in: check them (vrdir weights verify), get or train them again, or compute in float32"
        )


def shares_of(guidance: list[Tensor]) -> Tensor:
    """(B, K), the mean of the guidance over positions and taps."""
    return torch.stack([g.mean((2, 3)) for g in guidance]).mean(0)


def is_clean(shares: Tensor, veil: Lift | None, threshold: float) -> Tensor:
    """(B,) bool, whether images are to be left alone: no veil, and a share of the clean branch."""
    clean = shares[:, -1] >= threshold
    if veil is None:
        return clean
    return clean & (veil.amount() < THIN)


def clean_threshold(skip_clean: bool | float, config: VRDIRConfig) -> float | None:
    """The share from which on an image counts as clean; None to restore them all. Raises ValueError if there is no such share."""
    if skip_clean is False:
        return None
    if not config.clean_branch:
        raise InputError(
            "skip_clean needs a network with a clean branch (clean_branch in its config), which this one has not"
        )
    threshold = CLEAN_SHARE if skip_clean is True else float(skip_clean)
    if not 0 < threshold <= 1:
        raise InputError(
            f"skip_clean is True, False or a share above 0 and up to 1, not {skip_clean!r}"
        )
    return threshold


def read_config(path: Path) -> VRDIRConfig:
    """Read `config.json`. Raises FileNotFoundError or ValueError, naming the file and the field."""
    if not path.is_file():
        raise MissingFileError(
            f"{path} is missing: a model folder holds {CONFIG_FILE} and {WEIGHTS_FILE}"
        )
    try:
        return VRDIRConfig.model_validate(read_settings(path))
    except ValidationError as error:
        raise WeightsError(f"{path} is no VRDIR config: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """A pydantic error in one line: each field, up to eight, and what is wrong with it."""
    errors = error.errors()
    shown = [f"{'.'.join(map(str, e['loc']))[:80] or 'content'}: {e['msg']}" for e in errors[:8]]
    return "; ".join(shown + [f"and {len(errors) - 8} more"] * (len(errors) > 8))


def check_state(model: nn.Module, state: dict[str, Any], problem: str, remedy: str) -> None:
    """Raise ValueError, "problem (the difference); remedy", if `state` is not exactly what `model` holds; shapes alone will do."""
    expected = model.state_dict()
    shapes = {name: tuple(getattr(value, "shape", value)) for name, value in state.items()}
    problems = [f"lacks {name}" for name in expected if name not in state]
    problems += [f"has {name}, unknown here" for name in state if name not in expected]
    problems += [
        f"{name} has shape {shapes[name]} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in shapes and shapes[name] != tensor.shape
    ]
    if problems:
        shown = "; ".join(problems[:4]) + (
            f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        )
        raise WeightsError(f"{problem} ({shown}); {remedy}")
