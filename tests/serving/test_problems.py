"""Errors become problem documents; bugs keep their words to themselves."""

from __future__ import annotations

import pytest

from vrdir.errors import ImageError, MissingPackageError, ResultError, SettingsError
from vrdir.serving.intake import wanted_of
from vrdir.serving.problems import KINDS, ProblemError, problem_document, problem_of
from vrdir.serving.settings import ServeSettings

FAMILY = {
    ImageError("the image is cut short"): "damaged-image",
    ResultError("NaN"): "unusable-result",
    MissingPackageError("HEIC needs an extra"): "not-an-image",
    SettingsError("wrong"): "bad-parameter",
    MemoryError(): "memory-full",
    ProblemError("queue-full", "64 images wait", 7): "queue-full",
}


@pytest.mark.parametrize("error", FAMILY, ids=repr)
def test_errors_of_the_family_keep_their_words(error: Exception) -> None:
    problem = problem_of(error)
    assert problem.kind == FAMILY[error]
    assert str(error) in problem.detail
    document = problem_document(problem, "id")
    assert document["status"] == KINDS[problem.kind].status
    assert document["instance"].endswith("id")


@pytest.mark.parametrize("error", [RuntimeError("/secret/path"), KeyError("x"), OSError("disk")])
def test_bug_response_reveals_no_details(error: Exception) -> None:
    problem = problem_of(error)
    assert problem.kind == "internal-error"
    assert str(error) not in problem.detail


@pytest.mark.parametrize(
    ("accept", "kind", "file_format"),
    [
        ("", "image", None),
        ("*/*", "image", None),
        ("text/html,image/*;q=0.8", "image", None),
        ("image/jpg", "image", "JPEG"),
        ("image/png;q=0.1, image/webp", "image", "WEBP"),
        ("application/json", "application/json", None),
        ("image/png;q=0, multipart/mixed;q=0.5", "multipart/mixed", None),
    ],
)
def test_accept_chooses_by_weight(accept: str, kind: str, file_format: str | None) -> None:
    assert wanted_of(accept) == (kind, file_format)


@pytest.mark.parametrize("accept", ["text/html", "image/x-icon", "image/png;q=0", "image/png;q=x"])
def test_accept_that_cannot_be_served(accept: str) -> None:
    with pytest.raises(ProblemError) as refused:
        wanted_of(accept)
    assert refused.value.kind == "not-acceptable"


@pytest.mark.parametrize(
    "wrong", [{"port": 70000}, {"deadline": 0}, {"max_queue": -1}, {"max_megapixels": float("nan")}]
)
def test_settings_out_of_range_name_their_option(wrong: dict[str, float]) -> None:
    option = next(iter(wrong)).replace("_", "-")
    with pytest.raises(SettingsError, match=f"--{option}"):
        ServeSettings(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a.b", False)],
)
def test_loopback_is_known(host: str, loopback: bool) -> None:
    assert ServeSettings(host=host).is_loopback is loopback
