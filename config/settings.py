"""One settings file for every process and broker environment. Environment variables hold what differs."""

import os
from datetime import timedelta
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from config.env import (
    BASE_DIR,
    HOME,
    REHEARSAL,
    broker_environment,
    chats,
    choice,
    choices,
    credentials,
    dialect,
    env,
    int_between,
    int_limit,
    market_data_credentials,
    percent_limit,
    percent_rate,
    seconds_between,
    server_url,
)
from config.logging import FORMATS, logging_config
from infra import clock
from kis.environment import EnvironmentName
from ops import embedded

# --- the broker -------------------------------------------------------------------------------
KIS_ENVIRONMENT = broker_environment()
KIS_CREDENTIALS = credentials(KIS_ENVIRONMENT)
# further app keys, for market data only: each adds 41 subscriptions. Orders and every other call use the first key
KIS_MARKET_DATA_CREDENTIALS = market_data_credentials(KIS_CREDENTIALS)
KIS_DIALECT = dialect()
KIS_CALLS_PER_SECOND = env.int("KIS_CALLS_PER_SECOND", default=KIS_ENVIRONMENT.calls_per_second)
# the limit of calls to the broker's ledger (balance, orders) is not published; EGW00215 halves ours for a while
KIS_LEDGER_CALLS_PER_SECOND = env.int("KIS_LEDGER_CALLS_PER_SECOND", default=KIS_CALLS_PER_SECOND)
KIS_ARMED = KIS_ENVIRONMENT.name is not EnvironmentName.LIVE or env.str("AEGIS_LIVE_ORDERS", default="") == (
    "yes-real-money"
)
KIS_FEE_RATE = percent_rate("KIS_FEE_RATE")
KIS_TAX_TOTAL = percent_rate("KIS_TAX_TOTAL")
KIS_NXT_FEE_RATE = percent_rate("KIS_NXT_FEE_RATE")
KIS_NXT_TAX_TOTAL = percent_rate("KIS_NXT_TAX_TOTAL")

# --- what the supervisor starts, on this machine only -------------------------------------------
WEB_PORT = env.int("AEGIS_WEB_PORT", default=8000)
FLOWER_PORT = env.int("AEGIS_FLOWER_PORT", default=5555)
SIMULATOR_PORT = env.int("AEGIS_SIMULATOR_PORT", default=9443)
# the address that the web, Flower and the simulator listen on; in a container, its network decides who reaches them
BIND_ADDRESS = env.str("AEGIS_BIND_ADDRESS", default="127.0.0.1")
HAS_OWN_SIMULATOR = not env.str("AEGIS_SIMULATOR_URL", default="")

# only a rehearsal has a clock of its own; paper and live trading use the real time
if KIS_ENVIRONMENT.name is EnvironmentName.SIM:
    os.environ[clock.VARIABLE] = str(HOME / "clock.json")
else:
    os.environ.pop(clock.VARIABLE, None)

# --- how orders are priced and chased (spec §9.8) -----------------------------------------------
DEFAULT_BUY_OFFSET = env.int("AEGIS_DEFAULT_BUY_OFFSET", default=-2)
DEFAULT_SELL_OFFSET = env.int("AEGIS_DEFAULT_SELL_OFFSET", default=2)
URGENT_BUY_OFFSET = env.int("AEGIS_URGENT_BUY_OFFSET", default=0)
STOP_LOSS_OFFSET = env.int("AEGIS_STOP_LOSS_OFFSET", default=0)
EMERGENCY_SELL_OFFSET = env.int("AEGIS_EMERGENCY_SELL_OFFSET", default=-1)
MAX_OFFSET_PERCENT = percent_limit("AEGIS_MAX_OFFSET_PERCENT", 3)
UNFILLED_WAIT_SECONDS = env.float("AEGIS_UNFILLED_WAIT_SECONDS", default=30.0)
MAX_RETRY_COUNT = env.int("AEGIS_MAX_RETRY_COUNT", default=3)
RETRY_OFFSET_ADJUST = env.int("AEGIS_RETRY_OFFSET_ADJUST", default=1)
FORCE_MARKET_AFTER_RETRY = env.bool("AEGIS_FORCE_MARKET_AFTER_RETRY", default=True)
# seconds that one step of a stop sale waits before the next step is priced
STOP_WAIT_SECONDS = seconds_between("AEGIS_STOP_WAIT_SECONDS", 10.0, 1, 60)
# how a chase moves an order: by a cancel and a new order (spec §9.6), or by an amend (정정), which is one request
CHASE_BY = choice("AEGIS_CHASE_BY", ("cancel", "amend"), "cancel")
# how far a chase may move from the arrival price, in percent; 0 disables the limit. MAX_OFFSET_PERCENT is measured
# from the current price (spec §9.3), so without this limit a chased buy would follow a rally without end. Sales have no
# limit by default, because they must be filled
CHASE_ARRIVAL_PERCENT_BUY = percent_limit("AEGIS_CHASE_ARRIVAL_PERCENT_BUY", 3)
CHASE_ARRIVAL_PERCENT_SELL = percent_limit("AEGIS_CHASE_ARRIVAL_PERCENT_SELL", 0)
# requests per minute that chases and stops may send for one stock; more wait. 0 disables the limit
MAX_AUTO_REQUESTS_PER_MINUTE = int_limit("AEGIS_MAX_AUTO_REQUESTS_PER_MINUTE", 6)

