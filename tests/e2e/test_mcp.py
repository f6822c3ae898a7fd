"""`valetkey mcp` with the protocol's own client: a model gets access, and never reads a credential."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters

from tests.cluster.api import Caller, until
from tests.e2e.agent import OURS, Agent
from tests.e2e.inside import mounted
from tests.e2e.test_approvals import People, people

__all__ = ["people"]

LINE = "shop: get,patch deployments.apps"


class Model:
    """A language model as the server sees it, and all that was said between the two."""

    def __init__(self, server: StdioServerParameters, said: tuple[Path, ...]) -> None:
        self.server, self._said = server, said
        self.client = Client(server, raise_exceptions=True)

    async def calls(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """What a tool answers."""
        answer = await self.client.call_tool(tool, arguments)
        assert not answer.is_error, answer
        assert answer.structured_content is not None
        return dict(answer.structured_content)

    def heard(self) -> str:
        """Everything that went in and came out, what was logged too."""
        return "".join(path.read_text() for path in self._said)


@pytest.fixture
async def model(agent: Agent, tmp_path: Path) -> Model:
    mount = await mounted(agent, tmp_path)
    said = tuple(tmp_path / name for name in ("in", "out", "err"))
    command = shlex.join([sys.executable, "-m", "valetkey", "mcp", "--account-directory", str(mount.account)])
    tee = f"tee {said[0]} | {command} 2> {said[2]} | tee {said[1]}"
    return Model(StdioServerParameters(command="sh", args=["-c", tee], env=mount.environment), said)


def asks(**more: Any) -> dict[str, Any]:
    return {"purpose": "remediation", "objective": "Restart checkout", "access": LINE, **more}


async def test_a_model_asks_uses_a_file_and_releases_and_no_message_has_the_credential(
    agent: Agent, model: Model
) -> None:
    async with model.client:
        tools = await model.client.list_tools()
        assert {tool.name for tool in tools.tools} == {"request_access", "access_status", "release_access"}
        told = await model.calls("request_access", **asks())
        assert told["state"] == "granted", told
        token = (Path(told["directory"]) / "token").read_text()
        assert await agent.may(Caller(token=token))
        assert await model.calls("access_status", access=told["access"]) == told
        released = await model.calls("release_access", access=told["access"], outcome="Failed")
        assert released == {"access": told["access"], "state": "released", "outcome": "Failed"}
        await agent.dead(Caller(token=token))
    assert (await agent.finished(told["request"]))["message"].endswith("Failed")
    assert told["access"] in model.heard()
    for part in (token, *token.split(".")):
        assert part not in model.heard()


def left_in(keys: Path) -> list[Path]:
    """What is left of the accesses of its pod."""
    return list(keys.glob("*/*"))


async def test_a_model_that_is_denied_hears_what_would_pass(agent: Agent, model: Model) -> None:
    async with model.client:
        told = await model.calls("request_access", **asks(access="shop: get,delete deployments.apps"))
        assert told["state"] == "denied"
        assert told["reason"] == "AccessBeyondPolicy"
        assert "get" in told["allowed"]
        unread = await model.calls("request_access", **asks(access="everything"))
        assert unread["state"] == "failed"
        unknown = await model.calls("access_status", access="access-9")
        assert unknown["state"] == "failed"


async def test_a_model_looks_again_while_people_decide(agent: Agent, model: Model, people: People) -> None:
    await agent.api.patch(f"{OURS}/agentpolicies/{agent.policy}", {"spec": {"approval": {"timeout": "10m"}}})
    await agent.policy_ready()
    async with model.client:
        told = await model.calls("request_access", **asks())
        assert told["state"] == "waiting"
        assert agent.policy in told["waiting_for"]
        _, listed = await agent.api.get(
            f"{OURS}/namespaces/agents/accessrequests?fieldSelector=spec.subject.podUID={agent.pod['metadata']['uid']}"
        )
        (request,) = listed["items"]
        await people.say(people.ann, request["metadata"]["name"])

        async def granted() -> bool:
            return bool((await model.calls("access_status", access=told["access"]))["state"] == "granted")

        await until(granted, "the model to be granted access")


async def test_when_the_model_goes_so_does_its_access(agent: Agent, model: Model, tmp_path: Path) -> None:
    async with model.client:
        told = await model.calls("request_access", **asks())
        token = (Path(told["directory"]) / "token").read_text()
    await agent.dead(Caller(token=token))
    assert left_in(tmp_path / "keys") == []
    assert (await agent.finished(told["request"]))["message"].endswith("Cancelled")
