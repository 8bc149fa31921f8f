"""Trainings: what cannot work is said before the first update, and what was asked for is there at the end."""

from pathlib import Path
from typing import Any, List, Tuple

import numpy as np
import pytest
import sacrebleu
from fairseq.data import data_utils

from nar_plugin.tasks import scoring
from nar_tools.errors import ToolError
from nar_tools.jobs import averages, distilled
from tests.conftest import ADAM, LIMITS, QUIET, SOURCE_WORDS, STUDENT, TINY_TRANSFORMER
from tests.end_to_end.programs import PLUGIN, TASK, Outcome, complains, logged, program, shell, succeed

ONE = (*LIMITS, *ADAM, "--max-tokens", 500, "--max-update", 1, "--log-format", "json", "--num-workers", 0)
MAXIMIZED = "--maximize-best-checkpoint-metric"


def best_by(metric: str) -> Tuple[str, ...]:
    return "--best-checkpoint-metric", metric


def test_a_metric_that_validation_does_not_give_is_one_line_before_the_first_update(data: Path, tmp_path: Path) -> None:
    folder = ("--save-dir", tmp_path / "none")
    for model, metric, words in [
        (STUDENT, "bleu", ("bleu", "--eval-bleu", "nll_loss", "length_accuracy")),
        (STUDENT, "los", ("los", "loss")),
        ((*TINY_TRANSFORMER, "--criterion", "cross_entropy"), "accuracy", ("accuracy", "loss, ppl")),
    ]:
        outcome = program("fairseq-train", data, *TASK, *model, *ONE, *folder, *best_by(metric))
        complains(outcome, f"--best-checkpoint-metric {metric}", *words)
        assert logged(outcome, "train_inner") == logged(outcome, "train") == [] and not list(tmp_path.rglob("*.pt"))


def test_metrics_that_validation_gives_are_taken_and_looking_changes_nothing(data: Path, tmp_path: Path) -> None:
    """BLEU is there only with a sentence that has words; the noise of the training is what it is without the look."""
    scores = []
    for number, more in enumerate((("--eval-bleu", *best_by("bleu"), MAXIMIZED), best_by("length_accuracy"), ())):
        words = (data, *TASK, *STUDENT, *ONE, "--max-update", 2, *more, "--save-dir", tmp_path / str(number))
        outcome = succeed("fairseq-train", *words)
        scores.append(logged(outcome, "valid")[0]["valid_loss"])
        assert (tmp_path / str(number) / "checkpoint_best.pt").exists()
    unlooked = succeed("fairseq-train", data, *TASK, *STUDENT, *ONE, "--max-update", 2, "--no-save", *best_by("ppl"))
    assert set(scores) == {logged(unlooked, "valid")[0]["valid_loss"]}


def test_several_training_and_validation_sets(several: Path, tmp_path: Path) -> None:
    words = (several, *TASK, *STUDENT, *ONE, "--no-save")
    complains(program("fairseq-train", *words), "valid1", "--ignore-unused-valid-subsets", str(several))
    complains(program("fairseq-train", *words, "--upsample-primary", 0), "--upsample-primary")
    both = succeed("fairseq-train", *words, "--valid-subset", "valid,valid1")
    assert logged(both, "valid") and logged(both, "valid1")
    combined = succeed("fairseq-train", *words, "--combine-valid-subsets")
    assert "valid1 src-tgt 50 examples" in combined.stdout and logged(combined, "valid")
    whole = succeed("fairseq-train", *words, "--ignore-unused-valid-subsets", "--max-epoch", 1, "--max-update", 0)
    assert "train1 src-tgt 2000 examples" in whole.stdout
    seen = sum(float(log["train_bsz"]) * float(log["train_num_updates"]) for log in logged(whole, "train"))
    assert seen == pytest.approx(4000, rel=0.01)


def test_distillation_of_one_part_of_several_is_one_line(several: Path, corpus: Path) -> None:
    with pytest.raises(ToolError, match="has train1 beside train"):
        distilled.check(several, ("src", "tgt"), "tgt", corpus / "train.tgt")
    with pytest.raises(ToolError, match="has train1 beside train"):
        distilled.check(several, ("src", "tgt"), "src", corpus / "train.src")


