{{/* What every service may connect to: DNS, Redis, and the collector if there is one. */}}
{{- define "notify.egress" -}}
{{- $policy := .Values.networkPolicy }}
{{ include "notify.egressToDns" . }}
{{- if .Values.redis.own.enabled }}
- to:
    - podSelector:
        matchLabels:
          {{- include "notify.selector" . | nindent 10 }}
          app.kubernetes.io/component: redis
  ports: [{protocol: TCP, port: 6379}]
{{- end }}
{{- if or (not .Values.redis.own.enabled) .Values.redis.jobs.url .Values.redis.jobs.existingSecret }}
{{- $ports := list }}
{{- range $policy.redis.ports }}{{ $ports = append $ports (int .) }}{{ end }}
{{- if contains "+sentinel://" (print .Values.redis.url .Values.redis.jobs.url) }}{{ $ports = append $ports 26379 | uniq }}{{ end }}
- ports:
    {{- range $ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with $policy.redis.peers }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- with $policy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- if .Values.settings.OTLP_URL }}
- ports:
    {{- range $policy.collector.ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with $policy.collector.peers }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "notify.egressToDns" -}}
- to: {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    {{- range .Values.networkPolicy.dnsPorts }}
    - {protocol: UDP, port: {{ . | int }}}
    - {protocol: TCP, port: {{ . | int }}}
    {{- end }}
{{- end }}

{{/* The egress proxy alone, if there is one. Else the internet without private networks, by the same rule as the code; networks that the operator opens are open here. */}}
{{- define "notify.egressToCustomers" -}}
{{- if or .Values.callbacks.egressProxy.url .Values.callbacks.egressProxy.existingSecret }}
- ports:
    {{- range .Values.networkPolicy.egressProxy.ports }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- with .Values.networkPolicy.egressProxy.peers }}
  to: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- else }}
{{- $private := .Values.networkPolicy.privateNetworks }}
{{- $opened := .Values.settings.ALLOW_PRIVATE_CALLBACKS | default "" | toString }}
{{- if has $opened (list "1" "true" "True") }}
- to:
    - ipBlock: {cidr: 0.0.0.0/0, except: [169.254.0.0/16]}
    - ipBlock: {cidr: "::/0", except: ["fe80::/10"]}
{{- else }}
- to:
    - ipBlock: {cidr: 0.0.0.0/0, except: {{ toJson $private.ipv4 }}}
    - ipBlock: {cidr: "::/0", except: {{ toJson $private.ipv6 }}}
    {{- if not (has $opened (list "" "0" "false" "False")) }}
    {{- range splitList "," $opened }}
    {{- $network := trim . }}
    {{- /* An address without a length means itself. */}}
    {{- $length := ternary "" (ternary "/128" "/32" (contains ":" $network)) (contains "/" $network) }}
    - ipBlock: {cidr: {{ printf "%s%s" $network $length | quote }}}
    {{- end }}
    {{- end }}
{{- end }}
{{- end }}
{{- end }}
