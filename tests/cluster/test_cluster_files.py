"""The files for clusters, checked offline: by the launcher's own rules, for known fields, for secrets."""

import copy
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from genie_ray.rewards.http.api import TOKEN_VARIABLE
from genie_ray.rewards.http.serving import application

CLUSTERS = Path(__file__).parents[2] / "clusters"
KUBERAY = ("raycluster", "rayjob", "rayservice")
# The fields of ray.io/v1 that we use, so that a misspelt one is noticed.
CLUSTER_FIELDS = {
    "rayVersion",
    "authOptions",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "gcsFaultToleranceOptions",
    "headGroupSpec",
    "workerGroupSpecs",
}
JOB_FIELDS = {
    "entrypoint",
    "submissionMode",
    "backoffLimit",
    "shutdownAfterJobFinishes",
    "ttlSecondsAfterFinished",
    "rayClusterSpec",
}
WORKER_FIELDS = {
    "groupName",
    "replicas",
    "minReplicas",
    "maxReplicas",
    "idleTimeoutSeconds",
    "rayStartParams",
    "template",
}


def load(path: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTERS / path).read_text())


@pytest.mark.parametrize("name", ["aws", "gcp", "onprem"])
def test_the_launcher_accepts_it(name: str) -> None:
    config = load(f"{name}.yaml")
    validate_config(prepare_config(copy.deepcopy(config)))
    with pytest.raises(Exception, match="unknown_key"):
        validate_config(prepare_config(config | {"unknown_key": 1}))


def cluster_of(document: dict[str, Any]) -> dict[str, Any]:
    spec = document["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_knows_its_fields(name: str) -> None:
    document = load(f"kuberay/{name}.yaml")
    assert document["apiVersion"] == "ray.io/v1"
    assert document["kind"].lower() == name
    cluster = cluster_of(document)
    assert set(cluster) == CLUSTER_FIELDS
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    for group in cluster["workerGroupSpecs"]:
        assert set(group) <= WORKER_FIELDS
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/mnt/shared", "/roms"}
        assert "genie-ray roms import /roms" in container["lifecycle"]["postStart"]["exec"]["command"][-1]


def test_the_job_and_the_service() -> None:
    job = load("kuberay/rayjob.yaml")["spec"]
    assert set(job) == JOB_FIELDS
    assert job["rayClusterSpec"] == load("kuberay/raycluster.yaml")["spec"]
    service = load("kuberay/rayservice.yaml")["spec"]
    assert set(service) == {"upgradeStrategy", "serveConfigV2", "rayClusterConfig"}
    schema = ServeDeploySchema.model_validate(yaml.safe_load(service["serveConfigV2"]))
    (served,) = schema.applications
    assert served.import_path == f"{application.__module__}:{application.__name__}"
    names = [entry["name"] for entry in containers(service["rayClusterConfig"])[0]["env"]]
    assert names == [TOKEN_VARIABLE]


def containers(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
    return [group["template"]["spec"]["containers"][0] for group in groups]


def test_the_service_wants_a_token_and_known_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    for arguments, said in (
        ({"world_model": "somewhere"}, "no token is set"),
        ({}, "world_model is missing"),
        ({"world_model": "somewhere", "more": 1}, "unknown argument 'more'"),
        ({"world_model": "somewhere", "reward": {"top_k_fraction": 2}}, "top_k_fraction"),
    ):
        with pytest.raises(ValueError, match=said):
            application(arguments)


def files() -> Iterator[tuple[Path, str]]:
    for path in sorted(CLUSTERS.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            yield path, path.read_text()


def test_nothing_is_open_to_the_world_and_no_secret_is_in_a_file() -> None:
    for path, text in files():
        assert "0.0.0.0" not in text, path
        assert "LoadBalancer" not in text, path
        assert not re.search(r"--(auth-)?token[= ]", text), path
        assert not re.search(r"\b[0-9a-f]{32,}\b", text), path
        if path.suffix == ".yaml" and "ray start --head" in text:
            assert "--dashboard-host=127.0.0.1" in text, path


def test_the_image_holds_code_alone_and_what_it_copies_exists() -> None:
    text = (CLUSTERS / "Dockerfile").read_text()
    copied = [word for line in re.findall(r"^COPY --chown=ray (.*)$", text, re.M) for word in line.split()[:-1]]
    assert set(copied) == {"setup.py", "constraints.txt", "genie_ray", "policies", "world_model", "experiments"}
    assert all((CLUSTERS.parent / name).exists() for name in copied)


def test_the_slurm_script_parses_and_wants_a_command() -> None:
    script = CLUSTERS / "slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    refused = subprocess.run(["bash", script], capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: give the command of genie-ray")
