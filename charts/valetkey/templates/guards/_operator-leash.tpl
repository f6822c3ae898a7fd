{{- /*
What the operator itself may write, whatever its RBAC would allow: a stolen token of it is worth no more than this. Its
writes of rights and of deliveries are left to guards of their own, for the API server converts an object anew for each policy.
*/}}
{{- define "valetkey.guard.operator-leash" -}}
matchConstraints:
  resourceRules:
  - {apiGroups: ["*"], apiVersions: ["*"], operations: ["*"], resources: ["*/*"]}
  excludeResourceRules:
  - {{ include "valetkey.accounts" . }}
  - {{ include "valetkey.roles" . }}
  - {{ include "valetkey.deliveries" . }}
matchConditions:
- name: operator
  expression: >-
    request.userInfo.username == "{{ include "valetkey.operatorUser" . }}"
variables:
- name: what
  expression: >-
    (request.resource.group == "" ? "" : request.resource.group + "/") + request.resource.resource
    + (request.?subResource.orValue("") == "" ? "" : "/" + request.subResource)
validations:
- expression: >-
    variables.what in ({
    "CREATE": ["valetkey.dev/taskgrants", "events", "events.k8s.io/events"],
    "UPDATE": ["valetkey.dev/taskgrants", "valetkey.dev/taskgrants/status", "valetkey.dev/accessrequests/status",
    "valetkey.dev/agentpolicies/status", "events", "events.k8s.io/events"],
    "DELETE": ["valetkey.dev/taskgrants", "valetkey.dev/accessrequests"]
    })[?request.operation].orValue([])
  messageExpression: '"the valetkey operator does not " + request.operation + " " + variables.what'
{{- end }}
