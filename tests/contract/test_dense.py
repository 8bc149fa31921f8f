"""A model whose sources are numbers, not tokens: nothing of the task, the criterion or the generators asks for ids."""

from pathlib import Path
from typing import Any

import pytest
import torch

from nar_plugin.criterions.token_length import TokenLengthCriterion
from nar_plugin.methods.contract import UsageError
from tests.contract import measure
from tests.contract.dense_plugin.data import DenseTask, Frames, frames_of
from tests.contract.frames import (
    EOS,
    PAD,
    FrameTeacher,
    batch_of,
    decode,
    generator_of,
    model_of,
    rows,
    scores,
    split_of,
    task_of,
)
from tests.end_to_end.programs import hypotheses, logged, succeed

FOLDER = Path(__file__).parent / "dense_plugin"
SAMPLES = {"decode_samples": 4}


class Optimizer:
    """fairseq's interface around Adam, as far as a training step asks for it."""

    def __init__(self, model: Any) -> None:
        self.adam = torch.optim.Adam(model.parameters(), lr=1e-2)

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()


def criterion_of(task: DenseTask) -> TokenLengthCriterion:
    return TokenLengthCriterion(task, 0.0, "token", 1.0)


def trained(task: DenseTask, updates: int = 100) -> tuple[Any, list[float]]:
    """A model after so many updates, and its loss at each, in nats a token."""
    model, data = model_of(task, scale=1.0), split_of(task, "train")
    criterion, optimizer, losses = criterion_of(task), Optimizer(model), []
    for update in range(updates):
        sample = batch_of(data, [(32 * update + i) % len(data) for i in range(32)])
        optimizer.adam.zero_grad()
        loss, size, _ = task.train_step(sample, model, criterion, optimizer, update)
        for weight in model.parameters():
            weight.grad /= size
        optimizer.adam.step()
        losses.append(float(loss.detach()) / size)
    return model, losses


@pytest.fixture(scope="module")
def learnt() -> tuple[DenseTask, Any, list[float]]:
    task = task_of()
    return task, *trained(task)


@pytest.fixture()
def task() -> DenseTask:
    return task_of()


@pytest.fixture()
def model(task: DenseTask) -> Any:
    return model_of(task)


def with_an_empty_source(data: Frames) -> Frames:
    """The data with an empty source in the middle."""
    nothing, text = torch.zeros(0, data.sources[0].size(1)), torch.tensor([5, EOS])
    return Frames([*data.sources[:2], nothing, data.sources[3]], [*data.targets[:2], text, data.targets[3]], PAD, EOS)


def test_there_are_no_source_tokens(task: DenseTask) -> None:
    sample = batch_of(split_of(task, "valid"), [0, 1])
    assert set(sample["net_input"]) == {"frames", "frame_lengths"} and task.source_dictionary is None


def test_the_loss_falls_in_training(learnt: tuple) -> None:
    _, _, losses = learnt
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])


def test_what_was_learnt_holds_in_validation_and_is_decoded(learnt: tuple) -> None:
    task, model, _ = learnt
    data = split_of(task, "valid")
    sample = batch_of(data, list(range(len(data))))
    _, size, log = task.valid_step(sample, model, criterion_of(task))
    assert float(log["words/all/correct"]) > 0.9 * size and float(log["classes/length/correct"]) > 0.9 * len(data)
    found = [group[0] for group in rows(decode(task, model, sample))]
    right = sum(row == target.tolist() for row, target in zip(found, data.targets, strict=True))
    assert right > 0.8 * len(data)


def test_validation_is_the_same_in_any_batch(learnt: tuple) -> None:
    task, model, _ = learnt
    data = split_of(task, "valid")
    together, _, _ = task.valid_step(batch_of(data, list(range(len(data)))), model, criterion_of(task))
    alone = [task.valid_step(batch_of(data, [i]), model, criterion_of(task))[0] for i in range(len(data))]
    assert float(together) == pytest.approx(sum(map(float, alone)), rel=1e-4)


def test_validation_decodes(learnt: tuple) -> None:
    _, model, _ = learnt
    task = task_of(eval_bleu=True, eval_bleu_args='{"nbest": 2}', decode_samples=3)
    task.sequence_generator = generator_of(task, model, nbest=2)
    task.tokenizer = None
    data = split_of(task, "valid")
    _, _, log = task.valid_step(batch_of(data, list(range(len(data)))), model, criterion_of(task))
    assert log["_bleu_sys_len"] > 0 and log["_bleu_counts_0"] > 0


