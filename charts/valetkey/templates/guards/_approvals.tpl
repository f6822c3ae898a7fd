{{- /* Who speaks is who the API server authenticated, and holds the verb approve on the policy that asks. */}}
{{- define "valetkey.guard.approvals" -}}
matchConstraints:
  resourceRules:
  - {apiGroups: [valetkey.dev], apiVersions: ["*"], operations: [CREATE, UPDATE, DELETE], resources: [accessapprovals]}
variables:
{{ include "valetkey.collectorVariable" . }}
{{- include "valetkey.callerVariables" . }}
- name: create
  expression: >-
    request.operation == "CREATE"
- name: review
  expression: >-
    variables.create && object.spec.verdict == "Reviewed"
validations:
- expression: "!variables.create || request.namespace in {{ toJson .Values.agentNamespaces | replace "\"" "'" }}"
  message: valetkey serves no agents in this namespace; an approval is in the namespace of its request
- expression: >-
    !variables.create || (object.spec.approver.username == request.userInfo.username
    && object.spec.approver.?groups.orValue([]) == request.userInfo.?groups.orValue([])
    && object.spec.approver.?credentialID.orValue("") == variables.credentialID)
  messageExpression: >-
    "spec.approver names the caller as the API server authenticated it (kubectl auth whoami): " + request.userInfo.username
- expression: >-
    !variables.create || !request.userInfo.username.startsWith("system:serviceaccount:{{ .Values.grantsNamespace }}:")
  message: what an agent was granted approves nothing
- expression: >-
    !variables.create
    || authorizer.group("valetkey.dev").resource("agentpolicies").name(object.spec.policy).check("approve").allowed()
  messageExpression: >-
    "approving, denying and reviewing need the verb approve on agentpolicies.valetkey.dev/" + object.spec.policy
- expression: >-
    !variables.create || variables.review || (object.metadata.?ownerReferences.orValue([]).size() == 1 && object.metadata.ownerReferences.all(o,
    o.apiVersion == "valetkey.dev/v1alpha1" && o.kind == "AccessRequest" && o.name == object.spec.request.name
    && o.uid == object.spec.request.uid && !o.?controller.orValue(false) && !o.?blockOwnerDeletion.orValue(false)))
  message: an AccessApproval has one owner, the AccessRequest that it names, without controller and blockOwnerDeletion
- expression: "!variables.review || object.metadata.?ownerReferences.orValue([]).size() == 0"
  message: a review has no owner, for the request that it is about may be gone before it
- expression: >-
    !variables.review || !request.userInfo.username.startsWith("system:serviceaccount:")
  message: what was granted in an emergency is reviewed by a person, and by no ServiceAccount
- expression: "!variables.create || object.metadata.?finalizers.orValue([]).size() == 0"
  message: an AccessApproval has no finalizers
- expression: >-
    request.operation != "DELETE" || variables.collector || oldObject.spec.approver.username == request.userInfo.username
    || authorizer.group("valetkey.dev").resource("agentpolicies").name(oldObject.spec.policy).check("approve").allowed()
  messageExpression: >-
    "taking back what " + oldObject.spec.approver.username + " said needs the verb approve on agentpolicies.valetkey.dev/" + oldObject.spec.policy
- expression: >-
    request.operation != "UPDATE" || variables.collector
    || ({{ include "valetkey.unchanged" (list "metadata.?labels" "metadata.?annotations" "metadata.?finalizers" "metadata.?ownerReferences") }})
  message: an AccessApproval does not change; delete it, which takes it back, and make another
{{- end }}
