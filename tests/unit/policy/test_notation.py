"""One line says what is asked."""

from __future__ import annotations

from tests.unit.policy.given import DEPLOYMENTS, access, scopes
from valetkey.kinds.access import Access
from valetkey.policy.notation import line


def test_the_line_names_place_verbs_and_objects() -> None:
    asked = scopes(
        {"namespace": "shop", "rules": [DEPLOYMENTS]},
        {"namespace": "web", "clusterRole": "log-reader"},
        {
            "rules": [
                {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]},
                {"nonResourceURLs": ["/healthz"], "verbs": ["get"]},
            ]
        },
    )
    assert line(Access.model_validate(asked)) == (
        "shop: get,patch deployments.apps/checkout; web: clusterrole log-reader; cluster: get nodes; "
        "cluster: get /healthz"
    )


def test_several_groups_resources_and_names_are_listed() -> None:
    rule = {"apiGroups": ["", "apps"], "resources": ["pods", "*"], "resourceNames": ["a", "b"], "verbs": ["*"]}
    assert line(access(rule)) == "shop: * pods,pods.apps,*,*.apps/a,b"


def test_a_long_line_is_cut() -> None:
    cut = line(access(*[{**DEPLOYMENTS, "resourceNames": ["n" * 250]}] * 16))
    assert len(cut) == 2048
    assert cut.endswith("…")
