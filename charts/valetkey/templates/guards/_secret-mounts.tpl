{{- /*
The operator sees the pods that carry the label, and delivers to a pod only if no other that it sees names the same Secret: so
every pod that names one carries the label, for as long as it lives.
*/}}
{{- define "valetkey.guard.secret-mounts" -}}
matchConstraints:
  resourceRules:
  - {apiGroups: [""], apiVersions: ["*"], operations: [CREATE], resources: [pods, pods/binding, bindings]}
  - apiGroups: [""]
    apiVersions: ["*"]
    operations: [UPDATE]
    resources: [pods, pods/ephemeralcontainers, pods/resize, pods/status]
matchConditions:
# Updates matter if they can name a Secret or take the label away; so the kubelet's are not looked at.
- name: matters
  expression: >-
    request.operation == "CREATE" || request.?subResource.orValue("") == "ephemeralcontainers"
    || object.metadata.?labels[?"valetkey.dev/agent"] != oldObject.metadata.?labels[?"valetkey.dev/agent"]
variables:
- name: binding
  expression: request.resource.resource == "bindings" || request.?subResource.orValue("") == "binding"
- name: volumes
  expression: >-
    object.spec.?volumes.orValue([]).exists(v, v.?secret.?secretName.orValue("").startsWith("valetkey-")
    || v.?projected.?sources.orValue([]).exists(s, s.?secret.?name.orValue("").startsWith("valetkey-")))
- name: otherVolumes
  expression: >-
    object.spec.?volumes.orValue([]).exists(v,
    [?v.?csi.?nodePublishSecretRef.?name, ?v.?flexVolume.?secretRef.?name, ?v.?azureFile.?secretName,
    ?v.?cephfs.?secretRef.?name, ?v.?cinder.?secretRef.?name, ?v.?iscsi.?secretRef.?name, ?v.?rbd.?secretRef.?name,
    ?v.?scaleIO.?secretRef.?name, ?v.?storageos.?secretRef.?name].exists(n, n.startsWith("valetkey-")))
- name: containers
  expression: >-
    (object.spec.containers + object.spec.?initContainers.orValue([]) + object.spec.?ephemeralContainers.orValue([])).exists(c,
    c.?env.orValue([]).exists(e, e.?valueFrom.?secretKeyRef.?name.orValue("").startsWith("valetkey-"))
    || c.?envFrom.orValue([]).exists(e, e.?secretRef.?name.orValue("").startsWith("valetkey-")))
- name: pulls
  expression: object.spec.?imagePullSecrets.orValue([]).exists(s, s.?name.orValue("").startsWith("valetkey-"))
validations:
- expression: '!variables.binding || object.metadata.?labels.orValue({}).all(k, !k.startsWith("valetkey.dev/"))'
  message: a Binding, whose labels become its pod's, says nothing of valetkey's labels
- expression: variables.binding || !(variables.otherVolumes || variables.containers || variables.pulls)
  message: a Secret beginning with valetkey- is mounted as a secret or projected volume and named nowhere else
- expression: >-
    variables.binding || object.metadata.?labels[?"valetkey.dev/agent"].orValue("") == "true"
    || !variables.volumes
  message: 'a pod that names a Secret beginning with valetkey- carries the label valetkey.dev/agent: "true", always'
{{- end }}
