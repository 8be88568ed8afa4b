"""production.yml on running Alertmanagers: pages and tickets arrive at every kind of receiver.

PagerDuty, Slack, the webhooks and the mail server are on loopback. Nothing else of the file is changed but
the folder of the secrets and the wait of tickets.
"""

from __future__ import annotations

import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.policy import default as email_policy
from typing import TYPE_CHECKING, Any, Final

import pytest
import yaml

from .alerts import alert
from .receiving import HttpReceiver, MailReceiver, receiving_http, receiving_mail
from .running import ROOM, Alertmanager, over, route_of, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import EmailMessage
    from pathlib import Path

    from cmo_stack import servers

MAIL_USER: Final = "monitoring@example.org"
SECRETS: Final = {
    "pagerduty-routing-key": "pagerduty-secret-4711",
    "smtp-password": "mail-secret-4712",
    "incidents-token": "incidents-secret-4713",
    "tickets-token": "tickets-secret-4714",
    "dead-man-token": "dead-man-secret-4715",
}
SLACK_SECRET: Final = "slack-secret-4716"
EXTERNAL_URL: Final = "https://alertmanager.example.org"  # as docs/alertmanager.md has it
HTML: Final = "<b>30 %</b> of 'live' queries & more: 100 < 200 </p><script>alert(1)</script>"


@dataclass(frozen=True)
class Production:
    """An Alertmanager with production.yml, and those who listen."""

    manager: Alertmanager
    http: HttpReceiver
    mail: MailReceiver


@dataclass(frozen=True)
class Certificate:
    """Of the mail server, which signs itself."""

    file: Path
    key: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    folder = tmp_path_factory.mktemp("certificate")
    made = Certificate(folder / "mail.pem", folder / "mail.key")
    options = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=mail", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(made.key), "-out", str(made.file)]
    subprocess.run(["openssl", "req", *options, *names, *files], check=True, capture_output=True)
    return made


@contextmanager
def production(
    server: servers.Server, certificate: Certificate, directory: Path, secrets: dict[str, str | None]
) -> Iterator[Production]:
    """Run it, with these secrets instead of the right ones; None where a file is missing."""
    with ExitStack() as stack:
        http = stack.enter_context(receiving_http())
        mail = stack.enter_context(
            receiving_mail(
                MailReceiver(MAIL_USER, SECRETS["smtp-password"], certificate.file, certificate.key)
            )
        )
        slack = {
            f"slack-{channel}-url": f"{http.url}/{channel}/{SLACK_SECRET}" for channel in ("pages", "tickets")
        }
        _write_secrets(directory / "secrets", {**SECRETS, **slack, **secrets})
        configured = directory / "alertmanager.yml"
        configured.write_text(yaml.safe_dump(_rendered(http, mail, directory)))
        external = f"--web.external-url={EXTERNAL_URL}"
        manager = stack.enter_context(running(server, configured, directory, external))
        yield Production(manager, http, mail)


def _rendered(http: HttpReceiver, mail: MailReceiver, directory: Path) -> dict[str, Any]:
    text = (ROOM / "production.yml").read_text()
    for there, here in {
        "/etc/alertmanager/secrets": str(directory / "secrets"),
        "https://events.pagerduty.com/v2/enqueue ": f"{http.url}/pagerduty ",
        "https://incidents.example.org/cmo": f"{http.url}/incidents",
        "https://tickets.example.org/alertmanager": f"{http.url}/ticket-system",
        "https://dead-man.example.org/watchdog": f"{http.url}/watchdog",
        "smtp.example.org:587": f"127.0.0.1:{mail.port}",
        "templates/*.tmpl": str(ROOM / "templates/*.tmpl"),
    }.items():
        assert there in text
        text = text.replace(there, here)
    content: dict[str, Any] = yaml.safe_load(text)
    route_of(content, "tickets").update(group_wait="0s")
    for receiver in content["receivers"]:
        for each in receiver.get("email_configs", ()):
            each["tls_config"] = {"ca_file": str(mail.certificate)}
    return content


def _write_secrets(folder: Path, secrets: dict[str, Any]) -> None:
    folder.mkdir()
    for name, value in secrets.items():
        if value is not None:
            # As every editor ends a file; but 0.25 sends a mail password with the line's end, and is refused.
            end = "" if name == "smtp-password" else "\n"
            (folder / name).write_text(value + end)


