{{/* Names and labels. Each takes the root context. */}}

{{- define "notify.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "notify.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "notify.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "notify.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "notify.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
{{ include "notify.selector" . }}
{{- end }}

{{/*
Labels and annotations of an object, with those that the operator gives to every one. Takes root, and perhaps component,
labels and annotations.
*/}}
{{- define "notify.meta" -}}
{{- $labels := include "notify.labels" .root | fromYaml }}
{{- with .component }}
{{- $_ := set $labels "app.kubernetes.io/component" . }}
{{- end }}
labels: {{- mergeOverwrite (deepCopy .root.Values.commonLabels) (.labels | default dict) $labels | toYaml | nindent 2 }}
{{- with mergeOverwrite (deepCopy .root.Values.commonAnnotations) (.annotations | default dict) }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "notify.selector" -}}
app.kubernetes.io/name: {{ include "notify.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "notify.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "notify.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "notify.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{/* The name of the Secret that the chart writes if it has one to write. */}}
{{- define "notify.secret" -}}
{{ include "notify.fullname" . }}
{{- end }}

{{- define "notify.redis" -}}
{{ include "notify.fullname" . }}-redis
{{- end }}

{{/* Every service's port for metrics only, so that a network policy can limit its readers. */}}
{{- define "notify.metricsPort" -}}
9090
{{- end }}

{{/* The four services: name, key in the values, setting of the port, port. */}}
{{- define "notify.services" -}}
gateway: {values: gateway, setting: PORT, port: 8000}
socket-edge: {values: socketEdge, setting: EDGE_PORT, port: 8001}
webhook-dispatcher: {values: webhookDispatcher, setting: DISPATCHER_PORT, port: 8002}
expiry-reaper: {values: expiryReaper, setting: REAPER_PORT, port: 8003}
{{- end }}
