"""The Prometheus metrics of the service. Values of labels never come from a request."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
BATCHES = (1, 2, 4, 8, 16, 32)
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """All metrics of one service, in their own registry."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "vrdir_requests_total", "Requests by route and status.", ("route", "status"),
            registry=registry,
        )  # fmt: skip
        self.seconds = Histogram(
            "vrdir_request_seconds", "Seconds from headers to the end of the response.", ("route",),
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.errors = Counter(
            "vrdir_errors_total", "Problems by kind.", ("kind",), registry=registry
        )
        self.pixels = Counter("vrdir_pixels_total", "Pixels restored.", registry=registry)
        self.batch_sizes = Histogram(
            "vrdir_batch_images", "Images in a batch.", buckets=BATCHES, registry=registry
        )
        self.batch_seconds = Histogram(
            "vrdir_batch_seconds", "Time for a batch.", buckets=SECONDS, registry=registry
        )
        self.waits = Histogram(
            "vrdir_wait_seconds", "Time of an image in the queue.", buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.dropped = Counter(
            "vrdir_dropped_total", "Images that were cancelled.", ("reason",),
            registry=registry,
        )  # fmt: skip
        self.frames = Counter(
            "vrdir_frames_total", "Frames of streams and cameras by outcome.", ("outcome",),
            registry=registry,
        )  # fmt: skip
        self.frame_seconds = Histogram(
            "vrdir_frame_seconds", "From a frame's arrival to its result.", buckets=SECONDS,
            registry=registry,
        )  # fmt: skip

    def watch(self, name: str, text: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is computed at each scrape, such as the length of the queue.

        Args:
            name: the name of the metric.
            text: its description.
            value: returns the current value.
        """
        Gauge(name, text, registry=self._registry).set_function(value)

    def batch_done(self, jobs: int, pixels: int, seconds: float) -> None:
        """Count a batch that was processed: its jobs, their pixels, and the time."""
        self.batch_sizes.observe(jobs)
        self.batch_seconds.observe(seconds)
        self.pixels.inc(pixels)

    def job_started(self, seconds: float) -> None:
        """Record how many seconds a job waited before work on it began."""
        self.waits.observe(seconds)

    def job_dropped(self, reason: str) -> None:
        """Count a job that was given up, by its reason."""
        self.dropped.labels(reason).inc()

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)
