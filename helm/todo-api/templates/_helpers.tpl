{{- define "todo.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "todo.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "todo.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "todo.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "todo.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ include "todo.name" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What selects the pods of a component: (dict "root" $ "component" "api") */}}
{{- define "todo.selector" -}}
app.kubernetes.io/name: {{ include "todo.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "todo.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "todo.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "todo.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Addresses: the demo's when it is on. */}}
{{- define "todo.databaseUrl" -}}
{{- if .Values.demo.enabled -}}
postgres://todo:demo@{{ include "todo.fullname" . }}-demo-postgres:5432/todo
{{- else -}}
{{- .Values.database.url -}}
{{- end -}}
{{- end -}}

{{- define "todo.redisUrl" -}}
{{- if .Values.demo.enabled -}}
redis://{{ include "todo.fullname" . }}-demo-valkey:6379/0
{{- else -}}
{{- .Values.redis.url -}}
{{- end -}}
{{- end -}}

{{- define "todo.kafkaBrokers" -}}
{{- if .Values.demo.enabled -}}
{{ include "todo.fullname" . }}-demo-kafka:9092
{{- else -}}
{{- .Values.kafka.brokers -}}
{{- end -}}
{{- end -}}

{{/* In the demo without a secret: the same at every upgrade, as the pods of a release must agree. Known to everyone. */}}
{{- define "todo.jwtSecret" -}}
{{- if .Values.auth.jwtSecret -}}
{{- .Values.auth.jwtSecret -}}
{{- else if and .Values.demo.enabled (not .Values.auth.existingSecret) (not .Values.auth.jwksUrl) -}}
{{- printf "demo %s %s" .Release.Namespace .Release.Name | sha256sum -}}
{{- end -}}
{{- end -}}

{{/* A credential as an environment variable: (dict "name" "DATABASE_URL" "existing" ... "key" ... "secret" ...) */}}
{{- define "todo.credential" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ default .secret .existing }}
      key: {{ ternary .key .name (ne .existing "") }}
{{- end -}}

{{- define "todo.databaseCredential" -}}
{{ include "todo.credential" (dict "name" "DATABASE_URL" "existing" .Values.database.existingSecret "key" .Values.database.existingSecretKey "secret" (include "todo.fullname" .)) }}
{{- end -}}

{{- define "todo.storeCredentials" -}}
{{ include "todo.databaseCredential" . }}
{{ include "todo.credential" (dict "name" "REDIS_URL" "existing" .Values.redis.existingSecret "key" .Values.redis.existingSecretKey "secret" (include "todo.fullname" .)) }}
{{- end -}}

{{- define "todo.authCredential" -}}
{{- if not .Values.auth.jwksUrl -}}
{{ include "todo.credential" (dict "name" "JWT_SECRET" "existing" .Values.auth.existingSecret "key" .Values.auth.existingSecretKey "secret" (include "todo.fullname" .)) }}
{{- end -}}
{{- end -}}

{{/* Who we are to Kafka, as environment variables: not in the ConfigMap, because the hook Job needs them, too. */}}
{{- define "todo.kafkaAccess" -}}
{{- $kafka := .Values.kafka -}}
{{- $sasl := $kafka.sasl -}}
- {name: KAFKA_SECURITY_PROTOCOL, value: {{ $kafka.securityProtocol }}}
{{- if $sasl.existingSecret }}
- {name: KAFKA_SASL_MECHANISM, value: {{ $sasl.mechanism }}}
{{- if $sasl.username }}
- {name: KAFKA_SASL_USERNAME, value: {{ $sasl.username | quote }}}
{{- else }}
{{ include "todo.credential" (dict "name" "KAFKA_SASL_USERNAME" "existing" $sasl.existingSecret "key" $sasl.existingSecretUsernameKey) }}
{{- end }}
{{ include "todo.credential" (dict "name" "KAFKA_SASL_PASSWORD" "existing" $sasl.existingSecret "key" $sasl.existingSecretPasswordKey) }}
{{- end }}
{{- if $kafka.tls.caSecret }}
- {name: KAFKA_SSL_CA_FILE, value: {{ printf "/etc/todo/kafka-ca/%s" $kafka.tls.caKey | quote }}}
{{- end }}
{{- if $kafka.tls.certSecret }}
- {name: KAFKA_SSL_CERT_FILE, value: {{ printf "/etc/todo/kafka-cert/%s" $kafka.tls.certKey | quote }}}
- {name: KAFKA_SSL_KEY_FILE, value: {{ printf "/etc/todo/kafka-cert/%s" $kafka.tls.keyKey | quote }}}
{{- end }}
{{- end -}}

{{- define "todo.kafkaMounts" -}}
{{- if .Values.kafka.tls.caSecret }}
- {name: kafka-ca, mountPath: /etc/todo/kafka-ca, readOnly: true}
{{- end }}
{{- if .Values.kafka.tls.certSecret }}
- {name: kafka-cert, mountPath: /etc/todo/kafka-cert, readOnly: true}
{{- end }}
{{- end -}}

{{- define "todo.kafkaVolumes" -}}
{{- with .Values.kafka.tls.caSecret }}
- {name: kafka-ca, secret: {secretName: {{ . | quote }}}}
{{- end }}
{{- with .Values.kafka.tls.certSecret }}
- {name: kafka-cert, secret: {secretName: {{ . | quote }}}}
{{- end }}
{{- end -}}

{{/* What every pod of ours has. */}}
{{- define "todo.podBasics" -}}
automountServiceAccountToken: false
# A Service named kafka or redis would set KAFKA_PORT=tcp://... for every pod.
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "todo.containerBasics" -}}
image: {{ include "todo.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end -}}

{{/* Changes whenever what a pod reads at its start changes. */}}
{{- define "todo.checksums" -}}
checksum/config: {{ include (print .Template.BasePath "/configmap.yaml") . | sha256sum }}
checksum/secret: {{ include (print .Template.BasePath "/secret.yaml") . | sha256sum }}
{{- end -}}

{{- define "todo.placement" -}}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.topologySpread }}
topologySpreadConstraints:
  {{- range . }}
  - {{- toYaml . | nindent 4 }}
    labelSelector:
      matchLabels:
        {{- include "todo.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What anybody may call, below these and at / itself. Figures are on a port of their own. */}}
{{- define "todo.publicPaths" -}}
{{- $paths := list "/todos" "/operations" "/problems" "/openapi.json" "/docs" "/assets" "/health" "/ready" -}}
{{- range $paths }}{{ $paths = append $paths (printf "/v1%s" .) }}{{ end -}}
{{- toJson $paths -}}
{{- end -}}
