"""holdfast doctor: is the repository as one would want to find it when it is needed?"""

from typing import TYPE_CHECKING

from cli.app import app
from cli.call import Call
from cli.exit_codes import DAMAGED, DONE, REFUSED
from cli.options import command
from cli.output import count

if TYPE_CHECKING:
    from engine.doctor import Finding


@command(app, "doctor", examples="holdfast doctor\nholdfast doctor --json")
def doctor(call: Call) -> int:
    """Examine the storage, the keys and what interrupted runs left behind.

    Run it after `init`, and when something is strange. It looks at what no backup looks at, and says what to do;
    `verify` is what proves that the backups are whole.
    """
    from engine.doctor import Verdict, examine

    session = call.open()
    findings = examine(session, call.settings.location, call.settings.storage)
    problems = [finding for finding in findings if finding.verdict == Verdict.PROBLEM]
    warnings = [finding for finding in findings if finding.verdict == Verdict.WARNING]
    status = "problem" if problems else "warning" if warnings else "ok"
    call.output.document(
        {
            "status": status,
            "findings": [
                {
                    "what": finding.what,
                    "verdict": str(finding.verdict),
                    "detail": finding.detail,
                    "hint": finding.hint,
                }
                for finding in findings
            ],
        }
    )
    for finding in findings:
        detail = f": {finding.detail}" if finding.detail else ""
        call.output.line(f"{finding.verdict:<8} {finding.what}{detail}")
        if finding.hint and finding.verdict != Verdict.OK:
            call.output.line(f"{'':<8} hint: {finding.hint}")
    call.output.remark(f"{count(len(problems), 'problem')}, {count(len(warnings), 'warning')}")
    return _exit_code(problems)


def _exit_code(problems: "list[Finding]") -> int:
    """A storage that breaks its promises is refused, as `init` would; any other problem is damage."""
    if not problems:
        return DONE
    return REFUSED if all(problem.what.startswith("storage: ") for problem in problems) else DAMAGED
