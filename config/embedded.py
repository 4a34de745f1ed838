"""Our own PostgreSQL and Redis under AEGIS_HOME, for whoever sets no DATABASE_URL or REDIS_URL.

Both listen on sockets in one private directory only, so no port is taken and nobody else gets in.
"""

import hashlib
import os
import secrets
import tempfile
from pathlib import Path
from urllib.parse import quote


def socket_dir(home: Path) -> Path:
    """Return the directory of the sockets: short, for a socket's path may have no more than 107 bytes."""
    digest = hashlib.sha256(str(home).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"aegis-{os.getuid()}-{digest}"


def database_url(home: Path, environment: str) -> str:
    """Return the URL of the embedded database; each broker environment has one of its own."""
    return f"postgres://aegis@/aegis_{environment}?host={quote(str(socket_dir(home) / 'pg'))}"


def redis_url(home: Path) -> str:
    return f"unix://{socket_dir(home)}/redis.sock"


def secret_key(home: Path) -> str:
    """Return Django's secret key of this installation, made at the first start."""
    path = home / "secret_key"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_urlsafe(50), encoding="ascii")
        draft.replace(path)
    return path.read_text(encoding="ascii")
