"""Rules over a small world, and what they permit there by counting it out.

The world holds every word that the rules use and, in each list, one that none of them names: what only a wildcard
reaches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from hypothesis import strategies as st

GROUPS = ("", "apps", "new.group")
KINDS = ("pods", "newkinds")
PARTS = ("", "/log", "/newpart")
RESOURCES = tuple(kind + part for kind in KINDS for part in PARTS)
NAMES = ("a", "shop", "newname")
VERBS = ("get", "watch", "newverb")
PLACES = ("shop", "web", "a", "newspace", None)
URLS = ("/a", "/ab", "/a/b", "/anew", "/abnew", "/a/bnew", "/new", "new")

Right = tuple[str | None, ...]


def words(*choices: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(choices), min_size=1, max_size=3, unique=True)


def resource_rules(*extra_names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "apiGroups": words("", "apps", "*"),
            "resources": words("pods", "pods/log", "*/log", "*"),
            "verbs": words("get", "watch", "*"),
        },
        optional={"resourceNames": words("a", "shop", *extra_names)},
    )


def url_rules() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"nonResourceURLs": words("/a", "/ab", "/a*", "/ab*", "/a/*", "/*", "*"), "verbs": words("get", "watch", "*")}
    )


def rules(cluster: bool, *extra_names: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    one = resource_rules(*extra_names) | url_rules() if cluster else resource_rules(*extra_names)
    return st.lists(one, min_size=1, max_size=3)


def request_scopes() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Scopes as a request writes them."""
    one = st.sampled_from(("shop", "web", None)).flatmap(
        lambda place: rules(place is None).map(
            lambda found: {"rules": found} if place is None else {"namespace": place, "rules": found}
        )
    )
    return st.lists(one, min_size=1, max_size=2)


def ceiling_scopes() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Scopes as a policy writes them; `$p` stands for the parameter p."""
    one = st.one_of(
        rules(True, "$p").map(lambda found: {"cluster": True, "rules": found}),
        st.tuples(words("shop", "web", "$p"), rules(False, "$p")).map(
            lambda drawn: {"namespaces": drawn[0], "rules": drawn[1]}
        ),
    )
    return st.lists(one, min_size=1, max_size=3)


def parameters() -> st.SearchStrategy[dict[str, Any]]:
    """The parameter p as text, as a list, as something else, or not there."""
    texts = st.sampled_from(("a", "shop"))
    return st.fixed_dictionaries({}, optional={"p": texts | st.lists(texts, max_size=2) | st.just(7)})


def rights_of_request(scopes: list[dict[str, Any]]) -> set[Right]:
    """Everything that a request permits."""
    return {
        right
        for scope in scopes
        for rule in scope["rules"]
        for place in ([scope["namespace"]] if "namespace" in scope else PLACES)
        for right in _rights(rule, place, rule.get("resourceNames"))
    }


def rights_of_ceiling(scopes: list[dict[str, Any]], given: Mapping[str, Any], *, deny: bool) -> set[Right]:
    """Everything that an entry of a policy permits; under Deny, a parameter that is not there is anything."""
    return {
        right
        for scope in scopes
        for rule in scope["rules"]
        for place in (PLACES if scope.get("cluster") else _filled(scope["namespaces"], given, PLACES[:-1], deny))
        for right in _rights(
            rule, place, _filled(rule["resourceNames"], given, NAMES, deny) if "resourceNames" in rule else None
        )
    }


def _filled(listed: list[str], given: Mapping[str, Any], anything: tuple[Any, ...], deny: bool) -> list[Any]:
    found: list[Any] = []
    for word in listed:
        if word != "$p":
            found.append(word)
            continue
        value = given.get("p")
        texts = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        found += texts or (anything if deny else ())
    return found


def _rights(rule: dict[str, Any], place: str | None, names: list[str] | None) -> Iterator[Right]:
    verbs = VERBS if "*" in rule["verbs"] else rule["verbs"]
    if "nonResourceURLs" in rule:
        if place is None:
            urls = [url for url in URLS if any(_url(pattern, url) for pattern in rule["nonResourceURLs"])]
            yield from product(["url"], urls, verbs)
        return
    groups = GROUPS if "*" in rule["apiGroups"] else rule["apiGroups"]
    resources = [one for one in RESOURCES if any(_resource(pattern, one) for pattern in rule["resources"])]
    yield from product([place], groups, resources, NAMES if names is None else names, verbs)


def _resource(pattern: str, resource: str) -> bool:
    return pattern in ("*", resource) or (pattern.startswith("*/") and resource.endswith(pattern[1:]))


def _url(pattern: str, url: str) -> bool:
    return url.startswith(pattern[:-1]) if pattern.endswith("*") else url == pattern
