"""What the set-up decides, and that it survives interruption and company."""

from __future__ import annotations

import hashlib
import io
import os
import queue
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
from cmo_bootstrap import apt, python_environment, server_packages, setup, work

ROOT = Path(__file__).resolve().parents[2]
BOOKWORM = apt.Distribution("debian", "bookworm")

_WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
# A build backend that writes into what it builds which one of its versions has done it.
_BUILDER = """\
import zipfile
from pathlib import Path


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    about = "built-1.0.dist-info"
    with zipfile.ZipFile(Path(wheel_directory) / "built-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("built.py", "built by {version}")
        archive.writestr(about + "/METADATA", "Metadata-Version: 2.1\\nName: built\\nVersion: 1.0\\n")
        archive.writestr(about + "/WHEEL", "{wheel}")
        archive.writestr(about + "/RECORD", "")
    return "built-1.0-py3-none-any.whl"
"""

PRINTED_URIS = """\
'http://mirror.test/debian/dists/bookworm-updates/InRelease' mirror_bookworm-updates_InRelease 0
'http://mirror.test/debian/dists/bookworm/InRelease' mirror_bookworm_InRelease 0
'https://broken.test/node/dists/nodistro/InRelease' broken_nodistro_InRelease 0
'http://mirror.test/debian/dists/bookworm/main/binary-amd64/Packages.xz' x 0
'http://mirror.test/debian/dists/bookworm/contrib/binary-amd64/Packages.xz' x 0
'http://mirror.test/debian/dists/bookworm/main/binary-all/Packages.xz' x 0
'https://broken.test/node/dists/nodistro/main/binary-amd64/Packages.xz' x 0
"""


def test_sources_are_the_machines_own_release_and_no_third_party() -> None:
    assert apt.parse_sources(PRINTED_URIS, BOOKWORM) == [
        apt.Source("http://mirror.test/debian", "bookworm", ("main", "contrib")),
        apt.Source("http://mirror.test/debian", "bookworm-updates", ("main",)),
    ]


def test_a_release_whose_name_only_begins_alike_is_another() -> None:
    assert apt.parse_sources(PRINTED_URIS, apt.Distribution("debian", "book")) == []


@pytest.mark.parametrize(
    ("os_release", "expected"),
    [
        ('ID=debian\nVERSION_CODENAME="bookworm"\n', BOOKWORM),
        ("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n", apt.Distribution("ubuntu", "noble")),
        (
            "ID=linuxmint\nID_LIKE='ubuntu debian'\nVERSION_CODENAME=xia\nUBUNTU_CODENAME=noble\n",
            apt.Distribution("ubuntu", "noble"),
        ),
        ("ID=fedora\nVERSION_CODENAME=\n", None),
        ("ID=debian\n", None),
    ],
)
def test_the_distribution_is_read_from_os_release(
    tmp_path: Path, os_release: str, expected: apt.Distribution | None
) -> None:
    path = tmp_path / "os-release"
    path.write_text(os_release)
    assert apt.distribution(path) == expected


def test_nothing_is_unpacked_that_path_has_but_the_newer_servers() -> None:
    releases = [bundle.release for bundle in server_packages.wanted_bundles(BOOKWORM, ())]
    assert releases == ["forky"]


def test_what_tests_alone_run_is_unpacked_for_them_alone() -> None:
    bundles = server_packages.wanted_bundles(BOOKWORM, (), for_tests=True)
    assert [(bundle.folder, bundle.packages) for bundle in bundles[1:]] == [
        ("forky-for-tests", ("victoria-metrics",))
    ]
    on_ubuntu = apt.Distribution("ubuntu", "noble")
    assert server_packages.wanted_bundles(on_ubuntu, (), for_tests=True) == []


def test_ubuntu_has_only_its_own_release() -> None:
    bundles = server_packages.wanted_bundles(apt.Distribution("ubuntu", "noble"), ("redis-server",))
    assert [(bundle.release, bundle.packages) for bundle in bundles] == [("noble", ("redis-server",))]


