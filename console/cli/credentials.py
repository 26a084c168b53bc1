"""The file that `clearance login` writes: server, token and namespace, for its owner alone."""

import json
import os
import stat
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from console.cli.exits import CliError, ExitCode
from console.cli.printing import tell

OWNER_ONLY = 0o600
FOLDER_OWNER_ONLY = 0o700


@dataclass(frozen=True, slots=True)
class Login:
    """Where a person is signed in; the token is sent to that server and no other."""

    server: str = ""
    token: str = ""
    username: str = ""
    namespace: str = ""


def login_path() -> Path:
    """`CLEARANCE_CONFIG`, or `clearance/config.json` in the user's configuration folder."""
    named = os.environ.get("CLEARANCE_CONFIG")
    if named:
        return Path(named)
    folder = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(folder) / "clearance" / "config.json"


def read_login() -> Login:
    """The kept login; an empty one when there is none. Raises CliError for an unreadable file."""
    path = login_path()
    try:
        text = path.read_text(encoding="utf-8")
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return Login()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from None
    if mode & 0o077:
        tell(f"{path} can be read by others; run: chmod 600 {path}")
    try:
        found = json.loads(text)
        return Login(**{name: str(found.get(name, "")) for name in asdict(Login())})
    except (ValueError, AttributeError):
        raise _unreadable(path, "it is not a JSON object") from None


def _unreadable(path: Path, why: str) -> CliError:
    return CliError(
        f"cannot read {path}: {why}; delete it and run `clearance login` again.",
        code=ExitCode.USAGE,
    )


def write_login(login: Login) -> Path:
    """Keep a login, whole or not at all, mode 0600. Raises CliError."""
    path = login_path()
    try:
        path.parent.mkdir(mode=FOLDER_OWNER_ONLY, parents=True, exist_ok=True)
        # mkstemp makes the file 0600 before the token is in it.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".config-")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump(asdict(login), stream, indent=2)
                stream.write("\n")
            Path(name).chmod(OWNER_ONLY)
            Path(name).replace(path)
        except BaseException:  # interrupted or not, no half file with a token stays
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror or error}.") from None
    return path


def forget_login() -> bool:
    """Delete the kept login; whether there was one."""
    try:
        login_path().unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise CliError(f"cannot delete {login_path()}: {error.strerror or error}.") from None
    return True
