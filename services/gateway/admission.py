"""Which registries and repositories a site lets in, decided before anything is asked for."""

from fnmatch import fnmatchcase

from shared.errors import NotAdmittedError
from shared.reference import ImageReference, parse_reference
from shared.settings.lifecycle import AdmissionSettings


class Admission:
    """The rules of one site. What an image is made of, converters look at."""

    def __init__(self, rules: AdmissionSettings) -> None:
        self._rules = rules

    def check(self, text: str) -> None:
        """NotAdmittedError unless a pull of this reference may begin."""
        rules = self._rules
        reference = parse_reference(text)
        denied = any(_names(pattern, reference) for pattern in rules.deny_registries)
        allowed = not rules.allow_registries or any(
            _names(pattern, reference) for pattern in rules.allow_registries
        )
        if denied or not allowed:
            advice = rules.advice or "ask the site's operators which registries may be used"
            raise NotAdmittedError(f"this site takes no images from {reference.name}; {advice}")


def _names(pattern: str, reference: ImageReference) -> bool:
    """A pattern without a slash means a registry; `*` stands for anything, slashes too."""
    named = reference.name if "/" in pattern else reference.registry
    # A host is the same host however it is written.
    return fnmatchcase(named.lower(), pattern.lower())
