"""What a decoder has read before, kept so that only new tokens are computed (a key–value cache), with rows that accept
different numbers of tokens.

All rows hold the same number of columns. A token that a row rejects is no gap to be filled and nothing to be copied:
its column is marked dead, and no later token sees it. Positions are in the embeddings, so the order of columns does not
matter. A dead column must be hidden by its mask and not be set to zero: a key of zeros has a share of the softmax.

Shapes: ``R`` rows, ``H`` heads, ``C`` columns, ``K`` new tokens, ``D`` model.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .contract import Rows
from .transformer import Join, Memory, Stack


def _join(past: Memory, grown: list[Memory]) -> Join:
    """What puts new keys and values behind those of the past, and both into ``grown``."""

    def join(key: Tensor, value: Tensor) -> Memory:
        grown.append((torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)))
        return grown[-1]

    return join


@dataclass(frozen=True, kw_only=True)
class KVCache(Rows):
    """``layers``: a layer's keys and values, (R, H, C, D / H) each; ``is_live``: (R, C) True at columns that count."""

    layers: tuple[Memory, ...]
    is_live: Tensor

    @staticmethod
    def empty(stack: Stack, rows: int) -> "KVCache":
        """A cache of no column for the layers of a stack, where its weights are and of their type."""
        weight = next(stack.parameters())
        layers = tuple((weight.new_empty(rows, *shape), weight.new_empty(rows, *shape)) for shape in stack.cache_shapes)
        return KVCache(layers=layers, is_live=torch.empty(rows, 0, dtype=torch.bool, device=weight.device))

    def seen(self, is_token: Tensor) -> Tensor:
        """(R, K) real new tokens to the (R, K, C + K) mask under which they are read: each sees what is live and, of
        the new ones, those up to itself. A padded one sees itself, lest its softmax be empty."""
        rows, width = is_token.shape
        before = self.is_live[:, None, :].expand(rows, width, -1)
        itself = torch.eye(width, dtype=torch.bool, device=is_token.device)
        return torch.cat([before, torch.ones_like(itself).tril() & is_token[:, None, :] | itself], 2)

    def read(
        self,
        stack: Stack,
        x: Tensor,
        is_token: Tensor,
        memory: tuple[Memory, ...] | None = None,
        is_source: Tensor | None = None,
    ) -> tuple[Tensor, "KVCache"]:
        """(R, K, D) embeddings of new tokens to their states, and the cache that holds them too.

        ``is_token``: (R, K), False where a row has fewer new tokens: such columns are dead from the beginning.
        """
        grown: list[Memory] = []
        joins = [_join(past, grown) for past in self.layers]
        states = stack(x, self.seen(is_token), memory, is_source, cache=joins)
        return states, KVCache(layers=tuple(grown), is_live=torch.cat([self.is_live, is_token], 1))

    def kept(self, is_kept: Tensor) -> "KVCache":
        """The cache in which the last K columns count only where (R, K) ``is_kept``: the others are rejected."""
        width = is_kept.size(1)
        before, last = self.is_live.split([self.is_live.size(1) - width, width], 1)
        return replace(self, is_live=torch.cat([before, last & is_kept], 1))

    def compacted(self) -> "KVCache":
        """The same without columns that no row needs: each row's live columns in their order, then what pads it.

        It waits for the device once, and copies: worth it where many columns are dead.
        """
        counts = self.is_live.sum(1)
        width = int(counts.max()) if len(counts) else 0
        order = (~self.is_live).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
        is_live = torch.arange(width, device=order.device) < counts[:, None]

        def gathered(of_layer: Tensor) -> Tensor:
            return of_layer.gather(2, order[:, None, :, None].expand(-1, of_layer.size(1), -1, of_layer.size(3)))

        return KVCache(layers=tuple((gathered(k), gathered(v)) for k, v in self.layers), is_live=is_live)
