"""The manifests for Kubernetes against its schemas, the settings, the commands and each other; no cluster is needed."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from astrocyte import load_rules
from astrocyte.pipeline.settings import Settings
from tests.support.probes import probed

FOLDER = Path(__file__).parents[3] / "docker" / "kubernetes"
KUSTOMIZATION = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
OBJECTS: list[dict[str, Any]] = [
    each for name in KUSTOMIZATION["resources"] for each in yaml.safe_load_all((FOLDER / name).read_text())
]
ROLES = ["correlate", "sql", "influx", "control"]
SETTINGS = dict(line.split("=", 1) for line in (FOLDER / "settings.env").read_text().split())
SECRETS = {
    "ASTROCYTE_SQL_URL": "postgresql+psycopg://user:hunter2@db/astrocyte",
    "ASTROCYTE_INFLUX_TOKEN": "hunter2",
    "ASTROCYTE_METRICS_TOKEN": "hunter2",
}
VERSIONS = ("1.30", "1.34", "1.37")


def of_kind(kind: str, role: str | None = None) -> dict[str, Any]:
    name = f"astrocyte-{role}"
    (found,) = [each for each in OBJECTS if each["kind"] == kind and (role is None or each["metadata"]["name"] == name)]
    return found


def container(workload: dict[str, Any]) -> dict[str, Any]:
    (found,) = workload["spec"]["template"]["spec"]["containers"]
    return found


def test_every_file_of_the_folder_is_used():
    generated = [file for each in KUSTOMIZATION["configMapGenerator"] for file in each.get("envs", each.get("files"))]
    named = {"kustomization.yaml", *KUSTOMIZATION["resources"], *generated}
    assert named == {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid_and_has_no_member_that_is_not_in_the_schema(version):
    for each in OBJECTS:
        kubernetes_validate.validate(each, version, strict=True)


def test_the_validator_sees_mistakes():
    broken = of_kind("Deployment", "sql") | {"spec": {"replicas": 2, "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


def test_the_environment_gives_valid_settings(monkeypatch):
    for name, value in (SETTINGS | SECRETS).items():
        assert name.removeprefix("ASTROCYTE_").lower() in Settings.model_fields, name
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert "hunter2" not in repr(settings)
    assert not [name for name in SETTINGS if "TOKEN" in name or "PASSWORD" in name or name == "ASTROCYTE_SQL_URL"]


def test_the_rule_file_is_where_the_settings_say():
    load_rules((FOLDER / "rules.yaml").read_text())
    folder, _, name = SETTINGS["ASTROCYTE_RULES"].rpartition("/")
    for role in ROLES:
        pod = of_kind("Deployment", role)["spec"]["template"]["spec"]
        assert [each["mountPath"] for each in container(of_kind("Deployment", role))["volumeMounts"]] == [folder]
        assert pod["volumes"] == [{"name": "rules", "configMap": {"name": "astrocyte-rules"}}]
    assert {"name": "astrocyte-rules", "files": [name]} in KUSTOMIZATION["configMapGenerator"]


@pytest.mark.parametrize("role", ROLES)
def test_the_deployments_differ_by_role_and_size_only(role):
    shared, own = of_kind("Deployment", "correlate"), of_kind("Deployment", role)
    assert container(own)["args"] == ["worker", "--role", role]
    text = yaml.safe_dump(shared).replace("correlate", role)
    expected = yaml.safe_load(text)
    expected["spec"]["replicas"] = own["spec"]["replicas"]
    container(expected)["resources"] = container(own)["resources"]
    assert own == expected


@pytest.mark.parametrize("role", ROLES)
def test_what_belongs_to_a_role_selects_its_pods(role):
    deployment = of_kind("Deployment", role)
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert of_kind("PodDisruptionBudget", role)["spec"]["selector"]["matchLabels"] == labels


@pytest.mark.parametrize("role", ["correlate", "sql", "influx"])
def test_there_are_never_more_workers_than_partitions(role):
    scaler = of_kind("HorizontalPodAutoscaler", role)["spec"]
    assert scaler["scaleTargetRef"]["name"] == f"astrocyte-{role}"
    assert scaler["minReplicas"] == of_kind("Deployment", role)["spec"]["replicas"]
    assert scaler["maxReplicas"] == int(SETTINGS["ASTROCYTE_PARTITIONS"])


def test_nothing_runs_as_root_or_with_more_rights_than_it_needs():
    for each in OBJECTS:
        if each["kind"] in ("Deployment", "Job"):
            pod = each["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"]
            assert not pod["automountServiceAccountToken"]
            assert container(each)["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container(each)["resources"]["limits"]


def test_probes_ask_the_pages_of_the_worker_with_its_token():
    token = SECRETS["ASTROCYTE_METRICS_TOKEN"]
    own = container(of_kind("Deployment", "correlate"))
    start, alive, ready = (own[f"{kind}Probe"]["exec"]["command"] for kind in ("startup", "liveness", "readiness"))
    assert start == alive
    with probed(Settings(metrics_port=0, metrics_token=token)) as probe:
        assert probe.ask(alive, ASTROCYTE_METRICS_TOKEN=token)
        assert probe.ask(ready, ASTROCYTE_METRICS_TOKEN=token)
        assert not probe.ask(alive, ASTROCYTE_METRICS_TOKEN="another")
        probe.ready = False
        assert probe.ask(alive, ASTROCYTE_METRICS_TOKEN=token)
        assert not probe.ask(ready, ASTROCYTE_METRICS_TOKEN=token)


def test_the_documentation_names_what_is_in_the_folder():
    page = (FOLDER.parents[1] / "docs" / "operations.md").read_text()
    section = page.partition("### Kubernetes\n")[2].partition("\n## ")[0]
    for name in SECRETS:
        assert name in section
    assert "docker/kubernetes" in section
    overlay, scaler = (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)[:2])
    assert overlay["resources"] == ["../astrocyte/docker/kubernetes"]
    assert {each["name"] for each in overlay["configMapGenerator"]} == {
        each["name"] for each in KUSTOMIZATION["configMapGenerator"]
    }
    assert scaler["rules"][0]["seriesQuery"].startswith("astrocyte_lag{")