@pytest.fixture(scope="module")
def chinese(corpus: Path, once: Any) -> Path:
    """The toy corpus with a target without spaces between words, for BLEU a sentence of one token."""

    def make(folder: Path) -> None:
        for split in ("train", "valid"):
            lines = (corpus / f"{split}.src").read_text().splitlines()
            target = [" ".join(chr(0x4E00 + SOURCE_WORDS.index(word)) for word in line.split()) for line in lines]
            (folder / f"{split}.src").write_text("".join(line + "\n" for line in lines))
            (folder / f"{split}.zh").write_text("".join(line + "\n" for line in target), encoding="utf-8")
        files = ("--trainpref", folder / "train", "--validpref", folder / "valid", "--destdir", folder)
        succeed("fairseq-preprocess", "--user-dir", PLUGIN, "--source-lang", "src", "--target-lang", "zh", *files)

    return once("chinese", make)


def test_bleu_of_a_language_without_spaces(chinese: Path) -> None:
    words = (chinese, *TASK, *STUDENT, *ONE, "--no-save", "--eval-bleu", *best_by("bleu"), MAXIMIZED)
    chosen = succeed("fairseq-train", *words)
    assert "|tok:zh|" in chosen.stdout
    assert "|tok:char|" in succeed("fairseq-train", *words, "--eval-bleu-tokenize", "char").stdout
    complains(program("fairseq-train", *words, "--eval-bleu-tokenize", "klingon"), "--eval-bleu-tokenize klingon", "zh")