# --- which trades may trigger a stop ------------------------------------------------------------
STOP_SOURCES = choices("AEGIS_STOP_SOURCES", ("KRX", "NXT"), ("KRX", "NXT"))
# won that must trade beyond the stop's limit to confirm a trade after hours or on NXT, if no other witness does. The
# default is more than the price of one share of any stock, and less than a fall trades within a second. 0: no traded
# value confirms a trade
STOP_WITNESS_WON = int_limit("AEGIS_STOP_WITNESS_WON", 10_000_000)

# --- pre-trade risk checks; 0 disables a limit. Value, concentration and sector limit buys only -----
# won of one buy, and of all buys of a day. One buy may be fifty times the specification's example order (spec §9.7), so
# an order with two zeros too many is denied
MAX_ORDER_WON = int_limit("AEGIS_MAX_ORDER_WON", 50_000_000)
MAX_DAY_WON = int_limit("AEGIS_MAX_DAY_WON", 200_000_000)
# percent of the account in one stock: if it falls to its lower limit (-30 %), the account loses at most a tenth
MAX_POSITION_PERCENT = percent_limit("AEGIS_MAX_POSITION_PERCENT", 30)
# percent from the last trade; wider than the chase's 3 %, so only prices that a person typed reach it
MAX_COLLAR_PERCENT = percent_limit("AEGIS_MAX_COLLAR_PERCENT", 5)
MAX_ORDERS_PER_MINUTE = int_limit("AEGIS_MAX_ORDERS_PER_MINUTE", 60)
# seconds in which the same order is denied: a double click, or a caller that repeats it with a new request id
DUPLICATE_SECONDS = int_limit("AEGIS_DUPLICATE_SECONDS", 10)
# the sectors of the specification (spec §12.1), and the exchange's name for utilities
EXCLUDED_SECTORS = env.list("AEGIS_EXCLUDED_SECTORS", default=["유틸리티", "공기업", "전기가스"])

# --- when the kill switch trips; 0 disables a limit ----------------------------------------------
MAX_DAILY_LOSS_WON = int_limit("AEGIS_MAX_DAILY_LOSS_WON", 0)
# percent of yesterday's total asset; the whole market falls further only about once in some years
MAX_DAILY_LOSS_PERCENT = percent_limit("AEGIS_MAX_DAILY_LOSS_PERCENT", 5)
MAX_REFUSALS = int_limit("AEGIS_MAX_REFUSALS", 5)
# minutes without a complete order list while a market is open
MAX_FAILED_RECONCILIATIONS = int_limit("AEGIS_MAX_FAILED_RECONCILIATIONS", 5)
# whether our resting buys are cancelled after a trip for a loss, or after an operator selects REDUCING
CANCEL_BUYS_ON_REDUCE = env.bool("AEGIS_CANCEL_BUYS_ON_REDUCE", default=True)
# percent that an index falls from the open, and within INDEX_DROP_SECONDS: half of the falls that stop program trading
# (sidecar) and that make a bad day
MAX_INDEX_FALL_PERCENT = percent_limit("AEGIS_MAX_INDEX_FALL_PERCENT", 4)
MAX_INDEX_DROP_PERCENT = percent_limit("AEGIS_MAX_INDEX_DROP_PERCENT", 2)
INDEX_DROP_SECONDS = int_limit("AEGIS_INDEX_DROP_SECONDS", 600)

