// The image with its prompts. Gradio runs this once with: element, trigger (an event for the server), props, watch.
// The server holds all that was asked; props.view is what it last said of it.

const find = (selector) => element.querySelector(selector);
const canvas = find("canvas");
const context = canvas.getContext("2d");
const kinds = [...element.querySelectorAll(".sam-kind button")];
const DRAG = 4; // pixels of the screen that make a press a box

let view = {};
let photo = null;
let photoAddress = "";
let layer = null;
let layerAddress = "";
let positive = true;
let pressed = null; // where the pointer went down, in pixels of the image
let dragged = null; // where it is, once it has moved far enough
let corner = null; // the first corner of a box that is drawn by keys
let cursor = null; // of the keys
let waiting = []; // clicks that the server has not answered yet
let working = 0;

const clamp = (value, high) => Math.min(Math.max(value, 0), high);
const open = () => Boolean(view.photo);

function load(address, then) {
  const image = new Image();
  image.onload = () => then(image);
  image.onerror = () => say("The picture could not be fetched: is the server still running?", true);
  image.src = address;
}

function say(text, wrong) {
  const status = find(".sam-status");
  status.textContent = text;
  status.classList.toggle("sam-wrong", Boolean(wrong));
}

function busy(text) {
  working += 1;
  if (text) say(text);
  show();
}

function show() {
  find(".sam-busy").hidden = working === 0;
  find(".sam-empty").hidden = open();
  find('[data-do="undo"]').disabled = !view.undo;
  find('[data-do="clear"]').disabled = !view.undo;
  element.dataset.revision = view.revision ?? "";
}

function take() {
  const next = props.view || {};
  working = 0;
  // Answers may come out of order: an older one has nothing new to say.
  if (next.token === view.token && next.revision < view.revision) return show();
  view = next;
  waiting = [];
  say(view.status || "", view.wrong);
  show();
  if (!open()) {
    photo = layer = null;
    photoAddress = layerAddress = "";
    return draw();
  }
  if (view.photo !== photoAddress) {
    const address = (photoAddress = view.photo);
    photo = layer = cursor = corner = null;
    layerAddress = "";
    load(address, (image) => {
      if (address !== photoAddress) return;
      photo = image;
      const { naturalWidth: width, naturalHeight: height } = image;
      const zoom = Math.max(1, Math.min(3, Math.floor(1280 / Math.max(width, height)))); // small images are magnified
      canvas.width = zoom * width;
      canvas.height = zoom * height;
      canvas.style.setProperty("--aspect", width / height);
      canvas.style.setProperty("--width", `${canvas.width}px`);
      draw();
    });
  }
  if (!view.layer) {
    layer = null;
    layerAddress = "";
  } else if (view.layer !== layerAddress) {
    const address = (layerAddress = view.layer);
    load(address, (image) => {
      if (address !== layerAddress) return;
      layer = image;
      element.dataset.drawn = view.revision;
      draw();
    });
  }
  draw();
}

function draw() {
  const { width, height } = canvas;
  context.clearRect(0, 0, width, height);
  if (!photo) return;
  context.drawImage(photo, 0, 0, width, height);
  if (layer) context.drawImage(layer, 0, 0, width, height);
  const scale = width / view.width;
  const line = width / canvas.getBoundingClientRect().width; // a pixel of the screen
  if (view.box) drawBox(view.box, scale, line, "#ffd60a");
  const far = dragged || (corner && cursor);
  if (far) drawBox([...(corner || pressed), ...far], scale, line, "#ffffff");
  for (const [x, y, on] of [...(view.points || []), ...waiting]) drawPoint(x, y, on, scale, line);
  if (cursor && document.activeElement === canvas) drawCursor(cursor, scale, line);
}

function drawBox([x1, y1, x2, y2], scale, line, colour) {
  const edges = [Math.min(x1, x2), Math.min(y1, y2), Math.abs(x2 - x1), Math.abs(y2 - y1)].map((v) => v * scale);
  context.lineWidth = 4 * line;
  context.strokeStyle = "rgba(0, 0, 0, .55)";
  context.strokeRect(...edges);
  context.lineWidth = 2 * line;
  context.strokeStyle = colour;
  context.strokeRect(...edges);
}

function drawPoint(x, y, on, scale, line) {
  const [cx, cy] = [(x + 0.5) * scale, (y + 0.5) * scale];
  context.beginPath();
  context.arc(cx, cy, 7 * line, 0, 2 * Math.PI);
  context.fillStyle = on ? "#1fa84a" : "#e0352f";
  context.fill();
  context.lineWidth = 2 * line;
  context.strokeStyle = "#ffffff";
  context.stroke();
  context.beginPath(); // a plus or a minus: colour alone is not for everyone
  context.moveTo(cx - 3 * line, cy);
  context.lineTo(cx + 3 * line, cy);
  if (on) {
    context.moveTo(cx, cy - 3 * line);
    context.lineTo(cx, cy + 3 * line);
  }
  context.stroke();
}

function drawCursor([x, y], scale, line) {
  const [cx, cy] = [(x + 0.5) * scale, (y + 0.5) * scale];
  for (const [width, colour] of [[4, "rgba(0, 0, 0, .55)"], [2, "#ffffff"]]) {
    context.lineWidth = width * line;
    context.strokeStyle = colour;
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(cx + 4 * dx * line, cy + 4 * dy * line);
      context.lineTo(cx + 14 * dx * line, cy + 14 * dy * line);
    }
    context.stroke();
  }
}

