{{/* Labels of every object. */}}
{{- define "clearance.labels" -}}
app.kubernetes.io/name: clearance
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: clearance
{{- end }}

{{/* What selects the pods of one process: (dict "root" $ "name" "web"). */}}
{{- define "clearance.selector" -}}
app.kubernetes.io/name: clearance
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "clearance.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "clearance.otlpUrl" -}}
{{ .Values.otlpUrl | default (printf "http://clearance-otlp.%s.svc:4318" .Release.Namespace) }}
{{- end }}

{{/* Host names that the pages answer to. */}}
{{- define "clearance.allowedHosts" -}}
{{- $own := list "clearance-web" (printf "clearance-web.%s" .Release.Namespace) (printf "clearance-web.%s.svc" .Release.Namespace) "localhost" -}}
{{- $public := (urlParse .Values.webUrl).hostname -}}
{{- concat (list $public) $own .Values.allowedHosts | uniq | join "," -}}
{{- end }}

{{/* Namespaces whose agents may run as root. */}}
{{- define "clearance.rootNamespaces" -}}
{{- $names := list -}}
{{- range .Values.governedNamespaces }}{{ if .allowRoot }}{{ $names = append $names .name }}{{ end }}{{ end -}}
{{- join "," $names -}}
{{- end }}

{{- define "clearance.nodeNamespace" -}}
{{ .Values.node.namespace | default .Release.Namespace }}
{{- end }}

{{/* Where nodes report; empty where they write to the database themselves. */}}
{{- define "clearance.reportTo" -}}
{{- if .Values.node.reportTo -}}
{{ .Values.node.reportTo | eq "database" | ternary "" .Values.node.reportTo }}
{{- else if hasPrefix "https://" .Values.webUrl -}}
{{ .Values.webUrl }}
{{- end -}}
{{- end }}

