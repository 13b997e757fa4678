{{/* The server's configuration. Values are written as JSON strings, which are TOML strings. */}}
{{- define "strongroom.toml" -}}
{{- with .Values.config -}}
[listen]
data = {{ printf "%s:7443" .address | toJson }}
admin = {{ printf "%s:7444" .address | toJson }}
health = {{ printf "%s:9443" .address | toJson }}

[tls]
certificate = "/etc/strongroom/tls/tls.crt"
key = "/etc/strongroom/tls/tls.key"
{{- if $.Values.tls.clientCa.secretName }}
client_ca = {{ printf "/etc/strongroom/client-ca/%s" $.Values.tls.clientCa.key | toJson }}
{{- end }}
allow_tls12 = {{ $.Values.tls.allowTls12 }}

[store]
engine = "sled"
path = "/var/lib/strongroom/store"
cache = {{ .cache | toJson }}

{{ include "strongroom.toml.root" $ }}

[limits]
max_value = {{ .maxValue | toJson }}
max_connections = {{ int .maxConnections }}
max_requests = {{ int .maxRequests }}
max_streams = {{ int .maxStreams }}
max_opened_sessions = {{ int .maxOpenedSessions }}
request_timeout = "{{ int .requestTimeoutSeconds }}s"
connection_age = "{{ int .connectionAgeMinutes }}m"
drain_timeout = "{{ int .drainTimeoutSeconds }}s"

[approvals]
required = {{ .approvalsRequired }}
{{- if $.Values.anchor.existingClaim }}

[audit]
anchor = "/var/lib/strongroom-anchor/checkpoints"
{{- end }}

[redaction]
policy = {{ .redactionPolicy | toJson }}

[log]
format = "json"
level = {{ .logLevel | toJson }}
{{- end }}
{{- end -}}

{{- define "strongroom.toml.root" -}}
[root]
provider = {{ .Values.root.provider | toJson }}
{{- if eq .Values.root.provider "file" }}
keyring = "/run/strongroom/keyring/own/root.key"
{{- else if eq .Values.root.provider "kms" }}
socket = {{ printf "/run/kms/%s" .Values.root.kms.socketName | toJson }}
timeout = "{{ int .Values.root.kms.timeoutSeconds }}s"
{{- else }}
{{- with .Values.root.transit }}
address = {{ required "root.transit.address is required with root.provider=transit" .address | toJson }}
ca = {{ printf "/etc/strongroom/transit-ca/%s" .caKey | toJson }}
mount = {{ .mount | toJson }}
key = {{ .key | toJson }}
{{- if .namespace }}
namespace = {{ .namespace | toJson }}
{{- end }}
associated_data = {{ .associatedData }}
auth = {{ .auth | toJson }}
{{- if eq .auth "token" }}
token = "/run/strongroom/transit/own/token"
{{- else }}
auth_mount = {{ .kubernetes.mount | toJson }}
role = {{ .kubernetes.role | toJson }}
jwt = "/run/strongroom/jwt/token"
{{- end }}
timeout = "{{ int .timeoutSeconds }}s"
{{- end }}
{{- end }}
recovery = [{{ range $i, $key := .Values.root.recovery.keys }}{{ if $i }}, {{ end }}{{ printf "/etc/strongroom/recovery/%s" $key | toJson }}{{ end }}]
{{- end -}}
