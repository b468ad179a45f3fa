"""VRDIR: the whole network, and how it is saved and loaded."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from safetensors.torch import save as serialize
from torch import Tensor, nn

from vrdir.atomic import write_whole
from vrdir.errors import MissingFileError, TracingError, WeightsError
from vrdir.forks import survive_forks
from vrdir.model.checks import check_image, check_result, in_range
from vrdir.model.clean_images import clean_threshold, is_clean, shares_of
from vrdir.model.config import VRDIRConfig, read_config
from vrdir.model.control import ALL, Control
from vrdir.model.global_context import GlobalContext, Lift, lift, lift_whole, reduced, resampling
from vrdir.model.global_statistics import GlobalStatistics
from vrdir.model.intrinsic_extractor import EXTRACTORS, select_taps
from vrdir.model.loading import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    check_finite,
    check_state,
    read_shapes,
    read_tensors,
)
from vrdir.model.semantics_decoder import PixelSkipDecoder, SemanticsDecoder
from vrdir.model.semantics_enhancement import SemanticsEnhancement
from vrdir.tensors import crop_to, pad_to_multiple, usual_defaults
from vrdir.weights.bundled import resolve_weights, upload


class Restoration(NamedTuple):
    """The result of `VRDIR.restore`.

    Attributes:
        image: (B, 3, H, W) in [0, 1].
        guidance: one (B, K, h, w) per tap, fine to coarse; the K maps sum to 1 at every position.
        shares: (B, K), the mean of the guidance over positions and taps: how much of each
            degradation the network finds.
        veil: the answer of the global context for the whole image, whatever the strength; None
            without a global context, or if haze is not to be removed.
    """

    image: Tensor
    guidance: list[Tensor]
    shares: Tensor
    veil: Lift | None = None


class VRDIR(nn.Module):
    """The restoration network: `SAD(ISE(E(x)))` (VRD-IR, CVPR 2023).

    Call it on an RGB float tensor (B, 3, H, W) in [0, 1], with H and W of at least 1. It returns
    the restored image of the same shape. E is frozen; the training stages train the other parts.

    Args:
        config: the network's shape. All weights are random: see `load_pretrained_extractor` and
            `from_pretrained`.
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
        """Whether the global context removes haze, so that the local network need not."""
        return self.context is not None and not self.context.tone

    def extract(self, image: Tensor) -> list[Tensor]:
        """Return the features of E at the taps of the local network, for (B, 3, H, W) in [0, 1]."""
        return self.extractor(image, self.config.strides)

    def veil(self, copy: Tensor) -> Lift | None:
        """Return the global context's answer for reduced copies (B, 3, S, S); None without one."""
        if self.context is None or self.config.context is None:
            return None
        return self.context(self.extractor(copy, self.config.context.strides), copy)

    def find_veil(self, image: Tensor) -> Lift | None:
        """Return the global context's answer for whole images (B, 3, H, W), or None without one."""
        context = self.config.context
        return None if context is None else self.veil(reduced(image, context.side))

    def lifted_windows(self, windows: Tensor, copy: Tensor, place: Tensor) -> tuple[Tensor, Lift]:
        """Lift windows of larger views; return them and the global context's answer (training).

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
        """Apply ISE at every tap: return the mixed features and the guidance maps."""
        guidance = self.guide(features, statistics)
        return self.mix(features, guidance, statistics), guidance

    def guide(
        self, features: list[Tensor], statistics: GlobalStatistics | None = None
    ) -> list[Tensor]:
        """Apply FGM at every tap: return the guidance maps."""
        return [ise.modulation(f, statistics) for ise, f in zip(self.scales, features, strict=True)]

    def mix(
        self,
        features: list[Tensor],
        guidance: list[Tensor],
        statistics: GlobalStatistics | None = None,
    ) -> list[Tensor]:
        """Return the branches' features at every tap, mixed by the guidance maps."""
        return [
            ise.mix(f, g, statistics)
            for ise, f, g in zip(self.scales, features, guidance, strict=True)
        ]

    def enhance_with(self, branch: str, features: list[Tensor]) -> list[Tensor]:
        """Apply one DNC branch alone at every tap (stage 2). Raises KeyError if there is none."""
        return [ise.branches[branch](f) for ise, f in zip(self.scales, features, strict=True)]

    def branch_parameters(self, branch: str) -> list[nn.Parameter]:
        """Return the parameters of one branch at every tap."""
        return [p for ise in self.scales for p in ise.branches[branch].parameters()]

    def fusion_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of FGM at every tap."""
        return [p for ise in self.scales for p in ise.modulation.parameters()]

    def restore(
        self,
        image: Tensor,
        skip_clean: bool | float = False,
        statistics: GlobalStatistics | None = None,
        control: Control = ALL,
    ) -> Restoration:
        """Restore images; return them with the guidance maps and the share of each degradation.

        Args:
            image: (B, 3, H, W), RGB in [0, 1].
            skip_clean: leave images unchanged that the guidance considers clean, which saves the
                branches and the decoder; the others are restored as in their own batch. A
                number replaces `CLEAN_SHARE`, the share of the clean branch from which an image
                counts as clean. On a GPU this waits for the guidance.
            statistics: means over the whole image for the modules that use them, such as those of a
                video (see `vrdir.model.global_statistics`); None measures them on the image.
            control: how strongly to restore, and which degradations.

        Raises:
            InputError: the image has another shape, or the network has no clean branch.
            ResultError: the guidance is not finite, so `skip_clean` cannot decide.
            TracingError: `skip_clean` under torch.export or torch.compile, which cannot decide by
                the data.
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
            raise TracingError(
                "skip_clean depends on the image's content, which torch.export and torch.compile "
                "do not support; switch it off"
            )

        check_result(shares)  # NaN exceeds no threshold
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
        """Return the restored images, (B, 3, H, W) in [0, 1]."""
        return self.restore(image).image

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the state with contiguous tensors: safetensors refuses others (channels last)."""
        state = super().state_dict(*args, **kwargs)
        if not kwargs.get("keep_vars"):
            prefix = kwargs.get("prefix", "")
            state.update(
                {name: state[name].contiguous() for name in state if name.startswith(prefix)}
            )
        return state

    def load_pretrained_extractor(self, path: Path | None = None) -> None:
        """Load E's pretrained weights, before training: from `path`, or from their publisher."""
        self.extractor.load_pretrained(path)

    def save_pretrained(self, folder: Path | str, *, half: bool = False) -> None:
        """Write `config.json` and `model.safetensors` into `folder`, each whole or not at all.

        Args:
            folder: is created if it does not exist.
            half: store float16, which halves the file; loading gives float32. For `small` the
                validation PSNR of each kind of image changed by at most 0.04 dB.

        Raises:
            WeightsError: a value is not finite, or not in float16.
        """
        folder = Path(folder)
        state = {
            name: (t.half() if half else t).detach().cpu().contiguous()
            for name, t in self.state_dict().items()
        }
        check_finite(state, "the network in float16" if half else "the network", "it is not saved")
        folder.mkdir(parents=True, exist_ok=True)
        config = json.dumps(self.config.model_dump(mode="json"), indent=2) + "\n"
        # The config comes first, so that a reader never finds weights without one.
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
        """Upload the files of `save_pretrained` to a Hugging Face repository; create it if needed.

        `VRDIR.from_pretrained(repository)` and `vrdir.Restorer(repository)` then load it.

        Args:
            repository: its id, "owner/name".
            half: as for `save_pretrained`.
            private: create a private repository; None uses the owner's default.
            token: of an account that may write there; None uses the account that is logged in.
            message: of the commit.

        Returns:
            The commit's address.

        Raises:
            MissingPackageError: huggingface_hub is not installed.
            WeightsError: the hub refuses the upload.
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
            weights: the name of bundled weights, a folder with `config.json` and
                `model.safetensors`, or the id of a Hugging Face repository ("owner/name", with the
                extra `hub`).
            device: where the model is put.

        Raises:
            MissingFileError: there are no such weights.
            WeightsError: a file is damaged, does not fit its config, or contains a value that is
                not finite.
        """
        folder = resolve_weights(weights)
        config = read_config(folder / CONFIG_FILE)
        path = folder / WEIGHTS_FILE
        if not path.is_file():
            raise MissingFileError(
                f"{path} is missing: a model folder contains {CONFIG_FILE} and {WEIGHTS_FILE}"
            )
        shapes = read_shapes(path)
        with usual_defaults():
            return cls._read(config, folder, shapes).to(device).eval()

    @classmethod
    def _read(cls, config: VRDIRConfig, folder: Path, shapes: dict[str, tuple[int, ...]]) -> VRDIR:
        """Build a model whose weights have these shapes, and read them. Raises WeightsError."""
        path = folder / WEIGHTS_FILE
        try:
            with torch.device("meta"):  # no memory for what the file does not contain
                outline = cls(config)
        except ValueError as error:
            raise WeightsError(f"{folder / CONFIG_FILE} describes no network: {error}") from None
        check_state(
            outline,
            shapes,
            f"{path} does not match its config",
            f"use the {CONFIG_FILE} it was saved with",
        )
        model = cls(config)
        model.load_state_dict(read_tensors(path))
        return model
