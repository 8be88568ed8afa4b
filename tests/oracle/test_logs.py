from __future__ import annotations

import logging

import pytest
from cmo_oracle.failures import describe
from cmo_oracle.logs import writing_logs

SECRET = "quetzalcoatlus"


LOGGERS = ("lightrag", "httpx", "openai", "openai._base_client", "uvicorn", "uvicorn.error", "asyncio")


@pytest.fixture(autouse=True)
def loggers_as_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests run servers and engines in this process, which switch off loggers of their own."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for attribute, value in {"disabled": False, "propagate": True, "handlers": []}.items():
            monkeypatch.setattr(logger, attribute, value)
        monkeypatch.setattr(logger, "level", logging.NOTSET)
        logger.manager._clear_cache()  # type: ignore[attr-defined]  # levels are cached; setLevel() would not be undone


def fail() -> None:
    raise ValueError(f"cannot answer {SECRET}")


def test_our_records_are_written_and_of_others_only_that_there_was_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with writing_logs():
        logging.getLogger("cmo_oracle.pipeline").info("the engine is %s", "loaded")
        logging.getLogger("lightrag").error("could not answer %s", SECRET)
        logging.getLogger("httpx").info("POST /%s", SECRET)
        logging.getLogger("openai._base_client").warning("request %s", SECRET)
    written = capsys.readouterr().err
    assert "INFO cmo_oracle.pipeline: the engine is loaded" in written
    assert "ERROR lightrag: (text withheld" in written
    assert "WARNING openai._base_client: (text withheld" in written
    assert "httpx" not in written
    assert SECRET not in written


def test_exceptions_are_written_without_their_message(capsys: pytest.CaptureFixture[str]) -> None:
    with writing_logs():
        for name in ("cmo_oracle.service", "uvicorn.error", "asyncio"):
            try:
                fail()
            except ValueError:
                logging.getLogger(name).exception("it went wrong")
    written = capsys.readouterr().err
    assert "ERROR uvicorn.error: it went wrong [ValueError]" in written
    assert "Traceback" not in written
    assert SECRET not in written


def test_the_root_logger_is_left_as_it_was() -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with writing_logs(logging.DEBUG):
        assert root.level == logging.DEBUG
    assert (root.handlers, root.level) == (handlers, level)


def test_an_exception_is_described_by_class_and_line() -> None:
    with pytest.raises(ValueError, match=SECRET) as raised:
        fail()
    assert describe(raised.value) == f"ValueError at {__file__}:{fail.__code__.co_firstlineno + 1}"
    assert describe(KeyError(SECRET)) == "KeyError"
