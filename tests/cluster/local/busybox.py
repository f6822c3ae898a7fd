"""The image that every pod's sandbox needs, which is also a small shell for tests: a static busybox."""

from __future__ import annotations

import shutil
from typing import Final

from tests.cluster.local import archive, node
from tests.cluster.local.packages import BUSYBOX
from tests.cluster.local.places import STATE, Say

NAMES: Final = ("docker.io/library/valetkey-pause:1", "docker.io/library/valetkey-busybox:1")
_APPLETS: Final = (
    *("awk", "cat", "date", "echo", "env", "false", "grep", "head", "id", "ls", "nc"),
    *("sed", "sh", "sleep", "stat", "tail", "touch", "true", "wget"),
)


def load(say: Say) -> None:
    """Makes it and gives it to the node, unless it has it."""
    if node.images().issuperset(NAMES):
        return
    say("making the pause image")
    made = STATE / "images"
    root, layer, out = made / "busybox", made / "busybox.layer.tar", made / "busybox.tar"
    shutil.rmtree(root, ignore_errors=True)
    (root / "bin").mkdir(parents=True)
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, root / "bin" / "busybox")
    for applet in _APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    archive.layer(root, layer)
    archive.write(out, NAMES, [layer], {"Cmd": ["/bin/sleep", "2147483647"], "Env": ["PATH=/bin"]})
    node.import_image(out)
