"""What goes with what in a parallel text, by sil-thot.

Which target words a source word is translated by: IBM model 1 (Brown et al. 1993). Of the models of that library it is
the fastest, and its lists hold more of what translations say than those of its hidden Markov model and of fast_align,
which are surer of fewer words. How many target words each word of a source has: fast_align (Dyer et al. 2013), without
an empty word, as Gu et al. 2018 have it.
"""

from typing import Any, Callable, Dict, List, Sequence, Tuple

from ..errors import ToolError
from ..progress import progress

Pair = Tuple[List[str], List[str]]
PASSES = 5
"""Of expectation and maximisation over the text."""


def library() -> Any:
    try:
        from thot import alignment
    except ImportError as error:
        raise ToolError(f"aligning needs a library that does not load ({error}): pip install sil-thot") from None
    return alignment


def trained(pairs: Sequence[Pair], model: Any) -> Any:
    """The model of a text, whose sides are words."""
    for source, target in progress(pairs, "reading", "pairs"):
        model.add_sentence_pair(source, target)
    model.start_training()
    for _ in progress(range(PASSES), "aligning", "passes"):
        model.train()
    model.end_training()
    return model


def translations(pairs: Sequence[Pair], most: int, floor: float) -> Dict[str, List[str]]:
    """By source word, its ``most`` most probable translations, the best first, of probability ``floor`` or more."""
    model = trained(pairs, library().Ibm1AlignmentModel())
    sources, targets = ({word for pair in pairs for word in pair[side]} for side in (0, 1))
    spelled = {model.get_trg_word_index(word): word for word in targets}
    found: Dict[str, List[str]] = {}
    for word in progress(sorted(sources), "choosing", "words"):
        every = model.get_translations(model.get_src_word_index(word), floor)
        best = sorted((-probability, spelled[index]) for index, probability in every if index in spelled)
        found[word] = [target for _, target in best[:most]]
    return found


def aligner(pairs: Sequence[Pair]) -> Any:
    """The model of a text by which ``word_counts`` are."""
    model = library().FastAlignModel()
    model.fast_align_p0 = 0.0
    return trained(pairs, model)


def word_counts(model: Any, pair: Pair) -> List[int]:
    """How many target words each source word has: every target word is one source word's.

    Raises ToolError where there are target words and no source word.
    """
    source, target = pair
    counts = [0] * len(source)
    if not target:
        return counts
    if not source:
        raise ToolError(f"a sentence of no word cannot be the source of {len(target)}: filter the text")
    _, matrix = model.get_best_alignment(source, target)
    for place in owners(matrix.to_numpy().T.tolist(), lambda i, j: probability(model, source[i], target[j])):
        counts[place] += 1
    return counts


def probability(model: Any, source: str, target: str) -> float:
    """Of a target word as the translation of a source word."""
    found = model.translation_prob(model.get_src_word_index(source), model.get_trg_word_index(target))
    return float(found)


def owners(links: Sequence[Sequence[bool]], likelihood: Callable[[int, int], float]) -> List[int]:
    """By target word, the one place of the source that it belongs to; ``links``: of each, which places it goes with.

    One without a link has that of its left neighbour, the first of all the first place; one with several has the most
    probable one, of equals the first. ``likelihood``: of a source place and a target place.
    """
    found: List[int] = []
    for j, row in enumerate(links):
        places = [i for i, is_linked in enumerate(row) if is_linked]
        if len(places) > 1:
            places = [max(places, key=lambda i: (likelihood(i, j), -i))]
        found += places or found[-1:] or [0]
    return found
