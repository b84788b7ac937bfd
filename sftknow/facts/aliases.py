"""Equivalent names of answers: "United States of America" is also right as "USA".

The packaged ``aliases.yaml`` holds groups of names by relation; a user's file of the same form extends it.
"""

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from sftknow.facts import yaml_text
from sftknow.facts.fact import Fact
from sftknow.facts.normal import normalize

ALIASES_FILE = Path(__file__).with_name("aliases.yaml")
EVERY_RELATION = "all"
FIELDS = ("relations", "groups")
_RELATION_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Group:
    """Names that mean the same, the relations they do so for, and the line they stand on."""

    names: tuple[str, ...]
    relations: tuple[str, ...]
    place: str


@dataclass(frozen=True)
class Aliases:
    """Groups of equivalent names, looked up by relation and name.

    Attributes:
        groups: all groups.
    """

    groups: tuple[Group, ...]
    _index: Mapping[tuple[str, str], Group] = field(repr=False, compare=False)
    _known: dict[tuple[str, tuple[str, ...]], tuple[str, ...]] = field(default_factory=dict, repr=False, compare=False)

    def expand(self, relation: str, answers: Sequence[str]) -> tuple[str, ...]:
        """Return the answers, followed by every other name that one of them has for this relation.

        Names are looked up in normal form, so "Cote d'Ivoire" finds the group of "Côte d'Ivoire".
        """
        key = (relation, tuple(answers))
        found = self._known.get(key)
        if found is None:
            groups = (self.group_of(relation, answer) for answer in answers)
            others = (name for group in groups if group is not None for name in group.names)
            found = self._known[key] = tuple(dict.fromkeys((*answers, *others)))
        return found

    def group_of(self, relation: str, name: str) -> Group | None:
        """Return the group a name stands in for a relation, if it stands in one."""
        form = normalize(name)
        return self._index.get((relation, form)) or self._index.get((EVERY_RELATION, form))

    def coverage(self, facts: Iterable[Fact]) -> dict[str, float]:
        """Return, by relation, the share of facts that have an answer with other names."""
        counts: dict[str, list[int]] = {}
        for fact in facts:
            covered = any(self.group_of(fact.relation, answer) is not None for answer in fact.answers)
            count = counts.setdefault(fact.relation, [0, 0])
            count[0] += covered
            count[1] += 1
        return {relation: covered / total for relation, (covered, total) in counts.items()}


def load_aliases(path: Path | None = None) -> Aliases:
    """Read the packaged aliases, and a user's file that extends them.

    Args:
        path: a YAML file of the form described at the top of the packaged ``aliases.yaml``; each of its groups that
            shares a name with a packaged group, for a relation, is added to that group for that relation.

    Raises:
        DataError: the file cannot be read, or anything in it is wrong; all problems at once, with their lines.
    """
    return _packaged() if path is None else _extend(_packaged(), Path(path))


@functools.lru_cache(maxsize=1)
def _packaged() -> Aliases:
    groups, problems = _read(ALIASES_FILE)
    index = _index(groups, {}, problems)
    problems.check()
    return Aliases(tuple(group for group, _ in groups), index)


def _extend(aliases: Aliases, path: Path) -> Aliases:
    groups, problems = _read(path)
    index = _index(groups, aliases._index, problems)
    problems.check()
    return Aliases((*aliases.groups, *(group for group, _ in groups)), index)


def _index(
    groups: Sequence[tuple[Group, yaml.Node]],
    packaged: Mapping[tuple[str, str], Group],
    problems: yaml_text.Problems,
) -> dict[tuple[str, str], Group]:
    """Return (relation, normal form) -> group, noting names that stand in two groups for one relation."""
    index = dict(packaged)
    own: dict[tuple[str, str], Group] = {}
    by_form: dict[str, list[Group]] = {}
    for group, node in groups:
        forms = list(dict.fromkeys(map(normalize, group.names)))
        clash = _clash(group, forms, by_form)
        if clash is not None:
            problems.add(node, clash)
            continue
        for form in forms:
            by_form.setdefault(form, []).append(group)
        for relation in group.relations:
            merged, fault = _join(group, relation, forms, packaged)
            if fault is not None:
                problems.add(node, fault)
                break
            own.update({(relation, form): merged for form in map(normalize, merged.names)})
    index.update(own)
    return index


