"""Which text a model belongs to: its dictionaries and its direction, as checkpoints carry them."""

import logging
from dataclasses import asdict, dataclass
from typing import Any, Dict, Optional

from ..compat import digest
from ..methods.contract import UsageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Text:
    """Hashes of both dictionaries, and the direction."""

    source: str
    target: str
    direction: str

    @classmethod
    def of(cls, source: Any, target: Any, source_lang: Optional[str], target_lang: Optional[str]) -> "Text":
        return cls(digest(source), digest(target), f"{source_lang}-{target_lang}")

    def as_dict(self) -> Dict[str, str]:
        return asdict(self)

    def check(self, told: Optional[Dict[str, str]], path: str, is_allowed: bool) -> None:
        """Compares with what a checkpoint says of itself. Raises UsageError where they differ, unless allowed."""
        if told is None:
            logger.warning(f"{path} does not say which dictionaries it was trained with: nothing is compared")
            return
        sides = [side for side in ("source", "target") if told.get(side) != getattr(self, side)]
        if sides:
            complaint = (
                f"was trained with another {' and another '.join(sides)} dictionary than that of the data folder"
            )
        elif told.get("direction") != self.direction:
            complaint = f"translates {told.get('direction')}, not {self.direction}"
        else:
            return
        if not is_allowed:
            raise UsageError(f"{path} {complaint}; if you know that it fits: --allow-other-dictionary")
        logger.warning(f"{path} {complaint}")
