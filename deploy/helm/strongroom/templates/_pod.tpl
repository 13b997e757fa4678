{{/* What the server's pod and the job that makes the store have in common. */}}

{{- define "strongroom.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "strongroom.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "strongroom.placement" -}}
serviceAccountName: {{ include "strongroom.serviceAccount" . }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A mounted secret for its owner alone: (dict "root" $ "name" "keyring" "to" "/run/strongroom/keyring" "file" "root.key" "key" KEY). */}}
{{- define "strongroom.copy" -}}
- name: own-{{ .name }}
  image: {{ include "strongroom.copyImage" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command:
    - sh
    - -ec
    - umask 077; rm -rf "$2"; mkdir "$2"; cp "$1" "$2/$3"; chmod 0400 "$2/$3"
    - copy
    - {{ printf "/mounted/%s" .key | quote }}
    - {{ .to }}/own
    - {{ .file }}
  resources:
    requests:
      cpu: 10m
      memory: 8Mi
    limits:
      memory: 32Mi
  securityContext:
    {{- include "strongroom.containerSecurity" .root | nindent 4 }}
  volumeMounts:
    - name: mounted-{{ .name }}
      mountPath: /mounted
      readOnly: true
    - name: {{ .name }}
      mountPath: {{ .to }}
{{- end -}}

{{- define "strongroom.initContainers" -}}
{{- if eq .Values.root.provider "file" }}
{{ include "strongroom.copy" (dict "root" . "name" "keyring" "to" "/run/strongroom/keyring" "file" "root.key" "key" .Values.root.file.key) }}
{{- else if and (eq .Values.root.provider "transit") (eq .Values.root.transit.auth "token") }}
{{ include "strongroom.copy" (dict "root" . "name" "transit" "to" "/run/strongroom/transit" "file" "token" "key" .Values.root.transit.token.key) }}
{{- else if and (eq .Values.root.provider "kms") (not .Values.root.kms.hostPath) }}
{{- with .Values.root.kms.sidecar }}
- name: kms
  image: {{ required "root.kms.sidecar.image or root.kms.hostPath is required with root.provider=kms" .image }}
  imagePullPolicy: {{ $.Values.image.pullPolicy }}
  restartPolicy: Always
  {{- with .args }}
  args:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .envFromSecret }}
  envFrom:
    - secretRef:
        name: {{ . }}
  {{- end }}
  resources:
    {{- toYaml .resources | nindent 4 }}
  securityContext:
    {{- include "strongroom.containerSecurity" $ | nindent 4 }}
  volumeMounts:
    - name: kms
      mountPath: /run/kms
    {{- if .secretName }}
    - name: kms-secret
      mountPath: /etc/kms
      readOnly: true
    {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "strongroom.mounts" -}}
- name: config
  mountPath: /etc/strongroom/config
  readOnly: true
- name: tls
  mountPath: /etc/strongroom/tls
  readOnly: true
- name: recovery
  mountPath: /etc/strongroom/recovery
  readOnly: true
- name: store
  mountPath: /var/lib/strongroom
{{- if .Values.anchor.existingClaim }}
- name: anchor
  mountPath: /var/lib/strongroom-anchor
{{- end }}
{{- if .Values.tls.clientCa.secretName }}
- name: client-ca
  mountPath: /etc/strongroom/client-ca
  readOnly: true
{{- end }}
{{- if eq .Values.root.provider "file" }}
- name: keyring
  mountPath: /run/strongroom/keyring
  readOnly: true
{{- else if eq .Values.root.provider "kms" }}
- name: kms
  mountPath: /run/kms
{{- else }}
- name: transit-ca
  mountPath: /etc/strongroom/transit-ca
  readOnly: true
{{- if eq .Values.root.transit.auth "token" }}
- name: transit
  mountPath: /run/strongroom/transit
  readOnly: true
{{- else }}
- name: jwt
  mountPath: /run/strongroom/jwt
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{- define "strongroom.volumes" -}}
- name: config
  configMap:
    name: {{ include "strongroom.name" . }}
- name: tls
  secret:
    secretName: {{ .Values.tls.secretName }}
    defaultMode: 0440
    items:
      - key: tls.crt
        path: tls.crt
      - key: tls.key
        path: tls.key
- name: recovery
  configMap:
    name: {{ .Values.root.recovery.configMapName }}
- name: store
  persistentVolumeClaim:
    claimName: {{ include "strongroom.claim" . }}
{{- with .Values.anchor.existingClaim }}
- name: anchor
  persistentVolumeClaim:
    claimName: {{ . }}
{{- end }}
{{- with .Values.tls.clientCa }}
{{- if .secretName }}
- name: client-ca
  secret:
    secretName: {{ .secretName }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: {{ .key }}
{{- end }}
{{- end }}
{{- include "strongroom.volumes.root" . }}
{{- end -}}

{{- define "strongroom.volumes.owned" }}
- name: mounted-{{ .name }}
  secret:
    secretName: {{ .secret }}
    defaultMode: 0440
    items:
      - key: {{ .key }}
        path: {{ .key }}
- name: {{ .name }}
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
{{- end -}}

{{- define "strongroom.volumes.root" -}}
{{- with .Values.root }}
{{- if eq .provider "file" }}
{{- include "strongroom.volumes.owned" (dict "name" "keyring" "secret" .file.secretName "key" .file.key) }}
{{- else if eq .provider "kms" }}
- name: kms
  {{- if .kms.hostPath }}
  hostPath:
    path: {{ .kms.hostPath }}
    type: Directory
  {{- else }}
  emptyDir:
    medium: Memory
    sizeLimit: 1Mi
  {{- end }}
{{- if and .kms.sidecar.secretName (not .kms.hostPath) }}
- name: kms-secret
  secret:
    secretName: {{ .kms.sidecar.secretName }}
    defaultMode: 0440
{{- end }}
{{- else }}
- name: transit-ca
  configMap:
    name: {{ .transit.caConfigMapName }}
{{- if eq .transit.auth "token" }}
{{- include "strongroom.volumes.owned" (dict "name" "transit" "secret" .transit.token.secretName "key" .transit.token.key) }}
{{- else }}
- name: jwt
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ .transit.kubernetes.audience }}
          expirationSeconds: 600
{{- end }}
{{- end }}
{{- end }}
{{- end -}}
