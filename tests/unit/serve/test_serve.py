"""`valetkey serve` as the chart starts it: a process of its own, with what the kubelet puts into its folders."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
from contextlib import suppress
from pathlib import Path

import aiohttp

from tests.cluster.api import until
from tests.cluster.local import pki
from tests.unit.controller.test_listener import free
from tests.unit.serve.plane import Plane, running
from tests.unit.serve.test_agents import ALL, READY, asks


async def test_it_serves_once_a_certificate_is_there_says_that_it_lives_and_ends_when_it_is_told_to(
    tmp_path: Path,
) -> None:
    folders = {name: tmp_path / name for name in ("ca", "account", "tls", "run")}
    for folder in folders.values():
        folder.mkdir()
    pki.authority(folders["ca"])
    pki.certificate(folders["ca"], "api", "/CN=api")
    pki.certificate(folders["ca"], "door", "/CN=door")
    (folders["account"] / "ca.crt").write_bytes((folders["ca"] / "ca.crt").read_bytes())
    (folders["account"] / "token").write_text("its-own-token")
    port, settings = free(), tmp_path / "settings.json"
    written = {
        "agentNamespaces": ["agents"],
        "port": port,
        "host": "127.0.0.1",
        "accountDirectory": str(folders["account"]),
        "certificateDirectory": str(folders["tls"]),
        "runDirectory": str(folders["run"]),
    }
    settings.write_text(json.dumps(written))
    plane, api = Plane(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    api.load_cert_chain(folders["ca"] / "api.crt", folders["ca"] / "api.key")
    trusted = ssl.create_default_context(cafile=str(folders["ca"] / "ca.crt"))
    async with (
        running(plane, api) as behind,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trusted)) as session,
    ):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "valetkey", "serve", "--settings", str(settings)),
            env=os.environ | {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(behind)},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

        async def lives() -> bool:
            return (folders["run"] / "alive").exists()

        await until(lives, "it to say that it lives", seconds=20)
        for name in ("crt", "key"):
            draft = folders["tls"] / "draft"
            draft.write_bytes((folders["ca"] / f"door.{name}").read_bytes())
            draft.rename(folders["tls"] / f"tls.{name}")

        async def there() -> bool:
            with suppress(aiohttp.ClientConnectionError):
                async with session.get(f"https://127.0.0.1:{port}/") as answer:
                    return answer.status == 401
            return False

        await until(there, "the door to be open", seconds=20)
        headers = {"Authorization": "Bearer one"}
        asking = asyncio.create_task(
            session.post(f"https://127.0.0.1:{port}{ALL}?wait=30", json=asks(name="fix"), headers=headers)
        )

        async def waits() -> bool:
            return plane.watching == 1

        await until(waits, "it to wait", seconds=5)
        await plane.say("fix", conditions=[READY])
        answer = await asyncio.wait_for(asking, 5)
        assert answer.status == 200
        answer.release()
        process.send_signal(signal.SIGTERM)
        said, _ = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == 0, said
    lines = [json.loads(line) for line in said.decode().splitlines()]
    assert [line["message"] for line in lines if line["level"] == "info"] == ["agents/one asks: fix"]
    assert all("door.tlsSecret" in line["message"] for line in lines if line["level"] != "info")
    assert "its-own-token" not in said.decode()
