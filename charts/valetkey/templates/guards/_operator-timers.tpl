{{- /* The timers of grants: Jobs that run nothing, and whose end takes the account of a grant along. */}}
{{- define "valetkey.guard.operator-timers" -}}
matchConstraints:
  resourceRules:
  - {{ include "valetkey.timers" . }}
matchConditions:
- name: operator
  expression: >-
    request.userInfo.username == "{{ include "valetkey.operatorUser" . }}"
variables:
- name: create
  expression: >-
    request.operation == "CREATE"
- name: target
  expression: >-
    request.operation == "DELETE" ? oldObject : object
- name: uid
  expression: >-
    variables.target.metadata.?labels[?"valetkey.dev/request"].orValue("")
validations:
- expression: variables.create || request.operation == "DELETE"
  message: the valetkey operator makes and deletes timers, and changes none
- expression: 'request.namespace == "{{ .Values.grantsNamespace }}"'
  message: the valetkey operator writes Jobs in the namespace of grants alone
- expression: >-
    variables.uid.matches("^[0-9a-f-]{36}$") && variables.target.metadata.name == "valetkey-" + variables.uid
  message: a timer is named valetkey-<request uid> and carries the label valetkey.dev/request with that uid
- expression: >-
    !variables.create || (object.spec.?parallelism.orValue(1) == 0 && !has(object.spec.completions) && !object.spec.?suspend.orValue(false)
    && !has(object.spec.managedBy))
  message: a timer is a Job that Kubernetes itself carries out, with parallelism 0, no completions and no suspension
- expression: >-
    !variables.create || (has(object.spec.activeDeadlineSeconds) && object.spec.?ttlSecondsAfterFinished.orValue(1) == 0)
  message: a timer has activeDeadlineSeconds, and ttlSecondsAfterFinished 0
- expression: >-
    !variables.create || (!has(object.metadata.finalizers) && !has(object.metadata.ownerReferences)
    && [object.metadata.labels, object.metadata.?annotations.orValue({})].all(m, m.all(k, k.startsWith("valetkey.dev/"))))
  message: a timer has no finalizers, no owners and no foreign labels or annotations
- expression: {{ include "valetkey.takingAlong" . | quote }}
  message: a timer is deleted with what it owns
{{- end }}

{{- define "valetkey.timers" -}}
{apiGroups: [batch], apiVersions: ["*"], operations: ["*"], resources: [jobs]}
{{- end }}

{{- /* Of a Job, unlike of other kinds, the API server leaves behind what it owns unless it is told otherwise. */}}
{{- define "valetkey.takingAlong" -}}
request.operation != 'DELETE' || request.?options.?propagationPolicy.orValue('') in ['Background', 'Foreground']
{{- end }}
