{{/*
Objectives: the share of errors over several windows, and alerts on how fast it uses up the error budget of 30 days.

A fast burn (14.4 times the budget for an hour, or 6 times for six hours) is critical, a slow one (3 times for a day, or
once for three days) a warning. The short window beside each ends the alert soon after the errors end.
*/}}
{{- define "notify.objectives" -}}
{{- $objectives := .Values.metrics.rules.objectives }}
{{- range $slo := list "publish" "delivery" "webhook" }}
{{- $values := index $objectives $slo }}
{{- if $values.enabled }}
- name: notification-gateway-{{ $slo }}-objective
  interval: 1m
  rules:
    {{- if eq $slo "webhook" }}
    - record: notify:webhook_late:bool
      expr: max by (namespace, release) (notify_webhook_delivery_lag_seconds{ {{- include "notify.scope" $ -}} }) > bool {{ $values.withinSeconds }}
    {{- end }}
    {{- range $window := list "5m" "30m" "1h" "2h" "6h" "1d" "3d" }}
    - record: notify:errors:ratio_rate{{ $window }}
      expr: {{ include "notify.errorRatio" (dict "slo" $slo "window" $window "scope" (include "notify.scope" $) "values" $values) | trim | quote }}
      labels: {slo: {{ $slo }}}
    {{- end }}
    {{- range $burn := list (list "1h" "5m" 14.4 "2m" "critical") (list "6h" "30m" 6 "15m" "critical") (list "1d" "2h" 3 "1h" "warning") (list "3d" "6h" 1 "3h" "warning") }}
    {{- include "notify.burnAlert" (dict "root" $ "slo" $slo "values" $values "burn" $burn) | trim | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Takes root, slo, values and burn: long window, short window, factor, for, severity. */}}
{{- define "notify.burnAlert" -}}
{{- $long := index .burn 0 }}
{{- $matchers := printf "{%s,slo=%q}" (include "notify.scope" .root) .slo }}
{{- $limit := printf "%v * %s" (index .burn 2) (include "notify.budget" .values) }}
{{- $alert := printf "Notify%sBudgetBurns" (title .slo) }}
{{- $means := dict "publish" "of the publishes of the last %s failed" "delivery" "of the notifications of the last %s came late" "webhook" "of the last %s some webhook delivery was late" }}
{{- $summary := printf "{{ $value | humanizePercentage }} %s; the objective is %v%% without." (printf (index $means .slo) $long) (toString .values.objectivePercent) }}
- alert: {{ $alert }}
  expr: notify:errors:ratio_rate{{ $long }}{{ $matchers }} > {{ $limit }} and notify:errors:ratio_rate{{ index .burn 1 }}{{ $matchers }} > {{ $limit }}
  for: {{ index .burn 3 }}
  {{- $parts := dict "root" .root "alert" $alert "severity" (index .burn 4) "summary" $summary "window" $long }}
  {{- include "notify.alertText" $parts | trim | nindent 2 }}
{{- end }}

{{/* The share of errors that the objective allows. */}}
{{- define "notify.budget" -}}
{{ divf (subf 100 .objectivePercent) 100 }}
{{- end }}

{{/* Takes slo, window, scope and values. */}}
{{- define "notify.errorRatio" -}}
{{- $sum := "sum by (namespace, release)" }}
{{- if eq .slo "publish" }}
{{- $posts := printf "notify_http_requests_total{%s,job=\"notify-gateway\",method=\"POST\"" .scope }}
{{- /* Before the first error there are no series of errors: the share is 0 then, not unknown. */}}
{{- $all := printf "%s (rate(%s}[%s]))" $sum $posts .window }}
{{- printf "(%s (rate(%s,status=~\"5..\"}[%s])) or 0 * %s) / (%s > 0)" $sum $posts .window $all $all }}
{{- else if eq .slo "delivery" }}
{{- $late := printf "1 - %s (rate(notify_delivery_seconds_bucket{%s,le=~\"%v([.]0)?\"}[%s]))" $sum .scope (toString .values.withinSeconds | replace "." "[.]") .window }}
{{- printf "%s / (%s (rate(notify_delivery_seconds_count{%s}[%s])) > 0)" $late $sum .scope .window }}
{{- else }}
{{- printf "avg_over_time(notify:webhook_late:bool{%s}[%s])" .scope .window }}
{{- end }}
{{- end }}
