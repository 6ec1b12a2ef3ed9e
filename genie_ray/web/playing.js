const KEYS = {ArrowRight: "RIGHT", ArrowLeft: "LEFT", ArrowUp: "UP", ArrowDown: "DOWN", " ": "JUMP", x: "JUMP"};
const held = [];  // buttons held down now, the latest last
let buttons = [];  // of the game; the page that plays defines told(taps): what is held has changed, these were pressed

function press(name) {
  if (!buttons.includes(name) || held.includes(name)) return;
  held.push(name); mark(name, true); told([name]);
}
function release(name) {
  if (!held.includes(name)) return;
  held.splice(held.indexOf(name), 1); mark(name, false); told([]);
}
function mark(name, on) { document.querySelector(`[data-button="${name}"]`)?.classList.toggle("held", on); }
function nameOf(event) { return KEYS[event.key] || buttons.filter(b => !Object.values(KEYS).includes(b))[+event.key - 1]; }
addEventListener("keydown", event => {
  if (event.target.matches("select, input:not([type=checkbox])")) return;
  const name = nameOf(event);
  if (name) { event.preventDefault(); if (!event.repeat) press(name); }
});
addEventListener("keyup", event => { const name = nameOf(event); if (name) release(name); });
addEventListener("blur", () => [...held].forEach(release));

function makePad(actions) {
  buttons = [...new Set(actions.flatMap(name => name.split("+")))].filter(name => name !== "NOOP");
  for (const name of buttons) {
    const button = document.createElement("button");
    button.textContent = name.toLowerCase(); button.dataset.button = name;
    button.onpointerdown = event => { button.setPointerCapture(event.pointerId); press(name); };
    button.onpointerup = button.onpointercancel = () => release(name);
    $("pad").append(button);
  }
}
function paint(canvas, bytes, size) {  // raw RGB
  const image = new ImageData(size, size);
  for (let i = 0, j = 0; j < image.data.length; i += 3) {
    image.data[j++] = bytes[i]; image.data[j++] = bytes[i + 1]; image.data[j++] = bytes[i + 2]; image.data[j++] = 255;
  }
  canvas.width = canvas.height = size;
  canvas.getContext("2d").putImageData(image, 0, 0);
}
function paintMap(rows) {
  const map = $("map");
  if (!rows || !$("unsure").checked) { map.width = map.width; return; }
  map.width = rows[0].length; map.height = rows.length;
  const context = map.getContext("2d");
  rows.forEach((row, y) => row.forEach((value, x) => {
    context.fillStyle = `rgba(220, 40, 40, ${0.75 * value})`; context.fillRect(x, y, 1, 1);
  }));
}
function tellLive(step, fps, latency, uncertainty) {
  const flat = uncertainty?.flat();
  $("live").textContent = `frame ${step} · ${fps} frames/s` +
    (latency === null ? "" : ` · ${latency.toFixed(0)} ms from button to picture`) +
    (flat ? ` · unsure ${(flat.reduce((a, b) => a + b) / flat.length).toFixed(2)}` : "");
}
