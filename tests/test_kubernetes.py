"""The manifests of deploy/kubernetes: as confined as the restricted Pod Security Standard asks, and in step with the
gateway.

No cluster here: they are read as YAML and held against what Kubernetes and the gateway expect."""

import re
from typing import Any

import pytest
import yaml
from as_user import ROOT

from gateway.listeners import REQUEST_SECONDS
from gateway.settings import SETTINGS, Settings

FOLDER = ROOT / "deploy/kubernetes"


def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """What the kustomization lists, by kind and name."""
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    found = [each for name in listed for each in yaml.safe_load_all((FOLDER / name).read_text())]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = manifests()["Deployment", "gateway"]["spec"]["template"]["spec"]
    return spec


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    found: dict[str, Any] = only
    return found


def environment() -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container()["env"]}


def test_every_manifest_is_in_the_kustomization() -> None:
    """No file is forgotten, none is listed that is not there, and each has an API version and a name."""
    listed = set(yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"])
    assert {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"} == listed
    versions = {"ServiceAccount": "v1", "Service": "v1", "Deployment": "apps/v1"}
    versions |= {"NetworkPolicy": "networking.k8s.io/v1", "PodDisruptionBudget": "policy/v1"}
    assert {kind: each["apiVersion"] for (kind, _), each in manifests().items()} == versions


def test_the_pod_is_restricted() -> None:
    """What the restricted Pod Security Standard asks, and a read-only root: no root, no capability, no way to gain one,
    the runtime's seccomp profile, nothing of the host."""
    spec = pod()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == spec["securityContext"]["runAsGroup"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    assert all(set(volume) == {"name", "emptyDir"} for volume in spec["volumes"])
    assert not any("hostPort" in port for port in container()["ports"])


def test_the_user_is_the_images() -> None:
    """The image's user, to whom its data folder belongs, is the pod's."""
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user
    assert pod()["securityContext"]["fsGroup"] == int(user[2])
    assert pod()["securityContext"]["runAsUser"] == int(user[1])


def test_the_pod_has_no_token() -> None:
    """A gateway that was taken over can't speak to the Kubernetes API."""
    assert pod()["automountServiceAccountToken"] is False
    assert manifests()["ServiceAccount", pod()["serviceAccountName"]]["automountServiceAccountToken"] is False


def test_secrets_are_references() -> None:
    """Every setting that holds a secret comes from the Secret, and the manifests hold none."""
    given = environment()
    secret = {setting.name for setting in SETTINGS if setting.secret} | {"REDIS_URL"}
    for name in secret & set(given):
        assert given[name]["secretKeyRef"]["name"] == "gateway", name
    assert {"REDIS_URL", "ADMIN_API_KEY"} <= secret & set(given)
    assert not [kind for kind, _ in manifests() if kind == "Secret"]


def test_the_gateway_takes_the_settings() -> None:
    """The pod's environment is one that the gateway starts with."""
    given = {name: value for name, value in environment().items() if isinstance(value, str)}
    settings = Settings.load(given | {"REDIS_URL": "rediss://:x@valkey:6379", "ADMIN_API_KEY": "k" * 32})
    ports = {port["name"]: port["containerPort"] for port in container()["ports"]}
    assert ports == {"http": settings.port, "admin": settings.admin_port}


def test_the_stop_fits() -> None:
    """Kubernetes waits longer than a drain and the open requests take."""
    drain = float(environment()["DRAIN_SECONDS"])
    assert drain + REQUEST_SECONDS < pod()["terminationGracePeriodSeconds"]


@pytest.mark.parametrize(
    ("probe", "path"), [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
)
def test_probes(probe: str, path: str) -> None:
    """Only readiness asks for Redis: an outage of it restarts nothing."""
    assert container()[probe]["httpGet"] == {"path": path, "port": "http"}


def test_resources_are_bounded() -> None:
    """Memory has a limit and both resources a request, so that the pod can neither starve others nor be starved."""
    resources = container()["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert "memory" in resources["limits"]
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod()["volumes"])


def test_admin_has_a_service_of_its_own() -> None:
    """Neither service is open to the outside, and the callers' one does not reach the operators' port."""
    ports = {}
    for (kind, name), each in manifests().items():
        if kind == "Service":
            assert each["spec"]["type"] == "ClusterIP"
            ports[name] = [port["targetPort"] for port in each["spec"]["ports"]]
    assert ports == {"gateway": ["http"], "gateway-admin": ["admin"]}


def test_the_network_policy_says_who_may_call_whom() -> None:
    """In: callers to the clients' port, operators to theirs, nobody without a selector. Out: names, Redis, and targets
    but for the metadata addresses."""
    spec = manifests()["NetworkPolicy", "gateway"]["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    for rule in spec["ingress"]:
        assert rule["from"]
        assert all(rule["from"])
        assert {port["port"] for port in rule["ports"]} <= {"http", "admin"}
    admin = [rule["from"] for rule in spec["ingress"] if {"port": "admin"} in rule["ports"]]
    assert admin == [[{"podSelector": {"matchLabels": {"gateway-access": "operator"}}}]]
    blocks = [peer["ipBlock"] for rule in spec["egress"] for peer in rule["to"] if "ipBlock" in peer]
    assert [block["cidr"] for block in blocks] == ["0.0.0.0/0"]
    assert {"169.254.0.0/16", "100.100.100.200/32", "168.63.129.16/32"} <= set(blocks[0]["except"])
    assert all(rule["ports"] for rule in spec["egress"])


def test_a_drain_of_nodes_leaves_one() -> None:
    """The budget leaves a replica running, and there is one more than that."""
    budget = manifests()["PodDisruptionBudget", "gateway"]["spec"]["minAvailable"]
    assert manifests()["Deployment", "gateway"]["spec"]["replicas"] > budget >= 1
