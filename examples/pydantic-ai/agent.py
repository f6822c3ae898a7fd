"""A pydantic-ai agent: each call of its tool has access of its own, and none is left when the call is over."""

import asyncio
import os
from typing import Literal

from pydantic_ai import Agent
from pydantic_ai.models import infer_model
from pydantic_ai.models.test import TestModel

import valetkey

agent = Agent(instructions="You mend workloads. When access is denied, do what the denial says, or say that you cannot.")


@agent.tool_plain
@valetkey.tool(
    "remediation",
    "Restart {deployment}, as a model has asked",
    "shop: get,patch deployments.apps/{deployment}",
    parameters=["deployment"],
)
async def restart(deployment: Literal["checkout", "payments"], *, grant: valetkey.Grant) -> str:
    """Restart a Deployment of the shop."""
    command = ("kubectl", "rollout", "restart", f"deployment/{deployment}", "-n", "shop")
    process = await asyncio.create_subprocess_exec(*command, env=grant.environ())
    return "restarted" if await process.wait() == 0 else "kubectl failed"


def main() -> None:
    """With the model that MODEL names, such as anthropic:claude-sonnet-4-5; without one, with a model for tests."""
    model = infer_model(os.environ["MODEL"]) if "MODEL" in os.environ else TestModel()
    print(agent.run_sync("checkout does not start", model=model).output)


main()
