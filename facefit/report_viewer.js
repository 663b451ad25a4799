"use strict";
// The head in WebGL: reads the block that report_scene.py writes, morphs on the CPU, shades in linear light.
// Frame: millimetres, x to the subject's left, y up, z out of the nose. Light: nine real spherical harmonics.

const VERTEX = `
attribute vec3 position, normal, color;
attribute vec2 uv;
uniform mat4 clip;
varying vec3 n, c, p;
varying vec2 t;
void main() { n = normal; c = color; t = uv; p = position; gl_Position = clip * vec4(position, 1.0); }`;

// The Lambertian factors (1, 2/3, 1/4 of pi, divided by pi) are folded into sh[] beforehand.
const FRAGMENT = `
precision highp float;
varying vec3 n, c, p;
varying vec2 t;
uniform sampler2D skin, baked;
uniform vec3 sh[9], lamp, eye;
uniform float look, lit, line, exposure, ceiling;
vec3 linear(vec3 v) { return mix(v / 12.92, pow((v + 0.055) / 1.055, vec3(2.4)), step(0.04045, v)); }
vec3 srgb(vec3 v) {
  v = clamp(v, 0.0, 1.0);
  return mix(v * 12.92, 1.055 * pow(v, vec3(1.0 / 2.4)) - 0.055, step(0.0031308, v));
}
void main() {
  if (line > 0.5) { gl_FragColor = vec4(0.08, 0.08, 0.08, 0.55); return; }
  vec3 m = normalize(n), toEye = normalize(eye - p);
  // The inside of the head, seen through the mouth, is dark red and darker further in.
  if (!gl_FrontFacing) { gl_FragColor = vec4(vec3(0.24, 0.09, 0.085) * (0.5 + 0.5 * abs(dot(m, toEye))), 1.0); return; }
  // In the photograph's own light the photograph itself is on the surface: nothing is closer to it.
  if (look < 0.5 && lit < 0.5) { gl_FragColor = vec4(texture2D(baked, t).rgb, 1.0); return; }
  vec3 photo = sh[0] + sh[1] * m.y + sh[2] * m.z + sh[3] * m.x + sh[4] * m.x * m.y + sh[5] * m.y * m.z
    + sh[6] * (3.0 * m.z * m.z - 1.0) + sh[7] * m.x * m.z + sh[8] * (m.x * m.x - m.y * m.y);
  // Nothing in the photograph tells how bright its light would be on shoulders: not brighter than on the face.
  photo = min(max(photo, 0.0), ceiling);
  vec3 studio = vec3((look < 1.5 ? 0.36 : 0.20) + 0.10 * m.y) + vec3(1.06, 1.03, 0.98) * max(dot(m, lamp), 0.0);
  vec3 albedo = look < 0.5 ? linear(texture2D(skin, t).rgb) : look < 1.5 ? linear(c)
    : look < 2.5 ? vec3(0.46, 0.44, 0.42) : 0.8 * linear(c);
  // Only the product of albedo and light is certain: the lamp is as bright as the photograph's own light, and
  // clay, whose albedo is known, is lit as by a light of level one.
  vec3 light = look < 1.5 ? mix(photo, studio * exposure, lit) : mix(photo / exposure, studio, lit);
  float gloss = pow(max(dot(m, normalize(lamp + toEye)), 0.0), 24.0) * step(0.0, dot(m, lamp));
  float rim = pow(1.0 - max(dot(m, toEye), 0.0), 4.0);
  vec3 extra = lit * (vec3(0.05 * gloss) + vec3(0.05 * rim) * studio);
  gl_FragColor = vec4(srgb(albedo * light + extra), 1.0);
}`;

// Blue (sure) through grey to red, as the scale in report_page.css.
const SPECTRUM = [[59, 76, 192], [141, 176, 254], [221, 221, 221], [244, 154, 123], [180, 4, 38]];