def fired(name: str, **annotations: str) -> dict[str, Any]:
    return {
        "labels": alert(name).labels(),
        "annotations": annotations,
        "startsAt": "2026-01-01T10:00:00Z",
        "generatorURL": "http://127.0.0.1:9090/graph?g0.expr=a%3Cb&g0.tab=1",
    }


PAGE: Final = fired(
    "CMOLiveQueriesFailing",
    summary="Live queries are failing",
    description=HTML,
    runbook_url="https://runbooks.example.org/CMOLiveQueriesFailing.md",
    dashboard_url="/d/cmo-overview",
)


def test_a_page_and_tickets_arrive_at_every_kind_of_receiver(
    alertmanager_server: servers.Server, certificate: Certificate, tmp_path: Path
) -> None:
    with production(alertmanager_server, certificate, tmp_path, {}) as at:
        at.manager.post(
            PAGE,
            fired("CMOErrorBudgetBurning", summary="The error budget is burning"),
            fired("CMOScrapeFailing", summary="A target is not scraped"),
            fired("CMOWatchdog"),
            fired("CMOLoadTestRunning"),
        )
        _the_page_has_arrived(at)
        _the_tickets_have_arrived(at)
        wait_until("the watchdog", lambda: bool(at.http.at("/watchdog")))

        at.manager.post(over(PAGE))
        _the_resolution_has_arrived(at)
        log, shown = at.manager.log, at.manager.status()["config"]["original"]
    assert not [secret for secret in (*SECRETS.values(), SLACK_SECRET) if secret in log + shown]
    tokens = {request.path: request.authorization for request in at.http.requests if request.authorization}
    assert tokens == {
        "/incidents": f"Bearer {SECRETS['incidents-token']}",
        "/ticket-system": f"Bearer {SECRETS['tickets-token']}",
        "/watchdog": f"Bearer {SECRETS['dead-man-token']}",
    }


def _the_page_has_arrived(at: Production) -> None:
    slack = f"/pages/{SLACK_SECRET}"
    wait_until("PagerDuty's page", lambda: bool(at.http.at("/pagerduty")))
    wait_until("Slack's page", lambda: bool(at.http.at(slack)))
    wait_until("the webhook's page", lambda: bool(at.http.at("/incidents")))
    wait_until("the page by mail", lambda: bool(at.mail.to("on-call@example.org")))

    event = at.http.at("/pagerduty")[0]
    assert event["routing_key"] == SECRETS["pagerduty-routing-key"]
    assert event["event_action"] == "trigger"
    assert event["payload"]["summary"] == "PAGE: Live queries are failing"
    assert event["client_url"] == EXTERNAL_URL
    assert event["payload"]["severity"] == "critical"
    assert event["payload"]["class"] == "CMOLiveQueriesFailing"
    assert (event["payload"]["component"], event["payload"]["group"]) == ("service", "cmo-015")
    assert _lines(event["payload"]["custom_details"]["firing"]) == [
        HTML,
        "Since 10:00:00 UTC, 1 Jan",
        "Runbook: https://runbooks.example.org/CMOLiveQueriesFailing.md",
        "Dashboard: /d/cmo-overview",
        "Query: http://127.0.0.1:9090/graph?g0.expr=a%3Cb&g0.tab=1",
    ]

    (message,) = at.http.at(slack)[0]["attachments"]
    assert message["title"] == message["fallback"] == "PAGE: Live queries are failing"
    assert message["color"] == "danger"
    assert _lines(message["text"]) == [
        HTML.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
        "Since 10:00:00 UTC, 1 Jan",
        "<https://runbooks.example.org/CMOLiveQueriesFailing.md|Runbook>",
        "Dashboard: /d/cmo-overview",
        "<http://127.0.0.1:9090/graph?g0.expr=a%3Cb&amp;g0.tab=1|Query>",
    ]

    mail = at.mail.to("on-call@example.org")[0]
    assert mail["Subject"] == "PAGE: Live queries are failing"
    assert _lines(_part(mail, "plain"))[0] == HTML
    html = _part(mail, "html")
    assert "<script>" not in html
    assert "</p><script" not in html
    assert "&lt;b&gt;30 %&lt;/b&gt;" in html
    assert 'href="https://runbooks.example.org/CMOLiveQueriesFailing.md"' in html
    assert html.count("<p") == html.count("</p>")
    assert at.http.at("/incidents")[0]["alerts"][0]["annotations"]["description"] == HTML


