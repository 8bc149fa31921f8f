"""BEHAVIOURS.md and the docstrings that cite it say the same."""

import re

import pytest

from tests.architectures import behaviours

TEXT = behaviours.LIST.read_text(encoding="utf-8")
NOT_TESTED, PROGRAMS = "Not tested here: ", "Shown by fairseq's programs alone."
METHODS = {"CMLM": 25, "LEE": 35, "LANMT": 36, "CTC": 16, "FERT": 22, "LT": 26, "BPD": 38, "ODD": 7, "EM": 15}
FEWEST_WORDS = 6

Cited = dict[str, set[str]]


@pytest.fixture(scope="module")
def cited() -> Cited:
    """Every id that tests cite, and the folders of these tests."""
    found: Cited = {}
    for file, docstring in behaviours.docstrings():
        for id in behaviours.cited_by(docstring):
            found.setdefault(id, set()).add(file.parent.name)
    return found


def unlisted(text: str, cited: Cited) -> set[str]:
    return set(cited) - {id for id, _ in behaviours.entries(text)}


def without_test_or_reason(text: str, cited: Cited) -> set[str]:
    """Ids that no test cites and that do not say why, or that say so though a test cites them."""
    return {id for id, said in behaviours.entries(text) if (id in cited) == bool(reason_of(said))}


def reason_of(said: str) -> str:
    reason = said.partition(NOT_TESTED)[2]
    return reason if len(reason.split()) >= FEWEST_WORDS else ""


def wrong_about_programs(text: str, cited: Cited) -> set[str]:
    """Ids of which the list and the folders of their tests disagree whether fairseq's programs alone show them."""
    ids = [(id, PROGRAMS in said) for id, said in behaviours.entries(text)]
    return {id for id, is_said in ids if is_said != (cited.get(id) == {"end_to_end"})}


def out_of_order(text: str) -> list[str]:
    """Ids that are not the next of the method under whose heading they are."""
    wrong = []
    for section in text.split("\n## ")[1:]:
        method = section.partition(":")[0]
        ids = [id for id, _ in behaviours.entries(section)]
        wrong += [id for number, id in enumerate(ids, 1) if id != f"{method}-{number}"]
    return wrong


def saying_too_little(text: str) -> list[str]:
    """Ids that say no whole sentence of what holds, whatever they say of tests."""
    poor = []
    for id, said in behaviours.entries(text):
        behaviour = said.replace(PROGRAMS, "").partition(NOT_TESTED)[0].strip()
        is_sentence = re.fullmatch(r"[A-Z`⌊\d].*\.", behaviour) and len(behaviour.split()) >= FEWEST_WORDS
        poor += [] if is_sentence else [id]
    return poor


def test_every_id_that_a_test_cites_is_in_the_list(cited: Cited) -> None:
    assert unlisted(TEXT, cited) == set()
    assert len(cited) > 80, "hardly a test cites an id"


def test_every_listed_id_has_a_test_or_says_why_not(cited: Cited) -> None:
    assert without_test_or_reason(TEXT, cited) == set()


def test_the_list_says_what_only_programs_show(cited: Cited) -> None:
    assert wrong_about_programs(TEXT, cited) == set()


@pytest.mark.parametrize(("method", "count"), METHODS.items())
def test_numbers_of_a_method_have_no_gaps(method: str, count: int) -> None:
    assert behaviours.listed(method) == set(range(1, count + 1))


def test_ids_are_in_order_and_under_the_heading_of_their_method() -> None:
    assert out_of_order(TEXT) == []
    assert [heading.partition(":")[0] for heading in re.findall(r"^## (.+)", TEXT, re.M)] == list(METHODS)
    assert len(behaviours.entries(TEXT)) == sum(METHODS.values())


def test_every_id_says_what_holds() -> None:
    assert saying_too_little(TEXT) == []