// Pixels of the image, as `mobilesam predict --point` counts them.
function place(event) {
  const frame = canvas.getBoundingClientRect();
  return [
    clamp(Math.floor(((event.clientX - frame.left) * view.width) / frame.width), view.width - 1),
    clamp(Math.floor(((event.clientY - frame.top) * view.height) / frame.height), view.height - 1),
  ];
}

function askPoint([x, y], on) {
  waiting.push([x, y, on]);
  busy("");
  trigger("point", { x, y, positive: on });
  draw();
}

function askBox([x1, y1], [x2, y2]) {
  busy("");
  // Both corners' pixels are inside.
  const box = [Math.min(x1, x2), Math.min(y1, y2), Math.max(x1, x2) + 1, Math.max(y1, y2) + 1];
  trigger("box", { box });
}

function ask(what) {
  busy("");
  trigger(what, {});
}

async function upload(file) {
  if (!file) return;
  if (file.size > props.max_bytes) {
    return say(`${file.name} has ${Math.round(file.size / 2 ** 20)} MB; images have ${props.limits}.`, true);
  }
  busy(`Sending ${file.name}…`);
  let problem = "";
  try {
    const headers = { "X-File-Name": encodeURIComponent(file.name) };
    const reply = await fetch(`of/${view.token}/image`, { method: "POST", body: file, headers });
    problem = reply.ok ? (await reply.json()).problem : `The server refused it (${reply.status}).`;
  } catch {
    problem = "It could not be sent: is the server still running?";
  }
  if (!problem) {
    say(`Opening ${file.name}…`);
    return trigger("received", {});
  }
  working = 0;
  show();
  say(problem, true);
}

function setKind(on, focus) {
  positive = on;
  for (const button of kinds) {
    const chosen = (button.dataset.positive === "1") === on;
    button.setAttribute("aria-checked", chosen);
    button.tabIndex = chosen ? 0 : -1;
    if (chosen && focus) button.focus();
  }
}

for (const button of kinds) {
  button.addEventListener("click", () => setKind(button.dataset.positive === "1", false));
  button.addEventListener("keydown", (event) => {
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    setKind(!positive, true);
  });
}
find('[data-do="undo"]').addEventListener("click", () => ask("undo"));
find('[data-do="clear"]').addEventListener("click", () => ask("clear"));

find(".sam").addEventListener("work", (event) => busy(event.detail)); // of other parts of the page

const chooser = find("input[type=file]");
chooser.addEventListener("change", () => {
  upload(chooser.files[0]);
  chooser.value = ""; // so that the same file can be chosen again
});
const stage = find(".sam-stage");
stage.addEventListener("dragover", (event) => {
  event.preventDefault();
  stage.classList.add("sam-over");
});
stage.addEventListener("dragleave", () => stage.classList.remove("sam-over"));
stage.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("sam-over");
  upload(event.dataTransfer.files[0]);
});

canvas.addEventListener("contextmenu", (event) => event.preventDefault());
canvas.addEventListener("pointerdown", (event) => {
  if (event.button > 2 || event.button === 1) return;
  if (!open()) return askPoint([0, 0], true); // the server says what is missing
  cursor = corner = null;
  pressed = place(event);
  pressed.screen = [event.clientX, event.clientY];
  pressed.button = event.button;
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (!pressed || pressed.button !== 0) return;
  const [x, y] = pressed.screen;
  if (!dragged && Math.hypot(event.clientX - x, event.clientY - y) < DRAG) return;
  dragged = place(event);
  draw();
});
canvas.addEventListener("pointerup", (event) => {
  if (!pressed) return;
  const [from, to] = [pressed, dragged];
  pressed = dragged = null;
  if (to) askBox(from, to);
  else askPoint([from[0], from[1]], from.button === 2 ? false : positive);
  draw();
});
canvas.addEventListener("pointercancel", () => {
  pressed = dragged = null;
  draw();
});

canvas.addEventListener("keydown", (event) => {
  if (!open()) return;
  const step = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(view.width, view.height) / 50));
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  cursor ??= [Math.floor(view.width / 2), Math.floor(view.height / 2)];
  if (moves[event.key]) {
    const [dx, dy] = moves[event.key];
    cursor = [clamp(cursor[0] + dx * step, view.width - 1), clamp(cursor[1] + dy * step, view.height - 1)];
    const text = corner ? "Second corner of the box" : "Cursor";
    say(`${text}: ${cursor[0]}, ${cursor[1]}`);
  } else if (event.key === "Enter") {
    askPoint(cursor, event.shiftKey ? false : positive);
  } else if (event.key.toLowerCase() === "b" && !event.ctrlKey && !event.metaKey) {
    if (corner) askBox(corner, cursor);
    else say(`The box begins at ${cursor[0]}, ${cursor[1]}: move to its other corner and press B.`);
    corner = corner ? null : cursor;
  } else if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) {
    if (view.undo) ask("undo");
  } else if (event.key === "Escape") {
    if (corner) corner = null;
    else if (view.undo) ask("clear");
  } else {
    return;
  }
  event.preventDefault();
  draw();
});
canvas.addEventListener("focus", () => {
  if (open() && canvas.matches(":focus-visible")) cursor ??= [Math.floor(view.width / 2), Math.floor(view.height / 2)];
  draw();
});
canvas.addEventListener("blur", draw);
new ResizeObserver(draw).observe(canvas);

watch("view", take);
take();
