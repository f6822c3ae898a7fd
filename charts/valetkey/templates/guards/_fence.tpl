{{- /*
Of several replicas one leads, the one that the Leader names. Whatever an earlier leader still sends, or had on its way when it was
stopped, is refused. A parameter that is not there, or cannot be read, would stop everybody's writes of these kinds, for parameters
are looked up before matchConditions: so then nothing is refused (Allow, Ignore). The leader makes a Leader that was deleted
again, and a leader whose time is over begins nothing by its own clock; what waits for a connection then is caught here.
*/}}
{{- define "valetkey.guard.fence" -}}
failurePolicy: Ignore
paramKind: {apiVersion: valetkey.dev/v1alpha1, kind: Leader}
paramRef: {name: {{ .Values.account }}, namespace: {{ .Release.Namespace }}, parameterNotFoundAction: Allow}
matchConstraints:
  resourceRules:
  - apiGroups: [valetkey.dev]
    apiVersions: ["*"]
    operations: [CREATE, UPDATE, DELETE]
    resources: [taskgrants, taskgrants/status, accessrequests/status, agentpolicies/status]
  - {apiGroups: [valetkey.dev], apiVersions: ["*"], operations: [CREATE, UPDATE], resources: [ledgers]}
  - {apiGroups: [valetkey.dev], apiVersions: ["*"], operations: [DELETE], resources: [accessrequests]}
  - {apiGroups: [""], apiVersions: ["*"], operations: [CREATE, UPDATE, DELETE], resources: [serviceaccounts, serviceaccounts/token, secrets]}
  - {apiGroups: [""], apiVersions: ["*"], operations: [UPDATE], resources: [pods]}
  - {apiGroups: [batch], apiVersions: ["*"], operations: [CREATE, UPDATE, DELETE], resources: [jobs]}
  - apiGroups: [rbac.authorization.k8s.io]
    apiVersions: ["*"]
    operations: [CREATE, UPDATE, DELETE]
    resources: [roles, rolebindings, clusterroles, clusterrolebindings]
matchConditions:
- name: operator
  expression: >-
    request.userInfo.username == "{{ include "valetkey.operatorUser" . }}"
validations:
- expression: >-
    ["pod-name", "pod-uid"].map(k, request.userInfo.?extra[?"authentication.kubernetes.io/" + k].orValue([]).join(" ")).join("_")
    == params.spec.?holderIdentity.orValue("")
  message: only the replica of the valetkey operator that leads writes, and this one does not
{{- end }}
