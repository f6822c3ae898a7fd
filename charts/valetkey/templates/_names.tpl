{{- define "valetkey.labels" -}}
app.kubernetes.io/name: valetkey
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "valetkey.selector" -}}
app.kubernetes.io/name: valetkey
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "valetkey.operatorUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ .Values.account }}
{{- end }}

{{- define "valetkey.operatorSubject" -}}
{kind: ServiceAccount, name: {{ .Values.account }}, namespace: {{ .Release.Namespace }}}
{{- end }}

{{- define "valetkey.doorUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ .Values.door.account }}
{{- end }}

{{- /* Not the operator's labels: its services, budget and network policy are not for the door's pods. */}}
{{- define "valetkey.doorSelector" -}}
app.kubernetes.io/name: valetkey-door
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "valetkey.doorLabels" -}}
{{ include "valetkey.doorSelector" . }}
{{ omit (include "valetkey.labels" . | fromYaml) "app.kubernetes.io/name" "app.kubernetes.io/instance" | toYaml }}
{{- end }}

{{- define "valetkey.image" -}}
{{ .Values.image | default (printf "valetkey:%s" .Chart.AppVersion) | quote }}
{{- end }}

{{- /* Where and as whom the chart's pods run. */}}
{{- define "valetkey.placement" -}}
{{- if .Values.hostNetwork }}
hostNetwork: true
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "valetkey.confined" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- /* What the schema cannot say. */}}
{{- define "valetkey.check" -}}
{{- $seen := dict }}
{{- range .Values.grantable.namespaces }}
{{- if has .name (list $.Values.grantsNamespace $.Release.Namespace "kube-system") }}
{{- fail (printf "grantable.namespaces: rights in %s would be rights over grants or the cluster, and cannot be handed out" .name) }}
{{- end }}
{{- if hasKey $seen .name }}
{{- fail (printf "grantable.namespaces: %s is named twice" .name) }}
{{- end }}
{{- $_ := set $seen .name true }}
{{- end }}
{{- if has .Values.grantsNamespace (append .Values.agentNamespaces .Release.Namespace) }}
{{- fail "grantsNamespace: it is neither an agent's namespace nor the operator's own" }}
{{- end }}
{{- if has .Release.Namespace .Values.agentNamespaces }}
{{- fail "agentNamespaces: the operator's own namespace has no agents" }}
{{- end }}
{{- if and .Values.door.enabled (not .Values.door.tlsSecret) }}
{{- fail "door.tlsSecret: agents send their tokens to the door, so it is served over HTTPS alone; name a Secret of type kubernetes.io/tls" }}
{{- end }}
{{- if has .Values.door.account (list .Values.account "valetkey-auditor" "valetkey-uninstall") }}
{{- fail (printf "door.account: %s is another account of the chart's; the door has one of its own" .Values.door.account) }}
{{- end }}
{{- end }}

{{- /* A grant whose namespaces are taken out of the values could be ended by nobody. `helm template` sees no grants. */}}
{{- define "valetkey.checkLive" -}}
{{- $targets := list }}
{{- range .Values.grantable.namespaces }}{{ $targets = append $targets .name }}{{ end }}
{{- if .Capabilities.APIVersions.Has "valetkey.dev/v1alpha1/TaskGrant" }}
{{- range (lookup "valetkey.dev/v1alpha1" "TaskGrant" "" "").items }}
{{- $lost := list }}
{{- $grant := .metadata }}
{{- if not (has .metadata.namespace $.Values.agentNamespaces) }}
{{- $lost = append $lost (printf "agentNamespaces does not name %s any more" .metadata.namespace) }}
{{- end }}
{{- with .spec.plan.kubernetes }}
{{- if ne .account.namespace $.Values.grantsNamespace }}
{{- $lost = append $lost (printf "its account is in %s, which is not grantsNamespace any more" .account.namespace) }}
{{- end }}
{{- range .objects }}
{{- if .namespace }}
{{- if not (has .namespace $targets) }}
{{- $lost = append $lost (printf "grantable.namespaces does not name %s any more" .namespace) }}
{{- end }}
{{- else if eq .kind "ClusterRole" }}
{{- if not $.Values.grantable.cluster.rules }}
{{- $lost = append $lost "grantable.cluster.rules is empty now, and the ClusterRole could not be deleted" }}
{{- end }}
{{- else if not (or $.Values.grantable.cluster.rules $.Values.grantable.cluster.clusterRoles) }}
{{- $lost = append $lost "grantable.cluster is empty now, and the ClusterRoleBinding could not be deleted" }}
{{- end }}
{{- end }}
{{- end }}
{{- with $lost }}
{{- fail (printf "a live grant would be left to nobody: %s. Set a Deny there first, so that no other begins before the upgrade is done, and end it: kubectl delete taskgrant -n %s %s" (uniq . | join ", ") $grant.namespace $grant.name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
