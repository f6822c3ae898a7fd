{{- /* The accounts, tokens, Roles and bindings that the operator makes: each of one grant, and no more than that grant needs. */}}
{{- define "valetkey.guard.operator-rights" -}}
{{- $grants := .Values.grantsNamespace }}
{{- $accounts := list "\"valetkey-\" + variables.uid" }}
{{- if .Values.grantable.podTemplates }}{{ $accounts = append $accounts "\"valetkey-t-\" + variables.uid" }}{{ end }}
{{- /* What the operator holds for its own work it could hand out too, as far as RBAC is concerned. */}}
{{- $groups := list "rbac.authorization.k8s.io" "valetkey.dev" }}
{{- $written := list "pods" "secrets" }}
{{- $grantable := .Values.grantable.cluster.rules | default list }}
{{- range .Values.grantable.namespaces }}{{ $grantable = concat $grantable (.rules | default list) }}{{ end }}
{{- range $grantable }}
{{- if has "*" (.apiGroups | default list) }}{{ $groups = list }}{{ end }}
{{- range .apiGroups }}{{ $groups = without $groups . }}{{ end }}
{{- if without .verbs "get" "list" "watch" }}{{ range .resources }}{{ $written = without $written . }}{{ end }}{{ end }}
{{- end }}
matchConstraints:
  resourceRules:
  - {{ include "valetkey.accounts" . }}
  - {{ include "valetkey.roles" . }}
matchConditions:
- name: operator
  expression: >-
    request.userInfo.username == "{{ include "valetkey.operatorUser" . }}"
variables:
- name: account
  expression: >-
    request.resource.resource == "serviceaccounts" && request.?subResource.orValue("") == ""
- name: token
  expression: >-
    request.?subResource.orValue("") == "token"
- name: rbac
  expression: >-
    request.resource.group == "rbac.authorization.k8s.io"
- name: binding
  expression: >-
    variables.rbac && request.resource.resource in ["rolebindings", "clusterrolebindings"]
- name: update
  expression: >-
    request.operation == "UPDATE"
- name: target
  expression: >-
    request.operation == "DELETE" ? oldObject : object
- name: uid
  expression: >-
    variables.target.metadata.?labels[?"valetkey.dev/request"].orValue("")
# A tenant who takes the label off must not keep it from being deleted: then the name is enough.
- name: leaving
  expression: >-
    (request.operation == "DELETE" || (variables.update && has(oldObject.metadata.deletionTimestamp)))
    && variables.target.metadata.name.matches("^valetkey-(t-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}(-[0-9]{1,2})?$")
- name: accounts
  expression: >-
    [{{ join ", " $accounts }}]
- name: rules
  expression: >-
    variables.rbac && !variables.binding && request.operation == "CREATE" && has(object.rules) && type(object.rules) == list
    ? object.rules : []
validations:
- expression: 'variables.rbac || request.namespace == "{{ $grants }}"'
  message: the valetkey operator writes accounts and requests tokens in the namespace of grants alone
- expression: >-
    !variables.token || (object.spec.expirationSeconds <= 900 && object.spec.?boundObjectRef.orValue(null) == null
    && request.name.matches("^valetkey-{{ if .Values.grantable.podTemplates }}(t-)?{{ end }}[0-9a-f-]{36}$"))
  message: the valetkey operator requests tokens of accounts of grants, for at most 900 s, bound to nothing else
{{- with .Values.audience }}
- expression: '!variables.token || object.spec.audiences == [{{ . | quote }}]'
  message: the valetkey operator requests tokens for the API server alone
{{- end }}
- expression: >-
    variables.token || variables.leaving || variables.uid.matches("^[0-9a-f-]{36}$")
  message: what the valetkey operator writes for a grant carries the label valetkey.dev/request with the request's uid
- expression: "!variables.account || variables.leaving || variables.target.metadata.name in variables.accounts"
  message: >-
    an account of a grant is named valetkey-<request uid>{{ if .Values.grantable.podTemplates }} or valetkey-t-<request uid>{{ else
    }}; the risk PodTemplates is not handed out, unless the chart's grantable.podTemplates says so{{ end }}
- expression: '!variables.rbac || variables.leaving || variables.target.metadata.name.startsWith("valetkey-" + variables.uid + "-")'
  message: Roles and bindings of a grant are named valetkey-<request uid>-…
- expression: >-
    !variables.rbac || !(request.?namespace.orValue("") in ["{{ $grants }}", "{{ .Release.Namespace }}", "kube-system"])
  message: no rights are handed out in the namespaces of grants, of the operator and of Kubernetes
- expression: variables.rules.all(r, r.?apiGroups.orValue([]).all(g, !(g in {{ toJson $groups }})))
  message: a grant has no rights over RBAC or valetkey's kinds, unless the chart's grantable names their apiGroups
- expression: >-
    !(request.?namespace.orValue("") in {{ toJson .Values.agentNamespaces }}) || variables.rules.all(r, !("" in r.?apiGroups.orValue([]))
    || r.verbs.all(v, v in ["get", "list", "watch"]) || r.?resources.orValue([]).all(s, !(s in {{ toJson $written }})))
  message: where agents run, a grant does not write pods or Secrets, unless the chart's grantable has such rules
- expression: >-
    !variables.binding || request.operation != "CREATE" || variables.target.?subjects.orValue([]).size() == 1 && variables.target.subjects.all(s,
    s.kind == "ServiceAccount" && s.?namespace.orValue("") == "{{ $grants }}" && s.name in variables.accounts)
  message: a binding of a grant has one subject, its account
- expression: >-
    variables.token || request.operation != "CREATE"
    || (!has(object.metadata.finalizers) && !has(object.aggregationRule) && !has(object.secrets) && !has(object.imagePullSecrets)
    && [object.metadata.labels, object.metadata.?annotations.orValue({})].all(m, m.all(k, k.startsWith("valetkey.dev/"))))
  message: >-
    what the valetkey operator writes for a grant has no finalizers, no aggregation, no Secrets and no foreign labels or annotations
- expression: >-
    !variables.update || variables.token || (object.metadata.?finalizers.orValue([]).all(f, f in oldObject.metadata.?finalizers.orValue([]))
    && {{ include "valetkey.unchanged" (list "metadata.?labels" "metadata.?annotations" "metadata.?ownerReferences" "rules" "aggregationRule"
    "roleRef" "subjects" "secrets" "imagePullSecrets" "automountServiceAccountToken") }})
  message: the valetkey operator changes nothing of an account, Role or binding but takes finalizers away
{{- end }}

{{- define "valetkey.accounts" -}}
{apiGroups: [""], apiVersions: ["*"], operations: ["*"], resources: [serviceaccounts, serviceaccounts/token]}
{{- end }}

{{- define "valetkey.roles" -}}
{apiGroups: [rbac.authorization.k8s.io], apiVersions: ["*"], operations: ["*"], resources: [roles, rolebindings, clusterroles, clusterrolebindings]}
{{- end }}