function spectrum(bytes) {
  const out = new Float32Array(bytes.length * 3);
  bytes.forEach((q, i) => {
    const at = q / 255 * (SPECTRUM.length - 1), low = Math.min(Math.floor(at), SPECTRUM.length - 2);
    for (let k = 0; k < 3; k++) out[i * 3 + k] = (SPECTRUM[low][k] + (at - low) * (SPECTRUM[low + 1][k] - SPECTRUM[low][k])) / 255;
  });
  return out;
}

class Head {
  constructor(canvas, scene, bytes, pictures) {
    this.canvas = canvas;
    const gl = this.gl = canvas.getContext("webgl2", { antialias: true, alpha: true })
      || canvas.getContext("webgl", { antialias: true, alpha: true });
    if (!gl) throw new Error("no WebGL");
    if (!window.WebGL2RenderingContext || !(gl instanceof WebGL2RenderingContext)) gl.getExtension("OES_element_index_uint");
    this.read(scene, bytes);
    this.view = { yaw: 0, pitch: 0, roll: 0, zoom: 1 };
    this.look = 0; this.lit = 0; this.wire = false; this.lampAngle = -40;
    this.light = foldedLight(scene.light);
    this.exposure = Math.max(0.02, scene.exposure);
    this.ceiling = scene.ceiling;
    this.prepare(pictures);
    this.morph();
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  read(scene, bytes) {
    const types = { uint8: Uint8Array, uint16: Uint16Array, int16: Int16Array, uint32: Uint32Array };
    const array = ([type, offset, length]) => new types[type](bytes.buffer, offset, length);
    const packed = array(scene.vertices.data), { low, step } = scene.vertices;
    this.base = Float32Array.from(packed, (q, i) => low[i % 3] + q * step);
    this.vertex = array(scene.vertex);
    this.triangles = array(scene.triangles);
    this.uv = Float32Array.from(array(scene.uv), (q, i) => (i % 2 ? 1 - q / 65535 : q / 65535));
    this.color = Float32Array.from(array(scene.color), (q) => q / 255);
    this.doubt = scene.doubt && spectrum(array(scene.doubt.data));
    this.targets = scene.targets.map((t) => ({ ...t, rows: array(t.rows), values: array(t.values), weight: t.fitted }));
    [this.middle, this.radius] = [scene.focus.middle, scene.focus.radius];
    this.reach = 0;
    for (let i = 0; i < this.base.length; i++) this.reach = Math.max(this.reach, Math.abs(this.base[i] - this.middle[i % 3]));
  }

  prepare(pictures) {
    const gl = this.gl, program = this.program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    gl.useProgram(program);
    this.place = new Proxy({}, { get: (cache, name) => (cache[name] ??= gl.getUniformLocation(program, name)) });
    const buffer = (name, size, data) => {
      const handle = gl.createBuffer(), at = gl.getAttribLocation(program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, handle);
      if (data) gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(at);
      gl.vertexAttribPointer(at, size, gl.FLOAT, false, 0, 0);
      return handle;
    };
    this.positionBuffer = buffer("position", 3);
    this.normalBuffer = buffer("normal", 3);
    buffer("uv", 2, this.uv);
    this.colorBuffer = buffer("color", 3, this.spread(this.color));
    this.triangleBuffer = gl.createBuffer();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.triangleBuffer);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, this.triangles, gl.STATIC_DRAW);
    pictures.forEach((url, unit) => this.texture(url, unit));
    gl.uniform1i(this.place.skin, 0);
    gl.uniform1i(this.place.baked, 1);
    gl.enable(gl.DEPTH_TEST);
    gl.blendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA);
  }

  texture(url, unit) {
    const gl = this.gl, handle = gl.createTexture(), image = new Image();
    const bind = () => { gl.activeTexture(gl.TEXTURE0 + unit); gl.bindTexture(gl.TEXTURE_2D, handle); };
    bind();
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, 1, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, new Uint8Array([190, 150, 130]));
    image.onload = () => {
      bind();
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGB, gl.RGB, gl.UNSIGNED_BYTE, image);
      gl.generateMipmap(gl.TEXTURE_2D);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
      this.draw();
    };
    image.src = url;
  }

  // From the model's vertices to those split along the texture's seams.
  spread(values) {
    const out = new Float32Array(this.vertex.length * 3);
    for (let i = 0; i < this.vertex.length; i++) out.set(values.subarray(this.vertex[i] * 3, this.vertex[i] * 3 + 3), i * 3);
    return out;
  }

  // Skin, albedo, clay, or doubt: a colour per vertex as albedo is, lit as clay is.
  surface(look) {
    const gl = this.gl;
    this.look = look;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.colorBuffer);
    gl.bufferData(gl.ARRAY_BUFFER, this.spread(look > 2 && this.doubt ? this.doubt : this.color), gl.STATIC_DRAW);
  }

  morph() {
    const gl = this.gl, shape = Float32Array.from(this.base);
    for (const { rows, values, scale, weight } of this.targets) {
      if (!weight) continue;
      for (let i = 0; i < rows.length; i++) {
        for (let k = 0; k < 3; k++) shape[rows[i] * 3 + k] += weight * scale * values[i * 3 + k];
      }
    }
    gl.bindBuffer(gl.ARRAY_BUFFER, this.positionBuffer);
    gl.bufferData(gl.ARRAY_BUFFER, this.spread(shape), gl.DYNAMIC_DRAW);
    gl.bindBuffer(gl.ARRAY_BUFFER, this.normalBuffer);
    gl.bufferData(gl.ARRAY_BUFFER, this.spread(this.normals(shape)), gl.DYNAMIC_DRAW);
    this.draw();
  }

  // Area-weighted; the shader normalises.
  normals(v) {
    const out = new Float32Array(v.length), { triangles, vertex } = this;
    for (let i = 0; i < triangles.length; i += 3) {
      const a = vertex[triangles[i]] * 3, b = vertex[triangles[i + 1]] * 3, c = vertex[triangles[i + 2]] * 3;
      const ux = v[b] - v[a], uy = v[b + 1] - v[a + 1], uz = v[b + 2] - v[a + 2];
      const wx = v[c] - v[a], wy = v[c + 1] - v[a + 1], wz = v[c + 2] - v[a + 2];
      const nx = uy * wz - uz * wy, ny = uz * wx - ux * wz, nz = ux * wy - uy * wx;
      for (const k of [a, b, c]) { out[k] += nx; out[k + 1] += ny; out[k + 2] += nz; }
    }
    return out;
  }

  edges() {
    const gl = this.gl, seen = new Set(), lines = [], { triangles, vertex } = this, count = this.base.length / 3;
    for (let i = 0; i < triangles.length; i += 3) {
      for (const [p, q] of [[0, 1], [1, 2], [2, 0]]) {
        const a = triangles[i + p], b = triangles[i + q], u = vertex[a], w = vertex[b];
        const key = Math.min(u, w) * count + Math.max(u, w);
        if (!seen.has(key)) { seen.add(key); lines.push(a, b); }
      }
    }
    this.lineBuffer = gl.createBuffer();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.lineBuffer);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, new this.triangles.constructor(lines), gl.STATIC_DRAW);
    return lines.length;
  }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.render(); });
  }

  render() {
    const gl = this.gl, { canvas, view } = this, ratio = Math.min(window.devicePixelRatio || 1, 2);
    canvas.width = Math.max(1, canvas.clientWidth * ratio);
    canvas.height = Math.max(1, canvas.clientHeight * ratio);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const { clip, eye } = this.camera(canvas.width / canvas.height), angle = this.lampAngle * Math.PI / 180;
    const index = this.triangles instanceof Uint16Array ? gl.UNSIGNED_SHORT : gl.UNSIGNED_INT;
    gl.uniformMatrix4fv(this.place.clip, false, clip);
    gl.uniform3fv(this.place.eye, eye);
    gl.uniform3fv(this.place.sh, this.light);
    gl.uniform3f(this.place.lamp, Math.sin(angle) * 0.87, 0.5, Math.cos(angle) * 0.87);
    gl.uniform1f(this.place.exposure, this.exposure);
    gl.uniform1f(this.place.ceiling, this.ceiling);
    gl.uniform1f(this.place.look, this.look);
    gl.uniform1f(this.place.lit, this.lit);
    gl.uniform1f(this.place.line, 0);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.triangleBuffer);
    // The inside is pushed back, or it would show through along outlines; the outside gives way to lines only.
    gl.enable(gl.CULL_FACE);
    gl.enable(gl.POLYGON_OFFSET_FILL);
    for (const [hidden, factor, units] of [[gl.BACK, this.wire ? 0.5 : 0, this.wire ? 2 : 0], [gl.FRONT, 4, 16]]) {
      gl.cullFace(hidden);
      gl.polygonOffset(factor, units);
      gl.drawElements(gl.TRIANGLES, this.triangles.length, index, 0);
    }
    gl.disable(gl.POLYGON_OFFSET_FILL);
    gl.disable(gl.CULL_FACE);
    if (!this.wire) return;
    this.lineCount ??= this.edges();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.lineBuffer);
    gl.uniform1f(this.place.line, 1);
    gl.enable(gl.BLEND);
    gl.drawElements(gl.LINES, this.lineCount, index, 0);
    gl.disable(gl.BLEND);
  }

  // A narrow lens on a circle about the middle of the head; rows of `turn` are the camera's axes.
  camera(aspect) {
    const { yaw, pitch, roll, zoom } = this.view, half = Math.tan(Math.PI * 13 / 180) * Math.max(1, 1 / aspect);
    const turn = product(rotation(0, pitch), product(rotation(1, yaw), rotation(2, roll)));
    const distance = this.radius / half / zoom, near = distance - 1.8 * this.reach, far = distance + 1.8 * this.reach;
    const shift = turn.map((row) => -row.reduce((sum, v, k) => sum + v * this.middle[k], 0));
    shift[2] -= distance;
    const eye = [0, 1, 2].map((k) => this.middle[k] + turn[2][k] * distance);
    const sx = 1 / (half * aspect), sy = 1 / half, n = Math.max(near, 1);
    const rows = [
      [...turn[0].map((v) => v * sx), shift[0] * sx],
      [...turn[1].map((v) => v * sy), shift[1] * sy],
      [...turn[2], shift[2]].map((v) => v * -(far + n) / (far - n)),
      [...turn[2], shift[2]].map((v) => -v),
    ];
    rows[2][3] -= 2 * far * n / (far - n);
    return { clip: new Float32Array([0, 1, 2, 3].flatMap((k) => rows.map((row) => row[k]))), eye };
  }
}

