{{- /* What the operator says is said by nobody else: grants, every status, and the Secrets that hold credentials. */}}
{{- define "valetkey.guard.operator-writes" -}}
matchConstraints:
  resourceRules:
  - apiGroups: [valetkey.dev]
    apiVersions: ["*"]
    operations: [CREATE, UPDATE]
    resources: [taskgrants, taskgrants/status, accessrequests/status, agentpolicies/status, leaders, ledgers]
  - {apiGroups: [valetkey.dev], apiVersions: ["*"], operations: [DELETE], resources: [taskgrants]}
  - {apiGroups: [""], apiVersions: ["*"], operations: [CREATE, UPDATE], resources: [secrets]}
matchConditions:
# The operator's own Secrets are judged by operator-delivery. A name that a pod could mount for a credential is nobody else's either.
- name: ours
  expression: >-
    request.resource.group == "valetkey.dev" || (request.userInfo.username != "{{ include "valetkey.operatorUser" . }}"
    && (object.?type.orValue("") == "valetkey.dev/credential"
    || (object.metadata.?name.orValue("").startsWith("valetkey-") && request.namespace in {{ toJson .Values.agentNamespaces }})))
variables:
{{ include "valetkey.collectorVariable" . }}
- name: operator
  expression: request.userInfo.username == "{{ include "valetkey.operatorUser" . }}"
- name: what
  expression: >-
    (request.resource.group == "" ? "credential " : "") + request.resource.resource + (request.?subResource.orValue("") == "" ? "" : "/" + request.subResource)
- name: grant
  expression: request.resource.resource == "taskgrants" && request.?subResource.orValue("") == ""
# `valetkey revoke --force`: who and why is written before the finalizer goes, for what goes with it nobody sees.
- name: forcing
  expression: >-
    variables.grant && request.operation == "UPDATE" && has(oldObject.metadata.deletionTimestamp)
    && object.metadata.?annotations[?"valetkey.dev/forced-by"].orValue("") == request.userInfo.username
    && object.metadata.?annotations[?"valetkey.dev/forced-because"].orValue("") != ""
    && {{ include "valetkey.unchanged" (list "metadata.?labels" "metadata.?ownerReferences" "spec") }}
    && authorizer.group("valetkey.dev").resource("taskgrants").namespace(request.namespace).name(request.name).check("force").allowed()
- name: forced
  expression: >-
    variables.forcing && object.metadata.?annotations == oldObject.metadata.?annotations
validations:
- expression: >-
    request.operation == "DELETE" || variables.operator || (request.operation == "UPDATE" && variables.collector
    && request.?subResource.orValue("") == ""
    && {{ include "valetkey.unchanged" (list "metadata.?labels" "metadata.?annotations" "spec" "data" "type" "immutable") }})
    || variables.forcing
  messageExpression: >-
    variables.what + " are written by the valetkey operator alone"
    + (!variables.grant ? "" : request.operation == "UPDATE" && has(oldObject.metadata.deletionTimestamp)
    ? "; to let it go unrevoked, on record: valetkey revoke --force" : "; to end the access, delete the TaskGrant")
- expression: >-
    !variables.grant || request.operation != "CREATE" || "valetkey.dev/revoke" in object.metadata.?finalizers.orValue([])
  message: a TaskGrant is born with the finalizer valetkey.dev/revoke
- expression: >-
    !variables.grant || request.operation != "UPDATE" || "valetkey.dev/revoke" in object.metadata.?finalizers.orValue([])
    || !("valetkey.dev/revoke" in oldObject.metadata.?finalizers.orValue([]))
    || (variables.operator && has(oldObject.metadata.deletionTimestamp)) || variables.forced
  message: the finalizer valetkey.dev/revoke is removed by the valetkey operator alone, once the access is revoked
- expression: {{ include "valetkey.notOrphaning" . | quote }}
  message: deleting with orphan propagation would leave what was granted behind
{{- end }}
