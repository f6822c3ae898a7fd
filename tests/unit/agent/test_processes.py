"""Processes die, are killed and are told to terminate; what they asked for ends, or the next one goes on with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import uuid

import pytest

import valetkey
from tests.unit.agent.agents import access, done, entries, process, soon
from tests.unit.agent.apiserver import Apiserver
from valetkey.agent import leftovers

HOLD = """
with opened() as grant:
    print(grant.name, flush=True)
    time.sleep(60)
"""
WAIT = """
with opened(timeout=60) as grant:
    pass
"""
HOLD_ASYNC = """
async def main():
    async with opened() as grant:
        print(grant.name, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
HOLD_BUSY = HOLD_ASYNC.replace("await asyncio.sleep(60)", "time.sleep(60)")


def killed(server: Apiserver, code: str = HOLD) -> str:
    """The request of a process that was killed while its access was open."""
    holder = process(server, code)
    assert holder.stdout is not None
    name = holder.stdout.readline().strip()
    holder.kill()
    done(holder)
    assert server.outcome(name) is None
    return name


@pytest.fixture(autouse=True)
def just_begun() -> None:
    """This process has not looked at what is left yet."""
    leftovers._looked_at.clear()


def test_who_asks_for_the_same_goes_on_with_what_a_killed_process_had(server: Apiserver) -> None:
    name = killed(server)
    with access(server) as grant:
        assert grant.name == name
        assert grant.token() == (grant.files / "token").read_text() == "granted-1"
    assert server.names == [name]
    assert server.outcome() == "Succeeded"
    assert entries() == []


def test_what_waits_for_people_is_gone_on_with_as_well(server: Apiserver) -> None:
    server.decides = server.ask_people
    waiting = process(server, WAIT)
    soon(lambda: server.requests and any(m == "WATCH" for m, _, _ in server.calls), "a request that waits")
    waiting.kill()
    done(waiting)
    server.grant(server.names[0])
    with access(server) as grant:
        assert server.names == [grant.name]


def test_a_heart_beats_on_where_it_stopped(server: Apiserver) -> None:
    def decides(name: str) -> None:
        server.change(name, lambda r: r.setdefault("status", {}).update(heartbeat={"within": "60s"}))
        server.change(name, lambda r: r["metadata"].update(annotations={"valetkey.dev/heartbeat": "7"}))
        server.grant(name)

    server.decides = decides
    killed(server)
    with access(server):
        beats = [{"metadata": {"annotations": {"valetkey.dev/heartbeat": "8"}}}]
        soon(lambda: server.made("PATCH") == beats, "the next beat, at once")


def test_who_asks_for_something_else_ends_what_a_killed_process_had(server: Apiserver) -> None:
    name = killed(server)
    with access(server, objective="something else") as grant:
        assert grant.name != name
    assert server.outcome(name) == "Cancelled"
    assert server.outcome(grant.name) == "Succeeded"
    assert entries() == []


def test_what_has_ended_meanwhile_is_asked_for_anew(server: Apiserver) -> None:
    name = killed(server)
    server.say(name, "Finished", "True", "TTLReached")
    with access(server) as grant:
        assert grant.name != name
    assert entries() == []


def test_another_request_of_the_same_name_is_neither_gone_on_with_nor_ended(server: Apiserver) -> None:
    name = killed(server)
    server.change(name, lambda request: request["metadata"].update(uid=str(uuid.uuid4())))
    with access(server) as grant:
        assert grant.name != name
    assert server.outcome(name) is None


def test_what_was_left_to_be_found_and_has_been_is_ended_like_any_other_if_its_process_dies(server: Apiserver) -> None:
    server.decides = server.ask_people
    with pytest.raises(valetkey.ApprovalPending) as caught:
        access(server, wait_for_approval=False).__enter__()
    server.grant(caught.value.request)
    assert killed(server) == caught.value.request
    server.decides = server.grant
    leftovers._looked_at.clear()
    with access(server, objective="something else"):
        pass
    assert server.outcome(caught.value.request) == "Cancelled"


def test_what_was_never_made_is_asked_for_anew(server: Apiserver) -> None:
    name = killed(server)
    server.delete(name)
    with access(server) as grant:
        assert grant.name != name


@pytest.mark.parametrize("key", [None, b"x" * 32, b"short"], ids=["gone", "another", "cut"])
def test_what_cannot_be_opened_any_more_is_ended_and_asked_for_anew(server: Apiserver, key: bytes | None) -> None:
    name = killed(server)
    (entry,) = entries()
    if key is None:
        (entry / "key").unlink()
    else:
        (entry / "key").write_bytes(key)
    with access(server) as grant:
        assert grant.name != name
        assert server.outcome(name) == "Cancelled"


def test_who_was_killed_before_the_answer_came_made_a_request_that_is_found(server: Apiserver) -> None:
    server.faults["POST"].append("lost")
    server.faults["POST"] += [503] * 50
    waiting = process(server, WAIT)
    soon(lambda: len(server.made("POST")) > 2, "a lost answer")
    waiting.kill()
    done(waiting)
    server.faults["POST"].clear()
    with access(server) as grant:
        assert server.names == [grant.name]


def test_a_process_that_is_killed_leaves_nothing_to_its_children(server: Apiserver) -> None:
    code = """
import warnings
warnings.simplefilter("ignore")
with opened() as grant:
    if os.fork() == 0:
        os.close(1), os.close(2)
        time.sleep(20)
        os._exit(0)
    print(grant.name, flush=True)
    time.sleep(60)
"""
    name = killed(server, code)
    with access(server) as grant:
        assert grant.name == name


@pytest.mark.parametrize("code", [HOLD, HOLD_ASYNC, HOLD_BUSY], ids=["with", "async with", "in a step of the loop"])
def test_a_process_that_is_told_to_terminate_ends_its_access_first(server: Apiserver, code: str) -> None:
    holder = process(server, code)
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.terminate()
    status, _, err = done(holder)
    assert status == 128 + signal.SIGTERM, err
    assert server.outcome() == "Cancelled"
    assert entries() == []


@pytest.mark.parametrize("code", [WAIT, "async def main():\n  async with opened(): pass\nasyncio.run(main())"])
def test_who_is_told_to_terminate_while_it_waits_takes_its_request_back(server: Apiserver, code: str) -> None:
    server.decides = server.nothing
    waiting = process(server, code)
    soon(lambda: any(m == "WATCH" for m, _, _ in server.calls), "a request that waits")
    waiting.terminate()
    status, _, err = done(waiting)
    assert status == 128 + signal.SIGTERM, err
    assert server.outcome() == "Cancelled"
    assert entries() == []


LEAVE = """
with opened():
    pass
print("went on", flush=True)
time.sleep(30)
"""
LEAVE_ASYNC = """
async def main():
    async with opened():
        pass
    print("went on", flush=True)
    await asyncio.sleep(30)
asyncio.run(main())
"""


@pytest.mark.parametrize("code", [LEAVE, LEAVE_ASYNC], ids=["with", "async with"])
def test_sigterm_while_the_end_is_said_waits_until_it_is(server: Apiserver, code: str) -> None:
    server.faults["PATCH"] += [503] * 4
    leaver = process(server, code)
    soon(lambda: server.made("PATCH"), "the first try")
    leaver.terminate()
    status, out, err = done(leaver)
    assert (status, out) == (128 + signal.SIGTERM, ""), err
    assert server.outcome() == "Succeeded"


def test_who_handles_sigterm_itself_is_left_to_do_so(server: Apiserver) -> None:
    code = """
signal.signal(signal.SIGTERM, lambda *_: print("mine", flush=True))
with opened():
    os.kill(os.getpid(), signal.SIGTERM)
"""
    assert done(process(server, code))[:2] == (0, "mine\n")
    assert server.outcome() == "Succeeded"


def test_with_the_last_access_sigterm_is_what_it_was(server: Apiserver) -> None:
    code = """
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
with opened():
    with opened():
        pass
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(5)
"""
    status, _, err = done(process(server, code))
    assert status == -signal.SIGTERM, err


def test_ctrl_c_ends_the_access_and_is_an_interrupt_as_ever(server: Apiserver) -> None:
    holder = process(server, HOLD)
    assert holder.stdout is not None
    holder.stdout.readline()
    holder.send_signal(signal.SIGINT)
    _, _, err = done(holder)
    assert "KeyboardInterrupt" in err
    assert server.outcome() == "Cancelled"


def test_threads_have_accesses_of_their_own(server: Apiserver) -> None:
    names: list[str] = []

    def work() -> None:
        with access(server) as grant:
            names.append(grant.name)
            barrier.wait()

    barrier = threading.Barrier(3)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 3
    assert [server.outcome(name) for name in names] == ["Succeeded"] * 3


def _modules(code: str) -> set[str]:
    shown = f"import sys\n{code}\nprint(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True).stdout.split())


def test_importing_it_imports_nothing_until_something_is_used() -> None:
    assert _modules("import valetkey") - _modules("") <= {"valetkey", "__future__"}


def test_the_first_access_imports_no_more_than_it_needs() -> None:
    more = _modules("import valetkey; valetkey.access") - _modules("import aiohttp, cryptography")
    theirs = {name for name in more if not name.startswith(("valetkey", "cryptography", "_cffi"))}
    assert {name.partition(".")[0] for name in theirs} <= sys.stdlib_module_names | {"_openssl"}
    assert not {name for name in more if name.startswith("valetkey.") and not name.startswith("valetkey.agent")}


def test_what_it_does_not_have_it_says_it_does_not_have() -> None:
    with pytest.raises(AttributeError, match="no attribute 'acess'"):
        valetkey.acess  # type: ignore[attr-defined]  # noqa: B018


def test_a_child_that_leaves_the_block_says_nothing_of_the_task(server: Apiserver) -> None:
    code = """
import warnings
warnings.simplefilter("ignore")
with opened() as grant:
    if os.fork() == 0:
        signal.alarm(10)
        sys.exit(3)
    print(os.waitstatus_to_exitcode(os.wait()[1]), grant.token(), flush=True)
"""
    assert done(process(server, code))[:2] == (0, "3 granted-1\n")
    assert server.made("PATCH") == [{"spec": {"outcome": "Succeeded"}}]


def test_an_access_that_was_made_before_a_fork_is_ended_by_the_process_that_entered_it(server: Apiserver) -> None:
    forked = process(
        server,
        """
made = opened()
if os.fork() == 0:
    with made:
        pass
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
""",
    )
    assert done(forked)[0] == 0
    assert server.outcome() == "Succeeded"
    assert entries() == []
