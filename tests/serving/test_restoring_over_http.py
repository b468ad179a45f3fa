"""What the service answers: the pixels, formats, diagnosis and documents of sound requests."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from email.parser import BytesParser
from typing import cast

import httpx
import pytest
from PIL import Image
from tests.serving.servers import Server, assert_problem, assert_same, encoded, get, pixels, post

from vrdir import Restorer


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer("small", "cpu")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_response_has_format_and_pixels_of_restorer(
    server: Server, restorer: Restorer, cat: Image.Image, file_format: str
) -> None:
    sent = encoded(cat, file_format)
    answer = post(f"{server.url}/v1/restore", content=sent)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == f"image/{file_format.lower()}"
    assert Image.open(io.BytesIO(answer.content)).format == file_format
    lossy = file_format in ("JPEG", "WEBP")  # which spread a difference of one level
    assert_same(answer.content, restorer(sent), 4 if lossy else 1)


def test_form_gets_the_same_response_as_a_body(server: Server, cat: Image.Image) -> None:
    sent = encoded(cat)
    body = post(f"{server.url}/v1/restore", content=sent, params={"strength": "0.5"})
    form = post(
        f"{server.url}/v1/restore",
        files={"image": ("../../etc/cat.png", sent, "image/png")},
        data={"strength": "0.5"},
    )
    assert form.status_code == 200
    assert form.content == body.content


def test_accept_chooses_the_format(server: Server, restorer: Restorer, cat: Image.Image) -> None:
    answer = post(
        f"{server.url}/v1/restore",
        content=encoded(cat, "BMP"),
        headers={"Accept": "text/html, image/jpeg;q=0.4, image/png;q=0.8"},
    )
    assert answer.headers["content-type"] == "image/png"
    assert_same(answer.content, restorer(encoded(cat)))


def test_json_has_the_image_and_the_diagnosis(
    server: Server, restorer: Restorer, cat: Image.Image
) -> None:
    sent = encoded(cat)
    headers = {"Accept": "application/json"}
    facts = post(f"{server.url}/v1/restore", content=sent, headers=headers).json()
    wanted = restorer.restore(sent)
    assert facts["image"]["media_type"] == "image/png"
    assert_same(base64.b64decode(facts["image"]["base64"]), wanted.image)
    assert facts["diagnosis"] == pytest.approx(wanted.diagnosis[0]._asdict(), abs=0.01)
    assert facts["shares"] == pytest.approx(wanted.shares[0], abs=0.01)
    assert (facts["width"], facts["height"]) == (64, 64)


def test_multipart_has_the_diagnosis_and_the_image(
    server: Server, restorer: Restorer, cat: Image.Image
) -> None:
    answer = post(
        f"{server.url}/v1/restore", content=encoded(cat), headers={"Accept": "multipart/mixed"}
    )
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + answer.content)
    facts, image = cast("list[Message]", message.get_payload())
    assert json.loads(facts.get_payload(decode=True))["diagnosis"]["changed"] > 0
    assert image.get_content_type() == "image/png"
    assert_same(image.get_payload(decode=True), restorer(encoded(cat)))


def test_headers_carry_the_diagnosis(server: Server, restorer: Restorer, cat: Image.Image) -> None:
    sent = encoded(cat)
    answer = post(f"{server.url}/v1/restore", content=sent, params={"weights": "second"})
    found = Restorer("field", "cpu").restore(sent)
    assert float(answer.headers["vrdir-noise"]) == pytest.approx(found.diagnosis[0].noise, abs=0.1)
    assert float(answer.headers["vrdir-haze"]) == pytest.approx(found.diagnosis[0].haze, abs=0.01)
    shares = dict(part.split("=") for part in answer.headers["vrdir-shares"].split(", "))
    assert float(shares["haze"]) == pytest.approx(found.shares[0]["haze"], abs=0.01)
    assert "network;dur=" in answer.headers["server-timing"]
    assert_same(answer.content, found.image)


def test_diagnose_gives_no_image(server: Server, restorer: Restorer, cat: Image.Image) -> None:
    facts = post(f"{server.url}/v1/diagnose", content=encoded(cat)).json()
    wanted = restorer.restore(encoded(cat)).diagnosis[0]._asdict()
    assert facts["diagnosis"] == pytest.approx(wanted, abs=0.01)
    assert "image" not in facts


def test_strength_zero_leaves_the_image_unchanged(server: Server, cat: Image.Image) -> None:
    answer = post(f"{server.url}/v1/restore?strength=0", content=encoded(cat))
    assert_same(answer.content, encoded(cat), 0)


def test_only_and_strength_match_restorer(server: Server, cat: Image.Image) -> None:
    query = {"only": ["noise", "rain"], "strength": "1.5"}
    answer = post(f"{server.url}/v1/restore", content=encoded(cat), params=query)
    wanted = Restorer("small", "cpu", strength=1.5, only=["noise", "rain"])(encoded(cat))
    assert_same(answer.content, wanted)


def test_max_side_reduces_first(server: Server, cat: Image.Image) -> None:
    answer = post(f"{server.url}/v1/restore?max_side=32", content=encoded(cat))
    assert pixels(answer.content).shape == (32, 32, 3)
    facts = post(f"{server.url}/v1/diagnose?max_side=40", content=encoded(cat)).json()
    assert (facts["width"], facts["height"]) == (40, 40)


def test_metadata_is_kept(server: Server, cat: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Camera maker"
    sent = encoded(cat, "JPEG", exif=exif, dpi=(300, 300))
    answer = post(f"{server.url}/v1/restore", content=sent)
    kept = Image.open(io.BytesIO(answer.content))
    assert kept.getexif()[0x010F] == "Camera maker"
    assert kept.info["dpi"] == (300, 300)


def test_many_clients_get_their_own_pixels(
    server: Server, restorer: Restorer, cat: Image.Image
) -> None:
    """Forty requests of three sizes at once: batches must not mix the images up."""
    before = server.metric("vrdir_batch_images_count")
    sent = [
        encoded(cat.rotate(9 * number).crop((0, 0, *((64, 64), (48, 64), (33, 17))[number % 3])))
        for number in range(40)
    ]
    with httpx.Client(base_url=server.url, timeout=300) as client, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda one: client.post("/v1/restore", content=one), sent))
    for one, answer in zip(sent, answers, strict=True):
        assert answer.status_code == 200
        assert_same(answer.content, restorer(one))
    assert server.metric("vrdir_batch_images_count") - before < 40  # some were restored together


def test_weights_are_listed(server: Server) -> None:
    facts = get(f"{server.url}/v1/weights").json()
    assert facts["default"] == "small"
    assert [one["name"] for one in facts["weights"]] == ["small", "second"]
    assert "haze" in facts["weights"][0]["degradations"]
    assert len(facts["weights"][0]["fingerprint"]) == 64


def test_health_readiness_and_metrics(server: Server, cat: Image.Image) -> None:
    post(f"{server.url}/v1/restore", content=encoded(cat))
    assert get(f"{server.url}/healthz").text == "ok\n"
    assert get(f"{server.url}/readyz").text == "ready\n"
    assert server.metric('vrdir_requests_total{route="/v1/restore",status="200"}') >= 1
    assert server.metric("vrdir_pixels_total") >= 64 * 64
    assert server.metric("vrdir_queue_images") == 0


def test_log_lines_are_json_without_image_content(server: Server, cat: Image.Image) -> None:
    answer = post(f"{server.url}/v1/restore", content=encoded(cat))
    number = answer.headers["x-request-id"]
    line = server.wait_for("request", request_id=number)
    assert line["route"] == "/v1/restore"
    assert line["status"] == 200
    assert line["pixels"] == 4096
    assert all(len(str(value)) < 100 for value in line.values())
    assert not [one for one in server.log if one["message"] == "(not JSON)"]


def test_page_and_its_parts_are_served(server: Server) -> None:
    page = get(f"{server.url}/")
    assert page.headers["content-type"].startswith("text/html")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for name in ("app.js", "page.css", "vendor/img-comparison-slider.js", "samples/haze.jpg"):
        assert get(f"{server.url}/{name}").status_code == 200


def test_wrong_address_and_wrong_method_return_problems(server: Server) -> None:
    assert_problem(get(f"{server.url}/v2/restore"), 404, "not-found")
    wrong = get(f"{server.url}/v1/restore")
    assert_problem(wrong, 405, "method-not-allowed")
    assert "POST" in wrong.headers["allow"]


def test_disabled_feature_says_how_to_enable_it(server: Server, cat: Image.Image) -> None:
    answer = post(f"{server.url}/v1/detect", content=encoded(cat))
    assert_problem(answer, 501, "not-offered")
    assert "--detector" in answer.json()["detail"]
    assert_problem(get(f"{server.url}/v1/live.mjpg"), 501, "not-offered")
