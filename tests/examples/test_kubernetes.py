"""examples/kubernetes: fresh, valid by the published schemas, true to its sources, and without secrets."""

from __future__ import annotations

import copy
import json
import os
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cmo_dashboards.building import build_dashboards
from cmo_dashboards.finish import text_of
from cmo_dashboards.shipped import compiled_directory, file_name
from cmo_slo.cli_links import with_links
from cmo_slo.objectives import find_objectives, load_objectives, objectives_hash, parse_objectives
from cmo_stack import cli
from cmo_stack.kubernetes import config_maps
from cmo_stack.kubernetes.cluster import Cluster, WrongNamespaceError
from cmo_stack.kubernetes.manifests import manifest_files

from .published_schemas import complaints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmo_slo.rulefile import GeneratedFile

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples/kubernetes"
README = (EXAMPLE / "README.md").read_text()
OBJECTIVES = load_objectives(find_objectives("cmo-015"))
PLAIN = '{\n  "title": "# … µ: {{x}} \\\\d+",\n  "url": "https://example.org"\n}\n'
ODD = PLAIN.replace("…", "\u2028 ").replace("}\n", "} \n")
"""What cannot be written as a literal block of YAML."""
FREE_NAMES = ("labels", "annotations", "matchLabels", "data", "limits", "requests")
"""Fields whose keys are anybody's choice."""


def _documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def _all_manifests() -> list[Any]:
    paths = sorted(EXAMPLE.rglob("*.yml"))
    found = [(path, document) for path in paths for document in _documents(path)]
    return [
        pytest.param(document, id=f"{path.relative_to(EXAMPLE)}:{document['metadata']['name']}")
        for path, document in found
    ]


def _only(kind: str) -> dict[str, Any]:
    found: dict[str, Any]
    (found,) = [one.values[0] for one in _all_manifests() if one.values[0]["kind"] == kind]
    return found


def test_it_is_fresh_and_nothing_is_left_over() -> None:
    there = {path for path in EXAMPLE.rglob("*") if path.is_file() and path.name != "README.md"}
    made = manifest_files(OBJECTIVES, EXAMPLE)
    mend = (
        "run `cmo kubernetes build --output examples/kubernetes`, delete what that does not write, and commit"
    )
    assert {file.path for file in made} == there, mend
    assert [file.path.name for file in made if not file.fresh] == [], mend


@pytest.mark.parametrize("manifest", _all_manifests())
def test_it_is_valid_by_the_published_schema(manifest: dict[str, Any]) -> None:
    assert complaints(manifest) == []


