"""The chart: what it refuses, what it keeps, what it hands out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.api import OPERATOR, ROOT, SYSTEM, Api, Json, merged
from tests.cluster.conftest import VALUES, Helm
from valetkey.settings import Settings

CHART = ROOT / "charts/valetkey"


def render(helm: Helm, values: Json | None = None, *arguments: str) -> list[Json]:
    """What the chart makes of values, on top of the tests'."""
    done = helm(
        "template", "valetkey", str(CHART), "--namespace", SYSTEM, *arguments, values={**VALUES, **(values or {})}
    )
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(objects: list[Json], *kinds: str) -> dict[str, Json]:
    """The objects of these kinds by name."""
    return {o["metadata"]["name"]: o for o in objects if o["kind"] in kinds}


def rules(objects: list[Json]) -> Iterator[tuple[str, Json]]:
    """Every rule of every Role and ClusterRole."""
    for o in objects:
        if o["kind"] in ("Role", "ClusterRole"):
            for rule in o["rules"]:
                yield f"{o['metadata'].get('namespace', '')}/{o['metadata']['name']}", rule


def test_the_chart_lints(helm: Helm) -> None:
    done = helm("lint", "--strict", str(CHART), values=VALUES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("values", "refusal"),
    [
        ({"agentNamespaces": []}, "/agentNamespaces"),
        ({"agentNamespaces": ["Agents"]}, "/agentNamespaces/0"),
        ({"agentNamespaces": ["agents", "agents"]}, "/agentNamespaces"),
        ({"agentnamespaces": ["agents"]}, "additional properties 'agentnamespaces' not allowed"),
        ({"grantable": {"namespaces": [{"name": "shop"}]}}, "/grantable/namespaces/0"),
        (
            {"grantable": {"namespaces": [{"name": "shop", "rules": [{"resources": ["pods"], "verbs": ["get"]}]}]}},
            "/grantable/namespaces/0/rules/0",
        ),
        (
            {"grantable": {"cluster": {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["*"]}]}}},
            "/grantable/cluster/rules/0/verbs/0",
        ),
        ({"pendingTTL": "5 minutes"}, "/pendingTTL"),
        ({"approvals": {"webhook": {"url": "http://hooks.example.com"}}}, "/approvals/webhook/url"),
        ({"approvals": {"webhook": {"url": "https://user:word@hooks.example.com"}}}, "/approvals/webhook/url"),
        ({"workers": 0}, "/workers"),
        ({"limits": {"active": 0}}, "/limits/active"),
        ({"mutatingPolicy": "yes"}, "/mutatingPolicy"),
        ({"replicas": 10}, "/replicas"),
        ({"controllers": {"collecting": ["system:admin"], "accounts": []}}, "/controllers/collecting/0"),
        ({"controllers": {"collecting": ["system:serviceaccount:a:b*"], "accounts": []}}, "/controllers/collecting/0"),
        ({"server": "http://api"}, "/server"),
        ({"imagePullPolicy": "Sometimes"}, "/imagePullPolicy"),
        ({"log": {"hostPath": "log"}}, "/log/hostPath"),
        ({"logFormat": "xml"}, "/logFormat"),
        ({"networkPolicy": {"from": "monitoring"}}, "/networkPolicy/from"),
        ({"priorityAndFairness": {"shares": 5}}, "additional properties 'shares' not allowed"),
        ({"metrics": {"port": 70000}}, "/metrics/port"),
        ({"metrics": {"host": "localhost"}}, "/metrics/host"),
        ({"metrics": {"podMonitor": {"enabled": "yes"}}}, "/metrics/podMonitor/enabled"),
        ({"metrics": {"podMonitor": {"enabled": True}, "port": 0}}, "there is nothing to monitor with metrics.port 0"),
        ({"metrics": {"podMonitor": {"enabled": True}}}, "unless metrics.host says where"),
        ({"agentNamespaces": ["valetkey-system"]}, "the operator's own namespace has no agents"),
        ({"agentNamespaces": ["valetkey-grants"]}, "it is neither an agent's namespace nor the operator's own"),
        (
            {"grantable": {"namespaces": [{"name": "valetkey-grants", "rules": []}], "cluster": {}}},
            "rights in valetkey-grants would be rights over grants or the cluster",
        ),
        (
            {"grantable": {"namespaces": [{"name": "kube-system", "rules": []}], "cluster": {}}},
            "rights in kube-system would be rights over grants or the cluster",
        ),
        (
            {"grantable": {"namespaces": [{"name": "shop", "rules": []}] * 2, "cluster": {}}},
            "shop is named twice",
        ),
    ],
)
def test_wrong_values_are_refused(helm: Helm, values: Json, refusal: str) -> None:
    done = helm("template", "valetkey", str(CHART), "--namespace", SYSTEM, values={**VALUES, **values})
    assert done.returncode != 0
    assert refusal in done.stderr


