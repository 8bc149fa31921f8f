"""Where a text goes on as what was verified, against plain loops over its places."""

import pytest
import torch
from torch import Tensor

from nar_plugin.methods import drafts

PAD = 1
Words = list[int]


def agreement_by_hand(text: Words, end: int, verified: Words, most: int) -> int:
    """How many of the last verified tokens stand in the text up to a place."""
    n = 0
    while n < most and n < len(verified) and n <= end and text[end - n] == verified[-1 - n]:
        n += 1
    return n


def going_on_by_hand(text: Words, place: int, verified: Words) -> int:
    if place < len(text) and text[place] == verified[-1]:
        return place + 1
    ranked = [(agreement_by_hand(text, end, verified, 8), -abs(end - place), end) for end in range(len(text))]
    length, _, end = max(ranked, default=(0, 0, 0))
    return min((end if length else place) + 1, len(text))


def ngram_by_hand(source: Words, output: Words, width: int) -> Words:
    """The last three, else two, else one; the output from the right, then the source from the right."""
    for n in (3, 2, 1):
        for text, last in ((output, len(output) - 2), (source, len(source) - 1)):
            for end in range(last, -1, -1):
                if agreement_by_hand(text, end, output, n) == n and n <= len(output):
                    if text[end + 1 : end + 1 + width] or text is output:
                        return text[end + 1 : end + 1 + width]
                    return []
    return []


def random_rows(count: int, seed: int, words: int = 5, longest: int = 14) -> list[Words]:
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 1 + longest, (count,), generator=generator).tolist()
    return [torch.randint(4, 4 + words, (n,), generator=generator).tolist() for n in sizes]


def padded(rows: list[Words], more: int = 0) -> Tensor:
    width = max(map(len, rows)) + more
    return torch.tensor([row + [PAD] * (width - len(row)) for row in rows])


def test_a_rejected_sentence_goes_on_behind_its_longest_agreement() -> None:
    """BPD-15: nearest to where it was rejected; the later one of two as near; else behind the rejected place."""
    texts, verified = random_rows(400, 1), random_rows(400, 2)
    places = torch.randint(0, 16, (400,), generator=torch.Generator().manual_seed(3))
    tokens, count = padded(verified, 2), torch.tensor(list(map(len, verified)))
    last = drafts.recent(tokens, count, drafts.LONGEST_SUFFIX)
    said = torch.tensor([row[-1] for row in verified])
    found = drafts.going_on(padded(texts), torch.tensor(list(map(len, texts))), places, said, last)
    expected = [going_on_by_hand(*row) for row in zip(texts, places.tolist(), verified, strict=True)]
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("text", "place", "verified", "expected"),
    [
        ([5, 6, 7, 8], 1, [5, 6], 2),  # it was right
        ([5, 6, 7, 8], 1, [5, 9, 7], 3),  # a word was replaced, and one more said
        ([5, 6, 7, 8], 1, [5, 7], 3),  # a word was left out
        ([5, 6, 7, 8], 1, [5, 9], 2),  # nothing of it: behind the place
        ([5, 7, 6, 7, 8], 2, [5, 9, 7], 4),  # two as near: the later one
        ([5, 7, 6, 6, 7, 8], 2, [5, 9, 7], 2),  # the nearer one
        ([9, 7, 6, 6, 7, 8], 3, [5, 9, 7], 2),  # the longer one
        ([5, 6], 4, [5, 6, 7, 8, 9], 2),  # it is used up
    ],
)
def test_where_a_sentence_goes_on(text: Words, place: int, verified: Words, expected: int) -> None:
    assert going_on_by_hand(text, place, verified) == expected
    last = drafts.recent(torch.tensor([verified]), torch.tensor([len(verified)]), drafts.LONGEST_SUFFIX)
    found = drafts.going_on(
        torch.tensor([text]), torch.tensor([len(text)]), torch.tensor([place]), torch.tensor(verified[-1:]), last
    )
    assert found.tolist() == [expected]


@pytest.mark.parametrize("width", [1, 4])
def test_ngrams_are_looked_up_in_the_output_then_in_the_source(width: int) -> None:
    """BPD-16: the longest n-gram first, latest first; what followed it is the draft."""
    sources, outputs = random_rows(400, 4), random_rows(400, 5)
    count = torch.tensor(list(map(len, outputs)))
    found, is_draft = drafts.ngram(padded(sources), padded(outputs, 3), count, PAD, width)
    assert found.shape == is_draft.shape == (400, width)
    said = [row[there].tolist() for row, there in zip(found, is_draft, strict=True)]
    assert said == [ngram_by_hand(*row, width) for row in zip(sources, outputs, strict=True)]
    assert bool((found[~is_draft] == PAD).all()) and len(set(map(len, said))) == width + 1
    alone, _ = drafts.ngram(None, padded(outputs, 3), count, PAD, width)
    nothing = [[] for _ in outputs]
    assert [[word for word in row if word != PAD] for row in alone.tolist()] == [
        ngram_by_hand(*row, width) for row in zip(nothing, outputs, strict=True)
    ]


def test_before_the_first_word_there_is_nothing_to_look_up() -> None:
    tokens, count = torch.full((2, 4), PAD), torch.zeros(2, dtype=torch.int64)
    found, is_draft = drafts.ngram(torch.tensor([[5, 6], [7, PAD]]), tokens, count, PAD, 3)
    assert not is_draft.any() and bool((found == PAD).all())
