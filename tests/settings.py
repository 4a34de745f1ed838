"""The settings of the tests: those of the house, in a home of their own, blind to the developer's keys.

`DATABASE_URL` and `REDIS_URL` of the shell are honoured; `.env`, `KIS_*` and `AEGIS_*` are not.
"""

import fcntl
import os
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent


def _free_home() -> tuple[Path, int]:
    """Return a home no other test run uses now, and the descriptor whose lock says so."""
    number = 1
    while True:
        home = _ROOT / ".aegis" / "test" / str(number)
        home.mkdir(parents=True, exist_ok=True)
        lock = os.open(home / "in-use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            number += 1
        else:
            return home, lock


for _name in [name for name in os.environ if name.startswith(("KIS_", "AEGIS_"))]:
    del os.environ[_name]
_home, _lock = _free_home()
for _left in (_home / "clock.json", *_home.glob("database-*.json")):
    _left.unlink(missing_ok=True)
os.environ["AEGIS_HOME"] = str(_home)
os.environ["AEGIS_ENV_FILE"] = os.devnull

from config.settings import *  # noqa: E402, F403 the environment comes first
from config.settings import DATABASES, STATIC_ROOT  # noqa: E402

STATIC_ROOT.mkdir(exist_ok=True)  # nothing is collected here, and whitenoise warns of a directory it misses

if _home.name != "1":
    DATABASES["default"]["TEST"] = {"NAME": f"test_{DATABASES['default']['NAME']}_{_home.name}"}
# a test that is rolled back is one transaction, however long it waits in between; and databases are made and dropped
DATABASES["default"]["OPTIONS"]["options"] += " -c idle_in_transaction_session_timeout=0 -c statement_timeout=60s"
DUPLICATE_SECONDS = 0  # tests ask for the same twice within seconds; the guard's own tests set it
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # made to be fast
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