def test_the_chart_without_values_asks_for_agent_namespaces(helm: Helm) -> None:
    done = helm("template", "valetkey", str(CHART), "--namespace", SYSTEM)
    assert "agentNamespaces" in done.stderr


def test_no_rule_has_a_wildcard_verb_and_none_escalates_or_impersonates(helm: Helm) -> None:
    for where, rule in rules(render(helm)):
        assert not {"*", "escalate", "impersonate"} & set(rule["verbs"]), where
        assert "*" not in rule.get("resources", ()), where
        assert "*" not in rule.get("apiGroups", ()), where


def test_the_operator_never_reads_a_secret(helm: Helm) -> None:
    verbs = {v for _, rule in rules(render(helm)) for v in rule["verbs"] if "secrets" in rule.get("resources", ())}
    assert verbs == {"create", "update", "delete"}


def test_the_operator_binds_only_the_roles_that_the_values_name(helm: Helm) -> None:
    bind = [(where, rule) for where, rule in rules(render(helm)) if "bind" in rule["verbs"]]
    assert [where for where, _ in bind] == ["shop/valetkey-grantable"]
    assert bind[0][1]["resourceNames"] == ["log-reader"]


def test_the_operator_holds_what_it_may_hand_out_and_nothing_else_there(helm: Helm) -> None:
    role = of_kind(render(helm), "Role")["valetkey-grantable"]
    assert role["metadata"]["namespace"] == "shop"
    assert role["rules"][0] == VALUES["grantable"]["namespaces"][0]["rules"][0]
    assert [set(rule["resources"]) for rule in role["rules"][1:]] == [{"roles", "rolebindings"}, {"clusterroles"}]


def test_without_grantable_cluster_rights_the_operator_cannot_write_cluster_roles(helm: Helm) -> None:
    grantable = {"namespaces": VALUES["grantable"]["namespaces"], "cluster": {"rules": [], "clusterRoles": []}}
    for where, rule in rules(render(helm, {"grantable": grantable})):
        if {"clusterroles", "clusterrolebindings"} & set(rule.get("resources", ())):
            reads = rule["verbs"] == ["get", "list"]
            assert reads or (rule["verbs"], rule["resourceNames"]) == (["bind"], ["log-reader"]), where


def test_roles_for_people_are_bound_to_nobody(helm: Helm) -> None:
    objects = render(helm)
    people = {f"valetkey-{who}" for who in ("requester", "policy-author", "policy-lock", "viewer", "revoker", "force")}
    assert people <= set(of_kind(objects, "ClusterRole"))
    bound = {o["roleRef"]["name"] for o in objects if o["kind"] in ("RoleBinding", "ClusterRoleBinding")}
    assert not people & bound
    for o in objects:
        assert all(subject["name"] in ("valetkey", "valetkey-uninstall") for subject in o.get("subjects", ()))


def test_what_runs_before_the_chart_goes_may_end_grants_and_take_down_one_guard_and_no_more(helm: Helm) -> None:
    objects = render(helm)
    role = of_kind(objects, "ClusterRole")["valetkey-uninstall"]
    bindings = [o for o in objects if {"valetkey-uninstall"} == {s["name"] for s in o.get("subjects", ())}]
    assert [o["roleRef"]["name"] for o in bindings] == ["valetkey-uninstall"]
    assert role["rules"] == [
        {"apiGroups": ["valetkey.dev"], "resources": ["taskgrants"], "verbs": ["list", "delete"]},
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["validatingadmissionpolicybindings"],
            "resourceNames": ["request-attest.valetkey.dev"],
            "verbs": ["get", "delete"],
        },
    ]
    assert "valetkey-uninstall" not in json.dumps(render(helm, {"uninstall": {"revoke": False}}))


def test_a_requester_can_neither_replace_nor_delete_requests(helm: Helm) -> None:
    (rule,) = of_kind(render(helm), "ClusterRole")["valetkey-requester"]["rules"]
    assert rule["resources"] == ["accessrequests"]
    assert set(rule["verbs"]) == {"create", "get", "list", "watch", "patch"}


def test_crds_survive_the_release_and_are_those_of_the_repository(helm: Helm) -> None:
    rendered = of_kind(render(helm), "CustomResourceDefinition")
    written = {f.stem: yaml.safe_load(f.read_text()) for f in sorted((ROOT / "crds").glob("*.yaml"))}
    assert set(written) == {
        f"{k}.valetkey.dev"
        for k in ("accessapprovals", "accessrequests", "taskgrants", "agentpolicies", "leaders", "ledgers")
    }
    assert rendered == written
    for crd in rendered.values():
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_crds_can_be_left_to_somebody_else(helm: Helm) -> None:
    assert not of_kind(render(helm, {"crds": {"install": False}}), "CustomResourceDefinition")