def test_an_archive_that_nobody_has_signed_is_refused(tmp_path: Path) -> None:
    """The packages are trusted only because the distribution has signed their list."""
    archive = tmp_path / "archive"
    lists = archive / "dists/bookworm/main/binary-amd64"
    lists.mkdir(parents=True)
    package = _make_package(tmp_path, "cmo-example")
    shutil.copy(package, archive)
    (lists / "Packages").write_text(
        f"Package: cmo-example\nVersion: 1\nArchitecture: all\nFilename: {package.name}\n"
        f"Size: {package.stat().st_size}\n\n"
    )
    (archive / "dists/bookworm/Release").write_text("Suite: bookworm\nCodename: bookworm\nComponents: main\n")
    source = apt.Source(f"file:{archive}", "bookworm", ("main",))
    private = apt.PrivateApt(BOOKWORM, [source], tmp_path / "work")
    private.update()
    with pytest.raises(work.SetupError, match=r"(?s)Downloading cmo-example failed.*not signed"):
        private.download(["cmo-example"])


def test_packages_are_unpacked_and_their_scripts_do_not_run(tmp_path: Path) -> None:
    package = _make_package(tmp_path, "cmo-example", postinst=f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    libc = tmp_path / "libc6_9_all.deb"
    shutil.copy(_make_package(tmp_path, "libc6"), libc)
    apt.unpack([package, libc], tmp_path / "root")
    assert (tmp_path / "root/usr/share/cmo-example").read_text() == "content"
    assert not (tmp_path / "root/usr/share/libc6").exists(), "the machine's loader would not match it"
    assert not (tmp_path / "ran").exists()


def test_pips_settings_are_handed_on_to_uv() -> None:
    environment = {"PIP_INDEX_URL": "https://mirror.test/simple", "PIP_FIND_LINKS": "/wheels /more"}
    configuration = {"extra-index-url": "\nfile:///one\nfile:///two", "index-url": "https://not.this.one"}
    assert python_environment.uv_settings(environment, configuration) == {
        "UV_DEFAULT_INDEX": "https://mirror.test/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_INDEX": "file:///one file:///two",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_uvs_own_settings_win_over_pips() -> None:
    environment = {"PIP_INDEX_URL": "https://pip.test", "UV_DEFAULT_INDEX": "https://uv.test"}
    assert python_environment.uv_settings(environment, {}) == {}


def test_pips_configuration_files_are_read(tmp_path: Path) -> None:
    user = tmp_path / "home/.config/pip/pip.conf"
    user.parent.mkdir(parents=True)
    user.write_text("[global]\nindex-url = https://user.test\n[install]\nfind-links = /wheels\n")
    named = tmp_path / "named.conf"
    named.write_text("[global]\nindex-url = https://named.test\n")
    environment = {
        "HOME": str(tmp_path / "home"),
        "PIP_CONFIG_FILE": str(named),
        "XDG_CONFIG_DIRS": str(tmp_path),
    }
    settings = python_environment.pip_configuration(environment)
    assert settings["index-url"] == "https://named.test"
    assert settings["find-links"] == "/wheels"
    assert python_environment.pip_configuration({**environment, "PIP_CONFIG_FILE": os.devnull}) == {}


@pytest.mark.parametrize(
    ("output", "cause"),
    [
        ("E: Temporary failure resolving 'mirror.test'", work.NO_NETWORK),
        ("error: dns error: failed to lookup address information", work.NO_NETWORK),
        ("dpkg-deb: error: failed to write: No space left on device", work.DISK_FULL),
        ("SSLError(SSLCertVerificationError(1, '[SSL: CERTIFICATE_VERIFY_FAILED]", work.BAD_CERTIFICATE),
        ("E: Unable to locate package prometheus", "last words"),
    ],
)
def test_a_failed_command_is_explained(output: str, cause: str) -> None:
    with pytest.raises(work.CommandFailedError, match="Fetching failed") as caught:
        work.run("Fetching", ["sh", "-c", 'echo "$1"; exit 1', "sh", output])
    assert cause in str(caught.value)
    assert output in str(caught.value)


def test_a_missing_program_is_named() -> None:
    with pytest.raises(work.SetupError, match="needs `no-such-program`, which is not on PATH"):
        work.run("Fetching", ["no-such-program"])


def test_a_full_disk_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(work.SetupError, match="The disk is full"), work.disk_full_explained():
        Path("/dev/full").write_text("x" * 100_000)


def test_a_checkout_that_cannot_be_written_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert setup.main(Path("/proc/self")) == setup.STATUS_NOT_SET_UP
    assert "Check that /proc/self can be written by you" in capsys.readouterr().err


def test_a_stamp_holds_only_for_its_inputs(tmp_path: Path) -> None:
    pins = tmp_path / "pins.txt"
    pins.write_text("one==1")
    key = work.fingerprint("python 3.11", pins)
    stamp = tmp_path / "made/stamp"
    assert not work.stamped(stamp, key)
    work.write_stamp(stamp, key)
    assert work.stamped(stamp, key)
    pins.write_text("one==2")
    assert not work.stamped(stamp, work.fingerprint("python 3.11", pins))
    assert [path.name for path in stamp.parent.iterdir()] == ["stamp"]


def test_one_waits_for_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    monkeypatch.setattr(work, "say", said.put)

    def second() -> None:
        with work.exclusive(tmp_path / "lock"):
            order.append("second")

    other = threading.Thread(target=second)
    with work.exclusive(tmp_path / "lock"):
        other.start()
        assert "another set-up is running" in said.get(timeout=60)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_a_bundle_is_not_fetched_twice_and_an_unfinished_one_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []

    def unpack(
        machine: apt.Distribution, bundle: server_packages.Bundle, directory: Path, folder: Path
    ) -> None:
        fetched.append(bundle.release)
        work.write_stamp(directory / bundle.release / server_packages.STAMP, bundle.key)

    monkeypatch.setattr(server_packages, "_unpack_bundle", unpack)
    bundle = server_packages.Bundle("bookworm", ("redis-server",), with_dependencies=True)
    (tmp_path / "bookworm/usr").mkdir(parents=True)  # left by an interruption: no stamp
    for _ in range(2):
        server_packages._prepare_bundle(BOOKWORM, bundle, tmp_path, tmp_path / "work")
    assert fetched == ["bookworm"]


def test_the_newer_release_may_be_missing_but_not_the_machines_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise work.SetupError("no such release")

    monkeypatch.setattr(server_packages, "_unpack_bundle", fail)
    newer = server_packages.Bundle("forky", ("prometheus",), with_dependencies=False)
    server_packages._prepare_bundle(BOOKWORM, newer, tmp_path, tmp_path / "work")
    assert "so the older ones are used. no such release" in capsys.readouterr().err
    for_tests = server_packages.Bundle("bookworm", ("some",), with_dependencies=False, purpose="for-tests")
    server_packages._prepare_bundle(BOOKWORM, for_tests, tmp_path, tmp_path / "work")
    assert "tests that need it are skipped. no such release" in capsys.readouterr().err
    own = server_packages.Bundle("bookworm", ("prometheus",), with_dependencies=True)
    with pytest.raises(work.SetupError, match="no such release"):
        server_packages._prepare_bundle(BOOKWORM, own, tmp_path, tmp_path / "work")


def test_a_release_newer_than_a_pin_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a package is asked for with an extra, pip's resolver takes the newest one, which has no hash."""
    index = tmp_path / "index"
    index.mkdir()
    pins = [
        _make_wheel(index, "asking", "1.0", "Requires-Dist: asked[more]>=1.0"),
        _make_wheel(index, "asked", "1.0", "Provides-Extra: more"),
    ]
    _make_wheel(index, "asked", "2.0", "Provides-Extra: more")
    checkout = _checkout_that_can_install(tmp_path / "checkout")
    checkout.main.pins[0].write_text("\n".join(pins))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))

    python_environment.install_pins(checkout, checkout.main)

    (site_packages,) = checkout.main.folder.glob("lib/python*/site-packages")
    installed = {folder.name for folder in site_packages.glob("ask*.dist-info")}
    assert installed == {"asking-1.0.dist-info", "asked-1.0.dist-info"}


