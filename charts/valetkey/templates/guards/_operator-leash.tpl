{{- /* What the operator itself may write, whatever its RBAC would allow: a stolen token of it is worth no more than this. */}}
{{- define "valetkey.guard.operator-leash" -}}
{{- $grants := .Values.grantsNamespace }}
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
- name: update
  expression: >-
    request.operation == "UPDATE"
- name: target
  expression: >-
    request.operation == "DELETE" ? oldObject : object
- name: account
  expression: >-
    variables.what == "serviceaccounts"
- name: token
  expression: >-
    variables.what == "serviceaccounts/token"
- name: secret
  expression: >-
    variables.what == "secrets"
- name: rbac
  expression: >-
    request.resource.group == "rbac.authorization.k8s.io"
- name: binding
  expression: >-
    variables.rbac && request.resource.resource in ["rolebindings", "clusterrolebindings"]
- name: ofGrant
  expression: >-
    variables.account || variables.rbac || variables.secret
- name: uid
  expression: >-
    variables.target.metadata.?labels[?"valetkey.dev/request"].orValue("")
- name: accounts
  expression: >-
    ["valetkey-" + variables.uid, "valetkey-t-" + variables.uid]
- name: annotations
  expression: >-
    object.metadata.?annotations.orValue({})
- name: oldAnnotations
  expression: >-
    oldObject.metadata.?annotations.orValue({})
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
- expression: '!(variables.account || variables.token) || request.namespace == "{{ $grants }}"'
  message: the valetkey operator writes accounts and requests tokens in the namespace of grants alone
- expression: >-
    !variables.token || (object.spec.expirationSeconds <= 900 && object.spec.?boundObjectRef.orValue(null) == null
    && request.name.matches("^valetkey-(t-)?[0-9a-f-]{36}$"))
  message: the valetkey operator requests tokens of accounts of grants, for at most 900 s, bound to nothing else
{{- with .Values.audience }}
- expression: '!variables.token || object.spec.audiences == [{{ . | quote }}]'
  message: the valetkey operator requests tokens for the API server alone
{{- end }}
- expression: >-
    !variables.ofGrant || variables.uid.matches("^[0-9a-f-]{36}$")
  message: what the valetkey operator writes for a grant carries the label valetkey.dev/request with the request's uid
- expression: "!variables.account || variables.target.metadata.name in variables.accounts"
  message: an account of a grant is named valetkey-<request uid> or valetkey-t-<request uid>
- expression: '!variables.rbac || variables.target.metadata.name.startsWith("valetkey-" + variables.uid + "-")'
  message: Roles and bindings of a grant are named valetkey-<request uid>-…
- expression: >-
    !variables.rbac || !(request.?namespace.orValue("") in ["{{ $grants }}", "{{ .Release.Namespace }}", "kube-system"])
  message: no rights are handed out in the namespaces of grants, of the operator and of Kubernetes
- expression: >-
    !variables.binding || request.operation != "CREATE" || variables.target.?subjects.orValue([]).size() == 1 && variables.target.subjects.all(s,
    s.kind == "ServiceAccount" && s.?namespace.orValue("") == "{{ $grants }}" && s.name in variables.accounts)
  message: a binding of a grant has one subject, its account
- expression: >-
    !(variables.account || variables.rbac) || request.operation != "CREATE"
    || (!has(object.metadata.finalizers) && !has(object.aggregationRule) && !has(object.secrets) && !has(object.imagePullSecrets)
    && [object.metadata.labels, object.metadata.?annotations.orValue({})].all(m, m.all(k, k.startsWith("valetkey.dev/"))))
  message: >-
    what the valetkey operator writes for a grant has no finalizers, no aggregation, no Secrets and no foreign labels or annotations
- expression: >-
    !variables.update || !(variables.account || variables.rbac) || (object.metadata.?finalizers.orValue([]).all(f, f in oldObject.metadata.?finalizers.orValue([]))
    && {{ include "valetkey.unchanged" (list "metadata.?labels" "metadata.?annotations" "metadata.?ownerReferences" "rules" "aggregationRule"
    "roleRef" "subjects" "secrets" "imagePullSecrets" "automountServiceAccountToken") }})
  message: the valetkey operator changes nothing of an account, Role or binding but takes finalizers away
- expression: >-
    !variables.secret || (variables.target.metadata.name.startsWith("valetkey-") && variables.target.?type.orValue("") == "valetkey.dev/credential"
    && (!variables.update || (oldObject.?type.orValue("") == "valetkey.dev/credential"
    && oldObject.metadata.?labels[?"valetkey.dev/request"].orValue("") == variables.uid)))
  message: the valetkey operator writes Secrets of type valetkey.dev/credential named valetkey-…, and only those of the same request
- expression: >-
    !variables.secret || request.operation == "DELETE" || (!object.?immutable.orValue(false)
    && object.metadata.?ownerReferences.orValue([]).size() == 1 && object.metadata.ownerReferences.all(o,
    o.apiVersion.startsWith("valetkey.dev/") && o.kind == "AccessRequest" && o.uid == variables.uid))
  message: a delivered Secret is owned by its AccessRequest alone and is not immutable
- expression: >-
    variables.what != "pods" || !variables.update || (object.spec == oldObject.spec
    && {{ include "valetkey.unchanged" (list "metadata.?labels" "metadata.?finalizers" "metadata.?ownerReferences") }}
    && variables.annotations.all(k, k == "valetkey.dev/grant" || variables.oldAnnotations[?k] == optional.of(variables.annotations[k]))
    && variables.oldAnnotations.all(k, k == "valetkey.dev/grant" || k in variables.annotations))
  message: the valetkey operator changes nothing of a pod but the annotation valetkey.dev/grant
{{- end }}
