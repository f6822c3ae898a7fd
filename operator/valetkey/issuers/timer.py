"""The timer of a grant: a Job that runs nothing, and whose end takes along what it owns, whoever is there to see it."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Final

from valetkey.kube.api import Json

_MARGIN: Final = 2
"""Seconds: Kubernetes keeps a Job's start in whole ones, and so ends it up to one early."""


def timer(left: timedelta) -> Json:
    """A Job that fails when this time is over, and is then deleted (KEP-592), all by kube-controller-manager."""
    return {
        "spec": {
            "parallelism": 0,
            "activeDeadlineSeconds": max(0, math.ceil(left.total_seconds())) + _MARGIN,
            "ttlSecondsAfterFinished": 0,
            # Demanded, and never made: there is no pod of it, nor may one be in the namespace of grants.
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "none", "image": "none"}]}},
        }
    }
