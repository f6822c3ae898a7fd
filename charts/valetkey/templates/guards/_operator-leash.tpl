{{- /*
What the operator itself may write, whatever its RBAC would allow: a stolen token of it is worth no more than this. What it
does write is left out here; it is RBAC's, and held to rules by guards of its own: operator-writes, operator-rights,
operator-delivery, operator-timers. The API server converts an object anew for each policy, so each write of the operator has one.
*/}}
{{- define "valetkey.guard.operator-leash" -}}
matchConstraints:
  resourceRules:
  - {apiGroups: ["*"], apiVersions: ["*"], operations: ["*"], resources: ["*/*"]}
  excludeResourceRules:
  - {apiGroups: [valetkey.dev], apiVersions: ["*"], operations: [CREATE, UPDATE, DELETE], resources: [taskgrants]}
  - {apiGroups: [valetkey.dev], apiVersions: ["*"], operations: [UPDATE], resources: [taskgrants/status, accessrequests/status, agentpolicies/status]}
  - {apiGroups: [valetkey.dev], apiVersions: ["*"], operations: [DELETE], resources: [accessrequests]}
  - {apiGroups: ["", events.k8s.io], apiVersions: ["*"], operations: [CREATE], resources: [events]}
  # Questions, which nothing keeps.
  - {apiGroups: [authorization.k8s.io], apiVersions: ["*"], operations: [CREATE], resources: [subjectaccessreviews]}
  - {apiGroups: [authentication.k8s.io], apiVersions: ["*"], operations: [CREATE], resources: [tokenreviews]}
  - {apiGroups: [valetkey.dev], apiVersions: ["*"], operations: [CREATE, UPDATE], resources: [leaders], resourceNames: [{{ .Values.account }}]}
  - {apiGroups: [valetkey.dev], apiVersions: ["*"], operations: [CREATE, UPDATE], resources: [ledgers]}
  - {{ include "valetkey.accounts" . }}
  - {{ include "valetkey.roles" . }}
  - {{ include "valetkey.deliveries" . }}
  - {{ include "valetkey.timers" . }}
matchConditions:
- name: operator
  expression: >-
    request.userInfo.username == "{{ include "valetkey.operatorUser" . }}"
validations:
- expression: "false"
  messageExpression: >-
    "the valetkey operator does not " + request.operation + " " + (request.resource.group == "" ? "" : request.resource.group + "/")
    + request.resource.resource + (request.?subResource.orValue("") == "" ? "" : "/" + request.subResource)
{{- end }}
