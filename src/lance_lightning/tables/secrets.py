"""Keys and passwords stay out of errors and pickles."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from lance_lightning.errors import LanceLightningError, SourceError, is_panic


def strip_secrets(uri: str) -> str:
    """Return ``uri`` without user, password and query: they can hold secrets."""
    scheme, mark, rest = uri.partition("://")
    if not mark:
        return uri
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    user, _, server = host.rpartition("@")
    # Azure writes abfss://CONTAINER@ACCOUNT/..., where the container is no secret.
    if user and (":" in user or not scheme.startswith(("abfs", "wasb"))):
        host = server
    return f"{scheme}://{host}{slash}{path}"


def _secrets(uri: str, options: Mapping[str, str | None]) -> list[str]:
    """Return what must not be shown, the longest first."""
    rest = uri.partition("://")[2]
    user = rest.split("/", 1)[0].rpartition("@")[0]
    query = rest.partition("?")[2]
    found = [*options.values(), user, *user.split(":"), query]
    found += [part.partition("=")[2] for part in query.split("&")]
    secrets = {value for value in found if value and len(value) > 3}
    return sorted(secrets - {"true", "false"}, key=len, reverse=True)


@contextmanager
def explain_errors(
    doing: str,
    uri: str,
    options: Mapping[str, str | None],
    remedy: str | Callable[[], str],
    caught: tuple[type[Exception], ...] = (ValueError, OSError, RuntimeError),
) -> Iterator[None]:
    """Turn what Lance raises into a `SourceError` that shows no secret."""
    try:
        yield
    except LanceLightningError:
        raise
    except BaseException as error:
        if not isinstance(error, caught) and not is_panic(error):
            raise
        # Lance appends the places in its own source files.
        reason = re.sub(r",? \S+\.rs:\d+:\d+", "", str(error))
        shown = reason
        for secret in _secrets(uri, options):
            shown = shown.replace(secret, "***")
        # A traceback would print the original, secret and all.
        cause = error if shown == reason else None
        raise SourceError(f"{doing} failed: {shown}; {_told(remedy)}") from cause


def _told(remedy: str | Callable[[], str]) -> str:
    """Return the remedy, which may have to ask the storage what there is."""
    if isinstance(remedy, str):
        return remedy
    try:
        return remedy()
    except Exception as error:  # its text could show a secret, and hide the cause
        return f"what there is could not be listed either ({type(error).__name__})"


def without_environment(options: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return storage options for a pickle: None for what the environment holds."""
    return {
        key: None if value == os.environ.get(key.upper()) else value
        for key, value in options.items()
    }


def from_environment(options: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return storage options with what the environment holds in place of None."""
    return {
        key: os.environ.get(key.upper()) if value is None else value
        for key, value in options.items()
    }