def test_the_tokeniser_of_a_language(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [scoring.tokenizer_of(lang) for lang in ("zh", "zh_CN", "zh-Hant", "ZH")] == ["zh"] * 4
    assert [scoring.tokenizer_of(lang) for lang in ("de", "en", "zhx", None)] == ["13a"] * 4
    monkeypatch.setattr(scoring, "is_usable", lambda name: True)
    assert [scoring.tokenizer_of(lang) for lang in ("ja", "ko_KR")] == ["ja-mecab", "ko-mecab"]
    monkeypatch.setattr(scoring, "is_usable", lambda name: "mecab" not in name)
    assert [scoring.tokenizer_of(lang) for lang in ("ja", "ko_KR")] == ["char", "char"]


def test_perfect_output_has_a_perfect_score_only_with_the_right_tokeniser() -> None:
    said = [["我们今天去公园玩"], ["他没有说一句话"]]
    wrong = ["我们今天去公园走", "他没有说两句话"]
    for tokenizer, least in (("zh", 40), ("13a", 0)):
        with scoring.tokenized(tokenizer):
            score = sacrebleu.corpus_bleu(wrong, [[text for (text,) in said]]).score
        assert (score > least) if least else score == 0
    assert sacrebleu.corpus_bleu.__name__ == "corpus_bleu"


def saved(folder: Path) -> List[int]:
    return sorted(int(path.stem.split("_")[2]) for path in folder.glob("checkpoint_*_*.pt"))


def test_every_interval_is_saved_also_where_an_epoch_ends_with_it(data: Path, tmp_path: Path, capsys: Any) -> None:
    each = (data, *TASK, *STUDENT, *LIMITS, *ADAM, "--max-tokens", 2000, "--num-workers", 0)
    words = (*each, "--disable-validation", "--no-epoch-checkpoints", "--save-interval-updates", 3)
    outcome = succeed("fairseq-train", *words, "--max-update", 18, "--save-dir", tmp_path)
    assert outcome.stdout.count("end of epoch") == 3 and saved(tmp_path) == [3, 6, 9, 12, 15, 18]
    chosen = averages.last(tmp_path, 2)
    assert [path.name for path in chosen] == ["checkpoint_3_15.pt", "checkpoint_3_18.pt"]
    assert capsys.readouterr().err == ""
    chosen[-1].unlink()
    assert [path.name for path in averages.last(tmp_path, 2)] == ["checkpoint_2_12.pt", "checkpoint_3_15.pt"]
    told = capsys.readouterr().err
    assert "checkpoint_3_15.pt is of update 15" in told and "went on to 18" in told and told.count("\n") == 1
    resumed = succeed("fairseq-train", *words, "--max-update", 24, "--save-dir", tmp_path, "--keep-interval-updates", 2)
    assert "Loaded checkpoint" in resumed.stdout and saved(tmp_path) == [21, 24]


def test_a_full_disk_is_one_line_and_leaves_no_half_file(data: Path, student: Path, tmp_path: Path) -> None:
    """The limit on the size of a file stands for the disk."""
    words = (*TASK, *STUDENT, *LIMITS, *ADAM, *QUIET, "--max-tokens", 2000, "--max-update", 1)
    kept = tmp_path / "kept"
    succeed("fairseq-train", data, *words, "--save-dir", kept)
    before = (kept / "checkpoint_last.pt").read_bytes()
    typed = " ".join(map(str, (data, *words, "--save-dir", kept, "--max-update", 2)))
    outcome = shell(f"ulimit -f 100; fairseq-train {typed}")
    complains(outcome, f"cannot write {kept / 'checkpoint_last.pt'}", "File too large")
    assert [path.name for path in kept.iterdir()] == ["checkpoint_last.pt"]
    assert (kept / "checkpoint_last.pt").read_bytes() == before
    script = "import sys; from pathlib import Path; from nar_tools.jobs import averages as a\n"
    script += "try: a.save(a.load_checkpoint(sys.argv[1]), Path(sys.argv[2]))\n"
    script += "except a.ToolError as error: print(error, file=sys.stderr); sys.exit(2)\n"
    (tmp_path / "save.py").write_text(script)
    paths = f"PYTHONPATH={Path(PLUGIN).parent}:{Path(PLUGIN).parent / 'scripts'}"
    average = tmp_path / "away" / "average.pt"
    average.parent.mkdir()
    outcome = shell(f"ulimit -f 10; {paths} python {tmp_path / 'save.py'} {student} {average}")
    complains(outcome, f"cannot write {average}: File too large")
    assert list(average.parent.iterdir()) == []


def valid_loss(outcome: Outcome) -> float:
    return float(logged(outcome, "valid")[0]["valid_loss"])


def test_buckets_of_batches_work_with_today_s_numpy(data: Path) -> None:
    for model in (STUDENT, (*TINY_TRANSFORMER, "--criterion", "cross_entropy")):
        words = (data, *TASK, *model, *ONE, "--no-save", "--lr", 1e-9)
        bucketed, plain = (succeed("fairseq-train", *words, *more) for more in (("--num-batch-buckets", 8), ()))
        assert "bucketing source lengths" in bucketed.stdout
        assert valid_loss(bucketed) == pytest.approx(valid_loss(plain), abs=0.01)


def test_the_host_s_helpers_know_the_numpy_of_today() -> None:
    assert data_utils.get_buckets(np.array([3, 5, 5, 9]), 2).tolist() == [5, 9]
    mask = data_utils.compute_mask_indices((2, 30), None, 0.3, 4)
    assert mask.shape == (2, 30) and mask.any()


def test_optimizers_and_batches_of_many_kinds_work_with_today_s_torch(data: Path) -> None:
    words = (data, *TASK, *STUDENT, *LIMITS, "--max-tokens", 500, "--max-update", 2, "--no-save", "--lr", 1e-3)
    averaged = ("--store-ema", "--truncate-source", "--skip-remainder-batch", "--curriculum", 1)
    cosine = ("--optimizer", "adafactor", "--lr-scheduler", "cosine", "--warmup-updates", 10)
    succeed("fairseq-train", *words, *cosine, *averaged, "--batch-size-valid", 7)
    decay = ("--optimizer", "nag", "--lr-scheduler", "polynomial_decay", "--total-num-update", 10)
    succeed("fairseq-train", *words, *decay, "--grouped-shuffling", "--required-seq-len-multiple", 4)
