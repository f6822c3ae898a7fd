{{- /*
With a pod template a grant would become any account of the namespace. The accounts of grants may change workloads, not what
they run; valetkey-t-… are those whose policy accepted the risk PodTemplates.
*/}}
{{- define "valetkey.guard.grant-accounts" -}}
{{- $accounts := printf "system:serviceaccount:%s:" .Values.grantsNamespace }}
matchConstraints:
  resourceRules:
  - apiGroups: [""]
    apiVersions: ["*"]
    operations: [CREATE, UPDATE]
    resources: [pods, pods/status, pods/ephemeralcontainers, replicationcontrollers, podtemplates]
  - {apiGroups: [apps, batch], apiVersions: ["*"], operations: [CREATE, UPDATE], resources: ["*"]}
matchConditions:
- name: grant
  expression: >-
    request.userInfo.username.startsWith("{{ $accounts }}") && !request.userInfo.username.startsWith("{{ $accounts }}valetkey-t-")
variables:
- name: what
  expression: >-
    request.resource.resource
- name: update
  expression: >-
    request.operation == "UPDATE"
- name: debug
  expression: >-
    request.?subResource.orValue("") == "ephemeralcontainers"
- name: hasTemplate
  expression: >-
    variables.update && !(variables.what in ["pods", "controllerrevisions"])
- name: template
  expression: >-
    variables.what == "cronjobs" ? object.spec.jobTemplate.spec.template
    : variables.what == "podtemplates" ? object.template : object.spec.template
- name: oldTemplate
  expression: >-
    variables.what == "cronjobs" ? oldObject.spec.jobTemplate.spec.template
    : variables.what == "podtemplates" ? oldObject.template : oldObject.spec.template
- name: annotations
  expression: >-
    variables.template.?metadata.?annotations.orValue({})
- name: oldAnnotations
  expression: >-
    variables.oldTemplate.?metadata.?annotations.orValue({})
validations:
- expression: variables.update
  messageExpression: >-
    "this access may not create " + variables.what + ": it would become any account of the namespace (risk PodTemplates)"
- expression: variables.what != "controllerrevisions"
  message: this access may not change controllerrevisions (risk PodTemplates)
- expression: variables.what != "pods" || variables.debug || object.spec == oldObject.spec
  message: this access may not change what a pod runs (risk PodTemplates)
- expression: >-
    variables.what != "pods" || !variables.update || object.metadata.?labels == oldObject.metadata.?labels
    || ![object, oldObject].exists(o, o.metadata.?labels[?"valetkey.dev/agent"].orValue("") == "true")
  message: this access may not change the labels of an agent's pod, for policies trust them (risk PodTemplates)
- expression: >-
    !variables.debug || object.spec.?ephemeralContainers.orValue([]).all(c,
    oldObject.spec.?ephemeralContainers.orValue([]).exists(o, o.name == c.name)
    || (!has(c.securityContext) && !has(c.envFrom) && !c.?env.orValue([]).exists(e, has(e.valueFrom))))
  message: this access may add ephemeral containers only without securityContext, envFrom and env valueFrom
- expression: >-
    !variables.hasTemplate || (variables.template.?spec == variables.oldTemplate.?spec
    && [variables.template.?metadata.orValue({}), variables.oldTemplate.?metadata.orValue({})].all(m, m.all(k, k == "annotations"
    || variables.template.?metadata[?k] == variables.oldTemplate.?metadata[?k])))
  message: this access may not change a pod template (risk PodTemplates)
- expression: >-
    !variables.hasTemplate || (variables.annotations.all(k, k == "kubectl.kubernetes.io/restartedAt"
    || variables.oldAnnotations[?k] == optional.of(variables.annotations[k]))
    && variables.oldAnnotations.all(k, k == "kubectl.kubernetes.io/restartedAt" || k in variables.annotations))
  message: this access may change no annotation of a pod template but kubectl.kubernetes.io/restartedAt (risk PodTemplates)
{{- end }}
