"""The times of frames: one clock for a whole file, and the order of the frames."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

# Seconds that a clock must jump back, or ahead, to count as a new start; FFmpeg's own tool uses the
# same.
BACK, AHEAD = Fraction(1, 10), 10
# A frame that is this many packets late will never come: FFmpeg's decoders hold back at most 16.
REORDERED = 17


class _Part(NamedTuple):
    """A part of a file with one clock: when it starts, and the seconds to add to its times."""

    start: Fraction
    shift: Fraction


class _Position(NamedTuple):
    """The position of a stream: the number of the part, its first time there, and its last."""

    part: int
    first: Fraction
    last: Fraction


class Clock:
    """Finds where the clock of a file starts again, and continues the times from there.

    Clocks start again in files that were joined (`cat a.ts b.ts`, pieces of a live stream), and
    where a recorder was stopped. Everything after that is moved by one amount for picture and
    sound, so that they stay together. Streams do not start again at the same packet: each continues
    with the new part independently.

    Args:
        jumps: the format allows its clock to jump, also ahead, as MPEG-TS does. In other formats
            only a key frame can start again, because some of them do not store decoding times.
        frame: the duration in seconds of a packet that has none.
    """

    def __init__(self, jumps: bool, frame: Fraction) -> None:
        self._jumps, self._frame = jumps, frame
        self._parts = [_Part(Fraction(0), Fraction(0))]
        self._positions: dict[int, _Position] = {}
        self._end = Fraction(0)

    def shift(self, packet: Any) -> Fraction:
        """Return the seconds to add to a packet's times.

        Args:
            packet: the next packet of the file, of any stream.
        """
        newest = len(self._parts) - 1
        times = [time * packet.time_base for time in (packet.dts, packet.pts) if time is not None]
        if not times or packet.stream.type not in ("video", "audio"):
            return self._parts[newest].shift  # other packets are too rare: a jump may be a pause
        decoded, shown = times[0], times[-1]
        part, first, last = self._positions.get(
            packet.stream_index, _Position(newest, decoded, decoded)
        )
        if self._starts_again(packet, decoded, first, last):
            if part == newest or abs(decoded - self._parts[newest].start) > AHEAD:
                self._parts.append(_Part(shown, self._end - shown))
            part, first = len(self._parts) - 1, decoded
        self._positions[packet.stream_index] = _Position(part, first, decoded)
        shift = self._parts[part].shift
        length = (packet.duration or 0) * packet.time_base or self._frame
        self._end = max(self._end, shown + shift + length)
        return shift

    def _starts_again(
        self, packet: Any, decoded: Fraction, first: Fraction, last: Fraction
    ) -> bool:
        """Return whether the clock has started again, from a stream's first and last time."""
        if decoded < last - BACK or first >= decoded != last:
            return bool(self._jumps or packet.is_keyframe)
        return self._jumps and decoded > last + AHEAD


class Expected(NamedTuple):
    """A packet whose frame has not been decoded yet.

    Attributes:
        time: when its frame is shown.
        number: its number among the stream's packets.
        duration: how long its frame is shown; 0 if unknown.
        own: the time comes from the packet itself, not from its neighbours.
    """

    time: int
    number: int
    duration: int
    own: bool


class TimedFrame(NamedTuple):
    """A decoded frame, None for one that was lost, with its time and duration."""

    frame: Any
    time: int
    duration: int


class FrameOrder:
    """Gives each frame its time.

    Decoders return frames in the order in which they are shown. A packet's time need not belong to
    its own frame: AVI stores only the order of decoding, and some programs write that into other
    formats too. So the sorted times are given to the frames in their order, equal times one unit
    apart. A frame counts as lost only when the decoder cannot hold it back any longer; until then,
    the frames after it wait.
    """

    def __init__(self) -> None:
        self._times: list[Expected] = []
        self._missing: set[int] = set()
        self._arrived: deque[Any] = deque()
        self._newest = 0
        self._last: int | None = None

    def expect(self, packet: Expected) -> None:
        """Note a packet that is given to the decoder."""
        heapq.heappush(self._times, packet)
        self._missing.add(packet.number)

    def add(self, number: int, frame: Any) -> None:
        """Note a frame decoded from the packet with this number.

        A frame that is returned twice or was not expected is dropped.
        """
        if number in self._missing:
            self._missing.remove(number)
            self._arrived.append(frame)
            self._newest = max(self._newest, number)

    def ready(self, finished: bool = False) -> Iterator[TimedFrame]:
        """Yield the frames whose time is certain.

        Args:
            finished: the decoder is empty; all frames are yielded.
        """
        while self._times:
            time, number, duration, own = self._times[0]
            if number in self._missing and not finished and number + REORDERED > self._newest:
                return
            heapq.heappop(self._times)
            lost = number in self._missing
            self._missing.discard(number)
            if lost and not own:  # the second field of a picture, decoded with the first
                continue
            self._last = time if self._last is None else max(time, self._last + 1)
            yield TimedFrame(None if lost else self._arrived.popleft(), self._last, duration)
