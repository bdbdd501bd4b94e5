"use strict";

const byId = (id) => document.getElementById(id);
const chosen = []; // the history
let samples = []; // users of the test set
let taken = null; // what the chosen one of them took next
let asked = 0; // the newest question; answers to older ones are passed over

function row(item, onClick, hint) {
  const line = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.title = hint;
  button.append(item.title || item.id);
  const id = document.createElement("span");
  id.className = "id";
  id.textContent = item.title ? ` ${item.id}` : "";
  button.append(id);
  button.addEventListener("click", onClick);
  line.append(button);
  return line;
}

async function get(path, options) {
  const answer = await fetch(path, options);
  const content = await answer.json();
  if (!answer.ok) throw new Error(content.error || `status ${answer.status}`);
  return content;
}

async function search() {
  const words = byId("query").value;
  try {
    const found = await get(`items?q=${encodeURIComponent(words)}`);
    if (words !== byId("query").value) return;
    byId("found").replaceChildren(...found.items.map((item) => row(item, () => add(item), "add to the history")));
  } catch (error) {
    byId("error").textContent = error.message;
  }
}

function add(item) {
  chosen.push(item);
  leaveSample();
  show();
}

function show() {
  byId("history").replaceChildren(...chosen.map((item, place) => row(item, () => remove(place), "remove")));
  recommend();
}

function remove(place) {
  chosen.splice(place, 1);
  leaveSample();
  show();
}

function leaveSample() {
  taken = null;
  byId("sample").value = "";
}

function takeSample() {
  const sample = samples[byId("sample").value];
  taken = sample ? sample.taken : null;
  chosen.splice(0, chosen.length, ...(sample ? sample.history : []));
  show();
}

function showTaken(items) {
  byId("taken").hidden = !taken;
  if (!taken) return;
  const place = items.findIndex((item) => item.id === taken.id) + 1;
  const where = place ? `place ${place} of the list` : `not among these ${items.length}`;
  byId("taken").textContent = `This user took next: ${taken.title || taken.id} (${where})`;
}

async function recommend() {
  const number = ++asked;
  const body = { history: chosen.map((item) => item.id), k: 10, exclude_history: byId("rule").checked };
  const options = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  try {
    const answer = await get("recommend", options);
    if (number !== asked) return;
    byId("error").textContent = "";
    const first = answer.items.length ? answer.items[0].score : 0;
    showTaken(answer.items);
    byId("list").replaceChildren(...answer.items.map((item) => listed(item, first)));
  } catch (error) {
    if (number !== asked) return;
    byId("error").textContent = error.message;
    byId("taken").hidden = true;
  }
}

function listed(item, first) {
  const line = row(item, () => add(item), "add to the history");
  const score = document.createElement("span");
  score.className = "score";
  score.textContent = `${(100 * Math.exp(item.score)).toFixed(2)}%`;
  line.firstChild.prepend(score);
  const bar = document.createElement("span");
  bar.className = "bar";
  bar.style.width = `${100 * Math.exp(item.score - first)}%`;
  line.firstChild.append(bar);
  if (taken && taken.id === item.id) line.classList.add("taken");
  return line;
}

async function begin() {
  const state = await (await fetch("readyz")).json();
  byId("state").textContent = state.status === "ready" ? `ready; ${state.stage} answers` : "compiling";
  if (state.status !== "ready") return setTimeout(begin, 500);
  byId("rule").checked = state.exclude_history;
  const named = new URLSearchParams(location.search).get("history"); // a link may bring a history along
  if (named) chosen.push(...(await get(`items?ids=${encodeURIComponent(named)}`)).items);
  show();
  samples = (await get("samples")).users;
  const options = samples.map((one, place) => new Option(`${one.user} (${one.history.length} items)`, place));
  byId("sample").replaceChildren(new Option("none", ""), ...options);
  byId("samples").hidden = !samples.length;
  const wanted = samples.findIndex((one) => one.user === new URLSearchParams(location.search).get("user"));
  if (wanted < 0) return;
  byId("sample").value = wanted;
  takeSample();
}

byId("sample").addEventListener("change", takeSample);
byId("query").addEventListener("input", search);
byId("rule").addEventListener("change", recommend);
search();
begin();
