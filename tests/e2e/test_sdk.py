"""The SDK on the real thing: access for a block, and nothing of it afterwards."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import valetkey
from tests.cluster.api import Caller, Json, until
from tests.cluster.local.cluster import Cluster
from tests.e2e.agent import OURS, SHOP, Agent
from tests.e2e.inside import Mount, mounted
from tests.e2e.test_approvals import People, people

__all__ = ["people"]

LINE = "shop: get,patch deployments.apps"


@pytest.fixture
async def mount(agent: Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mount:
    """This very process is in the agent's pod, as far as the SDK can see."""
    made = await mounted(agent, tmp_path)
    for name, value in made.environment.items():
        if name.startswith(("KUBERNETES", "VALETKEY")):
            monkeypatch.setenv(name, value)
    return made


def access(mount: Mount, line: str = LINE, **options: Any) -> valetkey.Access:
    return valetkey.access("remediation", "Restart checkout", line, account_directory=mount.account, **options)


async def asked(agent: Agent) -> list[Json]:
    """The requests of this agent's pod, oldest first."""
    uid = agent.pod["metadata"]["uid"]
    _, listed = await agent.api.get(f"{OURS}/namespaces/agents/accessrequests?fieldSelector=spec.subject.podUID={uid}")
    return sorted(listed["items"], key=lambda body: body["metadata"]["creationTimestamp"])


async def test_a_block_has_access_and_what_comes_after_it_has_none(agent: Agent, mount: Mount) -> None:
    async with access(mount) as grant:
        credential = Caller(token=grant.token())
        assert await agent.may(credential)
        assert not await agent.may(credential, "/api/v1/namespaces/shop/secrets/any")
        shown = await asyncio.to_thread(
            subprocess.run,
            ["kubectl", "auth", "can-i", "patch", "deployments.apps/checkout", "-n", "shop"],
            env=grant.environ(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert shown.stdout.strip() == "yes", shown.stderr
        visible = {path.name for path in grant.files.iterdir() if not path.name.startswith("..")}
        assert visible == {"token", "ca.crt", "namespace", "kubeconfig"}
    await agent.dead(credential)
    assert not grant.files.exists()
    with pytest.raises(valetkey.Ended):
        grant.token()
    (request,) = await asked(agent)
    assert request["spec"]["outcome"] == "Succeeded"
    assert (await agent.finished(request["metadata"]["name"]))["reason"] == "TaskReleased"
    assert await agent.traces(credential) == []


async def test_a_block_that_fails_says_so(agent: Agent, mount: Mount) -> None:
    tokens = []

    async def work() -> None:
        async with access(mount) as grant:
            tokens.append(grant.token())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work()
    await agent.dead(Caller(token=tokens[0]))
    assert [body["spec"]["outcome"] for body in await asked(agent)] == ["Failed"]


async def test_a_denial_says_what_would_pass(agent: Agent, mount: Mount) -> None:
    with pytest.raises(valetkey.Denied) as told:
        async with access(mount, "shop: get,delete deployments.apps"):
            pass
    assert told.value.reason == "AccessBeyondPolicy"
    assert str(told.value.field).startswith("spec.access.kubernetes.scopes[0].rules[0]")
    assert "get" in str(told.value.allowed)
    assert told.value.decision


async def test_three_at_once_have_nothing_in_common(agent: Agent, mount: Mount) -> None:
    tokens = set()

    async def one(number: int) -> None:
        async with access(mount, task=f"run-{number}") as grant:
            tokens.add(grant.token())
            assert await agent.may(Caller(token=grant.token()))

    await asyncio.gather(*(one(number) for number in range(3)))
    assert len(tokens) == 3
    for token in tokens:
        await agent.dead(Caller(token=token))


async def test_a_renewal_comes_into_the_files_of_a_block_that_lasts(agent: Agent, mount: Mount) -> None:
    async with access(mount, ttl="15m") as grant:  # the tests renew after four seconds
        first = grant.token()

        async def renewed() -> bool:
            return (grant.files / "token").read_text() != first

        await until(renewed, "a new token in the file")
        assert grant.token() == (grant.files / "token").read_text()
        assert await agent.may(Caller(token=grant.token()))


async def test_the_sync_form_and_the_client_of_the_kubernetes_package(agent: Agent, mount: Mount) -> None:
    def work() -> str:
        from kubernetes import client

        with access(mount) as grant:
            api = client.AppsV1Api(grant.kubernetes())
            with pytest.raises(client.ApiException) as refused:
                api.read_namespaced_deployment("checkout", "elsewhere")
            assert refused.value.status == 403
            with pytest.raises(client.ApiException) as missing:
                api.read_namespaced_deployment("nothing", "shop")
            assert missing.value.status == 404
            return grant.token()

    await agent.dead(Caller(token=await asyncio.to_thread(work)))


async def test_a_tool_has_access_for_one_call(agent: Agent, mount: Mount) -> None:
    @valetkey.tool(
        "remediation", "Restart {name}", "shop: get,patch deployments.apps/{name}", account_directory=mount.account
    )
    async def restart(name: str, *, grant: valetkey.Grant) -> str:
        credential = Caller(token=grant.token())
        assert await agent.may(credential, f"{SHOP}/{name}")
        assert not await agent.may(credential, f"{SHOP}/other")
        return grant.token()

    await agent.dead(Caller(token=await restart("checkout")))
    with pytest.raises(valetkey.InvalidAccess):
        await restart("checkout,other")


async def test_who_waits_for_people_is_granted_when_they_approve(agent: Agent, mount: Mount, people: People) -> None:
    await agent.api.patch(f"{OURS}/agentpolicies/{agent.policy}", {"spec": {"approval": {"timeout": "10m"}}})
    await agent.policy_ready()
    with pytest.raises(valetkey.ApprovalPending) as pending:
        async with access(mount, wait_for_approval=False):
            pass
    assert agent.policy in str(pending.value)
    (request,) = await asked(agent)

    said: list[asyncio.Task[Json]] = []

    def approve(_: str) -> None:
        said.append(asyncio.create_task(people.say(people.ann, request["metadata"]["name"])))

    async with access(mount, on_pending=approve) as grant:
        assert await agent.may(Caller(token=grant.token()))
        assert grant.name == request["metadata"]["name"], "the request that waited is the one that is granted"
    assert len(said) == 1
    assert len(await asked(agent)) == 1


async def test_a_request_that_a_person_deletes_ends_the_access_and_the_block_hears_why(
    agent: Agent, mount: Mount
) -> None:
    async def work() -> None:
        async with access(mount) as grant:
            await agent.api.delete(f"{OURS}/namespaces/agents/accessrequests/{grant.name}")
            ended = await asyncio.wait_for(grant.wait_ended(), 10)
            assert ended.reason == "RequestDeleted"
            with pytest.raises(valetkey.Ended):
                grant.environ()
            raise ConnectionError("401")

    with pytest.raises(ConnectionError) as failed:
        await work()
    assert any("RequestDeleted" in note for note in failed.value.__notes__)


PROGRAM = """
import sys, time, valetkey
with valetkey.access("remediation", "Restart checkout", {line!r}, account_directory={account!r}) as grant:
    print(grant.name, grant.token(), flush=True)
    time.sleep(600)
"""


async def holding(mount: Mount) -> tuple[asyncio.subprocess.Process, str, Caller]:
    """A process of its own that holds access, its request and its credential."""
    program = PROGRAM.format(line=LINE, account=str(mount.account))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), env=mount.environment, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    name, token = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().split()
    return process, name, Caller(token=token)


async def test_what_a_killed_process_held_is_found_by_the_next_for_the_same_task(agent: Agent, mount: Mount) -> None:
    process, name, credential = await holding(mount)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert await agent.may(credential), "nobody has said that it is over"
    async with access(mount) as grant:
        assert grant.name == name
        assert await agent.may(Caller(token=grant.token()))
    await agent.dead(credential)


async def test_what_a_killed_process_held_for_another_task_is_ended_by_the_next(agent: Agent, mount: Mount) -> None:
    process, name, credential = await holding(mount)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    async with access(mount, task="another"):
        await agent.dead(credential, seconds=10)
    assert (await agent.finished(name))["reason"] == "TaskReleased"


async def test_a_process_that_is_told_to_terminate_says_that_its_task_was_cancelled(agent: Agent, mount: Mount) -> None:
    process, name, credential = await holding(mount)
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 20) == 128 + signal.SIGTERM
    await agent.dead(credential)
    assert [body["spec"]["outcome"] for body in await asked(agent)] == ["Cancelled"]
    assert (await agent.finished(name))["message"].endswith("Cancelled")


