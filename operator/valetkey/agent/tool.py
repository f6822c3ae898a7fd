"""How does one call of a function get access, and no other call?

@valetkey.tool("remediation", "restart {deployment}", "shop: get,patch deployments.apps/{deployment}",
               parameters=["deployment"])
def restart(deployment: str, *, grant: valetkey.Grant) -> None: ...
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from valetkey.agent.access import access as open_access
from valetkey.agent.ask import read_access
from valetkey.agent.errors import InvalidAccess

R = TypeVar("R")

_PLACE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SAFE: Final = re.compile(r"[A-Za-z0-9._-]+")


def tool(
    purpose: str,
    objective: str,
    access: str | Mapping[str, Any],
    *,
    parameters: Sequence[str] | Mapping[str, Any] = (),
    **options: Any,
) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """Opens access for each call of a function, and passes it as the keyword argument `grant`.

    `{name}` in `objective` and `access` stands for the argument of that name. What goes into `access` consists of
    letters, digits, `.`, `_` and `-`, and is what stands in its place there, a name or a namespace, whatever it says.
    `parameters` are names of arguments, or a mapping whose texts are filled in like the objective. Everything else is
    as for `valetkey.access`. Who looks at the function does not see `grant`. Raises InvalidAccess, and TypeError.
    """

    def decorate(function: Callable[..., R]) -> Callable[..., R]:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("the access would be over before a generator has begun: return what it yields, as a list")
        signature = inspect.signature(function)
        others = [p for name, p in signature.parameters.items() if name != "grant"]
        shown = signature.replace(parameters=others)
        _check(shown, objective, access, parameters)
        wanted = _read(access, shown)

        def opened(arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
            bound = shown.bind(*arguments, **named)
            bound.apply_defaults()
            said = bound.arguments
            chosen = (
                {name: _filled(value, said, _words) for name, value in parameters.items()}
                if isinstance(parameters, Mapping)
                else {name: said[name] for name in parameters}
            )
            return open_access(
                purpose,
                _filled(objective, said, _words),
                _filled(wanted, said, _safe),
                parameters=chosen,
                **options,
            )

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*arguments: Any, **named: Any) -> Any:
                async with opened(arguments, named) as grant:
                    return await function(*arguments, **named, grant=grant)
        else:

            @functools.wraps(function)
            def wrapper(*arguments: Any, **named: Any) -> Any:
                with opened(arguments, named) as grant:
                    return function(*arguments, **named, grant=grant)

        wrapper.__signature__ = shown  # type: ignore[attr-defined]
        wrapper.__annotations__ = {n: a for n, a in function.__annotations__.items() if n != "grant"}
        return cast("Callable[..., R]", wrapper)

    return decorate


def _read(access: str | Mapping[str, Any], signature: inspect.Signature) -> Mapping[str, Any]:
    """The access with its places: a text is read before they are filled in, and means the same whatever that is."""
    if not isinstance(access, str):
        return access
    # A word that stands for each argument, and is no name of anything.
    words = {name: f"x{hashlib.sha256(name.encode()).hexdigest()[:16]}x" for name in signature.parameters}
    line = _PLACE.sub(lambda place: words[place[1]], access)
    try:
        read: Mapping[str, Any] = read_access(line)
    except InvalidAccess as error:
        text = str(error)
        for name, word in words.items():
            text = text.replace(word, f"{{{name}}}")
        raise InvalidAccess(text) from None
    return cast("Mapping[str, Any]", _with_places(read, words))


def _with_places(read: Any, words: Mapping[str, str]) -> Any:
    if isinstance(read, str):
        for name, word in words.items():
            read = read.replace(word, f"{{{name}}}")
        return read
    if isinstance(read, Mapping):
        return {field: _with_places(part, words) for field, part in read.items()}
    return [_with_places(part, words) for part in read]


def _check(signature: inspect.Signature, *templates: Any) -> None:
    """A misspelt name is found when the function is defined, not when it is called."""
    objective, access, parameters = templates
    named = set(_names((objective, access)))
    named |= set(_names(parameters)) if isinstance(parameters, Mapping) else set(parameters)
    if unknown := sorted(named - set(signature.parameters)):
        raise TypeError(f"the function has no argument {', '.join(unknown)}")


def _names(template: Any) -> list[str]:
    if isinstance(template, str):
        return _PLACE.findall(template)
    if isinstance(template, Mapping):
        template = template.values()
    elif not isinstance(template, (list, tuple)):
        return []
    return [name for part in template for name in _names(part)]


def _filled(template: Any, arguments: Mapping[str, Any], fill: Callable[[str, Any], str]) -> Any:
    if isinstance(template, str):
        return _PLACE.sub(lambda place: fill(place[1], arguments[place[1]]), template)
    if isinstance(template, Mapping):
        return {name: _filled(part, arguments, fill) for name, part in template.items()}
    if isinstance(template, (list, tuple)):
        return [_filled(part, arguments, fill) for part in template]
    return template


def _words(name: str, value: Any) -> str:
    return str(value)


def _safe(name: str, value: Any) -> str:
    """A value that cannot become another access than the one that the template is about."""
    text = str(value)
    if not _SAFE.fullmatch(text):
        raise InvalidAccess(f"{name}={text!r} cannot be part of an access: letters, digits, '.', '_' and '-' alone")
    return text
