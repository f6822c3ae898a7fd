"""The examples for agents, each in its pod; all that is changed is where they run and from which image."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.api import ROOT, Json, until
from tests.cluster.local.cluster import Cluster
from tests.cluster.world import World
from tests.e2e.agent import OURS, SHOP, Agent
from tests.e2e.inside import mounted

EXAMPLES = ROOT / "examples"
PODS = "/api/v1/namespaces/agents/pods"
REQUESTS = f"{OURS}/namespaces/agents/accessrequests"
RESTARTED = "kubectl.kubernetes.io/restartedAt"


class Stage:
    """Where the examples play: their policies and accounts, a Deployment to restart, and a node."""

    def __init__(self, world: World, cluster: Cluster) -> None:
        self.api, self.cluster = world.api, cluster

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """Runs kubectl as whoever applies the examples."""
        done = subprocess.run(
            ["kubectl", *arguments],
            env=self.cluster.environment,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def apply(self, *files: str) -> None:
        """Applies an example's manifests, on this cluster."""
        bodies = [body for file in files for body in yaml.safe_load_all((EXAMPLES / file).read_text())]
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [self._here(body) for body in bodies]})
        await asyncio.to_thread(self.kubectl, "apply", "-f", "-", given=text.replace("shop-agents", "agents"))

    async def script(self, name: str, file: str) -> None:
        """Makes the ConfigMap of a program, as the example's first line says."""
        await asyncio.to_thread(self._script, name, file)

    def _script(self, name: str, file: str) -> None:
        made = self.kubectl(
            *("create", "configmap", name, "--dry-run=client", "-o", "yaml"), f"--from-file={EXAMPLES / file}"
        )
        self.kubectl("apply", "-n", "agents", "-f", "-", given=made)

    async def ends(self, pod: str, *, seconds: float = 90) -> Json:
        """Waits until a pod has ended well; gives it."""
        found: list[Json] = []

        async def over() -> bool:
            status, body = await self.api.get(f"{PODS}/{pod}")
            found[:] = [body]
            return status == 200 and body["status"].get("phase") in ("Succeeded", "Failed")

        await until(over, f"pod {pod} to end", seconds=seconds)
        assert found[0]["status"]["phase"] == "Succeeded", await self.said(pod)
        return found[0]

    async def said(self, pod: str) -> str:
        """What the containers of a pod have said."""
        return await asyncio.to_thread(self.kubectl, "logs", pod, "-n", "agents", "--all-containers")

    async def requests_of(self, pod: Json) -> list[Json]:
        """The requests that are for a pod."""
        _, listed = await self.api.get(f"{REQUESTS}?fieldSelector=spec.subject.podUID={pod['metadata']['uid']}")
        return list(listed["items"])

    async def restarted(self) -> str:
        """When the Deployment was restarted last."""
        _, body = await self.api.get(f"{SHOP}/checkout")
        return str(body["spec"]["template"]["metadata"].get("annotations", {}).get(RESTARTED, ""))

    def _here(self, body: Json) -> Json:
        spec: Json = body.get("spec", {})
        if body["kind"] == "Job":
            spec = spec["template"]["spec"]
        if body["kind"] in ("Pod", "Job"):
            spec |= {
                "hostNetwork": True,
                "nodeName": self.cluster.node,
                "terminationGracePeriodSeconds": 5,
                "tolerations": [{"operator": "Exists"}],
            }
            for container in (*spec["containers"], *spec.get("initContainers", ())):
                container |= {"image": "valetkey-demo:dev", "imagePullPolicy": "Never"}
        return body


@pytest.fixture
async def stage(operated: World, cluster: Cluster) -> AsyncIterator[Stage]:
    made = Stage(operated, cluster)
    template = {"metadata": {"labels": {"app": "checkout"}}, "spec": {"containers": [{"name": "a", "image": "none"}]}}
    deployment = {
        "metadata": {"name": "checkout"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "checkout"}}, "template": template},
    }
    await operated.api.gone(f"{SHOP}/checkout")
    await operated.api.made(SHOP, deployment)
    await made.apply("accounts.yaml", "policy.yaml")

    async def ready() -> bool:
        answers = [await operated.api.get(f"{OURS}/agentpolicies/example-{name}") for name in ("restart", "launched")]
        return all(body.get("status", {}).get("conditions") for _, body in answers)

    await until(ready, "the policies to be judged")
    await asyncio.sleep(2)  # and the bindings to be read
    yield made
    for name in ("restart", "launched"):
        await operated.api.gone(f"{OURS}/agentpolicies/example-{name}")
    for pod in ("python-agent", "sidecar", "warm-pod", "worker", "launcher"):
        await operated.api.gone(f"{PODS}/{pod}")
    await asyncio.to_thread(made.kubectl, "delete", "job", "kubectl-job", "-n", "agents", "--ignore-not-found")
    await operated.api.gone(f"{SHOP}/checkout")


async def released(stage: Stage, pod: Json, *outcomes: str) -> None:
    """A pod's requests have ended as its agent said, and nothing of what they were granted is left."""

    async def all_over() -> bool:
        bodies = await stage.requests_of(pod)
        said = sorted(body["spec"]["outcome"] for body in bodies if "outcome" in body["spec"])
        over = [body for body in bodies for c in body["status"]["conditions"] if c["reason"] == "TaskReleased"]
        return said == sorted(outcomes) and len(over) == len(outcomes)

    await until(all_over, f"the requests of {pod['metadata']['name']} to be {outcomes}")


