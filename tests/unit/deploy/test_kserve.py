"""The Kubernetes manifests, checked strictly against the API's schema.

KServe's own fields are few. The rest of its predictor is a PodSpec, so the test checks it as that of a Pod.
"""

from __future__ import annotations

import copy
from typing import Any

import kubernetes_validate
import pytest
import yaml

from runtime.settings import PREFIX, ROOT, Settings

KUBERNETES = "1.33"
# ComponentExtensionSpec of KServe's v1beta1 API, as far as the manifest uses it
_OF_KSERVE = {"minReplicas", "maxReplicas", "deploymentStrategy"}

Manifest = dict[str, Any]


def _manifests() -> dict[str, Manifest]:
    loaded = yaml.safe_load_all((ROOT / "deploy" / "kserve.yaml").read_text())
    return {manifest["kind"]: manifest for manifest in loaded}


def _pod(service: Manifest) -> Manifest:
    predictor = service["spec"]["predictor"]
    spec = {name: value for name, value in predictor.items() if name not in _OF_KSERVE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": spec}


def _validate(manifest: Manifest) -> None:
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


@pytest.fixture
def service() -> Manifest:
    return _manifests()["InferenceService"]


def test_the_manifests_are_those_of_a_server_with_its_secret_and_volume() -> None:
    assert list(_manifests()) == ["Secret", "PersistentVolumeClaim", "InferenceService"]


@pytest.mark.parametrize("kind", ["Secret", "PersistentVolumeClaim"])
def test_secret_and_volume_are_valid(kind: str) -> None:
    _validate(_manifests()[kind])


def test_the_predictor_is_a_valid_pod(service: Manifest) -> None:
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert service["spec"].keys() == {"predictor"}
    _validate(_pod(service))


@pytest.mark.parametrize("fault", [{"prots": []}, {"ports": [{"containerPort": "http"}]}, {"image": 7}])
def test_the_validator_finds_faults(service: Manifest, fault: Manifest) -> None:
    faulty = copy.deepcopy(_pod(service))
    faulty["spec"]["containers"][0] |= fault
    with pytest.raises(kubernetes_validate.ValidationError):
        _validate(faulty)


def test_a_rollout_may_replace_the_pod(service: Manifest) -> None:
    predictor = service["spec"]["predictor"]
    spec = {"strategy": predictor["deploymentStrategy"], "replicas": predictor["maxReplicas"]}
    labels = {"app": "lorikeet"}
    template = {"metadata": {"labels": labels}, "spec": _pod(service)["spec"]}
    spec |= {"selector": {"matchLabels": labels}, "template": template}
    _validate({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec})


def test_names_refer_to_what_is_there(service: Manifest) -> None:
    predictor, manifests = service["spec"]["predictor"], _manifests()
    (container,) = predictor["containers"]
    assert container["name"] == "kserve-container"  # the name by which KServe finds it
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in predictor["volumes"]}
    claims = [v["persistentVolumeClaim"]["claimName"] for v in predictor["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [manifests["PersistentVolumeClaim"]["metadata"]["name"]]
    for variable in container["env"]:
        if "valueFrom" in variable:
            reference = variable["valueFrom"]["secretKeyRef"]
            assert reference["name"] == manifests["Secret"]["metadata"]["name"]
            assert reference["key"] in manifests["Secret"]["stringData"]


def test_it_names_settings_of_the_server_alone(service: Manifest) -> None:
    """The server refuses unknown names, so Kubernetes must not add its own."""
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    predictor = service["spec"]["predictor"]
    given = {variable["name"] for variable in predictor["containers"][0]["env"]}
    assert {name for name in given if name.startswith(PREFIX)} <= known
    assert predictor["enableServiceLinks"] is False


def test_it_holds_no_secret() -> None:
    assert set(_manifests()["Secret"]["stringData"].values()) == {""}
