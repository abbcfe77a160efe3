"""`python -m edge_agent.enrolment enrol`: a device's first certificate; `request`: key and request for its next one.

`request` is what a running agent starts: it prints the document to publish. Exit code 1: the same again may work, 2: a
person must act; the line on standard error says why.
"""

import argparse
import sys
from pathlib import Path
from typing import Final

from contracts import enrolment
from contracts.enrolment import INVITATION_BYTES_MAX, RenewRequest
from contracts.errors import FieldlakeError, RetrySafeError
from edge_agent.adapters.identity import IdentityFolder
from edge_agent.enrolment.bootstrap import enrol
from edge_agent.enrolment.keys import make_request

EXIT_TRY_AGAIN: Final = 1
EXIT_OPERATOR_MUST_ACT: Final = 2


def main(arguments: list[str] | None = None) -> int:
    """Do what was asked; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_agent.enrolment",
        description="Give a device its first certificate, or make key and request for its next one.",
        epilog="example: python -m edge_agent.enrolment enrol --invitation press-01.json --folder identity",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    first = commands.add_parser("enrol", help="use an invitation")
    first.add_argument("--invitation", type=Path, required=True, metavar="FILE", help="as the operator gave it")
    following = commands.add_parser("request", help="make the next key and print the request for its certificate")
    following.add_argument("--device", required=True, metavar="NAME", help="name of the device")
    for command in (first, following):
        command.add_argument("--folder", type=Path, required=True, metavar="DIR", help="keys and certificates")
    options = parser.parse_args(arguments)
    try:
        identity = IdentityFolder(options.folder)
        if options.command == "enrol":
            with options.invitation.open("rb") as file:
                invitation = enrolment.decode_invitation(file.read(INVITATION_BYTES_MAX + 1))
            sys.stdout.write(f"{enrol(invitation, identity).cert_file}\n")
        else:
            request = RenewRequest(make_request(identity.begin(), options.device).csr_pem)
            sys.stdout.write(enrolment.encode(request).decode() + "\n")
    except (FieldlakeError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_TRY_AGAIN if isinstance(error, RetrySafeError | OSError) else EXIT_OPERATOR_MUST_ACT
    return 0


if __name__ == "__main__":
    sys.exit(main())
