"""Images under the names and tags of docker-compose.yml, made of Debian packages where there is no registry.

What they hold is the real thing, with users and folders as the makers' images have them, in the version that
Debian has: where that is not the image's, it is told. Our own image is not here: it is built from the
Dockerfile, on a stand-in for the Python that it names.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.requirements import Requirement

from .compose_file import BASE_IMAGES
from .debian_trees import NEWER, PYTHONS, Archives, make_root, own
from .telling import NotProvedError, require, step, tell

if TYPE_CHECKING:
    from .private_engine import Engine

ROOT: Final = Path(__file__).resolve().parents[2]
PYTHON_IMAGE: Final = BASE_IMAGES[0]
_PYTHON: Final = "python3.11"
"""The package that stands in for it."""
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
_NOBODY: Final = (65534, 65534)


@dataclass(frozen=True)
class _StandIn:
    """The package that a server is taken from, and what of its maker's image docker-compose.yml relies on."""

    package: str
    dockerfile: tuple[str, ...]


_IMAGES: Final = {
    "prom/prometheus:v3.5.3": _StandIn(
        "prometheus", ('ENTRYPOINT ["/usr/bin/prometheus"]', "WORKDIR /prometheus")
    ),
    "prom/alertmanager:v0.33.1": _StandIn(
        "prometheus-alertmanager",
        ('ENTRYPOINT ["/usr/bin/prometheus-alertmanager"]', "WORKDIR /alertmanager"),
    ),
    "victoriametrics/victoria-metrics:v1.145.0": _StandIn(
        "victoria-metrics", ('ENTRYPOINT ["/usr/bin/victoria-metrics"]',)
    ),
    "victoriametrics/vmalert:v1.145.0": _StandIn("victoria-metrics", ('ENTRYPOINT ["/usr/bin/vmalert"]',)),
    "redis:8.0.6-alpine": _StandIn("redis-server", ("WORKDIR /data", 'CMD ["redis-server"]')),
    "haproxy:3.2.26-alpine": _StandIn(
        "haproxy", ('CMD ["/usr/sbin/haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]',)
    ),
}
NO_STAND_IN: Final = frozenset({"grafana/grafana:12.3.3"})
"""In no package index: checked by its files alone, unless a registry can be reached."""


def prepare_trees(archives: Archives, work: Path) -> list[str]:
    """Download and unpack what the images are made of: outside, where the network is.

    Returns where that is of another version than the image, each in words.

    Raises:
        SetupError: a package is not to be had.
        NotProvedError: one is of another major version.
    """
    with (
        step("Unpacking what stand-in images are made of: servers, Python and its packages"),
        ThreadPoolExecutor(2) as pool,
    ):
        prepared = [pool.submit(prepare, archives, work) for prepare in (_servers, _python)]
        servers, pythons = (each.result() for each in prepared)
    packages = [(image, stand_in.package, servers) for image, stand_in in _IMAGES.items()]
    packages.append((PYTHON_IMAGE, _PYTHON, pythons))
    said = [other_version(image, package, versions[package]) for image, package, versions in packages]
    others = [words for words in said if words]
    for words in others:
        tell(f"OTHER VERSION: {words}")
    return others


def other_version(image: str, package: str, debian_version: str) -> str:
    """That a package is of another version than the image that it stands in for; nothing where it is not.

    Debian's next release moves on without a fault of ours, and keeps no older package. So this is told, at
    the beginning and with the result, and not refused: a proof that nobody can run proves less. It cannot
    begin with the minor version, by which VictoriaMetrics counts every release. Another major version may
    take other flags and files, and says nothing of the one that is named.

    Raises:
        NotProvedError: it is of another major version.
    """
    named, found = _upstream_version(image.rpartition(":")[2]), _upstream_version(debian_version)
    if named == found:
        return ""
    words = f"{package} {found} in the place of {image}"
    require(
        named.partition(".")[0] == found.partition(".")[0],
        f"a stand-in of the same major version, found {words}. Name {found} in docker-compose.yml (Python: "
        "in the Dockerfile) and here, once the stack works with it; or prove it where a registry is reached.",
    )
    return words


def _upstream_version(text: str) -> str:
    """What its makers call a tag, or a version of Debian's: 8.0.6 of 8.0.6-alpine and of 5:8.0.6-3."""
    found = re.match(r"(?:\d+:|v)?(\d+(?:\.\d+)*)", text)
    if found is None:
        raise NotProvedError(f"A version begins with a number, found {text!r}.")
    return found[1]


def _servers(archives: Archives, work: Path) -> dict[str, str]:
    """Make the tree of all servers; the version of each package."""
    tree = work / "servers"
    versions = archives.whole(NEWER, _SERVER_PACKAGES, tree)
    make_root(tree)
    for name in _LEFT_OUT:
        (tree / "usr/bin" / name).unlink(missing_ok=True)
    own(tree / "prometheus", *_NOBODY)
    own(tree / "alertmanager", *_NOBODY)
    return versions


def _python(archives: Archives, work: Path) -> dict[str, str]:
    """Make the tree of Python, with the wheels of our image; the version of each package of Debian's."""
    tree = work / "python"
    versions = archives.whole(PYTHONS, _PYTHON_PACKAGES, tree)
    make_root(tree)
    # The maker's image brings them along; ours must not.
    for wheel in (tree / "usr/share/python-wheels").glob("*.whl"):
        shutil.unpack_archive(wheel, tree / "usr/local/lib/python3.11/dist-packages", "zip")
    (tree / "usr/local/bin").mkdir(parents=True, exist_ok=True)
    for name in ("python", "python3"):
        (tree / "usr/local/bin" / name).symlink_to("/usr/bin/python3.11")
    (tree / "usr/local/bin/pip").write_text('#!/bin/sh\nexec python3 -m pip "$@"\n')
    (tree / "usr/local/bin/pip").chmod(0o755)
    _download_wheels(tree / "wheels", work, _upstream_version(versions[_PYTHON]))
    # The Dockerfile asks the index of Python packages, as everybody can; this is what answers here.
    (tree / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    return versions


def make_images(engine: Engine, work: Path) -> None:
    """Make an image of each, in an engine that has none of them."""
    with step("Making stand-in images"):
        for tree, image in (("servers", _SERVERS_IMAGE), ("python", PYTHON_IMAGE)):
            _import(engine, work / tree, image)
        for image, stand_in in _IMAGES.items():
            dockerfile = "\n".join((f"FROM {_SERVERS_IMAGE}", *stand_in.dockerfile))
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


def _download_wheels(folder: Path, work: Path, python_version: str) -> None:
    pip = _pip(work)
    for pins in ("image.txt", "image-build.txt"):
        wanted = work / pins
        wanted.write_text(_for_the_image((ROOT / "requirements" / pins).read_text(), python_version))
        command = [*pip, "download", "--quiet", "--quiet", "--no-deps", "--require-hashes"]
        command += [
            "--only-binary=:all:",
            "--python-version=3.11",
            f"--dest={folder}",
            f"--requirement={wanted}",
        ]
        subprocess.run(command, check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})


def _for_the_image(pins: str, python_version: str) -> str:
    """The pins that count in the image: pip asks the Python that runs it, which may be another one."""
    environment = {"python_version": "3.11", "python_full_version": python_version}
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
