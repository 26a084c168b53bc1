/* Draws every agent with one call of WebGL2: a point each, its shape and mark from distances. */

const VERTEX = `#version 300 es
precision highp float;
layout(location = 0) in vec2 place;
layout(location = 1) in vec4 look; // state, kind, flags
layout(location = 2) in float flashed;
uniform vec4 camera; // scale x, scale y, offset x, offset y: world to clip space
uniform float size; // of a point in device pixels
uniform float now;
flat out ivec3 what;
flat out float fresh;
void main() {
  gl_Position = vec4(place * camera.xy + camera.zw, 0.0, 1.0);
  gl_PointSize = size;
  what = ivec3(look.xyz);
  fresh = flashed > 0.0 ? clamp(1.0 - (now - flashed) / 1600.0, 0.0, 1.0) : 0.0;
}`;

const FRAGMENT = `#version 300 es
precision highp float;
flat in ivec3 what;
flat in float fresh;
uniform vec3 colours[7];
uniform vec3 ink;
uniform vec3 accent;
uniform float size;
out vec4 colour;
float shape(vec2 p, int kind) {
  if (kind == 1) return max(abs(p.x), abs(p.y)) - 0.62;
  if (kind == 2) return (abs(p.x) + abs(p.y) - 0.88) * 0.72;
  if (kind == 3) return max(abs(p.x) * 0.87 - (p.y - 0.1) * 0.5, p.y - 0.1) - 0.46;
  if (kind == 4) return max(min(abs(p.x), abs(p.y)) - 0.3, max(abs(p.x), abs(p.y)) - 0.74);
  return length(p) - 0.68;
}
float mark(vec2 p, int state) { // negative inside what is cut out
  if (state == 2) return abs(abs(p.x) - 0.2) < 0.1 && abs(p.y) < 0.36 ? -1.0 : 1.0;
  if (state == 3) return max(abs(p.y - 0.05 - abs(p.x + 0.08) * -0.9) - 0.1, abs(p.x) - 0.34);
  if (state == 4) return max(min(abs(p.x - p.y), abs(p.x + p.y)) - 0.13, max(abs(p.x), abs(p.y)) - 0.34);
  if (state == 6) return length(p) - 0.2;
  return 1.0;
}
void main() {
  vec2 p = gl_PointCoord * 2.0 - 1.0;
  float edge = 2.0 / size;
  float d = shape(p, what.y);
  float alpha = 1.0 - smoothstep(-edge, edge, d);
  bool isHollow = what.x == 0 || what.x == 5;
  float rim = max(0.16, 2.0 * edge);
  if (isHollow && size > 5.0) alpha *= smoothstep(-rim - edge, -rim + edge, d);
  if (size > 9.0) alpha *= smoothstep(-edge, edge, mark(p, what.x));
  if (what.x == 5 && size > 9.0) alpha = max(alpha, 1.0 - smoothstep(-edge, edge, length(p) - 0.22));
  vec3 tint = colours[what.x];
  if (fresh > 0.0) {
    float ring = abs(d - 0.06 - (1.0 - fresh) * 0.22);
    alpha = max(alpha, (1.0 - smoothstep(0.0, 0.08 + edge, ring)) * fresh);
  }
  if ((what.z & 2) == 2) { // chosen
    float box = abs(max(abs(p.x), abs(p.y)) - 0.92);
    float drawn = 1.0 - smoothstep(0.5 * edge, 1.1 * edge, box);
    if (size < 6.0) drawn = 0.75;
    tint = mix(tint, accent, drawn);
    alpha = max(alpha, drawn);
  }
  if ((what.z & 1) == 1) {
    float ring = abs(max(abs(p.x), abs(p.y)) - 0.9);
    float drawn = 1.0 - smoothstep(1.2 * edge, 2.2 * edge, ring);
    tint = mix(tint, ink, drawn);
    alpha = max(alpha, drawn);
  }
  if (alpha < 0.01) discard;
  colour = vec4(tint * alpha, alpha);
}`;

export class WebglRenderer {
  /** Throws when the browser has no WebGL2. */
  constructor(canvas) {
    const options = { antialias: false, alpha: true, premultipliedAlpha: true, powerPreference: "low-power" };
    const gl = canvas.getContext("webgl2", options);
    if (!gl) throw new Error("no WebGL2");
    this.canvas = canvas;
    this.gl = gl;
    this.count = 0;
    this.program = link(gl);
    this.at = {};
    for (const name of ["camera", "size", "now", "colours", "ink", "accent"]) {
      this.at[name] = gl.getUniformLocation(this.program, name);
    }
    this.buffers = [gl.createBuffer(), gl.createBuffer(), gl.createBuffer()];
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    this.attribute(0, 2, gl.FLOAT);
    this.attribute(1, 4, gl.UNSIGNED_BYTE);
    this.attribute(2, 1, gl.FLOAT);
  }

  attribute(place, width, type) {
    const { gl } = this;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[place]);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, width, type, false, 0, 0);
  }

  /** Places in world units, x and y by turns. */
  setPlaces(places) {
    this.count = places.length / 2;
    this.fill(0, places);
  }

  /** State, kind, flags and nothing, a byte each; milliseconds of the last change of state. */
  setLooks(looks, flashed) {
    this.fill(1, looks);
    this.fill(2, flashed);
  }

  fill(place, values) {
    const { gl } = this;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[place]);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
  }

  /** `camera`: pixels of a world unit and the world's place of the upper left corner. */
  draw(camera, palette, now) {
    const { gl, canvas } = this;
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (!this.count) return;
    gl.useProgram(this.program);
    const sx = (2 * camera.scale) / camera.width;
    const sy = (-2 * camera.scale) / camera.height;
    gl.uniform4f(this.at.camera, sx, sy, -1 - camera.x * sx, 1 - camera.y * sy);
    gl.uniform1f(this.at.size, Math.max(camera.scale * camera.ratio * 0.98, 1.5));
    gl.uniform1f(this.at.now, now);
    gl.uniform3fv(this.at.colours, palette.states.flat());
    gl.uniform3fv(this.at.ink, palette.ink);
    gl.uniform3fv(this.at.accent, palette.accent);
    gl.drawArrays(gl.POINTS, 0, this.count);
  }
}

function link(gl) {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  return program;
}
