{{- /* The Secrets that the operator places credentials in, and the pods that it tells of them. */}}
{{- define "valetkey.guard.operator-delivery" -}}
matchConstraints:
  resourceRules:
  - {{ include "valetkey.deliveries" . }}
matchConditions:
- name: operator
  expression: >-
    request.userInfo.username == "{{ include "valetkey.operatorUser" . }}"
variables:
- name: secret
  expression: >-
    request.resource.resource == "secrets"
- name: update
  expression: >-
    request.operation == "UPDATE"
- name: target
  expression: >-
    request.operation == "DELETE" ? oldObject : object
- name: uid
  expression: >-
    variables.target.metadata.?labels[?"valetkey.dev/request"].orValue("")
- name: annotations
  expression: >-
    object.metadata.?annotations.orValue({})
- name: oldAnnotations
  expression: >-
    oldObject.metadata.?annotations.orValue({})
validations:
- expression: >-
    !variables.secret || variables.uid.matches("^[0-9a-f-]{36}$")
  message: what the valetkey operator writes for a grant carries the label valetkey.dev/request with the request's uid
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
- expression: variables.secret || variables.update
  message: the valetkey operator neither makes nor deletes pods
- expression: >-
    variables.secret || (object.spec == oldObject.spec
    && {{ include "valetkey.unchanged" (list "metadata.?labels" "metadata.?finalizers" "metadata.?ownerReferences") }}
    && variables.annotations.all(k, k == "valetkey.dev/grant" || variables.oldAnnotations[?k] == optional.of(variables.annotations[k]))
    && variables.oldAnnotations.all(k, k == "valetkey.dev/grant" || k in variables.annotations))
  message: the valetkey operator changes nothing of a pod but the annotation valetkey.dev/grant
{{- end }}

{{- define "valetkey.deliveries" -}}
{apiGroups: [""], apiVersions: ["*"], operations: ["*"], resources: [secrets, pods]}
{{- end }}
