"""The kinds as typed values; `python -m valetkey.kinds` writes crds/ from them."""

from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.agentpolicy import AgentPolicy
from valetkey.kinds.taskgrant import TaskGrant

__all__ = ["AccessRequest", "AgentPolicy", "TaskGrant"]