def test_candidates_are_the_same_in_any_batch(task: DenseTask, model: Any) -> None:
    data, options = split_of(task, "test"), {**SAMPLES, "nbest": 4, "iter_decode_max_iter": 2}
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1)).tolist()
    together = rows(decode(task, model, batch_of(data, order), **options))
    for place, i in enumerate(order):
        assert rows(decode(task, model, batch_of(data, [i]), **options)) == [together[place]]
    cut = rows(decode(task, model, batch_of(data, order), **options, max_candidate_tokens=20))
    assert cut == together


def test_sentences_stop_by_themselves_in_any_batch(task: DenseTask, model: Any) -> None:
    data, options = (
        split_of(task, "test"),
        {**SAMPLES, "iter_decode_max_iter": 6, "stop_rule": "fixed-point", "nbest": 4},
    )
    together = decode(task, model, batch_of(data, list(range(20))), **options)
    alone = [decode(task, model, batch_of(data, [i]), **options)[0] for i in range(20)]
    assert rows(together) == rows(alone)
    steps = [[one["steps"] for one in group] for group in together]
    assert steps == [[one["steps"] for one in group] for group in alone]
    assert len({step for group in steps for step in group}) > 2, "they end together, so this tests little"


def test_the_oracle_stops_where_references_say(task: DenseTask, model: Any) -> None:
    data, steps = split_of(task, "test"), {"iter_decode_max_iter": 3}
    sample = batch_of(data, list(range(20)))
    passes = [rows(decode(task, model, sample, iter_decode_max_iter=step)) for step in range(4)]
    for i, (one,) in enumerate(decode(task, model, sample, **steps, stop_rule="oracle")):
        assert one["tokens"].tolist() == passes[one["steps"]][i][0]


def test_an_option_of_its_own_is_a_flag_of_its_own_task(model: Any) -> None:
    sample = batch_of(split_of(task_of(), "test"), list(range(20)))
    plain = [group[0] for group in rows(decode(task_of(), model, sample))]
    none, some = (rows(decode(task_of(spread=spread), model, sample, **SAMPLES, nbest=4)) for spread in (0.0, 2.0))
    assert none == [[row] * 4 for row in plain] and some != none
    assert some == rows(decode(task_of(), model, sample, **SAMPLES, nbest=4))
    with pytest.raises(UsageError, match="--spread -1.0: it needs 0 or more"):
        generator_of(task_of(spread=-1.0), model)


def test_noise_comes_from_the_source_and_the_seed(model: Any) -> None:
    first, again, other = (task_of(seed=seed) for seed in (1, 1, 2))
    sample = batch_of(split_of(first, "test"), list(range(20)))
    found = [rows(decode(task, model, sample, **SAMPLES, nbest=4)) for task in (first, again, other)]
    assert found[0] == found[1]
    plain = [group[0] for group in rows(decode(task_of(), model, sample))]
    for a, b, deterministic in zip(found[0], found[2], plain, strict=True):
        assert deterministic in a and deterministic in b, "the first candidate is without noise"
    assert sum(sorted(a) != sorted(b) for a, b in zip(found[0], found[2], strict=True)) > 10


def test_equal_sources_draw_equal_noise_and_others_draw_other_noise(task: DenseTask, model: Any) -> None:
    frames = frames_of([1, 2, 3], 7)
    moved = frames.flip(0)
    text = torch.tensor([5, EOS])
    data = Frames([frames, moved, frames, frames[:4]], [text] * 4, PAD, EOS)
    keys = model.encode(batch_of(data, [0, 1, 2, 3])["net_input"]).keys.tolist()
    assert keys[0] == keys[2] and len(set(keys)) == 3


def test_the_n_best_are_ranked_by_the_model_s_own_scores(task: DenseTask, model: Any) -> None:
    sample = batch_of(split_of(task, "test"), list(range(20)))
    found = decode(task, model, sample, **SAMPLES, nbest=3)
    assert [len(group) for group in found] == [3] * 20
    for group in found:
        means = [float(one["positional_scores"].mean()) for one in group]
        assert means == sorted(means, reverse=True)
        assert [float(one["score"]) for one in group] == pytest.approx(means, abs=1e-5)
    best = rows(decode(task, model, sample, **SAMPLES, nbest=1))
    assert best == [group[:1] for group in rows(found)]


def test_history_has_every_pass(task: DenseTask, model: Any) -> None:
    sample = batch_of(split_of(task, "test"), [0, 1, 2])
    options = {"iter_decode_max_iter": 2, "retain_iter_history": True}
    for (one,) in decode(task, model, sample, **options):
        assert len(one["history"]) == 3 and one["history"][-1]["tokens"].tolist() == one["tokens"].tolist()


