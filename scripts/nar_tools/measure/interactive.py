"""A system as fairseq-interactive loads it: a sentence is typed, and the whole history of its decode comes back."""

import math
from typing import Any, List, Optional, Sequence

from ..errors import ToolError
from .history import KEPT, Refinement, Step, refined
from .system import System, parsed

BLANK = "·"
"""How a position of a canvas is shown that says nothing."""


class Interactive(System):
    """A model whose passes can be seen; each sentence is decoded alone."""

    def __init__(self, argv: Sequence[str]) -> None:
        from fairseq import hub_utils

        from nar_plugin.methods import options

        super().__init__(argv)
        if not self.options_are(options.History) and not self.cfg.task.get("drafter"):
            told = "keeps no history of passes that could be shown; take a model of an iterative --arch, or of ctc"
            raise ToolError(f"{self.paths[0]} {told}")
        self.load_generator()
        self.hub = hub_utils.GeneratorHubInterface(self.cfg, self.task, self.models)

    @staticmethod
    def configuration(argv: Sequence[str]) -> Any:
        return parsed("interactive", ["--retain-iter-history", *argv])

    def show(self, source: str, reference: Optional[str] = None) -> Refinement:
        """Decodes a sentence."""
        from fairseq_cli.interactive import make_batches

        from nar_plugin.methods import options

        hub, dictionary = self.hub, self.task.target_dictionary

        def segmented(line: str) -> str:
            return str(hub.apply_bpe(hub.tokenize(line)))

        (batch,) = make_batches([source], self.cfg, self.task, hub.max_positions, segmented)
        sample = {"net_input": {"src_tokens": batch.src_tokens, "src_lengths": batch.src_lengths}}
        sample = self.on_device(sample)
        best = self.step(sample)[0][0]
        output = hub.detokenize(hub.remove_bpe(dictionary.string(best["tokens"], self.cfg.common_eval.post_process)))
        if best["history"] and isinstance(self.generator.options, options.Verified):
            return refined(source, self.calls(sample), output, reference)
        has_canvas = hasattr(self.models[0], "canvas") and best["history"]
        return refined(source, self.canvas(sample) if has_canvas else self.steps(best), output, reference)

    def canvas(self, sample: Any) -> List[Step]:
        """What each position of a canvas says, and where what is read of it stands: of the most probable alignment."""
        import torch

        model, words = self.models[0], self.task.target_dictionary
        with torch.no_grad():
            said, scores, is_read = (x[0].tolist() for x in model.canvas(self.generator.encoded(sample["net_input"])))
        tokens = [BLANK if i == model.blank else words[i] for i in said]
        read = [word if is_first else "" for word, is_first in zip(tokens, is_read)]
        chances = [score if is_first else 0.0 for score, is_first in zip(scores, is_read)]
        return [Step("canvas", tokens, scores), Step("read", read, chances, is_compared=False)]

    def calls(self, sample: Any) -> List[Step]:
        """Call by call what a verifier said: the drafts that it accepted, its own word, and, marked, those that it
        refused."""
        import torch

        from nar_plugin.methods import noise
        from nar_plugin.methods.contract import Request

        generator, words = self.generator, self.task.target_dictionary
        model, found, count = generator.model, [], 0
        with torch.no_grad():
            encoded = generator.encoded(sample["net_input"])
            keys = noise.decoding_keys(generator.seed, encoded.keys)
            request = Request(options=generator.options, keys=lambda: keys)
            state = model.start(encoded, model.propose(encoded, request))
            while True:
                said = state.tokens[0, count : int(state.count)].tolist()
                scores = state.scores[0, count : int(state.count)].tolist()
                offered = [i for i in state.offered[0].tolist() if i != generator.symbols.pad]
                taken = min(int(state.taken), len(said))
                refused = [] if bool(state.done) and taken == len(said) else offered[taken:]
                told = f"{taken} of {len(offered)} drafts" if offered else "no draft"
                tokens, marks = [words[i] for i in said + refused], [False] * len(said) + [True] * len(refused)
                chances = [*scores, *[-math.inf] * len(refused)]
                found.append(Step(f"call {state.calls}", tokens, chances, marked=marks, told=told))
                if bool(state.done):
                    return found
                count = int(state.count)
                state = model.refine(state, state.calls, 0)

    def steps(self, best: Any) -> List[Step]:
        """The history of a hypothesis, and its tokens if they are not those of the last pass (--collapse-repeats)."""
        names = [f"pass {i + 1}" for i in range(len(best["history"]))]
        states = [*zip(names, best["history"])]
        if states and not best["tokens"].equal(best["history"][-1]["tokens"]):
            states.append((KEPT, best))
        words = self.task.target_dictionary
        return [
            Step(name, [words[i] for i in state["tokens"].tolist()], state["positional_scores"].tolist())
            for name, state in states
        ]
