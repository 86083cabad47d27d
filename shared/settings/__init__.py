"""The sections of the settings, one model each; `shared.config` puts them together."""
