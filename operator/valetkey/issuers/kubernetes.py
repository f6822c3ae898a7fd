"""Kubernetes access: one ServiceAccount per grant in a locked namespace, bound to exactly what was ordered."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, filterfalse
from typing import Any, Final

import orjson

from valetkey.errors import InvalidError, NotReadyError
from valetkey.issuers.base import Found, Proof
from valetkey.issuers.kubeconfig import kubeconfig
from valetkey.issuers.objects import Objects, refusal
from valetkey.issuers.timer import timer
from valetkey.kinds.access import Scope
from valetkey.kinds.credential import Credential, Secret
from valetkey.kinds.taskgrant import KubernetesPlan, MadeObject, Order, Plan, PlannedObject
from valetkey.kube import paths
from valetkey.kube.api import Api, ApiError, Json, unavailable
from valetkey.kube.concurrency import all_of, both
from valetkey.reasons import Reason

TOKEN_TTL: Final = timedelta(seconds=600)
"""The shortest that a TokenRequest may ask for (KEP-1205)."""


class KubernetesIssuer:
    """Makes a token of an account that has the ordered rights and no others."""

    def __init__(
        self,
        api: Api,
        *,
        namespace: str,
        targets: Iterable[str],
        server: str,
        certificate_authority: str,
        clock: Callable[[], datetime],
        audience: str | None = None,
    ) -> None:
        """`namespace` holds the accounts; `targets` are the namespaces in which rights may be handed out."""
        self._audiences = [audience] if audience else None
        self._api = api
        self._objects = Objects(api)
        self._targets = frozenset(targets)
        self._namespace = namespace
        self._server = server
        self._ca = certificate_authority
        self._clock = clock

    @property
    def name(self) -> str:
        """The member of the access union."""
        return "kubernetes"

    @property
    def overrun(self) -> timedelta:
        """60 s of leeway after `exp`, and the API server's token cache of 10 s."""
        return timedelta(seconds=70)

    def plan(self, order: Order) -> Plan:
        """Account, roles, bindings and timer, all named by the request's uid.

        Raises InvalidError for a namespace in which the operator may make nothing, and so could not unmake it.
        """
        assert order.access.kubernetes is not None
        for scope in order.access.kubernetes.scopes:
            if scope.namespace is not None and scope.namespace not in self._targets:
                raise InvalidError(
                    Reason.ORDER_INVALID,
                    f"nothing may be handed out in namespace {scope.namespace}: "
                    "it is not among the chart's grantable.namespaces",
                )
        # A guard tells by the account's name alone whether it may change pod templates.
        account = f"valetkey-{'t-' if order.pod_templates else ''}{order.request_uid}"
        objects: list[PlannedObject] = []
        for index, scope in enumerate(order.access.kubernetes.scopes):
            role, binding = _role_and_binding(order, index, scope)
            objects += [binding] if scope.rules is None else [role, binding]
        return Plan(
            kubernetes=KubernetesPlan(
                account=_planned("ServiceAccount", self._namespace, account),
                objects=tuple(objects),
                timer=_planned("Job", self._namespace, f"valetkey-{order.request_uid}") if order.backstop else None,
            )
        )

    async def issue(self, order: Order, plan: Plan) -> Credential:
        """Makes account and rights side by side, then the token."""
        assert order.access.kubernetes is not None
        assert plan.kubernetes is not None
        if plan != self.plan(order):
            raise InvalidError(Reason.ORDER_INVALID, "the grant's plan does not follow from its order")
        account = plan.kubernetes.account
        scopes = enumerate(order.access.kubernetes.scopes)
        (credential,), rights = await both(
            all_of(self._account_and_token(order, plan.kubernetes)),
            all_of(*(self._rights(order, account, index, scope) for index, scope in scopes)),
        )
        return replace(credential, made=(*credential.made, *chain.from_iterable(rights)))

    async def renew(self, order: Order, plan: Plan) -> Credential:
        """Another token of the same account; an account that somebody deleted is made again, with its rights."""
        assert plan.kubernetes is not None
        try:
            return await self._token(order, plan.kubernetes.account, made=())
        except NotReadyError:
            return await self.issue(order, plan)

    async def disable(self, plan: Plan, made: Sequence[MadeObject]) -> None:
        """Deletes the bindings."""
        assert plan.kubernetes is not None
        uids, owner = _uids(made), _owner(plan.kubernetes)
        bindings = filter(_binds, plan.kubernetes.objects)
        await all_of(*(self._objects.remove(owner, entry, uids.get(_key(entry))) for entry in bindings))

    async def revoke(self, plan: Plan, made: Sequence[MadeObject]) -> Proof:
        """Deletes roles, account and timer side by side, then reads that they and the bindings are gone."""
        assert plan.kubernetes is not None
        uids, owner = _uids(made), _owner(plan.kubernetes)
        objects = [*plan.kubernetes.objects, plan.kubernetes.account]
        objects += [plan.kubernetes.timer] if plan.kubernetes.timer is not None else []
        unbound = filterfalse(_binds, objects)
        await all_of(*(self._objects.remove(owner, entry, uids.get(_key(entry))) for entry in unbound))
        await all_of(*(self._objects.prove_absent(owner, entry, uids.get(_key(entry))) for entry in objects))
        return "Absent"

    async def found(self) -> AsyncIterator[Found]:
        """Bindings, roles, accounts and timers that carry a request's uid in name and label; bindings first."""
        try:
            for kind in ("RoleBinding", "ClusterRoleBinding", "Role", "ClusterRole"):
                async for owner, made in self._objects.owned(kind):
                    # Elsewhere nothing is ever written, so nothing there is ours.
                    if made.namespace is None or made.namespace in self._targets:
                        yield Found(owner, made)
            for kind in ("ServiceAccount", "Job"):
                async for owner, made in self._objects.owned(kind, self._namespace):
                    yield Found(owner, made)
        except ApiError as error:
            raise unavailable(error, Reason.BACKEND_UNAVAILABLE) from error

    async def unmake(self, found: Found) -> Proof:
        """Deletes one object by its uid, then reads that it is gone."""
        owner, made = found
        entry = _planned(made.kind, made.namespace, made.name)
        await self._objects.remove(owner, entry, made.uid)
        await self._objects.prove_absent(owner, entry, made.uid, alone=True)
        return "Absent"

    async def _account_and_token(self, order: Order, plan: KubernetesPlan) -> Credential:
        owner, timed = order.request_uid, None
        if plan.timer is not None:
            # The account is never without it. One that an earlier try left runs on: no try prolongs what is left.
            content = timer(order.not_after - self._clock())
            timed = await self._objects.ensure(owner, plan.timer, content, compared=())
        # Afresh: an earlier try may have got as far as the pod, and its token dies with the account that it was of.
        content = {"automountServiceAccountToken": False}
        account = await self._objects.create_afresh(owner, plan.account, content, goes_with=timed)
        return await self._token(order, plan.account, made=(account, timed) if timed is not None else (account,))

    async def _rights(self, order: Order, account: PlannedObject, index: int, scope: Scope) -> tuple[MadeObject, ...]:
        owner, made = order.request_uid, list[MadeObject]()
        role, binding = _role_and_binding(order, index, scope)
        if scope.rules is not None:
            rules = [rule.to_api() for rule in scope.rules]
            made.append(await self._objects.ensure(owner, role, {"rules": rules}, compared=("rules",)))
        content: Json = {
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": role.kind if scope.rules is not None else "ClusterRole",
                "name": scope.cluster_role or role.name,
            },
            "subjects": [{"kind": "ServiceAccount", "name": account.name, "namespace": self._namespace}],
        }
        made.append(await self._objects.ensure(owner, binding, content, compared=("roleRef", "subjects")))
        return tuple(made)

    async def _token(self, order: Order, account: PlannedObject, *, made: tuple[MadeObject, ...]) -> Credential:
        path = f"{paths.item('ServiceAccount', self._namespace, account.name)}/token"
        spec: Json = {"expirationSeconds": int(TOKEN_TTL.total_seconds())}
        if self._audiences:
            spec["audiences"] = self._audiences
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        try:
            answer = await self._api.create(path, body)
        except ApiError as error:
            if error.not_found:
                message = "the account of this grant is gone; it is made again"
                raise NotReadyError(Reason.ISSUE_PENDING, message, after=timedelta(seconds=1)) from error
            raise refusal(error, account) from error
        token = answer["status"]["token"]
        claims = _claims(token)
        namespace = next((s.namespace for s in _scopes(order) if s.namespace), "default")
        return Credential(
            id=f"JTI={claims['jti']}",
            username=str(claims["sub"]),
            issued_at=datetime.fromtimestamp(claims["iat"], UTC),
            expires_at=datetime.fromtimestamp(claims["exp"], UTC),
            files={
                "token": Secret(token),
                "ca.crt": Secret(self._ca),
                "namespace": Secret(namespace),
                "kubeconfig": Secret(kubeconfig(self._server, namespace)),
            },
            known_to_reader=frozenset({"ca.crt", "kubeconfig"}),
            made=made,
        )