def test_the_settings_are_what_the_operator_reads(helm: Helm) -> None:
    values = {"audience": "https://api", "server": "https://10.0.0.1:6443", "limits": {"active": 7}, "workers": 8}
    values |= {"approvals": {"webhook": {"url": "https://hooks.example.com/a"}}}
    config = of_kind(render(helm, values), "ConfigMap")["valetkey"]["data"]
    settings = Settings.model_validate_json(config["settings.json"])
    assert settings == Settings(
        cluster="test",
        grants_namespace="valetkey-grants",
        agent_namespaces=("agents", "agents-b"),
        targets=("shop",),
        cluster_roles=("log-reader",),
        audience="https://api",
        server="https://10.0.0.1:6443",
        limits_active=7,
        approvals_webhook="https://hooks.example.com/a",
        workers=8,
        log_directory=Path("/var/log/valetkey"),
        log_keep=timedelta(hours=2160),
        guards=Path("/etc/valetkey/guards.json"),
        metrics_port=8080,
        metrics_host="127.0.0.1",
        run_directory=Path("/run/valetkey"),
    )


def test_every_setting_follows_from_a_value_or_is_left_to_its_default(helm: Helm) -> None:
    given: Json = {
        "audience": "https://api",
        "server": "https://10.0.0.1:6443",
        "log": {"server": {"tlsSecret": "tls"}},
    }
    given |= {"approvals": {"webhook": {"url": "https://hooks.example.com/a"}}}
    config = of_kind(render(helm, given), "ConfigMap")["valetkey"]["data"]
    settings = set(json.loads(config["settings.json"]))
    assert settings == {field.alias for field in Settings.model_fields.values()}
    plain = of_kind(render(helm), "ConfigMap")["valetkey"]["data"]
    left_out = {"audience", "server", "approvalsWebhook", "logServerHost", "logServerPort"}
    assert set(json.loads(plain["settings.json"])) == settings - left_out


def test_the_guards_that_the_operator_expects_are_those_that_are_installed(helm: Helm) -> None:
    objects = render(helm)
    expected = json.loads(of_kind(objects, "ConfigMap")["valetkey"]["data"]["guards.json"])
    kinds = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    installed = {(o["kind"], o["metadata"]["name"]): o for o in objects if o["kind"] in kinds}
    assert installed == {(o["kind"], o["metadata"]["name"]): o for o in expected}
    assert len(expected) == 26


async def test_the_guards_that_the_operator_expects_are_what_the_api_server_stores(
    api: Api, installed: Json, helm: Helm
) -> None:
    expected = json.loads(of_kind(render(helm, installed), "ConfigMap")["valetkey"]["data"]["guards.json"])
    for guard in expected:
        plural = {
            "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
            "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
        }[guard["kind"]]
        _, live = await api.get(f"/apis/{guard['apiVersion']}/{plural}/{guard['metadata']['name']}")
        assert live["spec"] == guard["spec"]


async def test_no_guard_has_a_type_error(api: Api, installed: Json) -> None:
    assert installed
    _, answer = await api.get("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies")
    ours = [p for p in answer["items"] if p["metadata"]["name"].endswith(".valetkey.dev")]
    assert len(ours) == 13
    for policy in ours:
        assert not policy.get("status", {}).get("typeChecking", {}).get("expressionWarnings"), policy["metadata"][
            "name"
        ]


def test_every_guard_fails_closed_denies_and_is_audited(helm: Helm) -> None:
    objects = render(helm)
    for name, policy in of_kind(objects, "ValidatingAdmissionPolicy").items():
        # A parameter that cannot be read fails before it is known whose request it is: the fence would stop everybody.
        assert policy["spec"]["failurePolicy"] == ("Ignore" if name == "fence.valetkey.dev" else "Fail")
        assert all(v.get("message") or v.get("messageExpression") for v in policy["spec"]["validations"])
    for binding in of_kind(objects, "ValidatingAdmissionPolicyBinding").values():
        assert binding["spec"]["policyName"] == binding["metadata"]["name"]
        assert binding["spec"]["validationActions"] == ["Deny", "Audit"]


@pytest.mark.parametrize(
    ("value", "served", "filled"),
    [("auto", False, False), ("auto", True, True), (False, True, False), (True, False, True)],
)
def test_the_mutating_policy_is_installed_where_the_cluster_serves_it(
    helm: Helm, value: Any, served: bool, filled: bool
) -> None:
    versions = ["--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"] if served else []
    objects = render(helm, {"mutatingPolicy": value}, *versions)
    assert bool(of_kind(objects, "MutatingAdmissionPolicy")) is filled