def test_every_item_of_the_list_is_read() -> None:
    """An entry in another form than the others' would go unchecked."""
    sections = TEXT.partition("\n## ")[2]
    assert len(re.findall(r"^\s*[*+-] ", sections, re.M)) == len(behaviours.entries(TEXT))


def test_ids_are_cited_at_the_head_of_a_docstring_and_nowhere_else() -> None:
    """Elsewhere they would count for nothing."""
    id = re.compile(rf"\b(?:{'|'.join(METHODS)})-\d+")
    for file, docstring in behaviours.docstrings():
        assert id.findall(docstring) == behaviours.cited_by(docstring), (file.name, docstring)


SMALL = """# Behaviours

## LEE: iterative refinement

* **LEE-1** No hypothesis depends on the other sentences
  of its batch.
* **LEE-2** Every checkpoint says the same in both programs. Shown by fairseq's programs alone.
* **LEE-3** A source word is repeated as its fertility says.
  Not tested here: fertilities belong to another method than this.
"""
SHOWN: Cited = {"LEE-1": {"architectures", "end_to_end"}, "LEE-2": {"end_to_end"}}


def test_a_list_is_read_by_id_and_sentence() -> None:
    found = behaviours.entries(SMALL)
    assert [id for id, _ in found] == ["LEE-1", "LEE-2", "LEE-3"]
    assert found[0][1] == "No hypothesis depends on the other sentences of its batch."


def test_a_list_without_faults_has_none() -> None:
    assert unlisted(SMALL, SHOWN) == without_test_or_reason(SMALL, SHOWN) == wrong_about_programs(SMALL, SHOWN) == set()
    assert out_of_order(SMALL) == saying_too_little(SMALL) == []


def test_faults_between_list_and_tests_are_found() -> None:
    assert unlisted(SMALL, {**SHOWN, "LEE-4": {"methods"}}) == {"LEE-4"}
    assert without_test_or_reason(SMALL, {"LEE-2": {"end_to_end"}}) == {"LEE-1"}
    assert without_test_or_reason(SMALL, {**SHOWN, "LEE-3": {"methods"}}) == {"LEE-3"}
    assert without_test_or_reason(SMALL.replace(" belong to another method than this", ""), SHOWN) == {"LEE-3"}
    assert wrong_about_programs(SMALL, {**SHOWN, "LEE-2": {"methods"}}) == {"LEE-2"}
    assert wrong_about_programs(SMALL.replace(PROGRAMS, ""), SHOWN) == {"LEE-2"}


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("LEE-2", "LEE-4", ["LEE-4"]),
        ("LEE-2", "LEE-1", ["LEE-1"]),
        ("LEE-3", "CMLM-3", ["CMLM-3"]),
        ("* **LEE-1** ", "", ["LEE-2", "LEE-3"]),
    ],
)
def test_faults_of_order_are_found(old: str, new: str, wrong: list[str]) -> None:
    assert out_of_order(SMALL.replace(old, new)) == wrong


@pytest.mark.parametrize(
    "said", ["Batches.", "no hypothesis depends on its batch.", "A hypothesis and its whole batch"]
)
def test_a_behaviour_that_is_no_sentence_is_found(said: str) -> None:
    whole = "Every checkpoint says the same in both programs."
    assert saying_too_little(SMALL.replace(whole, said)) == ["LEE-2"]


@pytest.mark.parametrize(
    ("docstring", "ids"),
    [
        ("LEE-7: as said.", ["LEE-7"]),
        ("LEE-34, LANMT-36: as said.", ["LEE-34", "LANMT-36"]),
        ("LANMT-33.", ["LANMT-33"]),
        ("LANMT-5, and of every criterion.", ["LANMT-5"]),
        ("As LEE-7: has it.", []),
        ("UTF-8 is read.", []),
        ("", []),
    ],
)
def test_a_docstring_cites_the_ids_that_it_begins_with(docstring: str, ids: list[str]) -> None:
    assert behaviours.cited_by(docstring) == ids
