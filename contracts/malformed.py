"""What a msgspec decoder raises for bytes that are not its document."""

from typing import Final

import msgspec

# A string that is not UTF-8 and a document nested too deeply are input errors too, but not msgspec's own.
MALFORMED: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