def test_what_builds_a_package_is_the_pinned_one_that_went_in_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source would otherwise be built by the newest builder of the index, which no hash holds."""
    index = tmp_path / "index"
    index.mkdir()
    builder = _make_wheel(index, "builder", "1.0", module=_builder("1.0"))
    _make_wheel(index, "builder", "2.0", module=_builder("2.0"))
    source = _make_source(index, "built", build_with="builder")
    environment = python_environment.Environment(
        tmp_path / "venv", (tmp_path / "build.txt", tmp_path / "packages.txt")
    )
    environment.pins[0].write_text(builder)
    environment.pins[1].write_text(source)
    _make_environment_that_can_install(environment.folder)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))

    python_environment.install_pins(python_environment.Checkout(tmp_path), environment)

    (built,) = environment.folder.glob("lib/python*/site-packages/built.py")
    assert built.read_text() == "built by 1.0"


def test_node_trusts_what_the_system_or_pip_trusts(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.touch()
    trusts = python_environment._certificates_of_node
    assert trusts({"PIP_CERT": str(bundle)}) == {"NODE_EXTRA_CA_CERTS": str(bundle)}
    assert trusts({"SSL_CERT_FILE": str(bundle), "PIP_CERT": "/not/there"}) == {
        "NODE_EXTRA_CA_CERTS": str(bundle)
    }
    assert trusts({"PIP_CERT": str(bundle), "NODE_EXTRA_CA_CERTS": "mine"}) == {}


def _ask_npm_for_nothing(checkout: python_environment.Checkout) -> None:
    for made in checkout.test_environments:
        if made.npm_packages is not None:
            made.npm_packages.mkdir()
            for name in ("package.json", "package-lock.json", ".npmrc"):
                (made.npm_packages / name).touch()


def test_environments_for_tests_are_made_on_demand_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = python_environment.Checkout(tmp_path)
    for pins in {pins for made in (checkout.main, *checkout.test_environments) for pins in made.pins}:
        pins.parent.mkdir(exist_ok=True)
        pins.touch()
    (tmp_path / "pyproject.toml").touch()
    _ask_npm_for_nothing(checkout)
    npm: list[list[str]] = []
    monkeypatch.setattr(python_environment, "_install", lambda *_: None)
    monkeypatch.setattr(python_environment, "_make_venv", _make_empty)
    monkeypatch.setattr(python_environment, "run", lambda _what, command, _environment: npm.append(command))

    python_environment.prepare(checkout)
    assert not [made for made in checkout.test_environments if made.folder.exists()]

    python_environment.prepare(checkout, with_test_environments=True)
    assert all(made.python.exists() for made in checkout.test_environments)

    marks = [made.folder / "mark" for made in (checkout.main, *checkout.test_environments)]
    for mark in marks:
        mark.touch()
    checkout.test_environments[0].pins[0].write_text("asked==2.0")
    python_environment.prepare(checkout, with_test_environments=True)
    assert [mark.exists() for mark in marks] == [True, False, True, True], "anew only where the pins changed"

    (asked_npm,) = npm
    with_npm = checkout.test_environments[-1]
    assert asked_npm[:4] == [str(with_npm.folder / "bin/npm"), "ci", "--prefix", str(with_npm.folder)]
    assert with_npm.npm_packages is not None
    (with_npm.npm_packages / "package-lock.json").write_text("another version")
    python_environment.prepare(checkout, with_test_environments=True)
    assert not marks[-1].exists(), "made anew where npm's lock has changed"


def test_an_activated_environment_is_not_made_anew_and_takes_nothing_away(tmp_path: Path) -> None:
    """Its Python would be another one than that which made it, and would be gone while it works."""
    ours = Path(python_environment.__file__).parents[1]
    made_by = python_environment._PYTHON
    subprocess.run([made_by, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    program = "from cmo_bootstrap import python_environment; print(python_environment._PYTHON)"
    seen = {
        subprocess.run(
            [tmp_path / "venv/bin" / name, "-c", program],
            env={"PYTHONPATH": str(ours)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for name in ("python", "python3")
    }
    assert seen == {f"{made_by}\n"}
    assert not made_by.startswith(sys.prefix), "the tests run in an environment, or this shows nothing"


@pytest.mark.parametrize(
    ("has_uv", "has_pip", "afresh"),
    [(True, False, False), (False, True, False), (False, False, True)],
    ids=["uv", "pip", "made by uv, which is gone"],
)
def test_an_environment_that_the_installer_at_hand_cannot_install_into_is_made_afresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_uv: bool, has_pip: bool, afresh: bool
) -> None:
    """The project alone is out of date, and uv makes environments without pip."""
    checkout = python_environment.Checkout(tmp_path / "checkout")
    (pins,) = checkout.main.pins
    pins.parent.mkdir(parents=True)
    pins.write_text("asked==1.0")
    project = checkout.root / "pyproject.toml"
    project.write_text("[project]")
    programs = tmp_path / "programs"
    programs.mkdir()
    uv = programs / "uv"
    uv.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(python_environment, "_make_venv", _make_empty)
    installed: list[str] = []
    monkeypatch.setattr(python_environment, "_install", lambda *args: installed.append(args[-1]))
    python_environment.prepare(checkout)
    mark = checkout.main.folder / "mark"
    mark.touch()
    if not has_uv:
        uv.unlink()
    if has_pip:
        (checkout.main.folder / "lib/python3.11/site-packages/pip").mkdir(parents=True)

    python_environment.prepare(checkout)
    assert mark.exists(), "nothing is to be installed"

    installed.clear()
    project.write_text("[project] # changed")
    python_environment.prepare(checkout)
    assert mark.exists() is not afresh
    assert installed == [*([str(pins)] if afresh else []), str(checkout.root)]


def _make_empty(_: python_environment.Checkout, environment: python_environment.Environment) -> None:
    shutil.rmtree(environment.folder, ignore_errors=True)
    environment.python.parent.mkdir(parents=True)
    environment.python.touch()


def test_a_package_that_is_not_what_was_pinned_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = _checkout_that_can_install(tmp_path / "checkout")
    checkout.main.pins[0].write_text(_make_wheel(tmp_path, "asked", "1.0"))
    _make_wheel(tmp_path, "asked", "1.0", "Summary: another content")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))

    with pytest.raises(work.SetupError, match=r"(?is)into \.venv failed.*hash"):
        python_environment.install_pins(checkout, checkout.main)

    assert not list(checkout.main.folder.glob("lib/python*/site-packages/asked*"))


def test_an_old_python_is_told_which_one_to_take() -> None:
    complaint = _bootstrap_says("(3, 9, 2)", "lambda name: '/usr/bin/x' if name == 'python3.12' else None")
    assert "Python 3.11 or later is needed; this is 3.9.2" in complaint
    assert "make PYTHON=python3.12" in complaint


def test_a_new_python_is_not_complained_about() -> None:
    assert _bootstrap_says("(3, 11, 0)", "lambda name: None") == "None"


def _bootstrap_says(version: str, which: str) -> str:
    program = f"import bootstrap; print(bootstrap.python_complaint({version}, {which}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "stack")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _checkout_that_can_install(root: Path) -> python_environment.Checkout:
    """An empty checkout with an environment; pip, if there is no uv, is the one that runs these tests."""
    checkout = python_environment.Checkout(root)
    (root / "requirements").mkdir(parents=True)
    _make_environment_that_can_install(checkout.main.folder)
    return checkout


def _make_environment_that_can_install(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "pip_of_the_tests.pth").write_text(sysconfig.get_path("purelib"))


def _make_wheel(folder: Path, name: str, version: str, *metadata: str, module: str = "") -> str:
    """Make a wheel, and return the line that pins it."""
    about = f"{name}-{version}.dist-info"
    contents = {
        f"{name}.py": module,
        f"{about}/METADATA": "\n".join(
            ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *metadata]
        ),
        f"{about}/WHEEL": _WHEEL,
    }
    record = "".join(f"{file},,\n" for file in [*contents, f"{about}/RECORD"])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file, content in {**contents, f"{about}/RECORD": record}.items():
            archive.writestr(file, content)
    return _pin(wheel, name, version)


def _pin(file: Path, name: str, version: str) -> str:
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


def _builder(version: str) -> str:
    return _BUILDER.format(version=version, wheel=_WHEEL.replace("\n", "\\n"))


def _make_source(folder: Path, name: str, build_with: str) -> str:
    """Make a package that comes as source alone, and return the line that pins it."""
    contents = {
        "pyproject.toml": f'[build-system]\nrequires = ["{build_with}"]\nbuild-backend = "{build_with}"\n',
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
    }
    source = folder / f"{name}-1.0.tar.gz"
    with tarfile.open(source, "w:gz") as archive:
        for file, content in contents.items():
            entry = tarfile.TarInfo(f"{name}-1.0/{file}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))
    return _pin(source, name, "1.0")


def _make_package(folder: Path, name: str, postinst: str = "") -> Path:
    tree = folder / f"{name}-tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/share").mkdir(parents=True)
    (tree / "usr/share" / name).write_text("content")
    (tree / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\n"
        "Description: example\n"
    )
    if postinst:
        (tree / "DEBIAN/postinst").write_text(postinst)
        (tree / "DEBIAN/postinst").chmod(0o755)
    package = folder / f"{name}_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(package)], check=True, capture_output=True)
    return package
