"""A system as fairseq-interactive loads it: a sentence is typed, and the whole history of its decode comes back."""

from typing import Any, List, Optional, Sequence

from ..errors import ToolError
from .history import KEPT, Refinement, Step, refined
from .system import System, parsed


class Interactive(System):
    """An iterative model; each sentence is decoded alone."""

    def __init__(self, argv: Sequence[str]) -> None:
        from fairseq import hub_utils

        from nar_plugin.methods import options

        super().__init__(argv)
        if not self.options_are(options.Refinement):
            told = "keeps no history of passes that could be shown; take a model of an iterative --arch"
            raise ToolError(f"{self.paths[0]} {told}")
        self.load_generator()
        self.hub = hub_utils.GeneratorHubInterface(self.cfg, self.task, self.models)

    @staticmethod
    def configuration(argv: Sequence[str]) -> Any:
        return parsed("interactive", ["--retain-iter-history", *argv])

    def show(self, source: str, reference: Optional[str] = None) -> Refinement:
        """Decodes a sentence."""
        from fairseq_cli.interactive import make_batches

        hub, dictionary = self.hub, self.task.target_dictionary

        def segmented(line: str) -> str:
            return str(hub.apply_bpe(hub.tokenize(line)))

        (batch,) = make_batches([source], self.cfg, self.task, hub.max_positions, segmented)
        sample = {"net_input": {"src_tokens": batch.src_tokens, "src_lengths": batch.src_lengths}}
        best = self.step(self.on_device(sample))[0][0]
        output = hub.detokenize(hub.remove_bpe(dictionary.string(best["tokens"], self.cfg.common_eval.post_process)))
        return refined(source, self.steps(best), output, reference)

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
