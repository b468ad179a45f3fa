"""What a camera reads: a webcam, an address or a file, opened by PyAV; errors in plain words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, NamedTuple

from vrdir.errors import InputError, VideoError
from vrdir.video.formats import import_av

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "tcp", "srt", "rtp")
OPEN_SECONDS, READ_SECONDS = 10.0, 5.0  # without data, after which a source counts as lost
ADDRESS = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
# FFmpeg's options for waiting for a sender, by scheme; other schemes need none.
LISTENING = {
    "rtsp": {"rtsp_flags": "listen", "listen_timeout": str(int(OPEN_SECONDS))},
    "rtmp": {"listen": "1"},
    "http": {"listen": "1"},
    "tcp": {"listen": "1"},
}
# For each error of PyAV: its meaning, and whether another attempt to open the source is useless.
MEANINGS = (
    (
        "HTTPUnauthorizedError",
        "it requires a user and a password: SCHEME://USER:PASSWORD@HOST",
        True,
    ),
    ("HTTPForbiddenError", "it denies access to this user", True),
    ("HTTPNotFoundError", "it has no stream of this name", True),
    ("HTTPClientError", "it rejects the request", True),
    ("InvalidDataError", "it does not send a video", True),
    ("DemuxerNotFoundError", "it does not send a video", True),
    ("ProtocolNotFoundError", "the installed PyAV cannot read such addresses", True),
    ("HTTPServerError", "it reports an internal error", False),
    ("ExitError", f"no response for {READ_SECONDS:.0f} seconds", False),
    ("TimeoutError", f"no response for {READ_SECONDS:.0f} seconds", False),
    ("ConnectionRefusedError", "it refuses the connection: no server listens there", False),
    ("EOFError", "the stream ended", False),
)


class LostError(Exception):
    """A source cannot be opened or read.

    Attributes:
        final: whether another attempt is useless.
    """

    def __init__(self, reason: str, final: bool) -> None:
        super().__init__(reason)
        self.final = final


class Source(NamedTuple):
    """A source that a camera reads.

    Attributes:
        address: the address or path, for FFmpeg. It may contain a password, so it is never printed.
        name: the address without secrets, for messages.
        kind: whether it is a webcam, a network address or a file.
        options: options for FFmpeg.
    """

    address: str
    name: str
    kind: Literal["webcam", "address", "file"]
    options: dict[str, str]

    @property
    def is_live(self) -> bool:
        """Whether the source has no end, so that it is opened again when it is lost."""
        return self.kind != "file"

    def __repr__(self) -> str:
        return f"Source({self.name!r})"

    def open(self) -> Any:
        """Open the source.

        Returns:
            A PyAV container whose first video stream can be decoded.

        Raises:
            LostError: it cannot be opened, or contains no video that can be decoded.
        """
        av = import_av()
        try:
            container = av.open(
                self.address,
                format="v4l2" if self.kind == "webcam" else None,
                options=self.options,
                timeout=(OPEN_SECONDS, READ_SECONDS),
                metadata_errors="replace",
            )
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self.lost(error) from None
        streams = container.streams.video
        if streams and streams[0].codec_context is not None:
            return container
        container.close()
        reason = (
            "the installed PyAV has no decoder for its codec" if streams else "it has no picture"
        )
        raise LostError(reason, final=True)

    def lost(self, error: Exception) -> LostError:
        """Return an error of FFmpeg in plain words, without the address."""
        av = import_av()
        if self.kind != "address" and isinstance(error, FileNotFoundError):
            return LostError("it does not exist", self.kind == "file")
        for name, meaning, final in MEANINGS:
            if isinstance(error, getattr(av.error, name)):
                return LostError(meaning, final)
        # Not the whole text, which names the address.
        return LostError(getattr(error, "strerror", None) or type(error).__name__, False)


def source_of(source: str | int | Path, listen: bool = False) -> Source:
    """Return the source that a number, address or path names.

    Args:
        source: the number or device of a webcam, an address, or a video file.
        listen: wait at the address for a sender, instead of connecting to it.

    Raises:
        InputError: the address has an unsupported scheme, or cannot listen.
        VideoError: the path is a folder or another thing that is not a file.
    """
    text = str(source)
    address = ADDRESS.match(text)
    if address is not None and not isinstance(source, Path):
        return _address(text, address[1].lower(), listen)
    if listen:
        raise InputError(f"only {', '.join(LISTENING)} addresses can listen, not {text}")
    if text.isascii() and text.isdecimal() and not isinstance(source, Path):
        text = f"/dev/video{text}"
    if text.startswith("/dev/video"):
        return Source(text, text, "webcam", {})
    path = Path(text)
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "no file"
        raise VideoError(f"{path} is {what}; use a video file, an address or a webcam's number")
    return Source(text, text, "file", {})


def _address(text: str, scheme: str, listen: bool) -> Source:
    if scheme not in SCHEMES:
        raise InputError(
            f"{hidden(text)} has an unsupported scheme; use {', '.join(SCHEMES)}, a file "
            "or a webcam's number"
        )
    options = {"fflags": "nobuffer", "flags": "low_delay"}
    if listen and scheme not in LISTENING:
        advice = "remove --listen: it always waits" if scheme in ("udp", "rtp") else "ask there"
        raise InputError(f"{scheme} cannot listen, only {', '.join(LISTENING)} can; {advice}")
    if listen:
        options |= LISTENING[scheme]
    elif scheme.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"
    return Source(text, hidden(text), "address", options)


def hidden(address: str) -> str:
    """Return an address without its secrets.

    These are the user and password, the query, and the stream key of RTMP (the end of its path).
    """
    shown = re.sub(r"//.*@", "//", address, count=1, flags=re.DOTALL)
    shown = re.sub(r"\?.*", "?...", shown, count=1, flags=re.DOTALL)
    return re.sub(r"^(rtmps?://[^/]*/[^/]*/).+", r"\1...", shown, flags=re.IGNORECASE | re.DOTALL)
