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
{{- if and $.Values.callbacks.egressProxy.url $.Values.callbacks.egressProxy.existingSecret }}
{{- fail "callbacks.egressProxy.url and callbacks.egressProxy.existingSecret are both set: choose one" }}
{{- end }}
{{- range $name, $redis := dict "redis" . "redis.jobs" .jobs }}
{{- if and $redis.keys (not $redis.existingSecret) }}
{{- fail (printf "%s.keys are keys of %s.existingSecret, which is not set" $name $name) }}
{{- end }}
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
{{- if and (eq .Values.pods.dnsPolicy "None") (not .Values.pods.dnsConfig.nameservers) }}
{{- fail "pods.dnsPolicy=None needs pods.dnsConfig.nameservers: a pod without any resolves no name" }}
{{- end }}
{{- with .Values.httpRoute }}
{{- if and .enabled (or (not .host) (not .parentRefs)) }}
{{- fail "httpRoute.enabled needs httpRoute.host, the API's host name, and httpRoute.parentRefs, the Gateways to attach to" }}
{{- end }}
{{- if and .enabled (eq .host .blackhole.host) }}
{{- fail "httpRoute.blackhole.host must differ from httpRoute.host: Blackhole's paths are not the API's" }}
{{- end }}
{{- end }}
{{- range $service := include "notify.services" . | fromYaml }}
{{- include "notify.checkService" (dict "root" $ "key" $service.values "values" (index $.Values $service.values)) }}
{{- end }}
{{- include "notify.checkResources" (dict "key" "redis.own" "resources" .Values.redis.own.resources) }}
{{- with .Values.webhookDispatcher.autoscaling }}
{{- $hangs := $.Values.settings.CALLBACK_TIMEOUT_S | default 20 | float64 }}
{{- if and .enabled (le (float64 .dueSeconds) $hangs) }}
{{- fail (printf "webhookDispatcher.autoscaling.dueSeconds (%d) must be more than settings.CALLBACK_TIMEOUT_S (%v): a receiver that hangs delays its delivery for that long, and more replicas do not help" (int .dueSeconds) $hangs) }}
{{- end }}
{{- end }}
{{- with .Values.settings }}
{{- if and .ALLOWED_ORIGINS .CORS_ORIGINS }}
{{- fail "settings.CORS_ORIGINS is the former name of settings.ALLOWED_ORIGINS: set only the latter" }}
{{- end }}
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

{{/* Takes root, key and values of a service. */}}
{{- define "notify.checkService" -}}
{{- include "notify.checkResources" (dict "key" .key "resources" .values.resources) }}
{{- $strategy := .values.strategy }}
{{- if and (has (toString $strategy.maxSurge) (list "0" "0%")) (has (toString $strategy.maxUnavailable) (list "0" "0%")) }}
{{- fail (printf "%s.strategy.maxSurge and maxUnavailable are both 0: a rollout could neither add nor remove a pod" .key) }}
{{- end }}
{{- with .values.autoscaling }}
{{- if and .enabled (lt (int .maxReplicas) (int .minReplicas)) }}
{{- fail (printf "%s.autoscaling.maxReplicas (%d) is below minReplicas (%d)" $.key (int .maxReplicas) (int .minReplicas)) }}
{{- end }}
{{- if and .enabled (eq .by "keda") (not $.root.Values.keda.prometheusUrl) (ne $.key "gateway") }}
{{- fail (printf "%s.autoscaling.by=keda needs keda.prometheusUrl, the Prometheus that has its metrics" $.key) }}
{{- end }}
{{- if and .enabled (eq .by "keda") .extraMetrics }}
{{- fail (printf "%s.autoscaling.extraMetrics is for by=hpa: a ScaledObject has extraTriggers" $.key) }}
{{- end }}
{{- if and .enabled (eq .by "hpa") .extraTriggers }}
{{- fail (printf "%s.autoscaling.extraTriggers is for by=keda: a HorizontalPodAutoscaler has extraMetrics" $.key) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The API server refuses a Deployment that requests more than its limit, after others were changed. */}}
{{- define "notify.checkResources" -}}
{{- range $name, $limit := .resources.limits }}
{{- $request := get $.resources.requests $name | default $limit }}
{{- if gt (include "notify.quantity" $request | float64) (include "notify.quantity" $limit | float64) }}
{{- fail (printf "%s.resources.requests.%s (%v) is more than its limit (%v)" $.key $name $request $limit) }}
{{- end }}
{{- end }}
{{- end }}
