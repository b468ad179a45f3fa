"""The networks of the service. They can be loaded again while requests are processed."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from vrdir.errors import InputError, VrdirError
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.network import Precision
from vrdir.restoring.restorer import Restorer
from vrdir.serving.problems import ProblemError

logger = logging.getLogger(__name__)

KEPT = 64  # restorers for a strength or a choice of degradations; they share one network


class _Loaded(NamedTuple):
    """One set of weights: a restorer with the default control, and a hash of the weights."""

    restorer: Restorer
    fingerprint: str


class Networks:
    """The restorers of the service, by name. Several threads may use it.

    Args:
        weights: a list of `NAME=WEIGHTS` or `WEIGHTS`. WEIGHTS is a bundled name, a folder, a
            repository id or an exported file; without NAME, the last part of it is the name. A
            request chooses by name and can never name a file. The first one is the default.
        device: as for `Restorer`.
        backend: as for `Restorer`.
        precision: as for `Restorer`.

    Raises:
        VrdirError: weights cannot be loaded, or two have the same name.
    """

    def __init__(
        self,
        weights: Sequence[str] = ("small",),
        device: str = "auto",
        backend: str = "torch",
        precision: Precision = "float32",
    ) -> None:
        self._specs = [_named(text) for text in weights]
        names = [name for name, _ in self._specs]
        if len(set(names)) < len(names):
            raise InputError(
                f"two --weights have the same name ({', '.join(names)}); use NAME=WEIGHTS"
            )
        self._device, self._backend, self._precision = device, backend, precision
        self._lock = threading.Lock()
        self._loaded = self._load()
        self._controlled: OrderedDict[tuple[str, float, tuple[str, ...]], Restorer] = OrderedDict()

    @property
    def names(self) -> list[str]:
        """The names that a request may give; the first is the default."""
        return list(self._loaded)

    @property
    def default(self) -> Restorer:
        """The restorer for requests that name no weights."""
        return next(iter(self._loaded.values())).restorer

    def reload(self) -> None:
        """Load all weights again. Requests in work keep the old ones; after an error, so do all."""
        try:
            loaded = self._load()
        except (VrdirError, OSError, ValueError, RuntimeError):
            logger.exception("weights could not be reloaded; the old ones are kept")
            return
        with self._lock:
            self._loaded = loaded
            self._controlled.clear()
        logger.info("weights reloaded: %s", ", ".join(loaded))

    def find(self, name: str | None, strength: float = 1.0, only: tuple[str, ...] = ()) -> Restorer:
        """Return the restorer for a request.

        Args:
            name: the name of the weights; None for the default.
            strength: 0 changes nothing, 1 restores as trained, as for `Restorer`.
            only: the degradations to remove; empty for all.

        Raises:
            ProblemError: there are no weights of this name, or a value is out of range.
        """
        with self._lock:
            loaded = self._loaded
            key = (name or next(iter(loaded)), strength, tuple(sorted(only)))
            if key in self._controlled:
                self._controlled.move_to_end(key)
                return self._controlled[key]
        if key[0] not in loaded:
            raise ProblemError(
                "bad-parameter", f"weights must be one of {', '.join(loaded)}, not {name!r:.80}"
            )
        plain = loaded[key[0]].restorer
        restorer = plain if strength == 1.0 and not only else self._control(plain, strength, only)
        with self._lock:
            if loaded is self._loaded:
                self._controlled[key] = restorer
                if len(self._controlled) > KEPT:
                    self._controlled.popitem(last=False)
        return restorer

    def describe(self) -> dict[str, Any]:
        """Return the response of `GET /v1/weights`, as JSON values."""
        weights = [
            {
                "name": name,
                "degradations": [
                    name for name in loaded.restorer.model.config.guidance_names if name != "clean"
                ],
                "backend": self._backend,
                "precision": self._precision,
                "device": str(loaded.restorer.device),
                "fingerprint": loaded.fingerprint,
            }
            for name, loaded in self._loaded.items()
        ]
        return {"default": self.names[0], "weights": weights}

    def _control(self, plain: Restorer, strength: float, only: tuple[str, ...]) -> Restorer:
        if not isinstance(plain.model, VRDIR):
            raise ProblemError(
                "bad-parameter",
                "strength and only need the backend torch; this service uses another backend",
            )
        try:
            return Restorer(
                plain.model,
                str(plain.device),
                precision=self._precision,
                strength=strength,
                only=only or None,
            )
        except ValueError as error:
            raise ProblemError("bad-parameter", str(error)) from None

    def _load(self) -> dict[str, _Loaded]:
        loaded = {}
        for name, spec in self._specs:
            restorer = Restorer(
                spec, self._device, backend=self._backend, precision=self._precision
            )
            loaded[name] = _Loaded(restorer, restorer.fingerprint().split(" ")[0])
        return loaded


def _named(text: str) -> tuple[str, str]:
    """Return name and weights of `NAME=WEIGHTS`; without NAME, the last part of the path."""
    name, equals, spec = text.partition("=")
    return (name, spec) if equals else (PurePath(text).name, text)
