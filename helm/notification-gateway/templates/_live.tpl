{{/* What the cluster has already. Without a cluster (helm template, Argo CD) every lookup is empty. */}}

{{/*
The replicas of a Deployment, or nothing. Takes the root context and the service's name and values.

An autoscaler owns the number, so this is the one that the Deployment has: without it the API server would set 1. The
first install begins with minReplicas. A renderer without a cluster cannot know: any number would reset the autoscaler.
*/}}
{{- define "notify.replicas" -}}
{{- $autoscaling := .values.autoscaling | default dict }}
{{- if not $autoscaling.enabled }}
{{- .values.replicas }}
{{- else }}
{{- $namespace := .root.Release.Namespace }}
{{- $live := lookup "apps/v1" "Deployment" $namespace (printf "%s-%s" (include "notify.fullname" .root) .service) }}
{{- if $live }}
{{- $live.spec.replicas }}
{{- else if lookup "apps/v1" "Deployment" $namespace "" }}
{{- $autoscaling.minReplicas }}
{{- end }}
{{- end }}
{{- end }}

{{/* Refuses changes that the API server would refuse half-way, after other objects were changed. */}}
{{- define "notify.checkLive" -}}
{{- $selector := include "notify.selector" . | fromYaml }}
{{- range $name := include "notify.services" . | fromYaml | keys | sortAlpha }}
{{- $full := printf "%s-%s" (include "notify.fullname" $) $name }}
{{- with lookup "apps/v1" "Deployment" $.Release.Namespace $full }}
{{- include "notify.sameSelector" (dict "live" . "selector" $selector) }}
{{- end }}
{{- end }}
{{- if .Values.redis.own.enabled }}
{{- with lookup "apps/v1" "StatefulSet" .Release.Namespace (include "notify.redis" .) }}
{{- include "notify.sameSelector" (dict "live" . "selector" $selector) }}
{{- $claim := (index .spec.volumeClaimTemplates 0).spec }}
{{- $was := $claim.resources.requests.storage }}
{{- $wanted := $.Values.redis.own.storage }}
{{- if ne (include "notify.quantity" $was) (include "notify.quantity" $wanted.size) }}
{{- fail (printf "redis.own.storage.size cannot change from %s to %s: Kubernetes never changes the volume claims of a StatefulSet. Grow the claim and delete the StatefulSet without its pod first: docs/operations.md, \"Grow the volume of the chart's Redis\", has the steps" $was $wanted.size) }}
{{- end }}
{{- $class := $claim.storageClassName | default "" }}
{{- if ne $class ($wanted.className | default "") }}
{{- fail (printf "redis.own.storage.className cannot change from %q to %q: Kubernetes never changes the volume claims of a StatefulSet. Set it back, or move the data to a Redis of your own (redis.url)" $class ($wanted.className | default "")) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Takes a live object and the labels that the chart would select by. */}}
{{- define "notify.sameSelector" -}}
{{- $live := .live.spec.selector.matchLabels }}
{{- range $label, $value := .selector }}
{{- if ne (get $live $label) $value }}
{{- fail (printf "%s %s selects its pods by %s=%s, and these values need %s: Kubernetes never changes a selector. Keep nameOverride as it was, or install a second release and remove this one" $.live.kind $.live.metadata.name $label (get $live $label | default "nothing") $value) }}
{{- end }}
{{- end }}
{{- end }}

{{/* A quantity as a plain number, so that 1Gi equals 1024Mi, and 500m is less than 1. */}}
{{- define "notify.quantity" -}}
{{- $text := toString . }}
{{- $number := regexFind "^[0-9.]+" $text }}
{{- $units := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- mulf ($number | float64) (index $units (trimPrefix $number $text) | float64) | printf "%f" }}
{{- end }}
