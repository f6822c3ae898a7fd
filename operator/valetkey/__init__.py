"""Just-in-time access for AI agents and other workloads on Kubernetes.

The path of one request, each step in the module that is named:

    controller.handlers   kopf's events become keys in a queue
    controller.worker     takes a key, asks for the next step and carries it out: beginnings, endings, refusals
    controller.grant      next_step: what this key needs now (pure)
    identity              who is asking?
    policy.decide         may it? (pure)
    issuers               make the credential, unmake it
    delivery              put it where the pod can read it, take it away
    audit.record          say so, before and after
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from valetkey.agent.access import Access as Access
    from valetkey.agent.access import access as access
    from valetkey.agent.errors import AccessError as AccessError
    from valetkey.agent.errors import ApprovalPending as ApprovalPending
    from valetkey.agent.errors import Denied as Denied
    from valetkey.agent.errors import Ended as Ended
    from valetkey.agent.errors import InvalidAccess as InvalidAccess
    from valetkey.agent.errors import NotGranted as NotGranted
    from valetkey.agent.errors import NotInAPod as NotInAPod
    from valetkey.agent.errors import NotOpened as NotOpened
    from valetkey.agent.errors import Refused as Refused
    from valetkey.agent.errors import TimedOut as TimedOut
    from valetkey.agent.errors import Unreachable as Unreachable
    from valetkey.agent.grant import Grant as Grant
    from valetkey.agent.tool import tool as tool

_ERRORS = "AccessError ApprovalPending Denied Ended InvalidAccess NotGranted NotInAPod NotOpened Refused TimedOut"
_MODULES = {"access": "access", "Access": "access", "Grant": "grant", "tool": "tool", "Unreachable": "errors"}
_MODULES |= dict.fromkeys(_ERRORS.split(), "errors")

if not TYPE_CHECKING:  # so that a misspelt name is seen

    def __getattr__(name: str) -> object:
        """What an agent uses, imported when it is first asked for: everybody else has no need of it."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        return getattr(importlib.import_module(f"valetkey.agent.{_MODULES[name]}"), name)