def _the_tickets_have_arrived(at: Production) -> None:
    slack = f"/tickets/{SLACK_SECRET}"
    wait_until("Slack's tickets, in any order", lambda: len(at.http.at(slack)) == 2)
    wait_until("the ticket system's ticket", lambda: bool(at.http.at("/ticket-system")))
    wait_until("the ticket by mail", lambda: bool(at.mail.to("monitoring@example.org")))
    messages = [message for one in at.http.at(slack) for message in one["attachments"]]
    assert {(message["title"], message["color"]) for message in messages} == {
        ("TICKET: The error budget is burning (service)", "warning"),
        ("TICKET: A target is not scraped (prometheus)", "warning"),
    }
    mail = at.mail.to("monitoring@example.org")[0]
    assert mail["Subject"] == "TICKET: A target is not scraped (prometheus)"


def _the_resolution_has_arrived(at: Production) -> None:
    slack = f"/pages/{SLACK_SECRET}"
    wait_until("PagerDuty's resolution", lambda: at.http.at("/pagerduty")[-1]["event_action"] == "resolve")
    wait_until("Slack's", lambda: at.http.at(slack)[-1]["attachments"][0]["color"] == "good")
    wait_until("the webhook's", lambda: at.http.at("/incidents")[-1]["status"] == "resolved")
    wait_until("the mail", lambda: len(at.mail.to("on-call@example.org")) == 2)
    assert at.http.at("/pagerduty")[0]["dedup_key"] == at.http.at("/pagerduty")[-1]["dedup_key"]
    assert at.mail.to("on-call@example.org")[1]["Subject"] == "RESOLVED: Live queries are failing"
    assert "over since" in _part(at.mail.to("on-call@example.org")[1], "plain")


@pytest.mark.parametrize("name", list(SECRETS))
def test_a_missing_secret_is_said_by_the_name_of_its_file(
    alertmanager_server: servers.Server, certificate: Certificate, tmp_path: Path, name: str
) -> None:
    alerts = [PAGE, fired("CMOErrorBudgetBurning"), fired("CMOWatchdog")]
    with production(alertmanager_server, certificate, tmp_path, {name: None}) as at:
        at.manager.post(*alerts)
        missing = str(tmp_path / "secrets" / name)
        wait_until(f"{missing} in the log", lambda: f"{missing}: no such file or directory" in at.manager.log)


def test_a_wrong_secret_is_said_and_not_shown(
    alertmanager_server: servers.Server, certificate: Certificate, tmp_path: Path
) -> None:
    # Nothing listens at port 1: what HTTP clients say of it has the address, in which the secret is.
    wrong = {
        "pagerduty-routing-key": "wrong-secret-1",
        "slack-tickets-url": "http://127.0.0.1:1/services/wrong-secret-2",
    }
    with production(alertmanager_server, certificate, tmp_path, {**wrong}) as at:
        at.http.status = 403
        at.manager.post(PAGE, fired("CMOErrorBudgetBurning"))
        wait_until("PagerDuty's refusal", lambda: "unexpected status code 403" in at.manager.log)
        wait_until("Slack being unreachable", lambda: "connection refused" in at.manager.log)
        log = at.manager.log
    assert [event["routing_key"] for event in at.http.at("/pagerduty")] == ["wrong-secret-1"]
    assert "wrong-secret" not in log
    assert not [secret for secret in (*SECRETS.values(), SLACK_SECRET) if secret in log]


def test_a_wrong_mail_password_is_said_and_not_shown(
    alertmanager_server: servers.Server, certificate: Certificate, tmp_path: Path
) -> None:
    with production(alertmanager_server, certificate, tmp_path, {"smtp-password": "wrong-secret"}) as at:
        at.manager.post(fired("CMOScrapeFailing"))
        wait_until("the mail server's refusal", lambda: "auth: 535" in at.manager.log)
        log = at.manager.log
    assert at.mail.refused > 0
    assert at.mail.messages == []
    assert "wrong-secret" not in log


def _part(message: EmailMessage, kind: str) -> str:
    part = message.get_body((kind,))
    assert part is not None
    assert message.policy is email_policy
    text: str = part.get_content()
    return text


def _lines(text: str) -> list[str]:
    return text.strip().splitlines()
