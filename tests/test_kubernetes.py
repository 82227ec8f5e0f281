"""The manifests of deploy/kubernetes: valid, and what they say is what Wherry does.

No cluster is used; ``docs/deployment.md`` lists what only a cluster can show.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import yaml

from tests.examples.processes import ROOT
from tests.test_compose import compose, image
from wherry import Config
from wherry.cli.settings import PROCESS_SETTINGS, variable_of
from wherry.monitoring.fleet import ANSWER_WITHIN_S

MANIFESTS = ROOT / "deploy" / "kubernetes"
SCHEMAS = ROOT / "tests" / "data" / "kubernetes_1.37.json"
KINDS = {
    "Deployment": ("apps/v1", "io.k8s.api.apps.v1.Deployment"),
    "PodDisruptionBudget": ("policy/v1", "io.k8s.api.policy.v1.PodDisruptionBudget"),
    "Secret": ("v1", "io.k8s.api.core.v1.Secret"),
}


def manifests() -> dict[str, dict[str, Any]]:
    """All of them by kind; each file holds one."""
    found = [yaml.safe_load(path.read_text("utf-8")) for path in sorted(MANIFESTS.iterdir())]
    by_kind = {one["kind"]: one for one in found}
    assert len(by_kind) == len(found)
    return by_kind


def check(manifest: dict[str, Any]) -> None:
    version, name = KINDS[manifest["kind"]]
    assert manifest["apiVersion"] == version
    definitions = json.loads(SCHEMAS.read_text("utf-8"))["$defs"]
    schema = {"$ref": f"#/$defs/{name}", "$defs": definitions}
    jsonschema.Draft202012Validator(schema).validate(manifest)


def pod() -> dict[str, Any]:
    return manifests()["Deployment"]["spec"]["template"]


def container() -> dict[str, Any]:
    [one] = pod()["spec"]["containers"]
    return one


def environment() -> dict[str, str]:
    """Variables that have a value in the manifest."""
    return {one["name"]: one["value"] for one in container()["env"] if "value" in one}


@pytest.mark.parametrize("kind", KINDS)
def test_manifest_is_valid(kind: str):
    assert manifests().keys() == KINDS.keys()
    check(manifests()[kind])


@pytest.mark.parametrize(
    "damage",
    [
        lambda spec: spec.update(replica=3),
        lambda spec: spec["template"]["spec"].update(terminationGracePeriod=40),
        lambda spec: spec["template"]["spec"]["containers"][0]["env"].append({"name": 1}),
        lambda spec: spec["template"]["spec"]["containers"][0]["livenessProbe"].update(path="/"),
        lambda spec: spec.pop("selector"),
    ],
)
def test_schema_notices_mistakes(damage: Callable[[dict[str, Any]], None]):
    manifest = copy.deepcopy(manifests()["Deployment"])
    damage(manifest["spec"])
    with pytest.raises(jsonschema.ValidationError):
        check(manifest)


def test_variables_are_settings_and_none_is_misspelt():
    names = [one["name"] for one in container()["env"]]
    config = Config.__dataclass_fields__
    assert set(names) <= {variable_of(one) for one in (*PROCESS_SETTINGS, *config)}
    assert len(set(names)) == len(names)
    assert environment()["WHERRY_EMBEDDED"] == "0"


def test_url_comes_from_the_secret():
    secret = manifests()["Secret"]
    [url] = [one for one in container()["env"] if one["name"] == "WHERRY_URL"]
    reference = url["valueFrom"]["secretKeyRef"]
    assert reference["name"] == secret["metadata"]["name"]
    assert secret["stringData"][reference["key"]].startswith("redis://")


def test_worker_is_that_of_the_image_and_of_the_compose_file():
    service = compose()["services"]["worker"]
    assert container()["args"] == service["command"]
    assert container()["image"].split(":")[0] == service["image"]
    assert "command" not in container(), "the image's entrypoint is wherry"
    assert pod()["spec"]["securityContext"]["runAsUser"] == int(image()["USER"])


def test_probes_ask_the_port_that_is_served():
    [port] = container()["ports"]
    assert str(port["containerPort"]) == environment()["WHERRY_HTTP_PORT"]
    assert environment()["WHERRY_HTTP_HOST"] == "0.0.0.0"
    paths = {"startupProbe": "/readyz", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    for probe, path in paths.items():
        assert container()[probe]["httpGet"] == {"path": path, "port": port["name"]}
    page = (ROOT / "docs" / "monitoring.md").read_text("utf-8")
    assert all(f"| `{path}` |" in page for path in paths.values())


def test_probes_have_the_time_that_a_worker_may_take():
    config = Config()

    def patience_s(probe: str) -> float:
        return container()[probe]["periodSeconds"] * container()[probe]["failureThreshold"]

    assert patience_s("startupProbe") > config.start_wait_s + config.lifespan_timeout_s
    # Beyond a lease the others have its partitions; a restart before that would be hasty.
    assert patience_s("livenessProbe") > 2 * config.lease_s
    assert all(
        container()[probe]["timeoutSeconds"] < ANSWER_WITHIN_S
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    )


def test_workers_drain_before_they_are_killed_and_never_all_at_once():
    spec = manifests()["Deployment"]["spec"]
    assert pod()["spec"]["terminationGracePeriodSeconds"] > Config().drain_timeout_s + 10
    assert spec["replicas"] >= 2
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert manifests()["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_everybody_means_the_same_pods():
    labels = pod()["metadata"]["labels"]
    spec = manifests()["Deployment"]["spec"]
    [spread] = pod()["spec"]["topologySpreadConstraints"]
    assert spec["selector"]["matchLabels"] == labels
    assert manifests()["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert spread["labelSelector"]["matchLabels"] == labels


def test_pods_may_do_nothing_but_work():
    spec, own = pod()["spec"], container()["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert "memory" in container()["resources"]["limits"]
    assert "cpu" not in container()["resources"]["limits"], "throttled is stalled"


def test_prometheus_finds_the_pods():
    text = (ROOT / "deploy" / "monitoring" / "prometheus-kubernetes.yml").read_text("utf-8")
    [job] = yaml.safe_load(text)["scrape_configs"]
    said = pod()["metadata"]["annotations"]
    labels = pod()["metadata"]["labels"]
    assert said["prometheus.io/port"] == environment()["WHERRY_HTTP_PORT"]
    metadata = {
        "__meta_kubernetes_pod_annotation_" + _plain(name): value for name, value in said.items()
    }
    metadata |= {"__meta_kubernetes_pod_label_" + _plain(one): labels[one] for one in labels}
    needed = {name for rule in job["relabel_configs"] for name in rule["source_labels"]}
    unknown = {name for name in needed if "annotation" in name or "label_" in name} - {*metadata}
    assert not unknown
    for rule in job["relabel_configs"]:
        if rule.get("action") == "keep":
            assert metadata[rule["source_labels"][0]] == rule["regex"]
    assert job["honor_labels"] is True


def _plain(name: str) -> str:
    """As Prometheus writes names of labels and annotations."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)
