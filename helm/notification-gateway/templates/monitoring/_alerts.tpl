{{/* Alerts as Prometheus' rules. Each takes the root context. */}}

{{/* Matchers of this release's series: the PodMonitor sets both labels. */}}
{{- define "notify.scope" -}}
namespace={{ .Release.Namespace | quote }},release={{ .Release.Name | quote }}
{{- end }}

{{/* The rules of files/alerts.yaml with what metrics.rules.alerts changes. */}}
{{- define "notify.alerts" -}}
{{- $rules := .Values.metrics.rules }}
{{- range $alert := (.Files.Get "files/alerts.yaml" | fromYaml).alerts }}
{{- $own := get $rules.alerts $alert.alert | default dict }}
{{- if ne (toString $own.enabled) "false" }}
{{- $threshold := ternary $own.threshold $alert.threshold (hasKey $own "threshold") }}
{{- $expr := $alert.expr | replace "$threshold" (include "notify.written" $threshold) }}
{{- $expr = $expr | replace "$scope" (include "notify.scope" $) }}
{{- $rule := dict "alert" $alert.alert "expr" $expr }}
{{- with $own.for | default $alert.for }}
{{- $_ := set $rule "for" . }}
{{- end }}
{{- $severity := $own.severity | default $alert.severity }}
{{- $parts := dict "root" $ "alert" $alert.alert "severity" $severity "summary" $alert.summary }}
{{- $_ := merge $rule (include "notify.alertText" $parts | fromYaml) }}
{{- list $rule | toYaml | nindent 0 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Labels and annotations of one alert. Takes root, alert, severity, summary and perhaps window. */}}
{{- define "notify.alertText" -}}
{{- $rules := .root.Values.metrics.rules }}
labels:
  severity: {{ .severity }}
  {{- with .window }}
  window: {{ . }}
  {{- end }}
  {{- with $rules.alertLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  summary: {{ .summary | quote }}
  {{- with $rules.runbookUrl }}
  runbook_url: {{ printf "%s#%s" . (lower $.alert) }}
  {{- end }}
{{- end }}
