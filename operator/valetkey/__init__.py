"""Just-in-time access for AI agents and other workloads on Kubernetes.

The path of one request, each step in the module that is named:

    controller.handlers   kopf's events become keys in a queue
    controller.worker     takes a key, asks for the next step and carries it out: beginnings, endings, refusals
    controller.grant      next_step: what this key needs now (pure)
    identity              who is asking?
    policy.decide         may it? (pure)
    issuers               make the credential, unmake it
    delivery              put it where the pod can read it, take it away
    audit.record          say so, before and after
"""
