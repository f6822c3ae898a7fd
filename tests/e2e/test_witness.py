"""The witness that looks for credentials in every output, object, Event and record of these tests."""

from __future__ import annotations

from tests.cluster.api import until
from tests.cluster.conftest import LOG
from tests.cluster.local.cluster import Cluster
from tests.e2e.agent import Agent
from tests.e2e.witness import Witness


async def test_a_credential_that_was_written_into_an_object_is_found(agent: Agent, cluster: Cluster) -> None:
    async with Witness(cluster.kubeconfig, LOG) as witness:
        await agent.granted()
        credential = (await agent.credential()).token or ""

        async def seen() -> bool:
            return credential in witness.tokens

        await until(seen, "the witness to see the credential")
        leaked = {"metadata": {"name": "leaked"}, "data": {"note": f"my token is {credential}"}}
        await agent.api.made("/api/v1/namespaces/elsewhere/configmaps", leaked)
        try:
            assert await witness.written_down() == ["/api/v1/configmaps"]
        finally:
            await agent.api.gone("/api/v1/namespaces/elsewhere/configmaps/leaked")
