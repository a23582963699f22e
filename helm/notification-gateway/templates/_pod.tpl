{{/* Parts of every pod. */}}

{{/*
What all pods of the chart have at the top of their spec. Takes root, and perhaps values (of a service) and security, in
place of pods.securityContext.
*/}}
{{- define "notify.podTop" -}}
{{- $pods := .root.Values.pods }}
{{- $values := .values | default dict }}
serviceAccountName: {{ include "notify.serviceAccount" .root }}
automountServiceAccountToken: false
# Otherwise a Service named "notify" sets NOTIFY_PORT=tcp://… in every pod.
enableServiceLinks: false
securityContext: {{- .security | default $pods.securityContext | toYaml | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $pods.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $pods.hostAliases }}
hostAliases: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pods.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with $pods.dnsConfig }}
dnsConfig: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A list of the operator's, for all services and for one: extraEnv, sidecars, … Takes root, values and key. */}}
{{- define "notify.extra" -}}
{{- with concat (index .root.Values.pods .key) (index .values .key) }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* Probes ask the process, never Redis: a short outage of Redis must not remove all replicas. */}}
{{- define "notify.probes" -}}
startupProbe:
  # Live, but not ready, while it waits for its first reply of Redis: a restart would not help.
  httpGet: {path: /livez, port: http}
  periodSeconds: 1
  timeoutSeconds: 3
  failureThreshold: 60
livenessProbe:
  # A restart closes all sockets, so an event loop that is busy for some seconds must not cause one.
  httpGet: {path: /livez, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}

{{/* The operator's certificates and authorities. Takes the root context and the service's name. */}}
{{- define "notify.mounts" -}}
{{- $values := .root.Values }}
{{- $calls := has .service (list "gateway" "webhook-dispatcher") }}
{{- if $values.redis.caSecret }}
- {name: redis-ca, mountPath: /etc/notify/redis-ca, readOnly: true}
{{- end }}
{{- if and $values.callbacks.clientCertificateSecret $calls }}
- {name: callback, mountPath: /etc/notify/callback, readOnly: true}
{{- end }}
{{- if and $values.callbacks.caConfigMap $calls }}
- {name: callback-ca, mountPath: /etc/notify/callback-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "notify.volumes" -}}
{{- $values := .root.Values }}
{{- $calls := has .service (list "gateway" "webhook-dispatcher") }}
{{- if $values.redis.caSecret }}
- name: redis-ca
  secret: {secretName: {{ $values.redis.caSecret }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- if and $values.callbacks.clientCertificateSecret $calls }}
- name: callback
  secret: {secretName: {{ $values.callbacks.clientCertificateSecret }}, defaultMode: 0440}
{{- end }}
{{- if and $values.callbacks.caConfigMap $calls }}
- name: callback-ca
  configMap: {name: {{ $values.callbacks.caConfigMap }}, items: [{key: ca.crt, path: ca.crt}]}
{{- end }}
{{- end }}
