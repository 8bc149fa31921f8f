"""Models with Gaussian latents, and what refines them, through fairseq's programs."""

from pathlib import Path
from typing import Any, Tuple

import pytest
import torch

from nar_plugin import compat
from tests.conftest import ADAM, CRITERIONS, LIMITS, QUIET
from tests.end_to_end.programs import TASK, complains, hypotheses, logged, program, succeed, tagged, texts

SHORT = (*LIMITS, *ADAM, *QUIET, "--max-tokens", 500)
BEST = ("--eval-bleu", "--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric")
LATENT = ("lanmt_continuous", "lanmt_refiner", "latent_transformer")


def arch(name: str) -> Tuple[str, ...]:
    return ("--arch", f"{name}_tiny", "--criterion", CRITERIONS[name])


@pytest.fixture(scope="module")
def lanmt(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The line by which the toolkit is known."""
    folder = tmp_path_factory.mktemp("lanmt")
    names = ("--arch", "latent_transformer", "--criterion", "elbo_length")
    size = ("--encoder-layers", 1, "--decoder-layers", 1, "--encoder-embed-dim", 32, "--encoder-attention-heads", 2)
    size += ("--decoder-attention-heads", 2, "--encoder-ffn-embed-dim", 64, "--decoder-ffn-embed-dim", 64)
    succeed("fairseq-train", data, *TASK, *names, *size, *SHORT, "--max-update", 200, "--save-dir", folder)
    return folder / "checkpoint_last.pt"


@pytest.fixture(scope="module")
def refiner(data: Path, stands_on: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refiner")
    flags = (*arch("lanmt_refiner"), *SHORT, *stands_on("lanmt_refiner"))
    succeed("fairseq-train", data, *TASK, *flags, "--max-update", 40, "--save-dir", folder)
    return folder / "checkpoint_last.pt"


def test_the_card_s_line_trains_and_decodes(lanmt: Path, data: Path) -> None:
    """LANMT-33: --arch latent_transformer --criterion elbo_length, --iter-decode-max-iter 1."""
    decoded = succeed("fairseq-generate", data, *TASK, "--path", lanmt, "--iter-decode-max-iter", 1)
    assert len(texts(decoded)) == 60 and len(set(texts(decoded))) > 20


def test_the_history_has_a_pass_a_step_and_no_more(lanmt: Path, refiner: Path, data: Path) -> None:
    """LANMT-33: K + 1 at most; of a refiner, what its latents would say at each step."""
    for path in (lanmt, refiner):
        flags = ("--retain-iter-history", "--print-step", "--iter-decode-max-iter", 3)
        told = succeed("fairseq-generate", data, *TASK, "--path", path, *flags)
        passes = [line[2:].split("\t")[0].split("_") for line in told.lines if line.startswith("E-")]
        steps = {id: int(value[0]) for id, value in tagged(told, "I")}
        assert len(steps) == 60 and max(steps.values()) <= 3
        for id, count in steps.items():
            assert sorted(int(step) for sentence, step in passes if int(sentence) == id) == list(range(count + 1))
    assert set(steps.values()) == {3}, "a refiner makes all of its steps"


@pytest.mark.parametrize("name", LATENT)
def test_the_best_checkpoint_by_bleu(name: str, data: Path, stands_on: Any, tmp_path: Path) -> None:
    """LANMT-33: --eval-bleu and --best-checkpoint-metric bleu."""
    flags = (*arch(name), *LIMITS, *ADAM, *BEST, *stands_on(name), "--max-tokens", 500, "--max-update", 4)
    outcome = succeed("fairseq-train", data, *TASK, *flags, "--save-dir", tmp_path, "--log-format", "json")
    assert "valid_bleu" in logged(outcome, "valid")[-1] and (tmp_path / "checkpoint_best.pt").exists()


def test_the_budget_falls_in_a_training_and_after_a_resume(data: Path, tmp_path: Path) -> None:
    """LANMT-4: 1 to update 4, then in a line to 0 at update 12."""
    flags = (*arch("latent_transformer"), *SHORT, "--log-format", "json", "--log-interval", 1, "--save-dir", tmp_path)
    flags += ("--budget-anneal-start", 4, "--budget-anneal-end", 12)
    found = {}
    for last in (7, 14):
        for log in logged(succeed("fairseq-train", data, *TASK, *flags, "--max-update", last)):
            found[int(log["num_updates"])] = float(log["budget"])
    # the log names an update when it is done, the budget is that with which it began
    expected = {update: min(1.0, max(0.0, 1 - (update - 1 - 4) / 8)) for update in range(1, 15)}
    assert found == pytest.approx(expected)


def test_the_log_says_what_the_objective_is_made_of(data: Path, tmp_path: Path) -> None:
    flags = (*arch("latent_transformer"), *LIMITS, *ADAM, "--max-tokens", 500, "--max-update", 2, "--no-save")
    log = logged(succeed("fairseq-train", data, *TASK, *flags, "--log-format", "json"), "valid")[-1]
    wanted = {"nll_loss", "kl", "kl_position", "kl_hinged", "budget", "length_loss", "length_accuracy"}
    assert {f"valid_{name}" for name in wanted} <= log.keys()


def test_a_second_phase_without_a_budget_begins_from_the_first(lanmt: Path, data: Path, tmp_path: Path) -> None:
    given = compat.load_checkpoint(str(lanmt))["cfg"]["model"]
    size = [
        word
        for name in ("encoder_layers", "decoder_layers", "encoder_embed_dim", "encoder_attention_heads")
        for word in (f"--{name.replace('_', '-')}", given[name])
    ]
    size += ["--decoder-attention-heads", 2, "--encoder-ffn-embed-dim", 64, "--decoder-ffn-embed-dim", 64]
    flags = ("--arch", "lanmt", "--criterion", "elbo_length", *size, "--finetune-from-model", lanmt, "--budget", 0)
    more = (*LIMITS, "--optimizer", "adam", "--lr", 1e-4, "--max-tokens", 500, "--max-update", 2)
    told = succeed("fairseq-train", data, *TASK, *flags, *more, "--save-dir", tmp_path, "--log-format", "json")
    assert float(logged(told, "valid")[-1]["valid_nll_loss"]) < 3.0 and logged(told, "valid")[-1]["valid_budget"] == "0"


def test_a_refiner_s_checkpoint_stands_alone(data: Path, stands_on: Any, tmp_path: Path) -> None:
    """Decoded by itself, where what it was trained on is gone; its latent model is the one that it was given."""
    _, given = stands_on("lanmt_refiner")
    copy = tmp_path / "latent.pt"
    copy.write_bytes(Path(given).read_bytes())
    flags = (*arch("lanmt_refiner"), *SHORT, "--latent-model", copy, "--max-update", 5, "--save-dir", tmp_path / "out")
    succeed("fairseq-train", data, *TASK, *flags)
    copy.unlink()
    ours = ("--path", tmp_path / "out" / "checkpoint_last.pt", "--latent-inference", "delta")
    theirs = ("--path", given)
    one, other = (
        succeed("fairseq-generate", data, *TASK, *path, "--iter-decode-max-iter", 2) for path in (ours, theirs)
    )
    assert texts(one) == texts(other)


def test_a_search_is_judged_by_a_teacher(refiner: Path, teacher: Path, data: Path) -> None:
    """LANMT-22: candidates that say the same have the same score."""
    search = ("--decode-samples", 4, "--iter-decode-with-beam", 2, "--nbest", 8, "--iter-decode-max-iter", 1)
    rescored = ("--path", f"{refiner}:{teacher}", "--iter-decode-with-external-reranker", *search)
    found = hypotheses(succeed("fairseq-generate", data, *TASK, *rescored))
    assert len(found) == 8 * 60
    scores: dict[Tuple[int, str], float] = {}
    for hypothesis in found:
        known = scores.setdefault((hypothesis.id, hypothesis.text), hypothesis.score)
        assert hypothesis.score == pytest.approx(known, abs=2e-3)
    assert len(scores) < len(found)


def test_ensembles_are_refused(lanmt: Path, data: Path) -> None:
    """LANMT-33."""
    complains(program("fairseq-generate", data, *TASK, "--path", f"{lanmt}:{lanmt}"), "--path", "ensembles")


def test_flags_without_an_effect_are_refused(lanmt: Path, refiner: Path, data: Path) -> None:
    """LANMT-33: in one line."""
    for path, flags, words in (
        (lanmt, ("--latent-inference", "score"), ("--latent-inference score", "delta, mean")),
        (refiner, ("--stop-rule", "fixed-point"), ("--stop-rule", "--latent-inference score")),
    ):
        complains(program("fairseq-generate", data, *TASK, "--path", path, *flags), *words)


def refused(data: Path, folder: Path, *flags: Any) -> Any:
    return program("fairseq-train", data, *TASK, *arch("lanmt_refiner"), *SHORT, "--save-dir", folder, *flags)


def test_a_refiner_needs_a_latent_model_that_fits(
    data: Path, joint_data: Path, student: Path, stands_on: Any, tmp_path: Path
) -> None:
    complains(refused(data, tmp_path), "--latent-model")
    complains(refused(data, tmp_path, "--latent-model", tmp_path / "gone.pt"), "gone.pt")
    complains(refused(data, tmp_path, "--latent-model", student), "lanmt_continuous")
    complains(refused(joint_data, tmp_path, *stands_on("lanmt_refiner")), "another source")
    known = (*stands_on("lanmt_refiner"), "--allow-other-dictionary")
    complains(refused(joint_data, tmp_path, *known), "does not fit")


def test_a_refiner_s_latent_model_is_a_checkpoint_of_ours(teacher: Path, data: Path, tmp_path: Path) -> None:
    complains(refused(data, tmp_path, "--latent-model", teacher), "teacher", "none of nar_plugin's")
    text = tmp_path / "text.pt"
    text.write_text("en de\n")
    complains(refused(data, tmp_path, "--latent-model", text), "text.pt", "cannot be read")
    complains(refused(data, tmp_path, "--latent-options", "{"), "--latent-options", "--latent-model")


def test_a_training_goes_on_from_the_latent_model_that_it_began_with(
    stands_on: Any, data: Path, tmp_path: Path
) -> None:
    """Another one in its place would be ignored: the weights are those of the checkpoint."""
    given = stands_on("lanmt_refiner")[-1]
    state = compat.load_checkpoint(str(given))
    other = {**state, "model": {name: value + 1 for name, value in state["model"].items()}}
    torch.save(other, tmp_path / "other.pt")
    flags = (*arch("lanmt_refiner"), *SHORT, "--save-dir", tmp_path / "out")
    succeed("fairseq-train", data, *TASK, *flags, "--latent-model", given, "--max-update", 2)
    again = program("fairseq-train", data, *TASK, *flags, "--latent-model", tmp_path / "other.pt", "--max-update", 4)
    complains(again, "other.pt", "--save-dir")
    succeed("fairseq-train", data, *TASK, *flags, "--latent-model", given, "--max-update", 4)


def test_a_budget_that_rises_is_refused(data: Path, tmp_path: Path) -> None:
    flags = (*arch("latent_transformer"), *SHORT, "--save-dir", tmp_path, "--budget-anneal-start", 9)
    complains(program("fairseq-train", data, *TASK, *flags, "--budget-anneal-end", 5), "--budget")
