"""The kinds of recogniser that `restore_before` connects to.

A new kind is a new module with a subclass of `RestoredCallable`, and an entry in `CONNECTORS`.
"""

from __future__ import annotations

from typing import Any

from vrdir.errors import NotCallableError
from vrdir.frontend.connectors.callables import RestoredCallable
from vrdir.frontend.connectors.hugging_face import RestoredPipeline
from vrdir.frontend.connectors.module import RestoredModule
from vrdir.frontend.connectors.onnx_session import RestoredSession
from vrdir.frontend.connectors.ultralytics import RestoredUltralytics

Connector = type[RestoredModule] | type[RestoredCallable]

# The first that accepts a recogniser is taken, so the more specific ones are first: an Ultralytics
# model is a torch.nn.Module, too, and everything that is supported is callable or a session.
CONNECTORS: tuple[Connector, ...] = (
    RestoredSession,
    RestoredUltralytics,
    RestoredModule,
    RestoredPipeline,
    RestoredCallable,
)


def connector_for(recogniser: Any) -> Connector:
    """Return the connector for a recogniser.

    Raises:
        NotCallableError: it cannot be called with images.
        RecogniserError: it takes no images.
    """
    for connector in CONNECTORS:
        if connector.accepts(recogniser):
            return connector
    hint = "; for an exported program, pass .module()" if hasattr(recogniser, "module") else ""
    raise NotCallableError(
        f"a recogniser must be callable with images; {recogniser!r:.80} is not{hint}"
    )


def is_connected(recogniser: Any) -> bool:
    """Return whether a recogniser already has a restorer."""
    return isinstance(recogniser, (RestoredModule, RestoredCallable))
