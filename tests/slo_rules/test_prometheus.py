"""The client says what is wrong with a data source, and takes nothing but a whole answer."""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from cmo_slo.prometheus import Credentials, DataSourceError, Prometheus
from cmo_stack.free_ports import free_port

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
        "values": [[102, "2"], [101, "1"], [103, "NaN"], [104, "+Inf"], [105.5, "7"]],
    }
    answers = Answers(body=answer([entry], infos=["metric might not be a counter"]), headers=JSON)
    reading = raw(answers)
    (series,) = reading.series
    assert (series.name, series.labels) == ("m", {"job": "cmo"})
    assert list(series.points.items()) == [(101.0, 1.0), (102.0, 2.0), (105.5, 7.0)]
    assert series.broken == {103.0, 104.0}
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


def at(*value: Any) -> dict[str, Any]:
    """One sample of a vector, as Prometheus and VictoriaMetrics answer it."""
    return {"metric": {}, "value": list(value)}


@pytest.mark.parametrize(
    "result",
    [
        [],
        ["x"],
        [{"metric": {}}],
        [at(1.0, "late")],
        [at(1.0, None)],
        [at(1.0, "NaN")],
        [at(1.0, 10**400)],
        [at(1.0, "5"), at(1.0, "5")],
    ],
)
def test_a_time_that_is_none_is_an_error(result: list[Any]) -> None:
    answers = Answers(200, answer(result, "vector"), JSON)
    wrong = pytest.raises(DataSourceError, match="not Prometheus's")
    with answers.serve() as url, Prometheus(url) as client, wrong:
        client.now()


def test_nobody_listening() -> None:
    refused = pytest.raises(DataSourceError, match=r"connection refused\. Is Prometheus running there\?")
    with Prometheus(f"http://127.0.0.1:{free_port()}") as client, refused:
        client.now()


@pytest.mark.parametrize(
    "url", ["127.0.0.1:9090", "ftp://x", "http://", "http://x:port", "https://[::1", "http://me:pass/word@x"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(DataSourceError, match="no address") as raised:
        Prometheus(url)
    assert "pass" not in str(raised.value)


def seen_authorization(url_user: str, credentials: Credentials) -> str | None:
    answers = Answers(200, answer([at(1.0, "5")], "vector"), JSON)
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


def test_a_token_does_not_give_way_to_a_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "netrc"
    file.write_text("machine 127.0.0.1 login me password other\n")
    file.chmod(0o600)
    monkeypatch.setenv("NETRC", str(file))
    assert seen_authorization("", Credentials(token="secret")) == "Bearer secret"


def samples(*values: list[Any]) -> str:
    return answer([{"metric": {"__name__": "m"}, "values": list(values)}])


@pytest.mark.parametrize(
    "body",
    [
        samples([101, "1"], [101, "2"]),
        samples([float("nan"), "1"]),
        samples([float("inf"), "1"]),
        samples([1e9, "1"]),
        samples([50, "1"]),
        samples([10**400, "1"]),
    ],
    ids=["two values at one time", "no time", "infinity", "long after", "long before", "beyond any number"],
)
def test_samples_at_times_that_cannot_be_are_not_believed(body: str) -> None:
    with pytest.raises(DataSourceError, match="not Prometheus's"):
        raw(Answers(200, body, JSON))


# Garbage of other tests that is collected at that depth has no room for its finalizers.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_answer_nested_without_end_is_an_error_in_words() -> None:
    with pytest.raises(DataSourceError, match="is not Prometheus"):
        raw(Answers(200, "[" * 100_000, JSON))


def test_an_answer_that_breaks_off_is_an_error_in_words() -> None:
    body = answer([])
    with pytest.raises(DataSourceError, match="could not be asked"):
        raw(Answers(200, body, {**JSON, "Content-Length": str(len(body) + 1)}))
    with pytest.raises(DataSourceError, match="could not be asked"):
        raw(Answers(200, body, {**JSON, "Content-Encoding": "gzip"}))


def test_an_answer_that_drips_is_not_waited_for_without_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            connection, _ = server.accept()
            with contextlib.suppress(OSError), connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(200):
                    connection.sendall(b" ")
                    time.sleep(0.05)

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        begun = time.monotonic()
        with Prometheus(url, timeout_seconds=0.2) as client:
            with pytest.raises(DataSourceError, match="did not answer within"):
                client.now()
            assert time.monotonic() - begun < 5.0
        thread.join(5.0)


def test_a_host_name_that_no_server_can_have() -> None:
    wrong = pytest.raises(DataSourceError, match="could not be asked")
    with Prometheus(f"http://{'x' * 70}.example") as client, wrong:
        client.now()


@pytest.mark.parametrize("token", ["secret\nsecret", "secret\u043a"])
def test_a_token_that_is_none_is_not_shown(token: str) -> None:
    with pytest.raises(DataSourceError) as caught:
        Prometheus("http://x", credentials=Credentials(token=token))
    assert "CMO_PROMETHEUS_TOKEN holds characters" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_credentials_of_any_characters() -> None:
    expected = "Basic " + base64.b64encode("mé:s/к".encode()).decode()
    assert seen_authorization("m%C3%A9:s%2F%D0%BA@", Credentials()) == expected
    assert seen_authorization("", Credentials(username="mé", password="s/к")) == expected
