"""Right rows of results.json, for the tests of what reads them."""

from typing import Any

from nar_tools.measure import results

SHA = "0123456789abcdef" * 4


def row(name: str = "cmlm-t4", **changes: Any) -> results.Row:
    """A right row; ``changes`` replace fields of it."""
    known = {
        "id": name,
        "arch": "mask_predict_small",
        "decode_flags": "--path student.pt --iter-decode-max-iter 3",
        "passes": 4,
        "bleu": 33.5,
        "signature": "BLEU|nrefs:1",
        "sentences": 1000,
        "teacher_sha256": SHA,
        "baseline": "beam5",
        "ms_per_sentence": 20.0,
        "baseline_ms": 60.0,
        "speedup": 3.0,
        "speedups": {"greedy": 2.0, "beam5": 3.0},
        "ms_p95": 31.25,
        "ms_by_length": {"1-10": 18.0},
        "noisy": False,
        "device": "cpu",
        "size": "small",
        "threads": 1,
        "engine": "eager",
        "command": "nar benchmark bin",
        "date": "2020-01-01T00:00:00+00:00",
    }
    return {**dict.fromkeys(results.FIELDS), **known, **changes}


def forced(name: str, length: int, **changes: Any) -> results.Row:
    """A right row of a forced length; ``changes`` replace fields of it."""
    unscored = dict.fromkeys(["sentences", *results.QUALITY])
    return row(name, **{**unscored, "forced_length": length, **changes})
