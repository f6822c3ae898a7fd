{{- /* Where the accounts of grants live nobody else makes accounts, tokens or timers, nothing runs, and no Secret is kept. */}}
{{- define "valetkey.guard.grants-namespace" -}}
matchConstraints:
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .Values.grantsNamespace }}}}
  resourceRules:
  - {apiGroups: [""], apiVersions: ["*"], operations: [CREATE, UPDATE], resources: [serviceaccounts, serviceaccounts/token, secrets]}
  - {apiGroups: [""], apiVersions: ["*"], operations: [CREATE], resources: [pods]}
  - {apiGroups: [batch], apiVersions: ["*"], operations: [CREATE, UPDATE, DELETE], resources: [jobs]}
matchConditions:
- name: others
  expression: >-
    !(request.resource.resource in ["serviceaccounts", "jobs"]) || request.userInfo.username != "{{ include "valetkey.operatorUser" . }}"
variables:
{{ include "valetkey.collectorVariable" . }}
- name: account
  expression: >-
    request.resource.resource == "serviceaccounts" && request.?subResource.orValue("") == ""
- name: token
  expression: >-
    request.resource.resource == "serviceaccounts" && request.?subResource.orValue("") == "token"
- name: timer
  expression: >-
    request.resource.resource == "jobs"
- name: collecting
  expression: >-
    request.operation == "UPDATE" && variables.collector && {{ include "valetkey.unchanged" (list "metadata.?labels" "metadata.?annotations"
    "data" "type" "immutable" "secrets" "imagePullSecrets" "automountServiceAccountToken" "spec") }}
validations:
- expression: request.resource.resource != "pods"
  message: no pod runs in the namespace of grants
- expression: request.resource.resource != "secrets" || variables.collecting
  message: no Secret is kept in the namespace of grants
- expression: >-
    !variables.account || variables.collecting
    || (request.name == "default" && request.operation == "CREATE" && request.userInfo.username in {{ toJson .Values.controllers.accounts }})
  message: accounts in the namespace of grants are written by the valetkey operator alone
- expression: "!variables.token"
  message: tokens in the namespace of grants are requested by the valetkey operator alone
- expression: '!variables.timer || request.operation == "DELETE" || variables.collecting'
  message: Jobs in the namespace of grants are the timers of the valetkey operator alone
- expression: {{ printf "!variables.timer || %s" (include "valetkey.takingAlong" .) | quote }}
  message: a timer is deleted with the account that it owns; say propagationPolicy Background
{{- end }}
