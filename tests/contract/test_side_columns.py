"""A model names what it wants to know of each sentence beside source and target, and the task serves it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from nar_plugin.criterions.token_length import TokenLengthCriterion
from nar_plugin.methods import noise
from nar_plugin.methods.contract import UsageError
from tests.contract.dense_plugin.data import DenseTask, WeightedTask
from tests.contract.frames import batch_of, decode, model_of, rows, split_of, task_of
from tests.end_to_end.programs import complains, logged, program, succeed

FOLDER = Path(__file__).parent / "dense_plugin"
ORDERS = {"train": [5, 0, 99, 17], "valid": [3, 2, 11]}


class Optimizer:
    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()


@pytest.fixture()
def task() -> WeightedTask:
    task = task_of(WeightedTask)
    assert isinstance(task, WeightedTask)
    for split in ORDERS:
        task.load_dataset(split)
    return task


@pytest.fixture()
def model(task: WeightedTask) -> Any:
    return model_of(task, "weighted")


def step(task: DenseTask, model: Any, sample: dict[str, Any], is_training: bool = True) -> Any:
    criterion = TokenLengthCriterion(task, 0.0, "sentence", 1.0)
    if is_training:
        return task.train_step(sample, model, criterion, Optimizer(), 0)
    return task.valid_step(sample, model, criterion)


def test_training_gives_each_sentence_its_row_in_any_order(task: WeightedTask, model: Any) -> None:
    data = task.datasets["train"]
    for order in (ORDERS["train"], ORDERS["train"][::-1], [0, 0, 0]):
        step(task, model, batch_of(data, order))
        assert set(model.seen[-1]) == {"keys", "weights"}
        assert model.seen[-1]["weights"].tolist() == [task.weight(i, "train") for i in order]
        assert model.seen[-1]["keys"].equal(noise.training_keys(1, 1, torch.tensor(order)))


def test_validation_gives_each_sentence_the_row_of_its_split(task: WeightedTask, model: Any) -> None:
    order = ORDERS["valid"]
    task.get_batch_iterator(task.datasets["valid"], max_sentences=4)
    for ids in (order, order[::-1]):
        step(task, model, batch_of(task.datasets["valid"], ids), is_training=False)
        assert model.seen[-1]["weights"].tolist() == [task.weight(i, "valid") for i in ids]
    step(task, model, batch_of(task.datasets["train"], order))
    assert model.seen[-1]["weights"].tolist() == [task.weight(i, "train") for i in order]


def test_every_batch_of_an_epoch_gets_its_rows(task: WeightedTask, model: Any) -> None:
    for split in ORDERS:
        batches = task.get_batch_iterator(task.datasets[split], max_sentences=7, ignore_invalid_inputs=True, seed=3)
        ids: list[int] = []
        for sample in batches.next_epoch_itr(shuffle=True):
            step(task, model, sample, is_training=split == "train")
            assert model.seen[-1]["weights"].tolist() == [task.weight(i, split) for i in sample["id"].tolist()]
            ids += sample["id"].tolist()
        assert sorted(ids) == list(range(len(task.datasets[split])))


def test_the_weights_reach_the_loss(task: WeightedTask, model: Any) -> None:
    data, order = task.datasets["train"], ORDERS["train"]
    together, _, _ = step(task, model, batch_of(data, order))
    plain = 0.0
    for i in order:
        sample = batch_of(data, [i])
        scored = model.score(model.encode(sample["net_input"]), sample["target"])
        plain += task.weight(i, "train") * -(scored.tokens.sum() + scored.extra[0]).item()
    assert together.item() == pytest.approx(plain, rel=1e-4)


def test_decoding_needs_no_columns(task: WeightedTask, model: Any) -> None:
    data = split_of(task, "test")
    assert len(rows(decode(task, model, batch_of(data, [0, 1, 2])))) == 3 and model.seen == []


@pytest.mark.parametrize("is_training", [True, False])
def test_a_column_that_no_task_serves_is_named_in_one_line(is_training: bool) -> None:
    for kind, arch, column in ((DenseTask, "weighted", "weights"), (WeightedTask, "demanding", "fertilities")):
        task = task_of(kind)
        model, data = model_of(task, arch), split_of(task, "train")
        with pytest.raises(UsageError, match=column) as raised:
            step(task, model, batch_of(data, [0, 1]), is_training)
        assert arch in str(raised.value) and "\n" not in str(raised.value)


def test_a_validation_on_the_split_of_training_gets_its_rows(task: WeightedTask, model: Any) -> None:
    task.get_batch_iterator(task.datasets["train"], max_sentences=4)  # as fairseq-validate --valid-subset train does
    step(task, model, batch_of(task.datasets["train"], [3, 1]), is_training=False)
    assert model.seen[-1]["weights"].tolist() == [task.weight(i, "train") for i in (3, 1)]


@pytest.mark.slow
def test_the_programs_serve_columns_and_complain_in_one_line(tmp_path: Path) -> None:
    options = ("--criterion", "token_length", "--optimizer", "adam", "--lr", 1e-2, "--batch-size", 32, "--no-save")
    frames = (tmp_path, "--user-dir", FOLDER, "--max-target-positions", 12, "--num-workers", 0)
    short = ("--max-update", 4, "--log-format", "json")
    outcome = succeed("fairseq-train", *frames, *options, *short, "--task", "weighted_frames", "--arch", "weighted")
    assert "valid_weighted" in logged(outcome, "valid")[-1]
    outcome = program("fairseq-train", *frames, *options, *short, "--task", "dense_frames", "--arch", "weighted")
    complains(outcome, "weights", "--arch weighted")
