{{/* The ConfigMap's data: addresses and ports, and the operator's settings. */}}
{{- define "notify.settings" -}}
NOTIFY_HOST: {{ .Values.listenOn | quote }}
NOTIFY_METRICS_PORT: {{ include "notify.metricsPort" . | trim | quote }}
{{- range $service := include "notify.services" . | fromYaml }}
NOTIFY_{{ $service.setting }}: {{ $service.port | toString | quote }}
{{- end }}
{{- with .Values.callbacks }}
{{- if .clientCertificateSecret }}
NOTIFY_CALLBACK_CLIENT_CERT: /etc/notify/callback/tls.crt
NOTIFY_CALLBACK_CLIENT_KEY: /etc/notify/callback/tls.key
{{- end }}
{{- if .caConfigMap }}
NOTIFY_CALLBACK_CA: /etc/notify/callback-ca/ca.crt
{{- end }}
{{- if .egressProxy.url }}
NOTIFY_EGRESS_PROXY: {{ .egressProxy.url | quote }}
{{- end }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- if not (kindIs "invalid" $value) }}
NOTIFY_{{ $name }}: {{ include "notify.written" $value | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* A value as an environment variable. Helm's numbers are floats, and a large one must not become 1e+08. */}}
{{- define "notify.written" -}}
{{- if kindIs "bool" . }}{{ ternary "1" "0" . }}
{{- else if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . }}
{{- else }}{{ . }}
{{- end }}
{{- end }}

{{/* Settings of one service, and those from Secrets. Takes the root context and the service's name. */}}
{{- define "notify.env" -}}
{{- $values := .root.Values }}
{{- $own := include "notify.secret" .root }}
- name: NOTIFY_REPLICA
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: NOTIFY_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ $values.redis.existingSecret | default $own }}
      key: {{ ternary (get $values.redis.keys .service | default $values.redis.key) "redis-url" (ne $values.redis.existingSecret "") }}
{{- $service := .service }}
{{- with $values.redis.jobs }}
{{- if or .url .existingSecret }}
- name: NOTIFY_JOBS_REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret | default $own }}
      key: {{ ternary (get .keys $service | default .key) "jobs-redis-url" (ne .existingSecret "") }}
{{- end }}
{{- end }}
{{- if and $values.callbacks.egressProxy.existingSecret (has .service (list "gateway" "webhook-dispatcher")) }}
- name: NOTIFY_EGRESS_PROXY
  valueFrom:
    secretKeyRef:
      name: {{ $values.callbacks.egressProxy.existingSecret }}
      key: {{ $values.callbacks.egressProxy.key }}
{{- end }}
{{- if eq .service "socket-edge" }}
- name: NOTIFY_DRAIN_DELAY_S
  value: {{ $values.socketEdge.drain.delaySeconds | toString | quote }}
- name: NOTIFY_DRAIN_WINDOW_S
  value: {{ $values.socketEdge.drain.windowSeconds | toString | quote }}
{{- end }}
{{- if eq .service "gateway" }}
- name: NOTIFY_ADMIN_TOKEN
  valueFrom:
    secretKeyRef: {{- include "notify.adminToken" .root | nindent 6 }}
{{- end }}
{{- end }}

{{- define "notify.adminToken" -}}
name: {{ .Values.adminToken.existingSecret | default (include "notify.secret" .) }}
key: {{ ternary .Values.adminToken.key "admin-token" (ne .Values.adminToken.existingSecret "") }}
{{- end }}
