#!/bin/sh
# A launcher: it asks for a pod that has no API token, and waits until that pod has what it needs.
set -eu
uid=$(kubectl get pod worker -o jsonpath='{.metadata.uid}')
# Who asks is filled in at admission (Kubernetes 1.36; before, the client writes spec.requester and the owner).
request=$(kubectl create -o name -f - << END
apiVersion: valetkey.dev/v1alpha1
kind: AccessRequest
metadata: {generateName: launched-}
spec:
  task: {id: run-1, objective: Restart checkout, purpose: remediation, parameters: {deployment: checkout}}
  access:
    kubernetes:
      scopes: [{namespace: shop, rules: [{apiGroups: [apps], resources: [deployments], resourceNames: [checkout], verbs: [get, patch]}]}]
  subject: {podName: worker, podUID: $uid}
END
)
kubectl wait "$request" --for=condition=Ready --timeout=60s
