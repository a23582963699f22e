{{/*
Seconds that the rollout of one service takes about: each step waits until its pods have been ready for
minReadySeconds, after about two seconds to start. Takes replicas and values.
*/}}
{{- define "notify.rolloutSeconds" -}}
{{- $replicas := int .replicas }}
{{- $surge := include "notify.podsOf" (dict "of" $replicas "share" .values.strategy.maxSurge "up" true) | int }}
{{- $away := include "notify.podsOf" (dict "of" $replicas "share" .values.strategy.maxUnavailable "up" false) | int }}
{{- $each := max 1 (add $surge $away) }}
{{- $steps := div (add $replicas $each -1) $each }}
{{- mul $steps (add .values.minReadySeconds 2) }}
{{- end }}

{{/* A number of pods, or a share of them as "25%"; the cluster rounds a surge up, and what may be away down. */}}
{{- define "notify.podsOf" -}}
{{- $share := toString .share }}
{{- if hasSuffix "%" $share }}
{{- $hundredths := mul .of (trimSuffix "%" $share | int) }}
{{- ternary (div (add $hundredths 99) 100) (div $hundredths 100) .up }}
{{- else }}
{{- int .share }}
{{- end }}
{{- end }}

{{/* What NOTES.txt says of the slowest rollout: "name replicas seconds". */}}
{{- define "notify.slowest" -}}
{{- $slowest := dict "seconds" 0 }}
{{- range $name, $service := include "notify.services" . | fromYaml }}
{{- $values := index $.Values $service.values }}
{{- $autoscaling := $values.autoscaling | default dict }}
{{- $replicas := include "notify.replicas" (dict "root" $ "service" $name "values" $values) | default $autoscaling.maxReplicas }}
{{- $seconds := include "notify.rolloutSeconds" (dict "replicas" $replicas "values" $values) | int }}
{{- if gt $seconds (int $slowest.seconds) }}
{{- $slowest = dict "name" $name "key" $service.values "replicas" (int $replicas) "seconds" $seconds }}
{{- end }}
{{- end }}
{{- toYaml $slowest }}
{{- end }}
