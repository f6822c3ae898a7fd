"""Kubernetes access: one ServiceAccount per grant in a locked namespace, bound to exactly what was ordered."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from valetkey.errors import InvalidError, UnavailableError
from valetkey.issuers.kubeconfig import kubeconfig
from valetkey.kinds.access import Scope
from valetkey.kinds.base import REQUEST_LABEL
from valetkey.kinds.credential import Credential, Secret
from valetkey.kinds.taskgrant import KubernetesPlan, MadeObject, Order, Plan, PlannedObject
from valetkey.kube import paths
from valetkey.kube.client import Api, ApiError, Json
from valetkey.kube.concurrency import all_of
from valetkey.reasons import Reason

TOKEN_TTL: Final = timedelta(seconds=600)
"""The shortest that a TokenRequest may ask for (KEP-1205)."""


class KubernetesIssuer:
    """Makes a token of an account that has the ordered rights and no others."""

    def __init__(self, api: Api, *, namespace: str, server: str, certificate_authority: str) -> None:
        self._api = api
        self._namespace = namespace
        self._server = server
        self._ca = certificate_authority

    @property
    def name(self) -> str:
        """The member of the access union."""
        return "kubernetes"

    @property
    def overrun(self) -> timedelta:
        """60 s of leeway after `exp`, and the API server's token cache of 10 s."""
        return timedelta(seconds=70)

    def plan(self, order: Order) -> Plan:
        """Account, roles and bindings, all named by the request's uid."""
        assert order.access.kubernetes is not None
        # A guard tells by the account's name alone whether it may change pod templates.
        account = f"valetkey-{'t-' if order.pod_templates else ''}{order.request_uid}"
        objects: list[PlannedObject] = []
        for index, scope in enumerate(order.access.kubernetes.scopes):
            name, prefix = f"valetkey-{order.request_uid}-{index}", "" if scope.namespace else "Cluster"
            if scope.rules is not None:
                objects.append(_planned(f"{prefix}Role", scope.namespace, name))
            objects.append(_planned(f"{prefix}RoleBinding", scope.namespace, name))
        return Plan(
            kubernetes=KubernetesPlan(
                account=_planned("ServiceAccount", self._namespace, account), objects=tuple(objects)
            )
        )

    async def issue(self, order: Order, plan: Plan) -> Credential:
        """Makes account and rights side by side, then the token."""
        assert order.access.kubernetes is not None
        assert plan.kubernetes is not None
        if plan != self.plan(order):
            raise InvalidError(Reason.ORDER_INVALID, "the grant's plan does not follow from its order")
        account = plan.kubernetes.account
        (credential, *made) = await all_of(
            self._account_and_token(order, account),
            *(self._rights(order, account, index, scope) for index, scope in enumerate(order.access.kubernetes.scopes)),
        )
        assert isinstance(credential, Credential)
        objects = tuple(entry for group in made if isinstance(group, tuple) for entry in group)
        return Credential(
            id=credential.id,
            username=credential.username,
            issued_at=credential.issued_at,
            expires_at=credential.expires_at,
            files=credential.files,
            made=(*credential.made, *objects),
        )

    async def renew(self, order: Order, plan: Plan) -> Credential:
        """Another token of the same account."""
        assert plan.kubernetes is not None
        return await self._token(order, plan.kubernetes.account, made=())

    async def revoke(self, plan: Plan, made: Sequence[MadeObject]) -> str:
        """Deletes bindings, roles and account side by side, then reads that each is gone."""
        assert plan.kubernetes is not None
        uids = {(entry.kind, entry.namespace, entry.name): entry.uid for entry in made}
        objects = [*reversed(plan.kubernetes.objects), plan.kubernetes.account]
        label = plan.kubernetes.account.name.removeprefix("valetkey-").removeprefix("t-")
        try:
            await all_of(*(self._remove(entry, label, uids.get(_key(entry))) for entry in objects))
            await all_of(*(self._absent(entry, label) for entry in objects))
        except ApiError as error:
            raise _unavailable(error, Reason.REVOCATION_PENDING) from error
        return "Absent"

    async def check(self) -> None:
        """The namespace of accounts can be read."""
        try:
            await self._api.get(paths.item("Namespace", None, self._namespace))
        except ApiError as error:
            raise _unavailable(error, Reason.BACKEND_UNAVAILABLE) from error

    async def _account_and_token(self, order: Order, account: PlannedObject) -> Credential:
        body = self._body(order, account) | {"automountServiceAccountToken": False}
        try:
            found = await self._create_afresh(order, account, body)
        except ApiError as error:
            raise _issue_error(error, account) from error
        made = MadeObject(
            kind=account.kind, namespace=account.namespace, name=account.name, uid=found["metadata"]["uid"]
        )
        return await self._token(order, account, made=(made,))

    async def _create_afresh(self, order: Order, account: PlannedObject, body: Json) -> Json:
        path = paths.collection(account.kind, account.namespace)
        try:
            return await self._api.create(path, body)
        except ApiError as error:
            if not error.already_exists:
                raise
            # An earlier try may have got as far as the pod: its token dies with the account that it was of.
            await self._remove(account, order.request_uid, None)
            return await self._api.create(path, body)

    async def _rights(self, order: Order, account: PlannedObject, index: int, scope: Scope) -> tuple[MadeObject, ...]:
        name, prefix = f"valetkey-{order.request_uid}-{index}", "" if scope.namespace else "Cluster"
        made: list[MadeObject] = []
        if scope.rules is not None:
            role = _planned(f"{prefix}Role", scope.namespace, name)
            rules = [rule.to_api() for rule in scope.rules]
            made.append(
                await self._ensure(order, role, self._body(order, role) | {"rules": rules}, compared=("rules",))
            )
        binding = _planned(f"{prefix}RoleBinding", scope.namespace, name)
        body = self._body(order, binding) | {
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole" if scope.rules is None else f"{prefix}Role",
                "name": scope.cluster_role or name,
            },
            "subjects": [{"kind": "ServiceAccount", "name": account.name, "namespace": self._namespace}],
        }
        made.append(await self._ensure(order, binding, body, compared=("roleRef", "subjects")))
        return tuple(made)

    def _body(self, order: Order, entry: PlannedObject) -> Json:
        metadata: Json = {"name": entry.name, "labels": {REQUEST_LABEL: order.request_uid}}
        if entry.namespace:
            metadata["namespace"] = entry.namespace
        return {"apiVersion": paths.api_version(entry.kind), "kind": entry.kind, "metadata": metadata}

    async def _ensure(self, order: Order, entry: PlannedObject, body: Json, *, compared: Iterable[str]) -> MadeObject:
        """Creates an object, or takes over the one that an earlier try left; either way it is what was ordered."""
        try:
            found = await self._create_or_read(entry, body)
        except ApiError as error:
            raise _issue_error(error, entry) from error
        if found["metadata"].get("labels", {}).get(REQUEST_LABEL) != order.request_uid:
            raise InvalidError(Reason.ORDER_INVALID, f"{_where(entry)} exists and is not this grant's")
        if any(found.get(field) != body[field] for field in compared):
            raise InvalidError(Reason.ISSUED_BEYOND_ORDER, f"{_where(entry)} is not what was ordered")
        return MadeObject(kind=entry.kind, namespace=entry.namespace, name=entry.name, uid=found["metadata"]["uid"])

    async def _create_or_read(self, entry: PlannedObject, body: Json) -> Json:
        try:
            return await self._api.create(paths.collection(entry.kind, entry.namespace), body)
        except ApiError as error:
            if not error.already_exists:
                raise
            return await self._api.get(paths.item(entry.kind, entry.namespace, entry.name))

    async def _token(self, order: Order, account: PlannedObject, *, made: tuple[MadeObject, ...]) -> Credential:
        path = f"{paths.item('ServiceAccount', self._namespace, account.name)}/token"
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": int(TOKEN_TTL.total_seconds())},
        }
        try:
            answer = await self._api.create(path, body)
        except ApiError as error:
            raise _issue_error(error, account) from error
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
            made=made,
        )

    async def _remove(self, entry: PlannedObject, label: str, uid: str | None) -> None:
        path = paths.item(entry.kind, entry.namespace, entry.name)
        uid = uid or await self._uid_of_ours(path, label)
        if uid is None:
            return
        try:
            await self._api.delete(path, uid=uid)
        except ApiError as error:
            # Another uid under that name: the proof looks at what it is.
            if not error.conflict:
                raise

    async def _absent(self, entry: PlannedObject, label: str) -> None:
        path = paths.item(entry.kind, entry.namespace, entry.name)
        left = await self._uid_of_ours(path, label)
        if left is None:
            return
        await self._api.delete(path, uid=left)
        # Somebody's finalizer keeps it alive, and with it the rights: they end with the grant all the same.
        await self._api.patch(path, {"metadata": {"uid": left, "finalizers": None}})
        raise UnavailableError(Reason.REVOCATION_PENDING, f"{_where(entry)} is still there after its deletion")

    async def _uid_of_ours(self, path: str, label: str) -> str | None:
        try:
            found = await self._api.get(path)
        except ApiError as error:
            if error.not_found:
                return None
            raise
        metadata = found["metadata"]
        return metadata["uid"] if metadata.get("labels", {}).get(REQUEST_LABEL) == label else None


def _planned(kind: str, namespace: str | None, name: str) -> PlannedObject:
    return PlannedObject.model_validate({"kind": kind, "namespace": namespace, "name": name})


def _key(entry: PlannedObject) -> tuple[str, str | None, str]:
    return entry.kind, entry.namespace, entry.name


def _scopes(order: Order) -> tuple[Scope, ...]:
    assert order.access.kubernetes is not None
    return order.access.kubernetes.scopes


def _where(entry: PlannedObject) -> str:
    return f"{entry.kind} {entry.namespace}/{entry.name}" if entry.namespace else f"{entry.kind} {entry.name}"


def _claims(token: str) -> dict[str, Any]:
    payload = token.split(".")[1]
    claims: dict[str, Any] = orjson.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return claims


def _issue_error(error: ApiError, entry: PlannedObject) -> InvalidError | UnavailableError:
    if error.not_found and entry.namespace:
        return InvalidError(Reason.ORDER_INVALID, f"namespace {entry.namespace} does not exist; ask for one that does")
    if error.status == 403 and "terminated" in error.message:
        return InvalidError(Reason.ORDER_INVALID, f"namespace {entry.namespace} is being deleted")
    if error.refused:
        # The API server's own words name the rights that the operator may not hand out; they hold no secret.
        return InvalidError(Reason.ORDER_INVALID, f"{_where(entry)} was refused: {error.message[:1000]}")
    return _unavailable(error, Reason.BACKEND_UNAVAILABLE)


def _unavailable(error: ApiError, reason: Reason) -> UnavailableError:
    return UnavailableError(reason, f"the API server answered {error.status} {error.reason}", after=error.retry_after)
