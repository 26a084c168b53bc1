"""Files that the server sends, written whole or not at all."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from console.cli.exits import CliError, ExitCode
from console.cli.invocation import Invocation


def download(
    invocation: Invocation, path: str, file: Path, document: Any = None, **parameters: str
) -> int:
    """Fetch a path into a file: all of it or no file at all; the number of bytes.

    A document is posted. Raises CliError when the file cannot be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=file.absolute().parent, prefix=".clearance-")
    except OSError as error:
        raise CliError(f"cannot write {file}: {error.strerror}.", code=ExitCode.USAGE) from None
    part = Path(name)
    try:
        with (
            os.fdopen(descriptor, "wb") as stream,
            invocation.client.stream(path, document, **parameters) as response,
        ):
            shutil.copyfileobj(response, stream)
            written = stream.tell()
        part.replace(file)
    except OSError as error:
        raise CliError(f"cannot write {file}: {error.strerror or error}.") from None
    finally:
        part.unlink(missing_ok=True)
    return written
