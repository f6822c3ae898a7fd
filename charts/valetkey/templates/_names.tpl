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
{{- end }}
