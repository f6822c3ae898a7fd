{{- /*
What the operator itself may write, whatever its RBAC would allow: a stolen token of it is worth no more than this. Its
writes of rights and of deliveries are looked at further by guards of their own, so that its other writes need not be.
*/}}
{{- define "valetkey.guard.operator-leash" -}}
matchConstraints:
  resourceRules:
  - {apiGroups: ["*"], apiVersions: ["*"], operations: ["*"], resources: ["*/*"]}
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
    "CREATE": ["valetkey.dev/taskgrants", "serviceaccounts", "serviceaccounts/token", "secrets", "events", "events.k8s.io/events",
    "rbac.authorization.k8s.io/roles", "rbac.authorization.k8s.io/rolebindings", "rbac.authorization.k8s.io/clusterroles",
    "rbac.authorization.k8s.io/clusterrolebindings"],
    "UPDATE": ["valetkey.dev/taskgrants", "valetkey.dev/taskgrants/status", "valetkey.dev/accessrequests/status",
    "valetkey.dev/agentpolicies/status", "serviceaccounts", "secrets", "pods", "events", "events.k8s.io/events",
    "rbac.authorization.k8s.io/roles", "rbac.authorization.k8s.io/rolebindings", "rbac.authorization.k8s.io/clusterroles",
    "rbac.authorization.k8s.io/clusterrolebindings"],
    "DELETE": ["valetkey.dev/taskgrants", "valetkey.dev/accessrequests", "serviceaccounts", "secrets",
    "rbac.authorization.k8s.io/roles", "rbac.authorization.k8s.io/rolebindings", "rbac.authorization.k8s.io/clusterroles",
    "rbac.authorization.k8s.io/clusterrolebindings"]
    })[?request.operation].orValue([])
  messageExpression: '"the valetkey operator does not " + request.operation + " " + variables.what'
{{- end }}
