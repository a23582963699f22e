{{/* Rules between two values, which values.schema.json cannot express. */}}
{{- define "notify.checks" -}}
{{- $name := include "notify.fullname" . }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) }}
{{- fail (printf "%q cannot be the name of a Service: only a-z, 0-9 and -, with a letter first. Set fullnameOverride to such a name, or give the release one" $name) }}
{{- end }}
{{- with .Values.redis }}
{{- $given := list }}
{{- if .own.enabled }}{{ $given = append $given "redis.own.enabled" }}{{ end }}
{{- if .url }}{{ $given = append $given "redis.url" }}{{ end }}
{{- if .existingSecret }}{{ $given = append $given "redis.existingSecret" }}{{ end }}
{{- if not $given }}
{{- fail "no Redis is configured: set redis.url, redis.existingSecret, or redis.own.enabled=true for a small one of the chart's own" }}
{{- else if gt (len $given) 1 }}
{{- fail (printf "%s are both set: choose one Redis (redis.own.enabled=false turns the chart's own off)" (join " and " $given)) }}
{{- end }}
{{- if and (contains "+cluster://" .url) (not .jobs.url) (not .jobs.existingSecret) }}
{{- fail "redis.url names a cluster, and arq's jobs cannot run on one (their keys and pipelines span slots): set redis.jobs.url or redis.jobs.existingSecret" }}
{{- end }}
{{- if and .jobs.url .jobs.existingSecret }}
{{- fail "redis.jobs.url and redis.jobs.existingSecret are both set: choose one" }}
{{- end }}
{{- end }}
{{- with .Values.ingress }}
{{- if and .enabled (not .host) }}
{{- fail "ingress.enabled needs ingress.host, the API's host name" }}
{{- end }}
{{- if and .enabled (eq .host .blackhole.host) }}
{{- fail "ingress.blackhole.host must differ from ingress.host: an Ingress cannot tell Blackhole's paths from the API's" }}
{{- end }}
{{- end }}
{{- range $key := list "gateway" "socketEdge" "webhookDispatcher" }}
{{- with (index $.Values $key).autoscaling }}
{{- if and .enabled (lt (int .maxReplicas) (int .minReplicas)) }}
{{- fail (printf "%s.autoscaling.maxReplicas (%d) is below minReplicas (%d)" $key (int .maxReplicas) (int .minReplicas)) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.webhookDispatcher.autoscaling }}
{{- $hangs := $.Values.settings.CALLBACK_TIMEOUT_S | default 20 | float64 }}
{{- if and .enabled (le (float64 .dueSeconds) $hangs) }}
{{- fail (printf "webhookDispatcher.autoscaling.dueSeconds (%d) must be more than settings.CALLBACK_TIMEOUT_S (%v): a receiver that hangs delays its delivery for that long, and more replicas do not help" (int .dueSeconds) $hangs) }}
{{- end }}
{{- end }}
{{- with .Values.settings }}
{{- $beat := .HEARTBEAT_S | default 5 | float64 }}
{{- $ttl := .HEARTBEAT_TTL_S | default 15 | float64 }}
{{- if le $ttl $beat }}
{{- fail (printf "settings.HEARTBEAT_TTL_S (%v) must be more than HEARTBEAT_S (%v), or live replicas count as gone between two heartbeats" $ttl $beat) }}
{{- end }}
{{- end }}
{{- if and (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) }}
{{- fail "serviceAccount.create=false needs serviceAccount.name" }}
{{- end }}
{{- include "notify.checkLive" . }}
{{- end }}
