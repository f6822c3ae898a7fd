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

{{- /* A namespace whose rights must never be handed out: with them a grant could make itself another. */}}
{{- define "valetkey.check" -}}
{{- range .Values.grantable.namespaces }}
{{- if has .name (list $.Values.grantsNamespace $.Release.Namespace "kube-system") }}
{{- fail (printf "grantable.namespaces: rights in %s cannot be handed out" .name) }}
{{- end }}
{{- end }}
{{- if ne (len .Values.grantable.namespaces) (len (.Values.grantable.namespaces | default list | toJson | fromJsonArray | include "valetkey.nothing" | len | add (len (uniq (include "valetkey.namesOf" . | fromJsonArray))))) }}
{{- fail "grantable.namespaces: a namespace is named twice" }}
{{- end }}
{{- if has .Values.grantsNamespace (append .Values.agentNamespaces .Release.Namespace) }}
{{- fail "grantsNamespace: it is neither an agent's namespace nor the operator's own" }}
{{- end }}
{{- end }}
