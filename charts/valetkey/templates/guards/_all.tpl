{{- /*
Every guard as a policy and its binding, in a YAML list: installed by guards.yaml, and handed to the operator, which compares
them with what is live. What the API server would default is written out, so that the two are equal.

A guard's validations are put together into one expression that gives the message of the first that fails: the API server
pays for each expression of each policy in every request. One that stands alone stays as it is: it may ask the authorizer,
which a message may not.
*/}}
{{- define "valetkey.guards" -}}
{{- range $name := list "request-attest" "operator-writes" "grants-namespace" "grant-accounts" "secret-mounts" "operator-leash" "operator-rights" "operator-delivery" "policies" }}
{{- $spec := include (printf "valetkey.guard.%s" $name) $ | fromYaml }}
{{- with $spec.Error }}{{ fail (printf "guard %s: %s" $name .) }}{{ end }}
{{- range $spec.matchConstraints.resourceRules }}{{ $_ := set . "scope" "*" }}{{ end }}
{{- $constraints := merge $spec.matchConstraints (dict "matchPolicy" "Equivalent" "namespaceSelector" dict "objectSelector" dict) }}
{{- if gt (len $spec.validations) 1 }}
{{- $refusal := `""` }}
{{- range reverse $spec.validations }}
{{- $refusal = printf "!(%s) ? (%s)\n: %s" .expression (.messageExpression | default (toJson .message)) $refusal }}
{{- end }}
{{- $_ := set $spec "variables" (append ($spec.variables | default list) (dict "name" "refusal" "expression" $refusal)) }}
{{- $_ := set $spec "validations" (list (dict "expression" `variables.refusal == ""` "messageExpression" "variables.refusal"
"message" (printf "the guard %s refuses it" $name))) }}
{{- end }}
{{- range $spec.validations }}{{ $_ := set . "reason" "Forbidden" }}{{ end }}
- apiVersion: admissionregistration.k8s.io/v1
  kind: ValidatingAdmissionPolicy
  metadata:
    name: {{ $name }}.valetkey.dev
    labels:
      {{- include "valetkey.labels" $ | nindent 6 }}
  spec:
    {{- merge (dict "failurePolicy" "Fail" "matchConstraints" $constraints) $spec | toYaml | nindent 4 }}
- apiVersion: admissionregistration.k8s.io/v1
  kind: ValidatingAdmissionPolicyBinding
  metadata:
    name: {{ $name }}.valetkey.dev
    labels:
      {{- include "valetkey.labels" $ | nindent 6 }}
  spec:
    policyName: {{ $name }}.valetkey.dev
    validationActions: [Deny, Audit]
{{- end }}
{{- end }}

{{- /* What the API server authenticated about a caller's token; empty unless there is exactly one value. */}}
{{- define "valetkey.callerVariables" -}}
{{- range $name, $key := dict "podName" "pod-name" "podUID" "pod-uid" "nodeName" "node-name" "credentialID" "credential-id" }}
- name: {{ $name }}
  expression: >-
    request.userInfo.?extra[?"authentication.kubernetes.io/{{ $key }}"].orValue([]).size() == 1
    ? request.userInfo.extra["authentication.kubernetes.io/{{ $key }}"][0] : ""
{{- end }}
{{- end }}

{{- /* Kubernetes' own controllers that delete and change finalizers and owners. */}}
{{- define "valetkey.collectorVariable" -}}
- name: collector
  expression: {{ printf "request.userInfo.username in %s" (toJson .Values.controllers.collecting) | quote }}
{{- end }}

{{- define "valetkey.unchanged" -}}
{{- $parts := list }}
{{- range . }}
{{- $parts = append $parts (printf "object.?%s == oldObject.?%s" . .) }}
{{- end }}
{{- join " && " $parts }}
{{- end }}
