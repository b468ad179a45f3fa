"""The size at which a camera's frames are restored, chosen to keep a frame rate."""

from __future__ import annotations

import logging
import statistics

logger = logging.getLogger(__name__)

LADDER = (1920, 1600, 1280, 960, 800, 640, 480, 400, 320, 240)  # longer sides, in pixels
SETTLE_FRAMES = 8  # restored at one size before another is chosen
# Shares of the time available for a frame: above MOST a smaller size is chosen, so that the
# expected share is below WANTED; a larger size is chosen if its expected share is below ROOM.
MOST, WANTED, ROOM = 1.0, 0.9, 0.75
LONGEST = 64  # the longest wait before a larger size is tried, in units of `SETTLE_FRAMES`


class SizeChoice:
    """Chooses the size at which frames are restored, to keep a frame rate.

    The size becomes smaller as soon as frames take too long, and larger when the time should be
    enough for it. Each time that a larger size was too slow, the wait before the next attempt is
    doubled, so that the size does not change all the time.

    Args:
        most: the largest longer side, in pixels; None for that of the frame.
        fps: the frame rate to keep, in frames per second; None to stay at `most`.

    Attributes:
        side: the current longer side, in pixels; None for that of the frame.
    """

    def __init__(self, most: int | None, fps: float | None) -> None:
        self.side = most
        self._most, self._fps = most, fps
        self._times: list[float] = []
        self._wait, self._since = 1, 0  # windows of frames between two attempts at a larger size
        self._tried = False  # whether the current size is such an attempt
        self._said_too_slow = False

    def took(self, seconds: float, frame_side: int) -> None:
        """Record the time that a frame took; after eight frames, choose another size if needed.

        Args:
            seconds: the time from taking the frame to asking for the next one.
            frame_side: the longer side of the frame itself, in pixels.
        """
        if self._fps is None:
            return
        self._times.append(seconds)
        if len(self._times) < SETTLE_FRAMES:
            return
        share, self._times = statistics.median(self._times) * self._fps, []
        self._since += 1
        most = min(frame_side, self._most or frame_side)
        current = min(self.side or most, most)
        if share > MOST:
            self._lower(share, current)
        else:
            self._raise(share, current, most)

    def _lower(self, share: float, current: int) -> None:
        smaller = [side for side in LADDER if side < current]
        if not smaller:
            if not self._said_too_slow:
                self._said_too_slow = True
                logger.warning(
                    "%g frames per second cannot be reached, even at %d pixels", self._fps, current
                )
            return
        if self._tried:
            self._wait = min(2 * self._wait, LONGEST)
        self._tried = False
        # The time is proportional to the pixels: take the largest size that should be fast enough.
        fits = [side for side in smaller if share * (side / current) ** 2 < WANTED]
        self._choose(max(fits, default=smaller[-1]), "lowered", current)

    def _raise(self, share: float, current: int, most: int) -> None:
        if self._tried and self._since > self._wait:
            self._tried, self._wait = False, 1  # the larger size is fast enough
        larger = [side for side in LADDER if current < side < most] + [most] * (current < most)
        if not larger or self._since <= self._wait:
            return
        following = min(larger)
        if share * (following / current) ** 2 < ROOM:
            self._tried = True
            self._choose(following, "raised", current)

    def _choose(self, side: int, how: str, before: int) -> None:
        self.side, self._since, self._said_too_slow = side, 0, False
        logger.warning(
            "%s from %d to %d pixels, to keep %g frames per second", how, before, side, self._fps
        )