def test_the_operator_runs_without_privileges_and_with_a_short_token(helm: Helm) -> None:
    spec = of_kind(render(helm, {"replicas": 1, "log": {}}), "StatefulSet")["valetkey"]["spec"]
    assert (spec["replicas"], spec["podManagementPolicy"]) == (1, "Parallel")
    pod = spec["template"]["spec"]
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["command"] == [
        *("python3", "-m", "valetkey", "operator", "--settings", "/etc/valetkey/settings.json")
    ]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["readinessProbe"]["exec"] == {"command": ["test", "-f", "/run/valetkey/ready"]}
    assert container["livenessProbe"]["failureThreshold"] > 1, "a step of the clock makes the file look old once"
    assert [e["name"] for e in container["env"]] == ["POD_NAME", "POD_UID"]
    (token,) = [v["projected"]["sources"][0]["serviceAccountToken"] for v in pod["volumes"] if v["name"] == "token"]
    assert 600 <= token["expirationSeconds"] <= 3600
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]} | {
        c["metadata"]["name"] for c in spec["volumeClaimTemplates"]
    }


def test_what_runs_before_the_chart_goes_is_confined_as_the_operator_is(helm: Helm) -> None:
    objects = render(helm, {"replicas": 1})
    operator = of_kind(objects, "StatefulSet")["valetkey"]["spec"]["template"]["spec"]
    job = of_kind(objects, "Job")["valetkey-uninstall"]["spec"]["template"]["spec"]
    for confined in ("runAsUser", "runAsNonRoot", "seccompProfile"):
        assert job["securityContext"][confined] == operator["securityContext"][confined]
    assert job["securityContext"]["runAsNonRoot"] is True
    (container,), (pattern,) = job["containers"], operator["containers"]
    assert container["securityContext"] == pattern["securityContext"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_log_may_be_a_directory_of_the_node(helm: Helm) -> None:
    spec = of_kind(render(helm, {"log": {"hostPath": "/var/log/valetkey"}}), "StatefulSet")["valetkey"]["spec"]
    assert "volumeClaimTemplates" not in spec
    (log,) = [v for v in spec["template"]["spec"]["volumes"] if v["name"] == "log"]
    assert log["hostPath"] == {"path": "/var/log/valetkey", "type": "Directory"}


def test_a_change_of_settings_or_guards_restarts_the_operator(helm: Helm) -> None:
    def checksum(values: Json) -> str:
        template = of_kind(render(helm, values), "StatefulSet")["valetkey"]["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/settings"])

    first = checksum({})
    assert checksum({}) == first
    assert checksum({"workers": 9}) != first
    assert checksum({"controllers": {"collecting": [], "accounts": []}}) != first


async def test_the_chart_installs_and_installs_again(api: Api, installed: Json, helm: Helm) -> None:
    done = await asyncio.to_thread(
        helm, "upgrade", "valetkey", str(CHART), "--namespace", SYSTEM, "--dry-run=server", values=installed
    )
    assert done.returncode == 0, done.stderr
    status, answer = await api.post(
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        {
            "spec": {
                "user": OPERATOR,
                "groups": ["system:serviceaccounts", f"system:serviceaccounts:{SYSTEM}"],
                "resourceAttributes": {"namespace": "agents", "verb": "create", "resource": "secrets"},
            }
        },
    )
    assert (status, answer["status"]["allowed"]) == (201, True)


def test_a_namespace_can_be_retired_before_it_is_removed(helm: Helm) -> None:
    grantable = {"namespaces": [{"name": "shop", "rules": []}], "cluster": {}}
    (rule,) = of_kind(render(helm, {"grantable": grantable}), "Role")["valetkey-grantable"]["rules"]
    assert rule["resources"] == ["roles", "rolebindings"]
    assert "delete" in rule["verbs"]


async def test_the_operator_sees_whether_rights_are_left_anywhere_and_makes_none_there(
    api: Api, installed: Json
) -> None:
    assert installed
    operator = await api.token(SYSTEM, "valetkey")
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    elsewhere = ("namespaces/elsewhere/roles", "namespaces/elsewhere/rolebindings")
    for path in (*elsewhere, "clusterroles", "clusterrolebindings"):
        assert (await api.get(f"{rbac}/{path}/valetkey-gone", by=operator))[0] == 404
        assert (await api.get(f"{rbac}/{path}", by=operator))[0] == 200
    for path in elsewhere:
        assert (await api.post(f"{rbac}/{path}", {"metadata": {"name": "valetkey-x"}}, by=operator))[0] == 403


@pytest.mark.parametrize("allowed", [None, False, True])
def test_pod_templates_are_handed_out_only_where_the_chart_says_so(helm: Helm, allowed: bool | None) -> None:
    grantable = merged(VALUES["grantable"], {"podTemplates": allowed})
    guard = of_kind(render(helm, {"grantable": grantable}), "ValidatingAdmissionPolicy")["operator-rights.valetkey.dev"]
    assert ("valetkey-t-" in json.dumps(guard)) is bool(allowed)
