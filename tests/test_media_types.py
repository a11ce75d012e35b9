"""How a body may be declared: as JSON, in any spelling of a media type, and in UTF-8."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from edge.parsing.json_body import _parts
from support.edge_stand import Stand, assert_refused, running_edge, running_postgres

ENDPOINT = "/v1/webhook-endpoints/whe_4DVNQPMZBZFG0VHZJX492ZPG4J"
JSON = [
    "application/json",
    "Application/JSON",
    "application/json;charset=utf-8",
    "application/json; charset=utf8",
    "application/json; charset=UTF8",
    'application/json; Charset="UTF-8"',
    'application/json; charset="utf\\-8"',
    "application/json ; charset=utf-8",
    "application/json;charset=utf-8;",
    "application/json;",
    "application/json; profile=x",
    'application/json; profile="a; charset=utf-16, \\" b"; charset=utf-8',
    "application/json; odata.metadata=minimal; v=1",
]
OTHER_CHARSETS = [
    "application/json; charset=utf-16",
    "application/json; charset=iso-8859-1",
    "application/json; charset=us-ascii",
    'application/json; charset="windows-1252"',
    "application/json; charset=utf-8; charset=utf-16",
    'application/json; charset=""',
    "APPLICATION/JSON; CHARSET=LATIN1",
]
NO_JSON = [
    "",
    "text/json",
    "text/plain; charset=utf-8",
    "application/x-json",
    "application/jsonp",
    "application/json+x",
    "application/vnd.api+json",
    "application",
    "application/",
    "/json",
    "*/*",
    "application/json, application/json",
    "application/json charset=utf-8",
    "application/json; charset",
    "application/json; charset=",
    "application/json; charset = utf-8",
    'application/json; charset="utf-8',
    "application/json; =utf-8",
]


@pytest.fixture(scope="module")
def running() -> Iterator[Stand]:
    with running_postgres() as dsn, running_edge(dsn) as stand:
        yield stand


@pytest.fixture
def edge(running: Stand) -> Stand:
    running.engine.forget()
    return running


@pytest.mark.parametrize("declared", JSON)
def test_json_is_json_however_its_media_type_is_spelled(edge: Stand, declared: str) -> None:
    assert edge.post(headers={"Content-Type": declared}).status_code == 202


@pytest.mark.parametrize("declared", OTHER_CHARSETS)
def test_another_charset_is_refused_in_words(edge: Stand, declared: str) -> None:
    answer = edge.post(headers={"Content-Type": declared})

    assert_refused(edge, answer, 415, "unsupported_media_type")
    assert "charset" in answer.json()["detail"] and "UTF-8" in answer.json()["detail"]


@pytest.mark.parametrize("declared", NO_JSON)
def test_what_is_not_declared_as_json_is_refused(edge: Stand, declared: str) -> None:
    answer = edge.post(headers={"Content-Type": declared})

    assert_refused(edge, answer, 415, "unsupported_media_type")
    assert "Content-Type: application/json" in answer.json()["detail"]


def test_two_declarations_are_refused(edge: Stand) -> None:
    twice = [("X-API-Key", "sk_test_merchant"), ("Idempotency-Key", "twice")]
    twice += [("Content-Type", "application/json"), ("Content-Type", "text/plain")]

    assert_refused(edge, edge.client.post("/v1/payments", content=b"{}", headers=twice), 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "declared", [*JSON, "application/merge-patch+json", "Application/Merge-Patch+JSON;charset=utf8"]
)
def test_a_patch_may_be_declared_as_a_merge_patch(edge: Stand, declared: str) -> None:
    answer = edge.request("PATCH", ENDPOINT, content=b'{"description": null}', headers={"Content-Type": declared})

    assert answer.status_code == 200


def test_nothing_else_may_be_declared_as_a_merge_patch(edge: Stand) -> None:
    answer = edge.post(headers={"Content-Type": "application/merge-patch+json"})

    assert_refused(edge, answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("encoding", ["identity", "Identity"])
def test_identity_is_no_compression(edge: Stand, encoding: str) -> None:
    assert edge.post(headers={"Content-Encoding": encoding}).status_code == 202


@pytest.mark.parametrize(
    "worst",
    [
        "application/json" + ";" * 60_000,
        'application/json;a="' + "\\" * 60_001,
        'application/json;a="' + 'x"' * 30_000,
        "a/" + "!" * 60_000,
        "application/json" + '; a="b"' * 9_000,
        "application/json;" + " \t" * 30_000 + "x",
        "application/json;" + "a" * 60_000,
    ],
    ids=map(str, range(7)),
)
def test_a_media_type_is_read_in_time_that_grows_with_its_length_alone(worst: str) -> None:
    began = time.process_time()
    _parts(worst)

    assert time.process_time() - began < 2  # a hundred times what it takes; a quadratic reader takes minutes
