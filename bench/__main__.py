"""Run every benchmark, print a table, write bench/report.json: `make bench`."""

import json
import sys
from pathlib import Path

from bench import candles, frames, orders, socket_thread, telegram_reply

REPORT = Path(__file__).parent / "report.json"


def main() -> int:
    rows = [*frames.rows(), *socket_thread.rows(), *orders.rows(), *telegram_reply.rows(), *candles.rows()]
    print(f"\n{'figure':<34}{'ratio':>9}{'goal':>9}      against")
    for row in rows:
        sign = ">=" if row.at_least else "<="
        print(f"{row.name:<34}{row.ratio:>9.2f}{sign:>3}{row.goal:>6g}  {'ok ' if row.met else 'NO '} {row.against}")
    report = {
        row.name: {"ratio": round(row.ratio, 3), "goal": row.goal, "against": row.against, "met": row.met}
        for row in rows
    }
    REPORT.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
