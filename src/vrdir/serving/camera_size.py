"""The size at which a camera's frames are restored, chosen so that a frame rate holds."""

from __future__ import annotations

import logging
import statistics

logger = logging.getLogger(__name__)

LADDER = (1920, 1600, 1280, 960, 800, 640, 480, 400, 320, 240)  # longer sides, in pixels
SETTLE_FRAMES = 8  # restored at one size before another is chosen
# Shares of the time that a frame has: what it may take before a smaller size is chosen, what it
# should take after that, and what it should take at a larger size for that to be chosen.
MOST, WANTED, ROOM = 1.0, 0.9, 0.75
LONGEST = 64  # times `SETTLE_FRAMES`, after a larger size has failed again and again


class SizeChoice:
    """Chooses the size at which frames are restored, to hold a frame rate.

    A smaller size is chosen as soon as frames take too long, a larger one where the time should be
    enough for it. If it is not, the next try comes later each time, so that the size does not go up
    and down.

    Args:
        most: the largest longer side; None for the frame's own.
        fps: the frame rate to hold; None to stay at `most`.

    Attributes:
        side: the longer side now; None for the frame's own.
    """

    def __init__(self, most: int | None, fps: float | None) -> None:
        self.side = most
        self._most, self._fps = most, fps
        self._times: list[float] = []
        self._wait, self._since = 1, 0  # windows of frames between two tries of a larger size
        self._tried = False  # the present size is a larger one that is tried
        self._said_too_slow = False

    def took(self, seconds: float, frame_side: int) -> None:
        """Note how long a frame took; choose another size if it was much too long or short.

        Args:
            seconds: for the frame, with all that was done with it.
            frame_side: its longer side, in pixels.
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
        # The time grows with the pixels: go down to what should be fast enough, at once.
        fits = [side for side in smaller if share * (side / current) ** 2 < WANTED]
        self._choose(max(fits, default=smaller[-1]), "lowered", current)

    def _raise(self, share: float, current: int, most: int) -> None:
        if self._tried and self._since > self._wait:
            self._tried, self._wait = False, 1  # it holds
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
