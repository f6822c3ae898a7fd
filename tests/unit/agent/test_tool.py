"""A function gets access for one call, narrowed to what it is called with."""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import valetkey
from tests.unit.agent.agents import access, soon
from tests.unit.agent.apiserver import Apiserver

ACCESS = "shop: get,patch deployments.apps/{deployment}"


def restarting(server: Apiserver, access: Any = ACCESS, parameters: Any = ("deployment",)) -> Any:
    @valetkey.tool(
        "remediation",
        "restart {deployment}: {why}",
        access,
        parameters=parameters,
        account_directory=server.account,
        timeout=10,
    )
    def restart(deployment: str, why: str = "it\nloops", *, grant: valetkey.Grant) -> str:
        """Restarts a Deployment."""
        return f"{deployment} with {grant.token()}"

    return restart


def test_a_call_has_access_to_what_it_is_called_with_and_no_longer(server: Apiserver) -> None:
    restart = restarting(server)
    assert restart("checkout") == "checkout with granted-1"
    spec = server.only()["spec"]
    assert spec["outcome"] == "Succeeded"
    assert spec["task"]["objective"] == "restart checkout: it loops"
    assert spec["task"]["parameters"] == {"deployment": "checkout"}
    assert spec["access"]["kubernetes"]["scopes"][0]["rules"][0]["resourceNames"] == ["checkout"]


async def test_the_same_holds_for_a_function_that_is_awaited(server: Apiserver) -> None:
    @valetkey.tool(
        "remediation", "read", {"kubernetes": {"scopes": [{"namespace": "{where}"}]}}, account_directory=server.account
    )
    async def read(where: str, *, grant: valetkey.Grant) -> str:
        return grant.token()

    assert inspect.iscoroutinefunction(read)
    assert await read(where="shop") == "granted-1"
    assert server.only()["spec"]["access"] == {"kubernetes": {"scopes": [{"namespace": "shop"}]}}


def test_the_access_of_a_function_may_be_what_a_denial_allows_with_places_in_it(server: Apiserver) -> None:
    @valetkey.tool(
        "remediation",
        "read",
        'access: {"kubernetes": {"scopes": [{"namespace": "{where}"}]}}',
        account_directory=server.account,
    )
    def read(where: str, *, grant: valetkey.Grant) -> str:
        return grant.token()

    assert read("shop") == "granted-1"
    assert server.only()["spec"]["access"] == {"kubernetes": {"scopes": [{"namespace": "shop"}]}}


def test_a_call_that_fails_says_so(server: Apiserver) -> None:
    @valetkey.tool("remediation", "fail", "shop: get pods", account_directory=server.account)
    def fail(*, grant: valetkey.Grant) -> None:
        raise ValueError

    with pytest.raises(ValueError):
        fail()
    assert server.outcome() == "Failed"


@pytest.mark.parametrize("value", ["a,b", "a; cluster: get nodes", "*", "a/b", "", "a b", "ä", "a\n"])
def test_a_value_cannot_become_another_access(server: Apiserver, value: str) -> None:
    with pytest.raises(valetkey.InvalidAccess, match="cannot be part of an access"):
        restarting(server)(value)
    assert server.calls == []


def test_parameters_may_be_a_mapping_that_is_filled_in(server: Apiserver) -> None:
    restarting(server, parameters={"name": "{deployment}", "count": 3})("checkout")
    assert server.only()["spec"]["task"]["parameters"] == {"name": "checkout", "count": 3}


@pytest.mark.parametrize(
    "change", [{"access": "shop: get pods/{pod}"}, {"parameters": ["pod"]}, {"parameters": {"a": "{pod}"}}], ids=str
)
def test_a_misspelt_name_is_found_when_the_function_is_defined(server: Apiserver, change: Any) -> None:
    with pytest.raises(TypeError, match="no argument pod"):
        restarting(server, **change)


def test_a_generator_is_refused_when_it_is_defined_for_it_would_run_when_the_access_is_over() -> None:
    def one(*, grant: valetkey.Grant) -> Iterator[int]:
        yield 1

    async def two(*, grant: valetkey.Grant) -> AsyncIterator[int]:
        yield 1

    for function in (one, two):
        with pytest.raises(TypeError, match="generator"):
            valetkey.tool("remediation", "yield", "shop: get pods")(function)


def test_who_looks_at_the_function_sees_what_has_to_be_passed(server: Apiserver) -> None:
    restart = restarting(server)
    assert list(inspect.signature(restart).parameters) == ["deployment", "why"]
    assert "grant" not in restart.__annotations__
    assert restart.__doc__ == "Restarts a Deployment."
    with pytest.raises(TypeError):
        restart()


def test_the_kubernetes_client_always_sends_the_newest_token(server: Apiserver) -> None:
    with access(server) as grant:
        configuration = grant.kubernetes().configuration
        assert configuration.host == f"https://127.0.0.1:{server.port}"
        assert configuration.ssl_ca_cert == str(grant.files / "ca.crt")
        assert configuration.auth_settings()["BearerToken"]["value"] == "Bearer granted-1"
        server.grant(grant.name, token="granted-2", sequence=2)
        soon(lambda: grant.token() == "granted-2", "the renewal")
        assert configuration.auth_settings()["BearerToken"]["value"] == "Bearer granted-2"
    with pytest.raises(valetkey.Ended):
        configuration.auth_settings()


def test_without_the_kubernetes_client_it_says_what_to_install(
    server: Apiserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("kubernetes", "kubernetes.client"):
        monkeypatch.setitem(sys.modules, name, None)
    with access(server) as grant, pytest.raises(valetkey.AccessError, match="pip install kubernetes"):
        grant.kubernetes()


@pytest.mark.parametrize(
    ("template", "argument", "scope"),
    [
        ("shop: get pods/{it}", "log", {"namespace": "shop", "resources": ["pods"], "resourceNames": ["log"]}),
        ("shop: create pods/{it}", "exec", {"namespace": "shop", "resources": ["pods"], "resourceNames": ["exec"]}),
        ("cluster: get nodes/{it}", "proxy", {"resources": ["nodes"], "resourceNames": ["proxy"]}),
        ("{it}: get secrets", "cluster", {"namespace": "cluster", "resources": ["secrets"]}),
    ],
)
def test_no_argument_makes_another_access_of_a_template(
    server: Apiserver, template: str, argument: str, scope: dict[str, object]
) -> None:
    @valetkey.tool("remediation", "{it}", template, account_directory=server.account)
    def work(it: str, *, grant: valetkey.Grant) -> str:
        return grant.name

    asked = server.requests[work(argument)]["spec"]["access"]["kubernetes"]["scopes"]
    assert len(asked) == 1
    (rule,) = asked[0]["rules"]
    said = {"namespace": asked[0].get("namespace")} | rule
    assert {field: said.get(field) for field in ("namespace", "resources", "resourceNames")} == {
        field: scope.get(field) for field in ("namespace", "resources", "resourceNames")
    }


@pytest.mark.parametrize("template", ["shop: {what} pods", "shop: get {what}", "shop: get pods {what}"])
def test_a_template_in_which_an_argument_is_more_than_a_name_is_refused_when_the_function_is_defined(
    template: str,
) -> None:
    with pytest.raises(valetkey.InvalidAccess, match=r"\{what\}"):
        valetkey.tool("p", "o", template)(lambda what, *, grant: None)
