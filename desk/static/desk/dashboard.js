// Keeps the page current, ages what grows old, and sends what the operator presses.
"use strict";

const body = document.body;
const words = body.dataset;
const units = words.textUnits.split(",");
const STALE_SECONDS = 5;
const $ = (id) => document.getElementById(id);

// --- the market's time, as the server told it last --------------------------------------------
let told = { now: Number(words.now), at: performance.now() };
let heardAt = performance.now();
const now = () => told.now + (performance.now() - told.at) / 1000;

function age(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return s + units[0];
  if (s < 3600) return Math.floor(s / 60) + units[1] + (s < 600 ? " " + (s % 60) + units[0] : "");
  if (s < 86400) return Math.floor(s / 3600) + units[2] + " " + Math.floor((s % 3600) / 60) + units[1];
  return Math.floor(s / 86400) + units[3];
}
const fill = (sentence, gaps) => sentence.replace(/\{(\w+)\}/g, (_, name) => gaps[name]);

function tick() {
  const at = now();
  for (const each of document.querySelectorAll("[data-since]")) {
    const since = Number(each.dataset.since);
    if (!since) { each.classList.toggle("old", each.tagName === "I"); continue; }
    const isOld = Boolean(each.dataset.stale) && at - since > Number(each.dataset.stale);
    if (each.tagName === "I") { each.classList.toggle("fresh", !isOld); each.classList.toggle("old", isOld); continue; }
    each.classList.toggle("stale", isOld);
    if ("quiet" in each.dataset) continue;
    each.textContent = "bare" in each.dataset ? age(at - since) : fill(words.textAgo, { age: age(at - since) });
  }
  for (const each of document.querySelectorAll("[data-until]")) {
    each.textContent = fill(words.textIn, { age: age(Number(each.dataset.until) - at) });
  }
  [$("date").textContent, $("clock").textContent] = new Date((at + 9 * 3600) * 1000).toISOString().slice(0, 19).split("T");
  const silence = (performance.now() - heardAt) / 1000;
  body.classList.toggle("stale-page", silence > STALE_SECONDS);
  $("stale").hidden = silence <= STALE_SECONDS;
  if (silence > STALE_SECONDS) $("stale").textContent = fill(words.textStale, { age: age(silence) });
}

// --- what changed, as the server sends it -------------------------------------------------------
function put(name, html) {
  const part = $(name);
  const known = new Set([...part.querySelectorAll("[data-fill]")].map((row) => row.dataset.fill));
  const scrolled = part.querySelector(".scroll")?.scrollTop ?? 0;
  const focused = part.contains(document.activeElement) ? document.activeElement.dataset.post : null;
  part.innerHTML = html;
  if (scrolled) part.querySelector(".scroll")?.scrollTo({ top: scrolled });
  if (focused) part.querySelector(`[data-post="${CSS.escape(focused)}"]`)?.focus();
  if (name !== "executions") return;
  for (const row of part.querySelectorAll("[data-fill]")) row.classList.toggle("fresh", !known.has(row.dataset.fill));
  document.dispatchEvent(new Event("fills"));
}

function listen() {
  const stream = new EventSource(words.live);
  stream.onmessage = (event) => {
    const news = JSON.parse(event.data);
    told = { now: news.now, at: performance.now() };
    heardAt = performance.now();
    for (const [name, html] of Object.entries(news.parts)) put(name, html);
    tick();
  };
  stream.addEventListener("full", (event) => { toast(JSON.parse(event.data), false); stream.close(); setTimeout(listen, 15000); });
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  };
}

// --- what the operator presses ------------------------------------------------------------------
function toast(text, isDone) {
  const line = document.createElement("p");
  line.textContent = text;
  line.classList.toggle("bad", !isDone);
  $("toast").append(line);
  setTimeout(() => line.remove(), isDone ? 5000 : 12000);
}

function ask({ ask: question, yes, or, reason: wants }) {
  return new Promise((answer) => {
    const dialog = $("ask"), reason = $("ask-reason"), other = $("ask-or"), wantsReason = wants !== undefined;
    $("ask-text").textContent = question;
    $("ask-yes").textContent = yes || $("ask-yes").dataset.usual;
    other.textContent = or || "";
    other.hidden = !or;
    reason.hidden = !wantsReason;
    reason.value = "";
    dialog.returnValue = "";
    dialog.onclose = () => answer(dialog.returnValue ? { reason: reason.value, isOther: dialog.returnValue === "or" } : null);
    dialog.showModal();
    (wantsReason ? reason : $("ask-yes")).focus();
  });
}

async function press(button) {
  const answer = button.dataset.ask ? await ask(button.dataset) : { reason: "" };
  if (!answer) return;
  button.disabled = true;
  const token = document.querySelector("[name=csrfmiddlewaretoken]").value;
  try {
    const address = answer.isOther ? button.dataset.orPost : button.dataset.post;
    const body = new URLSearchParams({ reason: answer.reason });
    const reply = await fetch(address, { method: "POST", headers: { "X-CSRFToken": token }, body });
    const isTold = reply.headers.get("Content-Type")?.startsWith("application/json");
    const said = isTold ? await reply.json() : { done: false, text: fill(words.textFailed, { why: `${reply.status} ${reply.statusText}` }) };
    toast(said.text, said.done);
  } catch {
    toast(fill(words.textFailed, { why: words.textUnreachable }), false);
  } finally {
    button.disabled = false;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-post]");
  if (button) press(button);
});
$("ask-reason").addEventListener("keydown", (event) => {
  // of two answers Enter gives the milder one
  if (event.key === "Enter") { event.preventDefault(); $("ask").close($("ask-or").hidden ? "yes" : "or"); }
});
$("theme").addEventListener("click", () => {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
  document.dispatchEvent(new Event("theme"));
});

tick();
setInterval(tick, 1000);
listen();
