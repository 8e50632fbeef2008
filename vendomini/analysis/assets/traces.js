"use strict";
// Reads episodes step by step. Whatever a model wrote enters the page as text, never as markup.
(() => {
  const PAGE = 50, KEPT = 12, LISTED = 200, LONG = 20000;
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const state = { runs: [], shown: LISTED, run: null, step: 1, pages: new Map(), asked: 0 };

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }
  function shape(name, attributes) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  // Numbers by their value, so that 0.05 comes before 0.4; text as people count, so that s2 comes before s10.
  function order(a, b) {
    return a !== "" && b !== "" && Number.isFinite(Number(a)) && Number.isFinite(Number(b))
      ? Number(a) - Number(b) : a.localeCompare(b, undefined, { numeric: true });
  }

  // ------------------------------------------------------------------------------------------ where data come from

  const embedded = () => $("embedded") && JSON.parse($("embedded").textContent);

  async function fetched(path) {
    const answer = await fetch(path);
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  }
  const runPath = (run) => `api/runs/${run.place}/${encodeURIComponent(run.run_id)}`;

  async function page(number) {
    const known = state.pages.get(number);
    if (known) return known;
    const steps = await fetched(`${runPath(state.run)}/steps?first=${(number - 1) * PAGE + 1}&count=${PAGE}`);
    state.pages.set(number, steps);
    if (state.pages.size > KEPT) state.pages.delete(state.pages.keys().next().value);
    return steps;
  }
  async function stepRecord(number) {
    if (state.steps) return state.steps[number - 1];
    const steps = await page(Math.ceil(number / PAGE));
    return steps[(number - 1) % PAGE];
  }

  // ---------------------------------------------------------------------------------------------------- list of runs

  const NO_EVENTS = new Set(["survived", "cut_off", "running"]);
  const ending = (run) => run.ending === "crashed" ? `crashed: ${run.crash_type}` : run.ending;

  function filterBox(label, key, values) {
    const list = element("select", { "data-key": key }, new Option("all", ""));
    list.append(...values.map((value) => new Option(value, value)));
    list.addEventListener("change", listRuns);
    return element("label", {}, label, list);
  }
  function distinct(value) {
    return [...new Set(state.runs.map(value))].filter((text) => text !== "").sort(order);
  }
  function buildFilters() {
    const search = element("input", { type: "search", "data-key": "text", placeholder: "part of the run's name" });
    search.addEventListener("input", listRuns);
    const boxes = [element("label", {}, "Name", search), filterBox("Ending", "ending", distinct(ending)),
      filterBox("Model", "model", distinct((run) => run.model))];
    const factors = Object.keys(state.runs[0]?.parameters ?? {});
    for (const path of factors) {
      boxes.push(filterBox(path.split(".").pop(), `parameter:${path}`, distinct((run) => run.parameters[path] ?? "")));
    }
    $("filters").replaceChildren(...boxes);
    $("filters").addEventListener("submit", (event) => event.preventDefault());
  }
  function matches(run, key, wanted) {
    if (key === "text") return run.run_id.toLowerCase().includes(wanted.toLowerCase());
    if (key === "ending") return ending(run) === wanted;
    if (key === "model") return run.model === wanted;
    return run.parameters[key.slice("parameter:".length)] === wanted;
  }
  function listRuns(event) {
    if (event) state.shown = LISTED;
    const wanted = [...$("filters").querySelectorAll("[data-key]")].filter((box) => box.value !== "");
    const found = state.runs.filter((run) => wanted.every((box) => matches(run, box.dataset.key, box.value)));
    $("count").textContent = `${found.length} of ${state.runs.length} runs`;
    $("runs").replaceChildren(...found.slice(0, state.shown).map(runItem));
    $("more").hidden = found.length <= state.shown;
  }
  function runItem(run) {
    const end = element("span", { class: NO_EVENTS.has(run.ending) ? "ending" : "ending event" }, ending(run));
    const when = run.time_to_crash ? ` at step ${run.time_to_crash}` : "";
    const button = element("button", { type: "button" },
      element("span", { class: "id" }, run.run_id),
      element("span", { class: "meta" }, end, `${when} · ${run.model || "unknown model"} · seed ${run.seed ?? "–"}`));
    if (state.run && run.run_id === state.run.run_id && run.place === state.run.place) button.setAttribute("aria-current", "true");
    button.addEventListener("click", () => { location.hash = address(run, 1); });
    return element("li", {}, button);
  }
  const address = (run, step) => `run=${run.place}/${encodeURIComponent(run.run_id)}&step=${step}`;

  // -------------------------------------------------------------------------------------------------------- one run

  async function openRun(place, id) {
    state.pages.clear();
    state.run = await fetched(runPath({ place, run_id: id }));
    showRun();
  }
  function showRun() {
    const run = state.run;
    $("name").textContent = run.run_id;
    document.title = run.run_id;
    $("episode").hidden = false;
    document.querySelector(".app").classList.add("reading");
    const facts = [["Model", run.model], ["Ending", ending(run) + (run.severity ? ` (${run.severity})` : "")],
      ["Event at step", run.time_to_crash ?? "none"], ["Steps", run.length], ["Seed", run.seed ?? "–"]];
    for (const key of run.facts) {
      if (run.parameters[key]) facts.push([key.split(".").pop(), run.parameters[key]]);
    }
    $("facts").replaceChildren(...facts.map(([name, value]) =>
      element("div", {}, element("dt", {}, name), element("dd", {}, String(value)))));
    const trouble = [run.reason, run.damage].filter(Boolean).join(" ");
    $("damage").textContent = trouble;
    $("damage").hidden = !trouble;
    for (const id of ["slider", "number"]) $(id).max = Math.max(run.length, 1);
    $("length").textContent = `of ${run.length}`;
    $("crash").disabled = !onset();
    $("shock").disabled = !run.timeline.shocks.length;
    drawTimeline();
    if (!embedded()) listRuns();
  }
  const onset = () => state.run.time_to_crash || (state.run.timeline.on[0] || [])[1];

  function drawTimeline() {
    const { timeline, length } = state.run;
    const width = Math.max(length, 1);
    const top = Math.max(...timeline.pe.filter((value) => value !== null), 0.1);
    const lanes = [[`PE, to ${cell(top)}`, "pe", peLane(timeline.pe, top * 1.05)]];
    for (const type of [...new Set(timeline.shocks.map((shock) => shock[1]))].sort()) {
      const ticks = timeline.shocks.filter((shock) => shock[1] === type);
      lanes.push([`shock: ${type}`, "lane", ticks.map(([step]) => line(step, "tick"))]);
    }
    for (const name of [...new Set(timeline.on.map((flag) => flag[0]))].sort()) {
      const flags = timeline.on.filter((flag) => flag[0] === name);
      lanes.push([name, "lane", flags.map(([, from, to]) =>
        shape("rect", { class: "on", x: from - 0.5, width: Math.max(to - from + 1, width / 400), y: 0.15, height: 0.7 }))]);
    }
    const parts = [];
    for (const [label, kind, marks] of lanes) {
      const drawing = shape("svg", { class: kind, viewBox: `0.5 0 ${width} 1`, preserveAspectRatio: "none", "aria-hidden": "true" });
      drawing.append(...marks);
      if (onset()) drawing.append(line(onset(), "onset"));
      drawing.append(line(1, "cursor"));
      drawing.addEventListener("click", (event) => {
        const box = drawing.getBoundingClientRect();
        go(Math.round((event.clientX - box.left) / box.width * width + 0.5));
      });
      parts.push(element("span", {}, label), drawing);
    }
    const ends = length > 2 ? [1, Math.round((length + 1) / 2), length] : [1, width];
    parts.push(element("span", {}, "step"), element("div", { class: "axis" }, ...ends.map((step) => element("span", {}, String(step)))));
    $("timeline").replaceChildren(...parts);
    const crash = onset() ? `event at step ${onset()}` : "no event";
    $("timeline").setAttribute("aria-label",
      `Timeline of ${length} steps: ${timeline.shocks.length} realised shocks, ${crash}. Use the slider to move.`);
  }
  function line(step, kind) {
    return shape("line", { class: kind, x1: step, x2: step, y1: 0, y2: 1, "vector-effect": "non-scaling-stroke" });
  }
  function peLane(values, top) {
    let path = "", pen = "M";
    values.forEach((value, place) => {
      if (value === null) { pen = "M"; return; }
      path += `${pen}${place + 1} ${(1 - value / top).toFixed(4)}`;
      pen = "L";
    });
    return path ? [shape("path", { d: path })] : [];
  }

  // ------------------------------------------------------------------------------------------------------- one step

  async function showStep(number) {
    const asked = ++state.asked;
    state.step = Math.min(Math.max(number, 1), Math.max(state.run.length, 1));
    $("slider").value = $("number").value = state.step;
    for (const cursor of document.querySelectorAll("#timeline .cursor")) {
      cursor.setAttribute("x1", state.step);
      cursor.setAttribute("x2", state.step);
    }
    $("first").disabled = $("previous").disabled = state.step <= 1;
    $("last").disabled = $("next").disabled = state.step >= state.run.length;
    const record = state.run.length ? await stepRecord(state.step) : null;
    if (asked !== state.asked) return;
    $("step").replaceChildren(...(record ? describe(record) : [element("p", {}, "This run has no steps yet.")]));
    $("step").dataset.step = state.step;
  }

  function describe(record) {
    const on = record.detectors.on || [];
    const pills = element("p", {},
      ...on.map((name) => element("span", { class: "pill event" }, name)),
      ...record.shocks.map((shock) => element("span", { class: "pill" }, `shock: ${shock.type} (${shock.status})`)),
      element("span", { class: "pill" }, `parse: ${record.parse}`),
      element("span", { class: "pill" }, `finish: ${record.finish_reason}`),
      element("span", { class: "pill" }, tokens(record)));
    const parts = [element("h3", {}, `Step ${record.step}${record.day === undefined ? "" : `, day ${record.day}`}`), pills];
    if (record.step === 1) parts.push(folded("System prompt", state.run.system_prompt));
    const action = `${record.tool ?? "no tool"} ${pretty(record.arguments)}`;
    const grid = element("div", { class: "grid" },
      block("Turn: what the agent was shown", turnText(record.turn)), block("Thought", record.thought || "–"),
      block("Prediction card", record.card ? pretty(record.card) : "none, or not valid"), block("Action", action),
      block(record.result.ok ? "Result" : "Result: failed", pretty(record.result), !record.result.ok),
      record.shocks.length ? block("Shocks", record.shocks.map(pretty).join("\n")) : "");
    parts.push(grid);
    if (record.resolved.length) parts.push(table("Claims settled at this step", ["claim", "made at step", "expected", "actual", "error"],
      record.resolved.map(claim)));
    parts.push(element("div", { class: "grid" }, errorTable(record.pe), detectorTable(record.detectors)));
    parts.push(folded("Raw completion", record.completion));
    return parts;
  }
  function claim({ type, made, expected, actual, pe }) {
    return { claim: type, "made at step": made, expected: named(expected), actual: named(actual), error: pe };
  }
  function named(value) {
    if (!Array.isArray(value) || value.length !== state.run.causal.length) return value;
    return value.map((one, place) => `${state.run.causal[place]} ${cell(one)}`).join(", ");
  }
  function pretty(value) {
    const short = JSON.stringify(value);
    return short.length < 70 ? short : JSON.stringify(value, null, 2);
  }
  const turnText = (turn) => turn.replaceAll(/^(RESULT|OBSERVATION) (.*)$/gm, (_, kind, body) => `${kind} ${pretty(JSON.parse(body))}`);
  function tokens(record) {
    const cached = record.cached_tokens === null ? "" : `, ${record.cached_tokens} cached`;
    const time = record.latency_s === null ? "" : `, ${record.latency_s.toFixed(2)} s`;
    return `${record.prompt_tokens} prompt tokens${cached}, ${record.completion_tokens} completion tokens${time}`;
  }
  function text(content) {
    const holder = element("div");
    const pre = element("pre", { tabindex: "0" });
    pre.textContent = content.length > LONG ? content.slice(0, LONG) : content;
    holder.append(pre);
    if (content.length > LONG) {
      const all = element("button", { type: "button", class: "all" }, `Show all ${content.length.toLocaleString("en")} characters`);
      all.addEventListener("click", () => { pre.textContent = content; all.remove(); });
      holder.append(all);
    }
    return holder;
  }
  function block(title, content, bad = false) {
    return element("section", {}, element("h4", bad ? { class: "bad" } : {}, title), text(content));
  }
  function folded(title, content) {
    return element("details", {}, element("summary", {}, title), text(content));
  }
  function table(title, columns, rows) {
    const head = element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)));
    const body = rows.map((row) => element("tr", {}, ...columns.map((name) => element("td", {}, cell(row[name])))));
    return element("section", {}, element("h4", {}, title), element("div", { class: "scroll", tabindex: "0" },
      element("table", {}, element("thead", {}, head), element("tbody", {}, ...body))));
  }
  function cell(value) {
    if (value === null || value === undefined) return "–";
    return typeof value === "number" ? String(Math.round(value * 1e4) / 1e4) : typeof value === "string" ? value : pretty(value);
  }
  function errorTable(pe) {
    const names = [...new Set(Object.values(pe).flatMap((series) => Object.keys(series ?? {})))];
    const rows = Object.entries(pe).map(([type, series]) => ({ type, ...(series ?? {}) }));
    return table("Accumulated prediction error", ["type", ...names], rows);
  }
  function detectorTable(detectors) {
    const on = new Set(detectors.on || []);
    const rows = Object.entries(detectors).filter(([name]) => name !== "on")
      .map(([detector, value]) => ({ detector, value, state: on.has(detector) ? "on" : "off" }));
    return table("Crash detectors", ["detector", "value", "state"], rows);
  }

  // ----------------------------------------------------------------------------------------------------- moving about

  function go(number) {
    const bounded = Math.min(Math.max(Math.round(number) || 1, 1), Math.max(state.run.length, 1));
    if (embedded()) { showStep(bounded); return; }
    history.replaceState(null, "", `#${address(state.run, bounded)}`);
    showStep(bounded);
  }
  function nextShock() {
    const shocks = state.run.timeline.shocks.map((shock) => shock[0]);
    if (shocks.length) go(shocks.find((step) => step > state.step) ?? shocks[0]);
  }
  const moves = {
    first: () => go(1), previous: () => go(state.step - 1), next: () => go(state.step + 1), last: () => go(state.run.length),
    shock: nextShock, crash: () => onset() && go(onset()),
  };
  const keys = { ArrowLeft: "previous", k: "previous", ArrowRight: "next", j: "next", Home: "first", End: "last", s: "shock", c: "crash" };

  function onKey(event) {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "range";
    if (!state.run || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.type === "range" && !/^[a-z]$/.test(event.key)) return;
    const move = keys[event.key];
    if (!move) return;
    event.preventDefault();
    moves[move]();
  }
  // An address of the dashboard: the filters of one cell, as key=value behind #where.
  function filterFrom(hash) {
    const wanted = new URLSearchParams(hash.slice("#where&".length));
    for (const box of $("filters").querySelectorAll("[data-key]")) {
      if (wanted.has(box.dataset.key)) box.value = wanted.get(box.dataset.key);
    }
    listRuns();
  }
  async function route() {
    if (location.hash.startsWith("#where&")) filterFrom(location.hash);
    const [, place, id, step] = location.hash.match(/^#run=(\d+)\/([^&]+)&step=(\d+)$/) || [];
    if (id === undefined) {
      document.querySelector(".app").classList.remove("reading");
      return;
    }
    const name = decodeURIComponent(id);
    try {
      if (!state.run || state.run.run_id !== name || state.run.place !== Number(place)) await openRun(Number(place), name);
      await showStep(Number(step));
    } catch (error) {
      $("name").textContent = error.message;
      $("episode").hidden = true;
    }
  }

  document.addEventListener("DOMContentLoaded", async () => {
    for (const [id, move] of Object.entries(moves)) $(id).addEventListener("click", move);
    $("slider").addEventListener("input", () => go($("slider").valueAsNumber));
    $("number").addEventListener("change", () => go($("number").valueAsNumber));
    $("back").addEventListener("click", () => { location.hash = ""; });
    $("more").addEventListener("click", () => { state.shown += LISTED; listRuns(); });
    document.addEventListener("keydown", onKey);
    const own = embedded();
    if (own) {
      [state.run, state.steps] = [own.episode, own.steps];
      showRun();
      await showStep(1);
    } else {
      state.runs = (await fetched("api/runs")).sort((a, b) => a.place - b.place || order(a.run_id, b.run_id));
      buildFilters();
      listRuns();
      addEventListener("hashchange", route);
      await route();
    }
    document.documentElement.dataset.ready = "yes";
  });
})();
