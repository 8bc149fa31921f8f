"""CTranslate2's form of a loaded model: what the clock measures our systems against.

The specification is filled by the functions of CTranslate2's own converter. The converter itself is passed by: it loads
the checkpoint anew, its options being a Namespace only where any pickled object is let in, and wants both stacks to
have the same number of heads and their norms in the same places.
"""

import importlib
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Sequence

from ..errors import ToolError
from ..files import read_lines, write_lines

ACTIVATIONS = {
    "relu": "RELU",
    "gelu": "GELU",
    "gelu_accurate": "GELUTanh",
    "gelu_fast": "GELUTanh",
    "swish": "SWISH",
}
"""CTranslate2's names of fairseq's."""
UNKNOWN = (
    *("adaptive_input", "adaptive_softmax_cutoff", "base_layers", "char_inputs", "cross_self_attention"),
    *("no_cross_attention", "no_token_positional_embeddings"),
)
"""Options of fairseq's transformer that CTranslate2 has no network for."""


def library() -> ModuleType:
    """The package; it is optional. Raises ToolError without it."""
    try:
        return importlib.import_module("ctranslate2")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "ctranslate2"
        why = "is not installed" if missing else f"does not load: {error}"
        raise ToolError(f"CTranslate2 {why}; pip install ctranslate2") from None


def check(models: Sequence[Any]) -> None:
    """Raises ToolError for models that CTranslate2 cannot have: all but a single transformer of fairseq's own."""
    from fairseq.models.transformer import TransformerModel

    if len(models) > 1:
        raise ToolError("CTranslate2 decodes with one model, not with several")
    model = models[0]
    if type(model) is not TransformerModel:
        raise ToolError(f"CTranslate2 decodes fairseq's transformer alone, not a {type(model).__name__}")
    if str(model.cfg.activation_fn) not in ACTIVATIONS:
        raise ToolError(f"CTranslate2 has no --activation-fn {model.cfg.activation_fn}")
    found = [name for name in UNKNOWN if getattr(model.cfg, name, None)]
    if found:
        raise ToolError(f"CTranslate2 has no network for --{found[0].replace('_', '-')}")
    if model.decoder.project_in_dim or model.decoder.project_out_dim:
        raise ToolError("CTranslate2 has no network for a decoder whose embeddings are of another width")


def specification(model: Any, task: Any, vocabulary_map: Optional[str] = None) -> Any:
    """A TransformerSpec that holds the weights, the dictionaries and maybe a ``vmap.txt``."""
    import torch
    from ctranslate2 import specs
    from ctranslate2.converters import fairseq as converter

    cfg = model.cfg
    shared = {
        "activation": getattr(specs.Activation, ACTIVATIONS[str(cfg.activation_fn)]),
        "layernorm_embedding": bool(cfg.layernorm_embedding),
    }
    sides = {
        name: (len(stack.layers), side.attention_heads, bool(side.normalize_before))
        for name, stack, side in (("encoder", model.encoder, cfg.encoder), ("decoder", model.decoder, cfg.decoder))
    }
    final = {"no_final_norm": bool(cfg.no_decoder_final_norm)}
    spec = specs.TransformerSpec(
        specs.TransformerEncoderSpec(*sides["encoder"][:2], pre_norm=sides["encoder"][2], **shared),
        specs.TransformerDecoderSpec(*sides["decoder"][:2], pre_norm=sides["decoder"][2], **shared, **final),
    )
    with torch.no_grad():
        converter.set_transformer_encoder(spec.encoder, model.encoder)
        converter.set_transformer_decoder(spec.decoder, model.decoder)
    spec.register_source_vocabulary(vocabulary(task.source_dictionary))
    spec.register_target_vocabulary(vocabulary(task.target_dictionary))
    if vocabulary_map is not None:
        spec.register_vocabulary_mapping(vocabulary_map)
    spec.config.decoder_start_token = spec.config.eos_token  # as fairseq's generator begins
    spec.config.add_source_eos = False  # the data's sources end with it
    return spec


def vocabulary(dictionary: Any) -> list[str]:
    """The words by their ids. Raises ToolError where two are the same, which CTranslate2 takes for one."""
    if len(set(dictionary.symbols)) < len(dictionary.symbols):
        raise ToolError("CTranslate2 needs a dictionary in which no word stands twice")
    return list(dictionary.symbols)


def translator(model: Any, task: Any, compute_type: str, threads: int, shortlist: Optional[Path] = None) -> Any:
    """A Translator on the CPU that computes in ``compute_type``: float32, or int8 made of the float32 weights.

    ``shortlist``: a file of ``nar align``, which is CTranslate2's ``vmap.txt`` behind a first line.
    """
    options = {"compute_type": compute_type, "inter_threads": 1, "intra_threads": threads}
    with tempfile.TemporaryDirectory() as folder:  # it is read whole
        words = Path(folder, "words.txt")
        if shortlist is not None:
            write_lines(words, read_lines(shortlist)[1:])
        spec = specification(model, task, None if shortlist is None else str(words))
        spec.validate()
        spec.optimize()
        spec.save(folder)
        return library().Translator(folder, device="cpu", **options)
