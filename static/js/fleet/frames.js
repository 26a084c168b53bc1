/* Decodes the binary frames of /ws/fleet (docs/live-feed.md) into typed arrays over the frame. */

const MAGIC = 0x4643;
const VERSION = 1;
const HEADER_BYTES = 64;
const ALIGNMENT = 8;
export const UNKNOWN = 0xffffffff;
export const UNKNOWN_SHARE = 0xffff;
export const UNKNOWN_CONFIDENCE = 0xff;
export const SNAPSHOT = 1;
export const DELTA = 2;
export const HEARTBEAT = 3;

// In the order of the frame; a uid is 16 bytes a row.
const SECTIONS = {
  goals: [
    ["goal", Uint32Array], ["uid", null], ["namespace", Uint32Array], ["name", Uint32Array],
    ["phase", Uint32Array], ["unit", Uint32Array], ["settled", Uint16Array], ["reserved", Uint16Array],
    ["waiting", Uint16Array], ["tokens", Uint32Array], ["exhausts", Float64Array], ["changed", Float64Array],
  ],
  added: [
    ["slot", Uint32Array], ["uid", null], ["namespace", Uint32Array], ["goal", Uint32Array],
    ["agent", Uint32Array], ["role", Uint32Array], ["task", Uint32Array], ["kind", Uint8Array],
    ["gpus", Uint16Array], ["created", Float64Array],
  ],
  changed: [
    ["slot", Uint32Array], ["state", Uint8Array], ["confidence", Uint8Array], ["node", Uint32Array],
    ["span", Uint32Array], ["gpu_ms", Float64Array], ["changed", Float64Array],
  ],
  removed: [["slot", Uint32Array]],
};

/** The frame in an ArrayBuffer. Throws for anything else: the caller asks for a snapshot. */
export function decode(buffer) {
  const view = new DataView(buffer);
  if (view.byteLength < HEADER_BYTES || view.getUint16(0, true) !== MAGIC || view.getUint8(2) !== VERSION) {
    throw new RangeError("not a frame of this version");
  }
  const word = (at) => view.getUint32(at, true);
  const frame = {
    kind: view.getUint8(3),
    epoch: word(4),
    sequence: word(8),
    databaseAge: word(12) === UNKNOWN ? null : word(12),
    busAge: word(16) === UNKNOWN ? null : word(16),
    isTruncated: (word(20) & 1) === 1,
    at: view.getFloat64(24, true),
    total: word(56),
  };
  let at = HEADER_BYTES;
  const take = (type, count) => {
    const size = (type ? type.BYTES_PER_ELEMENT : 16) * count;
    const column = type ? new type(buffer, at, count) : new Uint8Array(buffer, at, size);
    at += size + ((ALIGNMENT - (size % ALIGNMENT)) % ALIGNMENT);
    return column;
  };
  const lengths = take(Uint32Array, word(32));
  const joined = take(Uint8Array, word(36));
  frame.names = split(joined, lengths);
  const counts = { goals: word(40), added: word(44), changed: word(48), removed: word(52) };
  for (const [section, columns] of Object.entries(SECTIONS)) {
    const rows = { length: counts[section] };
    if (rows.length) for (const [name, type] of columns) rows[name] = take(type, rows.length);
    frame[section] = rows;
  }
  return frame;
}

function split(joined, lengths) {
  const decoder = new TextDecoder();
  const names = new Array(lengths.length);
  let at = 0;
  for (let i = 0; i < lengths.length; i += 1) {
    names[i] = decoder.decode(joined.subarray(at, at + lengths[i]));
    at += lengths[i];
  }
  return names;
}

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/** 16 bytes as a UUID. */
export function uuid(bytes, row = 0) {
  let text = "";
  for (let i = 0; i < 16; i += 1) {
    if (i === 4 || i === 6 || i === 8 || i === 10) text += "-";
    text += HEX[bytes[row * 16 + i]];
  }
  return text;
}
