{{- /*
What the door itself may write, whatever its RBAC would allow: requests for the pods that knock, which request-attest looks at, and
the question whose token it was shown. A stolen token of it is worth no more than this.
*/}}
{{- define "valetkey.guard.door-leash" -}}
matchConstraints:
  resourceRules:
  - {apiGroups: ["*"], apiVersions: ["*"], operations: ["*"], resources: ["*/*"]}
  excludeResourceRules:
  - {apiGroups: [valetkey.dev], apiVersions: ["*"], operations: [CREATE, UPDATE], resources: [accessrequests]}
  - {apiGroups: [authentication.k8s.io], apiVersions: ["*"], operations: [CREATE], resources: [tokenreviews]}
matchConditions:
- name: door
  expression: >-
    request.userInfo.username == "{{ include "valetkey.doorUser" . }}"
validations:
- expression: "false"
  messageExpression: >-
    "the valetkey door does not " + request.operation + " " + (request.resource.group == "" ? "" : request.resource.group + "/")
    + request.resource.resource + (request.?subResource.orValue("") == "" ? "" : "/" + request.subResource)
{{- end }}
