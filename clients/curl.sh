#!/bin/sh
# One task with curl and openssl: asks, waits, says how it ended. Run it in the agent's pod: curl.sh KEYFILE
# PURPOSE, ACCESS  what for, and spec.access as JSON;  PARAMETERS  of the purpose, as JSON;  WITHIN  seconds to wait (300)
# ACCOUNT  the ServiceAccount's mount;  SERVER  the API server
set -eu
account=${ACCOUNT:-/var/run/secrets/kubernetes.io/serviceaccount}
server=${SERVER:-https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT}
requests=$server/apis/valetkey.dev/v1alpha1/namespaces/$(cat "$account/namespace")/accessrequests
umask 077
key=$1
# The token is read anew each time, for it is rotated, and from a file: arguments are seen by others.
call() {
  printf 'Authorization: Bearer %s' "$(cat "$account/token")" > "$key.header"
  curl -sS --fail-with-body --max-time 20 --cacert "$account/ca.crt" -H @"$key.header" "$@"
}

openssl genpkey -algorithm X25519 -outform DER | tail -c 32 | base64 > "$key"
public=$({ printf '\060\056\002\001\000\060\005\006\003\053\145\156\004\042\004\040'; base64 -d "$key"; } |
  openssl pkey -inform DER -pubout -outform DER | tail -c 32 | base64)

# On Kubernetes 1.36 and newer admission fills in who asks.
name=$(call "$requests" -H 'Content-Type: application/json' --data-binary @- << END | sed -n 's/^ *"name": "\(curl-[a-z0-9]*\)",*$/\1/p' | head -1
{"apiVersion": "valetkey.dev/v1alpha1", "kind": "AccessRequest", "metadata": {"generateName": "curl-"},
 "spec": {"task": {"id": "curl", "objective": "${OBJECTIVE:-A task of a shell script}", "purpose": "$PURPOSE", "parameters": ${PARAMETERS:-{\}}},
  "access": $ACCESS, "delivery": {"sealed": {"publicKey": "$public"}}}}
END
)
there() { grep -q "$1" "$2"; }
end=$(($(date +%s) + ${WITHIN:-300}))
until call "$requests/$name" > "$key.json" && { there '"ciphertext"' "$key.json" || { there '"Finished"' "$key.json" && ! there '"TaskInProgress"' "$key.json"; }; }; do
  [ "$(date +%s)" -lt "$end" ] || { echo "$name: not decided in time" >&2; exit 75; }
  sleep 1
done
there '"ciphertext"' "$key.json" || { sed -n '/"type": "Finished"/!s/^ *"message": "\(.*\)".*/\1/p' "$key.json" | tail -1 >&2; exit 1; }
echo "$key.json has the answer, sealed to $key; then say Succeeded, Failed or Cancelled"
read -r outcome
call -X PATCH "$requests/$name" -H 'Content-Type: application/merge-patch+json' -d "{\"spec\": {\"outcome\": \"$outcome\"}}" > /dev/null
