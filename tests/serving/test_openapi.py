"""The OpenAPI document: valid, complete, and true of what the service answers."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from PIL import Image
from tests.serving.servers import Server, encoded, get, post

jsonschema = pytest.importorskip("jsonschema")
validator = pytest.importorskip("openapi_spec_validator")


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = get(f"{server.url}/openapi.json").json()
    return found


def conforms(document: dict[str, Any], value: Any, schema: dict[str, Any]) -> None:
    """Check a value against a schema that may refer to others of the document."""
    jsonschema.validate(value, schema | {"components": document["components"]})


def test_document_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    validator.validate(document)


def test_document_examples_follow_its_schemas(document: dict[str, Any]) -> None:
    checked = 0
    for methods in document["paths"].values():
        for call in methods.values():
            for parameter in call.get("parameters", []):
                conforms(document, parameter["example"], parameter["schema"])
            for response in call["responses"].values():
                for content in response.get("content", {}).values():
                    examples = [one["value"] for one in content.get("examples", {}).values()]
                    examples += [content["example"]] if "example" in content else []
                    for example in examples:
                        conforms(document, example, content.get("schema", {}))
                        checked += 1
    assert checked > 30


def test_document_names_every_route_and_upload_problem(
    server: Server, document: dict[str, Any]
) -> None:
    for path, methods in document["paths"].items():
        for method in methods:
            answer = httpx.request(method, server.url + path, timeout=300)
            assert answer.status_code not in (404, 405), path
    restore = document["paths"]["/v1/restore"]["post"]
    statuses = {"200", "400", "401", "403", "406", "408", "413", "415", "422", "500", "503", "504"}
    assert statuses <= set(restore["responses"])
    names = [one["name"] for one in restore["parameters"]]
    assert names == ["strength", "only", "weights", "max_side", "quality"]


def test_answers_follow_the_recogniser(
    server: Server, document: dict[str, Any], cat: Image.Image
) -> None:
    responses = document["paths"]["/v1/restore"]["post"]["responses"]
    as_json = {"Accept": "application/json"}
    answer = post(f"{server.url}/v1/restore", content=encoded(cat), headers=as_json)
    conforms(document, answer.json(), responses["200"]["content"]["application/json"]["schema"])
    for name in answer.headers:
        if name.startswith("vrdir-"):
            assert name in {header.lower() for header in responses["200"]["headers"]}
    wrong = post(f"{server.url}/v1/restore", content=b"hello")
    schema = responses["415"]["content"]["application/problem+json"]["schema"]
    conforms(document, wrong.json(), schema)
