"""Set this checkout up on a bare machine: ``.venv`` with pinned packages, and the servers in ``.servers/``.

``make setup`` runs it with whatever ``python3`` is there, before anything is installed. So this file must be
readable by an old Python, if only to tell its user which one is needed; the work is in ``cmo_bootstrap``,
which uses the standard library alone. ``make setup-test`` asks for the environments of packages that do not
go into ``.venv``, too.
"""

import argparse
import shutil
import sys
from pathlib import Path

MINIMUM_PYTHON = (3, 11)
NEWER_PYTHONS = ("python3.14", "python3.13", "python3.12", "python3.11")
STATUS_NOT_SET_UP = 4


def python_complaint(version, which=shutil.which):  # type: ignore[no-untyped-def]  # annotations here stay readable by any Python 3
    """What to tell the user of a Python that is too old; None when it is new enough."""
    if tuple(version[:2]) >= MINIMUM_PYTHON:
        return None
    needed = ".".join(map(str, MINIMUM_PYTHON))
    found = ".".join(map(str, version[:3]))
    newer = next((name for name in NEWER_PYTHONS if which(name)), None)
    mend = (
        "Run `make PYTHON=" + newer + " ...`."
        if newer
        else "Install a newer Python and run `make PYTHON=/path/to/it ...`."
    )
    return "Python %s or later is needed; this is %s (%s). %s" % (needed, found, sys.executable, mend)  # noqa: UP031 - for any Python 3


def main():  # type: ignore[no-untyped-def]  # as above
    """Set up; exit with 0, or with 4 and a message that says what to do."""
    complaint = python_complaint(sys.version_info)
    if complaint:
        sys.stderr.write("setup: " + complaint + "\n")
        return STATUS_NOT_SET_UP
    from cmo_bootstrap import setup  # noqa: PLC0415 - an old Python cannot read it

    parser = argparse.ArgumentParser(description="Set this checkout up.")
    parser.add_argument(
        "--with-test-environments",
        action="store_true",
        help="also make the environments of packages that do not go into .venv, which tests alone need",
    )
    wanted = parser.parse_args()
    return setup.main(
        Path(__file__).resolve().parents[1], with_test_environments=wanted.with_test_environments
    )


if __name__ == "__main__":
    sys.exit(main())
