"""Which target words a source word is translated by: IBM model 1 (Brown et al. 1993) of a parallel text, by sil-thot.

Of the models of that library it is the fastest, and its lists hold more of what translations say than those of its
hidden Markov model and of fast_align, which are surer of fewer words.
"""

from typing import Any, Dict, List, Sequence, Tuple

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


def trained(pairs: Sequence[Pair]) -> Any:
    """The model of a text, whose sides are words."""
    model = library().Ibm1AlignmentModel()
    for source, target in progress(pairs, "reading", "pairs"):
        model.add_sentence_pair(source, target)
    model.start_training()
    for _ in progress(range(PASSES), "aligning", "passes"):
        model.train()
    model.end_training()
    return model


def translations(pairs: Sequence[Pair], most: int, floor: float) -> Dict[str, List[str]]:
    """By source word, its ``most`` most probable translations, the best first, of probability ``floor`` or more."""
    model = trained(pairs)
    sources, targets = ({word for pair in pairs for word in pair[side]} for side in (0, 1))
    spelled = {model.get_trg_word_index(word): word for word in targets}
    found: Dict[str, List[str]] = {}
    for word in progress(sorted(sources), "choosing", "words"):
        every = model.get_translations(model.get_src_word_index(word), floor)
        best = sorted((-probability, spelled[index]) for index, probability in every if index in spelled)
        found[word] = [target for _, target in best[:most]]
    return found
