"""When each frame is shown: one clock for a whole file, and the order of the frames."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

BACK, AHEAD = (
    Fraction(1, 10),
    10,
)  # seconds; what FFmpeg's own tool takes for a clock that starts again
REORDERED = 17  # packets after which a frame that has not come never will: no decoder of FFmpeg's holds back more than 16


class _Part(NamedTuple):
    """What was recorded by one clock: where that begins, and what is added to its times."""

    start: Fraction
    shift: Fraction


class _Place(NamedTuple):
    """Where a stream is: in which part, its first time there and its last."""

    part: int
    first: Fraction
    last: Fraction


class Clock:
    """Finds where the clock of a file starts again, and carries on from where it was.

    Files that were joined (`cat a.ts b.ts`, pieces of a live stream) and recorders that were stopped do so. What comes after is
    moved by one amount for picture and sound, which so stay together. Streams do not start again at the same packet: each goes
    over to the new part by itself.

    Args:
        jumps: the format allows clocks to jump, ahead too, as MPEG-TS does. In others only a key frame can start again, since
            not all of them store the times by which packets are decoded.
        frame: seconds that a packet lasts which does not say it.
    """

    def __init__(self, jumps: bool, frame: Fraction) -> None:
        self._jumps, self._frame = jumps, frame
        self._parts = [_Part(Fraction(0), Fraction(0))]
        self._places: dict[int, _Place] = {}
        self._end = Fraction(0)

    def shift(self, packet: Any) -> Fraction:
        """Seconds to add to the times of a packet; of all streams in the file's order."""
        newest = len(self._parts) - 1
        times = [time * packet.time_base for time in (packet.dts, packet.pts) if time is not None]
        if not times or packet.stream.type not in (
            "video",
            "audio",
        ):  # too rare to tell a jump from a pause
            return self._parts[newest].shift
        decoded, shown = times[0], times[-1]
        part, first, last = self._places.get(packet.stream_index, _Place(newest, decoded, decoded))
        back = decoded < last - BACK or first >= decoded != last
        if (back and (self._jumps or packet.is_keyframe)) or (
            self._jumps and decoded > last + AHEAD
        ):
            if part == newest or abs(decoded - self._parts[newest].start) > AHEAD:
                self._parts.append(_Part(shown, self._end - shown))
            part, first = len(self._parts) - 1, decoded
        self._places[packet.stream_index] = _Place(part, first, decoded)
        shift = self._parts[part].shift
        length = (packet.duration or 0) * packet.time_base or self._frame
        self._end = max(self._end, shown + shift + length)
        return shift


class Expected(NamedTuple):
    """A packet whose frame is to come: the time of showing, its number in the file, its duration, and whether that time is its own."""

    time: int
    number: int
    duration: int
    own: bool


class Shown(NamedTuple):
    """A frame of the decoder, None for one that never came, with its time and duration."""

    frame: Any
    time: int
    duration: int


class Order:
    """Gives each frame its time. What comes from the decoder comes in the order in which it is shown.

    A packet's time need not be that of its own frame: AVI has none but the order of decoding, and some programs write that into
    other formats, too. So the frames in their order get the times in theirs, equal ones a tick apart. A frame is missed
    only where the decoder cannot hold it back any longer: until then those after it wait.
    """

    def __init__(self) -> None:
        self._times: list[Expected] = []
        self._missing: set[int] = set()
        self._arrived: deque[Any] = deque()
        self._newest = 0
        self._last: int | None = None

    def expect(self, packet: Expected) -> None:
        """Of a packet that goes into the decoder."""
        heapq.heappush(self._times, packet)
        self._missing.add(packet.number)

    def arrive(self, number: int, frame: Any) -> None:
        """Of a frame that the decoder made of the packet with this number; one that comes twice, or unexpected, is left out."""
        if number in self._missing:
            self._missing.remove(number)
            self._arrived.append(frame)
            self._newest = max(self._newest, number)

    def ready(self, finished: bool = False) -> Iterator[Shown]:
        """The frames whose time is settled: all of them, once the decoder is empty."""
        while self._times:
            time, number, duration, own = self._times[0]
            if number in self._missing and not finished and number + REORDERED > self._newest:
                return
            heapq.heappop(self._times)
            missed = number in self._missing
            self._missing.discard(number)
            if missed and not own:  # the second field of a picture, which comes with the first
                continue
            self._last = time if self._last is None else max(time, self._last + 1)
            yield Shown(None if missed else self._arrived.popleft(), self._last, duration)
