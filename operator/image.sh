#!/bin/sh
# Writes what an image adds to a Debian root with Python 3.11: image.sh ROOT IMAGE WHEEL
#   IMAGE   valetkey (the operator) or valetkey-demo (the demo's agent)
#   PYTHON  the Python whose pip is used;  KUBECTL  the kubectl that valetkey-demo carries
set -eu
root=$1 image=$2 wheel=$3
here=$(cd "$(dirname "$0")/.." && pwd)
case $image in
  valetkey) lock=operator ;;
  valetkey-demo) lock=base ;;
  *) echo "image.sh: no image is called $image" >&2; exit 2 ;;
esac
mkdir -p "$root/opt/valetkey" "$root/usr/local/bin" "$root/etc"
set -- "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-compile --target "$root/opt/valetkey"
"$@" --require-hashes --python-version 3.11 --only-binary=:all: -r "$here/requirements/$lock.txt"
"$@" --no-deps --upgrade "$wheel"
printf '#!/bin/sh\nexec env PYTHONPATH=/opt/valetkey python3 -m valetkey "$@"\n' > "$root/usr/local/bin/valetkey"
chmod 755 "$root/usr/local/bin/valetkey"
# kopf asks for the user's name, so the user has one.
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\nvaletkey:x:65532:65532:valetkey:/nonexistent:/usr/sbin/nologin\n' > "$root/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\nvaletkey:x:65532:\n' > "$root/etc/group"
if [ "$image" = valetkey-demo ]; then
  cp "${KUBECTL:?kubectl to put into the image}" "$root/usr/local/bin/kubectl"
  chmod 755 "$root/usr/local/bin/kubectl"
fi
