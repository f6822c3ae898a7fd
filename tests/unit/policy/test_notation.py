"""One line says what is asked."""

from __future__ import annotations

from tests.unit.policy.given import DEPLOYMENTS, PODS, access, in_shop, request, scopes
from valetkey.kinds.access import Access
from valetkey.policy.notation import line, line_of_request


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


def test_what_is_handed_on_follows_and_neither_crowds_the_other_out() -> None:
    to = [{"namespace": "shop-agents", "serviceAccount": "worker"}]
    assert line_of_request(request()) == "shop: get,patch deployments.apps/checkout"
    same = request(delegation={"to": to})
    assert line_of_request(same) == "shop: get,patch deployments.apps/checkout → shop-agents/worker: the same"
    more = request(delegation={"to": to, "maxDepth": 2, "access": [in_shop(PODS), in_shop(DEPLOYMENTS)]})
    assert line_of_request(more).endswith(
        " → shop-agents/worker (2 times): shop: get,list pods | shop: get,patch deployments.apps/checkout"
    )


def test_no_part_of_what_is_handed_on_crowds_another_out() -> None:
    long = in_shop(*[{**DEPLOYMENTS, "resourceNames": ["n" * 250]}] * 16)
    secrets = in_shop({"apiGroups": [""], "resources": ["secrets"], "verbs": ["*"]})
    many = [{"namespace": "n" * 63, "serviceAccount": "a" * 250} for _ in range(16)]
    crowded = line_of_request(request(access=long, delegation={"to": many, "access": [long, secrets, long]}))
    assert len(crowded) <= 2048
    assert crowded.startswith("shop: get,patch deployments.apps/nnn")
    assert " | shop: * secrets | shop: get,patch deployments.apps/nnn" in crowded
    assert f" → {'n' * 63}/{'a' * 250}, " in crowded