{{/* Variables of every process: secrets are files, the rest stands here. (dict "root" $ "secrets" list) */}}
{{- define "clearance.environment" -}}
{{- $values := .root.Values -}}
- {name: WEB_URL, value: {{ $values.webUrl | quote }}}
- {name: OTLP_URL, value: {{ include "clearance.otlpUrl" .root | quote }}}
- {name: ALLOWED_HOSTS, value: {{ include "clearance.allowedHosts" .root | quote }}}
- {name: CLUSTER_URL, value: "kubernetes:in-cluster"}
- {name: TRUST_DOMAIN_URL, value: {{ printf "local:%s" $values.trustDomain | quote }}}
- {name: LOG_LEVEL, value: {{ $values.logLevel | quote }}}
- {name: NODE_SERVICE_ACCOUNT, value: "{{ include "clearance.nodeNamespace" .root }}/clearance-node"}
- {name: CLEARANCE_DATA, value: /var/lib/clearance}
- {name: CLEARANCE_READY_FILE, value: /run/clearance/ready}
{{- with include "clearance.rootNamespaces" .root }}
- {name: WORKLOAD_ROOT_NAMESPACES, value: {{ . | quote }}}
{{- end }}
{{- range $key := .secrets }}
{{- if has $key $values.secret.keys }}
- {name: {{ $key }}_FILE, value: /etc/clearance/{{ $key }}}
{{- end }}
{{- end }}
{{- range $name, $value := $values.environment }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{/* What the namespace label pod-security.kubernetes.io/enforce=restricted asks for. */}}
{{- define "clearance.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch # keys must stay their owner's alone
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "clearance.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "clearance.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: run, mountPath: /run/clearance}
- {name: state, mountPath: /var/lib/clearance}
{{- if not .bare }}
- {name: secrets, mountPath: /etc/clearance, readOnly: true}
{{- end }}
{{- end }}

{{/* (dict "root" $ "secrets" list "state" bool) */}}
{{- define "clearance.volumes" -}}
- {name: tmp, emptyDir: {sizeLimit: 1Gi}}
- {name: run, emptyDir: {sizeLimit: 1Mi}}
{{- if .state }}
- name: state
  persistentVolumeClaim: {claimName: {{ .root.Values.state.existingClaim | default "clearance-state" }}}
{{- else if not .claim }}
- {name: state, emptyDir: {sizeLimit: 2Gi}}
{{- end }}
{{- if not .bare }}
- name: secrets
  secret:
    secretName: {{ .root.Values.secret.name }}
    defaultMode: 0440
    items:
    {{- range $key := .secrets }}
    {{- if has $key $.root.Values.secret.keys }}
      - {key: {{ $key }}, path: {{ $key }}}
    {{- end }}
    {{- end }}
{{- end }}
{{- end }}

{{/*
The pod of one process. (dict "root" $ "name" "web" "command" list "secrets" list "ports" list
"state" bool "account" bool "waits" bool "bare" bool "claim" dict "hostPID" bool "probes" yaml "environment" yaml)
*/}}
{{- define "clearance.pod" -}}
{{- $settings := index .root.Values .name -}}
metadata:
  labels:
    {{- include "clearance.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
    {{- if .state }}
    orchestration.ai/state: {{ .root.Release.Name }}
    {{- end }}
spec:
  serviceAccountName: clearance-{{ .name }}
  {{- if .hostPID }}
  hostPID: true
  {{- end }}
  automountServiceAccountToken: {{ .account | default false }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: 30
  {{- with .root.Values.imagePullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  securityContext: {{- include "clearance.podSecurity" .root | nindent 4 }}
  {{- if .waits }}
  initContainers:
    - name: wait
      image: {{ include "clearance.image" .root }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command: [python, manage.py]
      args: [init, --wait]
      env: {{- include "clearance.environment" . | nindent 8 }}
      resources: {requests: {cpu: 20m, memory: 128Mi}, limits: {memory: 384Mi}}
      securityContext: {{- include "clearance.containerSecurity" .root | nindent 8 }}
      volumeMounts: {{- include "clearance.mounts" . | nindent 8 }}
  {{- end }}
  containers:
    - name: {{ .name }}
      image: {{ include "clearance.image" .root }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      command: [python, manage.py]
      args: {{ toJson .command }}
      env:
        {{- include "clearance.environment" . | nindent 8 }}
        {{- with .environment }}
        {{- . | nindent 8 }}
        {{- end }}
      {{- with .ports }}
      ports:
        {{- range . }}
        - {{ toJson . }}
        {{- end }}
      {{- end }}
      {{- with .probes }}
      {{- . | nindent 6 }}
      {{- end }}
      resources: {{- toYaml $settings.resources | nindent 8 }}
      securityContext: {{- include "clearance.containerSecurity" .root | nindent 8 }}
      volumeMounts:
        {{- include "clearance.mounts" . | nindent 8 }}
        {{- with .mounts }}
        {{- . | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "clearance.volumes" . | nindent 4 }}
    {{- with .moreVolumes }}
    {{- . | nindent 4 }}
    {{- end }}
  {{- with $settings.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .state }}
  affinity: # one node: the signing log is a database file in write-ahead mode
    podAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        - topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels: {orchestration.ai/state: {{ .root.Release.Name }}}
  {{- else if .spreads }}
  topologySpreadConstraints:
    {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "clearance.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
{{- end }}

{{/* A Deployment of such a pod, and its disruption budget where there is more than one. */}}
{{- define "clearance.deployment" -}}
{{- $claim := .claim | default dict -}}
{{- $replicas := (index .root.Values .name).replicas | default 1 | int -}}
{{- $pod := merge (dict "spreads" (gt $replicas 1)) . -}}
apiVersion: apps/v1
kind: {{ $claim | empty | ternary "Deployment" "StatefulSet" }}
metadata:
  name: clearance-{{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "clearance.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
spec:
  replicas: {{ $replicas }}
  revisionHistoryLimit: 3
  {{- if $claim }}
  serviceName: clearance-{{ .name }}
  podManagementPolicy: Parallel
  updateStrategy: {type: RollingUpdate}
  persistentVolumeClaimRetentionPolicy: {whenDeleted: Retain, whenScaled: Retain}
  volumeClaimTemplates:
    - metadata: {name: state}
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $claim.storageClassName }}
        storageClassName: {{ . }}
        {{- end }}
        resources: {requests: {storage: {{ $claim.size }}}}
  {{- else }}
  strategy:
    {{- if .alone }}
    type: Recreate
    {{- else }}
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
    {{- end }}
  {{- end }}
  selector:
    matchLabels: {{- include "clearance.selector" . | nindent 6 }}
  template: {{- include "clearance.pod" $pod | nindent 4 }}
{{- if gt $replicas 1 }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: clearance-{{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "clearance.labels" .root | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "clearance.selector" . | nindent 6 }}
{{- end }}
{{- end }}

{{/*
Probes of a server, asked as the outside would. "alive" is a path that it answers without its
database: a restart would not bring that back. (dict "root" $ "port" "http" "alive" "/path")
*/}}
{{- define "clearance.httpProbes" -}}
{{- $public := urlParse .root.Values.webUrl -}}
{{- $headers := list (dict "name" "Host" "value" $public.hostname) (dict "name" "X-Forwarded-Proto" "value" $public.scheme) -}}
{{- $get := dict "path" "/healthz" "port" .port "httpHeaders" $headers -}}
{{- $alive := dict "path" .alive "port" .port "httpHeaders" $headers -}}
startupProbe: {{ toJson (dict "httpGet" $get "periodSeconds" 2 "timeoutSeconds" 5 "failureThreshold" 60) }}
readinessProbe: {{ toJson (dict "httpGet" $get "periodSeconds" 5 "timeoutSeconds" 5 "failureThreshold" 2) }}
livenessProbe: {{ toJson (dict "httpGet" $alive "periodSeconds" 10 "timeoutSeconds" 5 "failureThreshold" 6) }}
lifecycle: # requests come until every node has heard that this pod ends
  preStop: {exec: {command: [sleep, "5"]}}
{{- end }}

{{/* Probes of a process that touches its file while it works. */}}
{{- define "clearance.fileProbes" -}}
{{- $is := dict "exec" (dict "command" (list "test" "-e" "/run/clearance/ready")) -}}
{{- $fresh := dict "exec" (dict "command" (list "sh" "-c" "test -n \"$(find /run/clearance/ready -mmin -5)\"")) -}}
startupProbe: {{ toJson (merge (dict "periodSeconds" 2 "timeoutSeconds" 5 "failureThreshold" 60) $is) }}
readinessProbe: {{ toJson (merge (dict "periodSeconds" 10 "timeoutSeconds" 5) $is) }}
# Five minutes without a sign of life: hung, or it lost its connection and never noticed.
livenessProbe: {{ toJson (merge (dict "periodSeconds" 60 "timeoutSeconds" 5 "failureThreshold" 2) $fresh) }}
{{- end }}

{{/* Who acts as these processes: outside of the cluster one account is all of them. (dict "root" $ "names" list) */}}
{{- define "clearance.subjects" -}}
{{- $names := .root.Values.external.enabled | ternary (list "tower") .names -}}
{{- range $names }}
- {kind: ServiceAccount, name: clearance-{{ . }}, namespace: {{ $.root.Release.Namespace }}}
{{- end }}
{{- end }}
