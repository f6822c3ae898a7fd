"""What does one rule permit, and what do two rules have in common?

A right is (group, resource or subresource, name, verb), or (path, verb). A rule is the product of its lists, so two
rules share a right exactly when they share something in every list. The words mean what they mean to RBAC: `*` is any
group, resource or verb; `*/scale` that subresource of any resource; `/metrics/*` any path that begins so; and `pods/*`
is no wildcard at all. A list of names holds for every verb, as in the API server's own escalation check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from valetkey.kinds.access import Rule
from valetkey.policy.facts import RoleRule

ANY: Final = "*"
Dimension = Literal["resources", "apiGroups", "resourceNames", "nonResourceURLs", "verbs"]

_Covers = Callable[[str | None], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """The rights of one rule; `names` None is any name, and an empty set is no name, hence no right."""

    groups: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    names: frozenset[str] | None = None
    urls: frozenset[str] = frozenset()
    verbs: frozenset[str] = frozenset()

    @classmethod
    def of(cls, rule: Rule) -> Rights:
        """The rights of a rule as a request writes it."""
        return cls(
            groups=frozenset(rule.api_groups or ()),
            resources=frozenset(rule.resources or ()),
            names=frozenset(rule.resource_names) if rule.resource_names is not None else None,
            urls=frozenset(rule.non_resource_urls or ()),
            verbs=frozenset(rule.verbs),
        )

    @classmethod
    def of_role(cls, rule: RoleRule) -> Rights:
        """The rights of a ClusterRole's rule, where an empty list of names is any name."""
        return cls(
            groups=frozenset(rule.api_groups),
            resources=frozenset(rule.resources),
            names=frozenset(rule.resource_names) or None,
            urls=frozenset(rule.non_resource_urls),
            verbs=frozenset(rule.verbs),
        )

    def of_names(self, names: frozenset[str] | None) -> Rights:
        """The same rights on other names."""
        return Rights(groups=self.groups, resources=self.resources, names=names, urls=self.urls, verbs=self.verbs)


def uncovered(asked: Rights, ceiling: Sequence[Rights]) -> bool:
    """Whether some right of `asked` is in no rule of the ceiling.

    The rules of the ceiling add up, right by right, as they do for the API server.
    """
    if not asked.urls and any(missing(asked, rule) is None for rule in ceiling):
        return False  # as nearly always: one rule covers it, so no sums need to be made
    on_resources = (
        _column(asked.resources, [_covers_resource(rule.resources) for rule in ceiling]),
        _column(asked.groups, [_covers_word(rule.groups) for rule in ceiling]),
        _column(asked.names, [_covers_name(rule.names) for rule in ceiling]),
        _column(asked.verbs, [_covers_word(rule.verbs) for rule in ceiling]),
    )
    on_paths = (
        # For the API server too, a rule with resourceNames covers no path.
        _column(asked.urls, [_covers_url(rule.urls) if rule.names is None else _never for rule in ceiling]),
        _column(asked.verbs, [_covers_word(rule.verbs) for rule in ceiling]),
    )
    return _some_uncovered(on_resources) or _some_uncovered(on_paths)


def overlaps(one: Rights, other: Rights, *, urls: bool) -> bool:
    """Whether some right is in both; paths count only where `urls` says that both hold in the cluster's scope."""
    if not _words_overlap(one.verbs, other.verbs):
        return False
    on_resources = (
        _words_overlap(one.groups, other.groups)
        and _resources_overlap(one.resources, other.resources)
        and _names_overlap(one.names, other.names)
    )
    return on_resources or (urls and _urls_overlap(one.urls, other.urls))


def missing(asked: Rights, rule: Rights) -> Dimension | None:
    """The first list in which a single rule of the ceiling falls short of what is asked, if any."""
    if asked.urls:
        if not all(map(_covers_url(rule.urls), asked.urls)):
            return "nonResourceURLs"
        return None if all(map(_covers_word(rule.verbs), asked.verbs)) else "verbs"
    if not all(map(_covers_resource(rule.resources), asked.resources)):
        return "resources"
    if not all(map(_covers_word(rule.groups), asked.groups)):
        return "apiGroups"
    names: Iterable[str | None] = (None,) if asked.names is None else asked.names
    if not all(map(_covers_name(rule.names), names)):
        return "resourceNames"
    return None if all(map(_covers_word(rule.verbs), asked.verbs)) else "verbs"


def _column(asked: Iterable[str] | None, covers: Sequence[_Covers]) -> set[int]:
    """For each word that is asked, the rules that cover it, as bits; words that are covered alike count once."""
    words: Iterable[str | None] = (None,) if asked is None else asked
    return {sum(1 << at for at, covered in enumerate(covers) if covered(word)) for word in words}


def _some_uncovered(columns: Sequence[set[int]]) -> bool:
    """Whether one word of each column can be chosen so that no rule covers them all."""
    if not all(columns):
        return False  # an empty list: no right is asked
    chosen = {-1}
    for column in columns:
        chosen = _least({one & other for one in chosen for other in column})
    return 0 in chosen


def _least(masks: set[int]) -> set[int]:
    """Those masks that contain no other: if any choice ends at nothing, one of these does."""
    least: list[int] = []
    for mask in sorted(masks, key=int.bit_count):
        if not any(smaller & mask == smaller for smaller in least):
            least.append(mask)
    return set(least)


def _never(_: str | None) -> bool:
    return False


def _covers_word(words: frozenset[str]) -> _Covers:
    return lambda word: ANY in words or word in words


def _covers_name(names: frozenset[str] | None) -> _Covers:
    return lambda name: names is None or name in names


def _covers_resource(resources: frozenset[str]) -> _Covers:
    def covers(resource: str | None) -> bool:
        if resource is None:
            return False
        if ANY in resources or resource in resources:
            return True
        _, slash, subresource = resource.partition("/")
        return bool(slash) and f"{ANY}/{subresource}" in resources

    return covers


def _covers_url(urls: frozenset[str]) -> _Covers:
    return lambda url: url is not None and any(_url_covers(ours, url) for ours in urls)


def _url_covers(ours: str, url: str) -> bool:
    return ours == url or (ours.endswith(ANY) and url.startswith(ours.rstrip(ANY)))


def _words_overlap(one: frozenset[str], other: frozenset[str]) -> bool:
    if not one or not other:
        return False
    return ANY in one or ANY in other or not one.isdisjoint(other)


def _names_overlap(one: frozenset[str] | None, other: frozenset[str] | None) -> bool:
    if one is None:
        return other is None or bool(other)
    return bool(one) if other is None else not one.isdisjoint(other)


def _resources_overlap(one: frozenset[str], other: frozenset[str]) -> bool:
    if _words_overlap(one, other):
        return True
    return _wild_overlap(one, other) or _wild_overlap(other, one)


def _wild_overlap(wild: frozenset[str], other: frozenset[str]) -> bool:
    """Whether a `*/subresource` of the one names something of the other."""
    subresources = {word[2:] for word in wild if word.startswith("*/")}
    return bool(subresources) and any(word.partition("/")[2] in subresources for word in other if "/" in word)


def _urls_overlap(one: frozenset[str], other: frozenset[str]) -> bool:
    # Two prefixes share a path when one begins with the other.
    return any(
        _url_covers(ours, theirs) or _url_covers(theirs, ours) or _both_wild(ours, theirs)
        for ours in one
        for theirs in other
    )


def _both_wild(one: str, other: str) -> bool:
    if not (one.endswith(ANY) and other.endswith(ANY)):
        return False
    one, other = one.rstrip(ANY), other.rstrip(ANY)
    return one.startswith(other) or other.startswith(one)
