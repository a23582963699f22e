{{/* The API's paths, for Ingress and HTTPRoute: path and its type. */}}

{{/*
Of held connections, which the edges serve. /v1/socket and /v1/stream are exact: /v1/sockets, /v1/streams and what is
below it are the gateways'.
*/}}
{{- define "notify.heldPaths" -}}
/v1/socket: Exact
/v1/stream: Exact
/v2/notification/websocket-connect: Prefix
/v2/notification/pull: Prefix
/api/v1/websocket: Exact
{{- end }}

{{/* Of short requests, which the gateways serve. */}}
{{- define "notify.restPaths" -}}
/v1: Prefix
/v2: Prefix
/api: Prefix
/openapi.json: Exact
/asyncapi.json: Exact
{{- end }}
