"""`make demo`: an agent restarts a crash-looping Deployment with access that it has for that task alone.

The setting up is quiet. The story is shown as the kubectl commands that a person would type, the request that the agent
makes included; a step that does not go as it must ends the demo.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import yaml

from tests.cluster.local import images
from tests.cluster.local.cluster import Cluster, running, up
from tests.cluster.local.places import ROOT, STATE, LocalClusterError

HERE: Final = Path(__file__).parent
AGENT: Final = ("exec", "-i", "-n", "shop-agents", "fixer", "--")
GRANTED: Final = (*AGENT, "kubectl", "--kubeconfig=/var/run/valetkey/kubeconfig", "-n", "shop")
OWN: Final = (*AGENT, "kubectl")
NAMESPACES: Final = ("shop", "shop-agents")
LOG: Final = STATE / "demo-log"


class DemoError(Exception):
    """A step did not go as it must."""


class Demo:
    """The steps, in order."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._task = f"run-{int(time.time()) % 10_000}"

    def run(self) -> None:
        """Sets up and plays the story."""
        self.install()
        self.story()
        title("that was one task; `make demo-down` removes all of it")

    def install(self) -> None:
        """Chart, policy, agent and program."""
        title("set up: the chart, one policy, an agent, and a program that crash-loops")
        for name in NAMESPACES:
            self._quiet("create", "namespace", name, may_fail=True)
        log: list[str] = []
        if self._cluster.source == "built":
            LOG.mkdir(parents=True, exist_ok=True)
            LOG.chmod(0o777)  # the operator writes as user 65532
            log = ["--set", f"log.hostPath={LOG}", "--set", "hostNetwork=true", "--set", "metrics.host=127.0.0.1"]
        self._helm(
            "upgrade", "--install", "valetkey", str(HERE.parent / "charts" / "valetkey"),
            *("--namespace", "valetkey-system", "--create-namespace", "--values", str(HERE / "values.yaml")),
            *(*log, "--wait", "--timeout", "180s"),
        )  # fmt: skip
        time.sleep(4)  # requests are trusted from three seconds after the guards were put in place
        self._quiet("delete", "deployment", "checkout", "-n", "shop", "--ignore-not-found")  # an earlier demo mended it
        self._quiet("apply", "-f", str(HERE / "policy.yaml"), "-f", str(HERE / "workloads.yaml"))
        self._quiet("wait", "-n", "shop-agents", "--for=condition=Ready", "pod/fixer", "--timeout=120s")
        self._quiet("delete", "accessrequests.valetkey.dev", "--all", "-n", "shop-agents")
        self._until("the program to crash-loop", lambda: self._restarts() >= 1)
        self._quiet("patch", "configmap", "database", "-n", "shop", "--type=merge", "-p", '{"data":{"state":"up"}}')
        restarts = self._restarts()
        self._until("it to crash on, for its lock is stale", lambda: self._restarts() > restarts)
        self.show("get", "pods", "-n", "shop")

    def story(self) -> None:
        """Denied before, allowed during, denied after."""
        title("before: the agent may not touch the Deployment")
        self.refused(*OWN, "-n", "shop", "rollout", "restart", "deployment/checkout", because="forbidden")

        title("the agent says what its task is and what that needs")
        self._ask("restart-checkout", self._task, ["get", "patch"])
        self.show(
            "wait",
            "-n",
            "shop-agents",
            "--for=condition=Ready",
            "accessrequest.valetkey.dev/restart-checkout",
            "--timeout=10s",
        )
        self._until(
            "the credential in the agent's pod", lambda: self._passes(*AGENT, "test", "-s", "/var/run/valetkey/token")
        )
        self.show("get", "ar,tg,ap", "-A")

        title("during: it may restart the Deployment, and nothing else")
        self.show(*GRANTED, "rollout", "restart", "deployment/checkout")
        self.refused(*GRANTED, "set", "image", "deployment/checkout", "checkout=evil:latest", because="pod template")
        self.refused(*GRANTED, "get", "secrets", because="forbidden")
        self._until("checkout to be open", lambda: self._ready() == "1")
        self.show("get", "deployment", "checkout", "-n", "shop")

        title("after: the agent reports its outcome, and the access is gone, from a copy of the credential too")
        self.show(*AGENT, "cp", "-rL", "/var/run/valetkey", "/tmp/kept")
        outcome = '{"spec":{"outcome":"Succeeded"}}'
        self.show(*OWN, "patch", "accessrequests.valetkey.dev", "restart-checkout", "--type=merge", "-p", outcome)
        self.show(
            "wait",
            "-n",
            "shop-agents",
            "--for=condition=Finished",
            "accessrequest.valetkey.dev/restart-checkout",
            "--timeout=10s",
        )
        kept = (*OWN, "--kubeconfig=/tmp/kept/kubeconfig", "-n", "shop")
        self.refused(*kept, "rollout", "restart", "deployment/checkout", because="orbidden")
        self._quiet(*AGENT, "rm", "-r", "/tmp/kept")
        self.show("get", "taskgrants.valetkey.dev", "-A", "--ignore-not-found")

        title("beyond the policy: refused, with a reason that an agent can act on")
        self._ask("delete-checkout", f"{self._task}-b", ["get", "delete"], again=True)
        self.show(
            "wait",
            "-n",
            "shop-agents",
            "--for=condition=Finished",
            "accessrequest.valetkey.dev/delete-checkout",
            "--timeout=10s",
        )
        denial = self._output(
            "get", "ar", "delete-checkout", "-n", "shop-agents", "-o", "jsonpath={.status.decision.denial}"
        )
        for key, value in json.loads(denial).items():
            say(f"  {key}: {value}")

        title("the log: what happened, and why")
        self.show("exec", "-n", "valetkey-system", "valetkey-0", "--", "valetkey", "log", "--task", self._task)

    def show(self, *arguments: str) -> None:
        """Runs kubectl as the reader would, and shows what it says."""
        say(f"$ kubectl {' '.join(arguments)}")
        say(self._output(*arguments).rstrip())

    def refused(self, *arguments: str, because: str = "") -> None:
        """Runs kubectl, which must be refused, and shows how."""
        say(f"$ kubectl {' '.join(arguments)}")
        done = self._kubectl(*arguments)
        if done.returncode == 0 or because not in done.stderr:
            raise DemoError(f"that should have been refused: {done.stdout}{done.stderr}")
        say(f"  refused: {done.stderr.splitlines()[0]}")

    def _ask(self, name: str, task: str, verbs: list[str], *, again: bool = False) -> None:
        """Creates a request, and shows it; of one that is much like the last, only what differs."""
        rule = {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": ["checkout"], "verbs": verbs}
        request = {
            "apiVersion": "valetkey.dev/v1alpha1",
            "kind": "AccessRequest",
            "metadata": {"name": name},
            "spec": {
                "task": {
                    "id": task,
                    "objective": "Restart checkout, its pods crash-loop since 14:02",
                    "purpose": "remediation",
                    "parameters": {"deployment": "checkout"},
                },
                "access": {"kubernetes": {"scopes": [{"namespace": "shop", "rules": [rule]}]}},
                "ttl": "5m",
            },
        }
        text = yaml.safe_dump(request, sort_keys=False, default_flow_style=None, width=120)
        command = f"$ kubectl {' '.join(OWN)} create -f -"
        if again:
            say(f"{command}   # as before, but {name}, task {task}, verbs {', '.join(verbs)}")
        else:
            say(f"{command} <<END\n{text}END")
        done = self._kubectl(*OWN, "create", "-f", "-", text=text)
        if done.returncode != 0:
            raise DemoError(done.stderr)
        say(done.stdout.rstrip())

    def _restarts(self) -> int:
        path = "jsonpath={.items[*].status.containerStatuses[*].restartCount}"
        return int(self._output("get", "pods", "-n", "shop", "-l", "app=checkout", "-o", path) or 0)

    def _ready(self) -> str:
        return self._output("get", "deployment", "checkout", "-n", "shop", "-o", "jsonpath={.status.readyReplicas}")

    def _until(self, what: str, done: Callable[[], bool]) -> None:
        for _ in range(300):
            if done():
                return
            time.sleep(0.2)
        raise DemoError(f"waited a minute for {what}")

    def _passes(self, *arguments: str) -> bool:
        return self._kubectl(*arguments).returncode == 0

    def _quiet(self, *arguments: str, may_fail: bool = False) -> None:
        done = self._kubectl(*arguments)
        if done.returncode != 0 and not may_fail:
            raise DemoError(f"kubectl {' '.join(arguments)}: {done.stderr}")

    def _output(self, *arguments: str) -> str:
        done = self._kubectl(*arguments)
        if done.returncode != 0:
            raise DemoError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def _kubectl(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", *arguments],
            env=self._cluster.environment,
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )

    def _helm(self, *arguments: str) -> None:
        done = subprocess.run(
            ["helm", *arguments], env=self._cluster.environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise DemoError(f"helm {arguments[0]}: {done.stderr}")

    def remove(self) -> None:
        """Takes away everything that the demo made, credentials first."""
        gone = ("uninstall", "valetkey", "--namespace", "valetkey-system", "--ignore-not-found", "--wait")
        try:
            self._helm(*gone)
        except DemoError as error:
            say(str(error))  # what is left is freed below
            self._helm(*gone, "--no-hooks")
        for name in (*NAMESPACES, "valetkey-grants", "valetkey-system"):
            self._quiet("delete", "namespace", name, "--ignore-not-found", "--timeout=60s", may_fail=True)
        self._let_go()
        shutil.rmtree(LOG, ignore_errors=True)
        kinds = [path.stem for path in (ROOT / "crds").glob("*.yaml")]
        self._quiet("delete", "customresourcedefinitions", *kinds, "--ignore-not-found", "--timeout=60s")

    def _let_go(self) -> None:
        """Frees grants that no operator ended; their accounts, and so their credentials, went with the namespace."""
        found = self._kubectl("get", "taskgrants.valetkey.dev", "-A", "-o", "json")
        if found.returncode != 0:
            return  # the kind is not there
        for body in json.loads(found.stdout)["items"]:
            name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
            nothing = '{"metadata":{"finalizers":null}}'
            self._quiet("patch", "taskgrant.valetkey.dev", name, "-n", namespace, "--type=merge", "-p", nothing)


def title(text: str) -> None:
    """A heading."""
    say(f"\n── {text}")


def say(text: str) -> None:
    """One line for the reader."""
    print(text, flush=True)


def main() -> int:
    """Plays the demo, or takes it away."""
    try:
        down = sys.argv[1:] == ["down"]
        if down and not running():
            say("no cluster is up, so there is nothing to remove from it; one that was stopped keeps what it had")
            return 0
        cluster = up(say)
        if down:
            Demo(cluster).remove()
            say("the demo is gone; `make cluster-down` ends the cluster")
            return 0
        if cluster.node is None:
            say("the demo needs pods: run it as root, or with docker and kind, or give a cluster by KUBECONFIG")
            say("that has a ready node, and load valetkey:dev and valetkey-demo:dev on its nodes")
            return 1
        images.load(cluster, say)
        Demo(cluster).run()
    except (DemoError, LocalClusterError) as error:
        say(f"the demo stops: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