@pytest.mark.parametrize("manifest", _all_manifests())
def test_its_name_is_one_that_kubernetes_takes(manifest: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", manifest["metadata"]["name"])


def _misspelt(manifest: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The manifest with one field misspelt, once for each kind of place that has a field of its schema."""
    seen = set()
    for place in _places(manifest):
        shape = tuple("*" if isinstance(step, int) else step for step in place)
        if shape in seen or any(name in FREE_NAMES for name in shape[:-1]):
            continue
        seen.add(shape)
        wrong = copy.deepcopy(manifest)
        holder: Any = wrong
        for step in place[:-1]:
            holder = holder[step]
        holder[f"{place[-1]}x"] = holder.pop(place[-1])
        yield ".".join(map(str, place)), wrong


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*place, key)
            yield from _places(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _places(inner, (*place, index))


@pytest.mark.parametrize("manifest", _all_manifests())
def test_no_misspelt_field_passes(manifest: dict[str, Any]) -> None:
    misspelt = list(_misspelt(manifest))
    assert len(misspelt) > 3
    assert [where for where, wrong in misspelt if complaints(wrong) == []] == []


def test_wrong_values_do_not_pass_either() -> None:
    config = _only("AlertmanagerConfig")
    config["spec"]["route"]["routes"][0]["matchers"][0]["matchType"] = "=="
    config["spec"]["route"]["routes"][1]["groupWait"] = "a minute"
    config["spec"]["receivers"][0]["slackConfigs"][0]["apiURL"] = "https://hooks.example.org/secret"
    assert [line.partition(":")[0] for line in complaints(config)] == [
        "$.spec.receivers[0].slackConfigs[0].apiURL",
        "$.spec.route.routes[0].matchers[0].matchType",
        "$.spec.route.routes[1].groupWait",
    ]


def test_the_rules_are_the_compiled_ones() -> None:
    compiled = ROOT / "slo_rules/rules"
    assert (EXAMPLE / "prometheus-rule.yml").read_text() == (compiled / "kubernetes/cmo-015.yml").read_text()
    plain = yaml.safe_load((compiled / "cmo-015.yml").read_text())
    assert _only("PrometheusRule")["spec"] == plain


def test_jobs_are_those_of_the_shipped_configuration() -> None:
    """By a relabelling, so that the name of a Service does not matter."""
    scraped = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text())["scrape_configs"]
    jobs = []
    for monitor in _documents(EXAMPLE / "service-monitors.yml"):
        relabellings = [endpoint["relabelings"] for endpoint in monitor["spec"]["endpoints"]]
        assert relabellings == relabellings[:1] * len(relabellings), "each port has the same job"
        ((relabelling,), *_) = relabellings
        assert (relabelling["targetLabel"], relabelling["action"]) == ("job", "replace")
        jobs.append(relabelling["replacement"])
    assert jobs == [job["job_name"] for job in scraped]


def test_the_operators_own_services_are_found_whatever_a_chart_calls_their_port() -> None:
    monitors = {one["metadata"]["name"]: one["spec"] for one in _documents(EXAMPLE / "service-monitors.yml")}
    for name in ("prometheus", "alertmanager"):
        spec = monitors[f"cmo-{name}"]
        assert spec["selector"]["matchLabels"] == {f"operated-{name}": "true"}
        assert [endpoint["port"] for endpoint in spec["endpoints"]] == ["web", "http-web"]


def test_only_the_service_is_shown_its_token() -> None:
    """It is a secret of its own; whoever else is scraped has no business with it."""
    shown = [
        monitor["metadata"]["name"]
        for monitor in _documents(EXAMPLE / "service-monitors.yml")
        if any("authorization" in endpoint for endpoint in monitor["spec"]["endpoints"])
    ]
    assert shown == ["cmo"]


def test_who_runs_no_prober_has_no_monitor_of_one(tmp_path: Path) -> None:
    text = find_objectives("cmo-015").read_text()
    (mine := tmp_path / "my.yml").write_text(text.replace("jobs: [cmo, probe, ", "jobs: [cmo, "))
    files = {file.path.name: file.content for file in manifest_files(load_objectives(mine), tmp_path)}
    names = [one["metadata"]["name"] for one in yaml.safe_load_all(files["service-monitors.yml"])]
    assert names == ["cmo", "cmo-prometheus", "cmo-alertmanager"]


def test_a_night_is_judged_by_the_objectives_of_which_the_rules_are_compiled(tmp_path: Path) -> None:
    text = find_objectives("cmo-015").read_text()
    (mine := tmp_path / "my.yml").write_text(text.replace("target: 0.95", "target: 0.97", 1))
    compiled = with_links(load_objectives(mine), "https://git.example.org/runbooks", None)
    files = {file.path.name: file.content for file in manifest_files(compiled, tmp_path)}
    data = yaml.safe_load(files["objectives.yml"])["data"]
    assert parse_objectives(data["cmo-015.yml"], "objectives.yml") == compiled
    assert f"({objectives_hash(compiled)})" in files["prometheus-rule.yml"]
    assert compiled != OBJECTIVES


def test_another_job_interval_and_namespaces_are_where_they_belong(tmp_path: Path) -> None:
    text = find_objectives("cmo-015").read_text()
    text = text.replace("{job: cmo,", "{job: Oracle_1,").replace("jobs: [cmo, ", "jobs: [Oracle_1, ")
    (mine := tmp_path / "my.yml").write_text(text)
    made = manifest_files(load_objectives(mine), tmp_path, "5s", Cluster("watch", "clinic"))
    files = {file.path.name: file.content for file in made}
    monitors = list(yaml.safe_load_all(files["service-monitors.yml"]))
    assert [one["spec"]["endpoints"][0]["interval"] for one in monitors] == ["5s"] * 4
    assert [one["spec"]["namespaceSelector"]["matchNames"] for one in monitors] == [
        ["clinic"],
        ["clinic"],
        ["watch"],
        ["watch"],
    ]
    assert monitors[0]["spec"]["endpoints"][0]["relabelings"][0]["replacement"] == "Oracle_1"
    assert [one["metadata"]["name"] for one in monitors] == [
        "cmo",
        "cmo-probe",
        "cmo-prometheus",
        "cmo-alertmanager",
    ]
    assert yaml.safe_load(files["prometheus-rule.yml"])["spec"]["groups"][0]["interval"] == "5s"
    assert yaml.safe_load(files["kustomization.yaml"])["namespace"] == "watch"


@pytest.mark.parametrize("name", ["", "Cmo", "a_b", "-a", "a-", "a" * 64])
def test_a_name_that_is_none_of_a_namespace_is_refused(name: str) -> None:
    with pytest.raises(WrongNamespaceError, match="namespace"):
        Cluster(service_namespace=name)


def test_each_dashboard_is_in_a_config_map_that_the_sidecar_finds() -> None:
    found = {path.stem: _documents(path) for path in (EXAMPLE / "dashboards").glob("*.yml")}
    compiled = {path.stem: path.read_text() for path in compiled_directory().glob("*.json")}
    (runbooks,) = found.pop("cmo-runbooks")
    assert runbooks["data"] == {
        path.name: path.read_text() for path in compiled_directory().glob("runbooks/*.json")
    }
    assert runbooks["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found.keys() == compiled.keys()
    for name, (manifest,) in found.items():
        assert manifest["data"] == {f"{name}.json": compiled[name]}
        assert manifest["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert (EXAMPLE / f"dashboards/{name}.yml").stat().st_size < config_maps.LARGEST_CONFIG_MAP_BYTES


def _held(files: list[GeneratedFile]) -> dict[str, str]:
    """What the ConfigMaps of dashboards hold, runbooks too."""
    manifests = [yaml.safe_load(file.content) for file in files if file.path.parent.name == "dashboards"]
    return {name: text for manifest in manifests for name, text in manifest["data"].items()}


@pytest.mark.parametrize("requirement", [PLAIN, ODD], ids=["plain", "odd"])
def test_dashboards_are_held_byte_by_byte_and_without_any_mark(requirement: str) -> None:
    objectives = OBJECTIVES.model_copy(update={"requirement": requirement})
    built = {file_name(board): text_of(board.document) for board in build_dashboards(objectives).dashboards}
    assert requirement[:10] in json.loads(built["cmo-015.json"])["description"]
    held = _held(manifest_files(objectives, Path("there")))
    assert {name: held[name] for name in built} == built


def test_dashboards_are_those_of_the_objectives(tmp_path: Path) -> None:
    text = find_objectives("cmo-015").read_text()
    for old, new in (
        ("name: cmo-015", "name: my-slo"),
        ("{job: cmo,", "{job: oracle, probe_job: oracle-probe,"),
        ("jobs: [cmo, probe, ", "jobs: [oracle, oracle-probe, "),
        ("target: 0.70", "target: 0.60"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (mine := tmp_path / "my.yml").write_text(text)
    assert cli.run(["kubernetes", "build", str(mine), "--output", str(tmp_path / "manifests")]) == 0
    assert cli.run(["dashboards", "build", str(mine), "--output", str(tmp_path / "plain")]) == 0
    held = {
        name: text
        for path in (tmp_path / "manifests/dashboards").iterdir()
        for name, text in yaml.safe_load(path.read_text())["data"].items()
    }
    assert held == {path.name: path.read_text() for path in (tmp_path / "plain").rglob("*.json")}
    of_shipped = re.compile(r'(job=\\?"(cmo|probe)\\?"|slo=\\?"cmo-015)')
    assert [name for name, text in held.items() if of_shipped.search(text)] == []
    assert len([name for name, text in held.items() if 'job=\\"oracle\\"' in text]) > 6
    assert "Cache hit rate (target > 60 %)" in held["my-slo.json"]
    assert (
        "dashboards/my-slo.yml"
        in yaml.safe_load((tmp_path / "manifests/kustomization.yaml").read_text())["resources"]
    )


def test_manifests_are_not_written_over_the_objectives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = find_objectives("cmo-015").read_bytes()
    (tmp_path / "objectives.yml").write_bytes(shipped)
    assert cli.run(["kubernetes", "build", str(tmp_path / "objectives.yml"), "--output", str(tmp_path)]) == 3
    assert "would be written over the objectives that it is made of" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"objectives.yml": shipped}


@pytest.mark.parametrize("name", ["kustomization.yaml", "prometheus-rule.yml", "dashboards/cmo-015.yml"])
def test_files_of_others_are_not_replaced(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (theirs := tmp_path / name).parent.mkdir(exist_ok=True)
    theirs.write_text("# Ours.\nkind: Kustomization\n")
    build = ["kubernetes", "build", "--output", str(tmp_path)]
    assert cli.run(build) == 3
    assert f"{theirs}: not made by this command, so it is not replaced" in capsys.readouterr().err
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [theirs]
    theirs.unlink()
    assert cli.run(build) == 0
    assert cli.run(build) == 0, "what was built before is its own"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "directory"])
def test_what_is_no_file_is_not_waited_for(
    make: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "objectives.yml")
    assert cli.run(["kubernetes", "build", "--output", str(tmp_path)]) == 3
    assert "nothing is written" in capsys.readouterr().err


def test_dashboards_that_show_what_the_objectives_lack_are_left_out_and_the_rest_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = yaml.safe_load(find_objectives("cmo-015").read_text())
    read["objectives"] = [one for one in read["objectives"] if one["name"] != "cache_hits"]
    (mine := tmp_path / "my.yml").write_text(yaml.safe_dump(read))
    folder = tmp_path / "manifests"
    assert cli.run(["kubernetes", "build", str(mine), "--output", str(folder)]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("wrote ")]
    left_out = ["cmo-components", "cmo-015", "cmo-load-test"]
    assert [line.partition(", for want of")[0] for line in told] == [
        f"{mine}: the dashboard {uid} is left out" for uid in left_out
    ]
    assert all("'cache_hits'" in line for line in told)
    named = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.yml")} == set(named)
    shipped = {path.name for path in (EXAMPLE / "dashboards").iterdir()}
    assert {path.name for path in (folder / "dashboards").iterdir()} == shipped - {
        f"{uid}.yml" for uid in left_out
    }


def test_a_dashboard_that_fits_just_so_is_taken_and_one_byte_more_is_not() -> None:
    """In bytes, not in characters."""
    most = config_maps.LARGEST_CONFIG_MAP_BYTES
    config_maps.dashboards("large", {"large.json": "µ" * (most // 2)})
    with pytest.raises(config_maps.TooLargeError, match=f"large.json, m: {most + 1} bytes"):
        config_maps.dashboards("large", {"large.json": "µ" * (most // 2), "m": "m"})


def test_the_templates_are_those_that_are_shipped() -> None:
    (manifest,) = _documents(EXAMPLE / "alertmanager-templates.yml")
    assert manifest["data"] == {"cmo.tmpl": (ROOT / "alertmanager/templates/cmo.tmpl").read_text()}


def test_the_kustomization_names_every_file() -> None:
    kustomization = yaml.safe_load((EXAMPLE / "kustomization.yaml").read_text())
    assert sorted(kustomization["resources"]) == sorted(
        str(path.relative_to(EXAMPLE)) for path in EXAMPLE.rglob("*.yml")
    )


def test_what_is_to_be_filled_in_is_marked() -> None:
    for path in EXAMPLE.rglob("*.yml"):
        for line in path.read_text().splitlines():
            unsaid = re.search(r"example\.org|\.svc:", line)
            assert bool(unsaid) == line.endswith("  # FILL IN"), f"{path.name}: {line}"


def _values(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _values(inner)


@pytest.mark.parametrize("manifest", _all_manifests())
def test_secrets_are_named_and_the_readme_says_how_each_is_made(manifest: dict[str, Any]) -> None:
    assert manifest["kind"] != "Secret"
    selectors = [one for one in _values(manifest) if {"name", "key"} <= one.keys() and "value" not in one]
    for selector in selectors:
        made = re.search(rf"secret generic {selector['name']}((?: \\\n|[^\n`])*)", README)
        assert made, f"the README does not make {selector['name']}"
        assert re.search(rf"--from-file={re.escape(selector['key'])}\b", made[1]), selector
    receivers = manifest["spec"].get("receivers", ()) if "spec" in manifest else ()
    assert not receivers or len(selectors) > 5


def test_no_path_of_this_machine_and_no_address_of_an_index_is_in_it() -> None:
    for path in EXAMPLE.rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert str(ROOT) not in text
            assert not re.search(r"/home/|/root\b|pypi|index-url|BEGIN [A-Z ]*PRIVATE KEY", text)


def _blocks_of_the_readme() -> list[dict[str, Any]]:
    blocks = re.findall(r"^ *```yaml\n(.*?)^ *```", README, re.MULTILINE | re.DOTALL)
    return [document for block in blocks for document in yaml.safe_load_all(textwrap.dedent(block))]


def _of_the_readme(kind: str, name: str) -> dict[str, Any]:
    """The one object of this kind and name that the README shows."""
    named = [one for one in _blocks_of_the_readme() if "metadata" in one]
    (found,) = [one for one in named if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def test_blocks_of_the_readme_are_valid_too() -> None:
    documents = _blocks_of_the_readme()
    kinds = [document["kind"] for document in documents]
    assert kinds == ["Service", "Kustomization", "Alertmanager", "Service", "Prometheus"]
    assert [complaints(one) for one in documents if one["kind"] != "Kustomization"] == [[]] * 4


def _patched(manifest: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    """The manifest with one value in another's place, as ``op: replace`` puts it there."""
    assert operation["op"] == "replace"
    changed = copy.deepcopy(manifest)
    *path, last = (int(step) if step.isdigit() else step for step in operation["path"].strip("/").split("/"))
    holder: Any = changed
    for step in path:
        holder = holder[step]
    assert type(holder[last]) is type(operation["value"])
    assert re.search(r"example\.org|\.svc:", str(holder[last])), f"{operation['path']} is not to be filled in"
    holder[last] = operation["value"]
    return changed


def test_patches_of_the_readme_hit_what_is_there() -> None:
    (kustomization,) = [one for one in _blocks_of_the_readme() if one["kind"] == "Kustomization"]
    shipped = {
        (one.values[0]["kind"], one.values[0]["metadata"]["name"]): one.values[0] for one in _all_manifests()
    }
    for patch in kustomization["patches"]:
        manifest = shipped[patch["target"]["kind"], patch["target"]["name"]]
        for operation in yaml.safe_load(patch["patch"]):
            manifest = _patched(manifest, operation)
        assert complaints(manifest) == []
        shipped[patch["target"]["kind"], patch["target"]["name"]] = manifest
    (dead_man,) = [
        receiver
        for receiver in shipped["AlertmanagerConfig", "cmo"]["spec"]["receivers"]
        if receiver["name"] == "dead-man"
    ]
    (heartbeat,) = dead_man["webhookConfigs"]
    secret = heartbeat.pop("urlSecret")
    assert heartbeat == {"sendResolved": False}, "its resolution would count as a sign of life"
    assert re.search(rf"generic {secret['name']} (?:\\\n|.)*--from-file={secret['key']}\b", README)


def test_alerts_of_the_cmo_and_no_others_reach_its_alertmanager() -> None:
    """Else each alert of the chart is a page, by the route for what nobody has routed."""
    alertmanager = _of_the_readme("Alertmanager", "cmo")
    service = _of_the_readme("Service", "cmo-alertmanager")
    assert service["metadata"]["namespace"] == alertmanager["metadata"]["namespace"]
    assert service["spec"]["selector"]["alertmanager"] == alertmanager["metadata"]["name"]
    told = _of_the_readme("Prometheus", "kube-prometheus-stack-prometheus")["spec"]["alerting"]
    ours, others = told["alertmanagers"]
    assert (ours["name"], ours["namespace"]) == (
        service["metadata"]["name"],
        service["metadata"]["namespace"],
    )
    assert ours["port"] in [port["name"] for port in service["spec"]["ports"]]
    chosen = {"sourceLabels": ["slo"], "regex": OBJECTIVES.name}
    assert ours["alertRelabelings"] == [{**chosen, "action": "keep"}]
    assert others["alertRelabelings"] == [{**chosen, "action": "drop"}]


def test_the_readme_refers_to_what_is_there() -> None:
    configuration = _of_the_readme("Alertmanager", "cmo")["spec"]["alertmanagerConfiguration"]
    assert configuration["name"] == _only("AlertmanagerConfig")["metadata"]["name"]
    (template,) = configuration["templates"]
    (templates,) = _documents(EXAMPLE / "alertmanager-templates.yml")
    assert template["configMap"]["name"] == templates["metadata"]["name"]
    assert template["configMap"]["key"] in templates["data"]
    for target in re.findall(r"\]\((\.\./\.\./[^)#]+)", README):
        assert (EXAMPLE / target).exists(), target
