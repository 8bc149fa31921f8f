"""The one task, ``translation_nar``."""