async def test_the_wrapper_runs_kubectl_and_passes_its_exit_code_on(
    agent: Agent, mount: Mount, cluster: Cluster
) -> None:
    def run(*command: str) -> subprocess.CompletedProcess[str]:
        options = ("--purpose", "remediation", "--access", LINE, "--account-directory", str(mount.account))
        return subprocess.run(
            [sys.executable, "-m", "valetkey", "run", *options, "--", *command],
            env=mount.environment | {"PATH": cluster.environment["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )

    done = await asyncio.to_thread(run, "sh", "-c", "cp $KUBECONFIG /dev/null && cat ${KUBECONFIG%/*}/token; exit 7")
    assert done.returncode == 7, done.stderr
    await agent.dead(Caller(token=done.stdout))
    may = ("kubectl", "auth", "can-i", "patch", "deployments.apps", "-n", "shop")
    done = await asyncio.to_thread(run, *may)
    assert (done.returncode, done.stdout.strip()) == (0, "yes"), done.stderr
    assert {body["spec"]["outcome"] for body in await asked(agent)} == {"Failed", "Succeeded"}


async def test_a_block_that_lasts_beats_by_itself(agent: Agent, mount: Mount) -> None:
    await agent.api.patch(f"{OURS}/agentpolicies/{agent.policy}", {"spec": {"heartbeat": {"within": "15s"}}})
    await agent.policy_ready()
    async with access(mount) as grant:
        await asyncio.sleep(25)
        assert grant.ended is None
        assert await agent.may(Caller(token=grant.token()))
        (request,) = await asked(agent)
        assert int(request["metadata"]["annotations"]["valetkey.dev/heartbeat"]) >= 3
