"""The programs of fairseq, typed as a user types them."""

import json
import sys
from pathlib import Path
from typing import List

import pytest
import torch
from sacrebleu import corpus_bleu

from tests.conftest import ADAM, LIMITS, QUIET, STUDENT
from tests.end_to_end.programs import (
    PLUGIN,
    ROOT,
    TASK,
    bleu,
    console,
    logged,
    script,
    shell,
    succeed,
    tagged,
    texts,
)

AS_TYPED = ("--user-dir", "nar_plugin", "--task", "translation_nar")


def lines_of(path: Path) -> List[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def test_fairseq_preprocess_as_typed_reads_the_plugin_and_writes_the_same_data(
    corpus: Path, data: Path, tmp_path: Path
) -> None:
    languages = ("--source-lang", "src", "--target-lang", "tgt")
    files = ("--trainpref", corpus / "train", "--validpref", corpus / "valid", "--destdir", tmp_path / "out")
    outcome = console([script("fairseq-preprocess"), "--user-dir", "nar_plugin", *languages, *files])
    assert outcome.code == 0, outcome.stderr
    for name in ("dict.src.txt", "dict.tgt.txt", "train.src-tgt.src.bin", "valid.src-tgt.tgt.bin"):
        assert (tmp_path / "out" / name).read_bytes() == (data / name).read_bytes()


def test_fairseq_train_as_typed_trains_validates_and_saves(data: Path, tmp_path: Path) -> None:
    options = (*STUDENT, *ADAM, "--max-tokens", 500, "--max-update", 2, "--log-format", "json", "--save-dir", tmp_path)
    outcome = console([script("fairseq-train"), data, *AS_TYPED, *options])
    assert outcome.code == 0, outcome.stderr
    assert [log["valid_num_updates"] for log in logged(outcome, "valid")] == ["2"]
    assert (tmp_path / "checkpoint_best.pt").exists() and (tmp_path / "checkpoint_last.pt").exists()


def test_the_shell_line_of_the_manual_gives_the_score_of_the_hypotheses(
    corpus: Path, data: Path, student: Path
) -> None:
    command = f"fairseq-generate {data} --user-dir nar_plugin --task translation_nar --path {student}"
    outcome = shell(f"{command} | grep ^H- | sort -V | cut -f3 | sacrebleu {corpus / 'test.tgt'}")
    assert outcome.code == 0, outcome.stderr
    hypotheses = texts(succeed("fairseq-generate", data, *TASK, "--path", student))
    expected = corpus_bleu(hypotheses, [lines_of(corpus / "test.tgt")]).score
    assert expected > 50, "the toy model has learnt nothing, so this compares nothing"
    assert json.loads(outcome.stdout)["score"] == pytest.approx(expected, abs=0.1)


def test_a_training_under_autocast_logs_nearly_the_same_losses(data: Path, tmp_path: Path) -> None:
    options = (*STUDENT, *ADAM, "--max-tokens", 500, "--max-update", 20, "--log-interval", 1, "--log-format", "json")
    plain, fast = (
        [float(log["loss"]) for log in logged(succeed("fairseq-train", data, *TASK, *options, "--no-save", *flags))]
        for flags in ((), ("--cpu-autocast",))
    )
    assert plain == pytest.approx(fast, rel=0.01) and plain != fast and len(plain) == 20


def test_fairseq_generate_prints_the_sources_and_references_of_the_corpus(
    corpus: Path, data: Path, student: Path
) -> None:
    outcome = succeed("fairseq-generate", data, *TASK, "--path", student)
    for tag, side in (("S", "src"), ("T", "tgt")):
        assert [fields[0] for _, fields in sorted(tagged(outcome, tag))] == lines_of(corpus / f"test.{side}")


def test_fairseq_interactive_as_typed_gives_what_fairseq_generate_gives(
    corpus: Path, data: Path, student: Path
) -> None:
    command = [script("fairseq-interactive"), data, *AS_TYPED, "--path", student, "--buffer-size", 16]
    outcome = console([*command, "--batch-size", 16], stdin=(corpus / "test.src").read_bytes())
    assert outcome.code == 0, outcome.stderr
    assert texts(outcome) == texts(succeed("fairseq-generate", data, *TASK, "--path", student))


def test_fairseq_validate_as_typed_gives_the_loss_of_the_training(data: Path, tmp_path: Path) -> None:
    options = (*STUDENT, *ADAM, "--max-tokens", 500, "--max-update", 3, "--log-format", "json", "--save-dir", tmp_path)
    trained = logged(succeed("fairseq-train", data, *TASK, *options), "valid")
    command = [script("fairseq-validate"), data, *AS_TYPED, "--path", tmp_path / "checkpoint_last.pt"]
    outcome = console([*command, "--max-tokens", 500, "--log-format", "json"])
    assert outcome.code == 0, outcome.stderr
    (validated,) = logged(outcome, "valid")
    for key in ("valid_loss", "valid_nll_loss", "valid_length_loss", "valid_accuracy"):
        assert float(validated[key]) == pytest.approx(float(trained[0][key]), abs=2e-3)


def test_fairseq_score_gives_the_bleu_that_fairseq_generate_printed(
    corpus: Path, data: Path, student: Path, tmp_path: Path
) -> None:
    generated = succeed("fairseq-generate", data, *TASK, "--path", student)
    (tmp_path / "hypotheses").write_text("".join(text + "\n" for text in texts(generated)), encoding="utf-8")
    outcome = console([script("fairseq-score"), "--sys", tmp_path / "hypotheses", "--ref", corpus / "test.tgt"])
    assert outcome.code == 0, outcome.stderr
    assert float(outcome.stdout.split("BLEU4 = ")[1].split(",")[0]) == pytest.approx(bleu(generated), abs=0.01)


def test_fairseq_hydra_train_as_typed_trains_what_fairseq_train_trains(data: Path, tmp_path: Path) -> None:
    config = f"""
# @package _group_
common: {{user_dir: {PLUGIN}, log_format: json, log_interval: 1, no_progress_bar: true}}
task: {{_name: translation_nar, data: {data}, max_source_positions: 64, max_target_positions: 64}}
model: {{_name: mask_predict, encoder_layers: 1, decoder_layers: 1, encoder_embed_dim: 32, encoder_ffn_embed_dim: 64,
  decoder_ffn_embed_dim: 64, encoder_attention_heads: 2, decoder_attention_heads: 2, dropout: 0.0}}
criterion: {{_name: token_length, label_smoothing: 0.1}}
optimizer: {{_name: adam}}
lr_scheduler: {{_name: inverse_sqrt, warmup_updates: 100}}
dataset: {{max_tokens: 500, disable_validation: true, num_workers: 1}}
optimization: {{max_update: 3, lr: [0.003]}}
checkpoint: {{save_dir: {tmp_path / "hydra"}, no_epoch_checkpoints: true}}
"""
    (tmp_path / "toy.yaml").write_text(config, encoding="utf-8")
    command = [script("fairseq-hydra-train"), "--config-dir", tmp_path, "--config-name", "toy"]
    outcome = console(command, folder=tmp_path)
    assert outcome.code == 0, outcome.stderr
    options = (*STUDENT, *LIMITS, *ADAM, *QUIET, "--label-smoothing", 0.1, "--max-tokens", 500, "--max-update", 3)
    succeed("fairseq-train", data, *TASK, *options, "--save-dir", tmp_path / "typed")
    weights = [
        torch.load(tmp_path / kind / "checkpoint_last.pt", weights_only=True)["model"] for kind in ("hydra", "typed")
    ]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name])


def test_a_plugin_imported_before_user_dir_is_registered(data: Path, student: Path) -> None:
    program = "import nar_plugin; from fairseq_cli.generate import cli_main; cli_main()"
    outcome = console([sys.executable, "-c", program, data, *AS_TYPED, "--path", student], folder=ROOT)
    assert outcome.code == 0, outcome.stderr
    assert len(texts(outcome)) == 60


def test_the_programs_work_from_another_folder_with_an_absolute_user_dir(
    data: Path, student: Path, tmp_path: Path
) -> None:
    there = succeed("fairseq-generate", data, *TASK, "--path", student, folder=tmp_path)
    assert texts(there) == texts(succeed("fairseq-generate", data, *TASK, "--path", student, folder=ROOT))
