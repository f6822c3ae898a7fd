"""Sealed delivery on the real thing: opened by Go and Node, asked for with curl, and worth nothing elsewhere."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from tests.cluster.api import ROOT, Caller, Json, merged, until
from tests.cluster.world import World
from tests.e2e.agent import OURS, Agent
from valetkey.delivery.sealed import binding

CLIENTS = ROOT / "clients"
PROGRAMS = {"go": ("go", "run", "open.go"), "node": ("node", "open.mjs")}
SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_128_GCM)


class Holder:
    """A process that holds a key."""

    def __init__(self) -> None:
        self.key = X25519PrivateKey.generate()
        self.public = base64.b64encode(self.key.public_key().public_bytes_raw()).decode()

    def asks(self) -> Json:
        """What its request adds."""
        return {"spec": {"delivery": {"secret": None, "sealed": {"publicKey": self.public}}}}

    def opened(self, request: Json) -> dict[str, str]:
        """The files that are sealed in a request, for this key."""
        sealed = request["status"]["delivery"]["sealed"]
        uids = request["metadata"]["uid"], request["spec"]["subject"]["podUID"], request["status"]["grant"]["uid"]
        info = binding(*uids, sealed["sequence"])
        return dict(json.loads(SUITE.decrypt(base64.b64decode(sealed["ciphertext"]), self.key, info=info)))


async def read(agent: Agent, name: str) -> Json:
    _, body = await agent.api.get(f"{OURS}/namespaces/agents/accessrequests/{name}", by=agent.token)
    return body


async def test_its_key_opens_it_and_with_the_task_it_is_gone(agent: Agent) -> None:
    holder = Holder()
    name = await agent.granted(**holder.asks())
    credential = Caller(token=holder.opened(await read(agent, name))["token"])
    assert await agent.may(credential)
    status, _ = await agent.api.get(f"/api/v1/namespaces/agents/secrets/{agent.secret}")
    assert status == 404, "no Secret is made"
    await agent.report(name)
    assert (await agent.finished(name))["reason"] == "TaskReleased"
    assert not await agent.may(credential)
    assert "delivery" not in (await read(agent, name))["status"]
    assert await agent.traces(credential) == []


async def test_a_long_grant_gets_its_next_credential_under_the_next_sequence(agent: Agent) -> None:
    holder = Holder()
    name = await agent.granted(**merged(holder.asks(), {"spec": {"ttl": "15m"}}))
    first = await read(agent, name)

    async def renewed() -> bool:
        return bool((await read(agent, name))["status"]["delivery"]["sealed"]["sequence"] > 1)

    await until(renewed, "the credential to be sealed again")
    second = await read(agent, name)
    assert second["status"]["delivery"]["sealed"]["sequence"] == 2
    assert holder.opened(second)["token"] != holder.opened(first)["token"]
    assert await agent.may(Caller(token=holder.opened(second)["token"]))


async def test_one_pod_holds_two_and_neither_opens_as_the_other(agent: Agent) -> None:
    one, other = Holder(), Holder()
    first = await read(agent, await agent.granted(**one.asks()))
    second = await read(agent, await agent.granted(**other.asks()))
    assert one.opened(first)["token"] != other.opened(second)["token"]
    with pytest.raises(InvalidTag):
        other.opened(first)
    moved = merged(second, {"status": {"delivery": first["status"]["delivery"]}})
    with pytest.raises(InvalidTag):
        one.opened(moved)


@pytest.mark.parametrize("language", PROGRAMS)
async def test_a_program_of_forty_lines_opens_the_vector_and_what_the_operator_has_sealed(
    agent: Agent, language: str, tmp_path: Path
) -> None:
    assert len((CLIENTS / language / PROGRAMS[language][-1]).read_text().splitlines()) <= 40
    holder, key = Holder(), tmp_path / "key"
    vector = json.loads((CLIENTS / "vector.json").read_text())
    key.write_text(vector["privateKey"])
    assert json.loads((await run(language, vector["request"], key)).stdout) == vector["files"]
    key.write_text(base64.b64encode(holder.key.private_bytes_raw()).decode())
    request = await read(agent, await agent.granted(**holder.asks()))
    done = await run(language, request, key)
    assert json.loads(done.stdout) == holder.opened(request), done.stderr
    assert await agent.may(Caller(token=json.loads(done.stdout)["token"]))
    moved = await run(language, merged(request, {"status": {"grant": {"uid": request["metadata"]["uid"]}}}), key)
    assert (moved.returncode != 0, moved.stdout) == (True, "")


async def run(language: str, request: Json, key: Path) -> subprocess.CompletedProcess[str]:
    """Lets a program open a request."""
    assert shutil.which(PROGRAMS[language][0]), f"{PROGRAMS[language][0]} is needed, as the README says"
    return await asyncio.to_thread(
        subprocess.run,
        [*PROGRAMS[language], str(key)],
        cwd=CLIENTS / language,
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
async def mount(operated: World, agent: Agent, tmp_path: Path) -> dict[str, str]:
    """What a pod's ServiceAccount mount has, and the environment that says where."""
    assert agent.token.token is not None
    _, bundle = await operated.api.get("/api/v1/namespaces/agents/configmaps/kube-root-ca.crt")
    files = {"token": agent.token.token, "namespace": "agents", "ca.crt": bundle["data"]["ca.crt"]}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    return {"PATH": os.environ["PATH"], "ACCOUNT": str(tmp_path), "SERVER": operated.api.server}


async def test_curl_asks_and_says_how_it_ended(agent: Agent, mount: dict[str, str], tmp_path: Path) -> None:
    access = agent.request()["spec"]["access"]
    environment = mount | {"PURPOSE": "remediation", "ACCESS": json.dumps(access)}
    key = tmp_path / "key"
    shell = await asyncio.create_subprocess_exec(
        *(str(CLIENTS / "curl.sh"), str(key)),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert shell.stdin is not None
    assert shell.stdout is not None
    said = (await asyncio.wait_for(shell.stdout.readline(), 60)).decode()
    assert "has the answer" in said, (await shell.communicate())[1]
    request = json.loads(await asyncio.to_thread(Path(f"{key}.json").read_text))
    files = json.loads((await run("node", request, key)).stdout)
    assert await agent.may(Caller(token=files["token"]))
    _, stderr = await asyncio.wait_for(shell.communicate(b"Succeeded\n"), 60)
    assert shell.returncode == 0, stderr
    assert (await agent.finished(request["metadata"]["name"]))["reason"] == "TaskReleased"
    assert not await agent.may(Caller(token=files["token"]))


async def test_curl_says_why_it_was_denied(agent: Agent, mount: dict[str, str], tmp_path: Path) -> None:
    access = {"kubernetes": {"scopes": [{"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}]}}
    environment = mount | {"PURPOSE": "remediation", "ACCESS": json.dumps(access)}
    done = await asyncio.to_thread(
        subprocess.run,
        [str(CLIENTS / "curl.sh"), str(tmp_path / "key")],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "AccessBeyondPolicy" in done.stderr or agent.policy in done.stderr, done.stderr