def _clash(group: Group, forms: Sequence[str], by_form: Mapping[str, Sequence[Group]]) -> str | None:
    for form in forms:
        for other in by_form.get(form, ()):
            shared = _shared_relations(group, other)
            if shared:
                return f"{form!r} stands in the group on {other.place} already, for {', '.join(shared)}"
    return None


def _shared_relations(group: Group, other: Group) -> list[str]:
    if EVERY_RELATION in group.relations or EVERY_RELATION in other.relations:
        return [EVERY_RELATION]
    return [relation for relation in group.relations if relation in other.relations]


def _join(
    group: Group, relation: str, forms: Sequence[str], packaged: Mapping[tuple[str, str], Group]
) -> tuple[Group, str | None]:
    """Return a user's group together with the packaged one it shares a name with, for one relation."""
    found = {
        id(other): other
        for form in forms
        if (other := packaged.get((relation, form)) or packaged.get((EVERY_RELATION, form))) is not None
    }
    if len(found) > 1:
        firsts = " and ".join(repr(other.names[0]) for other in found.values())
        return group, f"{group.names[0]!r} would make one group of {firsts} for {relation}, which differ there"
    for other in found.values():
        return Group(tuple(dict.fromkeys((*other.names, *group.names))), (relation,), group.place), None
    return group, None


def _read(path: Path) -> tuple[list[tuple[Group, yaml.Node]], yaml_text.Problems]:
    problems = yaml_text.Problems(path)
    groups: list[tuple[Group, yaml.Node]] = []
    for section, key_node, value in yaml_text.entries(yaml_text.parse(path), problems):
        if not isinstance(value, yaml.MappingNode):
            problems.add(key_node, f"section {section!r} must have the fields {' and '.join(FIELDS)}")
            continue
        fields = {}
        for name, field_node, node in yaml_text.entries(value, problems):
            if name in FIELDS:
                fields[name] = node
            else:
                problems.add(
                    field_node, f"section {section!r} has no field {name!r}; its fields are {' and '.join(FIELDS)}"
                )
        for name in FIELDS:
            if name not in fields:
                problems.add(key_node, f"section {section!r} lacks the field {name!r}")
        relations = _relations(section, fields.get("relations"), problems)
        groups.extend(_groups(section, fields.get("groups"), relations, problems))
    return groups, problems


def _relations(section: str, node: yaml.Node | None, problems: yaml_text.Problems) -> tuple[str, ...]:
    if node is None:
        return ()
    if yaml_text.text_of(node) == EVERY_RELATION:
        return (EVERY_RELATION,)
    names = [yaml_text.text_of(item) for item in node.value] if isinstance(node, yaml.SequenceNode) else []
    if not names or any(name is None or not _RELATION_ID.fullmatch(name) for name in names):
        problems.add(node, f"section {section!r}: relations must be a list of relation ids, or {EVERY_RELATION!r}")
        return ()
    return tuple(name for name in names if name is not None)


def _groups(
    section: str, node: yaml.Node | None, relations: tuple[str, ...], problems: yaml_text.Problems
) -> list[tuple[Group, yaml.Node]]:
    if node is None:
        return []
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        problems.add(node, f"section {section!r}: groups must be a list of lists of names")
        return []
    groups = []
    for item in node.value:
        names = [yaml_text.text_of(name) for name in item.value] if isinstance(item, yaml.SequenceNode) else []
        if len(names) < 2 or not all(name and name.strip() for name in names):
            problems.add(item, f"section {section!r}: a group is a list of at least two names (quote numbers and 'no')")
            continue
        place = f"line {item.start_mark.line + 1}"
        groups.append((Group(tuple(name for name in names if name), relations, place), item))
    return groups
