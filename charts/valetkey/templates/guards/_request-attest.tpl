{{- /* Who asks is what the API server authenticated: no client can say otherwise, and nobody can change it later. The door (`valetkey
serve`), where there is one, is believed when it says whose token it was shown, and in nothing else: it asks for that pod alone.

What is asked is bounded by what it takes in the operator's memory: a string its bytes and, however short, those of the string itself,
for which eight stand here; a control character would take six as JSON. On the largest request that passes, the dearest of these
expressions takes 40 000 of the million units that one may; a request on which one would take more is refused all the same. */}}
{{- define "valetkey.guard.request-attest" -}}
matchConstraints:
  resourceRules:
  - {apiGroups: [valetkey.dev], apiVersions: ["*"], operations: [CREATE, UPDATE, DELETE], resources: [accessrequests]}
variables:
{{ include "valetkey.collectorVariable" . }}
{{- include "valetkey.callerVariables" . }}
- name: bound
  expression: >-
    variables.podName != "" && variables.podUID != "" && variables.nodeName != "" && variables.credentialID.startsWith("JTI=")
- name: door
  expression: >-
    {{ if .Values.door.enabled }}request.userInfo.username == "{{ include "valetkey.doorUser" . }}"{{ else }}false{{ end }}
- name: create
  expression: >-
    request.operation == "CREATE"
- name: update
  expression: >-
    request.operation == "UPDATE"
- name: annotations
  expression: >-
    variables.update ? object.metadata.?annotations.orValue({}) : {}
- name: oldAnnotations
  expression: >-
    variables.update ? oldObject.metadata.?annotations.orValue({}) : {}
- name: parameters
  expression: >-
    object.?spec.?task.?parameters.orValue({})
- name: accesses
  expression: >-
    [object.?spec.?access.orValue({})] + object.?spec.?delegation.?access.orValue([])
validations:
- expression: >-
    !variables.create || request.namespace in {{ toJson .Values.agentNamespaces }}
  message: valetkey serves no agents in this namespace; its platform team adds it to the chart's agentNamespaces
- expression: >-
    !variables.create || variables.parameters.all(k, type(variables.parameters[k]) == string || type(variables.parameters[k]) == int
    || type(variables.parameters[k]) == double || type(variables.parameters[k]) == bool
    || (type(variables.parameters[k]) == list && size(variables.parameters[k]) <= 64
    && variables.parameters[k].all(s, type(s) == string)))
  message: a parameter of a task is a string, a number, a boolean or a list of 64 strings at most
- expression: >-
    !variables.create || variables.parameters.map(k, bytes(k).size() + (type(variables.parameters[k]) == string
    ? bytes(variables.parameters[k]).size() : type(variables.parameters[k]) == list
    ? variables.parameters[k].map(s, bytes(s).size() + 8).sum() : 8)).sum() <= 16384
  message: the parameters of a task have 16384 bytes at most, and each string of a list counts eight more
- expression: >-
    !variables.create || variables.parameters.all(k, !k.matches('\\p{Cc}') && (type(variables.parameters[k]) == string
    ? !variables.parameters[k].matches('\\p{Cc}') : type(variables.parameters[k]) != list
    || variables.parameters[k].all(s, !s.matches('\\p{Cc}'))))
  message: the parameters of a task have no control characters
- expression: >-
    !variables.create || variables.accesses.map(a, a.?kubernetes.?scopes.orValue([]).map(s, s.?rules.orValue([]).map(r,
    [r.?apiGroups, r.?resources, r.?resourceNames, r.?nonResourceURLs, r.?verbs].map(w, w.orValue([]).map(n, size(n) + 8).sum()).sum()).sum())
    .sum()).sum() <= 16384
  message: the rules of a request have 16384 characters at most, with those that it hands on, and each word counts eight more; ask for less, or in several requests
- expression: >-
    !variables.create || (object.metadata.?labels.orValue({}).size() <= 32
    && object.metadata.?annotations.orValue({}).size() <= 32 && object.metadata.?annotations.orValue({}).map(k,
    bytes(k).size() + bytes(object.metadata.annotations[k]).size()).sum() <= 65536)
  message: an AccessRequest has 32 labels and 32 annotations at most, and those have 65536 bytes
- expression: "!variables.create || variables.bound"
  message: an AccessRequest is created with the pod's own bound token; mount a serviceAccountToken volume and send that
- expression: >-
    !variables.create || ((variables.door || request.userInfo.username == object.spec.requester.username)
    && object.spec.requester.username == "system:serviceaccount:" + request.namespace + ":" + object.spec.requester.serviceAccount)
  messageExpression: >-
    "an AccessRequest is created in its pod's namespace, and spec.requester names the caller, " + (variables.door
    ? "the account of the pod whose token the door was shown" : request.userInfo.username)
