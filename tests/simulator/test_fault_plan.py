"""The plan of what may go wrong at the broker, line by line, and the fault that stands for each."""

import re
from pathlib import Path

import pytest

from simulator.faults.table import KINDS, SCOPE, Faults

TESTS = Path(__file__).parents[1]

# field notes 6.3, lines of HTTP, auth, notices, sockets and the broker's data; a line that no fault stands for
# says what does, as the simulator's commands name it
PLAN: dict[str, tuple[str, ...]] = {
    "F11 answer late, order taken": ("delay",),
    "F12 answer late, order not taken": ("request_lost", "delay_before"),
    "F14 reset while sending or reading": ("request_lost", "answer_lost", "answer_torn"),
    "F15 EGW00301 and EGW00302, taken or not": ("timeout_accepted", "timeout_unaccepted"),
    "F16 answers that say nothing": (
        "error_500",
        "bad_gateway",
        "broken_json",
        "rt_cd_missing",
        "gateway",
        "receipt_without_number",
    ),
    "F17 EGW00201 storm": ("too_fast",),
    "F18 EGW00215 storm": ("ledger_too_fast",),
    "F19 broker dead for minutes": ("request_lost", "error_500"),
    "F20 business refusals": ("refusal", "refused_later"),
    "F21 token ends in a burst": ("expire_tokens", "token_ended"),
    "F22 token revoked early": ("revoke_tokens", "token_invalid"),
    "F24 token endpoint late or refusing": ("request_lost", "delay", "gateway"),
    "F25 approval key invalid": ("approval_refused",),
    "F26 notice doubled": ("notice_doubled",),
    "F27 notices out of order": ("notice_reordered",),
    "F28 fill before the answer": ("delay",),
    "F29 every k-th notice missing": ("notice_lost",),
    "F30 notice minutes late": ("notice_late",),
    "F31 one share at a time": ("crumbs",),
    "F32 a fill overtakes the cancel, or nothing comes of it": ("overtaken", "cancel_ignored"),
    "F33 refusals among the notices": ("refused_later",),
    "F34 another account's notices": ("notice_of_another",),
    "F36 the line drops, and stays away": ("drop_sockets", "ghost"),
    "F37 silent stall": ("stall",),
    "F38 no PINGPONG, idle end": ("no_pingpong",),
    "F39 flapping": ("flapping",),
    "F40 a second owner": ("occupied",),
    "F41 registrations refused": ("subscription_refused",),
    "F42 keys that do not fit": ("notice_wrong_key", "notice_garbled"),
    "F43 columns come and go": ("notice_columns", "frame_columns"),
    "F44 bad frames": (
        "frame_count",
        "frame_cut",
        "frame_bytes",
        "frame_nulls",
        "frame_giant",
        "frame_tr",
        "frame_lost",
    ),
    "F60 pages and rows": (
        "page_fails",
        "page_repeats",
        "stuck_cursor",
        "duplicate_rows",
        "dict_for_list",
        "empty_list",
        "empty_rows",
        "row_unreadable",
    ),
    "F61 an order missing from the list": ("order_missing", "list_lag"),
    "F62 balance late, or twice": ("balance_lag", "duplicate_rows"),
}


@pytest.mark.parametrize("line", PLAN)
def test_a_line_of_the_plan_has_its_faults(line: str) -> None:
    assert set(PLAN[line]) <= KINDS.keys()


def test_no_fault_is_outside_the_plan() -> None:
    assert KINDS.keys() == {name for names in PLAN.values() for name in names}


@pytest.mark.parametrize("name", KINDS)
def test_a_fault_says_what_it_does_and_takes_its_scope(name: str) -> None:
    kind = KINDS[name]
    assert len(kind.help.split()) >= 3
    ours = {key: kind.parameters[key] for key in kind.parameters}
    fault = Faults().add({"name": name, **ours, **dict.fromkeys(SCOPE, "x"), "probability": 0.5, "count": 2})
    assert (fault.parameters.keys(), fault.left, fault.probability) == (kind.parameters.keys(), 2, 0.5)


@pytest.mark.parametrize("name", KINDS)
def test_a_fault_strikes_in_some_test(name: str) -> None:
    """Its name in quotes in a file that asks for faults; this one, which names all, does not count."""
    asked = re.compile(rf'"{name}"')
    files = [path for path in TESTS.rglob("test_*.py") if path != Path(__file__)]
    users = [
        path.name for path in files if "fault" in (text := path.read_text(encoding="utf-8")) and asked.search(text)
    ]
    assert users, f"nothing shows that {name} does what it says"