async def test_a_plain_python_agent(stage: Stage) -> None:
    await stage.script("python-agent", "python-agent/agent.py")
    await stage.apply("python-agent/pod.yaml")
    pod = await stage.ends("python-agent")
    assert await stage.restarted()
    assert "AccessBeyondPolicy: spec.access" in await stage.said("python-agent")
    await released(stage, pod, "Succeeded")


async def test_an_agent_of_pydantic_ai_with_a_model_for_tests(stage: Stage, agent: Agent, tmp_path: Path) -> None:
    # It runs beside its pod, whose mount it has: its package is in no image.
    mount = await mounted(agent, tmp_path)
    account = {"VALETKEY_ACCOUNT_DIRECTORY": str(mount.account), "PATH": stage.cluster.environment["PATH"]}
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(EXAMPLES / "pydantic-ai" / "agent.py")],
        env=mount.environment | account | {"PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "restarted" in done.stdout
    assert await stage.restarted()
    await released(stage, agent.pod, "Succeeded")


async def test_kubectl_in_a_job_with_the_wrapper(stage: Stage) -> None:
    await stage.apply("kubectl-job/job.yaml")

    async def complete() -> bool:
        _, job = await stage.api.get("/apis/batch/v1/namespaces/agents/jobs/kubectl-job")
        return bool(job["status"].get("succeeded"))

    await until(complete, "the Job to be complete", seconds=90)
    assert await stage.restarted()
    _, pods = await stage.api.get(f"{PODS}?labelSelector=job-name=kubectl-job")
    await released(stage, pods["items"][0], "Succeeded")


async def test_an_unmodified_program_with_the_sidecar(stage: Stage) -> None:
    await stage.apply("sidecar/pod.yaml")
    pod = await stage.ends("sidecar")
    assert await stage.restarted()
    await released(stage, pod, "Succeeded")


async def test_a_warm_pod_is_served_twice_and_never_holds_both(stage: Stage) -> None:
    await stage.script("warm-pod", "warm-pod/agent.py")
    await stage.apply("warm-pod/pod.yaml")

    async def running() -> bool:
        _, pod = await stage.api.get(f"{PODS}/warm-pod")
        return bool(pod["status"].get("phase") == "Running")

    await until(running, "the warm pod to run", seconds=60)
    most = 0
    watching = asyncio.Event()

    async def count() -> None:
        nonlocal most
        while not watching.is_set():
            _, grants = await stage.api.get(f"{OURS}/namespaces/agents/taskgrants")
            live = [one for one in grants["items"] if one["spec"]["order"]["subject"]["podName"] == "warm-pod"]
            most = max(most, len(live))
            await asyncio.sleep(0.02)

    counting = asyncio.create_task(count())
    for number in (1, 2):
        before = await stage.restarted()
        task = json.dumps({"id": f"run-{number}", "objective": "Restart checkout", "deployment": "checkout"})
        attach = ("attach", "-i", "warm-pod", "-n", "agents", "--pod-running-timeout=10s")
        attached = await asyncio.create_subprocess_exec(
            *("kubectl", *attach),
            env=stage.cluster.environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert attached.stdin is not None
        assert attached.stdout is not None
        attached.stdin.write(f"{task}\n".encode())
        await attached.stdin.drain()

        async def said(reader: asyncio.StreamReader = attached.stdout, word: str = f"run-{number} is done") -> None:
            while word not in (await reader.readline()).decode():
                pass

        await asyncio.wait_for(said(), 60)
        attached.kill()
        await attached.wait()
        assert await stage.restarted() != before
        await asyncio.sleep(1.1)  # the time of a restart is to the second
    watching.set()
    await counting
    assert most == 1, "two tasks never have access at once"
    _, pod = await stage.api.get(f"{PODS}/warm-pod")
    await released(stage, pod, "Succeeded", "Succeeded")


async def test_a_launcher_and_a_pod_without_a_token(stage: Stage) -> None:
    await stage.script("launcher", "launcher/launch.sh")
    await stage.apply("launcher/pods.yaml")
    pod = await stage.ends("worker")
    await stage.ends("launcher")
    assert await stage.restarted()
    (request,) = await stage.requests_of(pod)
    assert request["spec"]["requester"]["serviceAccount"] == "launcher"
    mounts: list[Any] = pod["spec"]["containers"][0]["volumeMounts"]
    assert [mount["mountPath"] for mount in mounts] == ["/var/run/valetkey"], "it has no token of its own"

    async def over() -> bool:
        _, body = await stage.api.get(f"{REQUESTS}/{request['metadata']['name']}")
        return any(c["reason"] in ("PodFinished",) for c in body["status"]["conditions"])

    await until(over, "what the worker was granted to end with it")


def test_every_example_is_in_the_table_and_has_a_test() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    table = (EXAMPLES / "README.md").read_text()
    assert all(f"[{name}]({name})" in table for name in folders)
    assert all(name in Path(os.path.realpath(__file__)).read_text() for name in folders)
