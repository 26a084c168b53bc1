"""Which names are allowed where; each check answers what is wrong, or "" when nothing is."""

import hashlib
import re
from typing import Final

LABEL_MAX: Final = 63  # RFC 1123; also the limit of a Kubernetes label value
LABEL_PREFIX_MAX: Final = 253
IMAGE_MAX: Final = 512
MODEL_MAX: Final = 128  # characters of a language model's name; as many as the price table has
GPU_RESOURCE: Final = "nvidia.com/gpu"
MODEL_ANNOTATION: Final = "orchestration.ai/model"  # of a pod: the model its agent is to use first
MODEL_VARIABLE: Final = "CLEARANCE_MODEL"  # the same, in the agent's environment

# A service account may be called by 253 characters, a label has 63. A longer name is shortened to
# its first 22 characters, `_` and 160 bits of its SHA-256: no account is called so, since none has
# an `_`, and no two names are known that share so much of a digest.
AGENT_ID_STEM: Final = 22
AGENT_ID_DIGEST: Final = 40  # hexadecimal digits

_DNS_LABEL = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?")
_DNS_NAME = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_AGENT_NAME = re.compile(r"[a-z0-9](?:[-_a-z0-9]*[a-z0-9])?")
_THING = re.compile(r"[a-z0-9](?:[-_.a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# https://github.com/distribution/reference: [domain[:port]/]path[:tag][@digest]
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_MODEL = re.compile(r"[!-~]+")  # visible ASCII, as providers name them
_CONTROL = re.compile("[\x00-\x1f\x7f]")


def agent_id_of(service_account: str) -> str:
    """The label `agent_id` of what runs under a service account: its name, as long as that fits."""
    if len(service_account) <= LABEL_MAX:
        return service_account
    digest = hashlib.sha256(service_account.encode()).hexdigest()[:AGENT_ID_DIGEST]
    return f"{service_account[:AGENT_ID_STEM]}_{digest}"


def check_label(text: str) -> str:
    """A DNS-1123 label: namespaces, service accounts, roles."""
    if len(text) <= LABEL_MAX and _DNS_LABEL.fullmatch(text):
        return ""
    return f"must be lower-case letters, digits and -, at most {LABEL_MAX} (RFC 1123 label)"


def check_name(text: str) -> str:
    """A DNS-1123 subdomain that also fits a label value: names of Goals."""
    if len(text) <= LABEL_MAX and _DNS_NAME.fullmatch(text):
        return ""
    return f"must be lower-case letters, digits, - and ., at most {LABEL_MAX} (RFC 1123 name)"


def check_agent_name(text: str) -> str:
    """As a label, and with `_` inside: agents are often named like functions."""
    if len(text) <= LABEL_MAX and _AGENT_NAME.fullmatch(text):
        return ""
    return f"must be lower-case letters, digits, - and _, at most {LABEL_MAX}"


def check_thing(text: str) -> str:
    """What agents consume and produce."""
    if len(text) <= LABEL_MAX and _THING.fullmatch(text):
        return ""
    return f"must be lower-case letters, digits, -, _ and ., at most {LABEL_MAX}"


def check_release(text: str) -> str:
    """`service/environment`."""
    service, slash, environment = text.partition("/")
    if slash and not check_label(service) and not check_label(environment):
        return ""
    return 'must be "service/environment", such as checkout/production'


def check_image(text: str) -> str:
    """An OCI image reference."""
    if len(text) <= IMAGE_MAX and _IMAGE.fullmatch(text):
        return ""
    return 'must be an image reference such as "registry.example/agents/profiler@sha256:<64 hex>"'


def check_model(text: str) -> str:
    """A language model as its provider calls it, such as gpt-4.1-mini or org/model:7b."""
    if len(text) <= MODEL_MAX and _MODEL.fullmatch(text):
        return ""
    return f"must be a model's name: ASCII without blanks, at most {MODEL_MAX} characters"


def check_label_key(text: str) -> str:
    """The key of a label or annotation: `[prefix/]name`."""
    prefix, slash, name = text.rpartition("/")
    is_prefix_good = not slash or (
        len(prefix) <= LABEL_PREFIX_MAX and _DNS_NAME.fullmatch(prefix) is not None
    )
    if is_prefix_good and len(name) <= LABEL_MAX and _QUALIFIED.fullmatch(name):
        return ""
    return "must be a Kubernetes label key: [DNS prefix/]name of at most 63 characters"


def check_label_value(text: str) -> str:
    """The value of a label; may be empty."""
    if not text or (len(text) <= LABEL_MAX and _QUALIFIED.fullmatch(text)):
        return ""
    return "must be letters, digits, -, _ and ., at most 63 (Kubernetes label value)"


def check_environment_name(text: str) -> str:
    """The name of an environment variable an agent may set for itself."""
    if not _ENVIRONMENT.fullmatch(text) or len(text) > 256:
        return "must be letters, digits and _, not starting with a digit"
    if text.startswith(("CLEARANCE_", "OTEL_EXPORTER_OTLP_")):
        return "must not start with CLEARANCE_ or OTEL_EXPORTER_OTLP_, which Clearance sets"
    return ""


def check_line(text: str) -> str:
    """Any text without control characters."""
    return "must not hold control characters" if _CONTROL.search(text) else ""


def check_no_nul(text: str) -> str:
    """Any text an operating system can pass on."""
    return "must not hold the character NUL" if "\x00" in text else ""
