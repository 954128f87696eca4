{{/* What selects the pods of one version; never changes, since Kubernetes forbids it. */}}
{{- define "service.selector" -}}
app.kubernetes.io/name: {{ . }}
{{- end }}

{{- define "service.labels" -}}
{{ include "service.selector" .name }}
app.kubernetes.io/part-of: kilo
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
kilo.dev/service: {{ default .root.Release.Name .service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* The hardened pod of name. Takes root, digest, restart, arguments, the database's secret, and an account of its own. */}}
{{- define "service.pod" -}}
{{- $values := .root.Values -}}
serviceAccountName: {{ default .root.Release.Name .account }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
terminationGracePeriodSeconds: {{ add $values.probes.stopSeconds $values.probes.drainSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
{{- if eq .restart "Always" }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "service.selector" $.name | nindent 8 }}
  {{- end }}
{{- end }}
restartPolicy: {{ .restart }}
containers:
  - name: service
    image: "{{ $values.image.repository }}@{{ .digest }}"
    imagePullPolicy: IfNotPresent
    {{- with .arguments }}
    args: {{ toJson . }}
    {{- end }}
    env:
      - name: POD_IP
        valueFrom:
          fieldRef:
            fieldPath: status.podIP
      - name: PORT
        value: {{ $values.port | quote }}
      - name: KILO_OUTPUTS
        value: {{ $values.outputs.path }}
      - name: KILO_LOG
        value: json
      {{- range $name, $value := $values.environment }}
      - name: {{ $name }}
        value: {{ $value | quote }}
      {{- end }}
      {{- with .secret }}
      - name: DATABASE_URL
        valueFrom:
          secretKeyRef:
            name: {{ . }}
            key: DATABASE_URL
      {{- /* There if the stage's database has them; libpq asks for them where the URL says sslmode=verify-full. */}}
      {{- if not (hasKey $values.environment "PGSSLROOTCERT") }}
      - name: PGSSLROOTCERT
        value: {{ dir $values.outputs.path }}/database-ca.crt
      {{- end }}
      {{- end }}
      {{- if and $values.bus.secret (eq .restart "Always") }}
      {{- if eq $values.bus.shown "certificate" }}
      - name: KILO_BUS_CERTIFICATE
        value: /etc/kilo-bus/tls.crt
      - name: KILO_BUS_KEY
        value: /etc/kilo-bus/tls.key
      {{- else if eq $values.bus.shown "aws-msk-iam" }}
      - name: KILO_BUS_AWS_REGION
        value: {{ $values.bus.mskRegion | quote }}
      {{- else }}
      {{- range list "KILO_BUS_USER" "KILO_BUS_PASSWORD" }}
      - name: {{ . }}
        valueFrom:
          secretKeyRef:
            name: {{ $values.bus.secret }}
            key: {{ . }}
      {{- end }}
      {{- end }}
      {{- if eq $values.bus.shown "token" }}
      - name: KILO_BUS_TOKEN_CA
        value: /etc/kilo-bus/token-ca.pem
      - name: KILO_BUS_TOKEN_URL
        value: {{ $values.bus.tokens.endpoint | quote }}
      - name: KILO_BUS_TOKEN_SCOPE
        value: {{ $values.bus.tokens.scope | quote }}
      {{- end }}
      # Of NATS; the brokers of a Kafka each have a name of their own.
      - name: KILO_BUS_NAME
        valueFrom:
          secretKeyRef:
            name: {{ $values.bus.secret }}
            key: KILO_BUS_NAME
            optional: true
      - name: KILO_BUS_CA
        value: /etc/kilo-bus/ca.pem
      {{- end }}
      {{- range $name, $from := $values.secrets }}
      - name: {{ $name }}
        valueFrom:
          secretKeyRef:
            name: {{ $from.secret }}
            key: {{ $from.key }}
      {{- end }}
    {{- if eq .restart "Always" }}
    ports:
      - name: http
        containerPort: {{ $values.port }}
        protocol: TCP
    startupProbe:
      httpGet: {path: /livez, port: http}
      periodSeconds: 1
      timeoutSeconds: 2
      failureThreshold: {{ $values.probes.startSeconds }}
    livenessProbe:
      httpGet: {path: /livez, port: http}
      periodSeconds: 10
      timeoutSeconds: 2
      failureThreshold: 3
    readinessProbe:
      httpGet: {path: /readyz, port: http}
      periodSeconds: 2
      timeoutSeconds: 2
      failureThreshold: 2
    {{- if and (eq $values.kind "http") (gt (int $values.probes.drainSeconds) 0) }}
    lifecycle:
      preStop:
        sleep:
          seconds: {{ $values.probes.drainSeconds }}
    {{- end }}
    {{- end }}
    resources:
      requests:
        cpu: {{ $values.resources.cpuMillicores }}m
        memory: {{ $values.resources.memoryMebibytes }}Mi
      # No CPU limit: throttling adds latency and frees nothing that a request doesn't share already.
      limits:
        memory: {{ $values.resources.memoryMebibytes }}Mi
    securityContext:
      allowPrivilegeEscalation: false
      privileged: false
      readOnlyRootFilesystem: true
      runAsNonRoot: true
      capabilities:
        drop: [ALL]
    volumeMounts:
      - name: outputs
        mountPath: {{ dir $values.outputs.path }}
        readOnly: true
      - name: flags
        mountPath: /etc/kilo-flags
        readOnly: true
      {{- if and $values.bus.secret (eq .restart "Always") }}
      - name: bus
        mountPath: /etc/kilo-bus
        readOnly: true
      {{- end }}
      - name: scratch
        mountPath: /tmp
volumes:
  - name: outputs
    configMap:
      name: {{ $values.outputs.configMap }}
  # The weights of the stage's features alone, of what the gateway reads; a stage without a gateway has none.
  - name: flags
    configMap:
      name: {{ $values.flags.configMap }}
      optional: true
      items:
        - key: flags.json
          path: flags.json
  {{- if and $values.bus.secret (eq .restart "Always") }}
  - name: bus
    secret:
      secretName: {{ $values.bus.secret }}
      defaultMode: 0440
      items:
        - key: ca.pem
          path: ca.pem
        {{- if eq $values.bus.shown "certificate" }}
        - key: tls.crt
          path: tls.crt
        - key: tls.key
          path: tls.key
        {{- end }}
        {{- if eq $values.bus.shown "token" }}
        - key: token-ca.pem
          path: token-ca.pem
        {{- end }}
  {{- end }}
  - name: scratch
    emptyDir:
      sizeLimit: {{ $values.scratchMebibytes }}Mi
{{- end }}

{{- define "service.before" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation
{{- end }}

{{/* DNS and the database. */}}
{{- define "service.egress" -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- if and .Values.database.secret .Values.database.network }}
- to:
    - ipBlock: {cidr: {{ .Values.database.network | quote }}}
  ports:
    - {port: {{ .Values.database.port }}, protocol: TCP}
{{- end }}
{{- end }}
