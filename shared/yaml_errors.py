"""What reading YAML may raise, where the text is none or its tags do not fit their values."""

from typing import Final

import yaml

YAML_ERRORS: Final = (
    yaml.YAMLError,
    # Of the library's constructors: `!!int ""`, `!!bool x`, `!!timestamp x` and `2026-02-30`.
    LookupError,
    AttributeError,
    ValueError,
    RecursionError,
)
