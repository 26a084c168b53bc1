"""Settings: safe by default, every backing service one URL. `.env.example` lists each variable."""

import secrets
from pathlib import Path

from console.env import StrictEnv

BASE_DIR = Path(__file__).resolve().parent.parent
env = StrictEnv()

DEBUG = env.strict_bool("DEBUG", default=False)

# Everything the embedded defaults keep: databases, keys, sockets, logs. Mode 0700.
CLEARANCE_DATA = Path(env.text("CLEARANCE_DATA", default=str(BASE_DIR / ".clearance"))).absolute()

# --- Backing services, each one URL ------------------------------------------------------------
DATABASE_URL = env.text("DATABASE_URL", default=f"sqlite:///{CLEARANCE_DATA}/clearance.sqlite3")
REDIS_URL = env.text("REDIS_URL", default=f"unix://{CLEARANCE_DATA}/run/valkey.sock")
TELEMETRY_URL = env.text("TELEMETRY_URL", default="embedded:")
REGISTRY_URL = env.text("REGISTRY_URL", default="layout:")
POLICY_URL = env.text("POLICY_URL", default="regorus:")
CLUSTER_URL = env.text("CLUSTER_URL", default="local:?gpus=4")
SIGNING_URL = env.text("SIGNING_URL", default="local:")
TRUST_DOMAIN_URL = env.text("TRUST_DOMAIN_URL", default="local:clearance.local")

# --- Where our own processes listen ------------------------------------------------------------
WEB_HOST = env.text("WEB_HOST", default="127.0.0.1")
WEB_PORT = env.whole_number("WEB_PORT", default=8000, low=1, high=65535)
OTLP_HOST = env.text("OTLP_HOST", default="127.0.0.1")
OTLP_PORT = env.whole_number("OTLP_PORT", default=4318, low=1, high=65535)
STORE_PORT = env.whole_number("STORE_PORT", default=8124, low=1, high=65535)
CHECKOUT_PORT = env.whole_number("CHECKOUT_PORT", default=8089, low=1, high=65535)
ADMISSION_HOST = env.text("ADMISSION_HOST", default="127.0.0.1")
ADMISSION_PORT = env.whole_number("ADMISSION_PORT", default=8443, low=1, high=65535)
ADMISSION_URL = env.text(
    "ADMISSION_URL", default=f"https://{ADMISSION_HOST}:{ADMISSION_PORT}"
).rstrip("/")
WEB_URL = env.text("WEB_URL", default=f"http://{WEB_HOST}:{WEB_PORT}").rstrip("/")
OTLP_URL = env.text("OTLP_URL", default=f"http://{OTLP_HOST}:{OTLP_PORT}").rstrip("/")
WORKER_CONCURRENCY = env.whole_number("WORKER_CONCURRENCY", default=4, low=1, high=64)

# --- Behaviour ---------------------------------------------------------------------------------
SVID_TTL_SECONDS = env.whole_number("SVID_TTL_SECONDS", default=300, low=10, high=3600)
# For whom the service account tokens of pods are made out that are exchanged for identities.
WORKLOAD_TOKEN_AUDIENCE = env.text("WORKLOAD_TOKEN_AUDIENCE", default="clearance-identity")
# `namespace/name` of the service account whose pods report the GPUs of their nodes over the API.
NODE_SERVICE_ACCOUNT = env.text("NODE_SERVICE_ACCOUNT", default="")
# How long the output and the files of a workload are kept after it ended.
WORKLOAD_RETENTION_SECONDS = env.whole_number(
    "WORKLOAD_RETENTION_SECONDS", default=86_400, low=0, high=31_536_000
)
# Namespaces of a cluster whose agents may run as root; everywhere else their pods are "restricted".
WORKLOAD_ROOT_NAMESPACES = env.words("WORKLOAD_ROOT_NAMESPACES")
# Journal records one page of a search reads when no index finds them: some 50 ms of their text.
JOURNAL_SEARCH_RECORDS = env.whole_number(
    "JOURNAL_SEARCH_RECORDS", default=100_000, low=50, high=10_000_000
)
APPROVAL_QUORUM = env.whole_number("APPROVAL_QUORUM", default=1, low=1, high=9)  # people at least
APPROVAL_TTL_SECONDS = env.whole_number("APPROVAL_TTL_SECONDS", default=14400, low=60, high=604800)
UPLOAD_MAX_BYTES = env.whole_number("UPLOAD_MAX_BYTES", default=10 << 30, low=1, high=1 << 44)
# What the API server puts before a person's name (--oidc-username-prefix), so that it is the same
# person who asks with kubectl and who would approve here.
KUBERNETES_USER_PREFIX = env.text("KUBERNETES_USER_PREFIX")
FOUR_EYES = env.strict_bool("FOUR_EYES", default=True)
EXAMPLE = env.strict_bool("EXAMPLE", default=True)

