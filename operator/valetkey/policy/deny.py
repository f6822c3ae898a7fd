"""Does one Deny stand against this request?"""

from __future__ import annotations

from valetkey.kinds.accessrequest import Denial
from valetkey.policy.ceiling import shared_field
from valetkey.policy.compile import CompiledPolicy
from valetkey.policy.denials import denial, of_handed_on
from valetkey.policy.expressions import EvaluationError
from valetkey.policy.question import Question
from valetkey.reasons import Reason


def refuses(compiled: CompiledPolicy, question: Question) -> Denial | None:
    """The denial of a Deny that is about this agent, if the request shares a right with it.

    Every rule of it that cannot be evaluated counts as true. What is handed on counts as asked for.
    """
    spec, request = compiled.policy.spec, question.request
    if spec.purposes is not None and all(purpose.name != request.task.purpose for purpose in spec.purposes):
        return None
    return _refuses(compiled, question) or next(
        (
            of_handed_on(told, at)
            for at, one in enumerate(question.handed_on)
            if (told := _refuses(compiled, one)) is not None
        ),
        None,
    )


def _refuses(compiled: CompiledPolicy, question: Question) -> Denial | None:
    spec, field, doubt = compiled.policy.spec, _shared(compiled, question), ""
    if field is None:
        return None
    for rule in compiled.rules:
        try:
            if not rule.expression.is_true(question.values):
                return None
        except EvaluationError:
            doubt = f" Its rule {rule.validation.name} could not be evaluated, which counts against the request."
    what = "every access" if spec.access is None else field
    advice = "Ask those who look after it." if spec.access is None else "Leave it out."
    return denial(
        Reason.POLICY_DENIED,
        f"Policy {compiled.policy.metadata.name} denies {what}: no other policy can allow it. {advice}{doubt}",
        field=field,
        contact=spec.contact,
    )


def _shared(compiled: CompiledPolicy, question: Question) -> str | None:
    if compiled.policy.spec.access is None:
        return "spec.access"
    parameters, roles = question.request.task.parameters, question.facts.cluster_roles
    fields = (shared_field(question.asked, ceiling, parameters, roles) for ceiling in compiled.ceilings)
    return next((field for field in fields if field is not None), None)