function rotation(axis, angle) {
  const c = Math.cos(angle), s = Math.sin(angle), [i, j] = [[1, 2], [2, 0], [0, 1]][axis];
  const m = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  m[i][i] = c; m[j][j] = c; m[i][j] = -s; m[j][i] = s;
  return m;
}

function product(a, b) {
  return a.map((row) => [0, 1, 2].map((k) => row.reduce((sum, v, i) => sum + v * b[i][k], 0)));
}

// Angles with turn = R_x(pitch) R_y(yaw) R_z(roll), the order of Head.camera.
function anglesOf(turn) {
  return {
    yaw: Math.asin(Math.max(-1, Math.min(1, turn[0][2]))),
    pitch: Math.atan2(-turn[1][2], turn[2][2]),
    roll: Math.atan2(-turn[0][1], turn[0][0]),
  };
}

// Coefficients of the orthonormal basis times its constants and the Lambertian factors.
function foldedLight(light) {
  const root = Math.sqrt, pi = Math.PI, c1 = root(3 / (4 * pi)), c2 = 0.5 * root(15 / pi);
  const basis = [0.5 / root(pi), c1, c1, c1, c2, c2, 0.25 * root(5 / pi), c2, 0.5 * c2];
  const lambert = [1, 2 / 3, 2 / 3, 2 / 3, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 1 / 4];
  return new Float32Array(light.flatMap((rgb, i) => rgb.map((v) => v * basis[i] * lambert[i])));
}
