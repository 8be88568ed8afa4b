"""Images under the names and tags of docker-compose.yml, made of Debian packages where there is no registry.

What they hold is the real thing in the real version, with users and folders as the makers' images have them.
Our own image is not here: it is built from the Dockerfile, on a stand-in for the Python that it names.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.requirements import Requirement

from .debian_trees import NEWER, PYTHONS, Archives, make_root, own
from .telling import step

if TYPE_CHECKING:
    from .private_engine import Engine

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON_IMAGE: Final = "python:3.11-slim-bookworm"
_SERVERS_IMAGE: Final = "cmo-stand-in-servers:1"

_SERVER_PACKAGES: Final = (
    "prometheus",
    "promtool",
    "prometheus-alertmanager",
    "victoria-metrics",
    "redis-server",
    "redis-tools",
    "haproxy",
    "busybox-static",
)
_PYTHON_PACKAGES: Final = (
    "python3",
    "python3-venv",
    "base-passwd",
    "passwd",
    "coreutils",
    "dash",
    "findutils",
    "libstdc++6",
    "busybox-static",
)
# Large, and not what the images are for.
_LEFT_OUT: Final = ("vmagent", "vmalert-tool", "vmauth", "vmbackup", "vmctl", "vmrestore", "promtool")
_PYTHON_OF_BOOKWORM: Final = "3.11.2"
_NOBODY: Final = (65534, 65534)

# What of a maker's image docker-compose.yml relies on: entry point, command, folders.
_IMAGES: Final = {
    "prom/prometheus:v3.5.3": ('ENTRYPOINT ["/usr/bin/prometheus"]', "WORKDIR /prometheus"),
    "prom/alertmanager:v0.33.1": ('ENTRYPOINT ["/usr/bin/prometheus-alertmanager"]', "WORKDIR /alertmanager"),
    "victoriametrics/victoria-metrics:v1.145.0": ('ENTRYPOINT ["/usr/bin/victoria-metrics"]',),
    "victoriametrics/vmalert:v1.145.0": ('ENTRYPOINT ["/usr/bin/vmalert"]',),
    "redis:8.0.6-alpine": ("WORKDIR /data", 'CMD ["redis-server"]'),
    "haproxy:3.2.26-alpine": (
        'CMD ["/usr/sbin/haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]',
    ),
}
NO_STAND_IN: Final = frozenset({"grafana/grafana:12.3.3"})
"""In no package index: checked by its files alone, unless a registry can be reached."""


def prepare_trees(archives: Archives, work: Path) -> None:
    """Download and unpack what the images are made of: outside, where the network is.

    Raises:
        SetupError: a package is not to be had.
    """
    with (
        step("Unpacking what stand-in images are made of: servers, Python and its packages"),
        ThreadPoolExecutor(2) as pool,
    ):
        for prepared in [pool.submit(prepare, archives, work) for prepare in (_servers, _python)]:
            prepared.result()


def _servers(archives: Archives, work: Path) -> None:
    tree = work / "servers"
    archives.whole(NEWER, _SERVER_PACKAGES, tree)
    make_root(tree)
    for name in _LEFT_OUT:
        (tree / "usr/bin" / name).unlink(missing_ok=True)
    own(tree / "prometheus", *_NOBODY)
    own(tree / "alertmanager", *_NOBODY)


def _python(archives: Archives, work: Path) -> None:
    tree = work / "python"
    archives.whole(PYTHONS, _PYTHON_PACKAGES, tree)
    make_root(tree)
    (tree / "usr/local/bin").mkdir(parents=True, exist_ok=True)
    for name in ("python", "python3"):
        (tree / "usr/local/bin" / name).symlink_to("/usr/bin/python3.11")
    _download_wheels(tree / "wheels", work)
    # The Dockerfile asks the index of Python packages, as everybody can; this is what answers here.
    (tree / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")


def make_images(engine: Engine, work: Path) -> None:
    """Make an image of each, in an engine that has none of them."""
    with step("Making stand-in images"):
        for tree, image in (("servers", _SERVERS_IMAGE), ("python", PYTHON_IMAGE)):
            _import(engine, work / tree, image)
        for image, lines in _IMAGES.items():
            dockerfile = "\n".join((f"FROM {_SERVERS_IMAGE}", *lines))
            engine.docker("build", "--quiet", "--tag", image, "-", stdin=dockerfile)


def _import(engine: Engine, tree: Path, image: str) -> None:
    path = "ENV PATH /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    with subprocess.Popen(["tar", "-c", "-C", tree, "."], stdout=subprocess.PIPE) as content:
        subprocess.run(
            [*engine.docker_command, "import", "--change", path, "-", image],
            stdin=content.stdout,
            stdout=subprocess.DEVNULL,
            env=engine.environment,
            check=True,
        )
    shutil.rmtree(tree)


def _download_wheels(folder: Path, work: Path) -> None:
    pip = _pip(work)
    for pins in ("image.txt", "image-build.txt"):
        wanted = work / pins
        wanted.write_text(_for_the_image((ROOT / "requirements" / pins).read_text()))
        command = [*pip, "download", "--quiet", "--quiet", "--no-deps", "--require-hashes"]
        command += [
            "--only-binary=:all:",
            "--python-version=3.11",
            f"--dest={folder}",
            f"--requirement={wanted}",
        ]
        subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})


def _for_the_image(pins: str) -> str:
    """The pins that count in the image: pip asks the Python that runs it, which may be another one."""
    environment = {"python_version": "3.11", "python_full_version": _PYTHON_OF_BOOKWORM}
    kept = []
    for block in re.split(r"\n(?=[^\s#])", pins):
        requirement, _, rest = block.partition(" \\")
        if requirement.startswith("#"):
            continue
        read = Requirement(requirement)
        if read.marker is None or read.marker.evaluate(environment):
            kept.append(f"{read.name}{read.specifier} \\{rest}")
    return "\n".join(kept)


def _pip(work: Path) -> list[str]:
    """A pip: that of .venv; uv makes environments without one, and then makes us one with it."""
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode == 0:
        return [sys.executable, "-m", "pip"]
    subprocess.run(["uv", "venv", "--quiet", "--no-project", "--seed", work / "pip"], check=True)
    return [str(work / "pip/bin/python"), "-m", "pip"]
