{{- /*
Of several replicas one leads, the one that the Lease names. Whatever an earlier leader still sends, or had on its way when it was
stopped, is refused. Where there is no Lease nothing is: a Lease that somebody deleted must not stop the cluster's writes, and the
leader makes it again at once.
*/}}
{{- define "valetkey.guard.fence" -}}
paramKind: {apiVersion: coordination.k8s.io/v1, kind: Lease}
paramRef: {name: {{ .Values.account }}, namespace: {{ .Release.Namespace }}, parameterNotFoundAction: Allow}
matchConstraints:
  resourceRules:
  - apiGroups: [valetkey.dev]
    apiVersions: ["*"]
    operations: [CREATE, UPDATE, DELETE]
    resources: [taskgrants, taskgrants/status, accessrequests/status, agentpolicies/status]
  - {apiGroups: [valetkey.dev], apiVersions: ["*"], operations: [DELETE], resources: [accessrequests]}
  - {apiGroups: [""], apiVersions: ["*"], operations: [CREATE, UPDATE, DELETE], resources: [serviceaccounts, serviceaccounts/token, secrets]}
  - {apiGroups: [""], apiVersions: ["*"], operations: [UPDATE], resources: [pods]}
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
  message: only the replica of the valetkey operator that its Lease names writes; this one does not lead
{{- end }}
