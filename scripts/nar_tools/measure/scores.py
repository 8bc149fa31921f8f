"""sacreBLEU's scores of a text, the same wherever the project names one."""

from typing import Any, Dict, Sequence

from ..errors import ToolError


def scores(texts: Sequence[str], references: Sequence[str], lowercase: bool = False) -> Dict[str, Any]:
    """BLEU and chrF2 of detokenised text on one raw reference, with signatures; ``length_ratio`` is in words."""
    from sacrebleu.metrics import BLEU, CHRF

    if len(texts) != len(references):
        raise ToolError(f"{len(texts)} hypotheses for {len(references)} lines of --reference")
    bleu, chrf = BLEU(lowercase=lowercase), CHRF(lowercase=lowercase)
    score = bleu.corpus_score(texts, [references])
    return {
        "bleu": round(score.score, 2),
        "chrf": round(chrf.corpus_score(texts, [references]).score, 2),
        "signature": f"BLEU|{bleu.get_signature()} chrF2|{chrf.get_signature()}",
        "sentences": len(texts),
        "length_ratio": round(score.sys_len / max(1, score.ref_len), 4),
    }