# --- Django, https://docs.djangoproject.com/en/5.2/ref/settings/ --------------------------------
DEBUG = env.bool("AEGIS_DEBUG", default=False)
SECRET_KEY = env.str("AEGIS_SECRET_KEY", default="") or embedded.secret_key(HOME)
ALLOWED_HOSTS = env.list("AEGIS_ALLOWED_HOSTS", default=["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("AEGIS_CSRF_TRUSTED_ORIGINS", default=[])
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.import_export",
    # without autodiscovery: only a process that serves pages imports the admin and its exports (config/urls.py)
    "django.contrib.admin.apps.SimpleAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_celery_beat",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "import_export",
    "ops",
    "kis",
    "simulator",
    "market",
    "portfolio",
    "orders",
    "notify",
    "monitor",
    "desk",
    "rehearsal",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "desk.security.ContentSecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "desk.language.LanguageMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

LOGIN_URL = "admin:login"
SESSION_COOKIE_AGE = int(timedelta(hours=12).total_seconds())  # a trading day, including NXT's after-market
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Strict"
X_FRAME_OPTIONS = "DENY"
OTP_TOTP_ISSUER = "AEGIS"
# a desk that other machines reach needs TLS; a rehearsal on this machine does not
IS_BEHIND_TLS = env.bool("AEGIS_TLS", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = IS_BEHIND_TLS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if IS_BEHIND_TLS else None
SECURE_REDIRECT_EXEMPT = [r"^(healthz|readyz|metrics)$"]  # called by machines of the internal network
SECURE_HSTS_SECONDS = int(timedelta(days=365).total_seconds()) if IS_BEHIND_TLS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = IS_BEHIND_TLS

# --- the look of the admin, https://unfoldadmin.com/docs/configuration/settings/ ------------------
UNFOLD = {
    "SITE_TITLE": "AEGIS",
    "SITE_HEADER": "AEGIS",
    "SITE_SUBHEADER": "desk.navigation.subheader",
    "SITE_URL": None,
    "SITE_SYMBOL": "shield",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": "desk.navigation.favicon"}],
    "ENVIRONMENT": "desk.navigation.environment",
    "SHOW_LANGUAGES": True,
    "STYLES": ["desk.navigation.stylesheet"],
    "BORDER_RADIUS": "4px",
    "COLORS": {
        # a slate that leaves red and blue to prices
        "primary": {
            "50": "#f0f6f6",
            "100": "#d9e9ea",
            "200": "#b4d2d5",
            "300": "#84b3b8",
            "400": "#54919a",
            "500": "#377580",
            "600": "#2b5f6b",
            "700": "#254d58",
            "800": "#223f49",
            "900": "#1f353e",
            "950": "#111f26",
        },
    },
    "ACCOUNT": {"navigation": "desk.navigation.account_menu"},
    "SIDEBAR": {"show_search": True, "navigation": "desk.navigation.sidebar"},
    "LOGIN": {"form": "desk.two_factor.LoginForm"},
}
IMPORT_EXPORT_EXPORT_PERMISSION_CODE = "view"
IMPORT_EXPORT_ESCAPE_FORMULAE_ON_EXPORT = True

LANGUAGE_CODE = choice("AEGIS_LANGUAGE", ("ko", "en"), "ko")
LANGUAGES = [("ko", "한국어"), ("en", "English")]
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = "Asia/Seoul"
USE_I18N = True
USE_THOUSAND_SEPARATOR = True
FORMAT_MODULE_PATH = "desk.formats"
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = HOME / "static"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}

# --- PostgreSQL, https://docs.djangoproject.com/en/5.2/ref/databases/#postgresql-notes -----------
_database_url = server_url("DATABASE_URL", ("postgres", "postgresql"), "postgres://user:password@host:5432/name")
HAS_OWN_DATABASE = not _database_url
DATABASE_URL = _database_url or embedded.database_url(HOME, KIS_ENVIRONMENT.name)
DATABASES = {
    "default": {
        **env.db_url_config(DATABASE_URL),
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
    }
}
# the host may be a socket's directory, quoted as for libpq: %2Fvar%2Frun%2Fpostgresql
DATABASES["default"]["HOST"] = unquote(DATABASES["default"]["HOST"])
# seconds that a statement waits for a lock, and seconds that it may take: no order waits without end. An idle
# transaction is ended one second before the statements that wait for its locks would fail, so that they succeed
DATABASE_LOCK_SECONDS = int_between("AEGIS_DATABASE_LOCK_SECONDS", default=3, lowest=2, highest=60)
DATABASE_STATEMENT_SECONDS = int_between("AEGIS_DATABASE_STATEMENT_SECONDS", default=3, lowest=2, highest=600)
DATABASE_LIMITS = {
    "lock_timeout": f"{DATABASE_LOCK_SECONDS}s",
    "statement_timeout": f"{DATABASE_STATEMENT_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{DATABASE_LOCK_SECONDS - 1}s",
    # the server detects a client machine that died, and releases its locks
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
DATABASES["default"]["OPTIONS"] = {
    # the client detects a server that died; on a Unix socket these have no effect
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    **DATABASES["default"].get("OPTIONS", {}),
    # with the first two, a path of one statement is as fast as bare psycopg
    "server_side_binding": True,
    "prepare_threshold": 2,
    "connect_timeout": 5,
}
# options of DATABASE_URL are last: if a name occurs twice, the server takes the last value
DATABASES["default"]["OPTIONS"]["options"] = " ".join(
    [
        *(f"-c {name}={value}" for name, value in DATABASE_LIMITS.items()),
        DATABASES["default"]["OPTIONS"].get("options", ""),
    ]
).strip()

# --- Redis and Celery, https://docs.celeryq.dev/en/stable/userguide/configuration.html -----------
_redis_url = server_url("REDIS_URL", ("redis", "rediss", "unix"), "redis://:password@host:6379/0")
HAS_OWN_REDIS = not _redis_url
REDIS_URL = _redis_url or embedded.redis_url(HOME)
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)
CELERY_TIMEZONE = TIME_ZONE
CELERY_TASK_IGNORE_RESULT = True
# only `orders.tasks.submit` has a result: its caller must learn why an order was denied, and a denied order has no row
CELERY_RESULT_BACKEND = CELERY_BROKER_URL
CELERY_RESULT_EXPIRES = timedelta(days=1)
CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS = {"global_keyprefix": f"aegis:{KIS_ENVIRONMENT.name}:"}
CELERY_TASK_ACKS_LATE = True  # with prefetch 1, no task waits behind a slow one; every task may run twice
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_DEFAULT_QUEUE = "sync"
# priorities within a queue: stops before requested cancels, new orders before chases
HIGH_PRIORITY, LOW_PRIORITY = 0, 3
# the first pattern that matches decides. Stops, and cancels that people requested, have workers of their own; orders
# must not wait behind tasks that may wait
CELERY_TASK_ROUTES = {
    "orders.tasks.stop": {"queue": "urgent", "priority": HIGH_PRIORITY},
    "orders.tasks.ask_for_stop": {"queue": "urgent", "priority": HIGH_PRIORITY},
    "orders.tasks.sweep_stops": {"queue": "urgent", "priority": HIGH_PRIORITY},
    "orders.tasks.drive_cancel": {"queue": "urgent", "priority": LOW_PRIORITY},
    "orders.tasks.sweep_cancels": {"queue": "urgent", "priority": LOW_PRIORITY},
    "orders.tasks.sync_*": {"queue": "sync"},
    "orders.tasks.watch_stops": {"queue": "sync"},  # it waits for quotes; the stops it triggers run in `urgent`
    "orders.tasks.submit": {"queue": "orders", "priority": HIGH_PRIORITY},
    "orders.tasks.*": {"queue": "orders", "priority": LOW_PRIORITY},
}
CELERY_DB_REUSE_MAX = 1000  # without it Celery closes the database connection around every task
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS: dict[str, Any] = {
    "visibility_timeout": int(timedelta(minutes=10).total_seconds()),
    "global_keyprefix": f"aegis:{KIS_ENVIRONMENT.name}:",
    "socket_timeout": 5,
    "socket_connect_timeout": 5,
    "priority_steps": [HIGH_PRIORITY, LOW_PRIORITY],
}
CELERY_WORKER_SEND_TASK_EVENTS = True
CELERY_TASK_SEND_SENT_EVENT = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULER = "config.beat:ElectedScheduler"
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
DJANGO_CELERY_BEAT_TZ_AWARE = True

# --- notifications ------------------------------------------------------------------------------
TELEGRAM_TOKEN = env.str("AEGIS_TELEGRAM_TOKEN", default="").strip()
# chat ids that get notifications and replies; messages from other chats are ignored
TELEGRAM_CHATS = chats("AEGIS_TELEGRAM_CHATS")
TELEGRAM_URL = env.str("AEGIS_TELEGRAM_URL", default="https://api.telegram.org")
# further channels as Apprise addresses, separated by spaces, https://github.com/caronc/apprise/wiki
NOTIFY_URLS = env.str("AEGIS_NOTIFY_URLS", default="").split()
# called each minute while all checks pass; the service behind it raises an alarm once the calls stop
HEARTBEAT_URL = server_url("AEGIS_HEARTBEAT_URL", ("http", "https"), "https://hc.example.com/ping/a-token")
# bearer token for /metrics and the details of /readyz; without it, only this machine may read them
METRICS_TOKEN = env.str("AEGIS_METRICS_TOKEN", default="").strip()

# --- retention, in days; 0 keeps rows for ever ---------------------------------------------------
# orders, their events, executions and notices are never deleted
KEEP_MESSAGES_DAYS = int_limit("AEGIS_KEEP_MESSAGES_DAYS", 90)
# those that changed nothing, about one a minute
KEEP_RECONCILIATIONS_DAYS = int_limit("AEGIS_KEEP_RECONCILIATIONS_DAYS", 30)
# fill notices of another account, or of an order that is in no order list
KEEP_NOTICES_DAYS = int_limit("AEGIS_KEEP_NOTICES_DAYS", 30)
# one a second of each order book that a strategy asked for
KEEP_BOOKS_DAYS = int_limit("AEGIS_KEEP_BOOKS_DAYS", 7)
# account snapshots, one a minute; the last one of each older day stays
KEEP_SNAPSHOTS_DAYS = int_limit("AEGIS_KEEP_SNAPSHOTS_DAYS", 90)

LOG_LEVEL = choice("AEGIS_LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR"), "INFO")
_own_secrets = (
    SECRET_KEY,
    DATABASES["default"].get("PASSWORD") or "",
    urlsplit(REDIS_URL).password or "",
    TELEGRAM_TOKEN,
    METRICS_TOKEN,
    *NOTIFY_URLS,
    HEARTBEAT_URL,
    urlsplit(HEARTBEAT_URL).path.strip("/"),
)
_broker_secrets = tuple(
    secret for keys in (KIS_CREDENTIALS, *KIS_MARKET_DATA_CREDENTIALS) for secret in (keys.app_key, keys.app_secret)
)
# the keys of a rehearsal are an ordinary word, not a secret
_broker_secrets = tuple(secret for secret in _broker_secrets if secret not in REHEARSAL.values())
LOGGING = logging_config(
    level=LOG_LEVEL,
    secrets=_own_secrets + _broker_secrets,
    style=choice("AEGIS_LOG_FORMAT", FORMATS, "text"),
)
LOGGING_CONFIG = "logging.config.dictConfig"


def REDIS_CLIENT() -> redis.Redis:  # noqa: N802 a setting
    """Return a client of the shared Redis, which fails within seconds instead of hanging."""
    # one immediate retry is enough for a connection that died idle, and no order waits for a dead server
    single_retry = Retry(NoBackoff(), 1)
    return redis.Redis.from_url(REDIS_URL, socket_timeout=5, socket_connect_timeout=5, retry=single_retry)
