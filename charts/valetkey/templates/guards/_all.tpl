{{- /*
Every guard as a policy and its binding, in a YAML list: installed by guards.yaml, and handed to the operator, which compares
them with what is live. What the API server would default is written out, so that the two are equal.
*/}}
{{- define "valetkey.guards" -}}
{{- range $name := list "request-attest" "operator-writes" "grants-namespace" "grant-accounts" "secret-mounts" "operator-leash" "operator-rights" "operator-delivery" "operator-timers" "fence" "policies" "approvals" "door-leash" }}
{{- $spec := include (printf "valetkey.guard.%s" $name) $ | fromYaml }}
{{- with $spec.Error }}{{ fail (printf "guard %s: %s" $name .) }}{{ end }}
{{- range concat $spec.matchConstraints.resourceRules ($spec.matchConstraints.excludeResourceRules | default list) }}{{ $_ := set . "scope" "*" }}{{ end }}
{{- $constraints := merge $spec.matchConstraints (dict "matchPolicy" "Equivalent" "namespaceSelector" dict "objectSelector" dict) }}
{{- range $spec.validations }}{{ $_ := set . "reason" "Forbidden" }}{{ end }}
- apiVersion: admissionregistration.k8s.io/v1
  kind: ValidatingAdmissionPolicy
  metadata:
    name: {{ $name }}.valetkey.dev
    labels:
      {{- include "valetkey.labels" $ | nindent 6 }}
  spec:
    {{- merge (dict "matchConstraints" $constraints) (dict "failurePolicy" ($spec.failurePolicy | default "Fail")) (omit $spec "paramRef") | toYaml | nindent 4 }}
- apiVersion: admissionregistration.k8s.io/v1
  kind: ValidatingAdmissionPolicyBinding
  metadata:
    name: {{ $name }}.valetkey.dev
    labels:
      {{- include "valetkey.labels" $ | nindent 6 }}
  spec:
    policyName: {{ $name }}.valetkey.dev
    {{- with $spec.paramRef }}
    paramRef: {{ toJson . }}
    {{- end }}
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
