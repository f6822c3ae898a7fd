#!/bin/sh
# Writes what an image adds to a Debian root with Python 3.11, in two steps:
#   image.sh ROOT IMAGE         what changes rarely: locked requirements, the user, kubectl
#   image.sh ROOT IMAGE WHEEL   what changes often: the project
#   IMAGE   valetkey (the operator) or valetkey-demo (the demo's agent)
#   PYTHON  the Python whose pip is used;  KUBECTL  the kubectl that valetkey-demo carries
set -eu
root=$1 image=$2 wheel=${3:-}
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
case $image in
  valetkey) lock=operator ;;
  valetkey-demo) lock=base ;;
  *) echo "image.sh: no image is called $image" >&2; exit 2 ;;
esac
# pip reads the lock's markers for the Python that it runs on, so that must be the image's.
if [ "$("$python" -c 'import sys; print(*sys.version_info[:2], sep=".")')" != 3.11 ]; then
  echo "image.sh: $python is not Python 3.11, which the image has" >&2
  exit 2
fi
install() {
  "$python" -m pip install --quiet --disable-pip-version-check --no-compile --target "$root/opt/valetkey" "$@"
}
mkdir -p "$root/opt/valetkey" "$root/usr/local/bin" "$root/etc"
if [ -n "$wheel" ]; then
  install --no-deps "$wheel"
  printf '#!/bin/sh\nexec env PYTHONPATH=/opt/valetkey python3 -m valetkey "$@"\n' > "$root/usr/local/bin/valetkey"
  chmod 755 "$root/usr/local/bin/valetkey"
  exit 0
fi
install --require-hashes --only-binary=:all: -r "$here/requirements/$lock.txt"
# kopf asks for the user's name, so the user has one.
cat > "$root/etc/passwd" << 'END'
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
valetkey:x:65532:65532:valetkey:/nonexistent:/usr/sbin/nologin
END
cat > "$root/etc/group" << 'END'
root:x:0:
nogroup:x:65534:
valetkey:x:65532:
END
if [ "$image" = valetkey-demo ]; then
  cp "${KUBECTL:?the kubectl to put into the image}" "$root/usr/local/bin/kubectl"
  chmod 755 "$root/usr/local/bin/kubectl"
fi
