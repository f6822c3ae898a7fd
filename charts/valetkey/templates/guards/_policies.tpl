{{- /* Whoever widens what may be had needs the verb allow: by an Allow, by changing a policy, by taking a Deny away. */}}
{{- define "valetkey.guard.policies" -}}
matchConstraints:
  resourceRules:
  - {apiGroups: [valetkey.dev], apiVersions: ["*"], operations: [CREATE, UPDATE, DELETE], resources: [agentpolicies]}
variables:
{{ include "valetkey.collectorVariable" . }}
- name: widens
  expression: >-
    request.operation == "CREATE" ? object.spec.effect == "Allow"
    : request.operation == "DELETE" ? oldObject.spec.effect == "Deny" : true
- name: policy
  expression: >-
    request.operation == "DELETE" ? oldObject : object
validations:
- expression: >-
    request.operation == "DELETE" || object.metadata.?annotations[?"valetkey.dev/locked-by"].orValue(request.userInfo.username)
    in [request.userInfo.username, request.operation == "UPDATE" ? oldObject.metadata.?annotations[?"valetkey.dev/locked-by"].orValue("") : ""]
  message: who sets a lock is who says so (annotation valetkey.dev/locked-by)
- expression: >-
    !variables.widens || (variables.collector && (request.operation == "DELETE" || (request.operation == "UPDATE"
    && {{ include "valetkey.unchanged" (list "spec" "metadata.?labels" "metadata.?annotations") }})))
    || authorizer.group("valetkey.dev").resource("agentpolicies").name(variables.policy.metadata.?name.orValue("")).check("allow").allowed()
  messageExpression: >-
    "creating an Allow, changing a policy and deleting a Deny need the verb allow on agentpolicies.valetkey.dev/"
    + variables.policy.metadata.?name.orValue("")
{{- end }}