def _planned(kind: str, namespace: str | None, name: str) -> PlannedObject:
    return PlannedObject.model_validate({"kind": kind, "namespace": namespace, "name": name})


def _role_and_binding(order: Order, index: int, scope: Scope) -> tuple[PlannedObject, PlannedObject]:
    name, prefix = f"valetkey-{order.request_uid}-{index}", "" if scope.namespace else "Cluster"
    return (
        _planned(f"{prefix}Role", scope.namespace, name),
        _planned(f"{prefix}RoleBinding", scope.namespace, name),
    )


def _binds(entry: PlannedObject) -> bool:
    return entry.kind in ("RoleBinding", "ClusterRoleBinding")


def _uids(made: Sequence[MadeObject]) -> dict[tuple[str, str | None, str], str]:
    return {(entry.kind, entry.namespace, entry.name): entry.uid for entry in made}


def _owner(plan: KubernetesPlan) -> str:
    return plan.account.name.removeprefix("valetkey-").removeprefix("t-")


def _key(entry: PlannedObject) -> tuple[str, str | None, str]:
    return entry.kind, entry.namespace, entry.name


def _scopes(order: Order) -> tuple[Scope, ...]:
    assert order.access.kubernetes is not None
    return order.access.kubernetes.scopes


def _claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims
