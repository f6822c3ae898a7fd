"""Delivery by a Secret that the pod mounts as an optional volume, refreshed within a second by a touch of the pod."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from typing import Final

from valetkey.errors import InvalidError
from valetkey.kinds.accessrequest import AccessRequest
from valetkey.kinds.base import API_VERSION, GRANT_ANNOTATION, REQUEST_LABEL, SECRET_PREFIX, SECRET_TYPE
from valetkey.kinds.credential import Credential
from valetkey.kinds.delivery import PlacedSecret
from valetkey.kinds.taskgrant import MadeObject, TaskGrant
from valetkey.kube import paths
from valetkey.kube.api import Api, ApiError, Json, namespace_goes, unavailable
from valetkey.kube.pods import DEFAULT_VOLUME, Pod
from valetkey.reasons import Reason

_NAME: Final = re.compile(rf"{SECRET_PREFIX}[a-z0-9]([-a-z0-9]{{0,200}}[a-z0-9])?")
"""A pod may name a Secret that no API server would accept."""


def plan(request: AccessRequest, pod: Pod, sharers: Sequence[str]) -> PlacedSecret:
    """The Secret that the credential will be placed in.

    `sharers`: other pods that mount it. Raises InvalidError where that pod alone would not read it.
    """
    asked = request.spec.delivery.secret
    name = asked.name if asked and asked.name else pod.default_secret
    if name is None:
        raise InvalidError(
            Reason.VOLUME_MISSING,
            f"give pod {pod.name} a volume `{DEFAULT_VOLUME}` with an optional Secret, "
            "or name the Secret of another volume in spec.delivery.secret.name",
        )
    if not _NAME.fullmatch(name):
        raise InvalidError(
            Reason.DELIVERY_CONFLICT,
            f"Secret {name[:253]}: name it {SECRET_PREFIX} and letters, digits or `-`, so that guards cover it",
        )
    if name not in pod.secrets:
        raise InvalidError(Reason.VOLUME_MISSING, f"pod {pod.name} does not mount Secret {name}")
    if sharers:
        raise InvalidError(
            Reason.DELIVERY_SHARED,
            f"Secret {name} is mounted by pod {sharers[0]} too; a credential goes to one pod: give each its own Secret",
        )
    return PlacedSecret(name=name)


class SecretDelivery:
    """Writes, replaces and deletes the Secret of one grant; it never touches a Secret that is not the request's own."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def place(self, grant: TaskGrant, credential: Credential) -> MadeObject:
        """Writes the Secret; the pod is then told by `touch`.

        Raises InvalidError where the name is taken, UnavailableError where the API server fails.
        """
        files = {name: base64.b64encode(value.reveal().encode()).decode() for name, value in credential.files.items()}
        body = self._body(grant, files)
        try:
            try:
                answer = await self._api.create(paths.collection("Secret", grant.metadata.namespace), body)
            except ApiError as error:
                if not error.already_exists:
                    raise
                # Unconditional on purpose: the operator may not read Secrets. The leash refuses it unless what is
                # there is this request's own.
                answer = await self._api.replace(self._path(grant), body)
        except ApiError as error:
            if _of_others(error):
                raise InvalidError(
                    Reason.DELIVERY_CONFLICT,
                    f"Secret {_name(grant)} exists and is not this request's; "
                    "delete it or name another in the pod's volume",
                ) from error
            raise unavailable(error, Reason.DELIVERY_PENDING) from error
        return _made(answer)

    async def remove(self, grant: TaskGrant) -> None:
        """Deletes the Secret of this grant, if it is there."""
        uid = next((made.uid for made in grant.status.made if made.kind == "Secret"), None)
        try:
            if uid is None or not await self._deleted(grant, uid):
                await self._remove_unrecorded(grant)
        except ApiError as error:
            if error.status == 403 and await namespace_goes(self._api, grant.metadata.namespace):
                return
            raise unavailable(error, Reason.REVOCATION_PENDING) from error

    async def touch(self, grant: TaskGrant, pod: Pod, value: str | None) -> None:
        """Changes an annotation of the pod, upon which its kubelet reads the Secret at once."""
        body: Json = {"metadata": {"uid": pod.uid, "annotations": {GRANT_ANNOTATION: value}}}
        try:
            await self._api.patch(paths.item("Pod", pod.namespace, pod.name), body)
        except ApiError as error:
            if error.not_found or error.conflict or (error.refused and not error.unauthorized):
                return
            raise unavailable(error, Reason.DELIVERY_PENDING) from error

    async def _deleted(self, grant: TaskGrant, uid: str) -> bool:
        """Deletes the Secret of that uid; false where another has its name."""
        try:
            await self._api.delete(self._path(grant), uid=uid)
        except ApiError as error:
            if not error.conflict:
                raise
            return False
        return True

    async def _remove_unrecorded(self, grant: TaskGrant) -> None:
        """Deletes a Secret whose uid no status holds: emptying it first finds out whose it is."""
        try:
            emptied = await self._api.replace(self._path(grant), self._body(grant, {}))
        except ApiError as error:
            if not (error.not_found or _of_others(error)):
                raise
        else:
            await self._api.delete(self._path(grant), uid=_made(emptied).uid)

    def _path(self, grant: TaskGrant) -> str:
        return paths.item("Secret", grant.metadata.namespace, _name(grant))

    def _body(self, grant: TaskGrant, files: dict[str, str]) -> Json:
        request = grant.spec.request
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": SECRET_TYPE,
            "metadata": {
                "name": _name(grant),
                "namespace": grant.metadata.namespace,
                "labels": {REQUEST_LABEL: request.uid},
                "ownerReferences": [
                    {"apiVersion": API_VERSION, "kind": "AccessRequest", "name": request.name, "uid": request.uid}
                ],
            },
            "data": files,
        }


def _name(grant: TaskGrant) -> str:
    assert grant.spec.delivery.secret is not None
    return grant.spec.delivery.secret.name


def _of_others(error: ApiError) -> bool:
    """Whether a Secret is not this request's: the leash refuses it, or its type is another, which never changes."""
    return error.denied_by_policy or error.status == 422


def _made(secret: Json) -> MadeObject:
    metadata = secret["metadata"]
    return MadeObject(kind="Secret", namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"])
