"""`valetkey run` gives a program access for as long as it runs, and is otherwise not noticed."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys

import pytest

from tests.unit.agent.agents import command, done, entries, soon
from tests.unit.agent.apiserver import Apiserver
from valetkey.agent.run import _tell_again

SLEEP = "import sys, time; print('begun', flush=True); time.sleep(60)"


def run(server: Apiserver, *arguments: str) -> subprocess.Popen[str]:
    return command(server, "run", *arguments)


def python(server: Apiserver, code: str, *arguments: str) -> subprocess.Popen[str]:
    return run(server, *arguments, "--", sys.executable, "-c", code)


def begun(process: subprocess.Popen[str]) -> subprocess.Popen[str]:
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def test_the_command_has_access_while_it_runs(server: Apiserver) -> None:
    code = "import os, pathlib; print(pathlib.Path(os.environ['KUBECONFIG']).with_name('token').read_text())"
    status, out, err = done(
        python(server, code, "--param", "deployment=checkout", "--param", "count:=3", "--ttl", "5m")
    )
    assert (status, out) == (0, "granted-1\n"), err
    spec = server.only()["spec"]
    assert spec["outcome"] == "Succeeded"
    assert spec["task"]["parameters"] == {"deployment": "checkout", "count": 3}
    assert spec["ttl"] == "5m"
    assert spec["task"]["objective"].startswith("run python")
    assert "pathlib" not in json.dumps(spec)
    assert entries() == []


@pytest.mark.parametrize(
    ("code", "status", "outcome"),
    [
        ("raise SystemExit(3)", 3, "Failed"),
        ("import os; os.kill(os.getpid(), 9)", 137, "Failed"),
        ("import os; os.kill(os.getpid(), 15)", 143, "Failed"),
    ],
)
def test_how_the_command_ends_is_passed_on(server: Apiserver, code: str, status: int, outcome: str) -> None:
    assert done(python(server, code))[0] == status
    assert server.outcome() == outcome


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_reaches_the_command_and_the_task_is_cancelled(server: Apiserver, number: signal.Signals) -> None:
    process = begun(python(server, f"import signal; signal.signal({number}, signal.SIG_DFL); {SLEEP}"))
    process.send_signal(number)
    status, _, err = done(process)
    assert status == 128 + number, err
    assert server.outcome() == "Cancelled"


def test_a_command_that_takes_a_signal_well_has_succeeded(server: Apiserver) -> None:
    process = begun(python(server, f"import signal; signal.signal(15, lambda *_: sys.exit(0)); {SLEEP}"))
    process.terminate()
    assert done(process)[0] == 0
    assert server.outcome() == "Succeeded"


def test_a_signal_while_it_waits_takes_the_request_back_and_runs_nothing(server: Apiserver) -> None:
    server.decides = server.nothing
    process = python(server, SLEEP)
    soon(lambda: any(m == "WATCH" for m, _, _ in server.calls), "a request that waits")
    process.terminate()
    status, out, err = done(process)
    assert (status, out) == (143, ""), err
    assert server.outcome() == "Cancelled"


def test_a_denial_is_told_and_nothing_runs(server: Apiserver) -> None:
    server.decides = lambda name: server.deny(name, allowed="shop: get pods")
    status, out, err = done(python(server, SLEEP))
    assert (status, out) == (77, "")
    assert "Allowed there: shop: get pods." in err


def test_what_is_not_granted_in_time_may_be_tried_later(server: Apiserver) -> None:
    server.decides = server.nothing
    status, _, err = done(python(server, SLEEP, "--timeout", "500ms"))
    assert status == 75
    assert "not granted within 0.5 s" in err
    server.away()
    status, _, err = done(python(server, SLEEP, "--timeout", "500ms"))
    assert status == 75
    assert "no answer within 0.5 s" in err


@pytest.mark.parametrize("reason", ["RequestExpired", "IssueFailed"])
def test_what_nobody_refused_may_be_tried_later(server: Apiserver, reason: str) -> None:
    server.decides = lambda name: server.say(name, "Finished", "True", reason)
    status, _, err = done(python(server, SLEEP))
    assert status == 75
    assert f"not granted: {reason}" in err


@pytest.mark.parametrize("name", ["run", "sidecar"])
def test_the_help_says_what_each_exit_code_means(name: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "valetkey", name, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert [code for code in ("2", "70", "75", "77") if f" {code}" not in shown] == []


@pytest.mark.parametrize(
    "wrong",
    [
        (),
        ("--",),
        ("--access", "shop: get deployments", "--", "true"),
        ("--param", "x", "--", "true"),
        ("--param", "x:=y", "--", "true"),
        ("--ttl", "5", "--", "true"),
        ("--timeout", "5", "--", "true"),
        ("--time", "5s", "--", "true"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_bad_usage(server: Apiserver, wrong: tuple[str, ...]) -> None:
    status, _, err = done(run(server, *wrong))
    assert status == 2
    assert "Traceback" not in err
    assert server.calls == []


def test_a_command_that_cannot_be_run_asks_for_nothing(server: Apiserver) -> None:
    assert done(run(server, "--", "no-such-command"))[0] == 127
    assert done(run(server, "--", "/etc/passwd"))[0] == 126
    assert server.calls == []


def test_access_may_be_given_as_json(server: Apiserver) -> None:
    access = {"kubernetes": {"scopes": [{"namespace": "web", "clusterRole": "log-reader"}]}}
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "valetkey", "run", "--purpose", "p", "--access", json.dumps(access)),
            *("--account-directory", str(server.account), "--", "true"),
        ]
    )
    assert process.wait(30) == 0
    assert server.only()["spec"]["access"] == access


def test_people_who_are_asked_are_named_while_it_waits(server: Apiserver) -> None:
    server.decides = server.ask_people
    process = python(server, "pass", "--timeout", "500ms")
    assert process.stderr is not None
    lines = [process.stderr.readline(), process.stderr.readline()]
    assert lines[0].startswith("valetkey: asking for shop: get,patch deployments.apps/checkout")
    assert lines[1] == "valetkey: people are asked: restart asks 1 of shop-leads until 14:32\n"
    server.grant(server.names[0])
    assert done(process)[0] == 0


async def test_who_waits_for_people_is_told_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("valetkey.agent.run._TELL_EVERY", 0.01)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_tell_again("people have not spoken yet"), 0.1)
    assert capsys.readouterr().err.count("valetkey: people have not spoken yet\n") >= 2


def test_an_access_that_ends_meanwhile_is_told_and_the_command_goes_on(server: Apiserver) -> None:
    code = "print('begun', flush=True); import sys; sys.stdin.readline(); time.sleep(1); print('done')"
    process = begun(python(server, f"import time; {code}"))
    server.say(server.names[0], "Finished", "True", "TTLReached", "5m are over")
    status, out, err = done(process)
    assert (status, out) == (0, "done\n")
    assert "TTLReached: 5m are over; the command goes on without it" in err
    assert server.made("PATCH") == []


def test_it_needs_nothing_that_the_base_install_does_not_have() -> None:
    code = "import sys; sys.argv = ['valetkey', 'run', '--help']; from valetkey.__main__ import main; import atexit; "
    code += "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); main()"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr.split()
    assert "valetkey.agent.run" in loaded
    assert not {"pydantic", "typer", "kopf", "orjson", "rich", "yaml"} & set(loaded)
