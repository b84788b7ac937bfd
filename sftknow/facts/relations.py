"""Relations: what is asked about a subject, and the statements that a base model is to complete.

The packaged ``relations.yaml`` holds the 24 relations of EntityQuestions; a user's own file has the same form.
"""

import functools
import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from sftknow.errors import DataError
from sftknow.facts import yaml_text
from sftknow.facts.fact import DOMAINS, Domain

RELATIONS_FILE = Path(__file__).with_name("relations.yaml")
FIELDS = ("name", "domain", "question", "templates")
SLOT = "{subject}"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_BRACES = re.compile(r"\{[^{}]*\}|[{}]")


@dataclass(frozen=True, slots=True)
class Relation:
    """One relation with its wording.

    Attributes:
        id: Wikidata property (``P19``) or a name of the user's own.
        name: what the relation says, in words.
        domain: ``in_domain`` relations are fine-tuned on, ``out_of_domain`` ones only tested.
        question: the question about the object, with ``{subject}`` in it once.
        templates: statements with ``{subject}`` in them once, each stopping just before the object (21 in the paper).
    """

    id: str
    name: str
    domain: Domain
    question: str
    templates: tuple[str, ...]

    def ask(self, subject: str) -> str:
        """Return the question about one subject."""
        return self.question.replace(SLOT, subject)

    def statements(self, subject: str) -> tuple[str, ...]:
        """Return every completion template with the subject in its place."""
        return tuple(template.replace(SLOT, subject) for template in self.templates)

    def subject_of(self, question: str) -> str | None:
        """Return the subject that a question was made from; None where the question has another wording."""
        before, after = self.question.split(SLOT)
        if not (question.startswith(before) and question.endswith(after)):
            return None
        return question[len(before) : len(question) - len(after)].strip() or None


def load_relations(path: Path | None = None) -> dict[str, Relation]:
    """Read a relations file, by default the packaged one with the 24 relations of EntityQuestions.

    Args:
        path: a YAML file of the form described at the top of the packaged ``relations.yaml``.

    Returns:
        Relation id -> relation, in the order of the file.

    Raises:
        DataError: the file cannot be read, or anything in it is wrong; all problems at once, with their lines.
    """
    return dict(_read(Path(path))) if path is not None else dict(_packaged())


@functools.lru_cache(maxsize=1)
def _packaged() -> Mapping[str, Relation]:
    return _read(RELATIONS_FILE)


def pick_relation(relations: Mapping[str, Relation], name: str) -> Relation:
    """Return one relation by its id; raise DataError naming the known ones where there is no such relation."""
    if name not in relations:
        raise DataError(f"relation {name!r} is not known; known relations: {known(relations)}.")
    return relations[name]


def known(relations: Collection[str]) -> str:
    """Return the ids of relations as one readable list."""
    return ", ".join(relations) or "none"


def _read(path: Path) -> dict[str, Relation]:
    problems = yaml_text.Problems(path)
    relations = {}
    for key, key_node, value in yaml_text.entries(yaml_text.parse(path), problems):
        if not _ID.fullmatch(key):
            problems.add(key_node, f"relation id {key!r} may hold letters, digits, '.', '_' and '-' only")
        relations[key] = _relation(key, key_node, value, problems)
    problems.check()
    return {key: relation for key, relation in relations.items() if relation is not None}


def _relation(key: str, key_node: yaml.Node, value: yaml.Node, problems: yaml_text.Problems) -> Relation | None:
    if not isinstance(value, yaml.MappingNode):
        problems.add(key_node, f"{key} must have the fields {', '.join(FIELDS)}")
        return None
    fields = {}
    for field, field_node, node in yaml_text.entries(value, problems):
        if field in FIELDS:
            fields[field] = node
        else:
            problems.add(field_node, f"{key} has no field {field!r}; its fields are {', '.join(FIELDS)}")
    for field in FIELDS:
        if field not in fields:
            problems.add(key_node, f"{key} lacks the field {field!r}")
    name = _text(fields.get("name"), f"{key}: name", problems)
    domain = _domain(fields.get("domain"), key, problems)
    question = _question(fields.get("question"), key, problems)
    templates = _templates(fields.get("templates"), key, problems)
    return Relation(key, name, domain, question, templates) if name and domain and question and templates else None


def _text(node: yaml.Node | None, what: str, problems: yaml_text.Problems) -> str | None:
    if node is None:
        return None
    text = yaml_text.text_of(node)
    if text is None or not text.strip():
        problems.add(node, f"{what} must be text (put it in quotes)")
        return None
    return text


def _domain(node: yaml.Node | None, key: str, problems: yaml_text.Problems) -> Domain | None:
    text = _text(node, f"{key}: domain", problems)
    if text is None or text in DOMAINS:
        return text
    assert node is not None
    problems.add(node, f"{key}: domain {text!r} must be one of {', '.join(DOMAINS)}")
    return None


def _question(node: yaml.Node | None, key: str, problems: yaml_text.Problems) -> str | None:
    text = _text(node, f"{key}: question", problems)
    if text is None:
        return None
    assert node is not None
    fault = _slot_fault(text)
    if fault:
        problems.add(node, f"{key}: question {text!r} {fault}")
    return text


def _templates(node: yaml.Node | None, key: str, problems: yaml_text.Problems) -> tuple[str, ...]:
    if node is None:
        return ()
    if not isinstance(node, yaml.SequenceNode) or not node.value:
        problems.add(node, f"{key}: templates must be a list of at least one completion template")
        return ()
    templates: dict[str, int] = {}
    for item in node.value:
        text = _text(item, f"{key}: a template", problems)
        if text is None:
            continue
        fault = _template_fault(text)
        if fault:
            problems.add(item, f"{key}: template {text!r} {fault}")
        like = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
        if like in templates:
            problems.add(item, f"{key}: template {text!r} stands on line {templates[like]} already")
        templates.setdefault(like, item.start_mark.line + 1)
    return tuple(text for item in node.value if (text := yaml_text.text_of(item)) is not None)


def _template_fault(text: str) -> str | None:
    """Say what is wrong with a completion template, or None."""
    others = [slot for slot in _BRACES.findall(text) if slot != SLOT]
    if others and text.count(SLOT) == 1:
        return f"holds {others[0]}: leave the object out, with any text after its place"
    fault = _slot_fault(text)
    if fault:
        return fault
    if text != text.strip():
        return "begins or ends with white space; it stops right after the last word before the object"
    if text.endswith((".", "!", "?", ";", "…", "_")):
        return f"ends with {text[-1]!r}; it stops just before the object, with no text after the object's place"
    if text == SLOT:
        return "says nothing but the subject"
    return None


def _slot_fault(text: str) -> str | None:
    found = text.count(SLOT)
    if found == 0:
        return f"lacks {SLOT}"
    if found > 1:
        return f"holds {SLOT} {found} times; it may stand there once"
    others = [slot for slot in _BRACES.findall(text) if slot != SLOT]
    return f"holds {others[0]}; only {SLOT} is filled in" if others else None