- expression: >-
    !variables.create || variables.door || (object.spec.requester.podName == variables.podName && object.spec.requester.podUID == variables.podUID
    && object.spec.requester.nodeName == variables.nodeName)
  messageExpression: >-
    "spec.requester names the calling pod: podName " + variables.podName + ", podUID " + variables.podUID + ", nodeName " + variables.nodeName
- expression: >-
    !variables.create || (variables.door ? object.spec.requester.credentialID.startsWith("JTI=")
    : object.spec.requester.credentialID == variables.credentialID)
  messageExpression: >-
    variables.door ? "spec.requester.credentialID is that of the token that the door was shown"
    : "spec.requester.credentialID is that of the token used, " + variables.credentialID
- expression: '!variables.create || object.spec.requester.via == (variables.door ? "Door" : "API")'
  messageExpression: '"spec.requester.via is " + (variables.door ? "Door" : "API")'
# Whether one pod may ask for another, policy says (onBehalfOf); half of one is none.
- expression: >-
    !variables.create || (variables.door ? object.spec.subject.podName == object.spec.requester.podName
    && object.spec.subject.podUID == object.spec.requester.podUID
    : (object.spec.subject.podName == variables.podName) == (object.spec.subject.podUID == variables.podUID))
  messageExpression: >-
    variables.door ? "spec.subject is the pod that asks: nobody asks for another pod by the door" : "spec.subject is one pod, by name and uid"
- expression: >-
    !variables.create || (object.metadata.?ownerReferences.orValue([]).size() == 1 && object.metadata.ownerReferences.all(o,
    o.apiVersion == "v1" && o.kind == "Pod" && o.name == object.spec.subject.podName && o.uid == object.spec.subject.podUID
    && !o.?controller.orValue(false) && !o.?blockOwnerDeletion.orValue(false)))
  message: an AccessRequest has one owner, the pod that spec.subject names, without controller and blockOwnerDeletion
- expression: "!variables.create || object.metadata.?finalizers.orValue([]).size() == 0"
  message: an AccessRequest has no finalizers
- expression: "!variables.create || !has(object.spec.outcome)"
  message: spec.outcome is said when the task is over
- expression: >-
    !variables.update || variables.collector || (variables.bound && (variables.podUID == oldObject.spec.requester.podUID
    && request.userInfo.username == oldObject.spec.requester.username || variables.podUID == oldObject.spec.subject.podUID
    || (variables.door && oldObject.spec.requester.via == "Door")))
  message: an AccessRequest is changed by the pod that made it or that it is for, and by nobody else
- expression: >-
    !variables.update || ({{ include "valetkey.unchanged" (list "metadata.?labels") }}
    && variables.annotations.all(k, k == "valetkey.dev/heartbeat" || variables.oldAnnotations[?k] == optional.of(variables.annotations[k]))
    && variables.oldAnnotations.all(k, k in variables.annotations))
  message: only spec.outcome of an AccessRequest is changed and its heartbeat, not its labels or other annotations
- expression: >-
    !variables.update || variables.annotations[?"valetkey.dev/heartbeat"] == variables.oldAnnotations[?"valetkey.dev/heartbeat"]
    || (variables.bound && (variables.door || variables.podUID == oldObject.spec.subject.podUID)
    && size(variables.annotations["valetkey.dev/heartbeat"]) <= 64 && has(oldObject.status) && has(oldObject.status.heartbeat))
  message: >-
    only the pod that an AccessRequest is for says that it still works, by 64 characters at most in valetkey.dev/heartbeat,
    and where status.heartbeat says that it has to
- expression: "!variables.create || !(\"valetkey.dev/heartbeat\" in object.metadata.?annotations.orValue({}))"
  message: an AccessRequest is created without a heartbeat
- expression: >-
    !variables.update || (variables.collector ? object.spec == oldObject.spec
    : {{ include "valetkey.unchanged" (list "metadata.?finalizers" "metadata.?ownerReferences") }})
  message: only spec.outcome of an AccessRequest is changed, not its finalizers or owners
- expression: {{ include "valetkey.notOrphaning" . | quote }}
  message: deleting with orphan propagation would leave what was granted behind
{{- end }}

{{- define "valetkey.notOrphaning" -}}
request.operation != "DELETE" || (request.?options.?propagationPolicy.orValue("") != "Orphan" && !request.?options.?orphanDependents.orValue(false))
{{- end }}
