"""The client says what is wrong with a data source, and takes nothing but a whole answer."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from cmo_slo.prometheus import Credentials, DataSourceError, Prometheus
from cmo_stack.process import free_port

from .exposition import Answers

if TYPE_CHECKING:
    from pathlib import Path

JSON = {"Content-Type": "application/json"}


def answer(result: Any, result_type: str = "matrix", **more: Any) -> str:
    return json.dumps({"status": "success", "data": {"resultType": result_type, "result": result}, **more})


def raw(answers: Answers, **settings: Any) -> Any:
    with answers.serve() as url, Prometheus(url, **settings) as client:
        return client.raw('m{job="cmo"}', since=100.0, until=110.0)


def test_samples_come_sorted_and_without_those_that_are_no_number() -> None:
    entry = {
        "metric": {"__name__": "m", "job": "cmo"},
        "values": [[2, "2"], [1, "1"], [3, "NaN"], [4, "+Inf"], [5.5, "7"]],
    }
    answers = Answers(body=answer([entry], infos=["metric might not be a counter"]), headers=JSON)
    reading = raw(answers)
    (series,) = reading.series
    assert (series.name, series.labels) == ("m", {"job": "cmo"})
    assert list(series.points.items()) == [(1.0, 1.0), (2.0, 2.0), (5.5, 7.0)]
    assert series.broken == {3.0, 4.0}
    assert reading.query == 'm{job="cmo"}[10001ms]'
    path = answers.seen[0][0]
    assert "nocache=1" in path
    assert "time=110.000" in path


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (Answers(), "is not Prometheus: it answers HTTP 200 with text/html"),
        (Answers(404), "is not Prometheus: it answers HTTP 404"),
        (Answers(200, '{"hello": 1}', JSON), "is not Prometheus"),
        (Answers(302, "", {"Location": "https://login.example/"}), "redirects to https://login.example/"),
        (Answers(401), "refuses access (HTTP 401). Set CMO_PROMETHEUS_TOKEN"),
        (Answers(503, "Service Unavailable"), "answered HTTP 503: Service Unavailable"),
        (
            Answers(422, json.dumps({"status": "error", "error": "query timed out"}), JSON),
            "answered HTTP 422: query timed out",
        ),
        (Answers(400, "remote read failed"), "answered HTTP 400: remote read failed"),
        (
            Answers(200, answer([], warnings=["store 2 is down"]), JSON),
            "not with everything: store 2 is down",
        ),
        (Answers(200, answer([], isPartial=True), JSON), "not with everything: the result is partial"),
        (Answers(200, answer([], "vector"), JSON), "in a form that is not Prometheus's"),
        (Answers(200, answer({}), JSON), "in a form that is not Prometheus's"),
        (Answers(200, answer([{"metric": {}}]), JSON), "in a form that is not Prometheus's"),
        (Answers(200, answer([{"metric": {}, "values": [[1]]}]), JSON), "in a form that is not"),
        (Answers(200, '{"status": "success"}', JSON), "in a form that is not Prometheus's"),
    ],
)
def test_every_other_answer_is_an_error_in_words(answers: Answers, words: str) -> None:
    with pytest.raises(DataSourceError) as caught:
        raw(answers)
    assert words in str(caught.value)


@pytest.mark.parametrize("result", [[], ["x"], [1.0, "late"], [1.0, None]])
def test_a_time_that_is_none_is_an_error(result: list[Any]) -> None:
    answers = Answers(200, answer(result, "scalar"), JSON)
    wrong = pytest.raises(DataSourceError, match="not Prometheus's")
    with answers.serve() as url, Prometheus(url) as client, wrong:
        client.now()


def test_nobody_listening() -> None:
    refused = pytest.raises(DataSourceError, match=r"connection refused\. Is Prometheus running there\?")
    with Prometheus(f"http://127.0.0.1:{free_port()}") as client, refused:
        client.now()


@pytest.mark.parametrize("url", ["127.0.0.1:9090", "ftp://x", "http://", "http://x:port"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(DataSourceError, match="no address"):
        Prometheus(url)


def seen_authorization(url_user: str, credentials: Credentials) -> str | None:
    answers = Answers(200, answer([1.0, "5"], "scalar"), JSON)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(answers.serve()).replace("//", f"//{url_user}")
        client = stack.enter_context(Prometheus(url, credentials=credentials))
        assert client.now() == 5.0
        assert "secret" not in client.url
    return answers.seen[0][1].get("Authorization")


def test_credentials(tmp_path: Path) -> None:
    assert seen_authorization("", Credentials()) is None
    assert seen_authorization("", Credentials(token="secret")) == "Bearer secret"
    basic = "Basic bWU6c2VjcmV0"
    assert seen_authorization("", Credentials(username="me", password="secret")) == basic
    assert seen_authorization("me:secret@", Credentials()) == basic
    file = tmp_path / "token"
    file.write_text("secret\n")
    assert Credentials.from_environment({"CMO_PROMETHEUS_TOKEN_FILE": str(file)}).token == "secret"
    assert Credentials.from_environment({"CMO_PROMETHEUS_TOKEN": "secret"}).token == "secret"
    with pytest.raises(DataSourceError, match="CMO_PROMETHEUS_PASSWORD_FILE names"):
        Credentials.from_environment({"CMO_PROMETHEUS_PASSWORD_FILE": str(tmp_path / "none")})
