{{- define "strongroom.name" -}}
{{- if .Values.fullnameOverride -}}{{ .Values.fullnameOverride }}
{{- else if contains "strongroom" .Release.Name -}}{{ .Release.Name | trunc 42 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-strongroom" (.Release.Name | trunc 31 | trimSuffix "-") }}
{{- end -}}
{{- end -}}

{{- define "strongroom.selector" -}}
app.kubernetes.io/name: strongroom
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "strongroom.labels" -}}
{{ include "strongroom.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "strongroom.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "strongroom.copyImage" -}}
{{- with .Values.copyImage -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end -}}
{{- end -}}

{{- define "strongroom.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (ternary (include "strongroom.name" .) "default" .Values.serviceAccount.create) }}
{{- end -}}

{{- define "strongroom.claim" -}}
{{ .Values.persistence.existingClaim | default (printf "%s-store" (include "strongroom.name" .)) }}
{{- end -}}

{{/* Names in the certificate: each service, short and in full. */}}
{{- define "strongroom.dnsNames" -}}
{{- $name := include "strongroom.name" . -}}
{{- range list $name (printf "%s-admin" $name) (printf "%s-metrics" $name) (printf "%s-headless" $name) }}
- {{ . }}
- {{ . }}.{{ $.Release.Namespace }}.svc
{{- end }}
- {{ printf "*.%s-headless.%s.svc" $name .Release.Namespace | quote }}
{{- end -}}
