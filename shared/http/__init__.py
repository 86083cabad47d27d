"""The HTTP that services have in common: answers, errors, health, and the server itself."""
