"""Queues frames for the sessions and applies the faults of notices and frames."""

import asyncio
from collections.abc import Callable

from simulator.faults.injection import change_frame, change_frame_values, change_notice_columns, garbled
from simulator.faults.table import FRAME, Fault, Faults
from simulator.feed.session import FeedSession, NoticeCipher
from simulator.feed.stock_frames import Row

HOLD_BACK_SECONDS = 3.0


class FrameSender:
    """The outgoing frames of one feed hub."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._held_back: list[Callable[[], None]] = []

    def send_notice(
        self, session: FeedSession, tr_id: str, cipherer: NoticeCipher, row: Row, fault: Fault | None
    ) -> None:
        """Send a notice to one session, changed by `fault` if there is one."""

        def send(values: Row = row, cipher: NoticeCipher = cipherer) -> None:
            self._deliver([session], tr_id, row[8], [values], cipher.encrypt)

        name = fault.name if fault else ""
        parameters = fault.parameters if fault else {}
        if name == "notice_reordered":
            self._hold_back(send, int(parameters["batch"]))
            return
        if name == "notice_late":
            asyncio.get_running_loop().call_later(float(parameters["seconds"]), send)
        elif name == "notice_doubled":
            for _ in range(int(parameters["times"])):
                send()
        elif name == "notice_of_another":
            send([row[0], str(parameters["account"]).replace("-", ""), *row[2:]])
            send()
        elif name == "notice_wrong_key":
            send(cipher=NoticeCipher.fresh())
        elif name == "notice_garbled":
            self._deliver([session], tr_id, row[8], [row], lambda _: garbled())
        elif name == "notice_columns":
            send(change_notice_columns(row, int(parameters["more"])))
        elif name != "notice_lost":
            send()
            self._release()

    def _hold_back(self, send: Callable[[], None], batch: int) -> None:
        self._held_back.append(send)
        if len(self._held_back) >= batch:
            self._release()
        else:
            asyncio.get_running_loop().call_later(HOLD_BACK_SECONDS, self._release)

    def _release(self) -> None:
        """Send the notices held back, newest first."""
        sends, self._held_back = self._held_back[::-1], []
        for send in sends:
            send()

    def send_rows(self, sessions: list[FeedSession], tr_id: str, code: str, rows: list[Row]) -> None:
        self._deliver(sessions, tr_id, code, rows)

    def _deliver(
        self,
        sessions: list[FeedSession],
        tr_id: str,
        code: str,
        rows: list[Row],
        encrypt: Callable[[str], str] | None = None,
    ) -> None:
        """Queue a data frame, changed by the faults in force."""
        if self._faults.has("stall"):
            return
        fault = self._faults.take(FRAME, tr_id=tr_id, code=code)
        values = [value for row in rows for value in row]
        data = "^".join(change_frame_values(fault, len(rows), values) if fault else values)
        text = f"1|{tr_id}|{len(rows):03d}|{encrypt(data)}" if encrypt else f"0|{tr_id}|{len(rows):03d}|{data}"
        payload = change_frame(fault, text) if fault else text
        if payload is not None:
            for session in sessions:
                session.send(payload)