@pytest.mark.parametrize("ids", [[0, 1, 2, 3], [2, 2]], ids=["among others", "nothing else"])
def test_an_empty_source_is_answered_by_the_empty_hypothesis(task: DenseTask, model: Any, ids: list[int]) -> None:
    sample = batch_of(with_an_empty_source(split_of(task, "test")), ids)
    for options in ({}, {**SAMPLES, "nbest": 2}):
        for i, group in zip(ids, decode(task, model, sample, **options), strict=True):
            assert len(group) == options.get("nbest", 1)
            assert all((one["tokens"].tolist() == [EOS]) == (i == 2) for one in group)


def test_references_are_scored_one_by_one_as_together(task: DenseTask, model: Any) -> None:
    data = split_of(task, "test")
    found = decode(task, model, batch_of(data, list(range(20))), score_reference=True)
    assert [group[0] for group in rows(found)] == [target.tolist() for target in data.targets]
    assert {group[0]["kind"] for group in found} == {"exact"}
    for i, (one,) in enumerate(found):
        sample = batch_of(data, [i])
        scored = model.score(model.encode(sample["net_input"]), sample["target"])
        expected = (scored.tokens.sum() + scored.extra[0]).item() / len(data.targets[i])
        assert float(one["score"]) == pytest.approx(expected, abs=1e-4)


def test_references_have_their_score_after_an_empty_source(task: DenseTask, model: Any) -> None:
    data = with_an_empty_source(split_of(task, "test"))
    found = decode(task, model, batch_of(data, [0, 1, 2, 3]), score_reference=True)
    assert [group[0] for group in rows(found)] == [target.tolist() for target in data.targets]


def test_a_teacher_of_frames_chooses(task: DenseTask, model: Any) -> None:
    data, teacher = split_of(task, "test"), FrameTeacher()
    sample = batch_of(data, list(range(20)))
    own = rows(decode(task, model, sample, **SAMPLES, nbest=4))
    found = decode(task, model, sample, teacher, **SAMPLES, nbest=4)
    assert teacher.read == 20, "each source is read once"
    for frames, group, value in zip(data.sources, rows(found), scores(found), strict=True):
        assert value == sorted(value, reverse=True)
        assert value == pytest.approx([teacher.likes(frames, row) for row in group], abs=1e-4)
    assert [sorted(group) for group in rows(found)] == [sorted(group) for group in own]
    assert [group[0] for group in rows(found)] != [group[0] for group in own]


def test_more_hypotheses_than_candidates_are_refused(task: DenseTask, model: Any) -> None:
    with pytest.raises(UsageError, match="--decode-samples"):
        generator_of(task, model, nbest=3, decode_samples=2)


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """The flags with which the programs decode with a model that they have trained, in ``folder / "log"``."""
    folder = tmp_path_factory.mktemp("dense")
    task = (folder, "--user-dir", FOLDER, "--task", "dense_frames", "--max-target-positions", 12)
    arch = ("--arch", "dense", "--criterion", "token_length", "--optimizer", "adam", "--lr", 1e-2)
    quiet = ("--save-dir", folder, "--log-format", "json", "--num-workers", 0, "--no-epoch-checkpoints")
    bleu = ("--eval-bleu", "--decode-samples", 2, "--validate-interval", 100)
    training = succeed("fairseq-train", *task, *arch, *quiet, *bleu, "--batch-size", 32, "--max-update", 100)
    assert float(logged(training, "valid")[-1]["valid_bleu"]) > 50
    return *task, "--path", folder / "checkpoint_last.pt"


def test_the_programs_train_and_decode_it(flags: tuple) -> None:
    best = ("--decode-samples", 3, "--nbest", 2)
    runs = [succeed("fairseq-generate", *flags, *best, "--batch-size", size) for size in (1, 64)]
    alone, together = (sorted(h.text for h in hypotheses(outcome)) for outcome in runs)
    assert alone == together and len(together) == 40
    assert "decoded 20 sentences" in runs[0].stderr + runs[0].stdout


class Sizeless(Frames):
    """As the host's own base of datasets, which has no ``sizes``."""

    sizes = property()


def test_a_dataset_needs_no_more_than_the_host_asks_for(task: DenseTask) -> None:
    data = split_of(task, "test")
    task.datasets["test"] = Sizeless(data.sources, data.targets, PAD, EOS)
    assert len(task.get_batch_iterator(task.datasets["test"], max_sentences=4).next_epoch_itr()) == 5


def test_limits_of_a_model_of_frames_do_not_break_its_batches(task: DenseTask) -> None:
    data = split_of(task, "test")
    batches = task.get_batch_iterator(data, max_sentences=4, max_positions=(100, 100)).next_epoch_itr()
    assert len(batches) == 5


def test_it_is_measured(flags: tuple) -> None:
    succeed(measure.__file__, *flags)
