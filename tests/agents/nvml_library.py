"""A stand-in for NVIDIA's library, compiled by the test: cards that follow a small file.

The real binding loads it as `libnvidia-ml.so.1`. Each look reads the file of `STUB_STATE` again, so
a test changes what the cards say while the process under test runs. A line is `key value`; the key
is a name, or `name.CARD`, or `name.CARD.SLICE`. `fail.FUNCTION` and `fail.FUNCTION.CARD` are NVML
error codes. Lines `xid CARD CODE` are told once each.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

CODES = {
    "ok": 0,
    "uninitialized": 1,
    "not_supported": 3,
    "driver_not_loaded": 9,
    "gpu_is_lost": 15,
    "version_mismatch": 18,
    "unknown": 999,
}
# The functions the adapter asks for, with the signatures of NVIDIA's nvml.h.
SOURCE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
typedef unsigned long long u64;
typedef struct { u64 total, free, used; } memory_t;
typedef struct { unsigned int gpu, memory; } rates_t;
typedef struct { unsigned int pid; u64 used; unsigned int gi, ci; } process_t;
typedef struct { void *device; u64 type, data; unsigned int gi, ci; } event_t;
static int told_xids = 0;
/* A card is its index + 1, its slice N adds (N + 1) * 1000. */
static long card(void *d) { return ((long)d % 1000) - 1; }
static long slice(void *d) { return (long)d / 1000 - 1; }
static u64 look(const char *key, u64 otherwise) {
  const char *path = getenv("STUB_STATE");
  FILE *file = path ? fopen(path, "r") : NULL;
  char line[256], name[128]; u64 value, found = otherwise;
  if (!file) return found;
  while (fgets(line, sizeof line, file))
    if (sscanf(line, "%127s %llu", name, &value) == 2 && !strcmp(name, key)) found = value;
  fclose(file);
  return found;
}
static u64 ask(const char *what, void *d, u64 otherwise) {
  char key[128];
  u64 found = look(what, otherwise);
  snprintf(key, sizeof key, "%s.%ld", what, card(d));
  if (slice(d) < 0) return look(key, found);
  snprintf(key, sizeof key, "%s.%ld.%ld", what, card(d), slice(d));
  return look(key, otherwise);
}
static int fails(const char *function, void *d) {
  char key[128];
  snprintf(key, sizeof key, "fail.%s", function);
  return d ? (int)ask(key, d, 0) : (int)look(key, 0);
}
int nvmlInitWithFlags(unsigned int flags) { return fails("init", NULL); }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned int length) {
  snprintf(text, length, "575.57.08"); return fails("driver", NULL);
}
int nvmlDeviceGetCount_v2(unsigned int *count) {
  *count = look("cards", 2); return fails("count", NULL);
}
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **d) {
  *d = (void *)(unsigned long)(index + 1); return fails("handle", *d);
}
int nvmlDeviceGetUUID(void *d, char *uuid, unsigned int length) {
  if (slice(d) >= 0)
    snprintf(uuid, length, "MIG-00000000-0000-0000-000%ld-00000000000%ld", slice(d), card(d));
  else snprintf(uuid, length, "GPU-00000000-0000-0000-0000-00000000000%ld", card(d));
  return fails("uuid", d);
}
int nvmlDeviceGetName(void *d, char *name, unsigned int length) {
  if (slice(d) >= 0) snprintf(name, length, "Stub %ld MIG 1g.10gb", card(d));
  else snprintf(name, length, "Stub %ld", card(d));
  return fails("name", d);
}
int nvmlDeviceGetMemoryInfo(void *d, memory_t *memory) {
  memory->total = (slice(d) >= 0 ? 10ULL : 80ULL) << 30;
  memory->used = ask("memory", d, card(d)) << 30;
  memory->free = memory->total - memory->used; return fails("memory", d);
}
int nvmlDeviceGetUtilizationRates(void *d, rates_t *rates) {
  rates->gpu = ask("utilisation", d, 37); rates->memory = 5;
  return slice(d) >= 0 || ask("mig", d, 0) ? 3 : fails("utilisation", d);
}
int nvmlDeviceGetTemperature(void *d, int sensor, unsigned int *value) {
  *value = ask("temperature", d, 61); return fails("temperature", d);
}
int nvmlDeviceGetTemperatureThreshold(void *d, int which, unsigned int *value) {
  *value = which == 1 ? 90 : 95; return fails("threshold", d);
}
int nvmlDeviceGetPowerUsage(void *d, unsigned int *value) {
  *value = ask("power", d, 310) * 1000; return fails("power", d);
}
int nvmlDeviceGetEnforcedPowerLimit(void *d, unsigned int *value) {
  *value = 700000; return fails("limit", d);
}
int nvmlDeviceGetCurrentClocksEventReasons(void *d, u64 *bits) {
  *bits = ask("reasons", d, 0); return fails("reasons", d);
}
int nvmlDeviceGetEccMode(void *d, int *now, int *next) {
  *now = *next = ask("ecc", d, 1); return fails("ecc", d);
}
int nvmlDeviceGetTotalEccErrors(void *d, int kind, int counter, u64 *count) {
  *count = ask(kind ? "uncorrected" : "corrected", d, 0); return fails("ecc", d);
}
int nvmlDeviceGetMigMode(void *d, unsigned int *now, unsigned int *next) {
  *now = *next = ask("mig", d, 0); return fails("mig", d);
}
int nvmlDeviceGetMaxMigDeviceCount(void *d, unsigned int *count) { *count = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(void *d, unsigned int index, void **found) {
  char key[64];
  snprintf(key, sizeof key, "slice.%ld.%u", card(d), index);
  *found = (void *)((long)d + 1000 * (long)(index + 1));
  return look(key, 0) ? 0 : 6;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *d, unsigned int *count, process_t *out) {
  unsigned int pid = ask("pid", d, 0), room = *count;
  int error = fails("processes", d);
  if (error) return error;
  *count = pid ? 1 : 0;
  if (!pid) return 0;
  if (room < 1) return 7;
  out->pid = pid; out->used = 3ULL << 30; out->gi = out->ci = 0;
  return 0;
}
int nvmlEventSetCreate(void **set) { *set = (void *)1; return fails("events", NULL); }
int nvmlEventSetFree(void *set) { return 0; }
int nvmlDeviceRegisterEvents(void *d, u64 types, void *set) {
  return types == 8 ? fails("register", d) : 2;
}
int nvmlEventSetWait_v2(void *set, event_t *event, unsigned int timeout) {
  const char *path = getenv("STUB_STATE");
  FILE *file = path ? fopen(path, "r") : NULL;
  char line[256]; unsigned long index; u64 code; int number = 0;
  if (timeout) return 2; /* the sampler must never wait */
  while (file && fgets(line, sizeof line, file)) {
    if (sscanf(line, "xid %lu %llu", &index, &code) != 2 || number++ < told_xids) continue;
    told_xids = number;
    event->device = (void *)(index + 1); event->type = 8; event->data = code;
    event->gi = event->ci = ~0U;
    fclose(file);
    return 0;
  }
  if (file) fclose(file);
  return 10;
}
const char *nvmlErrorString(int result) { return "stub error"; }
"""


def compile_library(directory: Path) -> Path:
    """The directory of the compiled library, for LD_LIBRARY_PATH. Skips where there is no gcc."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc: a stand-in for libnvidia-ml.so.1 is compiled")
    (directory / "stub.c").write_text(SOURCE)
    command = [compiler, "-Wall", "-shared", "-fPIC", "-o", "libnvidia-ml.so.1", "stub.c"]
    subprocess.run(command, cwd=directory, check=True, timeout=60)
    return directory


def card_uuid(index: int) -> str:
    """The UUID of a card of the stand-in."""
    return f"GPU-00000000-0000-0000-0000-00000000000{index}"


def slice_uuid(card: int, position: int) -> str:
    """The UUID of a MIG slice of the stand-in."""
    return f"MIG-00000000-0000-0000-000{position}-00000000000{card}"
