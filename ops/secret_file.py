"""The variables of the environment that are meant for us: secrets out of files, and no service links.

NAME_FILE stands instead of NAME for each secret, as Docker and Kubernetes hand them out. A file is read once, at the
start; newlines at its end are not part of the secret. No message shows a piece of it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from engine.errors import Broken
from ops.service_link import without_links

SUFFIX = "_FILE"
# Keys, and URLs, which may hold a password.
SECRETS = (
    "PENSTOCK_MASTER_KEY",
    "PENSTOCK_RETIRED_MASTER_KEYS",
    "PENSTOCK_FINGERPRINT_KEY",
    "PENSTOCK_REDIS_URL",
    "PENSTOCK_DATABASE_URL",
    "PENSTOCK_BANK_URL",
    "PENSTOCK_BANK_DATABASE_URL",
)
_SECRET_BYTES_MAX = 64 * 1024  # some hundred retired keys are a tenth of it


class SecretFileError(Broken):
    """A file that a variable names cannot be used; the text names both."""


def variables(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Of the environment, or of these: without service links, and NAME with what the file of NAME_FILE holds for each
    secret. Raises SecretFileError."""
    read = without_links(os.environ if environ is None else environ)
    for name in SECRETS:
        path = read.pop(name + SUFFIX, None)
        if path is None:
            continue
        if read.get(name):
            raise SecretFileError(f"{name} and {name}{SUFFIX} are both set: unset one of them")
        read[name] = read_secret(name + SUFFIX, path)
    return read


def read_secret(variable: str, path: str) -> str:
    """The one line of a file. Raises SecretFileError."""
    raw = read_file(variable, path, _SECRET_BYTES_MAX)
    try:
        text = raw.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise SecretFileError(f"{variable}: {path} is no text in UTF-8") from None
    if not text.strip():
        raise SecretFileError(f"{variable}: {path} is empty")
    if any(not character.isprintable() for character in text):
        raise SecretFileError(f"{variable}: {path} holds more than one line, or signs that cannot be printed")
    return text


def read_file(variable: str, path: str | Path, bytes_max: int) -> bytes:
    """What a file holds. Raises SecretFileError."""
    if not str(path):
        raise SecretFileError(f"{variable} names no file: unset it, or write the path of one")
    try:
        # A pipe that nobody writes would be waited for without end.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SecretFileError(f"{variable}: {path} is no file, but a pipe or a device")
            content = file.read(bytes_max + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its name has a zero byte in it"
        raise SecretFileError(f"{variable}: {path} cannot be read ({reason})") from None
    if not content:
        raise SecretFileError(f"{variable}: {path} is empty")
    if len(content) > bytes_max:
        raise SecretFileError(f"{variable}: {path} is larger than {bytes_max} bytes, which no such file is")
    return content