# --- Django ------------------------------------------------------------------------------------
# The tower keeps one key for every process on this data directory; without it a random one.
SECRET_KEY = (
    env.text("SECRET_KEY")
    or env.kept_secret(CLEARANCE_DATA / "keys" / "secret_key")
    or secrets.token_urlsafe(50)
)
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", default=f"{WEB_HOST},localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.words("CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "channels",
    "django_htmx",
    "template_partials",
    "lineage",
    "governance",
    "agents",
    "goals",
    "console",
]
MIDDLEWARE = [
    "console.middleware.ContentSecurityMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "console.static_files.StaticFilesMiddleware",
    "console.middleware.NulMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "console.middleware.PageMiddleware",
    "console.idempotency.IdempotencyMiddleware",
]
ROOT_URLCONF = "console.urls"
ASGI_APPLICATION = "console.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "console.context.shell",
            ],
        },
    }
]

DATABASES = {"default": env.db_url_config(DATABASE_URL)}
DATABASES["default"]["CONN_MAX_AGE"] = 60
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Immediate transactions: a writer waits its turn at BEGIN instead of failing at COMMIT.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 30,
        "init_command": (
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-32000;"
            "PRAGMA temp_store=MEMORY;"
        ),
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "goal_list"
LOGOUT_REDIRECT_URL = "login"

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
WHITENOISE_USE_FINDERS = True  # served from static/ as it stands; nothing is collected

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [REDIS_URL]},
    }
}

# --- Celery: a doorbell; the database is the truth ------------------------------------------------
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 900,  # above the longest task, or a running task is delivered twice
    "unacked_restore_interval": 2,
    "unacked_restore_throttle": 1,
}
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_SOFT_TIME_LIMIT = 120
CELERY_TASK_TIME_LIMIT = 180
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False

# --- Security ------------------------------------------------------------------------------------
IS_HTTPS = WEB_URL.startswith("https://")
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_SSL_REDIRECT = IS_HTTPS
SECURE_HSTS_SECONDS = 31_536_000 if IS_HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = IS_HTTPS
SECURE_HSTS_PRELOAD = IS_HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if IS_HTTPS else None
SESSION_COOKIE_SECURE = IS_HTTPS
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_AGE = 12 * 3600
CSRF_COOKIE_SECURE = IS_HTTPS
CSRF_FAILURE_VIEW = "console.views.form_expired"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 4 << 20  # forms and JSON; artifact uploads are streamed

LOG_LEVEL = env.text("LOG_LEVEL", default="INFO").upper()
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "filters": {"incident": {"()": "console.incidents.NameIncident"}},
    "handlers": {
        "stderr": {
            "class": "logging.StreamHandler",
            "formatter": "line",
            "filters": ["incident"],
        }
    },
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        "django.request": {"level": "ERROR"},  # a 404 is an answer, not a fault
        "httpx": {"level": "WARNING"},  # a line per policy decision says nothing
        "celery.app.trace": {"level": "WARNING"},  # nor do those of each ring and resync
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.worker.request": {"level": "WARNING"},  # rings that nobody waits for any more
        "celery.beat": {"level": "WARNING"},
        # A store that is down is said by whoever asked it; these repeat whole statements.
        "urllib3.connectionpool": {"level": "ERROR"},
        "clickhouse_connect": {"level": "ERROR"},
    },
}
