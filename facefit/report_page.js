// The page's controls. State can be given in the address: #jawOpen=1&yaw=30&pitch=10&look=clay&light=60&wire&neutral
{
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const radio = (name, value) => document.querySelector(`input[name="${name}"][value="${value}"]`);
  const onRadio = (name, change) => document.querySelectorAll(`input[name="${name}"]`)
    .forEach((input) => input.addEventListener("change", () => change(input.value)));
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

  // ---- the wipe
  const wipe = byId("wipe"), frame = wipe.parentElement;
  const moveWipe = () => frame.style.setProperty("--at", `${wipe.value}%`);
  wipe.addEventListener("input", moveWipe);
  const showLayer = (name) => {
    document.querySelectorAll(".layer").forEach((img) => img.classList.toggle("on", img.dataset.layer === name));
    byId("caption").textContent = data.captions[name];
  };
  onRadio("layer", showLayer);
  showLayer("overlay");
  byId("points").addEventListener("change", (event) => {
    document.querySelector(".points").toggleAttribute("hidden", !event.target.checked);
    byId("caption").textContent = event.target.checked
      ? "Rings: landmarks as detected. Dots: the same points of the fitted face."
      : data.captions[document.querySelector('input[name="layer"]:checked').value];
  });

  // ---- the head
  const bytes = Uint8Array.from(atob(data.block), (c) => c.charCodeAt(0));
  let head = null;
  try {
    head = new Head(byId("head"), data.scene, bytes, [data.skin, data.lit]);
  } catch (error) {
    document.body.classList.add("flat");
  }
  if (head) start(head);

  function start(head) {
    const canvas = byId("head"), photoView = { ...anglesOf(data.scene.rotation), zoom: 1 };
    const frontView = { yaw: 0, pitch: 0, roll: 0, zoom: 1 };
    Object.assign(head.view, photoView);

    // One animation at a time; `step` sees the progress, eased.
    let running = 0;
    function animate(milliseconds, step) {
      cancelAnimationFrame(running);
      if (calm || document.hidden) return step(1);
      const begin = performance.now();
      const tick = (now) => {
        const t = Math.min(1, Math.max(0, (now - begin) / milliseconds));
        step(t * t * (3 - 2 * t));
        if (t < 1) running = requestAnimationFrame(tick);
      };
      running = requestAnimationFrame(tick);
    }
    const turnTo = (view) => {
      const from = { ...head.view };
      animate(450, (t) => {
        for (const key in view) head.view[key] = from[key] + t * (view[key] - from[key]);
        head.draw();
      });
    };
    byId("view-photo").addEventListener("click", () => turnTo(photoView));
    byId("view-front").addEventListener("click", () => turnTo(frontView));

    const turn = (dx, dy) => {
      head.view.yaw += dx;
      head.view.pitch = Math.max(-1.5, Math.min(1.5, head.view.pitch + dy));
      head.draw();
    };
    const zoom = (factor) => { head.view.zoom = Math.max(0.5, Math.min(6, head.view.zoom * factor)); head.draw(); };
    const fingers = new Map();
    let spread = 0;
    canvas.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, event);
      canvas.setPointerCapture(event.pointerId);
      spread = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      fingers.set(event.pointerId, event);
      if (fingers.size === 1) return turn((event.clientX - before.clientX) * 0.008, (event.clientY - before.clientY) * 0.008);
      const [a, b] = fingers.values(), now = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
      if (spread) zoom(now / spread);
      spread = now;
    });
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, (event) => fingers.delete(event.pointerId));
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY * 0.0012)); }, { passive: false });
    canvas.addEventListener("dblclick", () => turnTo(frontView));
    canvas.addEventListener("keydown", (event) => {
      const action = {
        ArrowLeft: () => turn(-0.08, 0), ArrowRight: () => turn(0.08, 0), ArrowUp: () => turn(0, -0.08),
        ArrowDown: () => turn(0, 0.08), "+": () => zoom(1.1), "-": () => zoom(1 / 1.1),
      }[event.key];
      if (action) { action(); event.preventDefault(); }
    });

    // ---- look and light
    const looks = ["skin", "albedo", "clay", "doubt"];
    const setLook = (name) => {
      head.surface(looks.indexOf(name));
      if (name === "clay" || name === "doubt") setLamp("lamp");
      byId("doubt-scale").hidden = name !== "doubt";
      byId("hint").hidden = name === "doubt";
      head.draw();
    };
    if (data.scene.doubt) {
      byId("doubt").hidden = false;
      byId("doubt-low").textContent = data.scene.doubt.low_mm.toFixed(1);
      byId("doubt-top").textContent = data.scene.doubt.top_mm.toFixed(1);
    }
    const setLamp = (name) => { radio("lamp", name).checked = true; head.lit = name === "lamp" ? 1 : 0; head.draw(); };
    onRadio("look", setLook);
    onRadio("lamp", setLamp);
    byId("light").addEventListener("input", (event) => { head.lampAngle = Number(event.target.value); setLamp("lamp"); });
    byId("wire").addEventListener("change", (event) => { head.wire = event.target.checked; head.draw(); });

    // ---- expressions
    const sliders = buildSliders(head);
    const show = (target) => {
      const entry = sliders.get(target);
      if (!entry) return;
      entry.input.value = target.weight;
      entry.output.textContent = target.weight.toFixed(2);
      entry.row.classList.toggle("moved", Math.abs(target.weight) > 0.005);
    };
    const unset = () => document.querySelectorAll('input[name="pose"]').forEach((input) => { input.checked = false; });
    const setWeight = (target, value) => { target.weight = value; show(target); };
    const other = (name) => name.endsWith("Left") ? name.slice(0, -4) + "Right" : name.endsWith("Right") ? name.slice(0, -5) + "Left" : null;
    for (const [target, { input }] of sliders) {
      input.addEventListener("input", () => {
        stop();
        unset();
        setWeight(target, Number(input.value));
        const twin = byId("both").checked && head.targets.find((t) => t.name === other(target.name));
        if (twin) setWeight(twin, target.weight);
        head.morph();
      });
    }
    const moveTo = (weights, milliseconds) => {
      const from = head.targets.map((t) => t.weight);
      animate(milliseconds, (t) => {
        head.targets.forEach((target, i) => setWeight(target, from[i] + t * (weights[i] - from[i])));
        head.morph();
      });
    };
    const fitted = head.targets.map((t) => t.fitted);
    const rest = head.targets.map(() => 0);
    const setPose = (name) => { stop(); moveTo(name === "neutral" ? rest : fitted, 350); };
    onRadio("pose", setPose);

    // Play: one expression after the other, both sides together, from rest and back.
    let timer = 0;
    const stop = () => { clearTimeout(timer); timer = 0; byId("play").setAttribute("aria-pressed", "false"); };
    const movable = head.targets.filter((t) => t.part && t.rows.length && !t.name.endsWith("Right"));
    const next = (at) => {
      const chosen = movable[at % movable.length], peak = chosen.range[1] === 1 ? 1 : 2;
      moveTo(head.targets.map((t) => t === chosen || t.name === other(chosen.name) ? peak : 0), 420);
      timer = setTimeout(() => next(at + 1), 800);
    };
    byId("play").addEventListener("click", () => {
      if (timer) { stop(); return radio("pose", "fitted").click(); }
      if (!movable.length) return;
      unset();
      byId("play").setAttribute("aria-pressed", "true");
      next(0);
    });

    // ---- state from the address
    const wanted = new URLSearchParams(location.hash.slice(1));
    const degrees = (key) => { if (wanted.has(key)) head.view[key] = Number(wanted.get(key)) * Math.PI / 180; };
    if (wanted.has("yaw") || wanted.has("pitch")) Object.assign(head.view, frontView);
    ["yaw", "pitch"].forEach(degrees);
    if (wanted.has("zoom")) head.view.zoom = Number(wanted.get("zoom"));
    if (wanted.has("neutral")) { radio("pose", "neutral").checked = true; head.targets.forEach((t) => { t.weight = 0; }); }
    for (const target of head.targets) if (wanted.has(target.name)) { unset(); target.weight = Number(wanted.get(target.name)); }
    if (looks.includes(wanted.get("look"))) { radio("look", wanted.get("look")).checked = true; setLook(wanted.get("look")); }
    if (wanted.has("light")) { byId("light").value = wanted.get("light"); head.lampAngle = Number(wanted.get("light")); setLamp("lamp"); }
    if (wanted.has("wire")) { byId("wire").checked = head.wire = true; }
    if (wanted.has("layer")) { radio("layer", wanted.get("layer")).click(); }
    if (wanted.has("wipe")) { wipe.value = wanted.get("wipe"); moveWipe(); }
    head.targets.forEach(show);
    head.morph();
  }

  function buildSliders(head) {
    const parts = new Map(), sliders = new Map();
    for (const target of head.targets) {
      if (!target.part) continue;
      if (!parts.has(target.part)) {
        const set = document.createElement("fieldset"), legend = document.createElement("legend");
        legend.textContent = target.part;
        set.append(legend);
        parts.set(target.part, set);
      }
      const row = document.createElement("label"), name = document.createElement("span");
      const track = document.createElement("div"), input = document.createElement("input"), output = document.createElement("output");
      const [low, high] = target.range;
      name.textContent = target.name.replace(/([a-z])([A-Z])/g, "$1 $2").replace(/_/g, " ").toLowerCase();
      Object.assign(input, { type: "range", min: low, max: high, step: 0.01, title: `${target.name}, fitted ${target.fitted}` });
      // The thumb's middle runs from 8 px to 8 px before the end.
      const part = (target.fitted - low) / (high - low);
      row.className = "slider";
      track.className = "track";
      track.style.setProperty("--fit", `calc(8px + ${Math.max(0, Math.min(1, part))} * (100% - 16px))`);
      track.append(input);
      row.append(name, output, track);
      parts.get(target.part).append(row);
      sliders.set(target, { input, output, row });
    }
    for (const part of ["Jaw", "Mouth", "Eyes", "Brows", "Cheeks and nose", "Other"]) {
      if (parts.has(part)) byId("groups").append(parts.get(part));
    }
    return sliders;
  }
}
